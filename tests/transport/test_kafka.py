"""The Kafka transport against a real broker, and its parts that need none."""

import asyncio
import gc
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import aiokafka
import pytest
from aiokafka.partitioner import DefaultPartitioner, murmur2
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from streamer.batch import Outgoing
from streamer.errors import ConfigError, StateError, StreamerError
from streamer.partitioning import murmur2_many, partitions_of
from streamer.transport import kafka, kafka_publisher
from streamer.transport.changelog_reader import ChangelogReader, ReaderSettings
from streamer.transport.kafka_admin import KafkaAdmin
from streamer.transport.kafka_publisher import KafkaPublisher, PublisherSettings
from streamer.transport.seam import Buffer, TopicSpec

kafka.register()


class Stage:
    """A topic of its own on the broker, an admin, and workers to read it."""

    def __init__(self, broker: str, prefix: str, make_sink: Callable[..., Any]) -> None:
        self.broker = broker
        self.topic = prefix + "in"
        self.other = prefix + "other"
        self.group = prefix + "group"
        self.admin = KafkaAdmin([broker])
        self._make_sink = make_sink

    def sink(self, *topics: str, **rim: Any) -> Any:
        """Make a worker that reads these topics, or the one."""
        return self._make_sink(f"kafka://{self.broker}", self.group, list(topics) or [self.topic], **rim)

    async def publish(
        self, *parts: Outgoing, compression: str | None = "snappy", size: int = 1_000_000
    ) -> None:
        """Publish and wait until all is confirmed."""
        publisher = KafkaPublisher(PublisherSettings([self.broker], compression, size))
        await publisher.start()
        try:
            for delivered in [await publisher.send(part) for part in parts]:
                await delivered
        finally:
            await publisher.stop()

    def forget(self, before: int) -> None:
        """Delete what lies before an offset of partition 0, as retention does."""
        self.admin._client.delete_records({TopicPartition(self.topic, 0): before})


@pytest.fixture
def stage(broker: str, topic_prefix: str, make_sink: Callable[..., Any]) -> Iterator[Stage]:
    """A stage whose names no other test uses."""
    made = Stage(broker, topic_prefix, make_sink)
    yield made
    made.admin._client.delete_topics(list(made.admin.partitions([made.topic, made.other])))
    made.admin.close()


def numbered(topic: str, count: int, partition: int | None = 0) -> Outgoing:
    """Records whose values are their numbers."""
    outgoing = Outgoing(topic, partition)
    for number in range(count):
        outgoing.append(b"k%d" % number, b"%d" % number)
    return outgoing


@given(st.lists(st.binary(max_size=40), max_size=50), st.binary(min_size=200, max_size=600))
def test_murmur2_of_many_keys_is_kafkas(keys: list[bytes], long: bytes) -> None:
    """Hashing a batch of keys gives what Kafka's clients give for each."""
    for batch in (keys, [*keys, long]):
        assert [murmur2(key) & 0xFFFFFFFF for key in batch] == murmur2_many(batch).tolist()


def test_records_without_a_key_stay_together() -> None:
    """A batch's records without a key go to the partition named for them, those with a key to their own."""
    assert partitions_of([None, b"21", None], 8, keyless=5) == [5, 4, 5]


def test_a_broker_that_is_not_there_is_said_at_once() -> None:
    """Nobody listening: one line with address, cause and remedy, within seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} \(connection refused\). Start one with"):
            KafkaAdmin([f"127.0.0.1:{port}"])
    assert time.monotonic() - started < 5


def test_something_else_than_a_broker_is_said_too() -> None:
    """A listener that does not speak Kafka is told apart from one that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match="does not answer as a Kafka broker"):
            KafkaAdmin([address])


@pytest.mark.kafka
def test_a_record_too_large_is_refused_before_anything_is_sent(stage: Stage) -> None:
    """The send raises, naming the record and the limit, and the small records before it stay here too."""
    stage.admin.create([TopicSpec(stage.topic)])
    outgoing = numbered(stage.topic, 3)
    outgoing.append(b"large", b"x" * 2000)
    with pytest.raises(StreamerError, match=f"for topic {stage.topic} with key b'large' takes 2005 bytes"):
        asyncio.run(stage.publish(outgoing, size=1024))
    assert stage.admin.end_offsets(stage.topic) == {0: 0}
    assert stage.admin.missing([stage.topic, stage.other]) == {stage.other}


