"""No position passes an undelivered record, whatever becomes of the deliveries and in whatever order."""

import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.committer import Committer
from streamer.engine import Engine
from streamer.learning.learning import Learning
from streamer.metrics import Metrics
from streamer.parts import Parts
from streamer.state.store import Store, positions_of
from streamer.testing import Clock, Delivery, FakePublisher, hold, lose, refuse
from tests.test_committer import SETTINGS, TOPOLOGY
from tests.test_engine import payment, records_of

ROOM = 3
TURNS = 12

steps = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(1, 4)),
        st.tuples(st.just("confirm"), st.integers(0, 9)),
        st.tuples(st.sampled_from(["refuse", "lose"]), st.integers(0, 9)),
        st.tuples(st.just("slow"), st.just(300)),
        st.tuples(st.just("tick"), st.integers(1, 120)),
        st.tuples(st.just("stop"), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


class Worker:
    """A committer on a store, a broker that holds what it is sent, and what a crash would find."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.engine = Engine(TOPOLOGY, store, SETTINGS)
        learning = Learning(TOPOLOGY, store, SETTINGS, self.engine.identify)
        self.broker = FakePublisher(hold, room=ROOM)
        self.clock = Clock(100.0)
        self.failures: list[BaseException] = []
        self.group: list[int] = []
        parts = Parts(self.engine, learning, store, self.broker, Metrics(), SETTINGS)
        self.committer = Committer(parts, self.failures.append, self.clock)
        self.committer.group_commit = self._commit_group
        self.sent = 0
        self.work: list[asyncio.Future[None]] = []

    async def _commit_group(self, positions: object) -> bool:
        assert positions == positions_of(self.store.progress)
        self.group.append(self.stored)
        return True

    async def answer(self, count: int) -> None:
        """Decide and send, one batch at a time, as the agent does; a broken record is among them."""
        async with self.committer.gate:
            start, self.sent = self.sent, self.sent + count
            values = [b"{" if number % 5 == 4 else payment(number) for number in range(start, self.sent)]
            await self.committer.answer(self.engine.process(records_of(values, start)))

    @property
    def stored(self) -> int:
        """The payments position in the store, from which a crash would go on."""
        return positions_of(self.store.progress).get(("payments", 0), 0)

    def answered(self) -> Counter[int]:
        """How often each payment is answered in the topics."""
        found = Counter[int]()
        for rows in self.broker.topics.values():
            for _, _, headers in rows:
                found[int(dict(headers)["streamer_source"].rpartition(b"/")[2])] += 1
        return found

    def check(self) -> None:
        """Everything before the position, and before the group's, is answered in the topics, once."""
        found = self.answered()
        assert [found[offset] for offset in range(self.stored)] == [1] * self.stored
        assert all(offset <= self.stored for offset in self.group)

    async def take(self, step: tuple[str, int]) -> None:
        """One step of a schedule, and then whatever can run."""
        match step:
            case ("answer", count):
                self.work.append(asyncio.ensure_future(self.answer(count)))
            case ("tick" | "slow", milliseconds):
                self.clock.advance(milliseconds / 1000.0)
                self.work.append(asyncio.ensure_future(self._tick()))
            case ("stop", _):
                self.work.append(asyncio.ensure_future(self._commit()))
            case (fate, number):
                open_ = [one for one in self.broker.deliveries if one.open]
                if open_:
                    fates = {"confirm": Delivery.confirm, "refuse": refuse, "lose": lose}
                    fates[fate](open_[number % len(open_)])
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def _tick(self) -> None:
        async with self.committer.gate:  # without it, it would overtake a commit at a stop
            self.committer.start_if_due()

    async def _commit(self) -> None:
        async with self.committer.gate:
            await self.committer.commit()

    async def end(self) -> None:
        """Fall over: nothing that waits goes on."""
        for task in self.work:
            task.cancel()
        await asyncio.gather(*self.work, return_exceptions=True)
        for delivery in self.broker.deliveries:
            delivery.refuse()
        await self.committer.stop()


async def _follow(store: Store, schedule: list[tuple[str, int]]) -> Worker:
    worker = Worker(store)
    for step in schedule:
        await worker.take(step)
        worker.check()
    stored = worker.stored
    await worker.end()
    assert worker.stored == stored
    return worker


@settings(max_examples=25)
@given(steps)
def test_a_crash_at_any_moment_finds_every_answer_before_its_position(
    schedule: list[tuple[str, int]],
) -> None:
    """Acknowledgements late, refused, lost or out of order, a full buffer, commits by time and at a stop."""
    with tempfile.TemporaryDirectory() as path, Store.open(Path(path) / "state") as store:
        asyncio.run(_follow(store, schedule))


@pytest.mark.parametrize("fate", ["refuse", "lose"])
def test_the_position_stays_before_what_failed(tmp_path: Path, fate: str) -> None:
    """One delivery of many fails: what lies before it is stored, neither it nor anything after it."""
    schedule = [("answer", 4), ("confirm", 0), ("tick", 60), *[("confirm", 0)] * 2, ("answer", 3), (fate, 0)]
    schedule += [("tick", 60), ("answer", 2), ("confirm", 0), ("confirm", 0), ("tick", 60), ("stop", 0)]
    with Store.open(tmp_path / "state") as store:
        worker = asyncio.run(_follow(store, schedule))
    assert worker.stored == 4
    assert len(worker.failures) == 1


def test_a_broker_that_takes_300_ms_costs_time_and_nothing_else(tmp_path: Path) -> None:
    """Every acknowledgement 300 ms late, the buffer full most of the time: all is stored in the end."""
    draws = random.Random(2)
    schedule: list[tuple[str, int]] = []
    for _ in range(60):
        schedule += [("answer", draws.randrange(1, 5)), ("slow", 300), ("confirm", 0), ("confirm", 0)]
    schedule += [("confirm", 0)] * 60 + [("stop", 0)]
    with Store.open(tmp_path / "state") as store:
        worker = asyncio.run(_follow(store, schedule))
        assert (worker.stored, worker.failures) == (worker.sent, [])
        assert worker.sent > 100
