"""An aggregate as it is declared, and the features it stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, Protocol

from streamer.batch import Float64, Int64
from streamer.errors import ConfigError, TopologyError
from streamer.features.fields import Column, Field, NumberField, Where
from streamer.sites import Site, here
from streamer.units import parse_duration

Kind = Literal[
    "count", "sum", "mean", "variance", "std", "skewness", "min", "max", "range", "distinct", "first", "last",
    "since_last", "since_first", "novelty", "mean_gap", "min_gap", "mode", "mode_share", "entropy",
    "quantile", "decayed_count", "decayed_sum", "decayed_mean", "distance_from_last", "geo_velocity",
    "session_count", "session_sum", "session_duration", "lifetime_count", "lifetime_age",
    "fraud_count", "fraud_rate", "custom",
]  # fmt: skip

UNITS: Final[Mapping[str, int]] = MappingProxyType(
    {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
)


HALF_LIVES: Final = 32
"""So many half-lives back what decays is counted, unless `within` says otherwise."""

MOST_HALF_LIVES: Final = 40

DECAYED: Final = frozenset({"decayed_count", "decayed_sum", "decayed_mean"})
SESSIONS: Final = frozenset({"session_count", "session_sum", "session_duration"})
LIFETIME: Final = frozenset({"lifetime_count", "lifetime_age"})

_WITHOUT_BEFORE: Final = frozenset({"since_last", "novelty", "distance_from_last", "geo_velocity"})


@dataclass(frozen=True, slots=True)
class Feature:
    """One number about a key at a payment.

    Its window is (t - delay - window, t - delay] of event time, the payment at t included where
    `before_payment` is false and `delay` 0. Durations and `unit` are in ms. `parameter` is the half-life (ms)
    of what decays, the gap (ms) of a session, the q of a quantile, the k of a k-th latest value. Renaming it
    is a new feature.
    """

    name: str
    kind: Kind
    column: Column | None
    window: int
    delay: int
    where: Where | None
    before_payment: bool
    unit: int
    parameter: float = 0.0
    custom: "CustomAggregate | None" = field(default=None, repr=False)


class CustomAggregate(Protocol):
    """A user's own aggregate: a number from the events of a window.

    `check_aggregate` of `streamer.conformance` says whether one keeps the rules.
    """

    @property
    def name(self) -> str:
        """As it stands in the names of features; letters, digits and `_`."""

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """The aggregate of a window's n events at time `at`; NaN is absent.

        `times` int64 (n,) in ms ascending, `values` float64 (n,) in whole units of the field, n from 0 on. It
        depends on nothing else and changes neither.
        """


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
    label: str | None = None
    """In place of the kind in names."""
    parameters: tuple[float, ...] = ()
    """One for each window, or one for all; where they are half-lives, `windows` are those."""
    within: str | None = None
    custom: CustomAggregate | None = None
    ranks: int = 0
    """So many features a window, the latest values."""
    site: Site | None = field(default_factory=here, kw_only=True, repr=False, compare=False)

    def before(self) -> "Aggregate":
        """The same without the payment itself."""
        if self.kind in _WITHOUT_BEFORE:
            raise TopologyError(
                f"{self.kind} looks at what came before the payment already; leave out .before()"
            )
        return replace(self, before_payment=True)

    def features(self, entity: str, longest: int) -> list[Feature]:
        """The features of an entity; its longest window (ms) bounds what has no window of its own."""
        where = f"entity {entity!r}, {self.kind}"
        if self.unit not in UNITS:
            raise TopologyError(f"{where}: expected a unit of {', '.join(UNITS)}, got {self.unit!r}")
        if self.ranks:
            return [feature for one in self._ranked(entity) for feature in one.features(entity, longest)]
        delay = _duration(self.delay, where) if self.delay is not None else 0
        if not self.windows:
            return [self._feature(self._name(entity, None), longest, delay, 0)]
        return [
            self._feature(self._name(entity, window), self._window(window, where, longest), delay, place)
            for place, window in enumerate(self.windows)
        ]

    def reach(self, entity: str) -> int:
        """How far back its windows look, in ms; 0 without any."""
        where = f"entity {entity!r}, {self.kind}"
        delay = _duration(self.delay, where) if self.delay is not None else 0
        return max((self._window(window, where, 0) + delay for window in self.windows), default=0)

    def _ranked(self, entity: str) -> "list[Aggregate]":
        if self.ranks > 1 and self.name is not None and "{k}" not in self.name:
            raise TopologyError(
                f"entity {entity!r}: {self.name!r} would name {self.ranks} features; put {{k}} into it"
            )
        return [
            replace(
                self,
                ranks=0,
                parameters=(k,),
                label=f"last{k}",
                name=None if self.name is None else self.name.replace("{k}", str(k)),
            )
            for k in range(1, self.ranks + 1)
        ]

    def _window(self, window: str, where: str, longest: int) -> int:
        """How long the window is of which this names the length, the half-life or the gap, in ms."""
        length = _duration(window, where)
        if self.kind in SESSIONS:
            return longest
        if self.kind not in DECAYED:
            return length
        within = _duration(self.within, where) if self.within is not None else HALF_LIVES * length
        if within > MOST_HALF_LIVES * length:
            raise TopologyError(
                f"{where}: expected within= to be at most {MOST_HALF_LIVES} half-lives of {window}, got"
                f" {self.within!r}; what is older weighs less than 2^-{MOST_HALF_LIVES}"
            )
        return within

    def _feature(self, name: str, window: int, delay: int, place: int) -> Feature:
        parameter = self.parameters[min(place, len(self.parameters) - 1)] if self.parameters else 0.0
        if self.kind in DECAYED or self.kind in SESSIONS:
            parameter = _duration(self.windows[place], name)
        return Feature(
            name, self.kind, self.column, window, delay, self.where, self.before_payment, UNITS[self.unit],
            parameter, self.custom,
        )  # fmt: skip

    def _name(self, entity: str, window: str | None) -> str:
        if self.name is not None:
            if len(self.windows) > 1 and "{window}" not in self.name:
                raise TopologyError(
                    f"entity {entity!r}: {self.name!r} would name {len(self.windows)} features;"
                    f" write {self.name + '_{window}'!r}"
                )
            return self.name.replace("{window}", window or "")
        label = self.label or self.kind
        if self.where is not None:
            raise TopologyError(
                f"entity {entity!r}: {label} with a condition needs a name of its own;"
                f' add name="{entity}_{label}_<condition>_{{window}}"'
            )
        parts = [entity, label]
        if self.column is not None:
            parts.append(self.column.name)
        if window is not None:
            parts.append(window)
        if self.delay is not None:
            parts += ["delay", self.delay]
        if self.before_payment:
            parts.append("before")
        return "_".join(parts)


def _duration(text: str, where: str) -> int:
    if not isinstance(text, str):
        raise TopologyError(f'{where}: expected a duration such as "30d", got {text!r}; write it as text')
    try:
        return parse_duration(text)
    except ConfigError as error:
        raise TopologyError(f"{where}: {error}") from error


Options = tuple[Where | None, str | None, str | None]
"""Condition, delay and name of an aggregate."""


def numeric(kind: Kind, field: Field, windows: tuple[str, ...], options: Options) -> Aggregate:
    """An aggregate of a field of numbers; raises TopologyError for one of text."""
    if not isinstance(check_field(kind, field), NumberField):
        raise TopologyError(
            f"{kind}: expected a field of numbers such as amount, got {field.name!r}, which is text;"
            f" did you mean distinct({field.name}, ...)?"
        )
    where, delay, name = options
    return Aggregate(kind, field.column, check_windows(kind, windows), check_where(kind, where), delay, name)


def check_field(kind: str, field: object) -> Field:
    """The field, or a TopologyError."""
    if isinstance(field, Field):
        return field
    raise TopologyError(
        f'{kind}: expected a field first, as in {kind}(amount, "1h"), got {field!r};'
        " import it from streamer, or declare an attribute with number() or text()"
    )


def check_windows(kind: str, windows: tuple[str, ...]) -> tuple[str, ...]:
    """The windows, or a TopologyError."""
    if not windows:
        raise TopologyError(f'{kind}: expected at least one window such as "1h", got none')
    for window in windows:
        if not isinstance(window, str):
            raise TopologyError(
                f'{kind}: expected windows such as "1h", got {window!r}; it takes one field only'
            )
    return windows


def check_where(kind: str, where: object) -> Where | None:
    """The condition, or a TopologyError."""
    if where is None or isinstance(where, Where):
        return where
    raise TopologyError(f"{kind}: expected where= to be a condition such as `attempt > 1`, got {where!r}")
