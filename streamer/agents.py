"""The Faust app: it moves batches to the tasks of their partitions, and stops without loss."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from streamer.app import new_app
from streamer.batch import Records
from streamer.errors import Fenced, StreamerError
from streamer.metrics import Metrics
from streamer.openings import Beginning, Opening, Openings
from streamer.settings import Settings
from streamer.state.store import Position
from streamer.task import TICK_S, Task, Upstream
from streamer.transport.seam import Buffer, Rim

log = logging.getLogger(__name__)

BATCHES = 3
"""Of a partition, fetched and not yet processed. With several shards no more than one: what comes meanwhile
is in the next, which is the larger the more there is to do, and a step costs much less a row then. Payments
are not taken in larger batches all the same, by which partitions get ahead of each other: with 2,000 instead
of 1,000 two workers did 19,100 payments a second instead of 22,300."""

WAITING = 2
"""With several shards, batches left of a round when the next one is asked for: as long as a broker takes."""

LOST_SESSIONS = 5
"""Sessions within which a rebalance has to tell who has taken a lost task over."""


class Agents:
    """The live rim of one worker. `failure` is what ended it, if anything did.

    `opening` opens each of the `shards` that is assigned; who has none stands by. `partitions` are how many
    partitions each topic has that is read; number n belongs to shard n modulo `shards`, and those of the
    topics `learning` are for the learners. `member` is what the group knows the worker by, over starts.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - put together in one place
        self,
        opening: Opening,
        settings: Settings,
        metrics: Metrics,
        url: Any,
        group: str,
        partitions: Mapping[str, int],
        *,
        member: str,
        learning: Collection[str],
        shards: int = 1,
        upstream: Upstream | None = None,
    ) -> None:
        self._opening = opening
        self._upstream = upstream
        self._patience_s = LOST_SESSIONS * settings.kafka.session_timeout_ms / 1000.0
        self._metrics = metrics
        self._partitions = partitions
        self._shards = shards
        self._tasks: dict[int, Task] = {}
        self._assigning = asyncio.Lock()
        self._openings = Openings(self._work_on, self._fail_beside)
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()
        self._settled = self._stopping = False
        self._rebalances = self._asked = 0
        self.assigned = asyncio.Event()
        limit = settings.buffers.partition_bytes
        # Batches for the learners may have to wait for payments.
        self.buffer = Buffer(limit, BATCHES) if shards == 1 else Buffer(limit, 1, WAITING, learning)
        self.app = new_app(url, group, member, settings.kafka.session_timeout_ms / 1000.0)
        self.app.rim = Rim(
            start_positions=self._start_positions,
            commit=self._nothing_to_commit,
            fail=self.fail,
            buffer=self.buffer,
            fetch_max_wait_ms=settings.buffers.fetch_max_wait_ms,
            fetch_max_bytes=settings.buffers.fetch_max_bytes,
            batch_max_records=settings.buffers.batch_max_records,
            security=settings.kafka.security(),
            shards=shards,
            standbys=settings.state.standbys,
            warm=lambda: dict(opening.warm),
            ready=lambda: opening.ready,
            may_read=self._may_read,
        )
        others = [topic for topic in partitions if topic not in learning]
        self.app.agent(self._topic(*others), name="payments", concurrency=1)(self._payments)
        self.app.agent(self._topic(*learning), name="outcomes", concurrency=1)(self._outcomes)
        self.app.on_rebalance_complete.connect(self._on_rebalance_complete)
        self.app.on_partitions_revoked.connect(self._on_partitions_revoked)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set or something fails; commit what was answered, and raise the failure."""
        await self.app.start()
        tick = asyncio.ensure_future(self._tick())
        ends = (stop, self.ended, self.app._crashed)  # noqa: SLF001 - Faust tells of a crash in no other way
        waiting = [asyncio.ensure_future(event.wait()) for event in ends]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        self._settled = False
        self._stopping = True
        openings = set(self._openings.under_way)
        for task in (*waiting, *openings):
            task.cancel()
        # The tick may be in the middle of a commit, which must not be torn.
        await asyncio.gather(*waiting, *openings, tick, return_exceptions=True)
        failure = self.failure or self.app.crash_reason
        try:
            if failure is None:
                await asyncio.gather(*(self._finish(task) for task in self._tasks.values()))
        finally:
            for shard in list(self._tasks):
                await self._end(shard)
            await self.app.stop()
        if failure := failure or self.failure:
            raise failure

    async def _finish(self, task: Task) -> None:
        if task.lost:
            return
        try:
            await task.finish()
        except Fenced as error:
            log.warning("%s", error)

    def fail(self, error: BaseException) -> None:
        """End the worker: something went wrong that is not the input's fault."""
        # What is cancelled by a broken connection tells less than what broke it.
        if self.failure is None or isinstance(self.failure, asyncio.CancelledError):
            self.failure = error
        self.ended.set()

    @property
    def ready(self) -> bool:
        """Whether everything that is assigned is worked on, and that is something."""
        return self._settled and bool(self._tasks) and self._tasks.keys() == self._openings.wanted

    @property
    def versions(self) -> Mapping[str, int]:
        """The version of each model that decides."""
        found: dict[str, int] = {}
        for task in self._tasks.values():
            for model, version in task.parts.engine.versions.items():
                found[model] = max(version, found.get(model, 0))
        return found

    async def caught_up(self) -> None:
        """Wait until everything there is has been answered and learned from; only once `assigned` is set."""
        for task in list(self._tasks.values()):
            await task.caught_up()

    async def hand_over(self) -> None:
        """Let a commit take in what was learned, if there is anything."""
        for task in list(self._tasks.values()):
            await task.hand_over()

    async def _payments(self, stream: Any) -> None:
        async for records in stream:
            try:
                await self._work(records, Task.answer)
            finally:
                self._give_back(records)

    async def _outcomes(self, stream: Any) -> None:
        async for records in stream:
            await self._work(records, Task.learn_from)

    async def _work(self, records: Records, work: Callable[[Task, Records], Awaitable[bool]]) -> None:
        """Do the work of an agent on one batch; nothing escapes it."""
        task = self._tasks.get(records.partition % self._shards)
        if task is None or task.lost:
            return  # its next owner reads the batch again
        try:
            if not await work(task, records):
                await _for_ever()
        except asyncio.CancelledError:
            raise
        except Fenced as error:
            self._lose(task, error)
        except Exception as error:  # noqa: BLE001 - Faust would skip the batch and go on
            self.fail(error)
            await _for_ever()

    def _may_read(self, topic: str, partition: int) -> bool:
        """Whether the shard of a partition should get more of it now."""
        task = self._tasks.get(partition % self._shards)
        return task is None or not task.is_ahead(topic)

    def _give_back(self, records: Records) -> None:
        self.buffer.give_back(records.topic, records.partition, records.nbytes)

    async def _tick(self) -> None:
        """What has to happen without a record."""
        try:
            while not self._stopping:
                await asyncio.sleep(TICK_S)
                async with self._assigning:  # no state is closed meanwhile
                    for task in list(self._tasks.values()) if self._settled else ():
                        await self._tick_of(task)
                    if self._settled:
                        self._show()
                        self._ask()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a task that dies silently would stop commits
            self.fail(error)

    def _ask(self) -> None:
        """Have shards that are to come dealt to this worker, now that it has copies of them all; once."""
        consumer = self.app.consumer
        coming, ready = frozenset(consumer.coming), self._opening.ready
        if coming and ready is not None and coming.issubset(ready) and self._asked != self._rebalances:
            self._asked = self._rebalances
            consumer.rejoin()

    async def _tick_of(self, task: Task) -> None:
        if task.lost:
            return
        try:
            await task.tick()
        except Fenced as error:
            self._lose(task, error)
        task.show()

    def _lose(self, task: Task, error: Fenced) -> None:
        """Give a task up that another worker has; a rebalance has to follow, or something else is wrong."""
        if not task.lost:
            task.lose()
            self._expect_rebalance(error)

    def _expect_rebalance(self, error: Fenced) -> None:
        """Say that another worker has a shard; the group has to tell the same before long."""
        log.warning("%s", error)
        rebalances = self._rebalances

        def look() -> None:
            if rebalances == self._rebalances and not self._stopping:
                self.fail(error)

        asyncio.get_running_loop().call_later(self._patience_s, look)

    def _failed(self, shard: int, error: BaseException) -> None:
        """What a task tells of what went wrong beside the stream."""
        if not isinstance(error, Fenced):
            self.fail(error)
        elif (task := self._tasks.get(shard)) is not None:  # else it is given back already
            self._lose(task, error)

    def _show(self) -> None:
        """Bring the figures up to date that add up over the tasks."""
        metrics = self._metrics
        metrics.buffered(self.buffer.held)
        metrics.state_bytes(sum(task.parts.store.size_bytes() for task in self._tasks.values()))
        keys: Counter[str] = Counter()
        for task in self._tasks.values():
            keys.update(task.parts.engine.keys)
        for entity, count in keys.items():
            metrics.state_keys(entity, count)

    def _start_positions(self, assigned: Iterable[Position]) -> Mapping[Position, int | None]:
        """Of the shards that are open."""
        return {
            (topic, partition): task.positions.get((topic, partition))
            for topic, partition in assigned
            if (task := self._tasks.get(partition % self._shards)) is not None
        }

    async def _nothing_to_commit(self) -> bool:
        return False

    async def _on_rebalance_complete(self, *_: object, **__: object) -> None:
        """Let go of what went elsewhere and begin with what came, before the next record is read.

        Of several shards each is opened beside the stream of the others, and read once it is.
        """
        try:
            async with self._assigning:
                self._rebalances += 1
                wanted = frozenset(tp.partition % self._shards for tp in self.app.consumer.assignment())
                self._openings.assign(wanted, self.app.consumer_generation_id)
                for shard, task in list(self._tasks.items()):
                    if task.lost or shard not in wanted:
                        await self._end(shard)
                self._keep()
                begun = [self._openings.begin(shard) for shard in sorted(wanted - self._tasks.keys())]
                if begun and self._shards == 1:
                    await asyncio.wait(begun)
                await self._opening.copy(frozenset(self.app.consumer.standby) - wanted)
                self._settled = True
        except BaseException as error:
            self._fail_beside(error)
            if not isinstance(error, Exception):
                raise
            return
        if self.ready:
            self.assigned.set()

    def _fail_beside(self, error: BaseException) -> None:
        """Faust would log it and stand still; also where a client of a broken connection cancels itself."""
        if not self._stopping:
            self.fail(error)

    async def _work_on(self, shard: int, beginning: Beginning) -> None:
        """Open a shard and work on it, if it is wanted yet."""
        try:
            task = await self._started(shard, beginning)
        except Fenced as error:
            if beginning.wanted:
                self._expect_rebalance(error)  # it went to another worker meanwhile
            return
        if not beginning.wanted:
            await self._close(task)
            return
        self._tasks[shard] = task
        self._keep()
        if self._tasks.keys() == self._openings.wanted:
            self._opening.settle()
        places = [
            (topic, number) for topic, numbers in self._partitions_of(shard).items() for number in numbers
        ]
        await self.app.consumer.take_up(self._start_positions(places))
        if self.ready:
            self.assigned.set()

    async def _started(self, shard: int, beginning: Beginning) -> Task:
        parts = await self._opening.open(shard)
        consumer = self.app.consumer
        failed = partial(self._failed, shard)
        partitions = self._partitions_of(shard)
        task = Task(parts, consumer, partitions, failed, self._give_back, self._upstream)
        try:
            if beginning.wanted:
                await task.start(consumer.commit_positions)
        except BaseException:
            await self._close(task)
            raise
        return task

    def _partitions_of(self, shard: int) -> dict[str, range]:
        return {topic: range(shard, count, self._shards) for topic, count in self._partitions.items()}

    def _keep(self) -> None:
        """Tell each shard that it is still ours."""
        for task in self._tasks.values():
            task.keep()

    async def _end(self, shard: int) -> None:
        await self._close(self._tasks.pop(shard))

    async def _close(self, task: Task) -> None:
        await task.stop()
        try:
            await task.parts.close()
        except StreamerError as error:
            self.fail(error)

    async def _on_partitions_revoked(self, _: object, revoked: Iterable[object], **__: object) -> None:
        self._settled = False
        self._openings.revoke()
        if set(revoked):
            await asyncio.gather(*(self._revoke(task) for task in self._tasks.values()))

    async def _revoke(self, task: Task) -> None:
        try:
            await task.revoke()
        except Fenced as error:
            self._lose(task, error)
        if task.parts.unguarded:
            task.lose()  # perhaps another worker goes on with it before it comes back

    def _topic(self, *names: str) -> Any:
        return self.app.topic(*names, key_serializer="raw", value_serializer="raw")


async def _for_ever() -> None:
    """Take no further batch, and let none count as worked off, until Faust cancels the agent."""
    await asyncio.Event().wait()
