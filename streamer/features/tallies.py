"""Kernels of tallies: how often each value is in a window, for the most frequent, the entropy and quantiles.

A tally of values counts each value and, beside it, how many values have each count, so that the greatest
count is known when it falls; the sum of c ln c over the counts c is kept in units of 2^-32, so that what was
added is taken away exactly. A tally of ranks counts numbers by magnitude: exactly below 64, above that in
buckets of which the middle is within 0.8 % of every number in them (as HdrHistogram,
http://hdrhistogram.org), in three levels so that a rank is found in some thirty steps.
"""

# ruff: noqa: FBT001, FBT003, PLR0911, PLR0913, PLR0917 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.batch import Int64
from streamer.features.compiled import part
from streamer.features.counters import count_down, count_up, counted
from streamer.features.layout import (
    BITS,
    CLOCK,
    COLUMNS,
    MEASURE_IS_MODE,
    MEASURE_MODE,
    MEASURE_MOST,
    MEASURE_SPREAD,
    MEASURE_TALLY,
    MISSING,
    NEWEST,
    NEXT,
    NOW,
    PREVIOUS,
    TALLY_VALUES,
    Plan,
    State,
    Work,
)

EVENTS, MOST, SPREAD = 0, 1, 2
"""Words of a tally in the header."""

PARTS: Final = 1_000_000_000
"""A quantile is so many of these parts."""

ZERO: Final = 4_096
"""The bucket of the number 0."""

_EXACT: Final = 64
_MIDDLE, _COARSE = 5, 9
_LEVEL: Final = 1 << 20
_UNIT: Final = 4294967296.0


@part
def bucket_of(value: int) -> int:
    """The bucket of a number of at most 10^12 in size, in order of numbers."""
    size = abs(value)
    place = size
    if size >= _EXACT:
        shift = 0
        while size >> (shift + 7) != 0:
            shift += 1
        place = _EXACT * (shift + 1) + ((size >> shift) - _EXACT)
    return ZERO + place if value >= 0 else ZERO - place


@part
def middle_of(bucket: int) -> float:
    """The middle of a bucket."""
    place = abs(bucket - ZERO)
    middle = float(place)
    if place >= _EXACT:
        shift = place // _EXACT - 1
        middle = float((_EXACT + place % _EXACT) << shift) + 0.5 * float((1 << shift) - 1)
    return middle if bucket >= ZERO else -middle


@part
def _weight(count: int) -> int:
    """Count * ln(count), in units."""
    return np.int64(np.rint(float(count) * np.log(float(count)) * _UNIT)) if count > 1 else 0


@part
def _owner(slot: int, a: int, second: int) -> int:
    return np.int64(slot) << 16 | 2 * a | second


@part
def tally_enter(state: State, plan: Plan, a: int, slot: int, value: int) -> None:
    """Count a value that comes into the window."""
    words = slot * plan.shape.header + plan.tallies[a, 5]
    owner, counts = _owner(slot, a, 0), _owner(slot, a, 1)
    headers = state.headers
    headers[words + EVENTS] += 1
    if plan.tallies[a, 0] == TALLY_VALUES:
        count = count_up(state, owner, value)
        headers[words + SPREAD] += _weight(count) - _weight(count - 1)
        count_up(state, counts, count)
        if count > 1:
            count_down(state, counts, count - 1)
        headers[words + MOST] = max(headers[words + MOST], count)
    else:
        bucket = bucket_of(value)
        count_up(state, owner, bucket)
        count_up(state, owner, _LEVEL + (bucket >> _MIDDLE))
        count_up(state, owner, 2 * _LEVEL + (bucket >> _COARSE))


