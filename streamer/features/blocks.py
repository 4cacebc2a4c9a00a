"""Stored blocks of a key's events: packing what changed, and reading it back with every byte checked.

A row's key is the entity (4 bytes), the key's bytes and the number of the block (4 bytes, big-endian, all
ones for the newest). Its value, little-endian: checksum of row key and rest (4), version (1), events (1),
chunks trimmed from the block's beginning (1), columns (1), first block of the key (4), number of this
block (4), number of the first batch of payments that the key lacks (5); the least time (8), then width (1)
and times after the least; then for each column its identity (4), width (1) and values. Events are in order
of arrival. Numbers are stored as 1 + zigzag, hashes as they are; 0 is missing. In the newest block follow
for each lifetime counter its identity (4), events ever (8) and the least time of one (8).
"""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.batch import Bytes, Int64
from streamer.features.compiled import kernel, part
from streamer.features.keys import BYTES, GRANULE, INLINE, LENGTH, PLACE, RECORD, Index, hash_bytes
from streamer.features.layout import (
    BATCH,
    BLOCK_CHUNKS,
    CHANGED_FROM,
    CHUNK_FILL,
    CHUNK_HEADER,
    CHUNK_NEXT,
    CHUNK_ORDINAL,
    CHUNK_ROWS,
    COLUMNS,
    CUT,
    DIRTY,
    DIRTY_FROM,
    DIRTY_WORDS,
    EPOCH,
    FIRST_CHUNK,
    LAST_CHUNK,
    MISSING,
    STORED_FROM,
    Int32,
    Plan,
    State,
)
from streamer.features.memory import get_word, put_word
from streamer.features.rows import words_of

VERSION: Final = 2
HEADER: Final = 21
AS_OF_AT, AS_OF_BYTES = 16, 5
HEAD: Final = 0xFFFFFFFF
ROW_KEY_BYTES: Final = 8
"""Of a row key beside those of the key itself: its entity and the number of the block."""
EVENTS: Final = CHUNK_ROWS * BLOCK_CHUNKS
NUMBER, HASHED = 0, 1

LIFE_BYTES: Final = 20

SOUND, DAMAGED, FOREIGN = 0, 1, 2


@part
def _write(out: Bytes, at: int, value: int, width: int) -> int:
    """Write a number of so many bytes; what follows it is written later."""
    put_word(out, at, value)
    return at + width


@part
def _read(data: Bytes, at: int, width: int) -> int:
    if width == 0:
        return 0
    return np.int64(get_word(data, at) & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * width)))


@part
def _width(bits: int) -> int:
    """Bytes that hold a number, as unsigned."""
    if bits < 0:
        return 8
    width = 0
    while width < 8 and bits >> (8 * width) != 0:
        width += 1
    return width


@part
def _column(out: Bytes, at: int, values: Int64, count: int) -> int:
    """Write a width and as many values of that width."""
    bits = 0
    for j in range(count):
        bits |= values[j]
    width = _width(bits)
    out[at] = width
    at += 1
    for j in range(count):
        at = _write(out, at, values[j], width)
    return at


@part
def _big_endian(out: Bytes, at: int, value: int) -> int:
    for j in range(4):
        out[at + j] = (value >> (24 - 8 * j)) & 255
    return at + 4


