"""Kernels of numbers wider than 64 bits: products, and sums and powers that must not cancel.

A wide number is four words of a table (rows, 4) of unsigned 64-bit numbers, least significant first, in two's
complement.
"""

# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.features.compiled import part
from streamer.features.layout import UInt64

_LOW: Final = 0xFFFFFFFF
_WORD: Final = 18446744073709551616.0

FRACTION_BITS: Final = 44
"""A weight between 1 and 2 is kept in so many bits after the point; 2^-45 is its relative error."""


@part
def product(a: int, b: int) -> tuple[int, int]:
    """High and low 64 bits of a product of two numbers below 2^64."""
    x, y = np.uint64(a), np.uint64(b)
    low, half = np.uint64(_LOW), np.uint64(32)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    p00, p01, p10 = x0 * y0, x0 * y1, x1 * y0
    middle = (p00 >> half) + (p01 & low) + (p10 & low)
    high = x1 * y1 + (p01 >> half) + (p10 >> half) + (middle >> half)
    return high, (p00 & low) | (middle << half)


@part
def _negate(wide: UInt64, row: int) -> None:
    carry = np.uint64(1)
    for k in range(4):
        flipped = ~wide[row, k]
        wide[row, k] = flipped + carry
        carry = np.uint64(1) if carry and wide[row, k] == 0 else np.uint64(0)


@part
def put_wide(wide: UInt64, row: int, value: int) -> None:
    """Set a wide number to a signed one of 64 bits."""
    wide[row, 0] = np.uint64(value)
    for k in range(1, 4):
        wide[row, k] = np.uint64(0xFFFFFFFFFFFFFFFF) if value < 0 else np.uint64(0)


@part
def add_wide(wide: UInt64, row: int, other: int) -> None:
    """Add another wide number."""
    carry = np.uint64(0)
    for k in range(4):
        first = wide[row, k] + wide[other, k]
        over = np.uint64(1) if first < wide[row, k] else np.uint64(0)
        second = first + carry
        carry = over | (np.uint64(1) if second < first else np.uint64(0))
        wide[row, k] = second


@part
def scale_wide(wide: UInt64, row: int, factor: int) -> None:
    """Multiply by a signed number of 64 bits."""
    carry = np.uint64(0)
    size = np.uint64(abs(factor))
    for k in range(4):
        high, low = product(wide[row, k], size)
        word = np.uint64(low) + carry
        carry = np.uint64(high) + (np.uint64(1) if word < np.uint64(low) else np.uint64(0))
        wide[row, k] = word
    if factor < 0:
        _negate(wide, row)


@part
def wide_as_float(wide: UInt64, row: int) -> float:
    """The nearest float, nearly; the number is left as its size."""
    sign = 1.0
    if wide[row, 3] >> np.uint64(63):
        sign = -1.0
        _negate(wide, row)
    value = 0.0
    for k in range(3, -1, -1):
        value = value * _WORD + float(wide[row, k])
    return sign * value


@part
def cube_limb(size: int, place: int) -> int:
    """One of three numbers of 40 bits that make up the cube of a number of at most 40 bits."""
    square_high, square = product(size, size)
    low = square & np.uint64(0xFFFFFFFFFF)
    high = (square >> np.uint64(40)) | (square_high << np.uint64(24))
    p_high, p = product(low, size)
    if place == 0:
        return np.int64(p & np.uint64(0xFFFFFFFFFF))
    carry = (p >> np.uint64(40)) | (p_high << np.uint64(24))
    q_high, q = product(high, size)
    total = q + carry
    q_high += np.uint64(1) if total < q else np.uint64(0)
    if place == 1:
        return np.int64(total & np.uint64(0xFFFFFFFFFF))
    return np.int64((total >> np.uint64(40)) | (q_high << np.uint64(24)))


@part
def decayed_limb(size: int, half_life: int, t: int, place: int, limbs: int) -> int:
    """One of the numbers of 32 bits that make up size * 2^(t / half_life) in a ring of bits.

    The whole part of the exponent is where in the ring it begins. So weights neither grow without end nor
    depend on when they were last looked at, and what was added is taken away exactly.
    """
    whole = t // half_life
    fraction = np.exp2(float(t - whole * half_life) / float(half_life))
    high, low = product(size, np.int64(np.rint(fraction * float(1 << FRACTION_BITS))))
    begin = whole % (32 * limbs)
    shift = begin & 31
    word = (place - (begin >> 5)) % limbs
    bits = np.uint64(0)
    offset = 32 * word - shift
    if offset < 0:
        bits = low << np.uint64(shift)
    elif offset == 0:
        bits = low
    elif offset < 64:
        bits = (low >> np.uint64(offset)) | (high << np.uint64(64 - offset))
    elif offset < 128:
        bits = high >> np.uint64(offset - 64)
    return np.int64(bits & np.uint64(_LOW))
