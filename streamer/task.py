"""The work on the partitions that share one state: answer payments, learn from outcomes, commit."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from streamer import faults
from streamer.batch import Records
from streamer.committer import Committer, GroupCommit
from streamer.learning.learning import unknown
from streamer.parts import Parts
from streamer.rejections import Rejected
from streamer.state.store import Position, positions_of

LEARN_AT_ONCE = 32
"""Examples learned before other work gets its turn; about 2 ms."""

JOIN_AT_ONCE = 256
"""Outcomes joined before other work gets its turn."""

TICK_S = 0.05

log = logging.getLogger(__name__)

_NOTHING = Records("", 0, [], [], [], [], [], 0)


class Inputs(Protocol):
    """What a task asks of its partitions."""

    def end_offset(self, topic: str, partition: int) -> int | None:
        """The next offset there will be; `None` if it is not known yet."""


class Upstream(Protocol):
    """Where payments are before this task decides them, if that is not their own topic."""

    def has_passed(self, moment_ms: int) -> bool:
        """Whether all payments that were there at `moment_ms` (since 1970) have come."""

    async def passed(self) -> None:
        """Wait until all payments that are there now have come."""


class _RevokedError(Exception):
    """The partitions have been revoked: what was read of them will be read again."""


class Task:
    """One engine with its learners and its state, from assignment to revocation.

    `partitions` are those that it reads, by topic, payments and outcomes among them; `on_failure` is told
    what ends the worker; `done` is told of each batch of outcomes that leaves memory.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - put together in one place
        self,
        parts: Parts,
        inputs: Inputs,
        partitions: Mapping[str, Collection[int]],
        on_failure: Callable[[BaseException], None],
        done: Callable[[Records], None],
        upstream: Upstream | None = None,
    ) -> None:
        self.parts = parts
        self._inputs = inputs
        self._partitions = partitions
        self._topics = parts.settings.topics.resolved
        self._committer = Committer(parts, on_failure)
        self._on_failure = on_failure
        self._done = done
        self._upstream = upstream
        self._progress = asyncio.Event()
        self._last_handover = time.monotonic()
        self._stopping = self._stopped = False
        self.lost = False
        self._ours = True
        self._revocations = 0
        self._outcomes: asyncio.Queue[tuple[int, int, Records]] = asyncio.Queue()
        self._learner: asyncio.Task[None] | None = None

    async def start(self, group_commit: GroupCommit) -> None:
        """Send what a crash may have kept from the log; the group is told through `group_commit`."""
        self._committer.group_commit = None if self.parts.in_transactions else group_commit
        await self._committer.resume()
        self._learner = asyncio.ensure_future(self._learn_in_turn())

    def keep(self) -> None:
        """A rebalance is over, and the partitions are still ours."""
        self._ours = True

    async def revoke(self) -> None:
        """Commit what has been answered, for a rebalance; outcomes not yet taken in will be read again.

        Until it is over none are: their next owner may have looked already at what they were answered.
        """
        self._revocations += 1
        self._ours = False
        async with self._committer.gate:
            if not self._stopped:
                await self._committer.commit()

    async def finish(self) -> None:
        """Commit everything; the next start has nothing to do again. No batch is answered after this."""
        self._stopping = True
        faults.reach("stop.begun")
        while self.parts.learning.learn(LEARN_AT_ONCE):  # noqa: ASYNC110 - a turn for others, not a wait
            await asyncio.sleep(0)
        await self.hand_over()
        async with self._committer.gate:
            await self._committer.finish()

    async def stop(self) -> None:
        """Take no further batch and let a commit under way end."""
        self._stopping = True
        self._revocations += 1
        if self._learner is not None:
            self._outcomes.put_nowait((-1, 0, _NOTHING))
            await asyncio.wait([self._learner])
        async with self._committer.gate:
            # A rebalance that waits for the gate would commit to a store that is closed.
            self._stopped = True
            await self._committer.stop()
        for topic, partitions in self._partitions.items():
            for partition in partitions:
                self.parts.metrics.unassigned(topic, partition)

    def lose(self) -> None:
        """Answer no more: another worker has taken over, and what is not committed is its work now."""
        self._stopping = self.lost = True

    @property
    def positions(self) -> Mapping[Position, int]:
        """The next record to read of each partition that has been read."""
        return self.parts.engine.positions

    def is_ahead(self, topic: str) -> bool:
        """Whether it should get no more of a topic for now, until others have come as far."""
        return topic == self._topics.payments and self.parts.engine.ahead

    def lag(self) -> dict[Position, int]:
        """Records of each partition of payments and outcomes that are there and not yet answered."""
        done = {**self.parts.engine.positions, **self.parts.learning.positions}
        found = {}
        for topic, partitions in self._partitions.items():
            for partition in partitions:
                end = self._inputs.end_offset(topic, partition)
                if end is not None:
                    found[topic, partition] = max(0, end - done.get((topic, partition), 0))
        return found

    async def caught_up(self) -> None:
        """Wait until everything there is has been answered and learned from."""
        while sum(self.lag().values()) or self.parts.learning.waiting:
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), TICK_S)
            except TimeoutError:
                continue

    async def answer(self, records: Records) -> bool:
        """Decide a batch of payments; `False` where the task has ended: the batch is for the next start."""
        parts = self.parts
        async with self._committer.gate:
            if self._stopping:
                return False
            answer = parts.engine.process(records)
            await self._committer.answer(answer)
        for text in answer.unreadable:
            log.error("%s", text)
        self._progress.set()
        metrics = parts.metrics
        if records.topic == self._topics.payments:
            metrics.payments(len(records))
        metrics.batch(len(records))
        metrics.decisions(answer.actions)
        metrics.rejections(self._topics.payments_rejected, answer.codes)
        metrics.entities_present(answer.present)
        metrics.missing_rates(answer.unrated)
        for log_times in answer.log_times:
            metrics.latencies(time.time() - log_times / 1000.0)
        return True

    async def learn_from(self, records: Records) -> bool:
        """Let a batch of outcomes be joined to their payments and learned from, in its turn; always `True`.

        Outcomes may have to wait for their payments, and nobody else's are to wait for that.
        """
        # Their own timestamps say nothing: those of a backfill are of the past.
        self._outcomes.put_nowait((self._revocations, int(time.time() * 1000), records))
        return True

    async def _learn_in_turn(self) -> None:
        try:
            while not self._stopping:
                revocations, moment_ms, records = await self._outcomes.get()
                if revocations == self._revocations:
                    with contextlib.suppress(_RevokedError):
                        await self._join(records, moment_ms)
                if revocations == self._revocations:
                    self._done(records)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a task that dies silently would stop learning
            self._on_failure(error)

    async def _join(self, records: Records, moment_ms: int) -> None:
        """Join outcomes that were there at `moment_ms`, as were the payments that they are of."""
        learning = self.parts.learning
        # A rebalance that leaves the partitions here has them read from the last commit again.
        records = records.since(learning.positions.get((records.topic, records.partition), 0))
        if not len(records):
            return
        if records.topic != self._topics.outcomes:
            for text in learning.hear(records):
                log.error("%s", text)
            await self._learn()
            return
        ends = self._payment_ends()
        outcomes, rejected = learning.read(records)
        at = 0
        all_there = False
        while at < len(outcomes):
            rejected = self._pass(records, outcomes[at][0], rejected)
            part = outcomes[at : at + JOIN_AT_ONCE]
            part = part[: await self._arrived([outcome.event_time for _, outcome in part])]
            lost = learning.unknown([outcome for _, outcome in part])
            if lost and not all_there:
                part, lost = part[: lost[0]], []
            if part:
                # Nothing comes between: handed over is what lies before the position, no less and no more.
                learning.join([outcome for index, (_, outcome) in enumerate(part) if index not in lost])
                rejected += [unknown(*part[index]) for index in lost]
                rejected = self._pass(records, part[-1][0] + 1, rejected)
                at += len(part)
                await self._learn()
            else:
                if self._upstream is not None and not self._upstream.has_passed(moment_ms):
                    await self._passed(self._upstream)
                    ends = self._payment_ends()
                await self._until(lambda: self._has_reached(ends))  # noqa: B023 - waited for here
                all_there = True
        self._pass(records, len(records), rejected)
        self._progress.set()

    async def tick(self) -> None:
        """What has to happen without a record: a commit of what is left, and payments that grow old."""
        parts = self.parts
        async with self._committer.gate:
            await self._committer.tell()
            if parts.engine.changed:
                self._committer.start_if_due()
            else:
                await self._committer.idle()
        clock = max(parts.store.progress.greatest.values(), default=0)
        while parts.learning.mature(clock):
            await self._learn()
        await self._learn()

    async def hand_over(self) -> None:
        """Let a commit take in what was learned, and answer what was refused, if there is anything."""
        parts = self.parts
        async with self._committer.gate:
            if self.lost or not self._ours or parts.learning.waiting or not parts.learning.has_news:
                return
            if parts.published.is_ahead(parts.engine.positions):
                return
            self._last_handover = time.monotonic()
            await self._committer.take_in(parts.learning.hand_over())
            parts.learning.taken_in()

    def show(self) -> None:
        """Bring the figures up to date that are not counted by batch and that are this task's alone."""
        metrics, learning, engine = self.parts.metrics, self.parts.learning, self.parts.engine
        for (topic, partition), records in self.lag().items():
            metrics.lag(topic, partition, records)
        metrics.outcomes(learning.kinds)
        learning.kinds.clear()
        for model, count in learning.learned.items():
            metrics.learned(model, count)
        learning.learned.clear()
        for model, version in engine.versions.items():
            metrics.model_version(model, version)
        metrics.swept(engine.swept)
        engine.swept.clear()

    def _pass(self, records: Records, index: int, rejected: list[Rejected]) -> list[Rejected]:
        """All before `index` of a batch is worked off, but for those `rejected`; answers which are behind."""
        if index == 0:
            return rejected
        learning = self.parts.learning
        passed = sorted((each for each in rejected if each.index < index), key=lambda each: each.index)
        learning.reject(records, passed)
        learning.advance(records.topic, records.partition, records.offsets[index - 1] + 1)
        codes = Counter(each.code for each in passed)
        self.parts.metrics.rejections(self._topics.outcomes_rejected, codes)
        return [each for each in rejected if each.index >= index]

    async def _arrived(self, times: list[int]) -> int:
        """Wait until the first of these outcomes lies in the past of the payments; how many do then."""
        while True:
            clock = max(self.parts.store.progress.greatest.values(), default=0)
            now = next((index for index, moment in enumerate(times) if moment > clock), len(times))
            if now:
                return now
            if self._has_reached(self._payment_ends()):
                return len(times)
            await self._next_commit()

    async def _learn(self) -> None:
        """Learn all that is queued, in short turns, and hand over when it is time."""
        learning = self.parts.learning
        while learning.learn(LEARN_AT_ONCE):  # noqa: ASYNC110 - a turn for the payments, not a wait
            await asyncio.sleep(0)
        self._progress.set()
        waited = (time.monotonic() - self._last_handover) * 1000.0
        due = learning.is_due or waited >= self.parts.settings.models.snapshot_interval_ms
        if learning.has_news and due:
            await self.hand_over()

    def _payment_ends(self) -> dict[Position, int]:
        """The ends of the partitions that decisions are made from, as far as they are known."""
        topic = self.parts.engine.decides_from
        ends = {
            (topic, partition): self._inputs.end_offset(topic, partition)
            for partition in self._partitions[topic]
        }
        return {position: end for position, end in ends.items() if end is not None}

    def _has_reached(self, ends: Mapping[Position, int]) -> bool:
        stored = positions_of(self.parts.store.progress)
        known = len(ends) == len(self._partitions[self.parts.engine.decides_from])
        return known and all(stored.get(position, 0) >= end for position, end in ends.items())

    async def _passed(self, upstream: Upstream) -> None:
        """Wait for it no longer than the partitions are ours: what it waits for may be our own work."""
        passing = asyncio.ensure_future(upstream.passed())
        try:
            await self._until(passing.done)
            passing.result()
        finally:
            passing.cancel()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._next_commit()

    async def _next_commit(self) -> None:
        """Wait for it, or for a moment; raises where the partitions are revoked meanwhile."""
        revocations = self._revocations

        async def committed() -> None:
            async with self._committer.committed:
                await self._committer.committed.wait()

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(committed(), TICK_S)
        if revocations != self._revocations:
            raise _RevokedError
