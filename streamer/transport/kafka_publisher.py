"""Publishes batches to Kafka: idempotent, in order per partition, every delivery confirmed or raised."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition, errors

from streamer.batch import Headers, Outgoing
from streamer.errors import ConfigError, StreamerError
from streamer.partitioning import partitions_of
from streamer.transport.seam import Delivered, unasked

# Lengths, offsets and flags of a record and the header of its batch take less than this.
_OVERHEAD = 128
_HEADER_OVERHEAD = 10
_SHOWN = 128
_CANCEL_S = 1.0

PATIENCE_S = 0.04
"""Records that are patient leave with those that come meanwhile: batches are what costs a broker."""


def _header_bytes(headers: Headers) -> int:
    return sum(len(name) * 4 + len(text or b"") + _HEADER_OVERHEAD for name, text in headers)


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """How to publish.

    `compression` snappy costs 0.4 us a record; aiokafka's lz4 works at level 9 for 3.9 us, its zstd 1.2 us.
    `max_batch_size` bounds what a batch of one partition takes uncompressed, in bytes, and so one record; a
    broker takes 1,048,588 unless told otherwise (`message.max.bytes`). `security` has aiokafka's names.
    """

    servers: Sequence[str]
    compression: str | None = "snappy"
    max_batch_size: int = 1_000_000
    delivery_timeout_s: float = 120.0
    security: Mapping[str, object] = field(default_factory=dict)


def _is_asked(record: logging.LogRecord) -> bool:
    """Not of a batch that aiokafka failed before it left: it has a future of which nobody is told."""
    return not (record.exc_info and isinstance(record.exc_info[1], errors.KafkaError))


class KafkaPublisher:
    """`streamer.transport.seam.Publisher` on aiokafka; lives on the event loop that starts it.

    Transient failures are retried by aiokafka without end; after `delivery_timeout_s` the send raises. Once a
    delivery has failed the idempotent sequence is broken and every later send raises too: stop the worker.
    """

    def __init__(self, settings: PublisherSettings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._turns: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._under_way: set[asyncio.Future[Delivered]] = set()
        self._sends = 0
        self._failure: StreamerError | None = None

    async def start(self) -> None:
        """Connect; raises `ConfigError` where no broker answers."""
        settings = self._settings
        logging.getLogger("asyncio").addFilter(_is_asked)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=list(settings.servers),
            acks="all",
            enable_idempotence=True,
            compression_type=settings.compression,
            max_batch_size=settings.max_batch_size,
            max_request_size=settings.max_batch_size,
            **self._identity(),
            **settings.security,
        )
        try:
            async with asyncio.timeout(settings.delivery_timeout_s):
                await self._producer.start()
        except (errors.KafkaError, TimeoutError) as error:
            await self._producer.stop()
            raise self._no_start(error) from error

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """Hand records over in order; waits only while the partition still holds a full batch.

        Records join the batch of their partition that has not left yet: batches, not records, are what costs
        a broker. Raises `StreamerError` before anything is handed over if a record does not fit into a batch.
        """
        if self._failure is not None:
            raise self._failure
        deliveries: list[tuple[int, Awaitable[Any]]] = []
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_s):
                parts = await self._by_partition(outgoing)
                for _, part in parts:
                    self._check_sizes(part)
                for partition, part in parts:
                    # aiokafka lets a newcomer overtake who waits for the batch before to leave.
                    async with self._turns[outgoing.topic, partition]:
                        deliveries += await self._hand_on(TopicPartition(outgoing.topic, partition), part)
        except (errors.KafkaError, TimeoutError) as error:
            raise self._failed(f"records for topic {outgoing.topic}", error) from error
        delivered = asyncio.ensure_future(self._confirmed(outgoing.topic, deliveries))
        self._under_way.add(delivered)
        delivered.add_done_callback(self._under_way.discard)
        return unasked(delivered)

    async def stop(self) -> None:
        """Wait for what is under way, then disconnect."""
        if self._under_way:
            await asyncio.wait(self._under_way.copy())
        if self._producer is None:
            return
        if self._failure is None:
            await self._producer.stop()
            return
        # aiokafka's own stop would wait for the deliveries that were given up.
        self._producer._closed = True  # noqa: SLF001 - no public way
        sender = self._producer._sender.sender_task  # noqa: SLF001 - no public way
        while not sender.done():
            # Cancelled, it waits for its requests, which may look for a broker without end.
            sender.cancel()
            await asyncio.wait([sender], timeout=_CANCEL_S)
        await self._producer.client.close()

    async def _confirmed(self, topic: str, deliveries: Sequence[tuple[int, Awaitable[Any]]]) -> Delivered:
        ends: dict[tuple[str, int], int] = {}
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_s):
                placed = await asyncio.gather(*(delivery for _, delivery in deliveries))
        except (errors.KafkaError, TimeoutError) as error:
            raise self._failed(f"records for topic {topic}", error) from error
        for (count, _), place in zip(deliveries, placed, strict=True):
            if place.offset >= 0:  # a repeat that the broker recognised has no offset of its own
                end = place.offset + count
                ends[topic, place.partition] = max(end, ends.get((topic, place.partition), 0))
        return ends

    def _identity(self) -> dict[str, object]:
        """What a producer is known by beyond its connection, in aiokafka's names."""
        return {}

    def _no_start(self, error: Exception) -> StreamerError:
        return ConfigError(f"no Kafka broker answers at {', '.join(self._settings.servers)}: {error!r}")

    def _explained(self, what: str, error: Exception) -> StreamerError:
        return StreamerError(
            f"{what} could not be delivered to {', '.join(self._settings.servers)}: "
            f"{error!r}. They are sent again from the last commit when the worker starts"
        )

    def _failed(self, what: str, error: Exception) -> StreamerError:
        if self._failure is None:
            self._failure = self._explained(what, error)
            # Otherwise what is left would be retried for ever and `stop` would wait for it.
            self._producer._message_accumulator.fail_all(errors.KafkaError("given up"))  # noqa: SLF001 - no public way
        return self._failure

    async def _by_partition(self, outgoing: Outgoing) -> list[tuple[int, Outgoing]]:
        count = len(await self._producer.partitions_for(outgoing.topic))
        if outgoing.partition is not None:
            if outgoing.partition >= count:
                raise StreamerError(
                    f"topic {outgoing.topic} has {count} partitions, no number {outgoing.partition}"
                )
            return [(outgoing.partition, outgoing)]
        if count == 1:
            return [(0, outgoing)]
        self._sends += 1
        parts: dict[int, Outgoing] = {}
        chosen = partitions_of(outgoing.keys, count, keyless=self._sends % count)
        for partition, key, value, headers in zip(
            chosen, outgoing.keys, outgoing.values, outgoing.headers, strict=True
        ):
            if partition not in parts:
                parts[partition] = Outgoing(outgoing.topic, partition)
            parts[partition].append(key, value, headers)
        return list(parts.items())

    async def _hand_on(self, place: TopicPartition, part: Outgoing) -> list[tuple[int, Awaitable[Any]]]:
        """Put the records into batches of their partition: where in each they end, and its delivery."""
        now = int(time.time() * 1000)
        deliveries: list[tuple[int, Awaitable[Any]]] = []
        # It is asked when a batch is begun.
        self._producer._message_accumulator._linger_time = PATIENCE_S * part.patient  # noqa: SLF001 - no public way
        batch, delivery = self._not_left(place)
        append = batch.append
        for key, value, headers in zip(part.keys, part.values, part.headers, strict=True):
            listed = list(headers)
            if append(timestamp=now, key=key, value=value, headers=listed) is None:
                if batch.record_count():
                    deliveries.append(
                        (batch.record_count(), delivery or await self._send_batch(batch, place))
                    )
                # The first record of a batch is taken whatever its size.
                self._check_size(part.topic, key, value, headers)
                batch, delivery = self._producer.create_batch(), None
                append = batch.append
                append(timestamp=now, key=key, value=value, headers=listed)
        if batch.record_count():
            deliveries.append((batch.record_count(), delivery or await self._send_batch(batch, place)))
        return deliveries

    def _not_left(self, place: TopicPartition) -> tuple[Any, Awaitable[Any] | None]:
        """The batch of a partition that waits to be sent and has room, with its delivery; else a new one."""
        waiting = self._producer._message_accumulator._batches.get(place)  # noqa: SLF001 - no public way
        if waiting and not waiting[-1]._builder.closed():  # noqa: SLF001 - no public way
            return waiting[-1]._builder, asyncio.shield(waiting[-1].future)  # noqa: SLF001 - no public way
        return self._producer.create_batch(), None

    async def _send_batch(self, batch: Any, place: TopicPartition) -> Awaitable[Any]:
        sent: Awaitable[Any] = await self._producer.send_batch(batch, place.topic, partition=place.partition)
        return sent

    def _check_sizes(self, part: Outgoing) -> None:
        if max(map(len, filter(None, part.values)), default=0) > self._settings.max_batch_size // 2:
            for key, value, headers in zip(part.keys, part.values, part.headers, strict=True):
                self._check_size(part.topic, key, value, headers)

    def _check_size(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        limit = self._settings.max_batch_size - _OVERHEAD
        size = len(key or b"") + len(value or b"") + _header_bytes(headers)
        if size > limit:
            raise StreamerError(
                f"a record for topic {topic} with key {(key or b'')[:_SHOWN]!r} takes {size} bytes, more than"
                f" the {limit} that fit into a batch (max_batch_size here, message.max.bytes there)"
            )
