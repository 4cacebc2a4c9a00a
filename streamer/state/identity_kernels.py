"""Kernels of the identities: keyed digests, and a ring of marks found through an open-addressed index.

The ring holds marks in order of arrival: mark number `s` is row `s % len(ring)`. A slot of the index holds
the low half of a digest above a row of the ring plus one; zero is free. All share this file: numba's cache on
disk does not notice a change of a callee in another.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from streamer.batch import Bytes, Int64

UInt64 = npt.NDArray[np.uint64]

HIGH, LOW, CONTENT, TIME, SOURCE = range(5)
"""Columns of a ring, all int64."""

WIDTH = 5

_LOW_HALF = np.int64(0xFFFFFFFF)
_PRIME = np.uint64(0xD6E8FEB86659FD93)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)

_compiled = numba.njit(cache=True, nogil=True)


class Ring(NamedTuple):
    """Marks and their index, whose length is a power of two and more than that of `marks`."""

    marks: Int64
    slots: Int64


@_compiled
def _mix(value: np.uint64) -> np.uint64:
    value ^= value >> _HALF
    value *= _PRIME
    value ^= value >> _HALF
    value *= _PRIME
    return value ^ (value >> _HALF)


@_compiled
def _word(data: Bytes, at: np.uint64) -> np.uint64:
    """Eight bytes, the lowest first; written out so that it compiles to one load."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[at + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[at + np.uint64(7)]) << np.uint64(56)
    )


@_compiled
def digest(data: Bytes, ends: Int64, seeds: UInt64, out: UInt64) -> None:
    """Two independent keyed 64-bit hashes of each text; `out` has shape (n, 2)."""
    for row in range(ends.shape[0] - 1):
        start, end = ends[row], ends[row + 1]
        # Mixed, or a length and a first word could make up for each other whatever the seeds are.
        first = _mix(seeds[0] ^ np.uint64(end - start))
        second = _mix(seeds[1] + np.uint64(end - start))
        at = start
        while at < end:
            word = np.uint64(0)
            if end - at >= 8:
                word = _word(data, np.uint64(at))
            else:
                for byte in range(end - at):
                    word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            first = _mix(first ^ word) + seeds[2]
            second = _mix(second + word * _GOLDEN) ^ seeds[3]
            at += 8
        out[row, 0] = _mix(first)
        out[row, 1] = _mix(second)


@_compiled
def _slot(ring: Ring, high: int, low: int) -> int:
    """Where the index has the digest, or the free slot where it would be."""
    mask = ring.slots.shape[0] - 1
    at = low & mask
    tag = low & _LOW_HALF
    while True:
        entry = ring.slots[at]
        if entry == 0:
            return int(at)
        if (entry >> 32) & _LOW_HALF == tag:
            row = (entry & _LOW_HALF) - 1
            if ring.marks[row, HIGH] == high and ring.marks[row, LOW] == low:
                return int(at)
        at = (at + 1) & mask


@_compiled
def _put(ring: Ring, slot: int, row: int, low: int) -> None:
    ring.slots[slot] = ((low & _LOW_HALF) << 32) | (row + 1)


@_compiled
def _free(slots: Int64, slot: int) -> None:
    """Free a slot and move up what was pushed past it."""
    mask = slots.shape[0] - 1
    at = slot
    while True:
        at = (at + 1) & mask
        if slots[at] == 0:
            break
        home = (slots[at] >> 32) & mask
        if (at - home) & mask >= (at - slot) & mask:
            slots[slot] = slots[at]
            slot = at
    slots[slot] = 0


@_compiled
def evict(ring: Ring, oldest: int, count: int, live: npt.NDArray[np.bool_]) -> int:
    """Take the oldest marks out of the index; says which were last of an id, and their newest time."""
    newest = np.iinfo(np.int64).min
    for item in range(count):
        row = (oldest + item) % ring.marks.shape[0]
        slot = _slot(ring, ring.marks[row, HIGH], ring.marks[row, LOW])
        live[item] = (ring.slots[slot] & _LOW_HALF) == row + 1
        if live[item]:
            newest = max(newest, ring.marks[row, TIME])
            _free(ring.slots, slot)
    return newest


@_compiled
def unknown(ring: Ring, marks: Int64, horizon: Int64, spilled: int, rows: Int64) -> int:
    """List the rows without a mark in the ring whose window reaches to `spilled`; answers how many."""
    count = 0
    for row in range(marks.shape[0]):
        if horizon[row] <= spilled and ring.slots[_slot(ring, marks[row, HIGH], marks[row, LOW])] == 0:
            rows[count] = row
            count += 1
    return count


@_compiled
def enter(ring: Ring, marks: Int64, number: int) -> int:
    """Enter marks whatever the ring knows of their ids; answers the number of the next mark."""
    for row in range(marks.shape[0]):
        place = number % ring.marks.shape[0]
        slot = _slot(ring, marks[row, HIGH], marks[row, LOW])
        ring.marks[place] = marks[row]
        _put(ring, slot, place, marks[row, LOW])
        number += 1
    return number


@_compiled
def judge(ring: Ring, marks: Int64, horizon: Int64, number: int, first: Int64) -> int:
    """Enter the marks that are new; answers the number of the next mark.

    `first` takes the row in the ring of the mark that makes one not new, or -1.
    """
    for row in range(marks.shape[0]):
        slot = _slot(ring, marks[row, HIGH], marks[row, LOW])
        known = (ring.slots[slot] & _LOW_HALF) - 1
        if known >= 0 and ring.marks[known, TIME] >= horizon[row]:
            first[row] = known
        else:
            first[row] = -1
            place = number % ring.marks.shape[0]
            ring.marks[place] = marks[row]
            _put(ring, slot, place, marks[row, LOW])
            number += 1
    return number
