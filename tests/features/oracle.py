"""What every feature must be, straight from its definition, by lists, loops and fractions."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from streamer.batch import Bool, Float64, Int64, Text
from streamer.features.aggregates import Feature
from streamer.features.declarations import Entity
from streamer.features.fields import Both, Either, Not, Test, Where
from streamer.features.layout import MISSING

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


class Batch:
    """Columns of events."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.event_time: Int64 = np.array([event.time for event in events], np.int64)
        self.amount: Int64 = np.array(
            [MISSING if event.amount is None else event.amount for event in events], np.int64
        )
        self.live: Bool = np.array([event.live for event in events], np.bool_)

    def text(self, name: str) -> Text:
        """A column of text."""
        return Text.pack([event.value(name) for event in self.events])  # type: ignore[misc]

    def number(self, name: str) -> Float64:
        """A column of numbers."""
        return np.array([event.value(name) for event in self.events], np.float64)

    def __len__(self) -> int:
        return len(self.events)


class Blocks:
    """A store of blocks that remembers how often it was asked."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.asked = 0

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """What was written last."""
        self.asked += len(keys)
        return [self.rows.get(key) for key in keys]

    def write(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        """Take in a cut."""
        for key, value in rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value


class Oracle:
    """Keeps every live event of every key in order of arrival, and computes each feature from all of them."""

    def __init__(self, entities: list[Entity]) -> None:
        self.entities = entities
        self.seen: list[Event] = []

    def answer(self, event: Event) -> list[float]:
        """The features of the next event; afterwards it is counted."""
        row = []
        for entity in self.entities:
            key = [event.value(name) for name in entity.keys]
            if None in key:
                row += [NAN] * len(entity.features)
                continue
            mine = [other for other in self.seen if [other.value(name) for name in entity.keys] == key]
            row += [feature_of(feature, mine, event) for feature in entity.features]
        if event.live:
            self.seen.append(event)
        return row


def feature_of(feature: Feature, earlier: list[Event], event: Event) -> float:
    """One feature, from all earlier arrivals of the key and the event itself."""
    ahead = list(earlier)
    if not feature.before_payment and feature.kind != "since_last":
        ahead.append(event)
    newest = event.time - feature.delay
    chosen = [other for other in ahead if newest - feature.window < other.time <= newest]
    if feature.where is not None:
        chosen = [other for other in chosen if meets(feature.where, other)]
    chosen.sort(key=lambda other: other.time)
    if feature.kind == "since_last":
        return (event.time - chosen[-1].time) / feature.unit if chosen else NAN
    if feature.kind == "since_first":
        return (event.time - chosen[0].time) / feature.unit if chosen else NAN
    if feature.kind == "count":
        return float(len(chosen))
    assert feature.column is not None
    values = [other.value(feature.column.name) for other in chosen]
    values = [value for value in values if value is not None]
    if feature.kind == "distinct":
        return float(len(set(values)))
    scale = 10**feature.column.decimals
    numbers = [Fraction(round(value * scale), scale) for value in values if not isinstance(value, str)]
    numbers = [number for number in numbers if abs(number * scale) <= 10**12]
    return float(AGGREGATES[feature.kind](numbers))


def meets(where: Where, event: Event) -> bool:
    """Whether an event meets a condition; a missing value meets no comparison."""
    if isinstance(where, Both):
        return meets(where.left, event) and meets(where.right, event)
    if isinstance(where, Either):
        return meets(where.left, event) or meets(where.right, event)
    if isinstance(where, Not):
        return not meets(where.condition, event)
    assert isinstance(where, Test)
    value = event.value(where.column.name)
    if value is None:
        return False
    return any(COMPARISONS[where.operator](value, constant) for constant in where.values)


COMPARISONS: dict[str, Callable[[object, object], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">": lambda a, b: a > b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}


def _variance(numbers: list[Fraction]) -> Fraction | float:
    if not numbers:
        return NAN
    middle = sum(numbers, Fraction(0)) / len(numbers)
    return sum(((number - middle) ** 2 for number in numbers), Fraction(0)) / len(numbers)


AGGREGATES: dict[str, Callable[[list[Fraction]], Fraction | float]] = {
    "sum": lambda numbers: sum(numbers, Fraction(0)),
    "mean": lambda numbers: sum(numbers, Fraction(0)) / len(numbers) if numbers else NAN,
    "variance": _variance,
    "std": lambda numbers: math.sqrt(_variance(numbers)),
    "min": lambda numbers: min(numbers) if numbers else NAN,
    "max": lambda numbers: max(numbers) if numbers else NAN,
    "range": lambda numbers: max(numbers) - min(numbers) if numbers else NAN,
    "first": lambda numbers: numbers[0] if numbers else NAN,
    "last": lambda numbers: numbers[-1] if numbers else NAN,
}
