"""Commits: nothing is stored before its answers are delivered, nothing at all after one was not."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from river import linear_model

from streamer import Entity, Model, Policy, Topology, count
from streamer.batch import Outgoing
from streamer.committer import Committer
from streamer.engine import Engine
from streamer.errors import StreamerError
from streamer.journal import JournalEntry
from streamer.learning.learning import Learning
from streamer.metrics import Metrics
from streamer.models.learner import Learner
from streamer.parts import Parts
from streamer.scoring import Taken
from streamer.settings import Commit, Settings, Size, State
from streamer.state.decided import DecidedBatches
from streamer.state.store import MODELS, Position, Row, Store, positions_of
from streamer.transport.seam import Delivered
from tests.chains import Job, Log, spread
from tests.test_engine import NOW, payment, records_of

SETTINGS = Settings(
    state=State(memory_budget=Size(1 << 24)),
    commit=Commit(
        interval_ms=50, max_dirty_rows=100, fsync_interval_ms=100_000, group_commit_interval_ms=1_000
    ),
)
cards = Entity("card", features=[count("1h")])
fraud = Model("fraud", [cards], linear_model.LogisticRegression())
TOPOLOGY = Topology("tested", [fraud], Policy("tested", 1))


class Slow:
    """A publisher whose deliveries are confirmed, or fail, when the test says so."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.deliveries: list[asyncio.Future[Delivered]] = []
        self.at_once = False
        self.refuses = False

    async def start(self) -> None:
        """There is nothing to connect."""

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """Take the records; what is returned ends with `confirm` or `lose`."""
        if self.refuses:
            raise ConnectionError("no broker")
        delivery: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        self.sent.append(outgoing)
        self.deliveries.append(delivery)
        if self.at_once:
            delivery.set_result({})
        return delivery

    async def stop(self) -> None:
        """There is nothing to disconnect."""

    def confirm(self, *numbers: int) -> None:
        """Let these deliveries come through; by default all that are still open."""
        for number in numbers or range(len(self.deliveries)):
            if not self.deliveries[number].done():
                self.deliveries[number].set_result({})

    def lose(self, number: int) -> None:
        """Let this delivery fail."""
        self.deliveries[number].set_exception(ConnectionError("broker gone"))

    @property
    def topics(self) -> list[str]:
        """Where it was sent, in order."""
        return [outgoing.topic for outgoing in self.sent]


@dataclass
class Bench:
    """A committer and all it moves, with a clock set by hand."""

    store: Store
    engine: Engine
    publisher: Slow
    committer: Committer
    failures: list[BaseException]
    groups: list[Mapping[Position, int]]
    now: list[float]
    offset: int = 0

    async def answer(self, count: int = 1) -> None:
        """Decide a batch of new payments and hand the answers over, as an agent does."""
        async with self.committer.gate:
            values = [payment(self.offset + number) for number in range(count)]
            answer = self.engine.process(records_of(values, self.offset))
            self.offset += count
            await self.committer.answer(answer)

    async def take_in(self, taken: Taken) -> None:
        """Let outcomes be taken in, as a task does."""
        async with self.committer.gate:
            await self.committer.take_in(taken)

    @property
    def stored(self) -> int:
        """The payments position in the store."""
        return positions_of(self.store.progress).get(("payments", 0), 0)

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now[0] += seconds


def bench_on(store: Store, shards: int = 1) -> Bench:
    """A bench on a store, of a job of so many shards."""
    engine = Engine(TOPOLOGY, store, SETTINGS)
    learning = Learning(TOPOLOGY, store, SETTINGS, engine.identify)
    publisher = Slow()
    failures: list[BaseException] = []
    now = [100.0]
    parts = Parts(engine, learning, store, publisher, Metrics(), SETTINGS, shards=shards)
    committer = Committer(parts, failures.append, lambda: now[0])
    return Bench(store, engine, publisher, committer, failures, [], now)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench on a new store."""
    with Store.open(tmp_path / "state") as store:
        yield bench_on(store)


async def until(condition: Callable[[], bool]) -> None:
    """Let everything run, threads too, until it is so."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Any]) -> None:
    """Run a coroutine, at most ten seconds."""
    asyncio.run(asyncio.wait_for(scenario(), 10.0))


