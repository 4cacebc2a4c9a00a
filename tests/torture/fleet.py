"""One torture of a fleet: workers that share the partitions of a storm come, go, die and sleep meanwhile."""

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end.logs import KafkaPlace, Sent
from tests.end_to_end.reading import Unread, read, read_outcome
from tests.end_to_end.worker import Worker, environment

from . import topology as tested
from .pauses import Decided, longest, silences
from .run import LIMITS, SNAPSHOT_KEY
from .storm import Storm, storm
from .watch import Watch

EVENTS = ("kill", "add", "stop", "kill_for_good", "pause", "empty")
NOTHING = "nothing"
PATIENCE_S = 120.0
POLL_S = 0.05
QUIET_S = 1.0
FEED_S = 0.25
DECISIONS_FIRST = 50
INTERVALS = (20, 50)
LEAST_GAP_S, MOST_GAP_S = 0.5, 8.0


@dataclass(frozen=True)
class FleetPlan:
    """How many payments, at which rate a second, over which partitions and workers, with which events."""

    payments: int
    events: int
    seed: int
    partitions: int = 4
    workers: int = 2
    guarantee: str = "at_least_once"
    rate: int = 500
    standbys: int = 0
    only: tuple[str, ...] = EVENTS
    session_timeout: int = 6_000
    gap_s: tuple[float, float] = (LEAST_GAP_S, MOST_GAP_S)


@dataclass(frozen=True)
class Happened:
    """An event: what was done to which worker, and when it began, Unix s."""

    event: str
    worker: str
    at: float

    def __str__(self) -> str:
        return f"{self.event} {self.worker}"


@dataclass
class FleetRun:
    """What was sent where and when, what happened, and when answers were seen."""

    plan: FleetPlan
    place: KafkaPlace
    storm: Storm
    happened: list[Happened] = field(default_factory=list)
    payments: list[tuple[int, int]] = field(default_factory=list)
    outcomes: list[tuple[int, int]] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    decided: dict[str, float] = field(default_factory=dict)

    def pauses(self) -> dict[str, list[float]]:
        """By event, the longest time in which a partition decided nothing while payments waited.

        It belongs to what happened last before its middle.
        """
        decided = [
            Decided(partition, at, seen)
            for (partition, offset), at in zip(self.payments, self.sent_at, strict=True)
            if (seen := self.decided.get(f"{self.place.prefix}payments/{partition}/{offset}")) is not None
        ]
        all_silences = silences(decided)
        found: dict[str, list[float]] = {}
        ends = [each.at for each in self.happened[1:]] + [float("inf")]
        for each, end in zip(self.happened, ends, strict=True):
            found.setdefault(each.event, []).append(longest(all_silences, each.at, end))
        return found


