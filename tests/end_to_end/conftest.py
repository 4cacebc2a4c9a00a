"""Runs of the real command over the mixture, each made once and looked at by many tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest

from . import topology as tested
from .brokers import OwnBroker
from .logs import EmbeddedPlace, Got, KafkaPlace, Place, Sent
from .mixture import mixture
from .oracle import Answer, Features, Oracle
from .worker import environment, running

RECORDS = 2_000
SEED = 20_260_101
OUTPUTS = ("decisions", "payments.rejected", "features")
LOGS = ("log", pytest.param("kafka", marks=pytest.mark.kafka))


@dataclass(frozen=True)
class Run:
    """What a worker, stopped and started, made of the mixture: its answers by topic, its exit statuses."""

    place: Place
    answers: dict[str, list[Got]]
    statuses: list[int]
    stderr: str

    def by_offset(self, topic: str) -> dict[int, Got]:
        """A topic's answers by the offset of the payment that they answer."""
        return {int(got.source.rpartition("/")[2]): got for got in self.answers[topic]}


MakePlace = Callable[[str], Place]
MakeRun = Callable[[str], Run]
MakeBroker = Callable[..., OwnBroker]


def command(place: Place, state: Path, group: str = "workers") -> list[str]:
    """The arguments of a worker with the tested topology."""
    arguments = ["run", tested.__file__, "--emit-features", "--broker", place.url, "--state", str(state)]
    return [*arguments, "--group", f"{place.prefix}{group}"]


@pytest.fixture(scope="session")
def sent() -> list[Sent]:
    """The mixture."""
    return mixture(RECORDS, SEED)


@pytest.fixture(scope="session")
def expected(sent: list[Sent]) -> list[Answer]:
    """What the oracle says of each record of the mixture."""
    oracle = Oracle(tested.topology, {"card_surge": _surge})
    return [oracle.answer(offset, each.timestamp, each.value) for offset, each in enumerate(sent)]


@pytest.fixture(scope="session")
def make_place(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakePlace]:
    """Make an empty log of a kind, `log` or `kafka`; it is gone after the session."""
    with ExitStack() as stack:

        def make(kind: str) -> Place:
            prefix = f"e2e-{uuid4().hex[:12]}-"
            if kind == "log":
                return EmbeddedPlace(tmp_path_factory.mktemp("log"), prefix)
            place = KafkaPlace(broker, prefix)
            stack.enter_context(place.topics())
            return place

        yield make


@pytest.fixture(scope="session")
def make_run(make_place: MakePlace, sent: list[Sent], tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Run the mixture on a kind of log: stopped by SIGTERM on the way, started again, stopped at the end."""

    @cache
    def make(kind: str) -> Run:
        place = make_place(kind)
        place.send(sent)
        directory = tmp_path_factory.mktemp("run")
        arguments = command(place, directory / "state")
        # One record a batch is slow enough to be stopped on the way, and no later answer may depend on it.
        with running(
            arguments, environment(place.prefix, BUFFERS_BATCH_MAX_RECORDS="1"), directory / "first"
        ) as one:
            one.wait_taken(RECORDS // 5)
            statuses = [one.stop()]
        with running(arguments, environment(place.prefix), directory / "second") as two:
            two.wait_caught_up(place.prefix)
            statuses.append(two.stop())
        answers = {topic: place.read(topic) for topic in OUTPUTS}
        return Run(place, answers, statuses, one.stderr + two.stderr)

    return make


@pytest.fixture(scope="session")
def make_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeBroker]:
    """Start a broker with these properties; one with the same, if any, is the same. Stopped at the end."""
    started: dict[tuple[str, ...], OwnBroker] = {}

    def make(*properties: str) -> OwnBroker:
        if properties not in started:
            broker = OwnBroker(tmp_path_factory.mktemp("kafka"), *properties)
            broker.start()
            started[properties] = broker
        return started[properties]

    try:
        yield make
    finally:
        for broker in started.values():
            broker.stop()


@pytest.fixture(params=LOGS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of log in turn."""
    return str(request.param)


@pytest.fixture
def run(kind: str, make_run: MakeRun) -> Run:
    """The mixture's run on this kind of log."""
    return make_run(kind)


def _surge(features: Features) -> float | None:
    above, below = features["card_sum_amount_1h"], features["card_mean_amount_30d_before"]
    return above / below if above is not None and below else None
