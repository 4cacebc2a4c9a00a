"""The window kernels: all windows of a key move on, answer a payment exactly, and count it.

Every row holds, for each lane (a count, a sum, a sum of squares in two parts), the total of all rows before
it. What a window holds is then a difference between two rows, so a window is only the address of its first
row. Sums wrap around at 64 bits, which is harmless as long as each window's own sum fits.

A late payment is put where its time belongs: lanes of the later rows are mended, and it is answered from the
counts of another time by undoing or doing what came between, see `late`.
"""

# ruff: noqa: FBT003, C901, PLR0912, PLR0913, PLR0915, PLR0917 - a kernel is one flat loop over arrays it is given

# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.batch import Bool, Float64, Int64
from streamer.features.answers import answer, answer_nothing
from streamer.features.compiled import inlined, kernel
from streamer.features.late import leave_cursors, recall, settle
from streamer.features.layout import (
    BITS,
    CLOCK,
    LAST_CHUNK,
    NEWEST,
    NEXT,
    NOW,
    RECENT,
    TOTALS,
    Int32,
    Plan,
    State,
    Work,
)
from streamer.features.lists import advance_lists, recall_lists
from streamer.features.measures import collect, collect_nothing, has_room, measure, own_part
from streamer.features.memory import prefetch
from streamer.features.occurrences import EARLIER, LATER, find_neighbours
from streamer.features.rows import insert, trim
from streamer.features.tallies import advance_tallies, recall_tallies

AHEAD: Final = 2
"""Payments after which something fetched early is there."""


@inlined
def _advance(state: State, plan: Plan, work: Work, slot: int, t: int) -> None:
    """Move all windows of a key on to time t, at or after its clock."""
    rows, links, numbers = state.rows, state.links, state.numbers
    h = slot * plan.shape.header
    g = 2 * h
    edges = g + plan.shape.edge_links
    clock = state.headers[h + CLOCK]
    for e in range(plan.edges.shape[0]):
        x = numbers[edges + e]
        work.old[e] = x
        if x != 0:
            limit = t - plan.edges[e]
            if rows[x] <= limit:
                while x != 0 and rows[x] <= limit:
                    x = links[2 * x + NEXT]
                numbers[edges + e] = x
        work.edges[e] = x
    for s in range(plan.spans.shape[0]):
        d, left, right, place = plan.spans[s, 0], plan.spans[s, 1], plan.spans[s, 2], g + plan.spans[s, 3]
        count = numbers[place]
        x, stop = work.old[left], work.edges[left]
        moved = x != stop
        mask, offset = plan.distincts[d, 1], plan.distincts[d, 2]
        if right == NOW:
            while x != stop:
                if (links[2 * x + BITS] >> mask) & 1 and links[2 * x + offset + LATER] == 0:
                    count -= 1
                x = links[2 * x + NEXT]
        else:
            end = clock - plan.edges[right]
            while x != stop and x != work.old[right]:
                if (links[2 * x + BITS] >> mask) & 1:
                    y = links[2 * x + offset + LATER]
                    if y == 0 or rows[y] > end:
                        count -= 1
                x = links[2 * x + NEXT]
            start = t - plan.edges[left]
            x, stop = work.old[right], work.edges[right]
            moved = moved or x != stop
            while x != stop:
                if rows[x] > start and (links[2 * x + BITS] >> mask) & 1:
                    y = links[2 * x + offset + EARLIER]
                    if y == 0 or rows[y] <= start:
                        count += 1
                x = links[2 * x + NEXT]
        if moved:
            numbers[place] = count
        work.counts[s] = count
    advance_lists(state, plan, work, slot, t)
    if plan.tallies.shape[0] > 0:
        advance_tallies(state, plan, work, slot, t)
    for a in range(plan.lanes.shape[0]):
        work.totals[a] = state.headers[h + TOTALS + a]
    work.place[0] = numbers[g + NEWEST]
    work.place[1] = 0
    state.headers[h + CLOCK] = t


@inlined
def _fetch(state: State, plan: Plan, slots: Int32, i: int) -> None:
    """Fetch what later payments are going to read: headers first, then, those being there, rows."""
    n = slots.shape[0]
    j = i + 2 * AHEAD
    if j < n and slots[j] >= 0:
        h = slots[j] * plan.shape.header
        for w in range(0, plan.shape.header, 8):
            prefetch(state.headers, h + w)
    j = i + AHEAD
    if j < n and slots[j] >= 0:
        g = 2 * slots[j] * plan.shape.header
        last = np.int64(state.numbers[g + LAST_CHUNK])
        prefetch(state.rows, last)
        fetched = np.int64(state.numbers[g + NEWEST])
        prefetch(state.rows, fetched)
        for e in range(plan.edges.shape[0]):
            x = np.int64(state.numbers[g + plan.shape.edge_links + e])
            if x != fetched:
                prefetch(state.rows, x)
                fetched = x


@kernel
def step(
    state: State,
    plan: Plan,
    work: Work,
    slots: Int32,
    times: Int64,
    live: Bool,
    bits: Int64,
    values: Int64,
    out: Float64,
    stride: int,
    begin: int,
) -> int:
    """Answer payments in order of arrival and count the live ones; without `out` they are only counted.

    `slots` (n,) are the keys, -1 where there is none; `bits` (n,) the masks that hold; `values` (columns, n).
    The features of payment i are out[i * stride:]. Begins at payment `begin`, and ends before the first one
    whose collected windows do not fit any more; returns which.
    """
    answers = out.shape[0] > 0
    collects = answers and plan.collected.shape[0] > 0
    for i in range(begin, slots.shape[0]):
        _fetch(state, plan, slots, i)
        slot = np.int64(slots[i])
        if slot < 0:
            if answers:
                answer_nothing(plan, out, i * stride)
            if collects:
                collect_nothing(plan, work, i - begin)
            continue
        if collects and not has_room(state, plan, work, slot, i - begin):
            leave_cursors(state, plan, work)
            return i
        t = times[i]
        mine = bits[i]
        state.numbers[2 * slot * plan.shape.header + RECENT] = 1
        late = t < state.headers[slot * plan.shape.header + CLOCK]
        if late:
            recall(state, plan, work, slot, t)
            recall_lists(state, plan, work, slot, t)
        else:
            settle(state, plan, work, slot)
            _advance(state, plan, work, slot, t)
        own_part(plan, work, t, mine, values, i)
        for d in range(plan.distincts.shape[0]):
            if (mine >> plan.distincts[d, 1]) & 1:
                find_neighbours(state, plan, work, d, slot, t, values[plan.distincts[d, 0], i])
        if answers:
            if late and plan.tallies.shape[0] > 0:
                recall_tallies(state, plan, work, slot, t, False)
            measure(state, plan, work, slot, t, mine, values, i)
            if late and plan.tallies.shape[0] > 0:
                recall_tallies(state, plan, work, slot, t, True)
            answer(plan, work, t, out, i * stride)
            if collects:
                collect(state, plan, work, t, mine, values, i, i - begin)
        if live[i]:
            insert(state, plan, work, slot, t, mine, values, i)
            trim(state, plan, work, slot)
    leave_cursors(state, plan, work)
    return slots.shape[0]
