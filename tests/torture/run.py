"""One torture: a storm, fed piece by piece to a worker that is killed again and again."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.acceptance import Limits
from tests.end_to_end.logs import Got, Place
from tests.end_to_end.worker import Worker, environment, running

from . import topology as tested
from .kills import MOST_VISITS, Kill, kills
from .storm import MINUTE, Storm, storm

LIMITS = Limits(allowed_lateness=50 * MINUTE)
SNAPSHOT_KEY = "the key of a storm in a test"
TOPICS = ("payments", "outcomes", "models", "journal")
"""Topics that are made before a worker on Kafka, so that nothing of them is compacted away."""

BATCHES = (1, 3, 10, 40, 200)
INTERVALS = (1, 10)
ROWS = (5, 100, 1_000)
REDO = (0, 50, 1_000_000)
MEMORY = ("64KiB", "1GiB")
AT_LAST = {"BUFFERS_BATCH_MAX_RECORDS": "1000", "STATE_MEMORY_BUDGET": "1GiB"}


@dataclass(frozen=True)
class Plan:
    """How many payments and kills, from which seed; `points` is `all` or `random`; the timeout is in ms."""

    payments: int
    kills: int
    seed: int
    points: str = "all"
    hot: bool = False
    session_timeout: int = 6_000

    @property
    def segment(self) -> int:
        """Payments from one kill to the next."""
        return self.payments // (self.kills + 1)


@dataclass(frozen=True)
class Struck:
    """A kill that was done: whether it hit its point, and when the worker was dead and fed again, Unix ms."""

    kill: Kill
    as_meant: bool
    dead: float
    fed: float

    def __str__(self) -> str:
        return f"{self.kill.point}:{self.kill.count}{'' if self.as_meant else ' (from outside)'}"


@dataclass
class Run:
    """What was sent, and which kills were done."""

    plan: Plan
    place: Place
    storm: Storm
    struck: list[Struck] = field(default_factory=list)

    def pauses(self, decisions: Sequence[Got]) -> list[float]:
        """Seconds from each kill to the first decision of another payment; feeding the log does not count.

        A worker that is killed before it decides anything new adds to no pause.
        """
        new: dict[str, int] = {}
        for got in decisions:
            new.setdefault(got.source, got.timestamp)
        ends = [*(struck.dead for struck in self.struck[1:]), float("inf")]
        found = []
        for struck, end in zip(self.struck, ends, strict=False):
            first = min((at for at in new.values() if at >= struck.dead), default=end)
            if first < end:
                found.append((first - max(struck.fed, struck.dead)) / 1_000)
        return found


def torture(
    plan: Plan, place: Place, directory: Path, tell: Callable[[Struck], None] = lambda _: None
) -> Run:
    """Feed, kill, start again; the last worker finishes and is stopped by SIGTERM. `tell` hears of each kill.

    Raises AssertionError for a worker that ends by itself, does not come back or ends badly.
    """
    made = storm(plan.payments, plan.seed, hot=plan.hot)
    run = Run(plan, place, made)
    draws = random.Random(f"kills {plan.seed}")
    feeding = _feed(plan, place, made)
    next(feeding)
    arguments = ["run", tested.__file__, "--emit-features", "--broker", place.url]
    arguments += ["--state", str(directory / "state"), "--group", f"{place.prefix}tortured"]
    embedded = place.url.startswith("log:")
    for kill in kills(plan.kills, plan.segment, plan.points, draws, embedded=embedded):
        env = environment(place.prefix, TESTING_FAULTS=kill.faults, **_settings(plan, draws))
        with running(arguments, env, directory / "stderr") as worker:
            as_meant = kill.strike(worker, lambda worker: not Lags(worker, place).look(), plan.segment)
            dead = time.time() * 1_000
        _check_stderr(worker)
        next(feeding)
        run.struck.append(Struck(kill, as_meant, dead, time.time() * 1_000))
        tell(run.struck[-1])
    # What has piled up while others were killed is for one that works at its full speed.
    env = environment(place.prefix, **_settings(plan, draws) | AT_LAST)
    with running(arguments, env, directory / "stderr") as worker:
        lags = Lags(worker, place)
        worker.wait_for(lags.look, lambda: lags.seen)
        status = worker.stop()
    _check_stderr(worker)
    if status != 0:
        raise AssertionError(f"expected exit status 0 after SIGTERM, got {status}: {worker.stderr}")
    return run


def _feed(plan: Plan, place: Place, made: Storm) -> Iterator[int]:
    """Append one segment after the other, each payment before its outcomes; answers where each ends."""
    first = 0
    for number in range(plan.kills + 1):
        last = first + plan.segment if number < plan.kills else plan.payments
        place.send(made.payments[first:last])
        place.send(made.outcomes_between(first, last), "outcomes")
        yield last
        first = last


def _settings(plan: Plan, draws: random.Random) -> dict[str, str]:
    """Settings under which all that a worker does is done often, some of them drawn anew for each worker."""
    return {
        "BUFFERS_BATCH_MAX_RECORDS": str(draws.choice(_batches(plan))),
        "COMMIT_GROUP_COMMIT_INTERVAL_MS": "1",
        "COMMIT_INTERVAL_MS": str(draws.choice(INTERVALS)),
        "COMMIT_FSYNC_INTERVAL_MS": "100",
        "COMMIT_MAX_DIRTY_ROWS": str(draws.choice(ROWS)),
        "COMMIT_REDO_PAYMENTS": str(draws.choice(REDO)),
        "EVENTS_ALLOWED_LATENESS": f"{LIMITS.allowed_lateness}ms",
        "KAFKA_SESSION_TIMEOUT_MS": str(plan.session_timeout),
        "MODELS_SNAPSHOT_INTERVAL_MS": "50",
        "MODELS_SNAPSHOT_KEY": SNAPSHOT_KEY,
        "STATE_MEMORY_BUDGET": draws.choice(MEMORY),
    }


def _batches(plan: Plan) -> list[int]:
    """Sizes of batches so small that a segment has enough of them for any kill."""
    return [size for size in BATCHES if size * MOST_VISITS["answer"] <= plan.segment] or [1]


class Lags:
    """How far a worker is behind, of payments and of outcomes; `seen` at the last look."""

    def __init__(self, worker: Worker, place: Place) -> None:
        self._worker = worker
        self._topics = [f"{place.prefix}{name}" for name in ("payments", "outcomes")]
        self.seen: list[float | None] = []

    def look(self) -> bool:
        """Whether it has worked off all there is."""
        self.seen = [self._worker.metric("streamer_lag_records", topic=topic) for topic in self._topics]
        return self.seen == [0.0, 0.0]


def _check_stderr(worker: Worker) -> None:
    if "Traceback" in worker.stderr:
        raise AssertionError(f"expected no traceback: {worker.stderr}")
