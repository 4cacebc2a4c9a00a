"""Opens the state of a shard where it is needed: restored, with its engine, aware of what was sent beyond."""

import asyncio
import gc
import logging
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path

import msgspec

from streamer import faults
from streamer.chain.shard import Shard
from streamer.changelog import Changelog, transactional_id
from streamer.engine import Engine
from streamer.errors import StreamerError
from streamer.job import Site, check_positions, check_topics, tell_changes
from streamer.learning.learning import Learning
from streamer.metrics import Metrics
from streamer.partitioning import partitions_of
from streamer.parts import Parts
from streamer.published import Published
from streamer.restore import Restored, RestoreProgress, Restorer
from streamer.state.store import Position, Progress, Store, WriteSet
from streamer.transport.connect import KafkaConnection
from streamer.transport.seam import Admin, Publisher, Transactions
from streamer.transport.threaded import LoopThread, ThreadedTransactions

log = logging.getLogger(__name__)

COLLECT_AFTER = (100_000, 20, 20)
"""Objects of many batches: what a batch leaves is freed without the collector, which need not look at it."""

NEXT_TO_NOTHING = 10_000
"""Records of a changelog that are read in a tenth of a second."""

TELL_EVERY_S = 5.0
"""Between two lines on a restore."""


class Laps:
    """Adds the processor time since the last lap to the stage that has ended."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last = time.thread_time()

    def __call__(self, stage: str) -> None:
        """`stage` has ended."""
        now = time.thread_time()
        self._metrics.stage(stage, now - self._last)
        self._last = now


class Opener:
    """Opens shards of one site, and keeps copies of others; `publisher` is what they send through.

    In transactions each has a publisher of its own. `thread` runs what is done with changelogs.
    """

    def __init__(self, site: Site, publisher: Publisher, thread: LoopThread) -> None:
        self._site = site
        self._publisher = publisher
        self._thread = thread
        self._laps = Laps(site.metrics)
        self._copies: dict[int, tuple[asyncio.Event, asyncio.Task[Restored | None]]] = {}
        self.warm: dict[int, int] = {}
        """How far the copy of each shard has come."""
        self._ready: set[int] = set()

    @property
    def ready(self) -> Collection[int] | None:
        """The shards whose copies miss next to nothing, or cannot be made; `None`: none is made of any."""
        return self._ready if self._site.keeps_changelog else None

    async def open(self, shard: int) -> Parts:
        """Bring the state of a shard up to date and put together what works on it."""
        site = self._site
        await self._release(shard)
        path = self._path(shard)
        transactions = restored = None
        if site.keeps_changelog:
            transactions = await self._take_over(shard)
        try:
            if transactions is not None:
                restored = await self._restore(shard, path)
            store = await asyncio.to_thread(Store.open, path)
        except BaseException:
            if transactions is not None:
                await transactions.stop()
            raise
        faults.reach("start.opened")
        try:
            return await self._put_together(shard, store, transactions, restored)
        except BaseException:
            store.close()
            if transactions is not None:
                await transactions.stop()
            raise

    async def copy(self, shards: frozenset[int]) -> None:
        """Keep copies of these shards of others, and of no more."""
        ended = {shard for shard, (_, following) in self._copies.items() if following.done()}
        for shard in (self._copies.keys() - shards) | ended:
            await self._release(shard)
        for shard in shards - self._copies.keys():
            stop = asyncio.Event()
            self._copies[shard] = stop, asyncio.ensure_future(self._follow(shard, stop))

    def settle(self) -> None:
        """What is open now stays. The collector need not look at it again: that took 0.2 s each time."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)

    async def stop(self) -> None:
        """Keep no more copies."""
        await self.copy(frozenset())

    async def _put_together(
        self, shard: int, store: Store, transactions: Transactions | None, restored: Restored | None
    ) -> Parts:
        site, job = self._site, self._site.job
        changelog = None
        if transactions is not None and restored is not None:
            topic = job.settings.topics.resolved.changelog
            changelog = Changelog(transactions, store, topic=topic, shard=shard, restored=restored)
            await changelog.begin()
        with closing(await asyncio.to_thread(site.connection.admin)) as admin:
            begun = await asyncio.to_thread(self._check, admin, store, shard)
            if begun != store.progress:
                writes = WriteSet(begun, place=store.place)
                if changelog is not None:
                    # A state that its changelog knows nothing of would be in the way of the next owner's.
                    await changelog.commit(writes)
                store.commit(writes)
            if shard == 0:
                tell_changes(job, store)
            engine = self._engine(store, shard)
            learning = Learning(
                job.topology, store, job.settings, engine.identify, number=shard, shards=site.shards
            )
            for snapshot in learning.snapshots():
                engine.restore_scorer(snapshot.model, snapshot.version, snapshot.scorer())
            present = await asyncio.to_thread(self._ends, admin, engine.decides_from, shard)
            seen = await asyncio.to_thread(self._seen, admin, store.progress, shard)
        published = await Published.recall(
            site.connection, job.answer_topics, seen, present, lambda key: self._decides(shard, key)
        )
        if published.waits:
            log.warning("%s decisions were sent but not committed; they are not sent again", published.waits)
        faults.reach("start.recalled")
        in_transactions = job.guarantee == "transactions" and transactions is not None
        return Parts(
            engine,
            learning,
            store,
            transactions if in_transactions and transactions else self._publisher,
            site.metrics,
            job.settings,
            published,
            changelog,
            transactions,
            unguarded=changelog is None and not site.connection.embedded,
            group=job.group if in_transactions else "",
            shards=site.shards,
        )

    def _engine(self, store: Store, shard: int) -> Engine | Shard:
        site, job = self._site, self._site.job
        if site.shards == 1:
            return Engine(
                job.topology,
                store,
                job.settings,
                lap=self._laps,
                emit_features=job.emit_features,
                rates=site.rates,
            )
        return Shard(
            job.topology,
            store,
            job.settings,
            number=shard,
            shards=site.shards,
            lap=self._laps,
            emit_features=job.emit_features,
            rates=site.rates,
        )

    def _path(self, shard: int) -> Path:
        """The directory of a shard; of the only one, the state directory itself."""
        return self._site.job.state if self._site.shards == 1 else self._site.job.state / f"shard-{shard}"

    def _decides(self, shard: int, key: bytes | None) -> bool:
        shards = self._site.shards
        return shards == 1 or partitions_of([key or b""], shards, 0)[0] == shard

    async def _take_over(self, shard: int) -> Transactions:
        """Fence whoever has written for the shard before."""
        job = self._site.job
        name = transactional_id(job.group, job.settings.topics.prefix, shard)
        transactions = ThreadedTransactions(self._kafka.transactions(name), self._thread)
        try:
            await transactions.start()
        except BaseException:
            await transactions.stop()
            raise
        return transactions

    async def _restore(self, shard: int, path: Path) -> Restored:
        job, metrics = self._site.job, self._site.metrics
        told = time.monotonic()

        def report(progress: RestoreProgress) -> None:
            nonlocal told
            metrics.restore(shard, progress.rows, progress.left, progress.seconds_left)
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                log.warning("%s", progress)

        async def restore() -> Restored:
            async with self._kafka.changelog(job.settings.topics.resolved.changelog, shard) as reader:
                return await Restorer(reader, path, job.settings.state.changelog_deletions, report).restore()

        return await self._thread.call(restore())

    async def _follow(self, shard: int, stop: asyncio.Event) -> Restored | None:
        """Keep a copy until told to stop; whatever goes wrong costs no more than a colder start."""
        job = self._site.job

        def report(progress: RestoreProgress) -> None:
            self.warm[shard] = progress.reached
            if progress.left <= NEXT_TO_NOTHING:
                self._ready.add(shard)
            self._site.metrics.restore(shard, progress.rows, progress.left, progress.seconds_left)

        try:
            async with self._kafka.changelog(job.settings.topics.resolved.changelog, shard) as reader:
                path = self._path(shard)
                return await Restorer(reader, path, job.settings.state.changelog_deletions, report).follow(
                    stop
                )
        except StreamerError as error:
            log.warning("no copy of shard %s is kept: %s", shard, error)
            self._ready.add(shard)
            return None

    async def _release(self, shard: int) -> None:
        """Let go of a copy; its directory is needed."""
        self._ready.discard(shard)
        if shard in self._copies:
            stop, following = self._copies.pop(shard)
            stop.set()
            await following

    def _check(self, admin: Admin, store: Store, shard: int) -> Progress:
        """Refuse a state that does not fit; answers its progress with all topics that it reads and writes."""
        job = self._site.job
        payments = job.settings.topics.resolved.payments
        committed = {
            partition: offset
            for partition, offset in admin.committed(job.group, payments).items()
            if partition % self._site.shards == shard
        }
        check_positions(job, committed, store)
        topics = check_topics(store.progress, admin.identities(list(self._site.partitions)))
        known = store.progress.outputs
        new = [topic for topic in job.answer_topics if topic not in known]
        ends = {topic: dict(admin.end_offsets(topic)) for topic in new}
        return msgspec.structs.replace(store.progress, outputs={**known, **ends}, topics=topics)

    def _seen(self, admin: Admin, progress: Progress, shard: int) -> Progress:
        """From where on answers of a shard may stand in the outputs that it does not remember.

        One of several decides payments that it has long read, so their positions tell nothing. Decisions and
        features lie in its own partition, since payment_id is their key.
        """
        site, topics = self._site, self._site.job.settings.topics.resolved
        if site.shards == 1:
            return progress
        outputs = {topic: dict(ends) for topic, ends in progress.outputs.items()}
        for topic in (topics.decisions, topics.features):
            ends = admin.end_offsets(topic) if topic in site.job.answer_topics else {}
            if len(ends) == site.shards:
                outputs[topic] = {**ends, shard: outputs.get(topic, {}).get(shard, 0)}
        return msgspec.structs.replace(progress, positions={}, outputs=outputs)

    def _ends(self, admin: Admin, topic: str, shard: int) -> Mapping[Position, int]:
        """The present ends of the shard's partitions of a topic."""
        ends = admin.end_offsets(topic)
        return {(topic, number): end for number, end in ends.items() if number % self._site.shards == shard}

    @property
    def _kafka(self) -> KafkaConnection:
        connection = self._site.connection
        if not isinstance(connection, KafkaConnection):
            raise StreamerError(f"expected Kafka, which alone keeps changelogs, got {self._site.job.broker}")
        return connection