def snapshot_taken(version: int = 1) -> Taken:
    """A snapshot and a row to take in."""
    learner = Learner("fraud", fraud.learner, fraud.features)
    encoded = learner.snapshot(version).encode(b"k" * 16)
    rows: list[Row] = [(b"\4fraud", encoded)]
    positions = {("outcomes", 0): 5}
    return Taken(rows, positions, {"fraud": (version, learner.scorer())}, {"fraud": encoded})


def test_nothing_is_stored_before_every_delivery_is_confirmed(bench: Bench) -> None:
    """A cut waits for all answers up to it, and is stored once the last one is there."""

    async def scenario() -> None:
        await bench.answer()
        await bench.answer()
        bench.tick(0.06)
        await bench.answer()
        await turns()
        assert bench.stored == 0
        bench.publisher.confirm(0)
        bench.publisher.confirm(2)
        await turns()
        assert bench.stored == 0
        bench.publisher.confirm(1)
        await turns()
        assert bench.stored == 3

    run(scenario)
    assert bench.failures == []
    assert bench.publisher.topics == ["decisions"] * 3


def test_a_commit_takes_what_was_answered_up_to_it(bench: Bench) -> None:
    """Payments answered while a commit waits are in the next one."""

    async def scenario() -> None:
        bench.tick(0.06)
        await bench.answer()
        bench.tick(0.06)
        await bench.answer(2)
        bench.publisher.confirm(0)
        await turns()
        assert bench.stored == 1
        await bench.answer()
        bench.publisher.confirm()
        await turns()
        assert bench.stored == 4

    run(scenario)


def test_a_commit_is_begun_by_time_or_by_rows(bench: Bench) -> None:
    """Neither before the interval nor before so many changed rows."""

    async def scenario() -> None:
        bench.publisher.at_once = True
        await bench.answer()
        await turns()
        assert bench.stored == 0
        await bench.answer(100)
        await turns()
        assert bench.stored == 101
        bench.tick(0.049)
        await bench.answer()
        await turns()
        assert bench.stored == 101
        bench.tick(0.002)
        bench.committer.start_if_due()
        await turns()
        assert bench.stored == 102

    run(scenario)


@pytest.mark.parametrize(("shards", "rarer"), [(1, 1), (4, 4), (8, 8), (64, 8)])
def test_each_of_several_shards_commits_less_often(tmp_path: Path, shards: int, rarer: int) -> None:
    """By time and by rows, so many times, whatever worker the others are at; there is an end to it."""

    async def scenario(bench: Bench) -> None:
        bench.publisher.at_once = True
        bench.tick(0.05 * rarer - 0.001)
        await bench.answer()
        await turns()
        assert bench.stored == 0
        bench.tick(0.002)
        bench.committer.start_if_due()
        await turns()
        assert bench.stored == 1
        await bench.answer(100 * rarer)  # of which each is a row or more
        await turns()
        assert bench.stored == 1 + 100 * rarer

    with Store.open(tmp_path / "state") as store:
        bench = bench_on(store, shards)
        run(lambda: scenario(bench))


