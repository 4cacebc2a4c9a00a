"""Kernels that find the nearest earlier and later row of a value of a key: what distinct counts need.

The rows of one value are a list in order of time. Keys with few rows are searched row by row; the last row of
each value of the others is in a hash table shared by all keys, whose chains run through the rows and which
grows by one bucket at a time (linear hashing), so that no payment waits for a rehash. Before a search
64 bits in the header, one set by each value, tell most values that are new; a search in vain sets them anew.
"""

# ruff: noqa: PLR0913, PLR0917 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.features.compiled import inlined, part
from streamer.features.layout import (
    BITS,
    COLUMNS,
    COUNT,
    MAP_BUCKETS,
    MAP_ENTRIES,
    MAP_SPAN,
    MAPPED,
    NEWEST,
    NOW,
    PREVIOUS,
    SLOT,
    Plan,
    State,
    Work,
)

SEARCHED: Final = 16
"""Rows of a key up to which searching them beats the hash table."""

EARLIER: Final = 0
LATER: Final = 1
CHAIN: Final = 2


@inlined
def is_new(state: State, plan: Plan, work: Work, s: int, clock: int, t: int, bits: int) -> bool:
    """Whether the value of a payment at time t is one more in span s of a key at time `clock`."""
    d, right = plan.spans[s, 0], plan.spans[s, 2]
    start = clock - plan.edges[plan.spans[s, 1]]
    end = clock if right == NOW else clock - plan.edges[right]
    if not (bits >> plan.distincts[d, 1]) & 1 or not start < t <= end:
        return False
    x, y = work.before[d], work.after[d]
    return (x == 0 or state.rows[x] <= start) and (y == 0 or state.rows[y] > end)


