"""Kernels that measure a payment: exact integers, from what was before it and from its own part."""

# ruff: noqa: C901, PLR0911, PLR0912, PLR0913, PLR0917 - a kernel is one flat loop over arrays it is given
# ruff: noqa: PLR1714, SIM102, SIM109 - a comparison is faster than a search
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

import numpy as np

from streamer.batch import Int64
from streamer.features.compiled import inlined, part
from streamer.features.layout import (
    BITS,
    COLUMNS,
    COUNT,
    COUNT_LIMBS,
    FIRST_TALLY_MEASURE,
    LANE_COUNT,
    LANE_DECAYED,
    LANE_DECAYED_COUNT,
    LANE_HIGH,
    LANE_LOW,
    LANE_SUM,
    LIMBS,
    MEASURE_DISTINCT,
    MEASURE_EXTREME,
    MEASURE_FIRST,
    MEASURE_LANE,
    MEASURE_LAST,
    MEASURE_LEAST_GAP,
    MEASURE_LIFE,
    MEASURE_NOVEL,
    MEASURE_OWN,
    MEASURE_SESSION_AGE,
    MEASURE_SESSION_LANE,
    MEASURE_SINCE_FIRST,
    MEASURE_SINCE_LATEST,
    MISSING,
    NEXT,
    NOW,
    Plan,
    State,
    Work,
)
from streamer.features.tallies import measure_tallies
from streamer.features.wide import cube_limb, decayed_limb


@inlined
def _lane_before(state: State, plan: Plan, work: Work, row: int, lane: int) -> int:
    """A lane before a row; up to the payment where there is none, or it is the one behind the payment.

    What that one has in its lanes may not be what it should yet, see `late`.
    """
    if row == 0 or row == work.place[1]:
        return work.totals[lane]
    return state.rows[row + plan.shape.lanes + lane]


@inlined
def measure(
    state: State, plan: Plan, work: Work, slot: int, t: int, bits: int, values: Int64, i: int
) -> None:
    """Write the measures of a payment from what was before it and its own part."""
    rows, out = state.rows, work.measures
    for m in range(plan.measures.shape[0]):
        kind, subject, left, right = (
            plan.measures[m, 0], plan.measures[m, 1], plan.measures[m, 2], plan.measures[m, 3],
        )  # fmt: skip
        joins = right == NOW and plan.measures[m, 4] == 0
        if kind == MEASURE_LANE:
            base = _lane_before(state, plan, work, work.edges[left], subject)
            top = work.totals[subject]
            if right != NOW:
                top = _lane_before(state, plan, work, work.edges[right], subject)
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
        elif kind == MEASURE_EXTREME:
            k = plan.ranges[subject, 0]
            best = work.bests[subject]
            if joins and (bits >> plan.lists[k, 2]) & 1:
                value = values[plan.measures[m, 6], i]
                if best == MISSING or plan.lists[k, 0] * value > plan.lists[k, 0] * best:
                    best = value
            out[m] = best
        elif kind <= MEASURE_SINCE_LATEST:
            out[m] = _of_list(state, plan, work, t, m, bits, values, i)
        elif kind < FIRST_TALLY_MEASURE:
            out[m] = _rarer(state, plan, work, slot, t, m, bits, values, i)
    if plan.tallies.shape[0] > 0:
        measure_tallies(state, plan, work, slot, bits, values, i)


@part
def _of_list(state: State, plan: Plan, work: Work, t: int, m: int, bits: int, values: Int64, i: int) -> int:
    """A measure of a whole list: the value or age of a first or last event."""
    rows = state.rows
    kind, subject, left, own = (
        plan.measures[m, 0],
        plan.measures[m, 1],
        plan.measures[m, 2],
        plan.measures[m, 6],
    )
    k = plan.ranges[subject, 0]
    joins = plan.measures[m, 3] == NOW and plan.measures[m, 4] == 0 and (bits >> plan.lists[k, 2]) & 1 != 0
    if kind == MEASURE_FIRST or kind == MEASURE_SINCE_FIRST:
        x = work.bests[subject]
        if x != 0:
            return rows[x + COLUMNS + own] if kind == MEASURE_FIRST else t - rows[x]
        if joins:
            return values[own, i] if kind == MEASURE_FIRST else 0
        return MISSING
    x = work.backs[k]
    if kind == MEASURE_SINCE_LATEST and joins:
        return 0
    if kind == MEASURE_LAST:
        steps = plan.measures[m, 5]
        if joins:
            if steps == 0:
                return values[own, i]
            steps -= 1
        while steps > 0 and x != 0:
            x = np.int64(state.links[2 * x + plan.lists[k, 4]])
            steps -= 1
    if x != 0 and rows[x] > t - plan.edges[left]:
        return rows[x + COLUMNS + own] if kind == MEASURE_LAST else t - rows[x]
    return MISSING


