"""Kernels of the lists through the rows of a key: monotonic ones for extremes, whole ones for all else.

In the list of a maximum every row is greater than all later ones, so the greatest of a window is the first
row of the list inside it; one list serves every window with the same right edge. A row in the list has a
successor or is the back. A list of gaps is one of the least of a word of the row: the time to the next row of
the whole list beside it. A session is known by its first row in the whole list.
"""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

import numpy as np

from streamer.features.compiled import inlined, part
from streamer.features.layout import (
    BITS,
    CLOCK,
    COLUMNS,
    KEEP_ALL,
    MISSING,
    NEWEST,
    NEXT,
    NOW,
    PREVIOUS,
    Plan,
    State,
    Work,
)

EARLIER, LATER = 0, 1


@inlined
def enter(state: State, plan: Plan, k: int, slot: int, row: int) -> None:
    """Put a row where its time belongs in a list, for those it dominates, unless a later one dominates it."""
    rows, links, numbers = state.rows, state.links, state.numbers
    kind, column, offset = plan.lists[k, 0], COLUMNS + plan.lists[k, 1], plan.lists[k, 4]
    h = slot * plan.shape.header
    g = 2 * h
    t = rows[row]
    value = kind * rows[row + column]
    after = 0
    before = numbers[g + plan.lists[k, 5]]
    while before != 0 and rows[before] > t:
        after = before
        before = links[2 * before + offset + EARLIER]
    if kind != KEEP_ALL:
        if after != 0 and kind * rows[after + column] >= value:
            return
        while before != 0 and kind * rows[before + column] <= value:
            dominated = before
            before = links[2 * before + offset + EARLIER]
            links[2 * dominated + offset + EARLIER] = 0
            links[2 * dominated + offset + LATER] = 0
    links[2 * row + offset + EARLIER] = before
    links[2 * row + offset + LATER] = after
    if before != 0:
        links[2 * before + offset + LATER] = row
    if after != 0:
        links[2 * after + offset + EARLIER] = row
    else:
        numbers[g + plan.lists[k, 5]] = row
    clock = state.headers[h + CLOCK]
    for r in range(plan.lists[k, 6], plan.lists[k, 7]):
        if t > clock - plan.edges[plan.ranges[r, 1]]:
            x = numbers[g + plan.ranges[r, 2]]
            if x == 0 or rows[x] > t or (kind != KEEP_ALL and kind * rows[x + column] <= value):
                numbers[g + plan.ranges[r, 2]] = row


@part
def leave(state: State, plan: Plan, k: int, slot: int, row: int) -> None:
    """Take a row that no window can see out of a list, if it is in it."""
    links, numbers = state.links, state.numbers
    offset = plan.lists[k, 4]
    back = 2 * slot * plan.shape.header + plan.lists[k, 5]
    after = links[2 * row + offset + LATER]
    if after == 0 and numbers[back] != row:
        return
    before = links[2 * row + offset + EARLIER]
    if before != 0:
        links[2 * before + offset + LATER] = after
    if after != 0:
        links[2 * after + offset + EARLIER] = before
    else:
        numbers[back] = before
    for s in range(plan.sessions.shape[0]):
        place = 2 * slot * plan.shape.header + plan.sessions[s, 2]
        if plan.sessions[s, 0] == k and numbers[place] == row:
            numbers[place] = after


@inlined
def advance_lists(state: State, plan: Plan, work: Work, slot: int, t: int) -> None:
    """Move all lists on to time t, and say what their windows hold; the clock still stands where it was."""
    rows, links, numbers = state.rows, state.links, state.numbers
    g = 2 * slot * plan.shape.header
    for k in range(plan.lists.shape[0]):
        kind, column, mask, right = plan.lists[k, 0], plan.lists[k, 1], plan.lists[k, 2], plan.lists[k, 3]
        offset = plan.lists[k, 4]
        if right != NOW:
            x = work.old[right]
            while x != work.edges[right]:
                if (links[2 * x + BITS] >> mask) & 1:
                    enter(state, plan, k, slot, x)
                x = links[2 * x + NEXT]
        for r in range(plan.lists[k, 6], plan.lists[k, 7]):
            x = numbers[g + plan.ranges[r, 2]]
            if x != 0:
                limit = t - plan.edges[plan.ranges[r, 1]]
                if rows[x] <= limit:
                    while x != 0 and rows[x] <= limit:
                        x = links[2 * x + offset + LATER]
                    numbers[g + plan.ranges[r, 2]] = x
            if kind == KEEP_ALL:
                work.bests[r] = x
            else:
                work.bests[r] = rows[x + COLUMNS + column] if x != 0 else MISSING
        work.backs[k] = numbers[g + plan.lists[k, 5]]
    for s in range(plan.sessions.shape[0]):
        k, r = plan.sessions[s, 0], plan.sessions[s, 3]
        x = work.backs[k]
        if x != 0:
            x = work.bests[r] if t - rows[x] <= plan.sessions[s, 1] else 0
            start = numbers[g + plan.sessions[s, 2]]
            if x != 0 and rows[start] >= rows[x]:
                x = start
        work.sessions[s] = x


