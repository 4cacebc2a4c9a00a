"""The kernels of rows: they are put in their place, trimmed, and given back with their key."""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0917, SIM102 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

import numpy as np

from streamer.batch import Int64
from streamer.features.compiled import inlined, kernel, part
from streamer.features.late import cursor_leaves, cursor_sees, owe
from streamer.features.layout import (
    BATCH,
    BEGIN,
    BITS,
    BLOCK_CHUNKS,
    BUMP,
    CHANGED_FROM,
    CHUNK_FILL,
    CHUNK_HEADER,
    CHUNK_LATEST,
    CHUNK_NEXT,
    CHUNK_ORDINAL,
    CHUNK_ROWS,
    CHUNK_SLOT,
    CHUNKS,
    CLOCK,
    COLUMNS,
    COUNT,
    CUT,
    DIRTY,
    DIRTY_FROM,
    DIRTY_WORDS,
    EMPTY,
    FIRST_CHUNK,
    FREE,
    HAND,
    HEAD_CHUNK,
    HORIZON,
    KEEP_ALL,
    LAST_CHUNK,
    LOADING,
    MAPPED,
    NEWEST,
    NEXT,
    NOW,
    OLDEST,
    PREVIOUS,
    QUEUED,
    RECENT,
    SLOT,
    STORED_FROM,
    TOTALS,
    UNUSED,
    Int32,
    Plan,
    State,
    Work,
)
from streamer.features.lists import enter, leave, mend_gaps, mend_sessions
from streamer.features.occurrences import is_new, link_occurrence, map_key, unlink_occurrence, unmap_key
from streamer.features.tallies import clear_tallies, tally_enter


@inlined
def words_of(state: State, plan: Plan, slot: int) -> int:
    """Words that a key takes."""
    g = 2 * slot * plan.shape.header
    first, last = state.numbers[g + FIRST_CHUNK], state.numbers[g + LAST_CHUNK]
    chunks = 0
    if first != 0:
        chunks = state.links[2 * last + CHUNK_ORDINAL] - state.links[2 * first + CHUNK_ORDINAL] + 1
    return plan.shape.header + plan.shape.chunk * chunks


@inlined
def _queue(state: State, plan: Plan, slot: int) -> None:
    """Let a key that is about to change wait for a cut."""
    numbers, meta = state.numbers, state.meta
    g = 2 * slot * plan.shape.header
    place = (meta[DIRTY_FROM] + meta[DIRTY]) % state.dirty.shape[0]
    state.dirty[place] = slot
    state.since[place] = meta[BATCH]
    meta[DIRTY] += 1
    meta[DIRTY_WORDS] += words_of(state, plan, slot)
    numbers[g + CUT] = QUEUED
    numbers[g + CHANGED_FROM] = numbers[g + HEAD_CHUNK]


@inlined
def _new_row(state: State, plan: Plan, slot: int, t: int) -> int:
    """Take the next row of the key's last chunk, zeroed, or of a new one."""
    rows, links, numbers, meta = state.rows, state.links, state.numbers, state.meta
    g = 2 * slot * plan.shape.header
    chunk = numbers[g + LAST_CHUNK]
    if numbers[g + CUT] < LOADING:
        _queue(state, plan, slot)
    if chunk == 0 or links[2 * chunk + CHUNK_FILL] == CHUNK_ROWS:
        fresh = meta[FREE]
        if fresh != 0:
            meta[FREE] = links[2 * fresh + CHUNK_NEXT]
        else:
            fresh = meta[BUMP]
            meta[BUMP] += plan.shape.chunk
        meta[CHUNKS] += 1
        if numbers[g + CUT] == QUEUED:
            meta[DIRTY_WORDS] += plan.shape.chunk
        for w in range(plan.shape.chunk):
            rows[fresh + w] = 0
        links[2 * fresh + CHUNK_SLOT] = slot
        rows[fresh + CHUNK_LATEST] = t
        if chunk != 0:
            links[2 * chunk + CHUNK_NEXT] = fresh
            links[2 * fresh + CHUNK_ORDINAL] = links[2 * chunk + CHUNK_ORDINAL] + 1
        else:
            numbers[g + FIRST_CHUNK] = fresh
            links[2 * fresh + CHUNK_ORDINAL] = numbers[g + BEGIN]
        if chunk == 0 or links[2 * fresh + CHUNK_ORDINAL] % BLOCK_CHUNKS == 0:
            numbers[g + HEAD_CHUNK] = fresh
            if numbers[g + CHANGED_FROM] == 0:
                numbers[g + CHANGED_FROM] = fresh
        numbers[g + LAST_CHUNK] = fresh
        chunk = fresh
    fill = links[2 * chunk + CHUNK_FILL]
    links[2 * chunk + CHUNK_FILL] = fill + 1
    rows[chunk + CHUNK_LATEST] = max(rows[chunk + CHUNK_LATEST], t)
    numbers[g + COUNT] += 1
    return chunk + CHUNK_HEADER + fill * plan.shape.row


