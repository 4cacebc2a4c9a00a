"""The window kernels: all windows of a key move on, answer a payment exactly, and count it.

Every row holds, for each lane (a count, a sum, a sum of squares in two parts), the total of all rows before
it. What a window holds is then a difference between two rows, so a window is only the address of its first
row. Sums wrap around at 64 bits, which is harmless as long as each window's own sum fits.

A late payment is put where its time belongs: lanes of the later rows are mended, and it is answered from the
present counts by undoing what came after. Its cost is the number of rows between it and the newest.
"""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - a kernel is one flat loop over arrays it is given
# ruff: noqa: PLR1714, SIM109 - a comparison is faster than a search
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.batch import Bool, Float64, Int64
from streamer.features.answers import answer, answer_nothing
from streamer.features.compiled import kernel, part
from streamer.features.layout import (
    BITS,
    CLOCK,
    COLUMNS,
    LANE_COUNT,
    LANE_HIGH,
    LANE_SUM,
    LAST_CHUNK,
    MEASURE_DISTINCT,
    MEASURE_EXTREME,
    MEASURE_FIRST,
    MEASURE_LANE,
    MEASURE_LAST,
    MEASURE_SINCE_FIRST,
    MISSING,
    NEWEST,
    NEXT,
    NOW,
    PREVIOUS,
    RECENT,
    TOTALS,
    Int32,
    Plan,
    State,
    Work,
)
from streamer.features.lists import advance_lists, recall_lists
from streamer.features.memory import prefetch
from streamer.features.occurrences import EARLIER, LATER, find_neighbours
from streamer.features.rows import insert, trim

AHEAD: Final = 2
"""Payments after which something fetched early is there."""


@part
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
    for a in range(plan.lanes.shape[0]):
        work.totals[a] = state.headers[h + TOTALS + a]
    work.place[0] = numbers[g + NEWEST]
    work.place[1] = 0
    state.headers[h + CLOCK] = t


@part
def _recall(state: State, plan: Plan, work: Work, slot: int, t: int) -> None:
    """Find what the windows of a key held at time t, before its clock."""
    rows, links, numbers = state.rows, state.links, state.numbers
    h = slot * plan.shape.header
    g = 2 * h
    clock = state.headers[h + CLOCK]
    after = 0
    x = numbers[g + NEWEST]
    while x != 0 and rows[x] > t:
        after = x
        x = links[2 * x + PREVIOUS]
    work.place[0] = x
    work.place[1] = after
    for a in range(plan.lanes.shape[0]):
        if after != 0:
            work.totals[a] = rows[after + plan.shape.lanes + a]
        else:
            work.totals[a] = state.headers[h + TOTALS + a]
    for e in range(plan.edges.shape[0]):
        x = numbers[g + plan.shape.edge_links + e]
        work.old[e] = x
        y = links[2 * x + PREVIOUS] if x != 0 else numbers[g + NEWEST]
        while y != 0 and rows[y] > t - plan.edges[e]:
            x = y
            y = links[2 * y + PREVIOUS]
        work.edges[e] = x
    for s in range(plan.spans.shape[0]):
        d, left, right = plan.spans[s, 0], plan.spans[s, 1], plan.spans[s, 2]
        mask, offset = plan.distincts[d, 1], plan.distincts[d, 2]
        count = numbers[g + plan.spans[s, 3]]
        x = numbers[g + NEWEST]
        end = t
        if right != NOW:
            end = t - plan.edges[right]
            if work.old[right] != 0:
                x = links[2 * work.old[right] + PREVIOUS]
        limit = clock - plan.edges[left]
        while x != 0 and rows[x] > end and rows[x] > limit:
            if (links[2 * x + BITS] >> mask) & 1:
                y = links[2 * x + offset + EARLIER]
                if y == 0 or rows[y] <= limit:
                    count -= 1
            x = links[2 * x + PREVIOUS]
        x = links[2 * work.old[left] + PREVIOUS] if work.old[left] != 0 else numbers[g + NEWEST]
        while x != 0 and rows[x] > t - plan.edges[left]:
            if rows[x] <= end and (links[2 * x + BITS] >> mask) & 1:
                y = links[2 * x + offset + LATER]
                if y == 0 or rows[y] > end:
                    count += 1
            x = links[2 * x + PREVIOUS]
        work.counts[s] = count
    recall_lists(state, plan, work, slot, t)


