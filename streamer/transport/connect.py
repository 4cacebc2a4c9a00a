"""From a URL to a connection: `kafka://host:port[,host:port]` or `log://DIR`."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol, Self

from aiokafka import AIOKafkaConsumer, TopicPartition, errors

from streamer.batch import Records
from streamer.errors import ConfigError, StreamerError
from streamer.settings import Settings
from streamer.state.log import Log
from streamer.transport import kafka, log
from streamer.transport.changelog_reader import ChangelogReader, ReaderSettings
from streamer.transport.kafka_admin import KafkaAdmin
from streamer.transport.kafka_publisher import KafkaPublisher, PublisherSettings
from streamer.transport.kafka_transactions import KafkaTransactions
from streamer.transport.log_admin import LogAdmin
from streamer.transport.log_publisher import LogPublisher
from streamer.transport.seam import Admin, Publisher

_SERVERS = re.compile(r"[^/,\s:]+:\d{1,5}(,[^/,\s:]+:\d{1,5})*|\[[0-9a-fA-F:]+\]:\d{1,5}")

TAIL_WAIT_MS = 1_000
TAIL_FETCH_MS = 10
"""aiokafka's half second is for those who follow a topic: what is asked next waits behind an empty fetch."""

LOOK_MS = 300
TAIL_RECORDS = 10_000
TAIL_BYTES = 1 << 24