async def batches_of(stage: Stage) -> list[list[tuple[bytes, bytes]]]:
    """The batches that partition 0 keeps, of keys and values."""
    size = 1 << 20
    async with ChangelogReader(ReaderSettings([stage.broker], stage.topic, 0)) as reader:
        answer = await reader._ask(FetchRequest(0, 1, size, 0, [(stage.topic, [(0, 0, size)])]))
    records = MemoryRecords(answer[-1])
    found = []
    while records.has_next():
        found.append([(record.key, record.value) for record in records.next_batch()])
    return found


@pytest.mark.kafka
def test_records_join_the_batch_that_has_not_left(stage: Stage) -> None:
    """Sent one by one they go in few batches, in order, and each delivery says where its own records end."""
    stage.admin.create([TopicSpec(stage.topic)])

    async def scenario() -> tuple[list[int], list[list[tuple[bytes, bytes]]]]:
        publisher = KafkaPublisher(PublisherSettings([stage.broker]))
        await publisher.start()
        try:
            sent = [
                await publisher.send(Outgoing(stage.topic, 0, [None], [b"%d" % number], [()]))
                for number in range(100)
            ]
            ends = [(await delivered)[stage.topic, 0] for delivered in sent]
        finally:
            await publisher.stop()
        return ends, await batches_of(stage)

    ends, batches = asyncio.run(scenario())
    values = [value for batch in batches for _, value in batch]
    assert values == [b"%d" % number for number in range(100)]
    assert len(batches) < 10
    assert ends == list(range(1, 101))


