"""Faust's Kafka transport with one message per partition and batch, for URLs kafka://."""

# ruff: noqa: SLF001 - aiokafka shows neither its fetcher nor its assignment; Faust's own driver reaches in too

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import aiokafka
from aiokafka import errors
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streamer.batch import Records
from streamer.errors import StateError, StreamerError
from streamer.transport.assignor import ShardAssignor
from streamer.transport.batching import BatchConductor, BatchConsumer, NoProducer, rim_of
from streamer.transport.rounds import Rounds

COMMIT_TIMEOUT_S = 5.0
PREFETCH_BACKOFF_S = 0.01

FIRST_RECORDS = 100
"""So many of a partition are taken first: after a start keys are read from the disk at their next payment,
which takes a second for a thousand payments, and the first answers need not wait for all of them."""


def _as_it_is(_tp: TopicPartition, record: Any) -> Any:
    return record


def to_records(tp: TopicPartition, records: list[Any], *, more: bool = False) -> Records:
    """Turn aiokafka's records of one partition into one batch; `more` as in `Records`."""
    keys = [record.key for record in records]
    values = [record.value for record in records]
    headers = [record.headers for record in records]
    nbytes = sum(len(value) for value in values if value) + sum(len(key) for key in keys if key)
    if any(headers):
        nbytes += sum(len(name) + len(value or b"") for pairs in headers for name, value in pairs)
    return Records(
        tp.topic,
        tp.partition,
        [record.offset for record in records],
        [record.timestamp for record in records],
        keys,
        values,
        headers,
        nbytes,
        more,
    )