@part
def mend_sessions(state: State, plan: Plan, k: int, slot: int, row: int) -> None:
    """Find the first row of the last session of a whole list that a row has come into."""
    rows, links, numbers = state.rows, state.links, state.numbers
    g = 2 * slot * plan.shape.header
    offset = plan.lists[k, 4]
    for s in range(plan.sessions.shape[0]):
        if plan.sessions[s, 0] != k:
            continue
        gap, place = plan.sessions[s, 1], g + plan.sessions[s, 2]
        start = numbers[place]
        before = links[2 * row + offset + EARLIER]
        if links[2 * row + offset + LATER] == 0:
            if before == 0 or rows[row] - rows[before] > gap:
                numbers[place] = row
        elif links[2 * row + offset + LATER] == start and rows[start] - rows[row] <= gap:
            start = row
            while before != 0 and rows[start] - rows[before] <= gap:
                start = before
                before = links[2 * before + offset + EARLIER]
            numbers[place] = start


@part
def _enter_gap(state: State, plan: Plan, k: int, slot: int, row: int, word: int, gap: int) -> None:
    leave(state, plan, k, slot, row)
    state.links[2 * row + plan.lists[k, 4] + EARLIER] = 0
    state.links[2 * row + plan.lists[k, 4] + LATER] = 0
    state.rows[row + COLUMNS + word] = gap
    enter(state, plan, k, slot, row)


@part
def mend_gaps(state: State, plan: Plan, k: int, slot: int, row: int) -> None:
    """Set the gaps around a row that has come into a whole list."""
    rows, links = state.rows, state.links
    before = np.int64(links[2 * row + plan.lists[k, 4] + EARLIER])
    after = np.int64(links[2 * row + plan.lists[k, 4] + LATER])
    for p in range(plan.gaps.shape[0]):
        if plan.gaps[p, 0] == k:
            if before != 0:
                _enter_gap(
                    state, plan, plan.gaps[p, 1], slot, before, plan.gaps[p, 2], rows[row] - rows[before]
                )
            if after != 0:
                _enter_gap(state, plan, plan.gaps[p, 1], slot, row, plan.gaps[p, 2], rows[after] - rows[row])


@part
def _recall_gap(state: State, plan: Plan, k: int, x: int, start: int) -> int:
    """The least gap between rows after `start` of a whole list up to its row x."""
    rows, links = state.rows, state.links
    best = MISSING
    while x != 0:
        before = np.int64(links[2 * x + plan.lists[k, 4] + EARLIER])
        if before == 0 or rows[before] <= start:
            break
        if best == MISSING or rows[x] - rows[before] < best:
            best = rows[x] - rows[before]
        x = before
    return best


@part
def recall_lists(state: State, plan: Plan, work: Work, slot: int, t: int) -> None:
    """Say what the windows of all lists held at a time t before the clock."""
    rows, links, numbers = state.rows, state.links, state.numbers
    h = slot * plan.shape.header
    g = 2 * h
    back_by = state.headers[h + CLOCK] - t
    for k in range(plan.lists.shape[0]):
        kind, column, mask, right = plan.lists[k, 0], plan.lists[k, 1], plan.lists[k, 2], plan.lists[k, 3]
        last = work.place[0]
        end = t
        if right != NOW:
            end = t - plan.edges[right]
            x = work.edges[right]
            last = links[2 * x + PREVIOUS] if x != 0 else numbers[g + NEWEST]
        if kind == KEEP_ALL:
            x = numbers[g + plan.lists[k, 5]]
            while x != 0 and rows[x] > end:
                x = links[2 * x + plan.lists[k, 4] + EARLIER]
            work.backs[k] = x
        whole = plan.lists[k, 8]
        for r in range(plan.lists[k, 6], plan.lists[k, 7]):
            left = plan.ranges[r, 1]
            if whole >= 0:
                work.bests[r] = _recall_gap(state, plan, whole, work.backs[whole], t - plan.edges[left])
                continue
            start = t - plan.edges[left]
            first = numbers[g + plan.ranges[r, 2]]
            known = first != 0 and rows[first] <= end
            if kind == KEEP_ALL:
                x = work.edges[left]
                while (
                    x != 0 and rows[x] <= min(end, start + back_by) and not (links[2 * x + BITS] >> mask) & 1
                ):
                    x = links[2 * x + NEXT]
                if x == 0 or rows[x] > min(end, start + back_by):
                    x = first if known else 0
                work.bests[r] = x
                continue
            best = MISSING
            x = last
            if known:
                best = rows[first + COLUMNS + column]
                x = links[2 * work.old[left] + PREVIOUS]
            while x != 0 and rows[x] > start:
                if (links[2 * x + BITS] >> mask) & 1:
                    value = rows[x + COLUMNS + column]
                    if best == MISSING or kind * value > kind * best:
                        best = value
                x = links[2 * x + PREVIOUS]
            work.bests[r] = best
    for s in range(plan.sessions.shape[0]):
        k, offset = plan.sessions[s, 0], plan.lists[plan.sessions[s, 0], 4]
        start = t - plan.edges[plan.ranges[plan.sessions[s, 3], 1]]
        x = work.backs[k]
        if x != 0 and (t - rows[x] > plan.sessions[s, 1] or rows[x] <= start):
            x = 0
        while x != 0:
            before = np.int64(links[2 * x + offset + EARLIER])
            if before == 0 or rows[before] <= start or rows[x] - rows[before] > plan.sessions[s, 1]:
                break
            x = before
        work.sessions[s] = x