def test_rejections_and_other_records_are_waited_for(bench: Bench) -> None:
    """Not decisions alone: whatever was sent before the cut has to be there."""

    async def scenario() -> None:
        async with bench.committer.gate:
            answer = bench.engine.process(records_of([payment(1), b"{"]))
            await bench.committer.answer(answer)
        other = Outgoing("outcomes.rejected")
        other.append(b"p", b"v")
        await bench.committer.send(other)
        await bench.committer.send(Outgoing("outcomes.rejected"))
        assert bench.publisher.topics == ["decisions", "payments.rejected", "outcomes.rejected"]
        bench.tick(0.06)
        bench.committer.start_if_due()
        bench.publisher.confirm(0)
        bench.publisher.confirm(2)
        await turns()
        assert bench.stored == 0
        bench.publisher.confirm(1)
        await turns()
        assert bench.stored == 2

    run(scenario)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_delivery_ends_the_worker(bench: Bench, lost: int) -> None:
    """It is told with the remedy, and nothing of its cut is stored."""

    async def scenario() -> None:
        await bench.answer()
        bench.tick(0.06)
        await bench.answer()
        bench.publisher.confirm(1 - lost)
        bench.publisher.lose(lost)
        await turns()

    run(scenario)
    assert bench.stored == 0
    (failure,) = bench.failures
    assert isinstance(failure, StreamerError)
    assert str(failure) == (
        "an answer could not be delivered: broker gone; nothing after it was committed,"
        " so starting again repeats it"
    )


@pytest.mark.parametrize("how", ["by time", "at a stop", "with outcomes"])
def test_nothing_is_stored_after_a_lost_delivery(bench: Bench, how: str) -> None:
    """What is answered until the worker ends is not stored either: its position lies behind the lost one."""

    async def scenario() -> None:
        bench.tick(0.06)
        await bench.answer()
        bench.publisher.lose(0)
        await turns()
        assert len(bench.failures) == 1
        bench.publisher.at_once = True
        try:
            bench.tick(0.06)
            await bench.answer()
            match how:
                case "at a stop":
                    await bench.committer.commit()
                case "with outcomes":
                    await bench.take_in(Taken())
                case _:
                    bench.committer.start_if_due()
        except StreamerError:
            pass
        await turns()
        await bench.committer.stop()

    run(scenario)
    assert bench.stored == 0


def test_nothing_is_stored_after_a_send_that_was_refused(bench: Bench) -> None:
    """Answers that were never handed over are not stored as given, although their batch was processed."""

    async def scenario() -> None:
        bench.publisher.refuses = True
        bench.tick(0.06)
        with pytest.raises(ConnectionError):
            await bench.answer()
        bench.publisher.refuses = False
        bench.committer.start_if_due()
        await turns()
        await bench.committer.stop()

    run(scenario)
    assert bench.stored == 0


def test_a_store_that_refuses_ends_the_worker(bench: Bench) -> None:
    """A full disk is told, not swallowed beside the stream."""

    async def scenario() -> None:
        bench.tick(0.06)
        await bench.answer()
        bench.store.close()
        bench.publisher.confirm()
        await turns()

    run(scenario)
    assert len(bench.failures) == 1


def test_an_idle_committer_shows_that_it_lives(bench: Bench) -> None:
    """Once an hour it commits though nothing has happened, and at no other time."""

    async def scenario() -> None:
        for seconds, commits in ((1.0, 0), (3_598.0, 0), (1.0, 1), (3_599.0, 1), (1.0, 2)):
            bench.tick(seconds)
            async with bench.committer.gate:
                await bench.committer.idle()
            await bench.committer.stop()
            assert bench.store.progress.commits == commits

    run(scenario)


def test_a_stop_waits_for_the_deliveries_and_commits_the_group(bench: Bench) -> None:
    """The last commit stores everything answered, in order, and then tells the group."""

    async def group(positions: Mapping[Position, int]) -> bool:
        bench.groups.append(dict(positions))
        assert bench.stored == positions["payments", 0]
        return True

    async def scenario() -> None:
        bench.committer.group_commit = group
        bench.tick(0.06)
        await bench.answer()
        await bench.answer(2)
        stopping = asyncio.ensure_future(bench.committer.commit())
        await turns()
        assert (bench.stored, stopping.done()) == (0, False)
        bench.publisher.confirm(1)
        await turns()
        assert bench.stored == 0
        bench.publisher.confirm(0)
        await stopping
        assert bench.stored == 3

    run(scenario)
    assert bench.groups[-1] == {("payments", 0): 3}


