"""Entities, the features they have, and expressions over features."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from streamer.errors import TopologyError
from streamer.features.aggregates import Aggregate, Feature
from streamer.features.fields import FIELDS, Field, NumberField, TextField
from streamer.sites import Site, declared_at, here

DEFAULT_REACH: Final = 30 * 86_400_000
"""How far back an aggregate without a window looks in an entity that has no window at all, in ms."""

Operator = Literal["<", "<=", ">", ">="]
Arithmetic = Literal["+", "-", "*", "/"]


class Expression:
    """A number computed from features of one payment."""

    def __add__(self, other: "Expression | float") -> "Binary":
        return Binary("+", self, _expression(other))

    def __radd__(self, other: float) -> "Binary":
        return Binary("+", _expression(other), self)

    def __sub__(self, other: "Expression | float") -> "Binary":
        return Binary("-", self, _expression(other))

    def __rsub__(self, other: float) -> "Binary":
        return Binary("-", _expression(other), self)

    def __mul__(self, other: "Expression | float") -> "Binary":
        return Binary("*", self, _expression(other))

    def __rmul__(self, other: float) -> "Binary":
        return Binary("*", _expression(other), self)

    def __truediv__(self, other: "Expression | float") -> "Binary":
        return Binary("/", self, _expression(other))

    def __rtruediv__(self, other: float) -> "Binary":
        return Binary("/", _expression(other), self)

    def log1p(self) -> "Log1p":
        """ln(1 + x); absent at -1 and below."""
        return Log1p(self)

    def log(self) -> "Log":
        """ln(x); absent at 0 and below."""
        return Log(self)

    def named(self, name: str) -> "Derived":
        """As a feature of its own, under a name that is stable."""
        return Derived(name, self)

    def entities(self) -> "tuple[Entity, ...]":
        """The entities whose features it uses."""
        return ()

    def parts(self) -> "tuple[Expression, ...]":
        """The expressions that it is made of."""
        return ()

    def walk(self) -> "Iterator[Expression]":
        """Itself and all that it is made of."""
        yield self
        for part in self.parts():
            yield from part.walk()


class Comparable(Expression):
    """An expression that has a name, so that a rule can compare it."""

    name: str

    def __lt__(self, threshold: float) -> "Compare":
        return Compare(self, "<", _threshold(self.name, threshold))

    def __le__(self, threshold: float) -> "Compare":
        return Compare(self, "<=", _threshold(self.name, threshold))

    def __gt__(self, threshold: float) -> "Compare":
        return Compare(self, ">", _threshold(self.name, threshold))

    def __ge__(self, threshold: float) -> "Compare":
        return Compare(self, ">=", _threshold(self.name, threshold))


@dataclass(frozen=True, slots=True)
class Compare:
    """A feature compares so with a threshold; absent features meet no comparison."""

    left: Comparable
    operator: Operator
    threshold: float

    @property
    def feature(self) -> str:
        """The name of the feature."""
        return self.left.name

    @property
    def label(self) -> str:
        """A stable code for it: the name of the feature."""
        return self.left.name

    def entities(self) -> "tuple[Entity, ...]":
        """The entities whose features it uses."""
        return self.left.entities()


@dataclass(frozen=True, init=False)
class Entity:
    """What payments are grouped by, and the features of each group.

    `keys` are the fields whose values together name one (by default the field called like the entity).
    Renaming an entity or changing its keys starts it empty.
    """

    name: str
    keys: tuple[str, ...]
    features: tuple[Feature, ...]
    site: Site | None = field(repr=False, compare=False)

    def __init__(
        self, name: str, keys: Sequence[str | TextField] | None = None, *, features: Sequence[Aggregate] = ()
    ) -> None:
        if not (name.isidentifier() and name.isascii()):
            raise TopologyError(f"expected an entity name of letters, digits and '_', got {name!r}")
        given = (name,) if keys is None else tuple(key if isinstance(key, str) else key.name for key in keys)
        if not given:
            raise TopologyError(f"entity {name!r}: expected at least one key field, got none")
        for key in given:
            _check_key(
                name, key, declared=any(isinstance(k, TextField) and k.name == key for k in keys or ())
            )
        for aggregate in features:
            if not isinstance(aggregate, Aggregate):
                raise TopologyError(
                    f'entity {name!r}: expected aggregates such as count("1h"), got {aggregate!r}'
                )
        expanded = _expanded(name, features)
        if not expanded:
            raise TopologyError(f'entity {name!r} has no features; declare one, such as count("1h")')
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "keys", given)
        object.__setattr__(self, "features", expanded)
        object.__setattr__(self, "site", here())

    def group(self, name: str, features: Iterable[Feature]) -> "Entity":
        """The same keys under a name, with these features: events kept beside those it declares."""
        made = object.__new__(Entity)
        object.__setattr__(made, "name", name)
        object.__setattr__(made, "keys", self.keys)
        object.__setattr__(made, "features", tuple(features))
        object.__setattr__(made, "site", self.site)
        return made

    def __getitem__(self, name: str) -> "FeatureRef":
        names = [feature.name for feature in self.features]
        for candidate in (name, f"{self.name}_{name}"):
            if candidate in names:
                return FeatureRef(self, candidate)
        raise TopologyError(f"entity {self.name!r} has no feature {name!r}{_likely(name, names, self.name)}")


@dataclass(frozen=True, slots=True)
class FeatureRef(Comparable):
    """A feature of an entity."""

    entity: Entity
    name: str

    def entities(self) -> tuple[Entity, ...]:
        """The entity itself."""
        return (self.entity,)


@dataclass(frozen=True, slots=True)
class Derived(Comparable):
    """An expression under a name: a feature computed from others."""

    name: str
    expression: Expression
    site: Site | None = field(default_factory=here, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.name.isidentifier() and self.name.isascii()):
            raise TopologyError(f"expected a feature name of letters, digits and '_', got {self.name!r}")

    def entities(self) -> tuple[Entity, ...]:
        """The entities whose features it uses."""
        return self.expression.entities()

    def parts(self) -> tuple[Expression, ...]:
        """What it names."""
        return (self.expression,)


@dataclass(frozen=True, slots=True)
class Constant(Expression):
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class Binary(Expression):
    """Arithmetic of two; a division by zero is absent."""

    operator: Arithmetic
    left: Expression
    right: Expression

    def entities(self) -> tuple[Entity, ...]:
        """The entities of both sides, each once."""
        both = (*self.left.entities(), *self.right.entities())
        return tuple({id(entity): entity for entity in both}.values())

    def parts(self) -> tuple[Expression, ...]:
        """Both sides."""
        return (self.left, self.right)


@dataclass(frozen=True, slots=True)
class Log1p(Expression):
    """ln(1 + x)."""

    operand: Expression

    def entities(self) -> tuple[Entity, ...]:
        """The entities of the operand."""
        return self.operand.entities()

    def parts(self) -> tuple[Expression, ...]:
        """The operand."""
        return (self.operand,)


@dataclass(frozen=True, slots=True)
class Log(Expression):
    """ln(x)."""

    operand: Expression

    def entities(self) -> tuple[Entity, ...]:
        """The entities of the operand."""
        return self.operand.entities()

    def parts(self) -> tuple[Expression, ...]:
        """The operand."""
        return (self.operand,)


def _expanded(entity: str, aggregates: Sequence[Aggregate]) -> tuple[Feature, ...]:
    """The features of an entity, each under a name of its own."""
    longest = 0
    for aggregate in aggregates:
        with declared_at(aggregate.site):
            longest = max(longest, aggregate.reach(entity))
    seen: dict[str, Feature] = {}
    for aggregate in aggregates:
        with declared_at(aggregate.site):
            for feature in aggregate.features(entity, longest or DEFAULT_REACH):
                if feature.name in seen:
                    raise TopologyError(
                        f"entity {entity!r}: two features are named {feature.name!r};"
                        " is the same window listed twice? Otherwise give one another name="
                    )
                seen[feature.name] = feature
    return tuple(seen.values())


def _expression(given: object) -> Expression:
    if isinstance(given, Expression):
        return given
    if isinstance(given, int | float):
        return Constant(float(given))
    if isinstance(given, Field):
        remedy = (
            f"write payment_value({given.name}) for the payment's own"
            if isinstance(given, NumberField)
            else "which is text: there is nothing to calculate with"
        )
        raise TopologyError(f"expected a feature or a number, got field {given.name!r}; {remedy}")
    raise TopologyError(
        f"expected a feature or a number, got {given!r}; an entity's feature is entity['name']"
    )


def _threshold(name: str, given: object) -> float:
    if isinstance(given, int | float) and given == given:  # noqa: PLR0124 - NaN
        return float(given)
    raise TopologyError(
        f"feature {name!r}: expected a number to compare with, got {given!r};"
        " to compare two features, name their difference or ratio first"
    )


def _check_key(entity: str, key: str, *, declared: bool) -> None:
    field = FIELDS.get(key)
    if declared or isinstance(field, TextField):
        return
    if field is not None:
        raise TopologyError(f"entity {entity!r}: expected key fields of text, got {key!r}, which is a number")
    texts = [name for name, known in FIELDS.items() if isinstance(known, TextField)]
    raise TopologyError(
        f"entity {entity!r}: payments have no field {key!r}{_likely(key, texts)}."
        f' Name the fields with keys=("card", "merchant"), or declare an attribute with text({key!r})'
    )


def _likely(name: str, known: Iterable[str], prefix: str = "") -> str:
    names = {candidate.removeprefix(f"{prefix}_"): candidate for candidate in known}
    close = difflib.get_close_matches(name.removeprefix(f"{prefix}_"), list(names), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
