"""The Faust app: an agent answers payments, one learns from outcomes, and both stop without loss."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import faust
import numpy as np

from streamer import faults
from streamer.batch import Records
from streamer.committer import Committer
from streamer.parts import Parts
from streamer.rejections import Rejected
from streamer.state.store import Position, positions_of
from streamer.transport.seam import Buffer, Rim

LEARN_AT_ONCE = 32
"""Examples learned before other work gets its turn; about 2 ms."""

JOIN_AT_ONCE = 256
"""Outcomes joined before other work gets its turn."""

TICK_S = 0.05


class Agents:
    """The live rim around one engine. `failure` is what ended it, if anything did."""

    def __init__(self, parts: Parts, url: Any, group: str, partitions: Mapping[str, int]) -> None:
        self._parts = parts
        self._committer = Committer(parts, self.fail)
        self._partitions = partitions
        self._topics = parts.settings.topics.resolved
        self.failure: BaseException | None = None
        self.ended = asyncio.Event()
        self.ready = False
        self._stopping = False
        self.assigned = asyncio.Event()
        self._progress = asyncio.Event()
        self._last_handover = time.monotonic()
        buffers = parts.settings.buffers
        self.buffer = Buffer(buffers.partition_bytes)
        self.app = _new_app(url, group, parts.settings.kafka.session_timeout_ms / 1000.0)
        self.app.rim = Rim(
            start_positions=self._start_positions,
            commit=self._nothing_to_commit,
            buffer=self.buffer,
            fetch_max_wait_ms=buffers.fetch_max_wait_ms,
            fetch_max_bytes=buffers.fetch_max_bytes,
            batch_max_records=buffers.batch_max_records,
            sole_topics=frozenset((self._topics.payments, self._topics.outcomes)),
            security=parts.settings.kafka.security(),
        )
        self.app.agent(self._topic(self._topics.payments), name="payments", concurrency=1)(self._payments)
        self.app.agent(self._topic(self._topics.outcomes), name="outcomes", concurrency=1)(self._outcomes)
        self.app.on_rebalance_complete.connect(self._on_rebalance_complete)
        self.app.on_partitions_revoked.connect(self._on_partitions_revoked)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set or something fails; commit what was answered, and raise the failure."""
        committer = self._committer
        await committer.resume()
        await self.app.start()
        tick = asyncio.ensure_future(self._tick())
        ends = (stop, self.ended, self.app._crashed)  # noqa: SLF001 - Faust tells of a crash in no other way
        waiting = [asyncio.ensure_future(event.wait()) for event in ends]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        self.ready = False
        self._stopping = True
        faults.reach("stop.begun")
        for task in waiting:
            task.cancel()
        # The tick may be in the middle of a commit, which must not be torn.
        await asyncio.gather(*waiting, tick, return_exceptions=True)
        failure = self.failure or self.app.crash_reason
        try:
            if failure is None:
                async with committer.gate:
                    await committer.finish()
        finally:
            await committer.stop()
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
        return self._parts.engine.versions

    def lag(self) -> dict[Position, int]:
        """Records of each partition of the payments and the outcomes that are there and not yet answered."""
        done = {**self._parts.engine.positions, **self._parts.learning.positions}
        found = {}
        for topic in (self._topics.payments, self._topics.outcomes):
            for partition in range(self._partitions[topic]):
                end = self.app.consumer.end_offset(topic, partition)
                if end is not None:
                    found[topic, partition] = max(0, end - done.get((topic, partition), 0))
        return found

    async def caught_up(self) -> None:
        """Wait until everything there is has been answered and learned from."""
        while sum(self.lag().values()) or self._parts.learning.waiting:
            self._progress.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._progress.wait(), TICK_S)

    async def _payments(self, stream: Any) -> None:
        await self._each(stream, self._answer)

    async def _outcomes(self, stream: Any) -> None:
        await self._each(stream, self._learn_from)

    async def _each(self, stream: Any, work: Callable[[Records], Awaitable[None]]) -> None:
        """Do the work of an agent, batch by batch; nothing escapes it."""
        async for records in stream:
            try:
                await work(records)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - Faust would skip the batch and go on
                self.fail(error)
                await _for_ever()
            finally:
                self.buffer.give_back(records.topic, records.partition, records.nbytes)

    async def _answer(self, records: Records) -> None:
        parts = self._parts
        answer = None
        async with self._committer.gate:
            if not self._stopping:
                answer = parts.engine.process(records)
                await self._committer.answer(answer)
        if answer is None:  # the last commit has its cut: this batch is for the next start
            await _for_ever()
            return
        self._progress.set()
        metrics = parts.metrics
        metrics.payments(len(records))
        metrics.batch(len(records))
        metrics.decisions(answer.actions)
        metrics.rejections(self._topics.payments_rejected, answer.codes)
        metrics.entities_present(answer.present)
        metrics.missing_rates(answer.unrated)
        metrics.latencies(time.time() - np.array(records.timestamps) / 1000.0)

    async def _learn_from(self, records: Records) -> None:
        learning = self._parts.learning
        ends = self._payment_ends()
        outcomes, rejected = learning.read(records)
        await self._reject(records, rejected)
        at = 0
        while at < len(outcomes):
            now = await self._arrived([outcome.event_time for _, outcome in outcomes[at : at + JOIN_AT_ONCE]])
            joined = outcomes[at : at + now]
            unknown = learning.join([outcome for _, outcome in joined])
            if unknown:
                await self._until(lambda: self._has_reached(ends))
                again = [joined[index] for index in unknown]
                lost = learning.join([outcome for _, outcome in again])
                await self._reject(records, [_unknown(*again[index]) for index in lost])
            at += now
            learning.advance(records.topic, records.partition, records.offsets[joined[-1][0]] + 1)
            await self._learn()
        learning.advance(records.topic, records.partition, records.offsets[-1] + 1)
        self._progress.set()

    async def _reject(self, records: Records, rejected: list[Rejected]) -> None:
        """Answer outcomes that are none; before their position is passed, so that no answer is lost."""
        await self._committer.send(self._parts.learning.reject(records, rejected))
        codes = Counter(item.code for item in rejected)
        self._parts.metrics.rejections(self._topics.outcomes_rejected, codes)

    async def _arrived(self, times: list[int]) -> int:
        """Wait until the first of these outcomes lies in the past of the payments; how many do then."""
        while True:
            clock = max(self._parts.store.progress.greatest.values(), default=0)
            now = next((index for index, moment in enumerate(times) if moment > clock), len(times))
            if now:
                return now
            if self._has_reached(self._payment_ends()):
                return len(times)
            await self._next_commit()

    async def _learn(self) -> None:
        """Learn all that is queued, in short turns, and hand over when it is time."""
        learning = self._parts.learning
        while learning.learn(LEARN_AT_ONCE):  # noqa: ASYNC110 - a turn for the payments, not a wait
            await asyncio.sleep(0)
        self._progress.set()
        waited = (time.monotonic() - self._last_handover) * 1000.0
        if learning.has_news and waited >= self._parts.settings.models.snapshot_interval_ms:
            await self.hand_over()

    async def hand_over(self) -> None:
        """Let a commit take in what was learned."""
        learning = self._parts.learning
        if learning.waiting or not learning.has_news:
            return
        self._last_handover = time.monotonic()
        await self._committer.take_in(learning.hand_over())

    async def _tick(self) -> None:
        """What has to happen without a record: a commit of what is left, maturing, figures."""
        parts = self._parts
        try:
            while not self._stopping:
                await asyncio.sleep(TICK_S)
                if not self.ready:
                    continue
                async with self._committer.gate:
                    if parts.engine.changed:
                        self._committer.start_if_due()
                clock = max(parts.store.progress.greatest.values(), default=0)
                while parts.learning.mature(clock):
                    await self._learn()
                await self._learn()
                self._show()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a task that dies silently would stop commits
            self.fail(error)

    def _show(self) -> None:
        """Bring the figures that are not counted by batch up to date."""
        metrics, learning = self._parts.metrics, self._parts.learning
        for (topic, partition), records in self.lag().items():
            metrics.lag(topic, partition, records)
        metrics.outcomes(learning.kinds)
        learning.kinds.clear()
        for model, count in learning.learned.items():
            metrics.learned(model, count)
        learning.learned.clear()
        for model, version in self._parts.engine.versions.items():
            metrics.model_version(model, version)
        metrics.buffered(self.buffer.held)
        metrics.state_bytes(self._parts.store.size_bytes())
        for entity, keys in self._parts.engine.keys.items():
            metrics.state_keys(entity, keys)
        metrics.swept(self._parts.engine.swept)
        self._parts.engine.swept.clear()

    def _payment_ends(self) -> dict[Position, int]:
        """The ends of the payments' partitions, as far as they are known."""
        topic = self._topics.payments
        ends = {
            (topic, partition): self.app.consumer.end_offset(topic, partition)
            for partition in range(self._partitions[topic])
        }
        return {position: end for position, end in ends.items() if end is not None}

    def _has_reached(self, ends: Mapping[Position, int]) -> bool:
        stored = positions_of(self._parts.store.progress)
        known = len(ends) == self._partitions[self._topics.payments]
        return known and all(stored.get(position, 0) >= end for position, end in ends.items())

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._next_commit()

    async def _next_commit(self) -> None:
        async def committed() -> None:
            async with self._committer.committed:
                await self._committer.committed.wait()

        try:
            await asyncio.wait_for(committed(), TICK_S)
        except TimeoutError:
            return

    def _start_positions(self, assigned: Iterable[Position]) -> Mapping[Position, int | None]:
        reached = self._parts.engine.positions
        return {position: reached.get(position) for position in assigned}

    async def _nothing_to_commit(self) -> bool:
        return False

    async def _on_rebalance_complete(self, *_: object, **__: object) -> None:
        self._committer.group_commit = self.app.consumer.commit_positions
        self.ready = True
        self.assigned.set()

    async def _on_partitions_revoked(self, _: object, revoked: Iterable[object], **__: object) -> None:
        self.ready = False
        if set(revoked):
            async with self._committer.gate:
                await self._committer.commit()

    def _topic(self, name: str) -> Any:
        return self.app.topic(name, key_serializer="raw", value_serializer="raw")


async def _for_ever() -> None:
    """Take no further batch, and let none count as worked off, until Faust cancels the agent."""
    await asyncio.Event().wait()


def _unknown(index: int, outcome: Any) -> Rejected:
    return Rejected(
        index,
        "unknown_payment",
        f"Expected the payment_id of a decided payment, got one that was never decided here"
        f" or whose retention has passed - at `$.payment_id`; outcome {outcome.outcome_id!r}",
        outcome.payment_id,
    )


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
