"""The index of keys: bytes to a small number (slot), compiled, never trusting a hash alone."""

# ruff: noqa: PLR0913, PLR0917, SIM110 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final, NamedTuple

import numpy as np

from streamer.batch import Bool, Bytes, Int64, Text
from streamer.errors import StreamerError
from streamer.features.compiled import kernel, part
from streamer.features.layout import Int32, UInt32
from streamer.features.memory import get_word, prefetch

LONGEST: Final = 4_096
"""The longest key in bytes."""

INLINE: Final = 40
"""Bytes of a key kept in its record; longer ones lie in granules elsewhere."""

GRANULE: Final = 64

AHEAD: Final = 10
"""Payments after which something fetched early is there."""

FIRST_BUCKETS: Final = 1_024
RECORD: Final = 8
HASH, BYTES = 0, 3
LENGTH, PLACE, CHAIN = 2, 3, 4

FREE_SLOTS, TOP_SLOT, BUCKETS, SPAN, TOP_GRANULE, USED_GRANULES, FREE_GRANULES = 0, 1, 2, 3, 4, 5, 6


class Index(NamedTuple):
    """A hash table that grows by one bucket at a time (linear hashing), so that no key waits for a rehash.

    `buckets` begin chains of slots + 1 through `records`, which hold hash, length, place of long keys, chain
    and bytes of a slot; `numbers` and `text` show them as 32-bit numbers and as bytes. `free` is a stack of
    slots; `meta` counts, and begins the free lists of granules by length.
    """

    buckets: UInt32
    records: Int64
    numbers: UInt32
    text: Bytes
    long: Bytes
    free: UInt32
    meta: Int64


@kernel
def hash_bytes(data: Bytes, start: int, end: int, seed: int) -> int:
    """64 well mixed bits of data[start:end]."""
    prime = np.uint64(0x9E3779B97F4A7C15)
    h = np.uint64(seed) ^ (np.uint64(end - start) * prime)
    at = start
    while at + 8 <= end:
        h = (h ^ get_word(data, at)) * prime
        h ^= h >> np.uint64(29)
        h *= np.uint64(0xD6E8FEB86659FD93)
        h ^= h >> np.uint64(32)
        at += 8
    rest = np.uint64(0)
    if at > start and at < end:
        rest = get_word(data, end - 8) >> np.uint64(8 * (at + 8 - end))
    elif at < end:
        for j in range(at, end):
            rest |= np.uint64(data[j]) << np.uint64(8 * (j - at))
    h = (h ^ rest) * prime
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    h ^= h >> np.uint64(29)
    h *= prime
    h ^= h >> np.uint64(32)
    return np.int64(h)


@kernel
def hash_text(data: Bytes, ends: Int64, seed: int, out: Int64) -> None:
    """Hash every value of a column; an absent one is 0."""
    for i in range(out.shape[0]):
        out[i] = hash_bytes(data, ends[i], ends[i + 1], seed) if ends[i + 1] > ends[i] else 0


@kernel
def join_text(
    left: Bytes, left_ends: Int64, right: Bytes, right_ends: Int64, out: Bytes, ends: Int64, begin: int
) -> None:
    """Append, to each left value, the right value after its length; absent unless both are there.

    With `begin` the left values are taken for present.
    """
    at = 0
    ends[0] = 0
    for i in range(right_ends.shape[0] - 1):
        size = right_ends[i + 1] - right_ends[i]
        if size > 0 and (begin or left_ends[i + 1] > left_ends[i]):
            for j in range(left_ends[i], left_ends[i + 1]):
                out[at] = left[j]
                at += 1
            out[at], out[at + 1] = size & 255, size >> 8
            at += 2
            for j in range(right_ends[i], right_ends[i + 1]):
                out[at] = right[j]
                at += 1
        ends[i + 1] = at


@part
def _equal(left: Bytes, at: int, right: Bytes, start: int, length: int) -> bool:
    if length < 8:
        for j in range(length):
            if left[at + j] != right[start + j]:
                return False
        return True
    for j in range(0, length - 8, 8):
        if get_word(left, at + j) != get_word(right, start + j):
            return False
    return get_word(left, at + length - 8) == get_word(right, start + length - 8)


