"""Kernels that turn measures, exact integers, into features, 64-bit floats."""

# ruff: noqa: C901, PLR0911, PLR0912, PLR0913, PLR0917 - a kernel is one flat choice
# ruff: noqa: PLR1714 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

import math
from typing import Final

import numpy as np

from streamer.batch import Float64, Int64
from streamer.features.compiled import inlined, part
from streamer.features.layout import COUNT_LIMBS, LIMBS, MISSING, Plan, Work
from streamer.features.tallies import middle_of
from streamer.features.wide import (
    FRACTION_BITS,
    add_wide,
    product,
    put_wide,
    scale_wide,
    wide_as_float,
)

PLAIN, MEAN, VARIANCE, STD, DIFFERENCE, SKEWNESS = 0, 1, 2, 3, 4, 5
DECAYED, DECAYED_COUNT, DECAYED_MEAN, GAP, DISTANCE, VELOCITY = 6, 7, 8, 9, 10, 11
SHARE, ENTROPY, RANK, ELSEWHERE = 12, 13, 14, 15
"""Kinds of outputs; `ELSEWHERE` is computed outside of the kernels."""

EARTH_KM: Final = 6371.0088
"""Mean radius of the earth (IUGG)."""

DEGREE: Final = 1_000_000.0
"""Parts of a degree in which places are kept."""

_HALF_LIVES: Final = 41
_UNIT: Final = 4294967296.0


@part
def _variance(count: int, total: int, high: int, low: int) -> float:
    """Population variance of `count` integers, from their sum and that of their squares, `high * 2^40 + low`.

    The numerator `count * squares - total^2` is exact in 128 bits, so nothing cancels.
    """
    n = float(count)
    size = abs(total)
    if high == 0 and low < 1 << 40 and count < 1 << 22 and size < 1 << 31:
        return float(count * low - size * size) / (n * n)
    a1, a0 = product(count, low)
    b1, b0 = product(count, high)
    b1 = (b1 << np.uint64(40)) | (b0 >> np.uint64(24))
    b0 = b0 << np.uint64(40)
    s0 = a0 + b0
    s1 = a1 + b1 + np.uint64(s0 < a0)
    c1, c0 = product(size, size)
    d0 = s0 - c0
    d1 = s1 - c1 - np.uint64(s0 < c0)
    return (float(d1) * 18446744073709551616.0 + float(d0)) / (n * n)


@part
def _skewness(plan: Plan, work: Work, f: int) -> float:
    """Population skewness of n integers from n, their sum S1 and the limbs of squares S2 and cubes S3.

    n^2 S3 - 3 n S1 S2 + 2 S1^3 is exact in 256 bits, so nothing cancels.
    """
    m, at, w = work.measures, plan.outputs[f], work.wide
    total, count, high, low = m[at[3]], m[at[4]], m[at[5]], m[at[6]]
    if count <= 0:
        return np.nan
    variance = _variance(count, total, high, low)
    if variance == 0.0:
        return np.nan
    put_wide(w, 0, m[at[9]])
    for k in (8, 7):
        scale_wide(w, 0, 1 << 40)
        put_wide(w, 1, m[at[k]])
        add_wide(w, 0, 1)
    scale_wide(w, 0, count)
    scale_wide(w, 0, count)
    put_wide(w, 2, high)
    scale_wide(w, 2, 1 << 40)
    put_wide(w, 1, low)
    add_wide(w, 2, 1)
    scale_wide(w, 2, total)
    scale_wide(w, 2, -3 * count)
    add_wide(w, 0, 2)
    put_wide(w, 1, total)
    scale_wide(w, 1, total)
    scale_wide(w, 1, total)
    scale_wide(w, 1, 2)
    add_wide(w, 0, 1)
    n = float(count)
    return wide_as_float(w, 0) / (n * n * n) / (variance * np.sqrt(variance))


@part
def _decayed(plan: Plan, measures: Int64, f: int, first: int, limbs: int, t: int) -> float:
    """Sum of weighted values at t, from the limbs in their ring (see `decayed_limb`)."""
    half_life = plan.outputs[f, 1]
    whole = t // half_life
    oldest = whole - _HALF_LIVES
    begin = oldest % (32 * limbs)
    value = 0.0
    for k in range(limbs):
        limb = measures[plan.outputs[f, first + ((begin >> 5) + k) % limbs]]
        value += math.ldexp(float(limb), 32 * k + oldest - (begin & 31) - whole - FRACTION_BITS)
    return value / np.exp2(float(t - whole * half_life) / float(half_life))


