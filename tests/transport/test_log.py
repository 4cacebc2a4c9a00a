"""The embedded log behind Faust: a real app reads its batches, from the store's positions, in bounds."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from streamer.batch import Outgoing
from streamer.errors import ConfigError, StateError, StreamerError
from streamer.partitioning import partitions_of
from streamer.state import synced
from streamer.state.log import Log
from streamer.transport import log as transport
from streamer.transport.log_admin import LogAdmin
from streamer.transport.log_publisher import LogPublisher
from streamer.transport.seam import Buffer, TopicSpec

EVERYTHING = {("in", 0), ("in", 1)}

transport.register()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A log with a topic `in` of two partitions, in a directory whose name a URL would not leave alone."""
    with Log.open(tmp_path / "Log, of; mine%20") as opened:
        opened.create_topic("in", 2)
        yield opened


@pytest.fixture
def sink(log: Log, make_sink: Callable[..., Any]) -> Any:
    """A worker on topic `in` that takes at most 100 records at once."""
    return make_sink(
        transport.broker_url(log.path), "group", ["in"], batch_max_records=100, buffer=Buffer(1 << 16)
    )


def fill(log: Log, partition: int, count: int, size: int = 1) -> None:
    """Append values that are their offsets, repeated."""
    outgoing = Outgoing("in", partition)
    end = log.end_offset("in", partition)
    for offset in range(end, end + count):
        outgoing.append(None, b"%d" % offset * size)
    log.append(outgoing)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run one asynchronous test."""
    asyncio.run(test())


def test_an_app_reads_whole_batches(log: Log, sink: Any, eventually: Any) -> None:
    """Every record of every partition arrives once, in order, in batches within the limit, as appended."""

    async def test() -> None:
        fill(log, 0, 950)
        fill(log, 1, 50)
        async with sink.running():
            await eventually(lambda: sum(map(len, sink.batches)) >= 1000)
        assert sink.offsets("in", 0) == list(range(950))
        assert sink.offsets("in", 1) == list(range(50))
        assert [len(batch) for batch in sink.batches if batch.partition == 0] == [100] * 9 + [50]
        for batch in sink.batches:
            assert batch == log.fetch("in", batch.partition, batch.offsets[0], 100)
        assert {batch.partition for batch in sink.batches[:2]} == {0, 1}  # the small one need not wait

    run(test)


def test_hooks_fire_as_on_kafka(log: Log, sink: Any) -> None:
    """Nothing revoked, all assigned, rebalance complete with a generation, and the shutdown hook last."""
    events: list[Any] = []

    async def on_revoked(_: Any, revoked: Any, **__: Any) -> None:
        events.append(("revoked", set(revoked)))

    async def on_assigned(_: Any, assigned: Any, **__: Any) -> None:
        events.append(("assigned", set(assigned)))

    async def on_complete(app: Any, **_: Any) -> None:
        events.append(("complete", app.consumer.assignment(), app.consumer_generation_id))

    async def on_before_shutdown(*_: Any, **__: Any) -> None:
        events.append(("shutdown", log.end_offset("in", 0)))

    sink.app.on_partitions_revoked.connect(on_revoked)
    sink.app.on_partitions_assigned.connect(on_assigned)
    sink.app.on_rebalance_complete.connect(on_complete)
    sink.app.on_before_shutdown.connect(on_before_shutdown)

    async def test() -> None:
        async with sink.running():
            assert events[0] == ("revoked", set())
            assert ("assigned", EVERYTHING) in events
            assert ("complete", EVERYTHING, 1) in events
            assert sink.assigned == EVERYTHING
        assert events[-1] == ("shutdown", 0)
        assert len(events) == 4

    run(test)


def test_starts_where_the_store_stands(log: Log, sink: Any, make_sink: Any, eventually: Any) -> None:
    """A second run reads on from the positions given, and a partition without one from its first offset."""

    async def test() -> None:
        fill(log, 0, 120)
        fill(log, 1, 10)
        log.truncate("in", 1, 4)
        async with sink.running():
            await eventually(lambda: sum(map(len, sink.batches)) >= 126)
        fill(log, 0, 5)
        again = make_sink(transport.broker_url(log.path), "group", ["in"])
        again.positions = {("in", 0): sink.positions["in", 0], ("in", 1): None}
        async with again.running():
            await eventually(lambda: sum(map(len, again.batches)) >= 11)
        assert again.offsets("in", 0) == [120, 121, 122, 123, 124]
        assert again.offsets("in", 1) == [4, 5, 6, 7, 8, 9]

    run(test)


def test_what_is_appended_arrives_at_once(log: Log, sink: Any, eventually: Any) -> None:
    """A running app gets new records without waiting for the next look, also after it has been idle."""
    arrivals: list[float] = []

    async def test() -> None:
        async with sink.running():
            for round_ in range(20):
                await asyncio.sleep(0.03)
                sent = time.perf_counter()
                fill(log, round_ % 2, 3)
                count = 3 * (round_ + 1)
                await eventually(lambda count=count: sum(map(len, sink.batches)) >= count)
                arrivals.append(time.perf_counter() - sent)
        # Whoever looked once a second would take half of one; `eventually` itself looks every 10 ms.
        assert sorted(arrivals)[10] < 0.05
        assert sink.offsets("in", 0) == sink.offsets("in", 1) == list(range(30))

    run(test)


def test_the_buffer_bounds_what_is_delivered(log: Log, sink: Any, eventually: Any) -> None:
    """A partition over its share is left alone, others go on, and it continues when there is room again."""

    async def test() -> None:
        fill(log, 0, 1000, size=300)
        sink.hold = True
        async with sink.running():
            await eventually(lambda: sink.batches)
            fill(log, 1, 1)
            await eventually(lambda: sink.offsets("in", 1))
            held = [batch for batch in sink.batches if batch.partition == 0]
            await asyncio.sleep(0.05)
            assert [batch for batch in sink.batches if batch.partition == 0] == held
            assert sum(batch.nbytes for batch in held[:-1]) < 1 << 16
            assert sum(batch.nbytes for batch in held) < (1 << 16) + 100 * 1200
            sink.hold = False
            for batch in held:
                sink.buffer.give_back("in", 0, batch.nbytes)
            await eventually(lambda: len(sink.offsets("in", 0)) >= 1000)
        assert sink.offsets("in", 0) == list(range(1000))

    run(test)


def test_ten_times_overload_waits_in_the_log(log: Log, sink: Any, eventually: Any) -> None:
    """Ten batches come for each one worked off: what is held stays flat, the rest waits, and all is read."""
    sink.buffer.limit, sink.buffer.batches = 1 << 16, 3
    batch, rounds = 100, 40

    async def test() -> None:
        sink.hold = True
        worked_off = 0
        held: list[int] = []
        lags: list[int] = []
        async with sink.running():
            for _ in range(rounds):
                fill(log, 0, 10 * batch, size=20)
                await eventually(lambda done=worked_off: len(sink.batches) > done)
                sink.buffer.give_back("in", 0, sink.batches[worked_off].nbytes)
                worked_off += 1
                await eventually(lambda done=worked_off: len(sink.batches) > done)
                held.append(sink.buffer.held)
                lags.append(log.end_offset("in", 0) - worked_off * batch)
                assert len(sink.batches) - worked_off <= sink.buffer.batches
            assert max(held) <= sink.buffer.batches * max(one.nbytes for one in sink.batches)
            assert [9 * batch * number for number in range(1, rounds + 1)] == lags
            sink.hold = False
            for records in sink.batches[worked_off:]:
                sink.buffer.give_back("in", 0, records.nbytes)
            await eventually(lambda: sink.positions.get(("in", 0)) == rounds * 10 * batch)
            await eventually(lambda: sink.buffer.held == 0)
        assert sink.offsets("in", 0) == list(range(rounds * 10 * batch))

    run(test)


def test_paused_partitions_rest(log: Log, sink: Any, eventually: Any) -> None:
    """Nothing of a paused partition is delivered until it is resumed."""

    async def test() -> None:
        async with sink.running():
            consumer = sink.app.consumer
            paused = {tp for tp in consumer.assignment() if tp.partition == 0}
            consumer.pause_partitions(paused)
            fill(log, 0, 7)
            fill(log, 1, 7)
            await eventually(lambda: sink.offsets("in", 1))
            await asyncio.sleep(0.05)
            assert sink.offsets("in", 0) == []
            consumer.resume_partitions(paused)
            await eventually(lambda: sink.offsets("in", 0))
        assert sink.offsets("in", 0) == list(range(7))

    run(test)


def test_nothing_is_kept_of_what_is_done(log: Log, sink: Any, eventually: Any) -> None:
    """Faust's ledgers stay empty, its timer commits by the rim, and the group's positions are the app's."""

    async def test() -> None:
        async with sink.running():
            consumer = sink.app.consumer
            for _ in range(50):
                fill(log, 0, 2)
                await asyncio.sleep(0)
            await eventually(lambda: len(sink.offsets("in", 0)) >= 100 and sink.commits >= 1)
            assert await consumer.commit_positions(sink.positions)
            assert not any(consumer._acked.values())
            assert not any(consumer._acked_index.values())
            assert not any(consumer._gap.values())
            assert consumer.end_offset("in", 0) == 100
        admin = LogAdmin(log.path)
        assert admin.committed("group", "in") == {0: 100}
        assert admin.committed("other", "in") == {}
        admin.close()

    run(test)


