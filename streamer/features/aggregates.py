"""The aggregates a topology can name, one function each, and the features they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from streamer.errors import ConfigError, TopologyError
from streamer.features.fields import Column, Field, NumberField, Where
from streamer.sites import Site, here
from streamer.units import parse_duration

Kind = Literal[
    "count", "sum", "mean", "variance", "std", "min", "max", "range", "distinct", "first", "last",
    "since_last", "since_first",
]  # fmt: skip

UNITS: Final[Mapping[str, int]] = MappingProxyType(
    {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
)


@dataclass(frozen=True, slots=True)
class Feature:
    """One number about a key at a payment.

    Its window is (t - delay - window, t - delay] of event time, the payment at t included where
    `before_payment` is false and `delay` 0. Durations and `unit` are in ms. Renaming it is a new feature.
    """

    name: str
    kind: Kind
    column: Column | None
    window: int
    delay: int
    where: Where | None
    before_payment: bool
    unit: int


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A family of features: one aggregate over several windows."""

    kind: Kind
    column: Column | None = None
    windows: tuple[str, ...] = ()
    where: Where | None = None
    delay: str | None = None
    name: str | None = None
    unit: str = "ms"
    before_payment: bool = False
    site: Site | None = field(default_factory=here, kw_only=True, repr=False, compare=False)

    def before(self) -> "Aggregate":
        """The same without the payment itself."""
        return replace(self, before_payment=True)

    def features(self, entity: str, longest: int) -> list[Feature]:
        """The features of an entity; its longest window (ms) bounds what has no window of its own."""
        where = f"entity {entity!r}, {self.kind}"
        if self.unit not in UNITS:
            raise TopologyError(f"{where}: expected a unit of {', '.join(UNITS)}, got {self.unit!r}")
        delay = _duration(self.delay, where) if self.delay is not None else 0
        if not self.windows:
            return [self._feature(self._name(entity, None), longest, delay)]
        return [
            self._feature(self._name(entity, window), _duration(window, where), delay)
            for window in self.windows
        ]

    def reach(self, entity: str) -> int:
        """How far back its windows look, in ms; 0 without any."""
        where = f"entity {entity!r}, {self.kind}"
        delay = _duration(self.delay, where) if self.delay is not None else 0
        return max((_duration(window, where) + delay for window in self.windows), default=0)

    def _feature(self, name: str, window: int, delay: int) -> Feature:
        unit = UNITS[self.unit]
        return Feature(name, self.kind, self.column, window, delay, self.where, self.before_payment, unit)

    def _name(self, entity: str, window: str | None) -> str:
        if self.name is not None:
            if len(self.windows) > 1 and "{window}" not in self.name:
                raise TopologyError(
                    f"entity {entity!r}: {self.name!r} would name {len(self.windows)} features;"
                    f" write {self.name + '_{window}'!r}"
                )
            return self.name.replace("{window}", window or "")
        if self.where is not None:
            raise TopologyError(
                f"entity {entity!r}: {self.kind} with a condition needs a name of its own;"
                f' add name="{entity}_{self.kind}_<condition>_{{window}}"'
            )
        parts = [entity, self.kind]
        if self.column is not None:
            parts.append(self.column.name)
        if window is not None:
            parts.append(window)
        if self.delay is not None:
            parts += ["delay", self.delay]
        if self.before_payment:
            parts.append("before")
        return "_".join(parts)


def count(
    *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """How many payments."""
    return Aggregate("count", None, _windows("count", windows), _where("count", where), delay, name)


def total(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Sum of a number; of nothing it is 0."""
    return _numeric("sum", field, windows, (where, delay, name))


def mean(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Arithmetic mean of a number; absent where there is none."""
    return _numeric("mean", field, windows, (where, delay, name))


def variance(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Population variance of a number (divides by n), without cancellation."""
    return _numeric("variance", field, windows, (where, delay, name))


def std(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Population standard deviation of a number (divides by n), without cancellation."""
    return _numeric("std", field, windows, (where, delay, name))


def minimum(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Least value of a number."""
    return _numeric("min", field, windows, (where, delay, name))


def maximum(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Greatest value of a number."""
    return _numeric("max", field, windows, (where, delay, name))


def spread(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Greatest minus least value of a number; the feature is called `range`."""
    return _numeric("range", field, windows, (where, delay, name))


def first(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Earliest value of a number in the window; of equal times the one that arrived first."""
    return _numeric("first", field, windows, (where, delay, name))


def last(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Latest value of a number in the window; of equal times the one that arrived last."""
    return _numeric("last", field, windows, (where, delay, name))


def distinct(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """How many different values of a field, exactly."""
    column = _field("distinct", field).column
    return Aggregate(
        "distinct", column, _windows("distinct", windows), _where("distinct", where), delay, name
    )


def since_last(
    *windows: str, unit: str = "s", where: Where | None = None, name: str | None = None
) -> Aggregate:
    """Time since the payment before this one; without a window it looks back over the entity's longest."""
    return Aggregate("since_last", None, windows, _where("since_last", where), None, name, unit)


def since_first(
    *windows: str, unit: str = "s", where: Where | None = None, name: str | None = None
) -> Aggregate:
    """Time since the first payment of the window, 0 if it is this one; without a window over the longest."""
    return Aggregate("since_first", None, windows, _where("since_first", where), None, name, unit)


def _numeric(kind: Kind, field: Field, windows: tuple[str, ...], options: "_Options") -> Aggregate:
    if not isinstance(_field(kind, field), NumberField):
        raise TopologyError(
            f"{kind}: expected a field of numbers such as amount, got {field.name!r}, which is text;"
            f" did you mean distinct({field.name}, ...)?"
        )
    where, delay, name = options
    return Aggregate(kind, field.column, _windows(kind, windows), _where(kind, where), delay, name)


_Options = tuple[Where | None, str | None, str | None]


def _field(kind: str, field: object) -> Field:
    if isinstance(field, Field):
        return field
    raise TopologyError(
        f'{kind}: expected a field first, as in {kind}(amount, "1h"), got {field!r};'
        " import it from streamer, or declare an attribute with number() or text()"
    )


def _windows(kind: str, windows: tuple[str, ...]) -> tuple[str, ...]:
    if not windows:
        raise TopologyError(f'{kind}: expected at least one window such as "1h", got none')
    for window in windows:
        if not isinstance(window, str):
            raise TopologyError(
                f'{kind}: expected windows such as "1h", got {window!r}; it takes one field only'
            )
    return windows


def _where(kind: str, where: object) -> Where | None:
    if where is None or isinstance(where, Where):
        return where
    raise TopologyError(f"{kind}: expected where= to be a condition such as `attempt > 1`, got {where!r}")


def _duration(text: str, where: str) -> int:
    if not isinstance(text, str):
        raise TopologyError(f'{where}: expected a duration such as "30d", got {text!r}; write it as text')
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise TopologyError(f"{where}: {error}") from error