@part
def _distance(measures: Int64, at: Int64) -> float:
    """Great-circle distance in km by the haversine formula."""
    if measures[at[3]] == MISSING or measures[at[4]] == MISSING:
        return np.nan
    if measures[at[5]] == MISSING or measures[at[6]] == MISSING:
        return np.nan
    degrees = np.pi / 180.0 / DEGREE
    lat0, lon0 = float(measures[at[3]]) * degrees, float(measures[at[4]]) * degrees
    lat1, lon1 = float(measures[at[5]]) * degrees, float(measures[at[6]]) * degrees
    a = np.sin((lat1 - lat0) / 2.0) ** 2
    a += np.cos(lat0) * np.cos(lat1) * np.sin((lon1 - lon0) / 2.0) ** 2
    return 2.0 * EARTH_KM * np.arcsin(np.sqrt(min(a, 1.0)))


@part
def _other(plan: Plan, work: Work, f: int, t: int) -> float:
    """A feature of one of the rarer kinds."""
    kind, measures, at = plan.outputs[f, 0], work.measures, plan.outputs[f]
    scale = plan.scales[f]
    first = measures[at[3]]
    if kind == SKEWNESS:
        return _skewness(plan, work, f)
    if kind == DECAYED:
        return _decayed(plan, measures, f, 3, LIMBS, t - at[2]) / scale
    if kind == DECAYED_COUNT:
        return _decayed(plan, measures, f, 3, COUNT_LIMBS, t - at[2])
    if kind == DECAYED_MEAN:
        count = _decayed(plan, measures, f, 3 + LIMBS, COUNT_LIMBS, t - at[2])
        if count == 0.0:
            return np.nan
        return _decayed(plan, measures, f, 3, LIMBS, t - at[2]) / count / scale
    if kind == GAP:
        count = measures[at[5]]
        if count < 2:
            return np.nan
        return float(first - measures[at[4]]) / float(count - 1) / scale
    if kind == DISTANCE:
        return _distance(measures, at)
    if kind == VELOCITY:
        since = measures[at[7]]
        return np.nan if since == MISSING else _distance(measures, at) / (max(since, 1000) / 3_600_000.0)
    if kind == SHARE:
        events = measures[at[4]]
        return float(first) / float(events) if events > 0 else np.nan
    if kind == ENTROPY:
        events, most = measures[at[4]], measures[at[5]]
        if events <= 0:
            return np.nan
        if events == most:
            return 0.0
        return np.log(float(events)) - float(first) / _UNIT / float(events)
    if kind == RANK:
        return np.nan if first == MISSING else middle_of(first) / scale
    return np.nan


@inlined
def answer(plan: Plan, work: Work, t: int, out: Float64, at: int) -> None:
    """Write the features of a payment at t from `out[at]` on; NaN where there is nothing to say."""
    measures = work.measures
    for f in range(plan.outputs.shape[0]):
        kind, scale = plan.outputs[f, 0], plan.scales[f]
        if kind > DIFFERENCE:
            out[at + f] = _other(plan, work, f, t)
            continue
        first = measures[plan.outputs[f, 3]]
        value = np.nan
        if kind == PLAIN:
            if first != MISSING:
                value = float(first)
        elif kind == DIFFERENCE:
            second = measures[plan.outputs[f, 4]]
            if first != MISSING and second != MISSING:
                value = float(first - second)
        else:
            count = measures[plan.outputs[f, 4]]
            if count > 0:
                if kind == MEAN:
                    value = float(first) / float(count)
                else:
                    spread = _variance(
                        count, first, measures[plan.outputs[f, 5]], measures[plan.outputs[f, 6]]
                    )
                    value = np.sqrt(spread) if kind == STD else spread / scale
        out[at + f] = value if scale == 1.0 else value / scale


@part
def answer_nothing(plan: Plan, out: Float64, at: int) -> None:
    """The features of a payment without a key."""
    for f in range(plan.outputs.shape[0]):
        out[at + f] = np.nan
