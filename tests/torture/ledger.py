"""All payments and frauds of one key in lists in order of time, from which features are counted off."""

import math
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.end_to_end.reading import Payment
from tests.end_to_end.windows import UNITS

NAME = re.compile(
    r"(?P<aggregate>count|sum|mean|std|max|min|distinct|novelty|since_last|lifetime_count|"
    r"fraud_count|fraud_rate)(_(?P<field>[a-z]+?))?(_(?P<length>[0-9]+)(?P<unit>ms|s|m|h|d))?"
    r"(_delay_(?P<late>[0-9]+)(?P<late_unit>ms|s|m|h|d))?(?P<before>_before)?"
)
EVERYTHING, FRAUDS = "", "fraud"

Value = float | None
Condition = Callable[[Payment], bool]


@dataclass(frozen=True)
class Feature:
    """What a feature counts: `track` names what of the key's past, `window` and `delay` are in ms."""

    aggregate: str
    track: str
    window: int
    delay: int = 0
    before: bool = False
    prior: tuple[float, float] = (0, 0)

    @classmethod
    def declared(cls, name: str, longest: int, prior: tuple[float, float]) -> "Feature":
        """Take a name such as `mean_amount_30d_before` apart; without a window it has the `longest`.

        Of `count_dear_1d`, which counts under a condition, the track is `dear`.
        """
        parts = NAME.fullmatch(name)
        if parts is None:
            raise ValueError(f"the oracle does not know the feature {name!r}")
        window = int(parts["length"]) * UNITS[parts["unit"]] if parts["length"] else longest
        delay = int(parts["late"]) * UNITS[parts["late_unit"]] if parts["late"] else 0
        track = parts["field"] or EVERYTHING
        return cls(parts["aggregate"], track, window, delay, parts["before"] is not None, prior)


class Track:
    """Values with their times, in order of time and of equal times in that of arrival."""

    def __init__(self) -> None:
        self.times = array("q")
        self.values = array("q")
        # Of the first n values: their sum and that of their squares, in Python's integers, which are exact.
        self.sums = [0]
        self.squares = [0]

    def add(self, moment: int, value: int) -> int:
        """Put a value where it belongs; answers its place."""
        place = bisect_right(self.times, moment)
        self.times.insert(place, moment)
        self.values.insert(place, value)
        self._sum_from(place)
        return place

    def remove(self, place: int) -> None:
        """Take a value out again."""
        del self.times[place], self.values[place]
        self._sum_from(place)

    def _sum_from(self, place: int) -> None:
        del self.sums[place + 1 :], self.squares[place + 1 :]
        for value in self.values[place:]:
            self.sums.append(self.sums[-1] + value)
            self.squares.append(self.squares[-1] + value * value)

    def between(self, after: int, until: int) -> tuple[int, int]:
        """Places of what is later than `after` and not later than `until`."""
        return bisect_right(self.times, after), bisect_right(self.times, until)


class Ledger:
    """What is known of one key. `tracks` says which payments are on each track, and with which value."""

    def __init__(self, tracks: Mapping[str, Callable[[Payment], int | None]]) -> None:
        self._of = tracks
        self._tracks = {name: Track() for name in tracks}
        self._frauds = Track()
        self._ever = 0

    def blame(self, moment: int) -> None:
        """One of its payments became known as fraud."""
        self._frauds.add(moment, 1)

    def features(self, payment: Payment, features: Sequence[Feature]) -> list[Value]:
        """The features of a payment, which is counted from now on unless it is test traffic."""
        moment = payment["event_time"]
        places = {
            name: track.add(moment, value)
            for name, track in self._tracks.items()
            if (value := self._of[name](payment)) is not None
        }
        self._ever += 1
        found = [self._value(feature, moment, places.get(feature.track)) for feature in features]
        if not payment.get("live", True):
            for name, place in places.items():
                self._tracks[name].remove(place)
            self._ever -= 1
        return found

    def _value(self, feature: Feature, moment: int, own: int | None) -> Value:
        if feature.aggregate == "lifetime_count":
            return self._ever
        end = moment - feature.delay
        if feature.aggregate.startswith("fraud"):
            first, last = self._frauds.between(end - feature.window, end)
            if feature.aggregate == "fraud_count":
                return last - first
            payments = self._tracks[EVERYTHING].between(end - feature.window, end)
            before = payments[1] - payments[0] - 1  # without this one
            return _divide(last - first + feature.prior[0], before + feature.prior[1])
        track = self._tracks[feature.track]
        first, last = track.between(end - feature.window, end)
        without = feature.before or feature.aggregate in {"since_last", "novelty"}
        if without and own is not None and not feature.delay:
            last = own  # of what is not later than a payment it is the last, having arrived the last
        if first == last:
            return OF_NOTHING[feature.aggregate] if feature.aggregate in OF_NOTHING else _new(own)
        return AGGREGATES[feature.aggregate](Span(track, first, last, own, moment))


@dataclass(frozen=True)
class Span:
    """The values of a track from place `first` on to before `last`, and the payment's own place and time."""

    track: Track
    first: int
    last: int
    own: int | None
    moment: int

    @property
    def n(self) -> int:
        """How many values."""
        return self.last - self.first

    @property
    def total(self) -> int:
        """Their sum."""
        return self.track.sums[self.last] - self.track.sums[self.first]

    @property
    def values(self) -> Any:
        """The values, as numpy has them."""
        return np.frombuffer(self.track.values, np.int64)[self.first : self.last]


def _std(span: Span) -> float:
    squares = span.track.squares[span.last] - span.track.squares[span.first]
    # In integers: the difference of two large squares is all that is left of a small spread.
    return math.sqrt(span.n * squares - span.total * span.total) / span.n


def _new(own: int | None) -> Value:
    return None if own is None else 1


def _novelty(span: Span) -> float | None:
    return None if span.own is None else float(span.track.values[span.own] not in span.values)


AGGREGATES: Mapping[str, Callable[[Span], Value]] = {
    "count": lambda span: span.n,
    "sum": lambda span: float(span.total),
    "mean": lambda span: span.total / span.n,
    "std": _std,
    "max": lambda span: float(span.values.max()),
    "min": lambda span: float(span.values.min()),
    "distinct": lambda span: int(np.count_nonzero(np.bincount(span.values))),
    "since_last": lambda span: (span.moment - span.track.times[span.last - 1]) / 1_000,
    "novelty": _novelty,
}
OF_NOTHING: Mapping[str, Value] = {
    "count": 0, "sum": 0, "distinct": 0,
    "mean": None, "std": None, "max": None, "min": None, "since_last": None,
}  # fmt: skip
"""What is said where there is no value; `novelty` is not here: any value is new to a key without a past."""


def _divide(above: float, below: float) -> Value:
    return above / below if below else None
