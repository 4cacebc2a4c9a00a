"""The keys of one entity in memory, within a budget: those that were not used for long leave it."""

from typing import Final

import numpy as np

from streamer.errors import StreamerError
from streamer.features.counters import COUNTER_WORDS
from streamer.features.keys import (
    FIRST_BUCKETS,
    FREE_SLOTS,
    GRANULE,
    LONGEST,
    RECORD,
    TOP_GRANULE,
    TOP_SLOT,
    USED_GRANULES,
    aligned,
    forget,
    new_index,
)
from streamer.features.layout import (
    BATCH,
    BUMP,
    CHUNK_ROWS,
    CHUNKS,
    COUNTER_BUCKETS,
    COUNTER_SPAN,
    COUNTERS,
    EPOCH,
    HORIZON,
    META,
    PINNED,
    RECENT,
    Int32,
    State,
)  # fmt: skip
from streamer.features.plan import Compiled
from streamer.features.rows import close_keys, pick_keys

SLACK = 64 << 20
"""Bytes of addresses beyond twice the budget; they cost nothing until they are used."""

INDEX_BYTES = 8 * RECORD + 8
"""What the index takes for a key."""

NODES: Final = 3
"""Counters that an event may take in a tally."""

COUNTER_BYTES: Final = 8 * COUNTER_WORDS + 4


class HotKeys:
    """The memory of a table. `budget` (bytes) sizes what may be used at most, twice that.

    `batch` is the number of the next batch of payments. A key's events are given up when they are older by
    the retention than its newest one, or than `horizon` where that is earlier.
    """

    def __init__(self, compiled: Compiled, budget: int, batch: int, horizon: int, *, spilled: bool) -> None:
        self._compiled = compiled
        shape = compiled.plan.shape
        self._key_bytes = 8 * shape.header + INDEX_BYTES
        room = 2 * budget + SLACK
        self._slots = room // (self._key_bytes + 8 * shape.chunk)
        self._chunks = min(room // (8 * shape.chunk), (2**31 - 1) // shape.chunk)
        rows = aligned(self._chunks * shape.chunk)
        headers = aligned(self._slots * shape.header)
        distincts = len(compiled.plan.distincts)
        meta = np.zeros(META, np.int64)
        meta[BUMP], meta[EPOCH], meta[BATCH], meta[HORIZON] = shape.chunk, 1, batch - 1, horizon
        meta[COUNTER_BUCKETS] = meta[COUNTER_SPAN] = FIRST_BUCKETS
        self._counted = NODES * len(compiled.plan.tallies)
        self._counters = room // COUNTER_BYTES if self._counted else 0
        self.state = State(
            rows=rows,
            links=rows.view(np.uint32),
            headers=headers,
            numbers=headers.view(np.uint32),
            meta=meta,
            maps=np.tile(np.array([FIRST_BUCKETS, FIRST_BUCKETS, 0]), max(distincts, 1)),
            buckets=np.zeros((max(distincts, 1), self._chunks * 4 + FIRST_BUCKETS), np.uint32),
            dirty=np.zeros(self._slots, np.uint32),
            since=np.zeros(self._slots, np.int64),
            counters=np.zeros(COUNTER_WORDS * (self._counters + 1), np.int64),
            chains=np.zeros(self._counters + FIRST_BUCKETS, np.uint32),
        )
        self.index = new_index(self._slots, room)
        self._long = room // GRANULE
        self.saved = 0
        """The last epoch whose changes are in the store."""
        self.spilled = spilled
        """Whether the store may have keys that are not in memory."""

    @property
    def keys(self) -> int:
        """Keys in memory."""
        return int(self.index.meta[TOP_SLOT] - self.index.meta[FREE_SLOTS])

    @property
    def memory(self) -> int:
        """Bytes the keys in memory take."""
        chunks = int(self.state.meta[CHUNKS]) * 8 * self._compiled.plan.shape.chunk
        counters = int(self.state.meta[COUNTERS]) * COUNTER_BYTES
        text = int(self.index.meta[USED_GRANULES]) * GRANULE
        return self.keys * self._key_bytes + chunks + counters + text

    def let_go(self, slots: Int32) -> None:
        """Let these keys leave memory."""
        if len(slots):
            forget(self.index, slots)
            close_keys(self.state, self._compiled.plan, slots)

    def evict(self, excess: int) -> None:
        """Let keys leave memory that have not been used for long, until so many bytes are free."""
        chosen = np.empty(self.keys, np.int32)
        found = pick_keys(
            self.state, self._compiled.plan, int(self.index.meta[TOP_SLOT]), self.saved, INDEX_BYTES,
            excess, chosen,
        )  # fmt: skip
        if found:
            self.spilled = True
            self.let_go(chosen[:found])

    def reserve(self, keys: int, chunks: int, pinned: Int32) -> None:
        """Make sure that so many new keys and chunks find room, without letting go of the pinned keys."""
        meta, index = self.state.meta, self.index
        for last in (False, True):
            free_slots = self._slots - self.keys
            free_chunks = self._chunks - 1 - int(meta[CHUNKS])
            free_long = self._long - int(index.meta[TOP_GRANULE])
            free_counters = self._counters - int(meta[COUNTERS])
            if (
                free_slots >= keys
                and free_chunks >= chunks
                and free_long >= keys * LONGEST // GRANULE
                and free_counters >= self._counted * chunks * CHUNK_ROWS
            ):
                return
            if not last:
                at = 2 * pinned[pinned >= 0].astype(np.int64) * self._compiled.plan.shape.header + RECENT
                self.state.numbers[at] = PINNED
                self.evict((keys + chunks) * (self._key_bytes + 8 * self._compiled.plan.shape.chunk))
        raise StreamerError(
            f"entity {self._compiled.entity.name!r}: {self.keys} keys take {self.memory} bytes, twice the"
            " memory budget, and are not in the store yet; raise the memory budget or commit more often"
        )
