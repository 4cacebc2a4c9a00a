"""The Faust app: it moves batches to the tasks of their partitions, and stops without loss."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import faust

from streamer.batch import Records
from streamer.metrics import Metrics
from streamer.parts import Parts
from streamer.settings import Settings
from streamer.state.store import Position
from streamer.task import TICK_S, Task
from streamer.transport.seam import Buffer, Rim

OpenParts = Callable[[], Awaitable[Parts]]
"""Brings the state up to date and puts together what works on it."""


class Agents:
    """The live rim of one worker. `failure` is what ended it, if anything did.

    `open_parts` is called when partitions are assigned; who has none stands by. `partitions` are the numbers
    of partitions of the input topics.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - put together in one place
        self,
        open_parts: OpenParts,
        settings: Settings,
        metrics: Metrics,
        url: Any,
        group: str,
        partitions: Mapping[str, int],
    ) -> None:
        self._open_parts = open_parts
        self._metrics = metrics
        self._partitions = partitions
        self._topics = settings.topics.resolved
        self._task: Task | None = None
        self._assigning = asyncio.Lock()
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()
        self.ready = False
        self._stopping = False
        self.assigned = asyncio.Event()
        self.buffer = Buffer(settings.buffers.partition_bytes)
        self.app = _new_app(url, group, settings.kafka.session_timeout_ms / 1000.0)
        self.app.rim = Rim(
            start_positions=self._start_positions,
            commit=self._nothing_to_commit,
            buffer=self.buffer,
            fetch_max_wait_ms=settings.buffers.fetch_max_wait_ms,
            fetch_max_bytes=settings.buffers.fetch_max_bytes,
            batch_max_records=settings.buffers.batch_max_records,
            security=settings.kafka.security(),
        )
        self.app.agent(self._topic(self._topics.payments), name="payments", concurrency=1)(self._payments)
        self.app.agent(self._topic(self._topics.outcomes), name="outcomes", concurrency=1)(self._outcomes)
        self.app.on_rebalance_complete.connect(self._on_rebalance_complete)
        self.app.on_partitions_revoked.connect(self._on_partitions_revoked)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set or something fails; commit what was answered, and raise the failure."""
        await self.app.start()
        tick = asyncio.ensure_future(self._tick())
        ends = (stop, self.ended, self.app._crashed)  # noqa: SLF001 - Faust tells of a crash in no other way
        waiting = [asyncio.ensure_future(event.wait()) for event in ends]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        self.ready = False
        self._stopping = True
        for task in waiting:
            task.cancel()
        # The tick may be in the middle of a commit, which must not be torn.
        await asyncio.gather(*waiting, tick, return_exceptions=True)
        failure = self.failure or self.app.crash_reason
        try:
            if failure is None and self._task is not None:
                await self._task.finish()
        finally:
            if self._task is not None:
                await self._task.stop()
            await self.app.stop()
        if failure is not None:
            raise failure

    def fail(self, error: BaseException) -> None:
        """End the worker: something went wrong that is not the input's fault."""
        if self.failure is None:
            self.failure = error
        self.ended.set()

    @property
    def versions(self) -> Mapping[str, int]:
        """The version of each model that decides."""
        return {} if self._task is None else self._task.parts.engine.versions

    async def caught_up(self) -> None:
        """Wait until everything there is has been answered and learned from; only once `assigned` is set."""
        if self._task is not None:
            await self._task.caught_up()

    async def hand_over(self) -> None:
        """Let a commit take in what was learned, if there is anything."""
        if self._task is not None:
            await self._task.hand_over()

    async def _payments(self, stream: Any) -> None:
        await self._each(stream, Task.answer)

    async def _outcomes(self, stream: Any) -> None:
        await self._each(stream, Task.learn_from)

    async def _each(self, stream: Any, work: Callable[[Task, Records], Awaitable[bool]]) -> None:
        """Do the work of an agent, batch by batch; nothing escapes it."""
        async for records in stream:
            try:
                if self._task is None or not await work(self._task, records):
                    await _for_ever()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - Faust would skip the batch and go on
                self.fail(error)
                await _for_ever()
            finally:
                self.buffer.give_back(records.topic, records.partition, records.nbytes)

    async def _tick(self) -> None:
        """What has to happen without a record."""
        try:
            while not self._stopping:
                await asyncio.sleep(TICK_S)
                if self.ready and self._task is not None:
                    await self._task.tick()
                    self._task.show()
                    self._metrics.buffered(self.buffer.held)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a task that dies silently would stop commits
            self.fail(error)

    def _start_positions(self, assigned: Iterable[Position]) -> Mapping[Position, int | None]:
        reached: Mapping[Position, int] = {} if self._task is None else self._task.positions
        return {position: reached.get(position) for position in assigned}

    async def _nothing_to_commit(self) -> bool:
        return False

    async def _on_rebalance_complete(self, *_: object, **__: object) -> None:
        """Bring the state of what is assigned to life, before the first record is read."""
        try:
            async with self._assigning:
                if self.app.consumer.assignment() and self._task is None:
                    await self._begin()
                self.ready = self._task is not None
        except BaseException as error:
            # Faust would log it and stand still; also where a client of a broken connection cancels itself.
            if not self._stopping:
                self.fail(error)
            raise
        if self.ready:
            self.assigned.set()

    async def _begin(self) -> None:
        partitions = {topic: range(count) for topic, count in self._partitions.items()}
        task = Task(await self._open_parts(), self.app.consumer, partitions, self.fail)
        await task.start(self.app.consumer.commit_positions)
        self._task = task

    async def _on_partitions_revoked(self, _: object, revoked: Iterable[object], **__: object) -> None:
        self.ready = False
        if set(revoked) and self._task is not None:
            await self._task.commit()

    def _topic(self, name: str) -> Any:
        return self.app.topic(name, key_serializer="raw", value_serializer="raw")


async def _for_ever() -> None:
    """Take no further batch, and let none count as worked off, until Faust cancels the agent."""
    await asyncio.Event().wait()


class _App(faust.App):
    """A Faust app that keeps nothing of its own on disk."""

    def _create_directories(self) -> None:
        """No directories: state is the store's."""


def _new_app(url: Any, group: str, session_timeout_s: float) -> Any:
    return _App(
        group,
        broker=url,
        store="memory://",
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=session_timeout_s / 3.0,
        stream_buffer_maxsize=1 << 20,
        stream_recovery_delay=0.0,
        worker_redirect_stdouts=False,
    )
