"""The keys of one entity: payments are answered from them and counted; what the store has comes back."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided

from streamer.batch import Bool, Float64, Int64, Text
from streamer.features.blocks import (
    FOREIGN,
    HEAD,
    ROW_KEY_BYTES,
    unpack,
    write_row_keys,
)
from streamer.features.changed import ChangedKeys
from streamer.features.collected import Collector
from streamer.features.columns import Prepared, bits_of
from streamer.features.hot import HotKeys
from streamer.features.keys import (
    HASH,
    LENGTH,
    RECORD,
    are_same,
    look_up,
)
from streamer.features.layout import (
    AS_OF,
    BATCH,
    BLOCK_CHUNKS,
    CHUNK_ROWS,
    CUT,
    FOREVER,
    HORIZON,
    LIFE_WORDS,
    LOADING,
    Int32,
)  # fmt: skip
from streamer.features.loading import COUNT_AT, BlockStore, Stored, find_blocks, pack_bytes, unusable
from streamer.features.plan import Compiled
from streamer.features.redo import Redo
from streamer.features.rows import open_keys, put_lives
from streamer.features.windows import step

CAUGHT_UP: Final = 4_096
"""Payments whose keys come into memory at once to be counted again."""

_NOTHING: Final = np.empty(0)


class EntityTable:
    """All keys of one entity; `budget`, `batch` and `horizon` are as `HotKeys` wants them."""

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
        self._redo = Redo(compiled.entity.keys, compiled.columns)
        self.hot = HotKeys(compiled, budget, batch, horizon, spilled=spilled)
        self.changed = ChangedKeys(compiled, self.hot, blocks)
        self._state, self._index = self.hot.state, self.hot.index

    @property
    def fields(self) -> frozenset[str]:
        """The fields and declared attributes of payments that are its key or kept."""
        return frozenset((*self._compiled.entity.keys, *(column.name for column in self._compiled.columns)))

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
        self.hot.reserve(n, n, slots[:0])
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

    def _open(self, slots: Int32, batch: Int32) -> None:
        """Begin keys that came into memory, with the events that the store has of them."""
        state, compiled = self._state, self._compiled
        begin = np.zeros(len(slots), np.int64)
        stored = self._find(slots) if self.hot.spilled else []
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
        self.hot.reserve(0, n // CHUNK_ROWS + 2 * min(keys, n) + len(batch), batch)
        bits = bits_of(compiled.masks, dict(zip(compiled.columns, values, strict=True)), n)
        live = np.ones(n, np.bool_)
        step(self._state, compiled.plan, self._work, slots, times, live, bits, values, _NOTHING, 0, 0)

    def _find(self, slots: Int32) -> list[Stored]:
        """The blocks of those keys of which the store has any."""
        lengths = self._index.numbers[2 * RECORD * slots.astype(np.int64) + LENGTH]
        ends = np.zeros(len(slots) + 1, np.int64)
        np.cumsum(lengths + ROW_KEY_BYTES, out=ends[1:])
        out = np.empty(ends[-1] + 8, np.uint8)
        write_row_keys(self._index, slots, self._compiled.identity, HEAD, ends, out)
        data = out.tobytes()
        keys = [data[begin:end] for begin, end in pairwise(ends.tolist())]
        found = find_blocks(self._blocks, keys, self.name)
        swept = self.changed.swept
        return [one for one in found if keys[one.place][:-4] not in swept] if swept else found