class Connection(Protocol):
    """A log to read from and write to. `embedded` says that it belongs to this process alone."""

    embedded: bool

    @property
    def faust_url(self) -> Any:
        """What Faust is given as its broker."""

    def publisher(self) -> Publisher:
        """Make a publisher, not started."""

    def admin(self) -> Admin:
        """Make an admin; raises `ConfigError` where nothing answers."""

    def tail(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Records]:
        """Read the partitions of a topic from these offsets, others from their first, to their present ends.

        An offset that is no longer, or not yet, in the topic counts as its first.
        """

    async def is_read(self, topic: str, positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
        """Whether no record is left from `positions` up to `ends`, by partition; where unknown, from 0."""

    def __enter__(self) -> Self:
        """Hold what has to stay open."""

    def __exit__(self, *_: object) -> None:
        """Let go of it."""


class KafkaConnection:
    """A Kafka cluster."""

    embedded = False

    def __init__(self, servers: str, settings: Settings) -> None:
        self._servers = servers
        self._settings = settings
        kafka.register()

    @property
    def faust_url(self) -> list[str]:
        """One URL per server."""
        return [f"kafka://{server}" for server in self._servers.split(",")]

    def publisher(self) -> KafkaPublisher:
        """Make a publisher, not started."""
        return KafkaPublisher(self._publishing())

    def transactions(self, transactional_id: str) -> KafkaTransactions:
        """Make a publisher in transactions, not started; its start takes the id over from whoever has it."""
        timeout_ms = self._settings.kafka.transaction_timeout_ms
        return KafkaTransactions(self._publishing(), transactional_id, timeout_ms)

    def changelog(self, topic: str, shard: int) -> ChangelogReader:
        """Make a reader of one partition of a changelog, not started."""
        security = self._settings.kafka.security()
        return ChangelogReader(ReaderSettings(self._servers.split(","), topic, shard, security))

    def _publishing(self) -> PublisherSettings:
        settings = self._settings.kafka
        return PublisherSettings(
            self._servers.split(","),
            compression=None if settings.compression == "none" else settings.compression,
            security=settings.security(),
        )

    def admin(self) -> KafkaAdmin:
        """Make an admin; raises `ConfigError` where no broker answers."""
        settings = self._settings.kafka
        return KafkaAdmin(
            self._servers.split(","),
            replication_factor=settings.replication_factor,
            request_timeout_ms=settings.request_timeout_ms,
            security=settings.security(),
        )

    async def tail(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Records]:
        """Read as `Connection.tail` says; of transactions, what was committed."""
        consumer = self._consumer(topic)
        try:
            await consumer.start()
            partitions = sorted(consumer.assignment())
            firsts = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            for partition in partitions:
                start = starts.get(partition.partition, 0)
                inside = firsts[partition] <= start <= ends[partition]
                consumer.seek(partition, start if inside else firsts[partition])
            # What ends a transaction takes an offset too, so a position tells more than the last record.
            while left := [each for each in partitions if await consumer.position(each) < ends[each]]:
                found = await consumer.getmany(*left, timeout_ms=TAIL_WAIT_MS)
                for partition, records in found.items():
                    yield kafka.to_records(partition, records)
        except errors.KafkaError as error:
            raise StreamerError(f"topic {topic} could not be read back: {error!r}") from error
        finally:
            await consumer.stop()

    async def is_read(self, topic: str, positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
        """As `Connection.is_read`; `False` also while a transaction is open there."""
        left = {
            TopicPartition(topic, number): end
            for number, end in ends.items()
            if positions.get(number, 0) < end
        }
        consumer = self._consumer()
        try:
            await consumer.start()
            consumer.assign(list(left))
            for partition in left:
                consumer.seek(partition, positions.get(partition.partition, 0))
            found = await consumer.getmany(timeout_ms=LOOK_MS)
            if any(records[0].offset < left[partition] for partition, records in found.items()):
                return False
            return all([await consumer.position(partition) >= end for partition, end in left.items()])
        except errors.KafkaError as error:
            raise StreamerError(f"topic {topic} could not be read: {error!r}") from error
        finally:
            await consumer.stop()

    def _consumer(self, *topics: str) -> Any:
        """Make a consumer without a group, not started; of transactions it is given what was committed."""
        return AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self._servers.split(","),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=TAIL_FETCH_MS,
            **self._settings.kafka.security(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""


class LogConnection:
    """The embedded log in a directory; held open from `__enter__` to `__exit__`."""

    embedded = True

    def __init__(self, url: str) -> None:
        self._directory = log.directory_of(url)
        self._held: Log | None = None
        log.register()

    @property
    def faust_url(self) -> Any:
        """A URL that Faust does not take apart."""
        return log.broker_url(self._directory)

    def publisher(self) -> LogPublisher:
        """Make a publisher, not started."""
        return LogPublisher(self._directory)

    def admin(self) -> LogAdmin:
        """Make an admin; raises `StateError` where the log cannot be opened."""
        return LogAdmin(self._directory)

    async def tail(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Records]:
        """Read as `Connection.tail` says."""
        with Log.open(self._directory) as held:
            for partition, end in held.end_offsets(topic).items():
                first, offset = held.first_offset(topic, partition), starts.get(partition, 0)
                offset = offset if first <= offset <= end else first
                while offset < end:
                    records = held.fetch(topic, partition, offset, TAIL_RECORDS, TAIL_BYTES)
                    offset = records.offsets[-1] + 1
                    yield records

    async def is_read(self, topic: str, positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
        """As `Connection.is_read`; an embedded log has nothing but records."""
        del topic
        return all(positions.get(partition, 0) >= end for partition, end in ends.items())

    def __enter__(self) -> Self:
        self._held = Log.open(self._directory)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            held.__exit__(*raised)


def connect(url: str, settings: Settings) -> Connection:
    """Make the connection that `url` names; raises `ConfigError` for any other URL.

    >>> connect("kafka:localhost", Settings())
    Traceback (most recent call last):
    ...
    streamer.errors.ConfigError: Expected kafka://host:port[,host:port] or log://DIR, got 'kafka:localhost'
    """
    scheme, _, rest = url.partition("://")
    if scheme == "log" and rest:
        return LogConnection(url)
    if scheme == "kafka" and _SERVERS.fullmatch(rest):
        return KafkaConnection(rest, settings)
    raise ConfigError(f"Expected kafka://host:port[,host:port] or log://DIR, got {url!r}")
