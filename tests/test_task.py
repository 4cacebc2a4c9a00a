"""A task's outcomes: what is refused of them is answered once, whoever reads them again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from river import linear_model

from streamer import Entity, Model, Policy, Topology, count, faults
from streamer.batch import Outgoing
from streamer.errors import StreamerError
from streamer.job import Job, Site, prepare_topics
from streamer.metrics import Metrics
from streamer.opening import Opener
from streamer.settings import Commit, Settings, Size, State
from streamer.state.log import Log
from streamer.state.store import positions_of
from streamer.task import Task
from streamer.transport.connect import LogConnection
from streamer.transport.threaded import LoopThread
from tests.chains import source_of
from tests.test_engine import NOW, payment

TOPOLOGY = Topology(
    "tested",
    [Model("fraud", [Entity("card", features=[count("1h")])], linear_model.LogisticRegression())],
    Policy("tested", 1),
)
SETTINGS = Settings(state=State(memory_budget=Size(1 << 24)), commit=Commit(interval_ms=1))
PARTITIONS = {"payments": 1, "outcomes": 1}


def told(payment_id: str) -> bytes:
    """A chargeback of a payment."""
    fields = {"outcome_id": "o", "payment_id": payment_id, "kind": "chargeback", "event_time": NOW}
    return msgspec.json.encode(fields)


OUTCOMES = (b"{", told("p1"), told("nobody"), b"", told("p2"), b"[]")
REFUSED = [f"outcomes/0/{offset}" for offset in (0, 2, 3, 5)]
"""Of these: what cannot be read, and what is of no payment; by hand."""


class Place:
    """An embedded log with payments and outcomes, and a state that one owner after the other works on."""

    def __init__(self, log: Log, path: Path) -> None:
        self.log = log
        self._connection = LogConnection(f"log://{path}/log")
        self._job = Job(TOPOLOGY, f"log://{path}/log", path / "state", "group", SETTINGS)
        prepare_topics(self._job, self._connection.admin(), embedded=True)
        payments = Outgoing("payments")
        for number in range(4):
            payments.append(None, msgspec.json.encode(payment(number)))
        outcomes = Outgoing("outcomes", 0, [None] * len(OUTCOMES), [*OUTCOMES], [()] * len(OUTCOMES))
        log.append_many([payments, outcomes])

    def end_offset(self, topic: str, partition: int) -> int:
        """As `Inputs` says."""
        return self.log.end_offset(topic, partition)

    async def feed(self, task: Task) -> None:
        """Give a task what it has not stored yet, and wait until it has worked it off."""
        for topic, work in (("payments", task.answer), ("outcomes", task.learn_from)):
            records = self.log.fetch(topic, 0, task.positions.get((topic, 0), 0), 1_000, 1 << 20)
            if len(records):
                await work(records)
        await task.tick()
        await task.caught_up()

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Task]:
        """A task on the state; failures of it are raised at the end."""
        site = Site(self._job, self._connection, PARTITIONS, Metrics(), "member")
        publisher = self._connection.publisher()
        await publisher.start()
        failures: list[BaseException] = []
        with LoopThread() as thread:
            parts = await Opener(site, publisher, thread).open(0)
            task = Task(parts, self, {topic: [0] for topic in PARTITIONS}, failures.append, lambda _: None)
            try:
                await task.start(self._nobody)
                yield task
            finally:
                await task.stop()
                await parts.close()
                await publisher.stop()
        assert failures == []

    @staticmethod
    async def _nobody(_: object) -> bool:
        return True

    @property
    def refused(self) -> list[str]:
        """Which outcomes have been answered, in order."""
        records = self.log.fetch("outcomes.rejected", 0, 0, 1_000, 1 << 20)
        return [source_of(headers) for headers in records.headers]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A log of its own; no fault is armed after it."""
    with Log.open(tmp_path / "log") as log:
        yield Place(log, tmp_path)
    faults.arm("")


@pytest.mark.parametrize("end", ["revoked", "handed over", "finished"])
def test_the_next_owner_answers_what_was_not_committed_and_nothing_else(place: Place, end: str) -> None:
    """However far an owner gets before its partitions move, each refused outcome is answered once."""

    async def scenario() -> None:
        async with place.owner() as one:
            await place.feed(one)
            if end == "handed over":
                await one.hand_over()
            await (one.finish() if end == "finished" else one.revoke())
        assert place.refused == ([] if end == "revoked" else REFUSED)
        async with place.owner() as two:
            await place.feed(two)
            await two.finish()

    asyncio.run(scenario())
    assert place.refused == REFUSED


@pytest.mark.parametrize("point", ["take_in.cut", "commit.confirmed", "commit.written", "take_in.written"])
def test_a_crash_repeats_no_rejection_and_loses_none(place: Place, point: str) -> None:
    """Before it is sent, after it, before and after it is stored: the next start makes up for the rest."""

    async def scenario() -> None:
        async with place.owner() as one:
            await place.feed(one)
            await one.revoke()  # payments are committed: the fault strikes where outcomes are taken in
            one.keep()
            faults.arm(f"{point}:1:fail")
            with pytest.raises(StreamerError, match=point):
                await one.hand_over()
        async with place.owner() as two:
            await place.feed(two)
            await two.finish()

    asyncio.run(scenario())
    assert place.refused == REFUSED


def test_positions_advance_where_outcomes_are_all_refused(place: Place) -> None:
    """A stop leaves nothing to read again, though nothing was joined."""
    place.log.append_many([Outgoing("outcomes", 0, [None], [b"{"], [()])])

    async def scenario() -> None:
        async with place.owner() as one:
            await place.feed(one)
            await one.hand_over()
            place.log.append_many([Outgoing("outcomes", 0, [None], [b"}"], [()])])
            await place.feed(one)
            await one.finish()
            assert positions_of(one.parts.store.progress)["outcomes", 0] == len(OUTCOMES) + 2

    asyncio.run(scenario())
    assert place.refused == [*REFUSED, "outcomes/0/6", "outcomes/0/7"]


def test_who_keeps_its_partitions_over_a_rebalance_answers_once(place: Place) -> None:
    """What is read again from the last commit was worked off, and waits to be handed over."""

    async def scenario() -> None:
        async with place.owner() as one:
            await place.feed(one)
            await one.revoke()
            await one.hand_over()
            assert place.refused == []  # another worker may have them now
            one.keep()
            await place.feed(one)
            await one.hand_over()
            assert place.refused == REFUSED
            await one.finish()

    asyncio.run(scenario())
    assert place.refused == REFUSED


def test_a_rebalance_beside_a_stop_leaves_a_closed_state_alone(place: Place) -> None:
    """It waits for the commit that is under way, and by then there is nothing to commit to."""

    async def scenario() -> None:
        async with place.owner() as task:
            await place.feed(task)
            stored = positions_of(task.parts.store.progress)
            await task.stop()
            await task.parts.close()
            await task.revoke()
            assert positions_of(task.parts.store.progress) == stored

    asyncio.run(scenario())
