"""What every feature must be, straight from its definition, by lists, loops and fractions."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import numpy as np

from streamer.features.aggregates import Feature
from streamer.features.fields import Both, Column, Either, Not, Test, Where, lat, lon

Value = str | float | None
NAN = math.nan


@dataclass(frozen=True)
class Event:
    """A payment as a test writes it."""

    time: int
    amount: int | None = 100
    live: bool = True
    fields: dict[str, Value] = field(default_factory=dict)

    def value(self, name: str) -> Value:
        """A field, or None."""
        return self.amount if name == "amount" else self.fields.get(name)


def feature_of(feature: Feature, earlier: list[Event], event: Event) -> float:
    """One feature, from all earlier arrivals of the key and the event itself."""
    ahead = list(earlier)
    if not feature.before_payment and feature.kind not in LOOK_BACK:
        ahead.append(event)
    if feature.where is not None:
        ahead = [other for other in ahead if meets(feature.where, other)]
    newest = event.time - feature.delay
    chosen = ahead
    if feature.kind not in FOR_EVER:
        chosen = [other for other in ahead if newest - feature.window < other.time <= newest]
    chosen.sort(key=lambda other: other.time)
    if feature.kind == "novelty" and feature.where is not None and not meets(feature.where, event):
        return NAN
    if feature.kind in OF_EVENTS:
        return float(OF_EVENTS[feature.kind](feature, chosen, event))
    column = feature.column
    assert column is not None
    chosen = [other for other in chosen if kept(column, other) is not None]
    if feature.kind in OF_FIELD:
        return float(OF_FIELD[feature.kind](feature, chosen, event))
    values = [kept(column, other) for other in chosen]
    if feature.kind in OF_VALUES:
        return float(OF_VALUES[feature.kind](values, kept(column, event)))
    numbers = [value for value in values if isinstance(value, Fraction)]
    if feature.kind in OF_PLACES:
        return float(OF_PLACES[feature.kind](feature, numbers))
    return float(AGGREGATES[feature.kind](numbers))


def tolerance(kind: str) -> tuple[float, float]:
    """How far a feature that is no integer may be off, (relative, absolute).

    Absolute only where the definition cancels, so that a relative error has no bound near 0: in the unit of
    the field (its values below a thousand, or of one sign), in nats, in km (a micrometre), in km/h (that in
    a second).
    """
    return TOLERANCES.get(kind, (1e-9, 0.0))


EXACT = {
    "count", "sum", "min", "max", "range", "distinct", "first", "last", "since_last", "since_first",
    "novelty", "min_gap", "mode", "session_count", "session_duration", "session_sum", "lifetime_count",
    "lifetime_age",
}  # fmt: skip
"""What is an integer, or an integer of the smallest unit or of ms divided once: equal to the last bit."""

TOLERANCES = {
    "quantile": (0.01 + 1e-9, 0.0),
    "skewness": (1e-9, 1e-11),
    "entropy": (1e-9, 1e-12),
    "decayed_sum": (1e-9, 1e-9),
    "decayed_mean": (1e-9, 1e-9),
    "distance_from_last": (1e-9, 1e-9),
    "geo_velocity": (1e-9, 3.6e-6),
}

FOR_EVER = {"lifetime_count", "lifetime_age"}
"""What has no window, so that not even the payment's own time bounds it."""

LOOK_BACK = {"since_last", "novelty", "distance_from_last", "geo_velocity"}
"""What compares the payment with those before it."""


def kept(column: Column, event: Event) -> str | Fraction | None:
    """A field with the decimals that are kept; what is too large is missing."""
    value = event.value(column.name)
    if value is None or isinstance(value, str):
        return value
    scale = 10**column.decimals
    smallest = round(value * scale)
    return Fraction(smallest, scale) if abs(smallest) <= 10**12 else None


def meets(where: Where, event: Event) -> bool:
    """Whether an event meets a condition; a missing value meets no comparison."""
    if isinstance(where, Both):
        return meets(where.left, event) and meets(where.right, event)
    if isinstance(where, Either):
        return meets(where.left, event) or meets(where.right, event)
    if isinstance(where, Not):
        return not meets(where.condition, event)
    assert isinstance(where, Test)
    value = kept(where.column, event)
    if value is None:
        return False
    mine = value if isinstance(value, str) else float(value)
    return any(COMPARISONS[where.operator](mine, constant) for constant in where.values)