@part
def _row_key(out: Bytes, at: int, entity: int, index: Index, slot: int, block: int) -> int:
    at = _big_endian(out, at, entity)
    length = index.numbers[2 * RECORD * slot + LENGTH]
    if length <= INLINE:
        base = RECORD * slot + BYTES
        for j in range((length + 7) // 8):
            put_word(out, at + 8 * j, index.records[base + j])
    else:
        base = GRANULE * np.int64(index.numbers[2 * RECORD * slot + PLACE])
        for j in range(length):
            out[at + j] = index.long[base + j]
    return _big_endian(out, at + length, block)


@kernel
def write_row_keys(index: Index, slots: Int32, entity: int, block: int, ends: Int64, out: Bytes) -> None:
    """Write the row key of one block of each key, from ends[i] on; `out` has 8 bytes more."""
    for i in range(slots.shape[0]):
        _row_key(out, ends[i], entity, index, np.int64(slots[i]), block)


@kernel
def count_older(since: Int64, meta: Int64, batch: int) -> int:
    """How many changed keys wait since a batch of a lower number."""
    low, high = 0, meta[DIRTY]
    while low < high:
        middle = (low + high) // 2
        if since[(meta[DIRTY_FROM] + middle) % since.shape[0]] < batch:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def count_changed(state: State, plan: Plan, index: Index, keys: int) -> tuple[int, int]:
    """How many rows `pack` is going to write, and the bytes of their keys."""
    links, numbers = state.links, state.numbers
    rows = key_bytes = 0
    for i in range(keys):
        slot = np.int64(state.dirty[(state.meta[DIRTY_FROM] + i) % state.dirty.shape[0]])
        g = 2 * slot * plan.shape.header
        first = links[2 * numbers[g + FIRST_CHUNK] + CHUNK_ORDINAL] // BLOCK_CHUNKS
        last = links[2 * numbers[g + LAST_CHUNK] + CHUNK_ORDINAL] // BLOCK_CHUNKS
        changed = links[2 * numbers[g + CHANGED_FROM] + CHUNK_ORDINAL] // BLOCK_CHUNKS
        mine = first - numbers[g + STORED_FROM] + last - changed + 1
        rows += mine
        key_bytes += mine * (index.numbers[2 * RECORD * slot + LENGTH] + 8)
    return rows, key_bytes


@kernel
def pack(
    state: State,
    plan: Plan,
    index: Index,
    keys: int,
    entity: int,
    columns: Int64,
    kinds: Int64,
    lives: Int64,
    out: Bytes,
    rows: Int64,
    scratch: Int64,
) -> int:
    """Write the changed blocks of the first keys in the queue, and what is to be deleted; begin an epoch.

    `rows` (m, 3) become where in `out` each row's key begins, its value begins and ends (-1: the row is to be
    deleted); returns the bytes used, but `out` has room for 8 more. `columns` are the identities of kept
    columns, `lives` those of lifetime counters; `scratch` holds a block's values.
    """
    links, numbers = state.links, state.numbers
    at = 0
    m = 0
    for i in range(keys):
        slot = np.int64(state.dirty[(state.meta[DIRTY_FROM] + i) % state.dirty.shape[0]])
        g = 2 * slot * plan.shape.header
        first = links[2 * numbers[g + FIRST_CHUNK] + CHUNK_ORDINAL] // BLOCK_CHUNKS
        last = links[2 * numbers[g + LAST_CHUNK] + CHUNK_ORDINAL] // BLOCK_CHUNKS
        for block in range(numbers[g + STORED_FROM], first):
            rows[m, 0] = at
            at = _row_key(out, at, entity, index, slot, block)
            rows[m, 1], rows[m, 2] = at, -1
            m += 1
        numbers[g + STORED_FROM] = first
        chunk = numbers[g + CHANGED_FROM]
        while chunk != 0:
            block = links[2 * chunk + CHUNK_ORDINAL] // BLOCK_CHUNKS
            start = chunk
            count = 0
            least = state.rows[chunk + CHUNK_HEADER]
            while chunk != 0 and links[2 * chunk + CHUNK_ORDINAL] // BLOCK_CHUNKS == block:
                for j in range(links[2 * chunk + CHUNK_FILL]):
                    least = min(least, state.rows[chunk + CHUNK_HEADER + j * plan.shape.row])
                count += links[2 * chunk + CHUNK_FILL]
                chunk = links[2 * chunk + CHUNK_NEXT]
            rows[m, 0] = at
            at = _row_key(out, at, entity, index, slot, HEAD if block == last else block)
            begin = at
            out[at + 4], out[at + 5] = VERSION, count
            out[at + 6], out[at + 7] = links[2 * start + CHUNK_ORDINAL] % BLOCK_CHUNKS, columns.shape[0]
            put_word(out, at + 8, first | block << 32)
            _write(out, at + AS_OF_AT, state.meta[BATCH] + 1, AS_OF_BYTES)
            at = _write(out, at + HEADER, least, 8)
            for c in range(-1, columns.shape[0]):
                n = 0
                x = start
                while x != chunk:
                    for j in range(links[2 * x + CHUNK_FILL]):
                        row = x + CHUNK_HEADER + j * plan.shape.row
                        if c < 0:
                            scratch[n] = state.rows[row] - least
                        else:
                            value = state.rows[row + COLUMNS + c]
                            if kinds[c] == NUMBER:
                                value = 0 if value == MISSING else ((value << 1) ^ (value >> 63)) + 1
                            scratch[n] = value
                        n += 1
                    x = links[2 * x + CHUNK_NEXT]
                if c >= 0:
                    at = _write(out, at, columns[c], 4)
                at = _column(out, at, scratch, count)
            if block == last:
                for one in range(lives.shape[0]):
                    life = slot * plan.shape.header + plan.lives[one, 1]
                    at = _write(out, at, lives[one], 4)
                    at = _write(out, at, state.headers[life], 8)
                    at = _write(out, at, state.headers[life + 1], 8)
            seed = hash_bytes(out, rows[m, 0], begin, 0)
            check = hash_bytes(out, begin + 4, at, seed) & 0xFFFFFFFF
            put_word(out, begin, np.int64(get_word(out, begin + 4)) << 32 | check)
            rows[m, 1], rows[m, 2] = begin, at
            m += 1
        numbers[g + CUT] = state.meta[EPOCH]
        state.meta[DIRTY_WORDS] -= words_of(state, plan, slot)
    state.meta[DIRTY_FROM] = (state.meta[DIRTY_FROM] + keys) % state.dirty.shape[0]
    state.meta[DIRTY] -= keys
    state.meta[EPOCH] += 1
    return at


@kernel
def is_sound(key: Bytes, value: Bytes) -> bool:
    """Whether a block of at least a header is as it was written under its row key."""
    check = hash_bytes(value, 4, value.shape[0], hash_bytes(key, 0, key.shape[0], 0))
    return check & 0xFFFFFFFF == _read(value, 0, 4)


@kernel
def unpack(
    keys: Bytes,
    key_ends: Int64,
    data: Bytes,
    ends: Int64,
    columns: Int64,
    kinds: Int64,
    times: Int64,
    values: Int64,
    lives: Int64,
    counted: Int64,
) -> tuple[int, int]:
    """Read blocks one after the other into `times` (events,) and `values` (columns, events).

    A column that a block lacks is missing. `counted` (blocks, lives, 2) are the counters of the identities
    `lives`, left alone where a block has none. 8 more bytes follow the last block. Returns the first block
    that cannot be used, and why.
    """
    n = 0
    for i in range(ends.shape[0] - 1):
        at, end = ends[i], ends[i + 1]
        if end - at < HEADER + 9:
            return i, DAMAGED
        check = hash_bytes(data, at + 4, end, hash_bytes(keys, key_ends[i], key_ends[i + 1], 0))
        if check & 0xFFFFFFFF != _read(data, at, 4):
            return i, DAMAGED
        if data[at + 4] != VERSION:
            return i, FOREIGN
        count = np.int64(data[at + 5])
        stored = np.int64(data[at + 7])
        at += HEADER
        least = _read(data, at, 8)
        width = np.int64(data[at + 8])
        at += 9
        for j in range(count):
            times[n + j] = least + _read(data, at, width)
            at += width
            for c in range(columns.shape[0]):
                values[c, n + j] = MISSING if kinds[c] == NUMBER else 0
        for _ in range(stored):
            identity = _read(data, at, 4)
            width = np.int64(data[at + 4])
            at += 5
            for c in range(columns.shape[0]):
                if columns[c] == identity:
                    for j in range(count):
                        value = _read(data, at + j * width, width)
                        if kinds[c] == NUMBER:
                            value -= 1
                            value = MISSING if value < 0 else (value >> 1) ^ -(value & 1)
                        values[c, n + j] = value
            at += width * count
        while at + LIFE_BYTES <= end:
            identity = _read(data, at, 4)
            for one in range(lives.shape[0]):
                if lives[one] == identity:
                    counted[i, one, 0], counted[i, one, 1] = _read(data, at + 4, 8), _read(data, at + 12, 8)
            at += LIFE_BYTES
        n += count
    return -1, SOUND
