"""A shard on a real broker: its topic, owners that commit to it, and directories restored from it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from streamer.changelog import Changelog
from streamer.restore import Restored, RestoreProgress, Restorer, now_ms
from streamer.state.store import BLOCKS, DECIDED, FORMAT, IDS, PLACE, Progress, Row, Store, WriteSet
from streamer.transport.changelog_reader import ChangelogReader, ReaderSettings
from streamer.transport.kafka_admin import KafkaAdmin
from streamer.transport.kafka_publisher import PublisherSettings
from streamer.transport.kafka_transactions import KafkaTransactions
from streamer.transport.seam import TopicSpec

DAY_MS = 86_400_000


@dataclass
class Owner:
    """A store and the way of its commits into the changelog."""

    store: Store
    changelog: Changelog
    transactions: KafkaTransactions
    restored: Restored

    async def commit(self, rows: list[Row]) -> None:
        """Commit rows as a committer does: the changelog first."""
        progress = Progress(
            commits=self.store.progress.commits + 1, positions={"payments": {0: len(rows)}}, topology="t"
        )
        writes = WriteSet(progress, rows)
        await self.changelog.commit(writes)
        self.store.commit(writes)


class Shard:
    """Partitions of a changelog that no other test uses."""

    def __init__(self, broker: str, prefix: str, config: dict[str, str] | None = None) -> None:
        self.broker = broker
        self.topic = prefix + "changelog"
        self.admin = KafkaAdmin([broker])
        self.create(config)

    def create(self, config: dict[str, str] | None = None) -> None:
        """Create the topic."""
        self.admin.create([TopicSpec(self.topic, 2, compacted=True, config=config or {})])

    def delete(self) -> None:
        """Delete the topic, and wait until it is gone."""
        self.admin._client.delete_topics([self.topic])
        while self.admin.partitions([self.topic]):
            pass

    def close(self) -> None:
        """Delete what is left."""
        if self.admin.partitions([self.topic]):
            self.admin._client.delete_topics([self.topic])
        self.admin.close()

    def transactions(self, shard: int = 0) -> KafkaTransactions:
        """A holder of the shard's transactional id, not started."""
        return KafkaTransactions(PublisherSettings([self.broker]), f"{self.topic}-{shard}")

    def reader(self, shard: int = 0, fetch_bytes: int = 1 << 20) -> ChangelogReader:
        """A reader, not started."""
        return ChangelogReader(ReaderSettings([self.broker], self.topic, shard, fetch_bytes=fetch_bytes))

    async def restore(
        self,
        path: Path,
        shard: int = 0,
        clock: Callable[[], int] = now_ms,
        report: Callable[[RestoreProgress], None] = lambda _: None,
    ) -> Restored:
        """Restore a directory."""
        async with self.reader(shard) as reader:
            return await Restorer(reader, path, DAY_MS, report, clock).restore()

    @asynccontextmanager
    async def owned(self, path: Path, shard: int = 0) -> AsyncIterator[Owner]:
        """Own the shard with the state in `path`: fence, restore, open."""
        transactions = self.transactions(shard)
        await transactions.start()
        try:
            restored = await self.restore(path, shard)
            with Store.open(path) as store:
                changelog = Changelog(transactions, store, topic=self.topic, shard=shard, restored=restored)
                await changelog.begin()
                yield Owner(store, changelog, transactions, restored)
        finally:
            await transactions.stop()


def content(store: Store) -> dict[bytes, bytes]:
    """All rows but those that are the directory's own."""
    return {key: value for key, value in store.scan(b"") if key not in {PLACE, FORMAT}}


def content_of(path: Path) -> dict[bytes, bytes]:
    """All rows of a closed directory."""
    with Store.open(path) as store:
        return content(store)


def some_rows(rng: random.Random, count: int = 200, keys: int = 500) -> list[Row]:
    """Puts and deletions in three rooms."""
    rows: list[Row] = []
    for _ in range(count):
        key = rng.choice([BLOCKS, IDS, DECIDED]) + rng.randrange(keys).to_bytes(8, "big")
        rows.append((key, None if rng.random() < 0.3 else rng.randbytes(rng.randrange(200))))
    return rows


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
