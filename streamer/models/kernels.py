"""Compiled loops over rows of inputs: scores, contributions, and the part of learning that needs no label.

No fastmath, and every sum runs in the order of the inputs: the bytes of a result depend on its row alone,
not on the size of the batch nor on the place in it. All kernels share this file, because numba's cache on
disk does not notice a change of a callee in another one.
"""

import math

import numba
import numpy as np

from streamer.batch import Bool, Float64, Int64

LIMIT = 1e150
"""An input that is not smaller than this (or not a number) counts as absent: its square would overflow."""

_SQRT_HALF = np.int64(0x3FE6A09E667F3BCD)  # the bits of sqrt(1/2)
_MANTISSA = np.int64(52)
_LN2 = math.log(2.0)

# error_model: a division by zero must not be a branch that raises, or the loops cannot use vector registers.
_compiled = numba.njit(cache=True, error_model="numpy")


@_compiled
def _log1p(row: Float64, out: Float64, scale: Float64, rest: Float64) -> None:
    """Write sign(x) log(1 + abs(x)) of each input that is present; free of calls, so that it vectorises.

    With u = 1 + abs(x) = m 2^e and m in [sqrt(1/2), sqrt(2)): log(u) = e ln 2 + 2 artanh(s) where
    s = (m - 1) / (m + 1); abs(s) < 0.172 lets eleven terms of the series reach the last bit. What rounding
    took from u returns as `rest`, first order (Kahan).
    """
    bits = out.view(np.int64)
    for j in range(row.size):
        x = abs(row[j])
        x = x if x < LIMIT else 0.0
        u = 1.0 + x
        rest[j] = (1.0 - (u - x) if x >= 1.0 else x - (u - 1.0)) / u
        out[j] = u
    for j in range(row.size):
        exponent = (bits[j] - _SQRT_HALF) >> _MANTISSA
        bits[j] -= exponent << _MANTISSA
        scale[j] = exponent
    for j in range(row.size):
        s = (out[j] - 1.0) / (out[j] + 1.0)
        z = s * s
        series = 1.0 / 21.0
        series = series * z + 1.0 / 19.0
        series = series * z + 1.0 / 17.0
        series = series * z + 1.0 / 15.0
        series = series * z + 1.0 / 13.0
        series = series * z + 1.0 / 11.0
        series = series * z + 1.0 / 9.0
        series = series * z + 1.0 / 7.0
        series = series * z + 1.0 / 5.0
        series = series * z + 1.0 / 3.0
        series = series * z + 1.0
        out[j] = math.copysign(scale[j] * _LN2 + (2.0 * s * series + rest[j]), row[j])


@_compiled
def _contribute(row: Float64, log1p: bool, scaling: Float64, scratch: Float64, out: Float64) -> None:  # noqa: FBT001  (as above)
    mean, deviation, weight = scaling
    value = scratch[0]
    if log1p:
        _log1p(row, value, scratch[1], scratch[2])
    else:
        value[:] = row
    for j in range(row.size):
        v = value[j] if abs(row[j]) < LIMIT else mean[j]
        out[j] = weight[j] * ((v - mean[j]) / deviation[j])


@_compiled
def contribute(x: Float64, log1p: bool, scaling: Float64, out: Float64) -> None:  # noqa: FBT001  (as above)
    """Write weight * (input - mean) / deviation of x (n, k) into out (n, k); 0 where the input is absent.

    `scaling` (3, k) holds means, deviations (none of them 0) and weights.
    """
    scratch = np.empty((3, x.shape[1]))
    for i in range(x.shape[0]):
        _contribute(x[i], log1p, scaling, scratch, out[i])


@_compiled
def score(x: Float64, log1p: bool, scaling: Float64, intercept: float, out: Float64) -> None:  # noqa: FBT001  (as above)
    """Write the probability of each row of x into out (n,): the logistic function, cut at 30 as in River."""
    scratch = np.empty((4, x.shape[1]))
    parts = scratch[3]
    for i in range(x.shape[0]):
        _contribute(x[i], log1p, scaling, scratch, parts)
        z = 0.0
        for j in range(parts.size):
            z += parts[j]
        z += intercept
        if z < -30.0:
            out[i] = 0.0
        elif z > 30.0:
            out[i] = 1.0
        else:
            out[i] = 1.0 / (1.0 + math.exp(-z))


@_compiled
def log1p_exact(x: Float64, present: Bool) -> None:
    """Take log1p in place by the C library's function, bit for bit what Python's math.log1p gives."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if present[i, j]:
                x[i, j] = math.copysign(math.log1p(abs(x[i, j])), x[i, j])


@_compiled
def learn_scale(  # noqa: PLR0913, PLR0917  (a kernel takes arrays, not structs)
    x: Float64, present: Bool, counts: Int64, means: Float64, variances: Float64, half: float
) -> None:
    """Learn each row's means and variances, then scale it in place, as River's StandardScaler does.

    Welford's update in River's order of operations. `half` is 0.5, an argument so that it stays a call
    of the C library's pow, as in Python: a square root has another last bit for one value in a thousand.
    """
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if present[i, j]:
                v = x[i, j]
                counts[j] += 1
                old = means[j]
                means[j] += (v - old) / counts[j]
                variances[j] += ((v - old) * (v - means[j]) - variances[j]) / counts[j]
                x[i, j] = (v - means[j]) / variances[j] ** half if variances[j] != 0.0 else 0.0


@_compiled
def learn_centre(x: Float64, present: Bool, counts: Int64, means: Float64) -> None:
    """Learn each row's means, then subtract them in place: a scaler that does not divide."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if present[i, j]:
                v = x[i, j]
                counts[j] += 1
                means[j] += (v - means[j]) / counts[j]
                x[i, j] = v - means[j]