@part
def tally_leave(state: State, plan: Plan, a: int, slot: int, value: int) -> None:
    """Count a value no more that leaves the window."""
    words = slot * plan.shape.header + plan.tallies[a, 5]
    owner, counts = _owner(slot, a, 0), _owner(slot, a, 1)
    headers = state.headers
    headers[words + EVENTS] -= 1
    if plan.tallies[a, 0] == TALLY_VALUES:
        count = count_down(state, owner, value)
        headers[words + SPREAD] += _weight(count) - _weight(count + 1)
        if count > 0:
            count_up(state, counts, count)
        if count_down(state, counts, count + 1) == 0 and headers[words + MOST] == count + 1:
            headers[words + MOST] = count
    else:
        bucket = bucket_of(value)
        count_down(state, owner, bucket)
        count_down(state, owner, _LEVEL + (bucket >> _MIDDLE))
        count_down(state, owner, 2 * _LEVEL + (bucket >> _COARSE))


@part
def _move(state: State, plan: Plan, a: int, slot: int, x: int, enters: bool) -> None:
    if (state.links[2 * x + BITS] >> plan.tallies[a, 2]) & 1:
        value = state.rows[x + COLUMNS + plan.tallies[a, 1]]
        if enters:
            tally_enter(state, plan, a, slot, value)
        else:
            tally_leave(state, plan, a, slot, value)


@part
def advance_tallies(state: State, plan: Plan, work: Work, slot: int, t: int) -> None:
    """Move all tallies on with the edges of their windows."""
    rows, links = state.rows, state.links
    for a in range(plan.tallies.shape[0]):
        left, right = plan.tallies[a, 3], plan.tallies[a, 4]
        x = work.old[left]
        while x != work.edges[left] and (right == NOW or x != work.old[right]):
            _move(state, plan, a, slot, x, False)
            x = links[2 * x + NEXT]
        if right != NOW:
            x = work.old[right]
            while x != work.edges[right]:
                if rows[x] > t - plan.edges[left]:
                    _move(state, plan, a, slot, x, True)
                x = links[2 * x + NEXT]


@part
def recall_tallies(state: State, plan: Plan, work: Work, slot: int, t: int, back: bool) -> None:
    """Move all tallies to what their windows held at a time t before the clock, or from there back again."""
    rows, links = state.rows, state.links
    h = slot * plan.shape.header
    newest = np.int64(state.numbers[2 * h + NEWEST])
    clock = state.headers[h + CLOCK]
    for a in range(plan.tallies.shape[0]):
        left, right = plan.tallies[a, 3], plan.tallies[a, 4]
        limit = clock - plan.edges[left]
        end = t
        x = newest
        if right != NOW:
            end = t - plan.edges[right]
            if work.old[right] != 0:
                x = np.int64(links[2 * work.old[right] + PREVIOUS])
        while x != 0 and rows[x] > end and rows[x] > limit:
            _move(state, plan, a, slot, x, back)
            x = np.int64(links[2 * x + PREVIOUS])
        x = np.int64(links[2 * work.old[left] + PREVIOUS]) if work.old[left] != 0 else newest
        while x != 0 and rows[x] > t - plan.edges[left]:
            if rows[x] <= end:
                _move(state, plan, a, slot, x, not back)
            x = np.int64(links[2 * x + PREVIOUS])


@part
def clear_tallies(state: State, plan: Plan, slot: int) -> None:
    """Give back the counters of a key that leaves memory."""
    h = slot * plan.shape.header
    clock = state.headers[h + CLOCK]
    for a in range(plan.tallies.shape[0]):
        right = plan.tallies[a, 4]
        end = clock if right == NOW else clock - plan.edges[right]
        x = np.int64(state.numbers[2 * h + plan.shape.edge_links + plan.tallies[a, 3]])
        while x != 0 and state.rows[x] <= end:
            _move(state, plan, a, slot, x, False)
            x = np.int64(state.links[2 * x + NEXT])


