"""The kernels that recall what windows held before the key's clock, for payments that come late.

From the clock that is a walk over all later rows, for every edge. But late payments mostly come from a
partition that is behind others, in order among themselves: where the last one of a key was is kept as a
cursor for as long as a batch takes, and the next one is found from there. What late payments add to the lanes
of later rows is owed until the cursor passes these or leaves.
"""

# ruff: noqa: C901, PLR0913, PLR0917 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

import numpy as np

from streamer.features.compiled import inlined, part
from streamer.features.layout import (
    BITS,
    CLOCK,
    CURSOR_AT,
    CURSOR_CLOCK,
    CURSOR_OWES,
    CURSOR_SLOT,
    CURSORS,
    NEWEST,
    NEXT,
    NOW,
    OLDEST,
    PREVIOUS,
    TOTALS,
    Plan,
    State,
    Work,
)
from streamer.features.occurrences import EARLIER, LATER, is_new


@inlined
def _behind(state: State, g: int, row: int) -> int:
    """The row behind this one, or a key's first; 0 where there is none."""
    return np.int64(state.links[2 * row + NEXT] if row != 0 else state.numbers[g + OLDEST])


@part
def _pay(state: State, plan: Plan, work: Work, c: int, stop: int) -> None:
    """Add what is owed to the rows behind a cursor, up to the row `stop`, or to all where it is 0."""
    g = 2 * work.cursors[c, CURSOR_SLOT] * plan.shape.header
    x = _behind(state, g, work.cursors[c, CURSOR_AT])
    while x != stop:
        for a in range(plan.lanes.shape[0]):
            state.rows[x + plan.shape.lanes + a] += work.cursor_owed[c, a]
        x = np.int64(state.links[2 * x + NEXT])


@part
def _settle(state: State, plan: Plan, work: Work, c: int) -> None:
    """Add what is owed to all rows behind a cursor."""
    _pay(state, plan, work, c, 0)
    work.cursors[c, CURSOR_OWES] = 0
    work.cursor_owed[c] = 0


@inlined
def settle(state: State, plan: Plan, work: Work, slot: int) -> None:
    """Add what is owed to rows of a key, since they are about to be read."""
    c = slot % CURSORS
    if work.cursors[c, CURSOR_OWES] and work.cursors[c, CURSOR_SLOT] == slot:
        _settle(state, plan, work, c)


@inlined
def owe(plan: Plan, work: Work, slot: int) -> None:
    """A payment is put at the cursor of its key: all rows behind it lack its part."""
    c = slot % CURSORS
    work.cursors[c, CURSOR_OWES] = 1
    for a in range(plan.lanes.shape[0]):
        work.cursor_owed[c, a] += work.own[a]


@part
def leave_cursors(state: State, plan: Plan, work: Work) -> None:
    """Settle all and forget them: rows may go before the next batch comes."""
    for c in range(CURSORS):
        if work.cursors[c, CURSOR_OWES]:
            _settle(state, plan, work, c)
        work.cursors[c, CURSOR_SLOT] = -1


@part
def recall(state: State, plan: Plan, work: Work, slot: int, t: int) -> None:
    """Find what the windows of a key held at time t, before its clock."""
    h = slot * plan.shape.header
    g = 2 * h
    c = slot % CURSORS
    known = work.cursors[c, CURSOR_SLOT] == slot
    clock, last = state.headers[h + CLOCK], np.int64(state.numbers[g + NEWEST])
    if known:
        clock, last = work.cursors[c, CURSOR_CLOCK], work.cursors[c, CURSOR_AT]
    if work.cursors[c, CURSOR_OWES] and (not known or t < clock):
        _settle(state, plan, work, c)
    for e in range(plan.edges.shape[0]):
        work.old[e] = state.numbers[g + plan.shape.edge_links + e]
        work.known[e] = work.cursor_edges[c, e] if known else work.old[e]
    for s in range(plan.spans.shape[0]):
        work.counts[s] = work.cursor_counts[c, s] if known else np.int64(state.numbers[g + plan.spans[s, 3]])
    if t < clock:
        _go_back(state, plan, work, g, clock, last, t)
    else:
        _go_on(state, plan, work, g, clock, last, t)
        if work.cursors[c, CURSOR_OWES]:
            _pay(state, plan, work, c, work.place[1])
    after = work.place[1]
    for a in range(plan.lanes.shape[0]):
        if after != 0:
            work.totals[a] = state.rows[after + plan.shape.lanes + a] + work.cursor_owed[c, a]
        else:
            work.totals[a] = state.headers[h + TOTALS + a]
    work.cursors[c, CURSOR_SLOT] = slot
    work.cursors[c, CURSOR_CLOCK] = t
    work.cursors[c, CURSOR_AT] = work.place[0]
    for e in range(plan.edges.shape[0]):
        work.cursor_edges[c, e] = work.edges[e]
    for s in range(plan.spans.shape[0]):
        work.cursor_counts[c, s] = work.counts[s]