class Fleet:
    """The workers of one group, each with a state directory of its own."""

    def __init__(self, plan: FleetPlan, place: KafkaPlace, directory: Path) -> None:
        self._plan = plan
        self._place = place
        self._directory = directory
        self.started = 0
        self._draws = random.Random(f"fleet {plan.seed}")
        self.workers: dict[str, Worker] = {}
        self.all: list[Worker] = []

    def add(self) -> str:
        """Start a worker on a directory that is not there yet; answers its name."""
        name = f"worker-{self.started}"
        self.start(name)
        return name

    def start(self, name: str) -> None:
        """Start a worker on the directory of this name."""
        plan, place = self._plan, self._place
        self.started += 1
        arguments = ["run", tested.__file__, "--emit-features", "--broker", place.url]
        arguments += ["--state", str(self._directory / name), "--group", f"{place.prefix}fleet"]
        arguments += ["--guarantee", plan.guarantee]
        env = environment(
            place.prefix,
            BUFFERS_BATCH_MAX_RECORDS=str(self._draws.choice((100, 1_000))),
            COMMIT_INTERVAL_MS=str(self._draws.choice(INTERVALS)),
            COMMIT_GROUP_COMMIT_INTERVAL_MS="100",
            COMMIT_FSYNC_INTERVAL_MS="500",
            EVENTS_ALLOWED_LATENESS=f"{LIMITS.allowed_lateness}ms",
            KAFKA_SESSION_TIMEOUT_MS=str(plan.session_timeout),
            MODELS_SNAPSHOT_INTERVAL_MS="500",
            MODELS_SNAPSHOT_KEY=SNAPSHOT_KEY,
            STATE_STANDBYS=str(plan.standbys),
        )
        worker = Worker(arguments, env, self._directory / f"stderr-{self.started}")
        self.workers[name] = worker
        self.all.append(worker)

    def kill(self, name: str) -> None:
        """End it with SIGKILL."""
        self.workers.pop(name).kill()

    def stop(self, name: str) -> None:
        """End it with SIGTERM once it heeds signals; raises AssertionError where it does not end well."""
        self.wait_for(lambda: self.workers[name].heeds_signals, f"{name} to run")
        worker = self.workers.pop(name)
        status = worker.stop()
        if status != 0:
            raise AssertionError(f"expected exit status 0 after SIGTERM, got {status}: {worker.stderr}")

    def empty(self, name: str) -> None:
        """Take a dead worker's directory away."""
        shutil.rmtree(self._directory / name)

    def check(self) -> None:
        """Raise AssertionError where a worker has ended by itself."""
        for name, worker in self.workers.items():
            if worker.process.poll() is not None:
                raise AssertionError(
                    f"{name}: expected a worker at work, got exit status {worker.process.returncode}:"
                    f" {worker.stderr}"
                )

    def lag(self) -> float | None:
        """Records that are there and not worked off, over all workers; `None` where one cannot tell."""
        lags = [worker.metric("streamer_lag_records") for worker in self.workers.values()]
        return None if None in lags else sum(each or 0.0 for each in lags)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something holds; raises AssertionError where it takes too long, or a worker ends."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                errors = "\n".join(f"{name}: {each.stderr}" for name, each in self.workers.items())
                raise AssertionError(f"waited {PATIENCE_S} s for {what}\n{errors}")
            time.sleep(POLL_S)


@contextmanager
def fleet_of(plan: FleetPlan, place: KafkaPlace, directory: Path) -> Iterator[Fleet]:
    """A fleet of `plan.workers`, ended whatever happens."""
    fleet = Fleet(plan, place, directory)
    try:
        for _ in range(plan.workers):
            fleet.add()
        yield fleet
    finally:
        for worker in fleet.all:
            if worker.process.poll() is None:
                worker.kill()


class Feeder:
    """Feeds a storm at a rate, from a thread of its own, payments before their outcomes."""

    def __init__(self, run: FleetRun) -> None:
        self._run = run
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._feed, daemon=True)

    def _feed(self) -> None:
        run, step = self._run, max(1, int(self._run.plan.rate * FEED_S))
        began = time.monotonic()
        for number, first in enumerate(range(0, run.plan.payments, step)):
            if self.stopped.wait(max(0.0, began + number * FEED_S - time.monotonic())):
                return
            last = min(first + step, run.plan.payments)
            payments = run.storm.payments[first:last]
            run.payments += run.place.spread([_keyed_payment(each) for each in payments])
            run.sent_at += [time.time()] * len(payments)
            outcomes = run.storm.outcomes_between(first, last)
            if outcomes:
                run.outcomes += run.place.spread([_keyed(each) for each in outcomes], "outcomes")


def _keyed_payment(sent: Sent) -> Sent:
    """Those of one id to one partition, whose order alone tells which of them is decided."""
    payment = read(sent.value, LIMITS.max_record_bytes)
    key = sent.key if isinstance(payment, Unread) else payment["payment_id"].encode()
    return Sent(sent.timestamp, key, sent.value, sent.headers)


def _keyed(sent: Sent) -> Sent:
    outcome = read_outcome(sent.value, LIMITS.max_record_bytes)
    name = outcome.payment_id if isinstance(outcome, Unread) else outcome["payment_id"]
    # A record needs one of both; what cannot be read may lie anywhere.
    key = (None if sent.value else b"none") if name is None else name.encode()
    return Sent(sent.timestamp, key, sent.value, sent.headers)