@pytest.mark.kafka
def test_a_full_batch_is_followed_by_the_next(stage: Stage) -> None:
    """What no longer fits into the batch that waits begins another, and nothing is lost or turned around."""
    stage.admin.create([TopicSpec(stage.topic)])
    parts = [Outgoing(stage.topic, 0) for _ in range(60)]
    for number in range(600):
        parts[number // 10].append(b"%d" % number, b"x" * (number % 7 * 20))

    async def scenario() -> tuple[list[int], list[list[tuple[bytes, bytes]]]]:
        publisher = KafkaPublisher(PublisherSettings([stage.broker], max_batch_size=1024))
        await publisher.start()
        try:
            # At once, as several shards send.
            sent = await asyncio.gather(*(publisher.send(part) for part in parts))
            ends = [(await delivered)[stage.topic, 0] for delivered in sent]
        finally:
            await publisher.stop()
        return ends, await batches_of(stage)

    ends, batches = asyncio.run(scenario())
    assert [key for batch in batches for key, _ in batch] == [b"%d" % number for number in range(600)]
    assert ends == list(range(10, 610, 10))


def holes(offsets: list[int]) -> list[int]:
    """Offsets after which one is missing or comes again."""
    return [before for before, after in itertools.pairwise(offsets) if after != before + 1]


@pytest.mark.kafka
@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_what_is_published_is_delivered(
    stage: Stage,
    eventually: Callable[..., Any],
    compression: str | None,
) -> None:
    """Keys, values, headers, tombstones and offsets come through, with every codec, in several batches."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    sent = numbered(topic, 2500)
    sent.append(b"gone", None)
    sent.append(None, b"no key", [("streamer_source", b"a/0@1"), ("empty", b"")])
    sink = stage.sink()

    async def scenario() -> None:
        await stage.publish(sent, compression=compression, size=10_000)
        async with sink.running():
            await eventually(lambda: len(sink.offsets(topic, 0)) >= len(sent))

    asyncio.run(scenario())
    assert sink.offsets(topic, 0) == list(range(len(sent)))
    assert [key for batch in sink.batches for key in batch.keys] == sent.keys
    assert [value for batch in sink.batches for value in batch.values] == sent.values
    assert [list(headers) for batch in sink.batches for headers in batch.headers] == [
        list(headers) for headers in sent.headers
    ]
    assert all(abs(stamp / 1000 - time.time()) < 300 for batch in sink.batches for stamp in batch.timestamps)
    assert max(map(len, sink.batches)) <= 1000
    assert sum(batch.nbytes for batch in sink.batches) == sum(
        len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        for key, value, headers in zip(sent.keys, sent.values, sent.headers, strict=True)
    )


@pytest.mark.kafka
def test_a_restart_goes_on_where_the_store_stands(stage: Stage, eventually: Callable[..., Any]) -> None:
    """The positions asked for decide, whatever the group has committed; a position is the next offset."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic, partitions=2)])

    async def run(positions: dict[tuple[str, int], int], count: int) -> Any:
        sink = stage.sink()
        sink.positions = positions
        async with sink.running():
            await eventually(lambda: sum(map(len, sink.batches)) >= count)
            assert await sink.app.consumer.commit_positions({(topic, 0): 70, (topic, 1): 3})
        return sink

    asyncio.run(stage.publish(numbered(topic, 100, 0), numbered(topic, 100, 1)))
    first = asyncio.run(run({}, 200))
    assert [list(range(100))] * 2 == [first.offsets(topic, 0), first.offsets(topic, 1)]
    assert stage.admin.committed(stage.group, topic) == {0: 70, 1: 3}
    second = asyncio.run(run({(topic, 0): 90, (topic, 1): 99}, 11))
    assert [list(range(90, 100)), [99]] == [second.offsets(topic, 0), second.offsets(topic, 1)]


@pytest.mark.kafka
def test_partitions_move_without_loss(stage: Stage, eventually: Callable[..., Any]) -> None:
    """A second worker takes half of the partitions and leaves again; with a shared store nothing is lost."""
    topic, other = stage.topic, stage.other
    stage.admin.create([TopicSpec(topic, partitions=4), TopicSpec(other, partitions=2)])
    all_partitions = {(topic, number) for number in range(4)} | {(other, 0), (other, 1)}
    store: dict[tuple[str, int], int | None] = {}
    sinks = [stage.sink(topic, other, shards=2) for _ in range(2)]
    for sink in sinks:
        sink.positions = store

    loaded = 0
    enough = asyncio.Event()
    commits = []

    async def commit(_app: Any, revoked: Any, **_: Any) -> None:
        if revoked:
            positions = {(tp.topic, tp.partition): store.get((tp.topic, tp.partition)) or 0 for tp in revoked}
            commits.append(await sinks[0].app.consumer.commit_positions(positions))

    sinks[0].app.on_partitions_revoked.connect(commit)

    async def load() -> None:
        nonlocal loaded
        while not enough.is_set():
            await stage.publish(*(numbered(name, 50, number) for name, number in sorted(all_partitions)))
            loaded += 50

    def received() -> list[list[int]]:
        return [sorted(sinks[0].offsets(*tp) + sinks[1].offsets(*tp)) for tp in sorted(all_partitions)]

    async def scenario() -> None:
        loading = asyncio.create_task(load())
        async with sinks[0].running():
            await eventually(lambda: sinks[0].assigned == all_partitions)
            async with sinks[1].running():
                await eventually(lambda: len(sinks[1].assigned) == len(sinks[0].assigned) == 3)
                assert sinks[0].assigned == {(topic, 0), (topic, 2), (other, 0)}
                await eventually(lambda: len(sinks[1].batches) > 20)
            await eventually(lambda: sinks[0].assigned == all_partitions)
            enough.set()
            await loading
            await eventually(lambda: all(len(offsets) >= loaded for offsets in received()))

    asyncio.run(scenario())
    assert [list(range(loaded))] * 6 == received()
    assert frozenset(all_partitions) in sinks[0].revoked
    assert commits
    assert all(commits)


@pytest.mark.kafka
def test_a_full_buffer_stops_its_own_partition_only(stage: Stage, eventually: Callable[..., Any]) -> None:
    """No more is held than the share and a batch; the other partition goes on; room wakes at once."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic, partitions=2)])
    buffer = Buffer(20_000)
    sink = stage.sink(buffer=buffer, batch_max_records=100)
    bulky = Outgoing(topic, 0)
    for _ in range(2000):
        bulky.append(None, b"x" * 100)

    async def scenario() -> None:
        await stage.publish(bulky)
        sink.hold = True
        async with sink.running():
            await eventually(lambda: not buffer.has_room(topic, 0))
            await asyncio.sleep(0.3)
            assert len(sink.offsets(topic, 0)) == 200
            assert buffer.held == 20_000
            started = time.monotonic()
            await stage.publish(numbered(topic, 1, 1))
            await eventually(lambda: sink.offsets(topic, 1))
            assert time.monotonic() - started < 0.5
            started = time.monotonic()
            buffer.give_back(topic, 0, 10_000)
            await eventually(lambda: len(sink.offsets(topic, 0)) == 300)
            assert time.monotonic() - started < 0.2
            sink.hold = False
            buffer.give_back(topic, 0, 20_000)
            await eventually(lambda: len(sink.offsets(topic, 0)) == 2000)

    asyncio.run(scenario())
    assert not holes(sink.offsets(topic, 0))


@pytest.mark.kafka
def test_of_several_shards_what_gathers_comes_as_one_batch(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    """While batches are left nothing is fetched, not even a first record; then all that is there."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic, 2)])
    sink = stage.sink(shards=2, buffer=Buffer(1 << 20, 1, waiting=0))
    sink.hold = True

    async def scenario() -> None:
        async with sink.running():
            await eventually(lambda: sink.assigned)
            await stage.publish(numbered(topic, 1, 0))
            await eventually(lambda: sink.batches)
            for _ in range(20):
                await stage.publish(numbered(topic, 1, 1))
            assert len(sink.batches) == 1
            sink.hold = False
            sink.buffer.give_back(topic, 0, 1)
            await eventually(lambda: len(sink.offsets(topic, 1)) == 20)
            assert len(sink.batches) == 2

    asyncio.run(scenario())


@pytest.mark.kafka
def test_a_partition_that_may_not_be_read_waits(stage: Stage, eventually: Callable[..., Any]) -> None:
    """The other one goes on; it is read once it may, at the latest when something is worked off."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic, 2)])
    allowed = {0}
    sink = stage.sink(shards=2, may_read=lambda _, partition: partition in allowed)

    async def scenario() -> None:
        await stage.publish(numbered(topic, 100, 0), numbered(topic, 100, 1))
        async with sink.running():
            await eventually(lambda: len(sink.offsets(topic, 0)) == 100)
            await stage.publish(numbered(topic, 100, 0))
            await eventually(lambda: len(sink.offsets(topic, 0)) == 200)
            assert not sink.offsets(topic, 1)
            allowed.add(1)
            await stage.publish(numbered(topic, 1, 0))
            await eventually(lambda: len(sink.offsets(topic, 1)) == 100)

    asyncio.run(scenario())


@pytest.mark.kafka
@pytest.mark.parametrize("shards", [1, 2])
def test_a_batch_tells_whether_there_were_more(
    stage: Stage, eventually: Callable[..., Any], shards: int
) -> None:
    """All but the last of what was there."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    sink = stage.sink(shards=shards, batch_max_records=100)

    async def scenario() -> None:
        await stage.publish(numbered(topic, 250))
        async with sink.running():
            await eventually(lambda: len(sink.offsets(topic, 0)) == 250)
            assert [(len(batch), batch.more) for batch in sink.batches] == [
                (100, True),
                (100, True),
                (50, False),
            ]

    asyncio.run(scenario())


@pytest.mark.kafka
@pytest.mark.parametrize("patient", [False, True])
def test_patient_records_leave_together(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, *, patient: bool
) -> None:
    """Those that are sent while the first ones wait are in one batch with them; others leave at once."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    monkeypatch.setattr(kafka_publisher, "PATIENCE_S", 2.0)

    async def scenario() -> list[int]:
        publisher = KafkaPublisher(PublisherSettings([stage.broker]))
        await publisher.start()
        deliveries = []
        for number in range(3):
            deliveries.append(await publisher.send(replace(numbered(topic, 2), patient=patient)))
            if not patient:
                await deliveries[number]
            await asyncio.sleep(0.01)
        await asyncio.gather(*deliveries)
        await publisher.stop()
        return [len(batch) for batch in await batches_of(stage)]

    assert asyncio.run(scenario()) == ([6] if patient else [2, 2, 2])


@pytest.mark.kafka
def test_a_partition_is_read_once_its_position_is_known(stage: Stage, eventually: Callable[..., Any]) -> None:
    """The others are read meanwhile, also after a rebalance; then it is, from that position on."""

    async def scenario() -> None:
        stage.admin.create([TopicSpec(stage.topic, 2)])
        await stage.publish(*(numbered(stage.topic, 100, partition) for partition in (0, 1)))
        sink, other = stage.sink(shards=2), stage.sink(shards=2)
        sink.closed = {1}
        other.closed = {0, 1}
        async with sink.running():
            await eventually(lambda: len(sink.offsets(stage.topic, 0)) == 100)
            async with other.running():
                await eventually(lambda: other.assigned)
            await eventually(lambda: len(sink.assigned) == 2)
            await stage.publish(*(numbered(stage.topic, 100, partition) for partition in (0, 1)))
            await eventually(lambda: len(sink.offsets(stage.topic, 0)) == 200)
            assert not sink.offsets(stage.topic, 1)
            sink.closed = set()
            sink.positions[stage.topic, 1] = 40
            await sink.app.consumer.take_up({(stage.topic, 1): 40})
            await eventually(lambda: len(sink.offsets(stage.topic, 1)) == 160)
            assert sink.offsets(stage.topic, 1) == list(range(40, 200))
            assert sink.offsets(stage.topic, 0) == list(range(200))

    asyncio.run(scenario())


@pytest.mark.kafka
def test_a_position_that_is_known_in_vain_stops_the_worker(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    """Known later or at once, it has to be one that the partition has."""

    async def scenario() -> None:
        stage.admin.create([TopicSpec(stage.topic, 2)])
        sink = stage.sink()
        sink.closed = {1}
        async with sink.running():
            await eventually(lambda: sink.assigned)
            await stage.publish(numbered(stage.topic, 1, 0))
            await eventually(lambda: sink.offsets(stage.topic, 0))
            with pytest.raises(StateError, match="offset 7"):
                await sink.app.consumer.take_up({(stage.topic, 1): 7})

    asyncio.run(scenario())


@pytest.mark.kafka
def test_nothing_grows_over_many_batches(stage: Stage, eventually: Callable[..., Any]) -> None:
    """Faust's ledger of acknowledgements and gaps stays empty, and no message outlives its batch."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    sink = stage.sink(batch_max_records=10)

    async def scenario() -> None:
        await stage.publish(numbered(topic, 20_000))
        async with sink.running():
            await eventually(lambda: len(sink.offsets(topic, 0)) == 20_000 and sink.commits > 1)
            consumer = sink.app.consumer
            assert not any(map(len, [*consumer._acked.values(), *consumer._acked_index.values()]))
            assert not any(map(len, consumer._gap.values()))
            gc.collect()
            assert len(consumer._unacked_messages) <= 1
            assert not consumer._n_acked

    asyncio.run(scenario())
    assert len(sink.batches) >= 2000


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("position", "cause"), [(3, "offsets 3 to 39 have been deleted"), (101, "the topic ends at 100")]
)
def test_a_position_outside_of_the_topic_stops_the_worker(
    stage: Stage,
    eventually: Callable[..., Any],
    position: int,
    cause: str,
) -> None:
    """Records deleted before they were read, or a topic made anew: the worker stops and skips nothing."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    asyncio.run(stage.publish(numbered(topic, 100)))
    stage.forget(40)
    sink = stage.sink()
    sink.positions = {(topic, 0): position}

    async def scenario() -> None:
        async with sink.running():
            await eventually(lambda: sink.failures)

    asyncio.run(scenario())
    assert isinstance(sink.failures[0], StateError)
    assert cause in str(sink.failures[0])
    assert not sink.batches


@pytest.mark.kafka
def test_records_deleted_ahead_of_a_slow_worker_stop_it(stage: Stage, eventually: Callable[..., Any]) -> None:
    """Retention that overtakes the worker is told like a position that was lost before the start."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    sink = stage.sink(buffer=Buffer(1), batch_max_records=10, fetch_max_bytes=1000)
    sink.hold = True

    async def scenario() -> None:
        await stage.publish(numbered(topic, 2000), size=300)
        async with sink.running():
            await eventually(lambda: sink.batches)
            await asyncio.to_thread(stage.forget, 1500)
            sink.hold = False
            sink.buffer.reset()
            await eventually(lambda: sink.failures)

    asyncio.run(scenario())
    assert isinstance(sink.failures[0], StateError)
    assert "to 1499 have been deleted" in str(sink.failures[0])
    assert sink.offsets(topic, 0) == list(range(len(sink.offsets(topic, 0))))