@part
def _mode(state: State, plan: Plan, work: Work, slot: int, m: int, own: int) -> int:
    """The most frequent value, of equals the one that was seen last; `own` is counted where not missing."""
    a, right = plan.measures[m, 1], plan.measures[m, 3]
    most = state.headers[slot * plan.shape.header + plan.tallies[a, 5] + MOST]
    owner = _owner(slot, a, 0)
    if most == 0:
        return MISSING
    if own != MISSING and counted(state, owner, own) == most:
        return own
    x = work.place[0]
    if right != NOW and work.edges[right] != 0:
        x = np.int64(state.links[2 * work.edges[right] + PREVIOUS])
    while True:
        if (state.links[2 * x + BITS] >> plan.tallies[a, 2]) & 1:
            value = state.rows[x + COLUMNS + plan.tallies[a, 1]]
            if counted(state, owner, value) == most:
                return value
        x = np.int64(state.links[2 * x + PREVIOUS])


@part
def _rank(state: State, plan: Plan, slot: int, a: int, parts: int) -> int:
    """The bucket of the nearest rank of a quantile."""
    n = state.headers[slot * plan.shape.header + plan.tallies[a, 5] + EVENTS]
    if n == 0:
        return MISSING
    owner = _owner(slot, a, 0)
    left = (parts * n + PARTS - 1) // PARTS
    b = 0
    while True:
        here = counted(state, owner, 2 * _LEVEL + b)
        if here >= left:
            break
        left -= here
        b += 1
    b <<= _COARSE - _MIDDLE
    while True:
        here = counted(state, owner, _LEVEL + b)
        if here >= left:
            break
        left -= here
        b += 1
    b <<= _MIDDLE
    while True:
        here = counted(state, owner, b)
        if here >= left:
            break
        left -= here
        b += 1
    return b


@part
def _tell(state: State, plan: Plan, work: Work, slot: int, m: int, bits: int, own: int) -> int:
    """One measure of a tally as it stands; `own` is the payment's own value."""
    kind, a = plan.measures[m, 0], plan.measures[m, 1]
    words = slot * plan.shape.header + plan.tallies[a, 5]
    has_own = (bits >> plan.tallies[a, 2]) & 1
    joins = plan.measures[m, 3] == NOW and plan.measures[m, 4] == 0 and has_own
    if kind == MEASURE_TALLY:
        return state.headers[words + EVENTS]
    if kind == MEASURE_MOST:
        return state.headers[words + MOST]
    if kind == MEASURE_SPREAD:
        return state.headers[words + SPREAD]
    if kind == MEASURE_MODE:
        return _mode(state, plan, work, slot, m, own if joins else MISSING)
    if kind == MEASURE_IS_MODE:
        if own == 0 or state.headers[words + MOST] == 0:
            return MISSING
        return 1 if counted(state, _owner(slot, a, 0), own) == state.headers[words + MOST] else 0
    return _rank(state, plan, slot, a, plan.measures[m, 5])


@part
def measure_tallies(
    state: State, plan: Plan, work: Work, slot: int, bits: int, values: Int64, i: int
) -> None:
    """Write the measures of all tallies: first those without the payment, then the others with it."""
    for m in range(plan.measures.shape[0]):
        if plan.measures[m, 0] >= MEASURE_TALLY and (plan.measures[m, 4] or plan.measures[m, 3] != NOW):
            own = values[plan.tallies[plan.measures[m, 1], 1], i]
            work.measures[m] = _tell(state, plan, work, slot, m, bits, own)
    for a in range(plan.tallies.shape[0]):
        if plan.tallies[a, 4] == NOW and (bits >> plan.tallies[a, 2]) & 1:
            tally_enter(state, plan, a, slot, values[plan.tallies[a, 1], i])
    for m in range(plan.measures.shape[0]):
        if plan.measures[m, 0] >= MEASURE_TALLY and not plan.measures[m, 4] and plan.measures[m, 3] == NOW:
            own = values[plan.tallies[plan.measures[m, 1], 1], i]
            work.measures[m] = _tell(state, plan, work, slot, m, bits, own)
    for a in range(plan.tallies.shape[0]):
        if plan.tallies[a, 4] == NOW and (bits >> plan.tallies[a, 2]) & 1:
            tally_leave(state, plan, a, slot, values[plan.tallies[a, 1], i])