def torture_fleet(
    plan: FleetPlan, place: KafkaPlace, directory: Path, tell: Callable[[Happened], None] = lambda _: None
) -> FleetRun:
    """Feed at a rate while events happen to the workers; at the end all that is left is worked off.

    Raises AssertionError for a worker that ends by itself or badly, or that does not come to an end.
    """
    run = FleetRun(plan, place, storm(plan.payments, plan.seed))
    draws = random.Random(f"events {plan.seed}")
    feeder = Feeder(run)
    with fleet_of(plan, place, directory) as fleet:
        fleet.wait_for(
            lambda: None not in [one.metric("streamer_lag_records") for one in fleet.all], "a start"
        )
        with Watch(place) as watch:
            feeder.thread.start()
            try:
                fleet.wait_for(lambda: len(watch.seen) >= DECISIONS_FIRST, "the first answers")
                run.happened.append(Happened(NOTHING, "", time.time()))
                for number in range(plan.events):
                    event = plan.only[number % len(plan.only)]
                    _happen(event, fleet, run, draws, tell)
                    gap = time.monotonic() + draws.uniform(*plan.gap_s)
                    fleet.wait_for(lambda gap=gap: time.monotonic() > gap, "the next event")  # type: ignore[misc]
                while len(fleet.workers) < plan.workers:
                    fleet.add()
                while feeder.thread.is_alive():
                    fleet.check()
                    time.sleep(POLL_S)
                fleet.wait_for(lambda: len(watch.seen) >= plan.payments, "all answers")
                fleet.wait_for(lambda: _taken_in(run), "outcomes to be taken in")
                quiet = Quiet(fleet)
                fleet.wait_for(quiet.look, "a lag of 0")
            finally:
                feeder.stopped.set()
                feeder.thread.join()
            for name in list(fleet.workers):
                fleet.stop(name)
            run.decided = dict(watch.decided)
    for worker in fleet.all:
        if "Traceback" in worker.stderr:
            raise AssertionError(f"expected no traceback: {worker.stderr}")
    return run


def _happen(
    event: str, fleet: Fleet, run: FleetRun, draws: random.Random, tell: Callable[[Happened], None]
) -> None:
    names = sorted(fleet.workers)
    name = draws.choice(names)
    # Somebody has to be left, and not too many, since a machine has but so many cores.
    if event in {"stop", "kill_for_good"} and len(names) < 2:
        event = "add"
    elif event == "add" and len(names) > run.plan.workers:
        event = "stop"
    happened = Happened(event, f"worker-{fleet.started}" if event == "add" else name, time.time())
    run.happened.append(happened)
    tell(happened)
    if event == "add":
        fleet.add()
    elif event == "stop":
        fleet.stop(name)
    elif event == "pause":
        _pause(fleet, name, run.plan.session_timeout / 1_000 * draws.uniform(1.2, 2.0))
    else:
        fleet.kill(name)
        if event == "kill_for_good":
            gone = time.monotonic() + run.plan.session_timeout / 1_000 * 1.5
            fleet.wait_for(lambda: time.monotonic() > gone, "the end of a session")
            return
        if event == "empty":
            fleet.empty(name)
        fleet.start(name)


class Quiet:
    """Whether nothing has been left to do for a while: what others are told of comes a moment later."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._looks = 0

    def look(self) -> bool:
        """Look once more."""
        self._looks = self._looks + 1 if self._fleet.lag() == 0.0 else 0
        return self._looks * POLL_S >= QUIET_S


def _taken_in(run: FleetRun) -> bool:
    """Whether the group has committed all outcomes, which it does once what they tell is stored."""
    committed = run.place.committed(f"{run.place.prefix}fleet", "outcomes")
    return all(committed.get(partition, 0) > offset for partition, offset in run.outcomes)


def _pause(fleet: Fleet, name: str, seconds: float) -> None:
    worker = fleet.workers[name]
    worker.process.send_signal(signal.SIGSTOP)
    over = time.monotonic() + seconds
    try:
        fleet.wait_for(lambda: time.monotonic() > over, "the end of a pause")
    finally:
        worker.process.send_signal(signal.SIGCONT)
