"""Kernels that pack blocks of float columns and undo it; `packing` says how and why.

They go block by block and in it column by column, and the values of a column follow each other in the stream
of their width. All share this file: numba's cache on disk does not notice a change of a callee in another.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from streamer.batch import Bytes, Float64, Int64

UInt64 = npt.NDArray[np.uint64]
UInt16 = npt.NDArray[np.uint16]

ROWS = 256
"""Rows of a block; a count of them fits two bytes."""

_REACH = 64
"""How many columns back a column may be compared with; a distance fits one byte."""

_SAMPLE = 16
"""Rows looked at to choose the column to compare with."""

_CONSTANT, _BYTE, _SHORT, _WORD, _SINGLE, _DOUBLE = range(6)
_STREAM = (3, 0, 1, 2, 2, 3)
"""Kind of values to the stream that takes them: bytes, shorts, words, doubles."""

_SHIFT = 2.0**52
"""Added to a whole number below it, it leaves that number in the low bits."""

_SHIFT_BITS = np.uint64(0x4330000000000000)
_NAN = np.uint64(0x7FF8000000000000)
_ZERO = np.uint64(0)


class Head(NamedTuple):
    """Of each block (row) and column: kind of its values, what it is compared with, how many it keeps."""

    kinds: Bytes
    backs: Bytes
    counts: UInt16


class Streams(NamedTuple):
    """Values by width; `single` is the memory of `words`, `used` is how much of each of the four is done."""

    bytes: Bytes
    shorts: UInt16
    words: npt.NDArray[np.uint32]
    single: npt.NDArray[np.float32]
    doubles: UInt64
    used: Int64


_compiled = numba.njit(cache=True, nogil=True)


@_compiled
def choose(bits: UInt64, back: Bytes) -> None:
    """For each column, how far back the column is that it most often equals; 0 where hardly ever."""
    n, columns = bits.shape
    size = min(n, _SAMPLE)
    sample = np.empty((columns, size), np.uint64)
    for s in range(size):
        row = s * n // size
        for column in range(columns):
            sample[column, s] = bits[row, column]
    for column in range(columns):
        best = size // 8
        back[column] = 0
        for distance in range(1, min(column, _REACH) + 1):
            equal = 0
            for s in range(size):
                equal += sample[column, s] == sample[column - distance, s]
            if equal > best:
                best = equal
                back[column] = distance


@_compiled
def _compare(mine: UInt64, other: UInt64, rows: int, differing: UInt64) -> int:
    """Copy the values that differ; answers how many. `differing` needs a place more than there are rows."""
    kept = 0
    for r in range(rows):
        differing[kept] = mine[r]
        kept += mine[r] != other[r]
    return kept


@_compiled
def _write_mask(mine: UInt64, other: UInt64, rows: int, out: Bytes) -> None:
    """Set a bit for each row that differs."""
    for r in range(0, rows, 8):
        mask = 0
        for bit in range(min(8, rows - r)):
            mask |= (mine[r + bit] != other[r + bit]) << bit
        out[r >> 3] = mask


@_compiled
def _kind(values: UInt64, kept: int, whole: UInt64, again: Float64) -> int:
    """Choose the narrowest exact kind; `whole` gets the values as integers where they are that."""
    floats = values.view(np.float64)
    shifted = whole.view(np.float64)
    again_bits = again.view(np.uint64)
    unlike, broken, imprecise, greatest = _ZERO, _ZERO, _ZERO, _ZERO
    for r in range(kept):
        unlike |= values[r] ^ values[0]
        again[r] = np.float64(np.float32(floats[r]))
        shifted[r] = floats[r] + _SHIFT
    for r in range(kept):
        imprecise |= again_bits[r] ^ values[r]
    for r in range(kept):
        again[r] = shifted[r] - _SHIFT
    for r in range(kept):
        known = values[r] != _NAN
        whole[r] -= _SHIFT_BITS
        broken |= (again_bits[r] ^ values[r]) if known else _ZERO
        greatest |= whole[r] if known else _ZERO
    if unlike == _ZERO:
        return _CONSTANT
    if broken == _ZERO and greatest < np.uint64(0xFFFFFFFF):
        if greatest < np.uint64(0xFF):
            return _BYTE
        return _SHORT if greatest < np.uint64(0xFFFF) else _WORD
    return _SINGLE if imprecise == _ZERO else _DOUBLE


@_compiled
def _write_whole(out: npt.NDArray[np.unsignedinteger], values: UInt64, whole: UInt64, kept: int) -> None:
    absent = ~_ZERO
    for r in range(kept):
        out[r] = whole[r] if values[r] != _NAN else absent


@_compiled
def _write(kind: int, values: UInt64, whole: UInt64, kept: int, out: Streams) -> None:
    """Append the values to their stream."""
    at = out.used[_STREAM[kind]]
    if kind == _CONSTANT:
        kept = min(kept, 1)
    if kind == _BYTE:
        _write_whole(out.bytes[at:], values, whole, kept)
    elif kind == _SHORT:
        _write_whole(out.shorts[at:], values, whole, kept)
    elif kind == _WORD:
        _write_whole(out.words[at:], values, whole, kept)
    elif kind == _SINGLE:
        floats = values.view(np.float64)
        for r in range(kept):
            out.single[at + r] = floats[r]
    else:
        for r in range(kept):
            out.doubles[at + r] = values[r]
    out.used[_STREAM[kind]] += kept


@_compiled
def pack_blocks(bits: UInt64, back: Bytes, head: Head, out: Streams) -> None:
    """Write all blocks, each column compared with the one `back` of it."""
    n, columns = bits.shape
    tile = np.empty((columns, ROWS), np.uint64)
    differing = np.empty(ROWS + 1, np.uint64)
    whole = np.empty(ROWS, np.uint64)
    again = np.empty(ROWS, np.float64)
    for block in range(head.kinds.shape[0]):
        start = block * ROWS
        rows = min(ROWS, n - start)
        for column in range(columns):
            mine = tile[column]
            for r in range(rows):
                mine[r] = bits[start + r, column]
            distance = int(back[column])
            other = tile[column - distance]
            values, kept = mine, rows
            if distance:
                kept = _compare(mine, other, rows, differing)
                if 8 * kept > 7 * rows:
                    distance, kept = 0, rows
                elif kept:
                    values = differing
                    _write_mask(mine, other, rows, out.bytes[out.used[0] :])
                    out.used[0] += (rows + 7) // 8
            kind = _kind(values, kept, whole, again) if kept else _CONSTANT
            _write(kind, values, whole, kept, out)
            head.kinds[block, column] = kind
            head.backs[block, column] = distance
            head.counts[block, column] = kept


@_compiled
def _read_whole(given: npt.NDArray[np.unsignedinteger], absent: int, values: UInt64, kept: int) -> None:
    floats = values.view(np.float64)
    for r in range(kept):
        floats[r] = given[r]
        values[r] = values[r] if given[r] != absent else _NAN


@_compiled
def _read(kind: int, values: UInt64, kept: int, given: Streams) -> None:
    """Take the values from their stream, which holds enough of them."""
    at = given.used[_STREAM[kind]]
    if kind == _CONSTANT:
        for r in range(kept):
            values[r] = given.doubles[at]
        kept = min(kept, 1)
    elif kind == _BYTE:
        _read_whole(given.bytes[at:], 0xFF, values, kept)
    elif kind == _SHORT:
        _read_whole(given.shorts[at:], 0xFFFF, values, kept)
    elif kind == _WORD:
        _read_whole(given.words[at:], 0xFFFFFFFF, values, kept)
    elif kind == _SINGLE:
        floats = values.view(np.float64)
        for r in range(kept):
            floats[r] = given.single[at + r]
    else:
        for r in range(kept):
            values[r] = given.doubles[at + r]
    given.used[_STREAM[kind]] += kept


@_compiled
def _spread(mine: UInt64, other: UInt64, mask: Bytes, values: UInt64, kept: int) -> bool:
    """Fill `mine` with `values` where the mask has a bit, else `other`; false unless it has `kept` bits."""
    at = 0
    for r in range(mine.shape[0]):
        if (mask[r >> 3] >> (r & 7)) & 1:
            if at == kept:
                return False
            mine[r] = values[at]
            at += 1
        else:
            mine[r] = other[r]
    return at == kept


@_compiled
def _unpack_block(head: Head, block: int, tile: UInt64, rows: int, given: Streams) -> bool:
    """Undo all columns of a block into `tile`; false where the streams do not fit what is said of them."""
    held = (given.bytes.shape[0], given.shorts.shape[0], given.words.shape[0], given.doubles.shape[0])
    values = np.empty(ROWS, np.uint64)
    for column in range(tile.shape[0]):
        kind = int(head.kinds[block, column])
        distance = int(head.backs[block, column])
        kept = int(head.counts[block, column])
        if kind > _DOUBLE or distance > column or kept > rows or (distance == 0 and kept != rows):
            return False
        mine, other = tile[column, :rows], tile[column - distance, :rows]
        at_mask = given.used[0]
        if distance and kept:
            given.used[0] += (rows + 7) // 8
        stream = _STREAM[kind]
        taken = min(kept, 1) if kind == _CONSTANT else kept
        if given.used[0] > held[0] or given.used[stream] + taken > held[stream]:
            return False
        _read(kind, values, kept, given)
        if kept == 0:
            mine[:] = other
        elif distance == 0:
            mine[:] = values[:rows]
        elif not _spread(mine, other, given.bytes[at_mask:], values, kept):
            return False
    return True


@_compiled
def unpack_blocks(head: Head, given: Streams, bits: UInt64) -> bool:
    """Fill `bits` with what `pack_blocks` was given; false where the streams do not fit the head."""
    n, columns = bits.shape
    tile = np.empty((columns, ROWS), np.uint64)
    for block in range(head.kinds.shape[0]):
        start = block * ROWS
        rows = min(ROWS, n - start)
        if not _unpack_block(head, block, tile, rows, given):
            return False
        for r in range(rows):
            for column in range(columns):
                bits[start + r, column] = tile[column, r]
    return bool(
        given.used[0] == given.bytes.shape[0]
        and given.used[1] == given.shorts.shape[0]
        and given.used[2] == given.words.shape[0]
        and given.used[3] == given.doubles.shape[0]
    )