def position_lost(tp: TopicPartition, position: int, first: int, end: int) -> StateError:
    """Say what a position outside of its partition means and what to do."""
    if position < first:
        cause = f"offsets {position} to {first - 1} have been deleted (the topic's retention is too short)"
    else:
        cause = f"the topic ends at {end} (it was deleted and created again, or it is another cluster)"
    return StateError(
        f"partition {tp.partition} of topic {tp.topic} cannot be read from offset {position}, where the "
        f"state stands: {cause}. Restore the topic, or start with an empty state directory"
    )


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The consumer's own thread and event loop; what starts with `_` runs there."""

    consumer: "Consumer"
    assignor: ShardAssignor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken = {}
        self._most = {}

    # The assignment whose positions are the store's. Records of any other are aiokafka's guess: never taken.
    _placed: object = None
    _places = 0
    # The offset after the last record taken of each partition, `None` while more are being taken.
    _taken: dict[TopicPartition, int | None]
    # Of each partition that nothing was taken of since it was placed.
    _most: dict[TopicPartition, int]
    _waiter: asyncio.Future[None] | None = None
    _rounds: Rounds | None = None

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        rim = rim_of(self.app)
        self.assignor = ShardAssignor(rim.shards, rim.standbys, rim.warm, rim.ready)
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self.assignor],
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=rim.fetch_max_wait_ms,
            max_partition_fetch_bytes=rim.fetch_max_bytes,
            max_poll_records=rim.batch_max_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            check_crcs=conf.broker_check_crcs,
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **rim.security,
        )

    async def on_start(self) -> None:
        """Connect."""
        await super().on_start()
        fetcher = self._ensure_consumer()._fetcher
        if rim_of(self.app).shards == 1:
            # While the records of one partition wait here, the others of its broker are not to wait for long.
            fetcher._prefetch_backoff = PREFETCH_BACKOFF_S
        else:
            self._rounds = Rounds(fetcher, self.thread_loop)

    async def on_thread_stop(self) -> None:
        """Leave the group: others go on at once, not after the session of a member that may come back."""
        if self._consumer is not None:
            # aiokafka keeps members known by an instance from leaving.
            self._consumer._coordinator._group_instance_id = None
        await super().on_thread_stop()

    async def fetch(self, partitions: frozenset[TP], wakes: int, seconds: float) -> dict[TP, Records]:
        """Wait for records as `BatchConsumer.fetch` says."""
        return await self.call_thread(self._fetch, partitions, wakes, seconds)  # type: ignore[no-any-return]

    async def _fetch(self, partitions: frozenset[TP], wakes: int, seconds: float) -> dict[TP, Records]:
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        ends = self.thread_loop.time() + seconds
        if self._rounds is not None and partitions:
            await self._rounds.begin(partitions)
        with fetcher._subscriptions.fetch_context():
            while True:
                if consumer._closed or fetcher._closed:
                    raise errors.ConsumerStoppedError
                if self.consumer._wakes != wakes:
                    return {}
                batches = await self._take(fetcher, partitions)
                left = ends - self.thread_loop.time()
                if batches and self._rounds is not None:
                    self._rounds.end()
                if batches or left <= 0:
                    return batches
                self._waiter = fetcher._create_fetch_waiter()
                done, _ = await asyncio.wait([self._waiter], timeout=left)
                for waiter in done:
                    waiter.result()
                if not done:
                    self._waiter.cancel()

    async def _take(self, fetcher: Any, partitions: frozenset[TP]) -> dict[TP, Records]:
        subscription = fetcher._subscriptions.subscription
        if subscription is None or subscription.assignment is not self._placed:
            return {}
        if fetcher._subscriptions.reassignment_in_progress:
            return {}
        batches = {}
        for tp in list(fetcher._records):
            if tp not in partitions:
                continue
            # aiokafka would wrap each record once more, for 1.2 of 2.2 us a record.
            fetched = getattr(fetcher._records[tp], "_partition_records", None)
            if fetched is not None:
                fetched._consumer_record = _as_it_is
            before, self._taken[tp] = self._taken.get(tp), None
            try:
                most = self._ensure_consumer()._max_poll_records
                taken = await fetcher.fetched_records({tp}, 0, min(most, self._most.get(tp, most)))
            except errors.OffsetOutOfRangeError as error:
                raise position_lost(tp, error.args[0][tp], *(await self._bounds([tp]))[tp]) from error
            except errors.KafkaError as error:
                raise StreamerError(
                    f"partition {tp.partition} of topic {tp.topic} cannot be read: {error}"
                ) from error
            for taken_tp, records in taken.items():
                state = fetcher._subscriptions.subscription.assignment.state_value(taken_tp)
                more = state.has_valid_position and state.position < (state.lso or 0)
                batches[TP(*taken_tp)] = to_records(taken_tp, records, more=more)
                self._most.pop(tp, None)
            self._taken[tp] = batches[tp].offsets[-1] + 1 if tp in batches else before
        return batches

    def rejoin(self) -> None:
        """Ask the group for a rebalance; called from the worker's thread."""
        self.thread_loop.call_soon_threadsafe(self._ensure_consumer()._coordinator.request_rejoin)

    def interrupt(self) -> None:
        """Wake a waiting fetch; called from the worker's thread."""
        with contextlib.suppress(RuntimeError):  # the thread has crashed, and nothing waits there
            self.thread_loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def place(
        self, positions: Mapping[tuple[str, int], int | None], assigned: Collection[tuple[str, int]]
    ) -> dict[TP, int]:
        """Seek to these positions (`None`: the first offset there is) and return where each now stands.

        Does nothing if others than `assigned` are by now: a rebalance is under way then, and its seek
        follows.
        """
        return await self.call_thread(self._place, positions, assigned)  # type: ignore[no-any-return]

    async def place_more(self, positions: Mapping[tuple[str, int], int | None]) -> dict[TP, int] | None:
        """Seek to these too, after `place`; `None` where its assignment is not the present one any more."""
        return await self.call_thread(self._place_more, positions)  # type: ignore[no-any-return]

    async def _place(
        self, positions: Mapping[tuple[str, int], int | None], assigned: Collection[tuple[str, int]]
    ) -> dict[TP, int]:
        self._places += 1
        place = self._places
        assignment = self._ensure_consumer()._subscription.subscription.assignment
        if assignment.tps != {TopicPartition(*tp) for tp in assigned}:
            return {}
        found = await self._inside(positions)
        if place != self._places or not assignment.active:
            return {}
        self._taken, self._most = {}, {}
        self._seek_all(found)
        self._placed = assignment
        return {TP(*tp): position for tp, position in found.items()}

    async def _place_more(self, positions: Mapping[tuple[str, int], int | None]) -> dict[TP, int] | None:
        subscription = self._ensure_consumer()._subscription
        assignment = self._placed
        found = await self._inside(positions)
        if self._placed is not assignment or subscription.subscription.assignment is not assignment:
            return None
        if subscription.reassignment_in_progress:
            return None
        self._seek_all(found)
        return {TP(*tp): position for tp, position in found.items()}

    async def _inside(self, positions: Mapping[tuple[str, int], int | None]) -> dict[TopicPartition, int]:
        """These positions, all of them between the first offset and the end of their partitions."""
        bounds = await self._bounds([TopicPartition(*tp) for tp in positions]) if positions else {}
        found = {}
        for tp, (first, end) in bounds.items():
            position = positions[tp]
            if position is not None and not first <= position <= end:
                raise position_lost(tp, position, first, end)
            found[tp] = first if position is None else position
        return found

    def _seek_all(self, positions: Mapping[TopicPartition, int]) -> None:
        for tp, position in positions.items():
            self._ensure_consumer().seek(tp, position)
        self._taken.update(positions)
        self._most.update(dict.fromkeys(positions, FIRST_RECORDS))

    async def _bounds(self, partitions: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        consumer = self._ensure_consumer()
        firsts, ends = await asyncio.gather(
            consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        )
        return {tp: (firsts[tp], ends[tp]) for tp in partitions}

    async def commit_positions(self, positions: Mapping[tuple[str, int], int]) -> bool:
        """Commit as `Consumer.commit_positions` says."""
        return await self.call_thread(self._commit_positions, positions)  # type: ignore[no-any-return]

    async def _commit_positions(self, positions: Mapping[tuple[str, int], int]) -> bool:
        offsets = {TopicPartition(*tp): OffsetAndMetadata(position, "") for tp, position in positions.items()}
        try:
            await asyncio.wait_for(self._ensure_consumer().commit(offsets), COMMIT_TIMEOUT_S)
        except (errors.CommitFailedError, errors.IllegalStateError) as error:
            self.log.info("group offsets not committed, partitions have moved: %s", error)
            return False
        except (errors.KafkaError, TimeoutError) as error:
            self.log.warning("group offsets not committed, next commit will do: %r", error)
            return False
        return True

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; `None` where the cluster has no such topic, as far as is known."""
        partitions = self._consumer and self._consumer.partitions_for_topic(topic)
        return len(partitions) if partitions else None

    def end_offset(self, tp: TopicPartition) -> int | None:
        """Return the end as `Consumer.end_offset` says."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription and subscription.assignment
        state = assignment and assignment.state_value(tp)
        if not state or state.lso is None:
            return None
        taken = self._taken.get(tp)
        # Behind the last record may stand what ends transactions, which takes offsets and is never delivered.
        behind = taken is not None and state.has_valid_position and state.position >= state.lso
        return taken if behind else int(state.lso)


class Consumer(BatchConsumer, driver.Consumer):
    """Reads partitions as batches from where the store stands."""

    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._placing = asyncio.Lock()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def fetch(self, partitions: frozenset[TP], wakes: int, seconds: float) -> Mapping[TP, Records]:
        """Wait for records as `BatchConsumer.fetch` says."""
        return await self._thread.fetch(partitions, wakes, seconds)

    def interrupt(self) -> None:
        """Let a waiting `fetch` return."""
        self._thread.interrupt()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the positions that the store stands at; `StateError` where a position no longer exists.

        Partitions whose positions are not known yet are not read until `take_up`.
        """
        async with self._placing:
            self._rim.buffer.reset()
            assigned = {tp: (tp.topic, tp.partition) for tp in self.assignment()}
            positions = self._rim.start_positions(assigned.values())
            self.pause_partitions([tp for tp, place in assigned.items() if place not in positions])
            return await self._thread.place(positions, list(assigned.values()))

    async def take_up(self, positions: Mapping[tuple[str, int], int | None]) -> None:
        """Read these as well; where a rebalance is under way, its own seek does it."""
        async with self._placing:
            placed = await self._thread.place_more(positions)
            if placed is not None:
                self._read_offset.update(placed)
                self.resume_partitions(placed)
                self.wake()

    async def commit_positions(self, positions: Mapping[tuple[str, int], int]) -> bool:
        """Commit the next offset of each (topic, partition) to the group; `False` if it could not be done.

        The store is the truth: a failure here is logged and the next commit makes up for it.
        """
        return await self._thread.commit_positions(positions)

    @property
    def standby(self) -> Collection[int]:
        """The shards of others that this worker is to keep a copy of."""
        return self._thread.assignor.share.standby

    @property
    def coming(self) -> Collection[int]:
        """Those of them that this worker is given once it has a copy and asks to `rejoin`."""
        return self._thread.assignor.share.coming

    def rejoin(self) -> None:
        """Have the shards of the group dealt anew."""
        self._thread.rejoin()

    def end_offset(self, topic: str, partition: int) -> int | None:
        """Return the next offset there will be, as of the last fetch; `None` if not known here.

        Once all is taken it is the offset after the last record, whatever stands behind that.
        """
        return self._thread.end_offset(TopicPartition(topic, partition))


class Transport(driver.Transport):
    """What Faust loads for kafka://."""

    Consumer = Consumer
    Conductor = BatchConductor
    Producer = NoProducer


def register() -> None:
    """Let Faust use this transport for kafka:// instead of its own."""
    TRANSPORTS.aliases["kafka"] = "streamer.transport.kafka:Transport"