@part
def _same(index: Index, slot: int, data: Bytes, start: int, length: int) -> bool:
    if index.numbers[2 * RECORD * slot + LENGTH] != length:
        return False
    if length <= INLINE:
        return _equal(index.text, 8 * (RECORD * slot + BYTES), data, start, length)
    return _equal(
        index.long, GRANULE * np.int64(index.numbers[2 * RECORD * slot + PLACE]), data, start, length
    )


@part
def _keep(index: Index, slot: int, h: int, data: Bytes, start: int, length: int) -> None:
    index.records[RECORD * slot + HASH] = h
    index.numbers[2 * RECORD * slot + LENGTH] = length
    if length <= INLINE:
        base = 8 * (RECORD * slot + BYTES)
        for j in range(length):
            index.text[base + j] = data[start + j]
        return
    size = (length + GRANULE - 1) // GRANULE
    index.meta[USED_GRANULES] += size
    place = index.meta[FREE_GRANULES + size]
    if place != 0:
        following = 0
        for j in range(8):
            following |= np.int64(index.long[GRANULE * place + j]) << (8 * j)
        index.meta[FREE_GRANULES + size] = following
    else:
        place = index.meta[TOP_GRANULE]
        index.meta[TOP_GRANULE] += size
    index.numbers[2 * RECORD * slot + PLACE] = place
    for j in range(length):
        index.long[GRANULE * place + j] = data[start + j]


@part
def _bucket(index: Index, h: int) -> int:
    span = index.meta[SPAN]
    b = (h ^ (h >> 32)) & (span - 1)
    return b if b < index.meta[BUCKETS] else b & ((span >> 1) - 1)


@part
def _grow(index: Index) -> None:
    buckets, span = index.meta[BUCKETS], index.meta[SPAN]
    if buckets == index.buckets.shape[0]:
        return
    if buckets == span:
        span *= 2
        index.meta[SPAN] = span
    index.meta[BUCKETS] = buckets + 1
    split = buckets - (span >> 1)
    entry = np.int64(index.buckets[split])
    index.buckets[split] = 0
    while entry != 0:
        base = RECORD * (entry - 1)
        following = np.int64(index.numbers[2 * base + CHAIN])
        b = _bucket(index, index.records[base + HASH])
        index.numbers[2 * base + CHAIN] = index.buckets[b]
        index.buckets[b] = entry
        entry = following


@kernel
def look_up(index: Index, data: Bytes, ends: Int64, hashes: Int64, slots: Int32, fresh: Int32) -> int:
    """Find the slot of each key, entering new ones; -1 where it is absent. Returns how many are `fresh`."""
    found = 0
    n = slots.shape[0]
    for i in range(n):
        if i + 2 * AHEAD < n:
            prefetch(index.buckets, _bucket(index, hashes[i + 2 * AHEAD]))
        if i + AHEAD < n:
            likely = np.int64(index.buckets[_bucket(index, hashes[i + AHEAD])])
            prefetch(index.records, RECORD * (likely - (likely > 0)))
        start = ends[i]
        length = ends[i + 1] - start
        if length == 0:
            slots[i] = -1
            continue
        h = hashes[i]
        entry = np.int64(index.buckets[_bucket(index, h)])
        while entry != 0:
            if index.records[RECORD * (entry - 1) + HASH] == h and _same(
                index, entry - 1, data, start, length
            ):
                break
            entry = np.int64(index.numbers[2 * RECORD * (entry - 1) + CHAIN])
        slot = entry - 1
        if entry == 0:
            left = index.meta[FREE_SLOTS]
            if left > 0:
                slot = np.int64(index.free[left - 1])
                index.meta[FREE_SLOTS] = left - 1
            else:
                slot = index.meta[TOP_SLOT]
                index.meta[TOP_SLOT] += 1
            _keep(index, slot, h, data, start, length)
            b = _bucket(index, h)
            index.numbers[2 * RECORD * slot + CHAIN] = index.buckets[b]
            index.buckets[b] = slot + 1
            if index.meta[TOP_SLOT] > index.meta[BUCKETS]:
                _grow(index)
            fresh[found] = slot
            found += 1
        slots[i] = slot
    return found