@inlined
def insert(state: State, plan: Plan, work: Work, slot: int, t: int, bits: int, values: Int64, i: int) -> None:
    """Count a payment: put its row in its place, and mend what is derived from rows."""
    rows, links, numbers = state.rows, state.links, state.numbers
    h = slot * plan.shape.header
    g = 2 * h
    before, after = work.place[0], work.place[1]
    row = _new_row(state, plan, slot, t)
    rows[row] = t
    links[2 * row + BITS] = bits
    links[2 * row + SLOT] = slot
    for c in range(values.shape[0]):
        rows[row + COLUMNS + c] = values[c, i]
    links[2 * row + PREVIOUS] = before
    links[2 * row + NEXT] = after
    if before != 0:
        links[2 * before + NEXT] = row
    else:
        numbers[g + OLDEST] = row
    if after != 0:
        links[2 * after + PREVIOUS] = row
    else:
        numbers[g + NEWEST] = row
    lanes = plan.shape.lanes
    for a in range(plan.lanes.shape[0]):
        rows[row + lanes + a] = work.totals[a]
        state.headers[h + TOTALS + a] += work.own[a]
    if after != 0:
        owe(plan, work, slot)
    clock = state.headers[h + CLOCK]
    for e in range(plan.edges.shape[0]):
        if t > clock - plan.edges[e] and numbers[g + plan.shape.edge_links + e] == after:
            numbers[g + plan.shape.edge_links + e] = row
    for s in range(plan.spans.shape[0]):
        if is_new(state, plan, work, s, clock, t, bits):
            numbers[g + plan.spans[s, 3]] += 1
    cursor_sees(state, plan, work, slot, row, bits)
    for d in range(plan.distincts.shape[0]):
        if (bits >> plan.distincts[d, 1]) & 1:
            link_occurrence(state, plan, d, row, work.before[d], work.after[d], slot)
    for a in range(plan.tallies.shape[0]):
        right = plan.tallies[a, 4]
        end = clock if right == NOW else clock - plan.edges[right]
        if (bits >> plan.tallies[a, 2]) & 1 and clock - plan.edges[plan.tallies[a, 3]] < t <= end:
            tally_enter(state, plan, a, slot, values[plan.tallies[a, 1], i])
    for k in range(plan.lists.shape[0]):
        right = plan.lists[k, 3]
        if plan.lists[k, 8] < 0 and (bits >> plan.lists[k, 2]) & 1:
            if right == NOW or t <= clock - plan.edges[right]:
                enter(state, plan, k, slot, row)
                if right == NOW and plan.lists[k, 0] == KEEP_ALL:
                    mend_sessions(state, plan, k, slot, row)
                    mend_gaps(state, plan, k, slot, row)
    for one in range(plan.lives.shape[0]):
        if (bits >> plan.lives[one, 0]) & 1:
            life = h + plan.lives[one, 1]
            if state.headers[life] == 0 or t < state.headers[life + 1]:
                state.headers[life + 1] = t
            state.headers[life] += 1
    map_key(state, plan, slot)


@part
def _free_chunk(state: State, chunk: int) -> None:
    state.links[2 * chunk + CHUNK_NEXT] = state.meta[FREE]
    state.meta[FREE] = chunk
    state.meta[CHUNKS] -= 1


