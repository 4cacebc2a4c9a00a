"""Moves state and position together: cut, confirm, write, then the group's commit."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from streamer import faults
from streamer.batch import Outgoing
from streamer.errors import StreamerError
from streamer.journal import JournalEntry, position_name
from streamer.parts import Parts
from streamer.scoring import Answer, Taken
from streamer.state.store import META, MODELS, Position, WriteSet, flat, nested, positions_of
from streamer.transport.seam import Delivered

JOURNAL = META + b"journal"
"""Row of the last journal entry, sent again at a start: a crash may have kept it from the topic."""

ALIVE_S = 3_600.0
"""After so long something is committed though nothing has happened: a broker forgets a transactional id that
writes nothing, after 7 days unless told otherwise."""

MOST_RARER = 8
"""What is not committed has to fit into the memory of a shard, and is to do again after a crash."""

GroupCommit = Callable[[Mapping[Position, int]], Awaitable[bool]]


class Committer:
    """Sends answers, and stores what led to them once every delivery is confirmed.

    Commits run beside the stream, one at a time; only one that takes snapshots in holds the stream up, so
    that no output depends on a model that is not stored. `on_failure` is told what ends the worker. `clock`
    is in seconds.
    """

    def __init__(
        self,
        parts: Parts,
        on_failure: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = parts.engine
        self._store = parts.store
        self._publishes = parts.learning.teaches
        self._publisher = parts.publisher
        self._published = parts.published
        self._outputs = flat(parts.store.progress.outputs)
        self._metrics = parts.metrics
        self._settings = parts.settings.commit
        self._topics = parts.settings.topics.resolved
        self._on_failure = on_failure
        self._clock = clock
        self._changelog = parts.changelog
        self._transactions = parts.transactions if parts.in_transactions else None
        self._group = parts.group
        self._deliveries: list[Awaitable[Delivered]] = []
        self._running: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None
        self._last = self._last_sync = self._last_group = clock()
        self._stale_group = self._unsynced = False
        self.gate = asyncio.Lock()
        self.group_commit: GroupCommit | None = None
        self.committed = asyncio.Condition()
        self._rarer = min(parts.shards, MOST_RARER)
        """Each of several shards commits so much less often, so that all do as often as one: a commit costs
        the broker a transaction, whichever worker the shard is at."""

    async def answer(self, answer: Answer) -> None:
        """Hand the answers of one batch to the log and commit if it is time."""
        faults.reach("answer.decided")
        for outgoing in (answer.decisions, answer.rejected, answer.features, *answer.forwarded):
            if outgoing is not None:
                await self.send(outgoing)
        faults.reach("answer.sent")
        await self.tell()
        self.start_if_due()

    async def tell(self) -> None:
        """Send what the engine has to tell other shards; with the gate held, so that no cut comes between."""
        for outgoing in self._engine.tell():
            await self.send(outgoing)

    async def send(self, outgoing: Outgoing) -> None:
        """Send records that the next commit has to wait for, but for those that were sent before a crash."""
        outgoing = self._published.unsent(outgoing)
        if len(outgoing):
            with self._breaking():
                self._deliveries.append(await self._publisher.send(outgoing))

    def start_if_due(self) -> None:
        """Begin a commit beside the stream when enough has changed or enough time has passed."""
        if self._broken is not None or (self._running is not None and not self._running.done()):
            return
        settings = self._settings
        waited = (self._clock() - self._last) * 1000.0
        rows = settings.max_dirty_rows * self._rarer
        # In transactions readers wait for the commit, those of the next stage too: it is due at its time.
        patience = 1 if self._transactions is not None else self._rarer
        if waited >= settings.interval_ms * patience or self._engine.waiting_rows >= rows:
            self._start()

    async def idle(self) -> None:
        """Make last, and tell the group, what the last commit of a burst has left for later."""
        if self._running is None or self._running.done():
            await self._sync()
            await self._commit_group(force=False)
            if self._broken is None and self._clock() - self._last >= ALIVE_S:
                self._start()

    async def commit(self) -> None:
        """Commit up to here, group offsets included; for a rebalance."""
        await self._settle()
        await self._write(*self._cut())
        await self._commit_group(force=True)

    async def finish(self) -> None:
        """Commit up to here with the rows of all keys, so that the next start has nothing to redo."""
        await self._settle()
        await self._write(*self._cut(everything=True))
        await self.commit()

    async def take_in(self, taken: Taken) -> None:
        """Commit outcomes and snapshots at the present position, with the gate held until they are stored."""
        await self._settle()
        if taken.rejected is not None:
            await self.send(taken.rejected)
        writes, deliveries = self._cut(taken)
        entry = JournalEntry(
            writes.progress.commits,
            _of_topic(writes, self._engine.decides_from),
            _of_topic(writes, self._topics.outcomes),
            writes.progress.models,
        )
        writes.rows.append((JOURNAL, entry.encode()))
        faults.reach("take_in.cut")
        # On the disk before anything depends on it: a power cut must not take back what is published.
        await self._write(writes, deliveries, sync=True)
        faults.reach("take_in.written")
        await self._publish_models(taken.snapshots)
        faults.reach("take_in.models")
        await self._publish(entry)
        faults.reach("take_in.journaled")

    async def resume(self) -> None:
        """Send the last snapshots and journal entry again: a crash may have kept them from the log."""
        raw = self._store.get_many([JOURNAL])[0]
        if raw is not None:
            if self._publishes:
                names = {key.removeprefix(MODELS): value for key, value in self._store.scan(MODELS)}
                await self._publish_models({name.decode(): value for name, value in names.items()})
            await self._publish(msgspec.json.decode(raw, type=JournalEntry))

    async def stop(self) -> None:
        """Let a commit under way end."""
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def _publish_models(self, snapshots: Mapping[str, bytes]) -> None:
        outgoing = Outgoing(self._topics.models)
        for name, snapshot in snapshots.items():
            outgoing.append(name.encode(), snapshot)
        if len(outgoing):
            await (await self._publisher.send(outgoing))

    async def _publish(self, entry: JournalEntry) -> None:
        outgoing = Outgoing(self._topics.journal)
        outgoing.append(entry.key, entry.encode())
        await (await self._publisher.send(outgoing))

    def _start(self) -> None:
        writes, deliveries = self._cut()
        self._running = asyncio.get_running_loop().create_task(self._background(writes, deliveries))

    async def _background(self, writes: WriteSet, deliveries: list[Awaitable[Delivered]]) -> None:
        try:
            await self._write(writes, deliveries)
            await self._commit_group(force=False)
        except Exception as error:  # noqa: BLE001 - whatever it is ends the worker, never the stream alone
            self._on_failure(error)

    async def _settle(self) -> None:
        if self._running is not None:
            await self._running
        if self._broken is not None:
            raise self._broken

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """What fails here leaves a gap in what was delivered or stored: nothing may be committed after it."""
        try:
            yield
        except BaseException as error:
            self._broken = error
            raise

    def _cut(
        self, taken: Taken | None = None, *, everything: bool = False
    ) -> tuple[WriteSet, list[Awaitable[Delivered]]]:
        """What has been done up to here, and the deliveries that it depends on."""
        writes = self._engine.cut(taken, everything=everything)
        deliveries, self._deliveries = self._deliveries, []
        if self._transactions is not None:
            self._transactions.seal()
        self._last = self._clock()
        return writes, deliveries

    async def _sync(self, *, force: bool = False) -> None:
        now = self._clock()
        due = (now - self._last_sync) * 1000.0 >= self._settings.fsync_interval_ms
        if self._unsynced and (force or due):
            self._last_sync, self._unsynced = now, False
            await asyncio.to_thread(self._store.sync)
            faults.reach("commit.synced")

    async def _write(
        self, writes: WriteSet, deliveries: list[Awaitable[Delivered]], *, sync: bool = False
    ) -> None:
        with self._breaking():
            faults.reach("commit.cut")
            for ends in await self._confirm(deliveries):
                self._outputs.update(ends)
            writes.progress = msgspec.structs.replace(
                writes.progress, outputs=nested(self._outputs), topics=self._store.progress.topics
            )
            faults.reach("commit.confirmed")
            began = self._clock()
            if self._changelog is not None:
                # Where outputs go in transactions the group's offsets become visible with them.
                offsets = None if self._transactions is None else positions_of(writes.progress)
                await self._changelog.commit(writes, offsets, self._group)
                faults.reach("commit.logged")
            self._store.commit(writes)
            faults.reach("commit.written")
            self._engine.written()
        self._stale_group = self._unsynced = True
        self._metrics.commit(len(writes.rows), self._clock() - began)
        await self._sync(force=sync)
        async with self.committed:
            self.committed.notify_all()

    async def _confirm(self, deliveries: list[Awaitable[Delivered]]) -> list[Delivered]:
        """Wait until all are delivered; raises `StreamerError` where one is not.

        All are waited for, so that a failure leaves none behind that nobody asks about.
        """
        confirmed: list[Delivered] = []
        for result in await asyncio.gather(*deliveries, return_exceptions=True):
            if isinstance(result, StreamerError):
                raise result
            if isinstance(result, BaseException):
                raise StreamerError(
                    f"an answer could not be delivered: {result}; nothing after it was committed,"
                    " so starting again repeats it"
                ) from result
            confirmed.append(result)
        return confirmed

    async def _commit_group(self, *, force: bool) -> None:
        waited = (self._clock() - self._last_group) * 1000.0
        positions = positions_of(self._store.progress)
        if self.group_commit is None or not self._stale_group or not positions:
            return
        if force or waited >= self._settings.group_commit_interval_ms:
            self._last_group = self._clock()
            if await self.group_commit(positions):
                self._stale_group = False
            faults.reach("commit.group")


def _of_topic(writes: WriteSet, topic: str) -> Mapping[str, int]:
    """The positions of one topic as the journal names them."""
    positions = writes.progress.positions.get(topic, {})
    return {position_name(topic, partition): offset for partition, offset in positions.items()}