@part
def _measure(state: State, plan: Plan, work: Work, t: int, bits: int, values: Int64, i: int) -> None:
    """Write all measures of a payment from what was before it and its own part."""
    rows, out = state.rows, work.measures
    lanes = plan.shape.lanes
    for m in range(plan.measures.shape[0]):
        kind, subject, left, right = (
            plan.measures[m, 0], plan.measures[m, 1], plan.measures[m, 2], plan.measures[m, 3],
        )  # fmt: skip
        joins = right == NOW and plan.measures[m, 4] == 0
        if kind == MEASURE_LANE:
            x = work.edges[left]
            base = rows[x + lanes + subject] if x != 0 else work.totals[subject]
            top = work.totals[subject]
            if right != NOW:
                y = work.edges[right]
                if y != 0:
                    top = rows[y + lanes + subject]
            elif joins:
                top += work.own[subject]
            out[m] = top - base
        elif kind == MEASURE_DISTINCT:
            count = work.counts[subject]
            d = plan.spans[subject, 0]
            if joins and (bits >> plan.distincts[d, 1]) & 1:
                y = work.before[d]
                if y == 0 or rows[y] <= t - plan.edges[left]:
                    count += 1
            out[m] = count
        else:
            k = plan.ranges[subject, 0]
            column = COLUMNS + plan.lists[k, 1]
            joins = joins and (bits >> plan.lists[k, 2]) & 1 != 0
            if kind == MEASURE_EXTREME:
                best = work.bests[subject]
                if joins:
                    own = values[plan.lists[k, 1], i]
                    if best == MISSING or plan.lists[k, 0] * own > plan.lists[k, 0] * best:
                        best = own
                out[m] = best
            elif kind == MEASURE_FIRST or kind == MEASURE_SINCE_FIRST:
                x = work.bests[subject]
                if x != 0:
                    out[m] = rows[x + column] if kind == MEASURE_FIRST else t - rows[x]
                elif joins:
                    out[m] = values[plan.lists[k, 1], i] if kind == MEASURE_FIRST else 0
                else:
                    out[m] = MISSING
            else:
                x = work.backs[k]
                if kind == MEASURE_LAST and joins:
                    out[m] = values[plan.lists[k, 1], i]
                elif x != 0 and rows[x] > t - plan.edges[left]:
                    out[m] = rows[x + column] if kind == MEASURE_LAST else t - rows[x]
                else:
                    out[m] = MISSING


@part
def _own(plan: Plan, work: Work, bits: int, values: Int64, i: int) -> None:
    """What the payment itself adds to each lane."""
    for a in range(plan.lanes.shape[0]):
        kind = plan.lanes[a, 0]
        part = 0
        if (bits >> plan.lanes[a, 2]) & 1:
            if kind == LANE_COUNT:
                part = 1
            elif kind == LANE_SUM:
                part = values[plan.lanes[a, 1], i]
            else:
                x = abs(values[plan.lanes[a, 1], i])
                high, low = x >> 20, x & 0xFFFFF
                rest = ((high * low) << 21) + low * low
                part = high * high + (rest >> 40) if kind == LANE_HIGH else rest & 0xFFFFFFFFFF
        work.own[a] = part


@part
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
) -> None:
    """Answer payments in order of arrival and count the live ones; without `out` they are only counted.

    `slots` (n,) are the keys, -1 where there is none; `bits` (n,) the masks that hold; `values` (columns, n).
    The features of payment i are out[i * stride:].
    """
    answers = out.shape[0] > 0
    for i in range(slots.shape[0]):
        _fetch(state, plan, slots, i)
        slot = slots[i]
        if slot < 0:
            if answers:
                answer_nothing(plan, out, i * stride)
            continue
        t = times[i]
        mine = bits[i]
        state.numbers[2 * slot * plan.shape.header + RECENT] = 1
        if t >= state.headers[slot * plan.shape.header + CLOCK]:
            _advance(state, plan, work, slot, t)
        else:
            _recall(state, plan, work, slot, t)
        _own(plan, work, mine, values, i)
        for d in range(plan.distincts.shape[0]):
            if (mine >> plan.distincts[d, 1]) & 1:
                find_neighbours(state, plan, work, d, slot, t, values[plan.distincts[d, 0], i])
        if answers:
            _measure(state, plan, work, t, mine, values, i)
            answer(plan, work.measures, out, i * stride)
        if live[i]:
            insert(state, plan, work, slot, t, mine, values, i)
            trim(state, plan, slot)
