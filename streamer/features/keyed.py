"""The keys of one entity: their events in memory, within a budget, and their way to the store and back."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided

from streamer.batch import Bool, Float64, Int64, Text
from streamer.errors import StreamerError
from streamer.features.blocks import (
    EVENTS,
    FOREIGN,
    HEAD,
    HEADER,
    LIFE_BYTES,
    count_changed,
    count_older,
    key_of,
    pack,
    unpack,
)
from streamer.features.collected import Collector
from streamer.features.columns import SEED, Prepared, bits_of
from streamer.features.counters import COUNTER_WORDS
from streamer.features.keys import (
    FIRST_BUCKETS,
    FREE_SLOTS,
    GRANULE,
    HASH,
    LONGEST,
    RECORD,
    TOP_GRANULE,
    TOP_SLOT,
    USED_GRANULES,
    aligned,
    are_same,
    find,
    forget,
    hash_text,
    look_up,
    new_index,
)
from streamer.features.layout import (
    AS_OF,
    BATCH,
    BLOCK_CHUNKS,
    BUMP,
    CHUNK_ROWS,
    CHUNKS,
    COUNTER_BUCKETS,
    COUNTER_SPAN,
    COUNTERS,
    CUT,
    DIRTY,
    DIRTY_FROM,
    DIRTY_WORDS,
    EPOCH,
    FOREVER,
    HORIZON,
    LIFE_WORDS,
    LOADING,
    META,
    PINNED,
    RECENT,
    Int32,
    State,
)  # fmt: skip
from streamer.features.loading import COUNT_AT, BlockStore, Stored, find_blocks, pack_bytes, unusable
from streamer.features.plan import Compiled
from streamer.features.redo import Redo
from streamer.features.rows import close_keys, open_keys, pick_keys, put_lives
from streamer.features.sweep import find_expired
from streamer.features.windows import step

SLACK = 64 << 20
"""Bytes of addresses beyond twice the budget; they cost nothing until they are used."""


INDEX_BYTES = 8 * RECORD + 8
"""What the index takes for a key."""

NODES: Final = 3
"""Counters that an event may take in a tally."""

COUNTER_BYTES: Final = 8 * COUNTER_WORDS + 4

PACKED: Final = 4_096
"""Keys that are packed at once."""

CAUGHT_UP: Final = 4_096
"""Payments whose keys come into memory at once to be counted again."""

_NOTHING: Final = np.empty(0)


class EntityTable:
    """All keys of one entity. `budget` (bytes) sizes the memory that may be used at most, twice that.

    `batch` is the number of the next batch of payments. A key's events are given up when they are older by
    the retention than its newest one, or than `horizon` where that is earlier.
    """

    def __init__(  # noqa: PLR0913 - a table is made in one place
        self,
        compiled: Compiled,
        budget: int,
        blocks: BlockStore,
        batch: int,
        *,
        spilled: bool,
        horizon: int = FOREVER,
    ) -> None:
        self.name = compiled.entity.name
        self.width = len(compiled.entity.features)
        self._compiled = compiled
        self._blocks = blocks
        self._work = compiled.work()
        self._collector = Collector(compiled)
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
        self._state = State(
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
        self._index = new_index(self._slots, room)
        self._long = room // GRANULE
        self._saved = 0
        self._cut_since: int | None = None
        self._packed = np.empty(0, np.uint8)
        self._scratch = np.empty(EVENTS, np.int64)
        self._spilled = spilled
        self._redo = Redo(compiled.entity.keys, compiled.columns)
        self._swept: set[bytes] = set()
        """Prefixes of keys whose rows a commit under way deletes: they are as good as gone."""

    @property
    def fields(self) -> frozenset[str]:
        """The fields and declared attributes of payments that are its key or kept."""
        return frozenset((*self._compiled.entity.keys, *(column.name for column in self._compiled.columns)))

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

    @property
    def keys(self) -> int:
        """Keys in memory."""
        return int(self._index.meta[TOP_SLOT] - self._index.meta[FREE_SLOTS])

    @property
    def memory(self) -> int:
        """Bytes the keys in memory take."""
        chunks = int(self._state.meta[CHUNKS]) * 8 * self._compiled.plan.shape.chunk
        counters = int(self._state.meta[COUNTERS]) * COUNTER_BYTES
        text = int(self._index.meta[USED_GRANULES]) * GRANULE
        return self.keys * self._key_bytes + chunks + counters + text

    def update(self, prepared: Prepared, number: int, out: Float64, column: int) -> None:
        """Answer a batch into `out[:, column:column + width]`, and count it."""
        self._state.meta[BATCH] = number
        self._answer(prepared, prepared.batch.live, out, column)

    def answer(self, prepared: Prepared, out: Float64, column: int) -> None:
        """Answer a batch as `update` does, and count none of it."""
        self._answer(prepared, np.zeros(len(prepared.batch), np.bool_), out, column)

    def keep(self, horizon: int) -> None:
        """Give no event up from now on that a payment at `horizon` (ms) or later could ask for."""
        self._state.meta[HORIZON] = horizon

    def count(self, prepared: Prepared, horizon: int) -> None:
        """Count a batch without an answer, and with a `horizon` of its own."""
        text, hashes = prepared.keys(self._compiled.entity.keys)
        slots = self._slots_of(text, hashes)
        meta = self._state.meta
        usual, meta[HORIZON] = int(meta[HORIZON]), horizon
        self._step(prepared, slots, prepared.batch.live, _NOTHING, 0)
        meta[HORIZON] = usual

    def _answer(self, prepared: Prepared, live: Bool, out: Float64, column: int) -> None:
        text, hashes = prepared.keys(self._compiled.entity.keys)
        slots = self._slots_of(text, hashes)
        stride = out.strides[0] // out.itemsize
        flat = as_strided(out[:, column:], (max((len(out) - 1) * stride + self.width, 0),), out.strides[1:])
        self._step(prepared, slots, live, flat, stride)

    def replay(self, prepared: Prepared, number: int) -> None:
        """Count a batch where it is not yet counted, each key when it comes into memory."""
        self._redo.add(prepared, number)

    def catch_up(self, payments: int | None) -> bool:
        """Bring the keys of so many payments into memory that are to be counted again; says if any are left.

        Without `payments` of all.
        """
        while self._redo.left:
            text, hashes = self._redo.take(CAUGHT_UP if payments is None else payments)
            self._slots_of(text, hashes)
            if payments is not None:
                break
        return self._redo.left > 0

    def forget_redo(self) -> None:
        """No key lacks anything any more."""
        self._redo = Redo(self._compiled.entity.keys, self._compiled.columns)

    def _slots_of(self, text: Text, hashes: Int64) -> Int32:
        """Where keys are, once all of them are in memory; -1 where there is none."""
        n = len(text)
        slots, fresh = np.empty(n, np.int32), np.empty(n, np.int32)
        self._reserve(n, n, slots[:0])
        found = look_up(self._index, text.data, text.ends, hashes, slots, fresh)
        if found:
            self._open(fresh[:found], slots)
        return slots

    def _step(self, prepared: Prepared, slots: Int32, live: Bool, out: Float64, stride: int) -> None:
        """Answer a batch and count what is live of it."""
        batch, compiled, state = prepared.batch, self._compiled, self._state
        n = len(batch)
        values = np.empty((len(compiled.columns), n), np.int64)
        kept = {}
        for place, one in enumerate(compiled.columns):
            values[place] = prepared.kept(one)
            kept[one] = values[place]
        bits = bits_of(compiled.masks, kept, n)
        done = 0
        while done < n:
            work = self._collector.work(self._work, n - done)
            begin, done = done, step(
                state, compiled.plan, work, slots, batch.event_time, live, bits, values, out, stride,
                done,
            )  # fmt: skip
            self._collector.fill(work, batch.event_time, range(begin, done), out, stride)

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
        count, key_bytes = count_changed(self._state, compiled.plan, self._index, keys)
        places = np.empty((count, 3), np.int64)
        block = HEADER + 9 + 8 * EVENTS + columns * (5 + 8 * EVENTS) + LIFE_BYTES * len(compiled.lives)
        size = count * block + key_bytes + 8
        if len(self._packed) < size:
            self._packed = np.empty(size, np.uint8)
        used = pack(
            self._state, compiled.plan, self._index, keys, compiled.identity, compiled.column_identities,
            compiled.column_kinds, compiled.lives, self._packed, places, self._scratch,
        )  # fmt: skip
        return self._packed[:used].tobytes(), places

    def written(self) -> None:
        """The last cut is in the store."""
        self._saved = int(self._state.meta[EPOCH]) - 1
        self._swept.clear()
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
        find(self._index, data, ends, hashes, slots)
        places = 2 * slots.astype(np.int64) * self._compiled.plan.shape.header + CUT
        free = (slots < 0) | (self._state.numbers[places] <= self._saved)
        self._let_go(slots[free & (slots >= 0)])
        gone = [one for one, goes in zip(expired, free.tolist(), strict=True) if goes]
        self._swept.update(one.rows[-1][:-4] for one in gone)
        return [row for one in gone for row in one.rows]

    def _let_go(self, slots: Int32) -> None:
        if len(slots):
            forget(self._index, slots)
            close_keys(self._state, self._compiled.plan, slots)

    def evict(self, excess: int) -> None:
        """Let keys leave memory that have not been used for long, until so many bytes are free."""
        chosen = np.empty(self.keys, np.int32)
        found = pick_keys(
            self._state, self._compiled.plan, int(self._index.meta[TOP_SLOT]), self._saved, INDEX_BYTES,
            excess, chosen,
        )  # fmt: skip
        if found:
            self._spilled = True
            self._let_go(chosen[:found])

    def _reserve(self, keys: int, chunks: int, pinned: Int32) -> None:
        """Make sure that so many new keys and chunks find room, without letting go of the pinned keys."""
        meta, index = self._state.meta, self._index
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
                self._state.numbers[at] = PINNED
                self.evict((keys + chunks) * (self._key_bytes + 8 * self._compiled.plan.shape.chunk))
        raise StreamerError(
            f"entity {self.name!r}: {self.keys} keys take {self.memory} bytes, twice the memory budget, and"
            " are not in the store yet; raise the memory budget or commit more often"
        )

    def _open(self, slots: Int32, batch: Int32) -> None:
        """Begin keys that came into memory, with the events that the store has of them."""
        state, compiled = self._state, self._compiled
        begin = np.zeros(len(slots), np.int64)
        stored = self._find(slots) if self._spilled else []
        for found in stored:
            begin[found.place] = found.begin
        open_keys(state, compiled.plan, slots, begin, begin // BLOCK_CHUNKS)
        if stored:
            self._load(stored, slots, batch)
        if len(self._redo):
            self._count_again(slots, batch)

    def _load(self, stored: list[Stored], slots: Int32, batch: Int32) -> None:
        """Fill keys with what the store has of them."""
        state, compiled = self._state, self._compiled
        counts = np.array([sum(value[COUNT_AT] for value in found.values) for found in stored])
        total = int(counts.sum())
        times, values = np.empty(total, np.int64), np.empty((len(compiled.columns), total), np.int64)
        row_keys = [key for found in stored for key in found.keys]
        lives = np.zeros((len(row_keys), len(compiled.lives), LIFE_WORDS), np.int64)
        packed = [value for found in stored for value in found.values]
        place, why = unpack(
            *pack_bytes(row_keys),
            *pack_bytes(packed),
            compiled.column_identities,
            compiled.column_kinds,
            times,
            values,
            compiled.lives,
            lives,
        )
        if place >= 0:
            raise unusable(self.name, row_keys[place], "another version" if why == FOREIGN else "damage")
        mine = np.array([slots[found.place] for found in stored], np.int32)
        headers = mine.astype(np.int64) * compiled.plan.shape.header
        state.headers[headers + AS_OF] = [found.as_of for found in stored]
        state.numbers[2 * headers + CUT] = LOADING
        self._fill(np.repeat(mine, counts), times, values, len(stored), batch)
        state.numbers[2 * headers + CUT] = 0
        put_lives(state, compiled.plan, mine, np.cumsum([len(found.values) for found in stored]) - 1, lives)

    def _count_again(self, slots: Int32, batch: Int32) -> None:
        """Count the payments that the stored rows of keys lack."""
        header = self._compiled.plan.shape.header
        as_of = self._state.headers[slots.astype(np.int64) * header + AS_OF]
        places, rows = self._redo.find(self._index.records[RECORD * slots.astype(np.int64) + HASH])
        lacking = self._redo.numbers[rows] >= as_of[places]
        places, rows = places[lacking], rows[lacking]
        same = np.empty(len(rows), np.bool_)
        keys = self._redo.keys
        are_same(self._index, slots[places], keys.data, keys.ends, rows, same)
        places, rows = places[same], rows[same]
        values = np.ascontiguousarray(self._redo.values[:, rows])
        self._fill(slots[places], self._redo.times[rows], values, len(slots), batch)

    def _fill(self, slots: Int32, times: Int64, values: Int64, keys: int, batch: Int32) -> None:
        """Count events of so many keys that have just come into memory."""
        compiled, n = self._compiled, len(slots)
        self._reserve(0, n // CHUNK_ROWS + 2 * min(keys, n) + len(batch), batch)
        bits = bits_of(compiled.masks, dict(zip(compiled.columns, values, strict=True)), n)
        live = np.ones(n, np.bool_)
        step(self._state, compiled.plan, self._work, slots, times, live, bits, values, _NOTHING, 0, 0)

    def _find(self, slots: Int32) -> list[Stored]:
        """The blocks of those keys of which the store has any."""
        out = np.empty(LONGEST + 16, np.uint8)
        prefixes = []
        for slot in slots.tolist():
            length = key_of(self._index, slot, self._compiled.identity, HEAD, out)
            prefixes.append(out[: length - 4].tobytes())
        found = find_blocks(self._blocks, prefixes, self.name)
        return [one for one in found if prefixes[one.place] not in self._swept] if self._swept else found