@part
def _rarer(
    state: State, plan: Plan, work: Work, slot: int, t: int, m: int, bits: int, values: Int64, i: int
) -> int:
    """A measure of the rarer kinds."""
    rows = state.rows
    kind, subject, left = plan.measures[m, 0], plan.measures[m, 1], plan.measures[m, 2]
    before = plan.measures[m, 4] != 0
    if kind == MEASURE_NOVEL:
        if (bits >> plan.distincts[subject, 1]) & 1 == 0:
            return MISSING
        x = work.before[subject]
        return 1 if x == 0 or rows[x] <= t - plan.edges[left] else 0
    if kind == MEASURE_OWN:
        return values[plan.measures[m, 6], i]
    if kind == MEASURE_LEAST_GAP:
        best = work.bests[subject]
        k = plan.ranges[subject, 0]
        x = work.backs[plan.lists[k, 8]]
        if not before and (bits >> plan.lists[k, 2]) & 1 and x != 0 and rows[x] > t - plan.edges[left]:
            if best == MISSING or t - rows[x] < best:
                best = t - rows[x]
        return best
    if kind == MEASURE_SESSION_LANE:
        base = _lane_before(state, plan, work, work.sessions[plan.measures[m, 5]], subject)
        return work.totals[subject] - base + (0 if before else work.own[subject])
    if kind == MEASURE_SESSION_AGE:
        x = work.sessions[plan.measures[m, 5]]
        if x != 0:
            return t - rows[x]
        joins = not before and (bits >> plan.lists[plan.sessions[plan.measures[m, 5], 0], 2]) & 1
        return 0 if joins else MISSING
    life = slot * plan.shape.header + plan.lives[subject, 1]
    joins = not before and (bits >> plan.lives[subject, 0]) & 1
    count, first = state.headers[life], state.headers[life + 1]
    if kind == MEASURE_LIFE:
        return count + (1 if joins else 0)
    if joins and (count == 0 or t < first):
        first = t
    return t - first if joins or count > 0 else MISSING


@inlined
def own_part(plan: Plan, work: Work, t: int, bits: int, values: Int64, i: int) -> None:
    """What the payment itself adds to each lane."""
    for a in range(plan.lanes.shape[0]):
        kind = plan.lanes[a, 0]
        part = 0
        if (bits >> plan.lanes[a, 2]) & 1:
            if kind == LANE_COUNT:
                part = 1
            elif kind == LANE_SUM:
                part = values[plan.lanes[a, 1], i]
            elif kind <= LANE_LOW:
                x = abs(values[plan.lanes[a, 1], i])
                high, low = x >> 20, x & 0xFFFFF
                rest = ((high * low) << 21) + low * low
                part = high * high + (rest >> 40) if kind == LANE_HIGH else rest & 0xFFFFFFFFFF
            else:
                part = _own_limb(plan, a, t, values, i)
        work.own[a] = part


@part
def _own_limb(plan: Plan, a: int, t: int, values: Int64, i: int) -> int:
    """What the payment adds to a lane that is one limb of something wider."""
    kind, half_life, place = plan.lanes[a, 0], plan.lanes[a, 3], plan.lanes[a, 4]
    if kind == LANE_DECAYED_COUNT:
        return decayed_limb(1, half_life, t, place, COUNT_LIMBS)
    x = values[plan.lanes[a, 1], i]
    limb = cube_limb(abs(x), place)
    if kind == LANE_DECAYED:
        limb = decayed_limb(abs(x), half_life, t, place, LIMBS)
    return limb if x >= 0 else -limb


@part
def collect(
    state: State, plan: Plan, work: Work, t: int, bits: int, values: Int64, i: int, done: int
) -> None:
    """Hand over the events of collected windows, in order."""
    rows, links = state.rows, state.links
    windows = plan.collected.shape[0]
    end = work.ends[done * windows - 1] if done else 0
    for c in range(windows):
        column, mask, right = plan.collected[c, 0], plan.collected[c, 1], plan.collected[c, 3]
        x = work.edges[plan.collected[c, 2]]
        limit = t if right == NOW else t - plan.edges[right]
        while x != 0 and rows[x] <= limit:
            if (links[2 * x + BITS] >> mask) & 1:
                work.caught[2 * end], work.caught[2 * end + 1] = rows[x], rows[x + COLUMNS + column]
                end += 1
            x = np.int64(links[2 * x + NEXT])
        if right == NOW and plan.collected[c, 4] == 0 and (bits >> mask) & 1:
            work.caught[2 * end], work.caught[2 * end + 1] = t, values[column, i]
            end += 1
        work.ends[done * windows + c] = end


@part
def collect_nothing(plan: Plan, work: Work, done: int) -> None:
    """The collected windows of a payment without a key are empty."""
    windows = plan.collected.shape[0]
    for c in range(done * windows, (done + 1) * windows):
        work.ends[c] = work.ends[c - 1] if c else 0


@part
def has_room(state: State, plan: Plan, work: Work, slot: int, done: int) -> bool:
    """Whether the events of collected windows still fit."""
    windows = plan.collected.shape[0]
    used = work.ends[done * windows - 1] if done else 0
    most = np.int64(state.numbers[2 * slot * plan.shape.header + COUNT]) + 1
    return 2 * (used + windows * most) <= work.caught.shape[0]
