"""Kernels that pack the floats of each row by itself, so that rows can be sent on without being read.

A row is of several parts, one after the other. A part begins with a bit for each of its columns, which says
whether it differs from the column before it. The values of those that do follow, each as a byte that is a
small whole number or says what the next bytes are.
"""

import numba
import numpy as np
import numpy.typing as npt

from streamer.batch import Bytes, Float64, Int64

UInt64 = npt.NDArray[np.uint64]

_NAN = np.uint64(0x7FF8000000000000)
_ABSENT, _SHORT, _WORD, _SINGLE, _DOUBLE = 251, 252, 253, 254, 255
"""What a byte from there on says: NaN; a whole number of two or four bytes; a float of four or eight."""

_WHOLE = 2.0**32
"""Whole numbers below it are written as such."""

_compiled = numba.njit(cache=True, nogil=True)


@_compiled
def _append(before: Bytes, before_ends: Int64, bits: UInt64, out: Bytes, ends: Int64) -> None:
    """Write each row's bytes of `before`, then its `bits` (n, columns) as another part.

    `out` has room for the worst case, which is `before` and for each row 9 bytes a column and the mask.
    """
    n, columns = bits.shape
    floats = bits.view(np.float64)
    mask_bytes = (columns + 7) >> 3
    single = np.empty(1, np.float32)
    single_bits = single.view(np.uint32)
    at = 0
    ends[0] = 0
    for row in range(n):
        size = before_ends[row + 1] - before_ends[row]
        out[at : at + size] = before[before_ends[row] : before_ends[row + 1]]
        mask = at + size
        at = mask + mask_bytes
        out[mask:at] = 0
        last = _NAN
        for column in range(columns):
            value = bits[row, column]
            if value == last:
                continue
            last = value
            out[mask + (column >> 3)] |= 1 << (column & 7)
            number = floats[row, column]
            width, left = 8, value
            if value == _NAN:
                out[at], width = _ABSENT, 0
            elif 0.0 <= number < _WHOLE and number == np.floor(number) and not value >> np.uint64(63):
                left = np.uint64(number)
                if left < _ABSENT:
                    out[at], width = left, 0
                elif left < 1 << 16:
                    out[at], width = _SHORT, 2
                else:
                    out[at], width = _WORD, 4
            else:
                single[0] = number
                out[at] = _DOUBLE
                if np.float64(single[0]) == number:
                    out[at], width, left = _SINGLE, 4, np.uint64(single_bits[0])
            at += 1
            for place in range(width):
                out[at + place] = (left >> np.uint64(8 * place)) & np.uint64(255)
            at += width
        ends[row + 1] = at


@_compiled
def _width(kind: int) -> int:
    """How many bytes follow a byte."""
    if kind < _SHORT:
        return 0
    return 2 if kind == _SHORT else 8 if kind == _DOUBLE else 4


@_compiled
def _read(data: Bytes, ends: Int64, widths: Int64, bits: UInt64) -> int:  # noqa: C901, PLR0912 - a call that takes arrays costs more than the work
    """Undo parts of so many columns; answers the first row that does not fit, -1 where all do."""
    floats = bits.view(np.float64)
    single_bits = np.empty(1, np.uint32)
    single = single_bits.view(np.float32)
    for row in range(bits.shape[0]):
        at, end, first = ends[row], ends[row + 1], 0
        for columns in widths:
            mask = at
            at += (columns + 7) >> 3
            if at > end:
                return row
            last = _NAN
            for column in range(first, first + columns):
                place = column - first
                if (data[mask + (place >> 3)] >> (place & 7)) & 1:
                    if at >= end:
                        return row
                    kind = data[at]
                    at += 1
                    width = _width(kind)
                    if at + width > end:
                        return row
                    left = np.uint64(0)
                    for shift in range(width):
                        left |= np.uint64(data[at + shift]) << np.uint64(8 * shift)
                    at += width
                    if kind < _ABSENT:
                        floats[row, column] = kind
                    elif kind == _ABSENT:
                        bits[row, column] = _NAN
                    elif kind == _SINGLE:
                        single_bits[0] = left
                        floats[row, column] = single[0]
                    elif kind == _DOUBLE:
                        bits[row, column] = left
                    else:
                        floats[row, column] = left
                    last = bits[row, column]
                else:
                    bits[row, column] = last
            first += columns
        if at != end:
            return row
    return -1


def append_part(before: Bytes, before_ends: Int64, values: Float64) -> tuple[Bytes, Int64]:
    """Rows with one more part: their bytes, one after the other, and their ends (n + 1,).

    >>> none = np.zeros(3, np.int64)
    >>> data, ends = append_part(np.empty(0, np.uint8), none, np.array([[1.0, 1.0, 0.5], [np.nan] * 3]))
    >>> ends.tolist(), data.tolist()
    ([0, 7, 8], [5, 1, 254, 0, 0, 0, 63, 0])
    """
    n, columns = values.shape
    out = np.empty(len(before) + n * (9 * columns + (columns + 7) // 8), np.uint8)
    ends = np.empty(n + 1, np.int64)
    _append(before, before_ends, np.ascontiguousarray(values).view(np.uint64), out, ends)
    return out[: ends[-1]], ends


def read_parts(data: Bytes, ends: Int64, widths: Int64) -> Float64:
    """The values of rows that have parts of `widths` columns; raises `ValueError` for what has not."""
    bits = np.empty((len(ends) - 1, int(widths.sum())), np.uint64)
    row = _read(data, ends, widths, bits)
    if row >= 0:
        raise ValueError(f"row {row} has not the features that it should have")
    return bits.view(np.float64)