def test_stops_at_once_and_lets_go_of_the_log(tmp_path: Path, make_sink: Any) -> None:
    """An idle app stops within a moment, and nothing of it holds the directory afterwards."""
    directory = tmp_path / "log"
    with Log.open(directory) as log:
        log.create_topic("in", 2)

    async def test() -> None:
        sink = make_sink(transport.broker_url(directory), "group", ["in"])
        async with sink.running():
            first = Log.open(directory)
            first.close()
            began = time.perf_counter()
        assert time.perf_counter() - began < 2.0
        second = Log.open(directory)
        second.close()
        assert second is not first
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)


def test_a_position_outside_the_log_ends_the_worker(log: Log, sink: Any, eventually: Any) -> None:
    """State that is ahead of its log is an error with both numbers; nothing is read, nothing reset."""

    async def test() -> None:
        fill(log, 0, 5)
        sink.positions = {("in", 0): 6}
        async with sink.running():
            await eventually(lambda: sink.failures)
        reason = sink.failures[0]
        assert isinstance(reason, StateError)
        assert str(reason).startswith(
            "partition 0 of topic in cannot be read from offset 6, where the state stands"
        )
        assert f"the log {log.path} has offsets 0 to 5" in str(reason)
        assert sink.batches == []

    run(test)


def test_a_topic_that_is_not_there_ends_the_worker(log: Log, make_sink: Any) -> None:
    """Subscribing to a topic that the log does not have is an error that names those it has."""

    async def test() -> None:
        sink = make_sink(transport.broker_url(log.path), "group", ["out"])
        async with sink.running():
            pass
        assert isinstance(sink.app.crash_reason, ConfigError)
        assert "Topic out does not exist in the log" in str(sink.app.crash_reason)

    run(test)