@part
def _go_back(state: State, plan: Plan, work: Work, g: int, clock: int, last: int, t: int) -> None:
    """From a known time to an earlier one; `last` is the last row of that time."""
    rows, links, newest = state.rows, state.links, np.int64(state.numbers[g + NEWEST])
    x, after = last, _behind(state, g, last)
    while x != 0 and rows[x] > t:
        after = x
        x = np.int64(links[2 * x + PREVIOUS])
    work.place[0], work.place[1] = x, after
    for e in range(plan.edges.shape[0]):
        x = work.known[e]
        y = np.int64(links[2 * x + PREVIOUS]) if x != 0 else newest
        while y != 0 and rows[y] > t - plan.edges[e]:
            x = y
            y = np.int64(links[2 * y + PREVIOUS])
        work.edges[e] = x
    for s in range(plan.spans.shape[0]):
        d, left, right = plan.spans[s, 0], plan.spans[s, 1], plan.spans[s, 2]
        mask, offset = plan.distincts[d, 1], plan.distincts[d, 2]
        count = work.counts[s]
        x, end = last, t
        if right != NOW:
            end = t - plan.edges[right]
            x = np.int64(links[2 * work.known[right] + PREVIOUS]) if work.known[right] != 0 else newest
        limit = clock - plan.edges[left]
        while x != 0 and rows[x] > end and rows[x] > limit:
            if (links[2 * x + BITS] >> mask) & 1:
                y = np.int64(links[2 * x + offset + EARLIER])
                if y == 0 or rows[y] <= limit:
                    count -= 1
            x = np.int64(links[2 * x + PREVIOUS])
        x = np.int64(links[2 * work.known[left] + PREVIOUS]) if work.known[left] != 0 else newest
        while x != 0 and rows[x] > t - plan.edges[left]:
            if rows[x] <= end and (links[2 * x + BITS] >> mask) & 1:
                y = np.int64(links[2 * x + offset + LATER])
                if y == 0 or rows[y] > end:
                    count += 1
            x = np.int64(links[2 * x + PREVIOUS])
        work.counts[s] = count


@part
def _go_on(state: State, plan: Plan, work: Work, g: int, clock: int, last: int, t: int) -> None:
    """From a known time to one at or after it, over rows that are there already."""
    rows, links = state.rows, state.links
    first = _behind(state, g, last)
    x, after = last, first
    while after != 0 and rows[after] <= t:
        x = after
        after = np.int64(links[2 * after + NEXT])
    work.place[0], work.place[1] = x, after
    for e in range(plan.edges.shape[0]):
        x = work.known[e]
        while x != 0 and rows[x] <= t - plan.edges[e]:
            x = np.int64(links[2 * x + NEXT])
        work.edges[e] = x
    for s in range(plan.spans.shape[0]):
        d, left, right = plan.spans[s, 0], plan.spans[s, 1], plan.spans[s, 2]
        mask, offset = plan.distincts[d, 1], plan.distincts[d, 2]
        count = work.counts[s]
        begin, stop, end = first, after, clock
        if right != NOW:
            begin, stop, end = work.known[right], work.edges[right], clock - plan.edges[right]
        x = work.known[left]
        while x != work.edges[left] and x != begin:
            if (links[2 * x + BITS] >> mask) & 1:
                y = np.int64(links[2 * x + offset + LATER])
                if y == 0 or rows[y] > end:
                    count -= 1
            x = np.int64(links[2 * x + NEXT])
        x = begin
        while x != stop:
            if rows[x] > t - plan.edges[left] and (links[2 * x + BITS] >> mask) & 1:
                y = np.int64(links[2 * x + offset + EARLIER])
                if y == 0 or rows[y] <= t - plan.edges[left]:
                    count += 1
            x = np.int64(links[2 * x + NEXT])
        work.counts[s] = count


@inlined
def cursor_sees(state: State, plan: Plan, work: Work, slot: int, row: int, bits: int) -> None:
    """Let a key's cursor see a row that has been put between its neighbours, not yet among its values."""
    c = slot % CURSORS
    if work.cursors[c, CURSOR_SLOT] == slot:
        t, clock = state.rows[row], work.cursors[c, CURSOR_CLOCK]
        if t <= clock and work.cursors[c, CURSOR_AT] == work.place[0]:
            work.cursors[c, CURSOR_AT] = row
        for e in range(plan.edges.shape[0]):
            if t > clock - plan.edges[e] and work.cursor_edges[c, e] == work.place[1]:
                work.cursor_edges[c, e] = row
        for s in range(plan.spans.shape[0]):
            if is_new(state, plan, work, s, clock, t, bits):
                work.cursor_counts[c, s] += 1


@inlined
def cursor_leaves(state: State, plan: Plan, work: Work, slot: int, chunk: int) -> None:
    """Settle and forget the cursor of a key where it is in a chunk that is about to go."""
    c = slot % CURSORS
    if work.cursors[c, CURSOR_SLOT] == slot:
        end = chunk + plan.shape.chunk
        gone = chunk <= work.cursors[c, CURSOR_AT] < end
        for e in range(plan.edges.shape[0]):
            gone = gone or chunk <= work.cursor_edges[c, e] < end
        if gone:
            if work.cursors[c, CURSOR_OWES]:
                _settle(state, plan, work, c)
            work.cursors[c, CURSOR_SLOT] = -1
