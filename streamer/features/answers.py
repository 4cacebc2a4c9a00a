"""Kernels that turn measures, exact integers, into features, 64-bit floats."""

# ruff: noqa: PLR1714 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.batch import Float64, Int64
from streamer.features.compiled import part
from streamer.features.layout import MISSING, Plan

PLAIN, MEAN, VARIANCE, STD, DIFFERENCE = 0, 1, 2, 3, 4

_LOW: Final = 0xFFFFFFFF


@part
def _product(a: int, b: int) -> tuple[int, int]:
    """High and low 64 bits of a product of two numbers below 2^64."""
    x, y = np.uint64(a), np.uint64(b)
    low, half = np.uint64(_LOW), np.uint64(32)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    p00, p01, p10 = x0 * y0, x0 * y1, x1 * y0
    middle = (p00 >> half) + (p01 & low) + (p10 & low)
    high = x1 * y1 + (p01 >> half) + (p10 >> half) + (middle >> half)
    return high, (p00 & low) | (middle << half)


@part
def _variance(count: int, total: int, high: int, low: int) -> float:
    """Population variance of `count` integers, from their sum and that of their squares, `high * 2^40 + low`.

    The numerator `count * squares - total^2` is exact in 128 bits, so nothing cancels.
    """
    n = float(count)
    size = abs(total)
    if high == 0 and low < 1 << 40 and count < 1 << 22 and size < 1 << 31:
        return float(count * low - size * size) / (n * n)
    a1, a0 = _product(count, low)
    b1, b0 = _product(count, high)
    b1 = (b1 << np.uint64(40)) | (b0 >> np.uint64(24))
    b0 = b0 << np.uint64(40)
    s0 = a0 + b0
    s1 = a1 + b1 + np.uint64(s0 < a0)
    c1, c0 = _product(size, size)
    d0 = s0 - c0
    d1 = s1 - c1 - np.uint64(s0 < c0)
    return (float(d1) * 18446744073709551616.0 + float(d0)) / (n * n)


@part
def answer(plan: Plan, measures: Int64, out: Float64, at: int) -> None:
    """Write the features of a payment from `out[at]` on; NaN where there is nothing to say."""
    for f in range(plan.outputs.shape[0]):
        kind, scale = plan.outputs[f, 0], plan.scales[f]
        first = measures[plan.outputs[f, 1]]
        value = np.nan
        if kind == PLAIN:
            if first != MISSING:
                value = float(first)
        elif kind == DIFFERENCE:
            second = measures[plan.outputs[f, 2]]
            if first != MISSING and second != MISSING:
                value = float(first - second)
        else:
            count = measures[plan.outputs[f, 2]]
            if count > 0:
                if kind == MEAN:
                    value = float(first) / float(count)
                else:
                    spread = _variance(
                        count, first, measures[plan.outputs[f, 3]], measures[plan.outputs[f, 4]]
                    )
                    value = np.sqrt(spread) if kind == STD else spread / scale
        out[at + f] = value if scale == 1.0 else value / scale


@part
def answer_nothing(plan: Plan, out: Float64, at: int) -> None:
    """The features of a payment without a key."""
    for f in range(plan.outputs.shape[0]):
        out[at + f] = np.nan
