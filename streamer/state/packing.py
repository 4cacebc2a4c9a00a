"""Packs columns of numbers into few bytes, exact to the bit.

Floats: long windows often equal shorter ones, so a column may be kept as its differences from an earlier one:
a bit for each row, and the values of the rows that differ. Those take the narrowest type that holds all of a
block of rows exactly: whole numbers of one, two or four bytes (the greatest stands for NaN), single or
double precision.
"""

import struct
from itertools import pairwise

import numpy as np

from streamer.batch import Float64, Int64
from streamer.state.packing_kernels import ROWS, Head, Streams, choose, pack_blocks, unpack_blocks

_HEAD = struct.Struct("=6I")
"""Rows, columns, and how many values are in each stream, widest first."""

_WIDTHS = tuple(np.dtype(name) for name in ("u1", "u2", "u4", "u8"))
_WHOLE = struct.Struct("=qBI")
"""Least value, which of the widths, count."""


def pack(values: Float64) -> bytes:
    """Pack float64 of shape (n, columns); every bit comes back, those of NaN, infinities and -0.0 too.

    >>> len(pack(np.full((1000, 210), 3.0)))
    3416
    """
    n, columns = values.shape
    size, blocks = n * columns, -(-n // ROWS)
    bits = np.ascontiguousarray(values).view(np.uint64)
    words = np.empty(size, np.uint32)
    # Room for the worst case is asked for and not touched, so it costs no memory.
    out = Streams(
        np.empty(size + columns * (n // 8 + blocks), np.uint8),
        np.empty(size, np.uint16),
        words,
        words.view(np.float32),
        np.empty(size, np.uint64),
        np.zeros(4, np.int64),
    )
    shape = (blocks, columns)
    head = Head(np.empty(shape, np.uint8), np.empty(shape, np.uint8), np.empty(shape, np.uint16))
    if size:
        back = np.empty(columns, np.uint8)
        choose(bits, back)
        pack_blocks(bits, back, head, out)
    in_bytes, in_shorts, in_words, in_doubles = out.used.tolist()
    return b"".join(
        (
            _HEAD.pack(n, columns, in_doubles, in_words, in_shorts, in_bytes),
            out.doubles[:in_doubles].tobytes(),
            out.words[:in_words].tobytes(),
            out.shorts[:in_shorts].tobytes(),
            head.counts.tobytes(),
            out.bytes[:in_bytes].tobytes(),
            head.kinds.tobytes(),
            head.backs.tobytes(),
        )
    )


def unpack(data: bytes | memoryview) -> Float64:
    """Undo `pack`; raises `ValueError` for what cannot have come from it."""
    view = memoryview(data)
    if len(view) < _HEAD.size:
        raise ValueError(f"expected packed numbers, got {len(view)} bytes")
    n, columns, in_doubles, in_words, in_shorts, in_bytes = _HEAD.unpack_from(view)
    blocks = -(-n // ROWS)
    cells = blocks * columns
    sizes = (8 * in_doubles, 4 * in_words, 2 * in_shorts, 2 * cells, in_bytes, cells, cells)
    if _HEAD.size + sum(sizes) != len(view):
        raise ValueError(f"expected {_HEAD.size + sum(sizes)} bytes of packed numbers, got {len(view)}")
    ends = np.cumsum((_HEAD.size, *sizes)).tolist()
    # Copies, because the kernel is compiled for aligned numbers.
    part = [np.frombuffer(view[start:end], np.uint8).copy() for start, end in pairwise(ends)]
    words = part[1].view(np.uint32)
    given = Streams(
        part[4],
        part[2].view(np.uint16),
        words,
        words.view(np.float32),
        part[0].view(np.uint64),
        np.zeros(4, np.int64),
    )
    shape = (blocks, columns)
    head = Head(part[5].reshape(shape), part[6].reshape(shape), part[3].view(np.uint16).reshape(shape))
    bits = np.empty((n, columns), np.uint64)
    if bits.size and not unpack_blocks(head, given, bits):
        raise ValueError("the packed numbers contradict their own head")
    return bits.view(np.float64)


def pack_whole(values: Int64) -> bytes:
    """Pack int64 of shape (n,) as distances from the least, in the narrowest unsigned type.

    >>> len(pack_whole(np.arange(1_000_000, 1_000_100)))
    113
    """
    least = int(values.min()) if values.size else 0
    distance = values.view(np.uint64) - np.uint64(least % 2**64)
    greatest = int(distance.max()) if values.size else 0
    width = next(w for w in range(len(_WIDTHS)) if greatest >> (8 << w) == 0)
    return _WHOLE.pack(least, width, len(values)) + distance.astype(_WIDTHS[width]).tobytes()


def unpack_whole(data: bytes | memoryview) -> Int64:
    """Undo `pack_whole`; raises `ValueError` for what cannot have come from it."""
    if len(data) < _WHOLE.size:
        raise ValueError(f"expected packed whole numbers, got {len(data)} bytes")
    least, width, n = _WHOLE.unpack_from(data)
    if width >= len(_WIDTHS) or len(data) != _WHOLE.size + (n << width):
        raise ValueError(f"expected {n} packed whole numbers, got {len(data)} bytes")
    distance = np.frombuffer(data, _WIDTHS[width], n, _WHOLE.size).astype(np.uint64)
    return (distance + np.uint64(least % 2**64)).view(np.int64)
