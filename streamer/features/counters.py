"""Kernels of a hash table that counts values of many keys: what tallies are made of.

A counter is four words: the value, what is counted (key and tally), the count, and the next counter of its
chain. The table grows by one bucket at a time (linear hashing), so that no payment waits for a rehash.
"""


# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.features.compiled import part
from streamer.features.layout import (
    COUNTER_BUCKETS,
    COUNTER_FREE,
    COUNTER_SPAN,
    COUNTER_TOP,
    COUNTERS,
    State,
)

VALUE, OWNER, AMOUNT, CHAINED = 0, 1, 2, 3

COUNTER_WORDS: Final = 4


@part
def _bucket(state: State, owner: int, value: int) -> int:
    x = np.uint64(value) ^ (np.uint64(owner) * np.uint64(0x9E3779B97F4A7C15))
    x = (x ^ (x >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xD6E8FEB86659FD93)
    h = np.int64((x ^ (x >> np.uint64(32))) >> np.uint64(1))
    b = h & (state.meta[COUNTER_SPAN] - 1)
    if b >= state.meta[COUNTER_BUCKETS]:
        b = h & ((state.meta[COUNTER_SPAN] >> 1) - 1)
    return b


@part
def _grow(state: State) -> None:
    meta, counters = state.meta, state.counters
    buckets = meta[COUNTER_BUCKETS]
    if buckets == state.chains.shape[0]:
        return
    if buckets == meta[COUNTER_SPAN]:
        meta[COUNTER_SPAN] *= 2
    meta[COUNTER_BUCKETS] = buckets + 1
    split = buckets - (meta[COUNTER_SPAN] >> 1)
    c = np.int64(state.chains[split])
    state.chains[split] = 0
    state.chains[buckets] = 0
    while c != 0:
        at = COUNTER_WORDS * c
        following = counters[at + CHAINED]
        b = _bucket(state, counters[at + OWNER], counters[at + VALUE])
        counters[at + CHAINED] = state.chains[b]
        state.chains[b] = c
        c = following


@part
def counted(state: State, owner: int, value: int) -> int:
    """How often a value is counted."""
    c = np.int64(state.chains[_bucket(state, owner, value)])
    while c != 0:
        at = COUNTER_WORDS * c
        if state.counters[at + VALUE] == value and state.counters[at + OWNER] == owner:
            return state.counters[at + AMOUNT]
        c = state.counters[at + CHAINED]
    return 0


@part
def count_up(state: State, owner: int, value: int) -> int:
    """Count a value once more; returns its count."""
    meta, counters = state.meta, state.counters
    b = _bucket(state, owner, value)
    c = np.int64(state.chains[b])
    while c != 0:
        at = COUNTER_WORDS * c
        if counters[at + VALUE] == value and counters[at + OWNER] == owner:
            counters[at + AMOUNT] += 1
            return counters[at + AMOUNT]
        c = counters[at + CHAINED]
    c = meta[COUNTER_FREE]
    if c != 0:
        meta[COUNTER_FREE] = counters[COUNTER_WORDS * c + CHAINED]
    else:
        meta[COUNTER_TOP] += 1
        c = meta[COUNTER_TOP]
    meta[COUNTERS] += 1
    at = COUNTER_WORDS * c
    counters[at + VALUE] = value
    counters[at + OWNER] = owner
    counters[at + AMOUNT] = 1
    counters[at + CHAINED] = state.chains[b]
    state.chains[b] = c
    if meta[COUNTERS] > meta[COUNTER_BUCKETS]:
        _grow(state)
    return 1


@part
def count_down(state: State, owner: int, value: int) -> int:
    """Count a value once less, which was counted; returns what is left."""
    meta, counters = state.meta, state.counters
    b = _bucket(state, owner, value)
    c = np.int64(state.chains[b])
    before = np.int64(0)
    while counters[COUNTER_WORDS * c + VALUE] != value or counters[COUNTER_WORDS * c + OWNER] != owner:
        before = c
        c = counters[COUNTER_WORDS * c + CHAINED]
    at = COUNTER_WORDS * c
    counters[at + AMOUNT] -= 1
    left = counters[at + AMOUNT]
    if left == 0:
        if before == 0:
            state.chains[b] = counters[at + CHAINED]
        else:
            counters[COUNTER_WORDS * before + CHAINED] = counters[at + CHAINED]
        counters[at + CHAINED] = meta[COUNTER_FREE]
        meta[COUNTER_FREE] = c
        meta[COUNTERS] -= 1
    return left