def test_the_group_is_told_at_its_interval_and_again_where_it_refused(bench: Bench) -> None:
    """Offsets of the group follow the store, seldom, and never lead it."""
    willing = [False, True, True, True]

    async def group(positions: Mapping[Position, int]) -> bool:
        bench.groups.append(dict(positions))
        return willing.pop(0)

    async def scenario() -> None:
        bench.committer.group_commit = group
        bench.publisher.at_once = True
        for seconds in (0.06, 1.1, 0.06, 1.1, 1.1):
            bench.tick(seconds)
            await bench.answer()
            await turns()
        assert bench.stored == 5
        await bench.committer.commit()

    run(scenario)
    assert [positions["payments", 0] for positions in bench.groups] == [2, 4, 5, 5]


def test_taking_in_holds_the_stream_until_it_is_stored_and_journaled(bench: Bench) -> None:
    """No payment is answered by a snapshot before snapshot, position and journal are safe, in this order."""

    async def scenario() -> None:
        await bench.answer(2)
        taking = asyncio.ensure_future(bench.take_in(snapshot_taken()))
        await turns()
        waiting = asyncio.ensure_future(bench.answer())
        await turns()
        assert (bench.publisher.topics, bench.stored) == (["decisions"], 0)
        bench.publisher.confirm(0)
        await until(lambda: len(bench.publisher.topics) > 1)
        assert (bench.publisher.topics, bench.stored) == (["decisions", "models"], 2)
        assert bench.store.progress.models == {"fraud": 1}
        assert positions_of(bench.store.progress) == {("payments", 0): 2, ("outcomes", 0): 5}
        bench.publisher.confirm(1)
        await turns()
        assert bench.publisher.topics == ["decisions", "models", "journal"]
        assert not waiting.done()
        bench.publisher.confirm(2)
        await taking
        await waiting
        assert bench.publisher.topics == ["decisions", "models", "journal", "decisions"]

    run(scenario)
    sent = bench.publisher.sent
    models = [msgspec.json.decode(sent[at].values[0] or b"")["models"] for at in (0, 3)]
    assert models == [{"fraud": "0"}, {"fraud": "1"}]
    entry = JournalEntry.decode(sent[2].keys[0], sent[2].values[0] or b"")
    assert (entry.payments, entry.outcomes, entry.models) == (
        {"payments/0": 2},
        {"outcomes/0": 5},
        {"fraud": 1},
    )
    assert sent[1].keys == [b"fraud"]


def test_taking_in_waits_for_the_commit_under_way(bench: Bench) -> None:
    """Two cuts are stored in the order in which they were made."""

    async def scenario() -> None:
        bench.tick(0.06)
        await bench.answer()
        await bench.answer()
        taking = asyncio.ensure_future(bench.take_in(snapshot_taken()))
        await turns()
        bench.publisher.confirm(1)
        await turns()
        assert bench.stored == 0
        bench.publisher.confirm(0)
        await turns()
        assert bench.stored == 2
        bench.publisher.at_once = True
        bench.publisher.confirm()
        await taking

    run(scenario)


def test_taking_in_that_is_cancelled_leaves_no_gap(bench: Bench) -> None:
    """A stop in the midst of it: its cut is stored, or nothing after it; never the position alone."""

    async def scenario() -> None:
        await bench.answer()
        taking = asyncio.ensure_future(bench.take_in(snapshot_taken()))
        await turns()
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        bench.publisher.at_once = True
        bench.publisher.confirm()
        with contextlib.suppress(StreamerError, asyncio.CancelledError):
            await bench.committer.commit()

    run(scenario)
    (snapshot,) = bench.store.get_many([b"\4fraud"])
    (found,) = DecidedBatches(bench.store).find(bench.engine.identify(["p0"]))
    stored = bench.stored == 1
    assert (snapshot is not None, found is not None, bool(bench.store.progress.models)) == (stored,) * 3