@inlined
def trim(state: State, plan: Plan, work: Work, slot: int) -> None:
    """Free the chunks whose events no window can see again, oldest arrival first."""
    rows, links, numbers = state.rows, state.links, state.numbers
    g = 2 * slot * plan.shape.header
    limit = min(rows[numbers[g + NEWEST]], state.meta[HORIZON]) - plan.shape.retention
    chunk = numbers[g + FIRST_CHUNK]
    while chunk != numbers[g + LAST_CHUNK] and rows[chunk + CHUNK_LATEST] <= limit:
        cursor_leaves(state, plan, work, slot, chunk)
        for j in range(CHUNK_ROWS):
            row = chunk + CHUNK_HEADER + j * plan.shape.row
            before, after = links[2 * row + PREVIOUS], links[2 * row + NEXT]
            if before != 0:
                links[2 * before + NEXT] = after
            else:
                numbers[g + OLDEST] = after
            links[2 * after + PREVIOUS] = before
            for d in range(plan.distincts.shape[0]):
                if (links[2 * row + BITS] >> plan.distincts[d, 1]) & 1:
                    unlink_occurrence(state, plan, d, row, numbers[g + MAPPED])
            for k in range(plan.lists.shape[0]):
                leave(state, plan, k, slot, row)
        following = links[2 * chunk + CHUNK_NEXT]
        if numbers[g + CHANGED_FROM] == chunk:
            numbers[g + CHANGED_FROM] = following
        if numbers[g + HEAD_CHUNK] == chunk:
            numbers[g + HEAD_CHUNK] = following
        _free_chunk(state, chunk)
        if numbers[g + CUT] == QUEUED:
            state.meta[DIRTY_WORDS] -= plan.shape.chunk
        numbers[g + COUNT] -= CHUNK_ROWS
        numbers[g + FIRST_CHUNK] = following
        chunk = following


@kernel
def open_keys(state: State, plan: Plan, slots: Int32, ordinals: Int64, stored_from: Int64) -> None:
    """Begin keys without events, whose first chunk is to have a given number."""
    for i in range(slots.shape[0]):
        h = slots[i] * plan.shape.header
        for w in range(plan.shape.header):
            state.headers[h + w] = 0
        state.headers[h + CLOCK] = EMPTY
        state.numbers[2 * h + BEGIN] = ordinals[i]
        state.numbers[2 * h + STORED_FROM] = stored_from[i]
        state.numbers[2 * h + RECENT] = 1


@kernel
def put_lives(state: State, plan: Plan, slots: Int32, heads: Int64, lives: Int64) -> None:
    """Set lifetime counters of keys to what their newest blocks have; what a block lacks stays as counted.

    `lives` (blocks, counters, 2) holds count and least time, a count of 0 where a block has none.
    """
    for i in range(slots.shape[0]):
        for one in range(plan.lives.shape[0]):
            if lives[heads[i], one, 0] > 0:
                life = np.int64(slots[i]) * plan.shape.header + plan.lives[one, 1]
                state.headers[life] = lives[heads[i], one, 0]
                state.headers[life + 1] = lives[heads[i], one, 1]


@kernel
def close_keys(state: State, plan: Plan, slots: Int32) -> None:
    """Give back the memory of keys that leave it."""
    for i in range(slots.shape[0]):
        slot = np.int64(slots[i])
        unmap_key(state, plan, slot)
        clear_tallies(state, plan, slot)
        chunk = state.numbers[2 * slot * plan.shape.header + FIRST_CHUNK]
        while chunk != 0:
            following = state.links[2 * chunk + CHUNK_NEXT]
            _free_chunk(state, chunk)
            chunk = following
        state.headers[slot * plan.shape.header + CLOCK] = EMPTY
        state.numbers[2 * slot * plan.shape.header + RECENT] = UNUSED


@kernel
def pick_keys(
    state: State, plan: Plan, top: int, saved: int, index_bytes: int, excess: int, slots: Int32
) -> int:
    """Choose keys to leave memory until `excess` bytes are found: not used since last passed, not unwritten.

    The hand goes round at most twice; returns how many of `slots` are chosen.
    """
    numbers = state.numbers
    hand = state.meta[HAND]
    found = 0
    for _ in range(2 * top):
        if excess <= 0 or found == slots.shape[0]:
            break
        hand = hand + 1 if hand + 1 < top else 0
        g = 2 * hand * plan.shape.header
        if numbers[g + RECENT] == 1:
            numbers[g + RECENT] = 0
        elif numbers[g + RECENT] == 0 and numbers[g + CUT] <= saved:
            numbers[g + RECENT] = UNUSED
            slots[found] = hand
            found += 1
            excess -= index_bytes + 8 * words_of(state, plan, hand)
    state.meta[HAND] = hand
    return found
