"""What features of a long stream must be, by sorting, searching and prefix sums over all of it.

Payments that are on time (no payment before them has a greater time) are in order of both time and
arrival, so that those in a window are a run of that order. The few others are paired with every payment
that sees them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.batch import Float64, Int64
from streamer.features.aggregates import Feature
from streamer.features.declarations import Entity
from tests.features.arrays import Stream

TIES = 64
"""One more than there may be on-time payments of a key at one time."""


@dataclass(frozen=True)
class Span:
    """A window before every row.

    Of the on-time events it holds `lo` to `hi`, and every (`rows`, `late`) is a row and an event not on time.
    """

    upper: Int64
    lo: Int64
    hi: Int64
    rows: Int64
    late: Int64

    @property
    def counts(self) -> Int64:
        """How many events are in it."""
        return self.hi - self.lo + np.bincount(self.rows, minlength=len(self.lo))

    def sums(self, values: npt.NDArray[Any], on_time: Int64) -> npt.NDArray[Any]:
        """Sums of integers, of whatever type they are."""
        prefix = np.concatenate([values[:1] * 0, np.cumsum(values[on_time])])
        found = prefix[self.hi] - prefix[self.lo]
        np.add.at(found, self.rows, values[self.late])
        return found

    def greatest(self, values: Float64, on_time: Int64) -> Float64:
        """The greatest values, NaN where there is none."""
        lengths = self.hi - self.lo
        found = np.full(len(lengths), -np.inf)
        highest, width = values[on_time], 1
        while len(highest):
            mine = np.flatnonzero((lengths >= width) & (lengths < 2 * width))
            found[mine] = np.maximum(highest[self.lo[mine]], highest[self.hi[mine] - width])
            highest, width = np.maximum(highest[:-width], highest[width:]), 2 * width
        np.maximum.at(found, self.rows, values[self.late])
        return np.where(np.isinf(found), np.nan, found)


class Sweep:
    """All payments that have the key of an entity, in order of key, time and arrival."""

    def __init__(self, stream: Stream, entity: Entity) -> None:
        (key_field,) = entity.keys
        keys, times = stream.texts[key_field], stream.event_time
        self.reach = max(feature.window + feature.delay for feature in entity.features)
        self.order = np.lexsort((times, keys))
        self.order = self.order[keys[self.order] >= 0]
        self.key, self.time = keys[self.order], times[self.order] - times.min() + self.reach
        self.amount = stream.amount[self.order]
        self.texts = {name: column[self.order] for name, column in stream.texts.items()}
        live = stream.live[self.order]
        self.ordered = (times >= np.maximum.accumulate(times))[self.order]
        self.counted = self.ordered & live
        self.on_time, self.late = np.flatnonzero(self.counted), np.flatnonzero(live & ~self.ordered)
        self.stride = int(self.time.max()) + self.reach + 1
        # Rows are in order of `place`, and on-time events in order of `place` and their number at that time.
        self.place = self._place(self.time)
        group = np.searchsorted(self.place, self.place)
        running = np.concatenate([[0], np.cumsum(self.counted)])
        self.tie = running[1:] - running[group]
        assert self.tie.max() < TIES - 1
        self.at = (self.place + self.tie)[self.on_time]

    def _place(self, time: Int64) -> Int64:
        return (self.key * self.stride + time) * TIES

    def span(self, feature: Feature) -> Span:
        """The window of a feature before every row."""
        newest, last = self._place(self.time - feature.delay), TIES - 1
        # On-time events at the row's own time may be later arrivals; all that are older arrived before it.
        # A row not on time arrived after all of its time, or one in between would have made those late too.
        ties = self.tie - (self.counted & feature.before_payment)
        upper = newest + (last if feature.delay else np.where(self.ordered, ties, last))
        lo = np.searchsorted(self.at, newest - feature.window * TIES + last, "right")
        hi = np.searchsorted(self.at, upper, "right")
        first = self.place[self.late] + feature.delay * TIES
        begin = np.searchsorted(self.place, first)
        lengths = np.searchsorted(self.place, first + feature.window * TIES) - begin
        late = np.repeat(self.late, lengths)
        rows = np.arange(len(late)) + np.repeat(begin - np.cumsum(lengths) + lengths, lengths)
        seen = self.order[late] < self.order[rows]
        rows, late = rows[seen], late[seen]
        if not (feature.delay or feature.before_payment):
            themselves = np.flatnonzero(~self.counted)
            rows, late = np.concatenate([rows, themselves]), np.concatenate([late, themselves])
        return Span(upper, lo, hi, rows, late)

    def distinct(self, span: Span, window: int, name: str) -> Int64:
        """How many different texts.

        An on-time event is the last of its value from its own place until the value's next, or until the
        window has left it, so the number is that of beginnings less that of ends.
        """
        values = self.texts[name]
        base = len(values) + 1
        codes = self.key * (int(values.max()) + 1) + values
        have = np.flatnonzero(values[self.on_time] >= 0)
        mine = self.on_time[have]
        by_value = np.lexsort((have, codes[mine]))
        ends = self._place(self.time + window)[mine][by_value]
        again = np.flatnonzero(np.diff(codes[mine][by_value]) == 0)
        ends[again] = np.minimum(ends[again], self.at[have][by_value][again + 1])
        found = np.searchsorted(self.at[have], span.upper, "right")
        found -= np.searchsorted(np.sort(ends), span.upper, "right")
        # Those not on time count where no on-time event of the window has their value, each value once.
        with_value = values[span.late] >= 0
        rows, late = span.rows[with_value], codes[span.late[with_value]]
        known = codes[mine][by_value] * base + have[by_value]
        before = np.searchsorted(known, late * base + span.hi[rows]) - 1
        new = (before < 0) | (known[before] < late * base + span.lo[rows])
        highest = int(codes.max()) + 1
        pairs = np.sort(rows[new] * highest + late[new])
        once = pairs[np.diff(pairs, prepend=-1) > 0] // highest
        return found + np.bincount(once, minlength=len(found))

    def feature(self, feature: Feature, span: Span) -> Float64:
        """A feature of every row."""
        if feature.kind == "distinct":
            assert feature.column is not None
            return self.distinct(span, feature.window, feature.column.name).astype(np.float64)
        return KINDS[feature.kind](self, span).astype(np.float64)


def _mean(sweep: Sweep, span: Span) -> Float64:
    with np.errstate(invalid="ignore"):
        return span.sums(sweep.amount, sweep.on_time) / span.counts


def _std(sweep: Sweep, span: Span) -> Float64:
    """By Python's integers: squares of huge amounts fit in no others."""
    counts = span.counts.astype(object)
    values = sweep.amount.astype(object)
    squares = span.sums(values * values, sweep.on_time)
    sums = span.sums(sweep.amount, sweep.on_time).astype(object)
    some = counts > 0
    found = np.full(len(counts), np.nan)
    found[some] = ((counts * squares - sums * sums)[some] / (counts * counts)[some]).astype(np.float64)
    return np.sqrt(found)


KINDS: dict[str, Callable[[Sweep, Span], npt.NDArray[Any]]] = {
    "count": lambda _, span: span.counts,
    "sum": lambda sweep, span: span.sums(sweep.amount, sweep.on_time),
    "mean": _mean,
    "std": _std,
    "max": lambda sweep, span: span.greatest(sweep.amount.astype(np.float64), sweep.on_time),
    "min": lambda sweep, span: -span.greatest(-sweep.amount.astype(np.float64), sweep.on_time),
}
