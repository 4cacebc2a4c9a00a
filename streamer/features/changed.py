"""The keys of one entity that have changed, on their way to the store, and those that leave it."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from streamer.batch import Int64
from streamer.features.blocks import EVENTS, HEADER, LIFE_BYTES, count_changed, count_older, pack
from streamer.features.columns import SEED
from streamer.features.hot import INDEX_BYTES, HotKeys
from streamer.features.keys import find, hash_text
from streamer.features.layout import CUT, DIRTY, DIRTY_FROM, DIRTY_WORDS, EPOCH
from streamer.features.loading import BlockStore, pack_bytes
from streamer.features.plan import Compiled
from streamer.features.sweep import find_expired

PACKED: Final = 4_096
"""Keys that are packed at once."""


class ChangedKeys:
    """Cuts the rows of keys that have changed, and says which rows nothing to come can ask for."""

    def __init__(self, compiled: Compiled, hot: HotKeys, blocks: BlockStore) -> None:
        self._compiled = compiled
        self._hot = hot
        self._state = hot.state
        self._blocks = blocks
        self._cut_since: int | None = None
        self._packed = np.empty(0, np.uint8)
        self._scratch = np.empty(EVENTS, np.int64)
        self.swept: set[bytes] = set()
        """Prefixes of keys whose rows a commit under way deletes: they are as good as gone."""

    @property
    def dirty(self) -> int:
        """Keys changed since they were cut."""
        return int(self._state.meta[DIRTY])

    @property
    def dirty_bytes(self) -> int:
        """Bytes that these keys take."""
        return int(self._state.meta[DIRTY_WORDS]) * 8 + self.dirty * INDEX_BYTES

    @property
    def since(self) -> int | None:
        """Number of the batch that changed the first of these keys."""
        meta = self._state.meta
        return int(self._state.since[meta[DIRTY_FROM]]) if meta[DIRTY] else None

    @property
    def unwritten_since(self) -> int | None:
        """The same of keys not known to be in the store."""
        return self.since if self._cut_since is None else self._cut_since

    def older(self, batch: int) -> int:
        """How many changed keys wait since a batch of a lower number."""
        return int(count_older(self._state.since, self._state.meta, batch))

    def cut(self, keys: int) -> list[tuple[bytes, bytes | None]]:
        """The changed rows of so many keys, those that changed first."""
        if keys and self._cut_since is None:
            self._cut_since = self.since
        rows: list[tuple[bytes, bytes | None]] = []
        for begin in range(0, keys, PACKED):
            data, places = self._pack(min(PACKED, keys - begin))
            rows += [
                (data[start:middle], data[middle:end] if end >= 0 else None)
                for start, middle, end in places.tolist()
            ]
        return rows

    def _pack(self, keys: int) -> tuple[bytes, Int64]:
        """The next rows one after the other, and where each one's key begins, its value begins and ends."""
        compiled = self._compiled
        columns = len(compiled.columns)
        count, key_bytes = count_changed(self._state, compiled.plan, self._hot.index, keys)
        places = np.empty((count, 3), np.int64)
        block = HEADER + 9 + 8 * EVENTS + columns * (5 + 8 * EVENTS) + LIFE_BYTES * len(compiled.lives)
        size = count * block + key_bytes + 8
        if len(self._packed) < size:
            self._packed = np.empty(size, np.uint8)
        used = pack(
            self._state, compiled.plan, self._hot.index, keys, compiled.identity, compiled.column_identities,
            compiled.column_kinds, compiled.lives, self._packed, places, self._scratch,
        )  # fmt: skip
        return self._packed[:used].tobytes(), places

    def written(self) -> None:
        """The last cut is in the store."""
        self._hot.saved = int(self._state.meta[EPOCH]) - 1
        self.swept.clear()
        self._cut_since = None

    @property
    def prefix(self) -> bytes:
        """What the row keys of its blocks begin with."""
        return self._compiled.identity.to_bytes(4, "big")

    @property
    def lasts(self) -> bool:
        """Whether keys are kept for ever: lifetime counters are asked for whenever a key comes again."""
        return len(self._compiled.lives) > 0

    @property
    def retention(self) -> int:
        """How long events are kept behind the newest of their key, in ms."""
        return self._compiled.plan.shape.retention

    def sweep(self, rows: Sequence[tuple[bytes, bytes]], clock: int) -> list[bytes]:
        """Row keys to delete in the next commit: of keys among these rows that no payment to come can see.

        No payment to come is older than `clock` (ms) by more than the allowed lateness. Keys with something
        to be written stay. Not for tables that last.
        """
        expired = find_expired(rows, clock - self.retention, self._blocks)
        if not expired:
            return []
        data, ends = pack_bytes([one.key for one in expired])
        hashes = np.empty(len(expired), np.int64)
        slots = np.empty(len(expired), np.int32)
        hash_text(data, ends, SEED, hashes)
        find(self._hot.index, data, ends, hashes, slots)
        places = 2 * slots.astype(np.int64) * self._compiled.plan.shape.header + CUT
        free = (slots < 0) | (self._state.numbers[places] <= self._hot.saved)
        self._hot.let_go(slots[free & (slots >= 0)])
        gone = [one for one, goes in zip(expired, free.tolist(), strict=True) if goes]
        self.swept.update(one.rows[-1][:-4] for one in gone)
        return [row for one in gone for row in one.rows]
