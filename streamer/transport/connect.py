"""From a URL to a connection: `kafka://host:port[,host:port]` or `log://DIR`."""

import re
from collections.abc import Sequence
from typing import Any, Protocol, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from streamer.errors import ConfigError
from streamer.settings import Settings
from streamer.state.log import Log
from streamer.transport import kafka, log
from streamer.transport.kafka_admin import KafkaAdmin
from streamer.transport.kafka_publisher import KafkaPublisher, PublisherSettings
from streamer.transport.log_admin import LogAdmin
from streamer.transport.log_publisher import LogPublisher
from streamer.transport.seam import Admin, Publisher

_SERVERS = re.compile(r"[^/,\s:]+:\d{1,5}(,[^/,\s:]+:\d{1,5})*|\[[0-9a-fA-F:]+\]:\d{1,5}")


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

    async def read_times(self, topic: str, start: int) -> tuple[Sequence[bytes | None], Sequence[int]]:
        """Read keys and record timestamps (ms) of partition 0 from offset `start` to its end."""

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
        settings = self._settings.kafka
        return KafkaPublisher(
            PublisherSettings(
                self._servers.split(","),
                compression=None if settings.compression == "none" else settings.compression,
                security=settings.security(),
            )
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

    async def read_times(self, topic: str, start: int) -> tuple[list[bytes | None], list[int]]:
        """Read keys and record timestamps (ms) of partition 0 from offset `start` to its end."""
        security = self._settings.kafka.security()
        consumer = AIOKafkaConsumer(bootstrap_servers=self._servers.split(","), **security)
        await consumer.start()
        keys: list[bytes | None] = []
        times: list[int] = []
        try:
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            consumer.seek(partition, start)
            end = (await consumer.end_offsets([partition]))[partition]
            while start + len(keys) < end:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    keys.extend(record.key for record in records)
                    times.extend(record.timestamp for record in records)
        finally:
            await consumer.stop()
        return keys, times

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

    async def read_times(self, topic: str, start: int) -> tuple[list[bytes | None], list[int]]:
        """Read keys and record timestamps (ms) of partition 0 from offset `start` to its end."""
        keys: list[bytes | None] = []
        times: list[int] = []
        with Log.open(self._directory) as held:
            while start + len(keys) < held.end_offset(topic, 0):
                records = held.fetch(topic, 0, start + len(keys), 10_000, 1 << 24)
                keys.extend(records.keys)
                times.extend(records.timestamps)
        return keys, times

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