@kernel
def find(index: Index, data: Bytes, ends: Int64, hashes: Int64, slots: Int32) -> None:
    """Find the slot of each key, -1 where it is not in memory."""
    for i in range(slots.shape[0]):
        start = ends[i]
        entry = np.int64(index.buckets[_bucket(index, hashes[i])])
        while entry != 0 and not (
            index.records[RECORD * (entry - 1) + HASH] == hashes[i]
            and _same(index, entry - 1, data, start, ends[i + 1] - start)
        ):
            entry = np.int64(index.numbers[2 * RECORD * (entry - 1) + CHAIN])
        slots[i] = entry - 1


@kernel
def are_same(index: Index, slots: Int32, data: Bytes, ends: Int64, rows: Int64, out: Bool) -> None:
    """Whether each slot has the key that stands at a row of a column of text."""
    for i in range(slots.shape[0]):
        start = ends[rows[i]]
        out[i] = _same(index, np.int64(slots[i]), data, start, ends[rows[i] + 1] - start)


@kernel
def forget(index: Index, slots: Int32) -> None:
    """Remove keys; their slots may be taken again."""
    for i in range(slots.shape[0]):
        slot = np.int64(slots[i])
        following = index.numbers[2 * RECORD * slot + CHAIN]
        b = _bucket(index, index.records[RECORD * slot + HASH])
        entry = np.int64(index.buckets[b])
        if entry == slot + 1:
            index.buckets[b] = following
        else:
            while index.numbers[2 * RECORD * (entry - 1) + CHAIN] != slot + 1:
                entry = np.int64(index.numbers[2 * RECORD * (entry - 1) + CHAIN])
            index.numbers[2 * RECORD * (entry - 1) + CHAIN] = following
        length = index.numbers[2 * RECORD * slot + LENGTH]
        if length > INLINE:
            size = (length + GRANULE - 1) // GRANULE
            place = np.int64(index.numbers[2 * RECORD * slot + PLACE])
            for j in range(8):
                index.long[GRANULE * place + j] = (index.meta[FREE_GRANULES + size] >> (8 * j)) & 255
            index.meta[FREE_GRANULES + size] = place
            index.meta[USED_GRANULES] -= size
        index.free[index.meta[FREE_SLOTS]] = slot
        index.meta[FREE_SLOTS] += 1


def new_index(slots: int, long_bytes: int) -> Index:
    """An empty index for up to this many keys, and bytes of longer ones; memory is taken as keys come."""
    records = aligned(RECORD * slots)
    meta = np.zeros(FREE_GRANULES + LONGEST // GRANULE + 1, np.int64)
    meta[TOP_GRANULE] = 1
    meta[BUCKETS] = meta[SPAN] = FIRST_BUCKETS
    return Index(
        buckets=np.zeros(slots + FIRST_BUCKETS, np.uint32),
        records=records,
        numbers=records.view(np.uint32),
        text=records.view(np.uint8),
        long=np.zeros(long_bytes, np.uint8),
        free=np.zeros(slots, np.uint32),
        meta=meta,
    )


def aligned(words: int) -> Int64:
    """Zeros that begin at a cache line."""
    memory = np.zeros(words + 8, np.int64)
    begin = (-memory.ctypes.data // 8) % 8
    return memory[begin : begin + words]


def join_columns(columns: list[Text], field: str) -> Text:
    """The keys of an entity of several fields: each value after its length, absent where one is absent."""
    n = len(columns[0])
    joined = Text(np.zeros(0, np.uint8), np.zeros(n + 1, np.int64))
    for place, column in enumerate(columns):
        check_lengths(column, field)
        size = len(joined.data) + int(column.ends[-1]) + 2 * n
        out, ends = np.empty(size, np.uint8), np.empty(n + 1, np.int64)
        join_text(joined.data, joined.ends, column.data, column.ends, out, ends, int(place == 0))
        joined = Text(out, ends)
    check_lengths(joined, field)
    return joined


def check_lengths(column: Text, field: str) -> None:
    """Refuse keys that are too long to be kept; the codec rejects them long before."""
    longest = int(np.diff(column.ends).max(initial=0))
    if longest > LONGEST:
        raise StreamerError(
            f"{field}: expected keys of at most {LONGEST} bytes, got one of {longest}; reject such payments"
        )