COMPARISONS: dict[str, Callable[[object, object], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}


def _since_last(feature: Feature, chosen: list[Event], event: Event) -> float:
    return (event.time - chosen[-1].time) / feature.unit if chosen else NAN


def _since_first(feature: Feature, chosen: list[Event], event: Event) -> float:
    return (event.time - chosen[0].time) / feature.unit if chosen else NAN


def _gaps(events: list[Event]) -> list[int]:
    return [after.time - before.time for before, after in pairwise(events)]


def _session(feature: Feature, chosen: list[Event], event: Event) -> list[Event]:
    """The run of events that ends at the payment, the latest first."""
    session: list[Event] = []
    after = event.time - feature.delay
    for other in reversed(chosen):
        if after - other.time > feature.parameter:
            break
        session.append(other)
        after = other.time
    return session


def _session_count(feature: Feature, chosen: list[Event], event: Event) -> float:
    return len(_session(feature, chosen, event))


def _session_duration(feature: Feature, chosen: list[Event], event: Event) -> float:
    session = _session(feature, chosen, event)
    return (event.time - session[-1].time) / feature.unit if session else NAN


def _session_sum(feature: Feature, chosen: list[Event], event: Event) -> Fraction:
    return sum((_number(feature, other) for other in _session(feature, chosen, event)), Fraction(0))


def _number(feature: Feature, event: Event) -> Fraction:
    assert feature.column is not None
    value = kept(feature.column, event)
    assert isinstance(value, Fraction)
    return value


def _weights(feature: Feature, chosen: list[Event], event: Event) -> list[float]:
    newest = event.time - feature.delay
    return [2.0 ** -((newest - other.time) / feature.parameter) for other in chosen]


def _decayed_count(feature: Feature, chosen: list[Event], event: Event) -> float:
    return math.fsum(_weights(feature, chosen, event))


def _decayed_sum(feature: Feature, chosen: list[Event], event: Event) -> Fraction:
    weights = _weights(feature, chosen, event)
    weighed = (Fraction(weight) * _number(feature, one) for weight, one in zip(weights, chosen, strict=True))
    return sum(weighed, Fraction(0))


def _decayed_mean(feature: Feature, chosen: list[Event], event: Event) -> float:
    count = _decayed_count(feature, chosen, event)
    return float(_decayed_sum(feature, chosen, event)) / count if count else NAN


def _place(event: Event) -> tuple[Fraction, Fraction] | None:
    """Latitude and longitude in degrees."""
    found = kept(lat.column, event), kept(lon.column, event)
    if isinstance(found[0], Fraction) and isinstance(found[1], Fraction):
        return found[0], found[1]
    return None


def _nearest(chosen: list[Event]) -> Event | None:
    return next((other for other in reversed(chosen) if _place(other) is not None), None)


def _distance(_: Feature, chosen: list[Event], event: Event) -> float:
    last, here = _nearest(chosen), _place(event)
    there = _place(last) if last is not None else None
    return kilometres(there, here) if there is not None and here is not None else NAN


def kilometres(one: tuple[Fraction, Fraction], other: tuple[Fraction, Fraction]) -> float:
    """Along the great circle; latitudes and longitudes in degrees.

    By the haversine h and by 1 - h without a subtraction, which is as exact at the antipodes as it is near.
    """
    across, along = math.radians((other[0] - one[0]) / 2), math.radians((other[1] - one[1]) / 2)
    middle = math.radians((one[0] + other[0]) / 2)
    cosines = math.cos(math.radians(one[0])) * math.cos(math.radians(other[0]))
    near = math.sin(across) ** 2 + cosines * math.sin(along) ** 2
    far = (math.cos(across) * math.cos(along)) ** 2 + (math.sin(middle) * math.sin(along)) ** 2
    return 2 * 6371.0088 * math.atan2(math.sqrt(near), math.sqrt(far))


def _velocity(feature: Feature, chosen: list[Event], event: Event) -> float:
    last = _nearest(chosen)
    if last is None:
        return NAN
    hours = max(event.time - last.time, 1_000) / 3_600_000
    return _distance(feature, chosen, event) / hours


def _custom(feature: Feature, chosen: list[Event], event: Event) -> float:
    times = np.array([other.time for other in chosen], np.int64)
    values = np.array([float(_number(feature, other)) for other in chosen], np.float64)
    return float(feature.custom.compute(times, values, event.time))


def _mean_gap(feature: Feature, chosen: list[Event], _: Event) -> float | Fraction:
    gaps = _gaps(chosen)
    return Fraction(sum(gaps), len(gaps) * feature.unit) if gaps else NAN


OfEvents = Callable[[Feature, list[Event], Event], float | Fraction]

OF_EVENTS: dict[str, OfEvents] = {
    "count": lambda _feature, chosen, _event: len(chosen),
    "lifetime_count": lambda _feature, chosen, _event: len(chosen),
    "lifetime_age": _since_first,
    "since_last": _since_last,
    "since_first": _since_first,
    "mean_gap": _mean_gap,
    "min_gap": lambda feature, chosen, _: min(_gaps(chosen)) / feature.unit if len(chosen) > 1 else NAN,
    "decayed_count": _decayed_count,
    "session_count": _session_count,
    "session_duration": _session_duration,
    "distance_from_last": _distance,
    "geo_velocity": _velocity,
}
"""Of events whether or not they have a field; in order of time, then arrival."""

OF_FIELD: dict[str, OfEvents] = {
    "decayed_sum": _decayed_sum,
    "decayed_mean": _decayed_mean,
    "session_sum": _session_sum,
    "custom": _custom,
}
"""Of events that have the field, and of when they were."""

Kept = str | Fraction | None


def _novelty(values: list[Kept], own: Kept) -> float:
    return NAN if own is None else float(own not in values)


def _mode(values: list[Kept], own: Kept) -> float | Fraction:
    """The most frequent number; of a text, whether the payment's own is (as frequent as) that."""
    counts = Counter(values)
    most = max(counts.values(), default=0)
    if any(isinstance(value, str) for value in (*values, own)):
        return NAN if own is None or not values else float(counts[own] == most)
    latest = [value for value in values if counts[value] == most]
    return latest[-1] if latest else NAN  # type: ignore[return-value]


def _entropy(values: list[Kept], _: Kept) -> float:
    shares = [count / len(values) for count in Counter(values).values()]
    return -math.fsum(share * math.log(share) for share in shares) if values else NAN


OF_VALUES: dict[str, Callable[[list[Kept], Kept], float | Fraction]] = {
    "distinct": lambda values, _: len(set(values)),
    "novelty": _novelty,
    "mode": _mode,
    "mode_share": lambda values, _: max(Counter(values).values()) / len(values) if values else NAN,
    "entropy": _entropy,
}
"""Of the values in the window, in order, and the payment's own."""


def _last(feature: Feature, numbers: list[Fraction]) -> Fraction | float:
    back = max(1, int(feature.parameter))
    return numbers[-back] if len(numbers) >= back else NAN


def _quantile(feature: Feature, numbers: list[Fraction]) -> Fraction | float:
    """By nearest rank, for q as it was typed: ceil(0.28 * 25) is 8 in floats."""
    place = math.ceil(Fraction(repr(feature.parameter)) * len(numbers))
    return sorted(numbers)[place - 1] if numbers else NAN


OF_PLACES: dict[str, Callable[[Feature, list[Fraction]], Fraction | float]] = {
    "last": _last,
    "quantile": _quantile,
}
"""One of the numbers, by its place."""


def _moment(numbers: list[Fraction], power: int) -> Fraction:
    """A central moment."""
    middle = sum(numbers, Fraction(0)) / len(numbers)
    return sum(((number - middle) ** power for number in numbers), Fraction(0)) / len(numbers)


def _variance(numbers: list[Fraction]) -> Fraction | float:
    return _moment(numbers, 2) if numbers else NAN


def _skewness(numbers: list[Fraction]) -> float:
    if len(set(numbers)) < 2:
        return NAN
    return float(_moment(numbers, 3)) / float(_moment(numbers, 2)) ** 1.5


AGGREGATES: dict[str, Callable[[list[Fraction]], Fraction | float]] = {
    "sum": lambda numbers: sum(numbers, Fraction(0)),
    "mean": lambda numbers: sum(numbers, Fraction(0)) / len(numbers) if numbers else NAN,
    "variance": _variance,
    "std": lambda numbers: math.sqrt(_variance(numbers)),
    "min": lambda numbers: min(numbers) if numbers else NAN,
    "max": lambda numbers: max(numbers) if numbers else NAN,
    "range": lambda numbers: max(numbers) - min(numbers) if numbers else NAN,
    "first": lambda numbers: numbers[0] if numbers else NAN,
    "skewness": _skewness,
}
