"""Both logs behind one small face: payments with their timestamps in, all records of a topic out."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamer.batch import Outgoing
from streamer.state.log import Log
from streamer.transport.kafka_admin import KafkaAdmin

MAX_BYTES = 16 << 20
CHUNK = 1_000


@dataclass(frozen=True)
class Sent:
    """A record as it is sent, with its log time in ms."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Got:
    """A record as it was read, with its log time in ms."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int

    @property
    def content(self) -> tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]:
        """What the worker answers, which no clock has a part in."""
        return self.key, self.value, self.headers

    @property
    def source(self) -> str:
        """The record that it answers."""
        return dict(self.headers)["streamer_source"].decode()


class Place(Protocol):
    """A log that the tests write to and read from while no worker holds it."""

    @property
    def prefix(self) -> str:
        """In front of every topic's name."""

    @property
    def url(self) -> str:
        """What `--broker` is given."""

    def send(self, records: Sequence[Sent], topic: str = "payments") -> None:
        """Append to partition 0 of a topic, in order."""

    def read(self, topic: str) -> list[Got]:
        """Read everything in partition 0 of a topic; nothing where there is no such topic."""


@dataclass(frozen=True)
class EmbeddedPlace:
    """The embedded log in a directory."""

    directory: Path
    prefix: str

    @property
    def url(self) -> str:
        """What `--broker` is given."""
        return f"log://{self.directory}"

    def send(self, records: Sequence[Sent], topic: str = "payments") -> None:
        """Append to partition 0 of a topic, in order."""
        with Log.open(self.directory) as log:
            name = f"{self.prefix}{topic}"
            if name not in log.topics:
                log.create_topic(name)
            for start in range(0, len(records), CHUNK):
                part = records[start : start + CHUNK]
                columns = ([each.key for each in part], [each.value for each in part])
                outgoing = Outgoing(name, 0, *columns, [each.headers for each in part])
                log.append(outgoing, [each.timestamp for each in part])

    def read(self, topic: str) -> list[Got]:
        """Read everything in partition 0 of a topic; nothing where there is no such topic."""
        name, found = f"{self.prefix}{topic}", list[Got]()
        with Log.open(self.directory) as log:
            while name in log.topics and len(found) < log.end_offset(name, 0):
                part = log.fetch(name, 0, len(found))
                rows = zip(part.keys, part.values, part.headers, part.timestamps, strict=True)
                found.extend(Got(key, value, tuple(headers), at) for key, value, headers, at in rows)
        return found


@dataclass(frozen=True)
class KafkaPlace:
    """Topics of their own on a real broker; those of `made` are there first, and keep all records.

    Of payments and outcomes there are so many `partitions`.
    """

    server: str
    prefix: str
    made: tuple[str, ...] = ("payments", "outcomes")
    partitions: int = 1

    @property
    def url(self) -> str:
        """What `--broker` is given."""
        return f"kafka://{self.server}"

    def send(self, records: Sequence[Sent], topic: str = "payments") -> None:
        """Append to partition 0 of a topic, in order."""
        asyncio.run(self._send(records, topic, partition=0))

    def spread(self, records: Sequence[Sent], topic: str = "payments") -> list[tuple[int, int]]:
        """Append to the partitions that keys choose; answers partition and offset of each record."""
        return asyncio.run(self._send(records, topic, partition=None))

    def read(self, topic: str) -> list[Got]:
        """Read everything in partition 0 of a topic; nothing where there is no such topic."""
        return next(iter(asyncio.run(self._read(f"{self.prefix}{topic}", "read_uncommitted"))), [])

    def read_committed(self, topic: str) -> list[list[Got]]:
        """Read everything in all partitions of a topic but what belongs to no finished transaction."""
        return asyncio.run(self._read(f"{self.prefix}{topic}", "read_committed"))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The offsets of a topic that a group has committed."""
        with closing(KafkaAdmin([self.server])) as admin:
            return dict(admin.committed(group, f"{self.prefix}{topic}"))

    @contextmanager
    def topics(self) -> Iterator[None]:
        """Create the topics of `made`, and delete all topics at the end."""
        asyncio.run(self._create())
        try:
            yield
        finally:
            asyncio.run(self._delete())

    async def _create(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server)
        # Log times of the past: the broker's usual retention would delete what it has just been given.
        configs = {"retention.ms": "-1", "max.message.bytes": str(MAX_BYTES)}
        await admin.start()
        try:
            answer = await admin.create_topics(
                [
                    NewTopic(
                        f"{self.prefix}{name}",
                        self.partitions if name in {"payments", "outcomes"} else 1,
                        1,
                        topic_configs=configs,
                    )
                    for name in self.made
                ]
            )
            refused = [error for error in answer.topic_errors if error[1]]
            if refused:  # the client tells of it in no other way
                raise AssertionError(f"expected topics to be created, got {refused}")
        finally:
            await admin.close()

    async def _delete(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server)
        await admin.start()
        try:
            await admin.delete_topics(
                [name for name in await admin.list_topics() if name.startswith(self.prefix)]
            )
        finally:
            await admin.close()

    async def _send(
        self, records: Sequence[Sent], topic: str, partition: int | None
    ) -> list[tuple[int, int]]:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.server, max_request_size=MAX_BYTES, enable_idempotence=True
        )
        await producer.start()
        places: list[tuple[int, int]] = []
        try:
            for start in range(0, len(records), CHUNK):
                sent = await asyncio.gather(
                    *[
                        await producer.send(
                            f"{self.prefix}{topic}",
                            each.value,
                            each.key,
                            partition=partition,
                            timestamp_ms=each.timestamp,
                            headers=list(each.headers),
                        )
                        for each in records[start : start + CHUNK]
                    ]
                )
                places += [(each.partition, each.offset) for each in sent]
        finally:
            await producer.stop()
        return places

    async def _read(self, topic: str, isolation: str) -> list[list[Got]]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server)
        await admin.start()
        try:
            if topic not in await admin.list_topics():
                return []
        finally:
            await admin.close()
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.server, auto_offset_reset="earliest", isolation_level=isolation
        )
        await consumer.start()
        try:
            partitions = sorted(consumer.assignment())
            ends = await consumer.end_offsets(partitions)
            found: list[list[Got]] = [[] for _ in partitions]
            while left := [each for each in partitions if await consumer.position(each) < ends[each]]:
                for partition, records in (await consumer.getmany(*left, timeout_ms=1_000)).items():
                    found[partition.partition].extend(
                        Got(each.key, each.value, tuple(each.headers), each.timestamp) for each in records
                    )
        finally:
            await consumer.stop()
        return found