def test_a_failure_while_taking_in_reaches_its_caller(bench: Bench) -> None:
    """The agent that hands over learns of it, and the snapshot is not stored."""

    async def scenario() -> None:
        await bench.answer()
        bench.publisher.lose(0)
        with pytest.raises(StreamerError, match="could not be delivered: broker gone"):
            await bench.take_in(snapshot_taken())

    run(scenario)
    assert bench.stored == 0
    assert bench.store.progress.models == {}


def test_a_start_sends_the_last_journal_entry_again(tmp_path: Path) -> None:
    """A crash between store and journal leaves no gap: snapshots and entry are sent again, byte for byte."""
    with Store.open(tmp_path / "state") as store:
        bench = bench_on(store)

        async def crashed() -> None:
            await bench.committer.resume()
            assert bench.publisher.sent == []
            bench.publisher.at_once = True
            await bench.answer()
            await bench.take_in(snapshot_taken())
            bench.tick(0.06)
            await bench.answer()
            await turns()

        run(crashed)
        assert bench.stored == 2
    journaled = [outgoing for outgoing in bench.publisher.sent if outgoing.topic == "journal"]
    with Store.open(tmp_path / "state") as store:
        again = bench_on(store)
        again.publisher.at_once = True
        run(again.committer.resume)
    resent = [outgoing for outgoing in again.publisher.sent if outgoing.topic == "journal"]
    assert resent == journaled
    assert len(resent) == 1


@pytest.mark.parametrize(("number", "resent"), [(0, ["models", "journal"]), (1, ["journal"])])
def test_a_shard_journals_where_it_decides(tmp_path: Path, number: int, resent: list[str]) -> None:
    """Its entry names the partition of the last stage; only the school's snapshots are its own to publish."""
    log = Log(2)
    given = [msgspec.json.encode(payment(place)) for place in range(20)]
    spread(log, [(place % 2, NOW, value, ()) for place, value in enumerate(given)])
    job = Job(tmp_path, TOPOLOGY, SETTINGS, log, random.Random(1))
    job.run()
    worker = job.workers[number]

    def committer() -> tuple[Committer, Slow]:
        publisher = Slow()
        publisher.at_once = True
        parts = Parts(worker.shard, worker.learning, worker.store, publisher, Metrics(), SETTINGS)
        return Committer(parts, lambda _: None), publisher

    learner = Learner("fraud", fraud.learner, fraud.features)
    encoded = learner.snapshot(1).encode(worker.store.secret)
    taken = Taken([(MODELS + b"fraud", encoded)], {("outcomes", number): 5}, {"fraud": (1, learner.scorer())})

    async def take_in() -> list[Outgoing]:
        made, publisher = committer()
        await made.take_in(taken)
        return publisher.sent

    async def resume() -> list[Outgoing]:
        made, publisher = committer()
        await made.resume()
        return publisher.sent

    (sent,) = asyncio.run(take_in())
    entry = JournalEntry.decode(sent.keys[0], sent.values[0] or b"")
    decided = log.end("stages.score", number)
    assert decided > 0
    assert entry.payments == {f"stages.score/{number}": decided}
    assert (entry.outcomes, entry.models) == ({f"outcomes/{number}": 5}, {"fraud": 1})
    worker.crash()
    assert [outgoing.topic for outgoing in asyncio.run(resume())] == resent
    job.close()


def test_a_waiting_task_is_told_of_each_commit(bench: Bench) -> None:
    """`committed` wakes whoever waits for the position in the store."""

    async def scenario() -> None:
        async def wait() -> int:
            async with bench.committer.committed:
                await bench.committer.committed.wait()
            return bench.stored

        waiting = asyncio.ensure_future(wait())
        await turns()
        bench.tick(0.06)
        await bench.answer()
        await turns()
        assert not waiting.done()
        bench.publisher.confirm()
        assert await waiting == 1

    run(scenario)
