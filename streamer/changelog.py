"""Writes each commit's rows to the changelog of its shard, in one transaction, before they are stored."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from streamer.batch import Outgoing
from streamer.errors import StreamerError
from streamer.restore import Restored, now_ms
from streamer.settings import Settings
from streamer.state.changelog_records import PART_BYTES, Mark, cut, parts_of
from streamer.state.store import (
    DECIDED,
    FORMAT,
    META,
    MODELS,
    PLACE,
    PROGRESS,
    SECRET,
    Place,
    Position,
    Progress,
    Row,
    Store,
    WriteSet,
)
from streamer.transport.seam import TopicSpec, Transactions

ROWS_AT_ONCE: Final = 20_000
"""So many rows of a store that fills its changelog are handed over at once."""

_MAY_BE_LARGE: Final = frozenset((DECIDED[0], MODELS[0], META[0]))
_SEGMENT_BYTES: Final = 128 << 20
"""Only closed segments are compacted."""


def topic_spec(settings: Settings, shards: int) -> TopicSpec:
    """The changelog's topic as it should be created."""
    return TopicSpec(
        settings.topics.resolved.changelog,
        shards,
        compacted=True,
        config={
            "delete.retention.ms": str(settings.state.changelog_deletions),
            "segment.bytes": str(_SEGMENT_BYTES),
        },
    )


def transactional_id(group: str, prefix: str, shard: int) -> str:
    """The id that the owner of a shard writes under, and that fences those before it."""
    return f"{group}-{prefix}-{shard}"


class Changelog:
    """The way of a store's commits to partition `shard` of `topic`.

    In this order: `transactions` is started, so that nobody else writes there, the directory is `restored`,
    the store is opened, `begin` is awaited; then each commit comes here before it goes to the store.

    Every transaction ends with the progress, under a mark that names this changelog; the first one has the
    store's secret too, so whoever may read the topic may sign snapshots. Failures are those of
    `Transactions.commit`: stop. What is in the changelog by then and not in the store is read from there at
    the next start.
    """

    def __init__(  # noqa: PLR0913 - all but the first two are named where they are given
        self,
        transactions: Transactions,
        store: Store,
        *,
        topic: str,
        shard: int,
        restored: Restored,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._transactions = transactions
        self._store = store
        self._topic = topic
        self._shard = shard
        self._clock = clock
        place = store.place
        self._mark = (
            Mark(secrets.token_bytes(16), restored.end)
            if place is None
            else Mark(place.changelog, place.begin)
        )

    async def begin(self) -> None:
        """Fill a changelog that is empty from a store that is not, in one transaction.

        It has to end within the transactions' timeout; about 300,000 rows a second are written.
        """
        store = self._store
        if store.place is not None or store.empty:
            return
        rows = ((key, value) for key, value in store.scan(b"") if key not in {FORMAT, PLACE, PROGRESS})
        while some := list(islice(rows, ROWS_AT_ONCE)):
            await self._transactions.send(self._outgoing(some))
        store.commit(WriteSet(store.progress, [], await self.write([], store.progress)))

    async def commit(
        self, writes: WriteSet, offsets: Mapping[Position, int] | None = None, group: str = ""
    ) -> None:
        """Make a write set part of the changelog, and tell it its place there: to be stored after.

        What was sent through the transactions before their `seal` becomes visible with it; `offsets` of the
        consumer group too.
        """
        rows: Sequence[Row] = writes.rows
        if self._store.place is None:
            rows = [(SECRET, self._store.secret), *rows]
        writes.place = await self.write(rows, writes.progress, offsets, group)

    async def write(
        self,
        rows: Sequence[Row],
        progress: Progress,
        offsets: Mapping[Position, int] | None = None,
        group: str = "",
    ) -> Place:
        """Commit these rows and the progress that they lead to; answers where they end."""
        outgoing = self._outgoing(rows)
        outgoing.append(PROGRESS, msgspec.msgpack.encode(progress), self._mark.headers)
        ends = await self._transactions.commit([outgoing], offsets, group)
        end = ends.get((self._topic, self._shard))
        if end is None:
            # The broker knew the batch already, from a request whose answer was lost. The old place will do.
            if self._store.place is None:
                raise StreamerError(
                    f"the place of the first commit in topic {self._topic} got lost; start again to find it"
                )
            return self._store.place
        return Place(
            changelog=self._mark.changelog,
            begin=self._mark.begin,
            topic=self._topic,
            shard=self._shard,
            offset=end,
            last=end - 1,
            at=self._clock(),
            whole=True,
        )

    def _outgoing(self, rows: Sequence[Row]) -> Outgoing:
        large = self._large(rows)
        if not large:
            keys, values = ([list(column) for column in zip(*rows, strict=True)]) if rows else ([], [])
            return Outgoing(self._topic, self._shard, keys, values, [()] * len(keys))
        outgoing = Outgoing(self._topic, self._shard)
        for key, value in rows:
            if key in large:
                for record in cut(key, value, large[key]):
                    outgoing.append(*record)
                large[key] = parts_of(value)
            else:
                outgoing.append(key, value)
        return outgoing

    def _large(self, rows: Sequence[Row]) -> dict[bytes, int]:
        """Keys of rows that are written in parts, or were the last time: in how many, the last time."""
        keys = list(dict.fromkeys(key for key, _ in rows if key[0] in _MAY_BE_LARGE))
        before = dict(zip(keys, map(parts_of, self._store.get_many(keys)), strict=True))
        now = {key for key, value in rows if value is not None and len(value) > PART_BYTES}
        return {key: before.get(key, 0) for key in now.union(key for key in keys if before[key])}
