"""Reads one partition of a changelog, committed records only, as fast as the broker gives them."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiokafka import TopicPartition, errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from streamer.errors import ConfigError, StreamerError
from streamer.transport.kafka import position_lost

FETCH_BYTES = 8 << 20
ENOUGH_BYTES = 256 << 10
"""A fetch that waits is answered early once there is so much."""

PATIENCE_S = 60.0
"""How long a broker may be away before a read fails."""

_READ_UNCOMMITTED, _READ_COMMITTED = 0, 1
_EARLIEST, _LATEST = -2, -1
_RETRY_S = 0.1


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought: aiokafka's record batches, decompressed when they are gone through.

    `next` is the offset to fetch from after them. Where it is `end`, the offset up to which all transactions
    had ended, there was nothing more to read, and whatever compaction had removed before was replaced by what
    is here.
    """

    batches: Sequence[Any]
    next: int
    end: int


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """Where to read, and how; `security` has aiokafka's names."""

    servers: Sequence[str]
    topic: str
    shard: int
    security: Mapping[str, object] = field(default_factory=dict)
    fetch_bytes: int = FETCH_BYTES
    patience_s: float = PATIENCE_S


class ChangelogReader:
    """Fetches from any offset, without a group; lives on the event loop that starts it."""

    def __init__(self, settings: ReaderSettings) -> None:
        self._settings = settings
        self.topic, self.shard = settings.topic, settings.shard
        self._place = TopicPartition(settings.topic, settings.shard)
        self._client: Any = None

    async def start(self) -> None:
        """Connect; raises `ConfigError` where no broker answers, or where there is no such partition."""
        settings = self._settings
        self._client = AIOKafkaClient(bootstrap_servers=list(settings.servers), **settings.security)
        try:
            async with asyncio.timeout(settings.patience_s):
                await self._client.bootstrap()
                partitions = await self._client._wait_on_metadata(self.topic)  # noqa: SLF001 - no public way
        except (errors.KafkaError, TimeoutError) as error:
            await self._client.close()
            raise ConfigError(
                f"topic {self.topic} cannot be read from {', '.join(settings.servers)}: {error!r}"
            ) from error
        if self.shard not in partitions:
            await self._client.close()
            raise ConfigError(
                f"topic {self.topic} has {len(partitions)} partitions, no number {self.shard};"
                " it needs as many as payments has"
            )

    async def stop(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.close()

    async def bounds(self) -> tuple[int, int]:
        """The first offset there is, and the one up to which all transactions have ended."""
        return await self._offset(_EARLIEST, _READ_COMMITTED), await self._offset(_LATEST, _READ_COMMITTED)

    async def written(self) -> int:
        """The offset up to which anything was written, by transactions too that have not ended."""
        return await self._offset(_LATEST, _READ_UNCOMMITTED)

    async def _offset(self, when: int, isolation: int) -> int:
        answer = await self._ask(OffsetRequest(-1, isolation, [(self.topic, [(self.shard, when)])]))
        return int(answer[1])

    async def fetch(self, offset: int, wait_ms: int = 0) -> Fetched:
        """What is there from `offset` on; where that is little yet, wait so long for more.

        Raises `StateError` where the partition begins later or ends earlier, `StreamerError` where it cannot
        be read for longer than the reader's patience.
        """
        size = self._settings.fetch_bytes
        topics = [(self.topic, [(self.shard, offset, size)])]
        try:
            answer = await self._ask(
                FetchRequest(wait_ms, ENOUGH_BYTES if wait_ms else 1, size, _READ_COMMITTED, topics)
            )
        except errors.OffsetOutOfRangeError as error:
            raise position_lost(self._place, offset, *await self.bounds()) from error
        # High watermark, last stable offset, first offset, aborted transactions, perhaps a replica, records.
        end, aborted, data = answer[1], answer[3], answer[-1]
        records = MemoryRecords(data)
        if not records.has_next() and data:
            raise StreamerError(
                f"a batch of topic {self.topic} at offset {offset} has more than {size} bytes"
            )
        batches, following = _committed(records, aborted or ())
        # Where nothing comes though there is something, compaction has removed the last of it.
        return Fetched(batches, max(offset, end) if following is None else following, end)

    async def _ask(self, request: Any) -> Any:
        """What the partition's leader answers, behind its number and error code; asked until it does."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.patience_s
        while True:
            try:
                leader = self._client.cluster.leader_for_partition(self._place)
                if leader is None or leader < 0:
                    raise errors.LeaderNotAvailableError(self._place)
                response = await self._client.send(leader, request)
                if not response.topics:  # so a broker throttles
                    raise errors.RequestTimedOutError
                _, code, *answer = response.topics[0][1][0]
                if code:
                    raise errors.for_code(code)
            except errors.KafkaError as error:
                if isinstance(error, errors.OffsetOutOfRangeError):
                    raise
                if not error.retriable or loop.time() > deadline:
                    raise StreamerError(
                        f"partition {self.shard} of topic {self.topic} cannot be read: {error!r}"
                    ) from error
                await self._client.force_metadata_update()
                await asyncio.sleep(_RETRY_S)
            else:
                return answer

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _committed(records: Any, aborted: Sequence[tuple[int, int]]) -> tuple[list[Any], int | None]:
    """The batches of committed transactions, and the offset after all that was read.

    What was not sent in a transaction is not from an owner of the shard. `aborted` are producers and the
    first offsets of their aborted transactions, each of which ends at a marker.
    """
    coming = deque(sorted(aborted, key=lambda one: one[1]))
    aborting: set[int] = set()
    batches = []
    following = None
    while records.has_next():
        batch = records.next_batch()
        following = batch.next_offset
        while coming and coming[0][1] <= batch.base_offset:
            aborting.add(coming.popleft()[0])
        if batch.is_control_batch:
            if _aborts(batch):
                aborting.discard(batch.producer_id)
        elif batch.is_transactional and batch.producer_id not in aborting:
            batches.append(batch)
    return batches, following


def _aborts(batch: Any) -> bool:
    markers: Iterator[Any] = iter(batch)
    return any(ControlRecord.parse(marker.key) == ABORT_MARKER for marker in markers)