@part
def _bucket(state: State, d: int, slot: int, value: int) -> int:
    x = np.uint64(value) ^ (np.uint64(slot) * np.uint64(0x9E3779B97F4A7C15))
    x = (x ^ (x >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xD6E8FEB86659FD93)
    h = np.int64((x ^ (x >> np.uint64(32))) >> np.uint64(1))
    span = state.maps[3 * d + MAP_SPAN]
    b = h & (span - 1)
    if b >= state.maps[3 * d + MAP_BUCKETS]:
        b = h & ((span >> 1) - 1)
    return b


@part
def _grow(state: State, plan: Plan, d: int) -> None:
    buckets = state.maps[3 * d + MAP_BUCKETS]
    if buckets == state.buckets.shape[1]:
        return
    span = state.maps[3 * d + MAP_SPAN]
    if buckets == span:
        span *= 2
        state.maps[3 * d + MAP_SPAN] = span
    state.maps[3 * d + MAP_BUCKETS] = buckets + 1
    split = buckets - (span >> 1)
    x = state.buckets[d, split]
    state.buckets[d, split] = 0
    state.buckets[d, buckets] = 0
    column, chain = plan.distincts[d, 0], plan.distincts[d, 2] + CHAIN
    while x != 0:
        following = state.links[2 * x + chain]
        b = _bucket(state, d, state.links[2 * x + SLOT], state.rows[x + COLUMNS + column])
        state.links[2 * x + chain] = state.buckets[d, b]
        state.buckets[d, b] = x
        x = following


@part
def map_add(state: State, plan: Plan, d: int, x: int) -> None:
    """Enter the last row of a value."""
    b = _bucket(state, d, state.links[2 * x + SLOT], state.rows[x + COLUMNS + plan.distincts[d, 0]])
    state.links[2 * x + plan.distincts[d, 2] + CHAIN] = state.buckets[d, b]
    state.buckets[d, b] = x
    state.maps[3 * d + MAP_ENTRIES] += 1
    if state.maps[3 * d + MAP_ENTRIES] > state.maps[3 * d + MAP_BUCKETS]:
        _grow(state, plan, d)


@part
def _map_point(state: State, plan: Plan, d: int, x: int, to: int) -> None:
    """Let what points at an entry point at another."""
    chain = plan.distincts[d, 2] + CHAIN
    b = _bucket(state, d, state.links[2 * x + SLOT], state.rows[x + COLUMNS + plan.distincts[d, 0]])
    y = np.int64(state.buckets[d, b])
    if y == x:
        state.buckets[d, b] = to
    else:
        while state.links[2 * y + chain] != x:
            y = np.int64(state.links[2 * y + chain])
        state.links[2 * y + chain] = to
    state.links[2 * x + chain] = 0


@part
def map_remove(state: State, plan: Plan, d: int, x: int) -> None:
    """Take out what was the last row of a value."""
    _map_point(state, plan, d, x, state.links[2 * x + plan.distincts[d, 2] + CHAIN])
    state.maps[3 * d + MAP_ENTRIES] -= 1


@part
def _map_replace(state: State, plan: Plan, d: int, x: int, y: int) -> None:
    """Let row y be the last one of a value, which was x."""
    chain = plan.distincts[d, 2] + CHAIN
    state.links[2 * y + chain] = state.links[2 * x + chain]
    _map_point(state, plan, d, x, y)


@part
def _mark(value: int) -> int:
    """One of 64 bits."""
    return np.int64(np.uint64(1) << ((np.uint64(value) * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(58)))


@inlined
def find_neighbours(state: State, plan: Plan, work: Work, d: int, slot: int, t: int, value: int) -> None:
    """Find the last row of the value at or before t, and the first one after."""
    rows, links = state.rows, state.links
    column, mask, offset = plan.distincts[d, 0], plan.distincts[d, 1], plan.distincts[d, 2]
    h = slot * plan.shape.header
    g = 2 * h
    later = 0
    if state.numbers[g + MAPPED] == 0:
        x = 0
        if state.headers[h + plan.distincts[d, 3]] & _mark(value):
            marks = 0
            x = np.int64(state.numbers[g + NEWEST])
            while x != 0:
                if (links[2 * x + BITS] >> mask) & 1:
                    other = rows[x + COLUMNS + column]
                    if other == value:
                        if rows[x] <= t:
                            break
                        later = x
                    marks |= _mark(other)
                x = np.int64(links[2 * x + PREVIOUS])
            if x == 0:
                state.headers[h + plan.distincts[d, 3]] = marks
    else:
        x = np.int64(state.buckets[d, _bucket(state, d, slot, value)])
        while x != 0 and (rows[x + COLUMNS + column] != value or links[2 * x + SLOT] != slot):
            x = np.int64(links[2 * x + offset + CHAIN])
        while x != 0 and rows[x] > t:
            later = x
            x = np.int64(links[2 * x + offset + EARLIER])
    work.before[d] = x
    work.after[d] = later


@inlined
def link_occurrence(state: State, plan: Plan, d: int, row: int, before: int, after: int, slot: int) -> None:
    """Put a new row between its nearest neighbours of the same value."""
    offset = plan.distincts[d, 2]
    h = slot * plan.shape.header
    mapped = state.numbers[2 * h + MAPPED]
    state.headers[h + plan.distincts[d, 3]] |= _mark(state.rows[row + COLUMNS + plan.distincts[d, 0]])
    state.links[2 * row + offset + EARLIER] = before
    state.links[2 * row + offset + LATER] = after
    if before != 0:
        state.links[2 * before + offset + LATER] = row
    if after != 0:
        state.links[2 * after + offset + EARLIER] = row
    elif mapped and before != 0:
        _map_replace(state, plan, d, before, row)
    elif mapped:
        map_add(state, plan, d, row)


@part
def unlink_occurrence(state: State, plan: Plan, d: int, row: int, mapped: int) -> None:
    """Take a row out of the list of its value."""
    offset = plan.distincts[d, 2]
    before = state.links[2 * row + offset + EARLIER]
    after = state.links[2 * row + offset + LATER]
    if before != 0:
        state.links[2 * before + offset + LATER] = after
    if after != 0:
        state.links[2 * after + offset + EARLIER] = before
    elif mapped and before != 0:
        _map_replace(state, plan, d, row, before)
    elif mapped:
        map_remove(state, plan, d, row)


@inlined
def map_key(state: State, plan: Plan, slot: int) -> None:
    """Enter the last rows of all values of a key that has outgrown searching."""
    g = 2 * slot * plan.shape.header
    if state.numbers[g + MAPPED] or state.numbers[g + COUNT] <= SEARCHED or plan.distincts.shape[0] == 0:
        return
    state.numbers[g + MAPPED] = 1
    for d in range(plan.distincts.shape[0]):
        mask, offset = plan.distincts[d, 1], plan.distincts[d, 2]
        x = state.numbers[g + NEWEST]
        while x != 0:
            if (state.links[2 * x + BITS] >> mask) & 1 and state.links[2 * x + offset + LATER] == 0:
                map_add(state, plan, d, x)
            x = state.links[2 * x + PREVIOUS]


@part
def unmap_key(state: State, plan: Plan, slot: int) -> None:
    """Take out the last rows of all values of a key that leaves memory."""
    g = 2 * slot * plan.shape.header
    if not state.numbers[g + MAPPED]:
        return
    for d in range(plan.distincts.shape[0]):
        mask, offset = plan.distincts[d, 1], plan.distincts[d, 2]
        x = state.numbers[g + NEWEST]
        while x != 0:
            if (state.links[2 * x + BITS] >> mask) & 1 and state.links[2 * x + offset + LATER] == 0:
                map_remove(state, plan, d, x)
            x = state.links[2 * x + PREVIOUS]
    state.numbers[g + MAPPED] = 0