@pytest.mark.kafka
def test_a_worker_without_a_position_starts_at_the_first_record_there_is(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    """The beginning is where retention has left it."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    asyncio.run(stage.publish(numbered(topic, 100)))
    stage.forget(40)
    sink = stage.sink()

    async def scenario() -> None:
        async with sink.running():
            await eventually(lambda: len(sink.offsets(topic, 0)) >= 60)

    asyncio.run(scenario())
    assert sink.offsets(topic, 0) == list(range(40, 100))


@pytest.mark.kafka
def test_commits_of_partitions_that_have_moved_are_refused_quietly(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    """A failed offset commit is `False`, never a crash."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic)])
    sink = stage.sink()

    async def scenario() -> None:
        async with sink.running():
            await eventually(lambda: sink.assigned)
            assert await sink.app.consumer.commit_positions({(topic, 5): 1}) is False
            assert await sink.app.consumer.commit_positions({(topic, 0): 0}) is True
            assert sink.app.crash_reason is None

    asyncio.run(scenario())
    assert stage.admin.committed(stage.group, topic) == {0: 0}


@pytest.mark.kafka
def test_the_end_of_a_partition_is_known_once_it_is_read(
    stage: Stage, eventually: Callable[..., Any]
) -> None:
    """The lag can be told for what is assigned; anything else is not known rather than an error."""
    stage.admin.create([TopicSpec(stage.topic)])
    sink = stage.sink()

    async def scenario() -> None:
        await stage.publish(numbered(stage.topic, 10))
        async with sink.running():
            consumer = sink.app.consumer
            assert consumer.end_offset(stage.topic, 1) is None
            await eventually(lambda: sink.batches)
            assert consumer.end_offset(stage.topic, 0) == 10
            assert consumer.end_offset(stage.topic, 1) is None

    asyncio.run(scenario())


@pytest.mark.kafka
def test_keys_decide_the_partition_as_for_every_client(stage: Stage) -> None:
    """Records published without a partition lie where aiokafka's own producer puts their keys, in order."""
    topic = stage.topic
    stage.admin.create([TopicSpec(topic, partitions=5)])
    partitioner = DefaultPartitioner()

    async def scenario() -> list[aiokafka.ConsumerRecord]:
        await stage.publish(numbered(topic, 300, None), numbered(topic, 300, None))
        consumer = aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=stage.broker, auto_offset_reset="earliest", enable_auto_commit=False
        )
        await consumer.start()
        records = [await consumer.getone() for _ in range(600)]
        await consumer.stop()
        return records

    records = asyncio.run(scenario())
    assert [partitioner(record.key, list(range(5)), list(range(5))) for record in records] == [
        record.partition for record in records
    ]
    for number in range(5):
        values = [int(record.value) for record in records if record.partition == number]
        half = len(values) // 2
        assert values == sorted(values[:half]) * 2


@pytest.mark.kafka
def test_admin_knows_its_topics(stage: Stage) -> None:
    """Topics are created once, compacted where asked; what does not exist is left out and not created."""
    plain, compact, absent = stage.topic, stage.other, stage.topic + "-absent"
    for _ in range(2):
        stage.admin.create([TopicSpec(plain, 3), TopicSpec(compact, compacted=True)])
    assert stage.admin.partitions([plain, compact, absent]) == {plain: 3, compact: 1}
    assert stage.admin.partitions([absent]) == {}
    assert stage.admin.end_offsets(plain) == {0: 0, 1: 0, 2: 0}
    assert stage.admin.committed(stage.group, plain) == {}
    resource = ConfigResource(ConfigResourceType.TOPIC, compact)
    assert "compact" in str(stage.admin._client.describe_configs([resource]))


@pytest.mark.kafka
def test_a_partition_that_is_not_there_is_a_clear_error(stage: Stage) -> None:
    """Publishing to a partition that does not exist names the topic and how many it has."""
    stage.admin.create([TopicSpec(stage.topic, 2)])
    with pytest.raises(StreamerError, match=f"topic {stage.topic} has 2 partitions, no number 7"):
        asyncio.run(stage.publish(numbered(stage.topic, 1, 7)))