def test_a_directory_that_cannot_be_opened(tmp_path: Path, make_sink: Any) -> None:
    """An app on something else than a log does not start."""
    (tmp_path / "notes.txt").write_text("")

    async def test() -> None:
        sink = make_sink(transport.broker_url(tmp_path), "group", ["in"])
        with pytest.raises(StateError, match=r"with other files \(notes.txt\)"):
            await sink.app.start()
        await sink.app.stop()

    run(test)


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("log://Data/Log", "Data/Log"),
        ("log:///srv/My Log,1", "/srv/My Log,1"),
        ("log://./x", "x"),
        ("log://a%20b", "a%20b"),
    ],
)
def test_directories_survive_urls(url: str, directory: str) -> None:
    """What the user wrote after log:// is the directory, case, commas, spaces and percent signs included."""
    expected = Path(directory).absolute()

    assert transport.directory_of(url) == expected
    assert transport.directory_at([transport.broker_url(expected)]) == expected


@pytest.mark.parametrize("url", ["log://", "log:x", "kafka://host:9092", "x"])
def test_other_urls_are_refused(url: str) -> None:
    """A URL that names no directory is answered with an example of one that does."""
    with pytest.raises(ConfigError, match="Expected log://DIR, such as"):
        transport.directory_of(url)


def test_a_broker_written_by_hand_is_refused() -> None:
    """A relative directory given to Faust itself would lose its case: it is not guessed at."""
    with pytest.raises(
        ConfigError, match=r"Expected a broker made by broker_url\(directory\), got log://data/x"
    ):
        transport.directory_at([URL("log://Data/x")])


def test_publishing(log: Log) -> None:
    """What is sent is in the log when `send` returns, spread by key as Kafka does, in order per partition."""

    async def test() -> None:
        publisher = LogPublisher(log.path)
        await publisher.start()
        outgoing = Outgoing("in")
        for number in range(50):
            outgoing.append(b"key %d" % (number % 7), b"%d" % number, [("n", b"%d" % number)])
        delivered = await publisher.send(outgoing)
        where = partitions_of(outgoing.keys, 2, keyless=0)
        for partition in (0, 1):
            got = log.fetch("in", partition, 0)
            expected = [row for row, other in enumerate(where) if other == partition]
            assert got.values == [b"%d" % row for row in expected]
            assert got.headers == [(("n", b"%d" % row),) for row in expected]
        await delivered
        await publisher.send(Outgoing("in", 1, [None], [None], [()]))
        assert log.fetch("in", 1, log.end_offset("in", 1) - 1).values == [None]
        await publisher.stop()
        with pytest.raises(StreamerError, match="Expected a started publisher"):
            await publisher.send(outgoing)

    run(test)


def test_a_delivery_ends_with_the_records_on_the_disk(tmp_path: Path) -> None:
    """What was waited for is in a copy that is cut to what was forced; a later wait serves all before it."""

    async def test() -> None:
        publisher = LogPublisher(tmp_path / "log")
        await publisher.start()
        with Log.open(tmp_path / "log") as log:
            log.create_topic("out")
            first, second, third = [
                await publisher.send(Outgoing("out", 0, [None], [b"%d" % number], [()]))
                for number in range(3)
            ]
            assert synced.noted(log.path) == 0
            assert await second == {("out", 0): 2}
            assert synced.noted(log.path) == 1 + 3  # the topic and all that was sent by then
            fourth = await publisher.send(Outgoing("out", 0, [None], [b"3"], [()]))
            assert [await first, await third] == [{("out", 0): 1}, {("out", 0): 3}]
            assert synced.noted(log.path) == 1 + 3
            assert await fourth == {("out", 0): 4}
            assert synced.noted(log.path) == 1 + 4
        await publisher.stop()

    run(test)


def test_records_without_a_key_take_turns(log: Log) -> None:
    """Batches without keys go to the partitions in turn, each batch whole."""

    async def test() -> None:
        publisher = LogPublisher(log.path)
        await publisher.start()
        for _ in range(4):
            await publisher.send(Outgoing("in", None, [None] * 3, [b""] * 3, [()] * 3))
        await publisher.stop()

    run(test)
    assert log.end_offsets("in") == {0: 6, 1: 6}


def test_administration(log: Log) -> None:
    """Topics are created once, counted if they exist, and asked for their ends."""
    admin = LogAdmin(log.path)
    admin.create([TopicSpec("in", 9), TopicSpec("models", compacted=True)])
    fill(log, 1, 3)

    assert admin.partitions(["in", "models", "absent"]) == {"in": 2, "models": 1}
    assert admin.end_offsets("in") == {0: 0, 1: 3}
    assert log.topics["models"].compacted
    admin.close()
