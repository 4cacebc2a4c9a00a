"""The frozen description of a job: entities, features, models, policy; it validates itself when built."""

import difflib
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from streamer.currencies import EXPONENTS
from streamer.errors import ConfigError, TopologyError
from streamer.events import MADE, Payment, Source
from streamer.features.declarations import Entity, Expression
from streamer.features.derived import Compare, Derived, FeatureRef
from streamer.features.expressions import OwnValue
from streamer.features.fields import Column, Field, NumberField
from streamer.features.labelled import tables_of
from streamer.features.needs import columns_of
from streamer.features.plan import compile_entity
from streamer.models.pipelines import parts_of
from streamer.sites import Site, declared_at, here
from streamer.units import parse_duration

Action = Literal["allow", "challenge", "review", "block"]
"""What a decision tells the caller to do."""

ACTIONS: tuple[Action, ...] = ("allow", "challenge", "review", "block")
"""Mildest first."""

Input = Entity | FeatureRef | Derived
"""What a model takes in: all features of an entity, one of them, or one derived from them."""


@dataclass(frozen=True, slots=True)
class ScoreCondition:
    """Holds for payments whose score of a model compares so with a threshold between 0 and 1."""

    model: str
    operator: str
    threshold: float

    def __bool__(self) -> bool:
        raise TopologyError(
            f"a comparison of model {self.model!r} is neither true nor false here; write one rule for each"
            " comparison, not `and`, `or`, `not` or `a < x < b`"
        )


@dataclass(frozen=True, eq=False)
class Model:
    """A River pipeline that scores payments and learns from their outcomes.

    `inputs` fixes the order of its features. `good_after` is how long after a payment without evidence of
    fraud it counts as good (a duration such as "45d"), and `good_share` the share of those that is learned
    from, each weighted by its inverse. Renaming a model starts it anew.
    """

    name: str
    inputs: Sequence[Input]
    learner: Any
    good_after: str = "45d"
    good_share: float = 1.0
    site: Site | None = field(default_factory=here, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _check_name("model", self.name)
        self._check_inputs()
        try:
            parts_of(self.learner)
        except TopologyError as error:
            raise TopologyError(f"model {self.name!r}: {error}") from error
        if not (isinstance(self.good_share, int | float) and 0.0 < self.good_share <= 1.0):
            raise TopologyError(
                f"model {self.name!r}: expected a good_share above 0 and at most 1, got {self.good_share!r}"
            )
        try:
            parse_duration(self.good_after)
        except (ConfigError, TypeError) as error:
            raise TopologyError(f"model {self.name!r}: good_after: {error}") from error

    @property
    def good_after_ms(self) -> int:
        """`good_after` in milliseconds."""
        return parse_duration(self.good_after)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """The names of its inputs, in order."""
        return tuple(itertools.chain.from_iterable(_names(given) for given in self.inputs))

    def __ge__(self, threshold: float) -> ScoreCondition:
        return self._compare(">=", threshold)

    def __gt__(self, threshold: float) -> ScoreCondition:
        return self._compare(">", threshold)

    def __le__(self, threshold: float) -> ScoreCondition:
        return self._compare("<=", threshold)

    def __lt__(self, threshold: float) -> ScoreCondition:
        return self._compare("<", threshold)

    def _check_inputs(self) -> None:
        if isinstance(self.inputs, Input) or not self.inputs:
            raise TopologyError(
                f"model {self.name!r}: expected a list of inputs, got"
                f" {'an empty one' if not isinstance(self.inputs, Input) else 'one input'};"
                " write inputs=[...] with entities or features of them"
            )
        for given in self.inputs:
            if isinstance(given, Input):
                continue
            raise TopologyError(
                f"model {self.name!r}: expected inputs that are entities or features, got"
                f" {type(given).__name__}; {_as_input(given)}"
            )
        _check_unique("input", ((name, None) for name in self.features))

    def _compare(self, operator: str, threshold: float) -> ScoreCondition:
        if not (isinstance(threshold, int | float) and 0.0 <= threshold <= 1.0):
            raise TopologyError(f"model {self.name!r}: expected a threshold from 0 to 1, got {threshold!r}")
        return ScoreCondition(self.name, operator, float(threshold))


Condition = ScoreCondition | Compare


@dataclass(frozen=True, slots=True)
class Rule:
    """An action for the payments that meet a condition, and the stable code that says why."""

    action: Action
    condition: Condition
    reason: str


def block(condition: Condition, reason: str | None = None) -> Rule:
    """Refuse the payment."""
    return _rule("block", condition, reason)


def review(condition: Condition, reason: str | None = None) -> Rule:
    """Let a person look at the payment."""
    return _rule("review", condition, reason)


def challenge(condition: Condition, reason: str | None = None) -> Rule:
    """Ask the payer for a second factor."""
    return _rule("challenge", condition, reason)


def allow(condition: Condition, reason: str | None = None) -> Rule:
    """Accept the payment, whatever the rules below say."""
    return _rule("allow", condition, reason)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in order: the first one that holds decides, and where none does it is `allow`."""

    name: str
    version: int
    rules: Sequence[Rule] = ()

    def __post_init__(self) -> None:
        _check_name("policy", self.name)
        if not (isinstance(self.version, int) and self.version >= 1):
            raise TopologyError(
                f"policy {self.name!r}: expected a version of 1 or more, got {self.version!r}"
            )
        _check_all(f"policy {self.name!r}: rules", self.rules, Rule, "rules=[block(...), review(...)]")

    @property
    def label(self) -> str:
        """As it stands in a decision: `name@version`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class Topology:
    """One job. The first model's score is the decision's.

    `entities` adds entities that neither a model nor a rule names; theirs are computed and stored as well.
    """

    name: str
    models: Sequence[Model]
    policy: Policy
    source: Source = field(default_factory=Source)
    base_currency: str = "EUR"
    entities: Sequence[Entity] = ()

    def __post_init__(self) -> None:
        _check_name("topology", self.name)
        _check_all(f"topology {self.name!r}: models", self.models, Model, "models=[...]")
        _check_all(f"topology {self.name!r}: entities", self.entities, Entity, "entities=[...]")
        if not isinstance(self.policy, Policy):
            raise TopologyError(
                f"topology {self.name!r}: expected a Policy, got {type(self.policy).__name__}"
            )
        if self.base_currency not in EXPONENTS:
            raise TopologyError(
                f"topology {self.name!r}: expected an ISO 4217 code such as 'EUR' as base_currency, got"
                f" {self.base_currency!r}{_likely(self.base_currency, EXPONENTS)}"
            )
        if not self.models:
            raise TopologyError(f"topology {self.name!r} has no model; its decisions need a score")
        _check_unique("model", ((model.name, model.site) for model in self.models))
        _check_unique("entity", ((entity.name, entity.site) for entity in self.all_entities))
        own = ((name, entity.site) for entity in self.all_entities for name in _names(entity))
        derived = ((one.name, one.site) for one in self.derived)
        _check_unique("feature", itertools.chain(own, derived))
        self._check_rules()
        self._check_fields()

    @cached_property
    def all_entities(self) -> tuple[Entity, ...]:
        """Every entity that a model, a rule or `entities` names, in order of first mention."""
        found: dict[int, Entity] = {}
        for entity in itertools.chain(
            self.entities,
            itertools.chain.from_iterable(
                _entities(given) for model in self.models for given in model.inputs
            ),
            itertools.chain.from_iterable(
                _entities(rule.condition) for rule in self.policy.rules if isinstance(rule.condition, Compare)
            ),
        ):
            found.setdefault(id(entity), entity)
        return tuple(found.values())

    @cached_property
    def derived(self) -> tuple[Derived, ...]:
        """Every derived feature, in order of first mention, each once."""
        found: dict[str, Derived] = {}
        inputs = itertools.chain.from_iterable(model.inputs for model in self.models)
        compared = (rule.condition.left for rule in self.policy.rules if isinstance(rule.condition, Compare))
        for given in itertools.chain(inputs, compared):
            if isinstance(given, Derived) and found.setdefault(given.name, given) != given:
                with declared_at(given.site):
                    raise TopologyError(
                        f"two different features are named {given.name!r}; rename one with .named()"
                    )
        return tuple(found.values())

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of all features in the order of the columns: those of the entities, then the derived."""
        own = itertools.chain.from_iterable(_names(entity) for entity in self.all_entities)
        return (*own, *(derived.name for derived in self.derived))

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits that change when a declaration changes."""
        described = repr(
            (
                self.name,
                self.base_currency,
                self.source,
                self.all_entities,
                self.derived,
                [(m.name, m.features, repr(m.learner), m.good_after_ms, m.good_share) for m in self.models],
                self.policy,
            )
        )
        return hashlib.sha256(described.encode()).hexdigest()[:12]

    def columns_of(self, names: Sequence[str]) -> list[int]:
        """Where the named features stand in a matrix of all `features`."""
        at = {name: column for column, name in enumerate(self.features)}
        return [at[name] for name in names]

    def _check_rules(self) -> None:
        known = {model.name for model in self.models}
        for rule in self.policy.rules:
            if rule.action not in ACTIONS:
                raise TopologyError(
                    f"policy {self.policy.name!r}: unknown action {rule.action!r}; one of {ACTIONS}"
                )
            if isinstance(rule.condition, ScoreCondition) and rule.condition.model not in known:
                raise TopologyError(
                    f"policy {self.policy.name!r} uses model {rule.condition.model!r},"
                    f" which the topology does not list{_likely(rule.condition.model, known)}"
                )

    def _check_fields(self) -> None:
        """Refuse attributes that the source does not keep, and what cannot be laid out in memory."""
        declared = self.source.attributes
        for entity in self.all_entities:
            with declared_at(entity.site):
                for key in entity.keys:
                    _check_attribute(Column(key, text=True, site=entity.site), declared)
                for feature in entity.features:
                    for column in columns_of(feature):
                        _check_attribute(column, declared)
                for table in tables_of(entity):
                    compile_entity(table, 0)
        for one in self.derived:
            for part in one.walk():
                if isinstance(part, OwnValue):
                    _check_attribute(part.column, declared)


def _as_input(given: object) -> str:
    """How to make an input of what is none."""
    if isinstance(given, Expression):
        return 'give the expression a name with .named("...")'
    if isinstance(given, NumberField):
        return f"for the payment's own write payment_value({given.name})"
    if isinstance(given, Field):
        return f"field {given.name!r} is text; count or group by it in an entity"
    return "a feature of an entity is entity['name']"


def _check_attribute(column: Column, declared: Mapping[str, type]) -> None:
    """Refuse a field that no payment has, since it would be absent for ever."""
    if column.name in Payment.__struct_fields__ or column.name in MADE:
        return
    kind = declared.get(column.name)
    if kind is not None and (kind is str) == column.text:
        return
    wanted = "text" if column.text else "a number"
    got = f"{kind.__name__}" if kind is not None else "nothing of that name"
    known = [*Payment.__struct_fields__, *MADE, *declared]
    with declared_at(column.site):
        raise TopologyError(
            f"field {column.name!r}: expected an attribute of the source that is {wanted}, got {got}"
            f"{_likely(column.name, known) if kind is None else ''}; declare it:"
            f" source=Source(attributes={{{column.name!r}: {'str' if column.text else 'float'}}})"
        )


def _rule(action: Action, condition: Condition, reason: str | None) -> Rule:
    if isinstance(condition, ScoreCondition):
        return Rule(action, condition, reason or f"{condition.model}_score")
    if isinstance(condition, Compare):
        return Rule(action, condition, reason or condition.label)
    raise TopologyError(
        f"{action}(...): expected a comparison such as `fraud >= 0.9` or `card['count_1m'] > 8`,"
        f" got `{type(condition).__name__}`"
    )


def _entities(given: object) -> Iterable[Entity]:
    """The entities below an input or a condition."""
    if isinstance(given, Entity):
        return (given,)
    if isinstance(given, FeatureRef):
        return (given.entity,)
    return given.entities()  # type: ignore[attr-defined,no-any-return]


def _names(given: Input) -> Iterable[str]:
    if isinstance(given, Entity):
        return tuple(feature.name for feature in given.features)
    return (given.name,)


def _check_name(what: str, name: str) -> None:
    if not (name.isascii() and name.replace("_", "a").replace("-", "a").isalnum() and name[0].isalpha()):
        raise TopologyError(
            f"expected a {what} name of letters, digits, '_' and '-' that begins with a letter, got {name!r}"
        )


def _check_all(what: str, given: object, kind: type, remedy: str) -> None:
    """Refuse what is no sequence of `kind`."""
    strange = (
        [value for value in given if not isinstance(value, kind)] if isinstance(given, Sequence) else [given]
    )
    if strange:
        found = type(strange[0]).__name__
        raise TopologyError(f"{what}: expected a list of {kind.__name__}, got {found}; write {remedy}")


def _check_unique(what: str, named: Iterable[tuple[str, Site | None]]) -> None:
    seen: set[str] = set()
    for name, site in named:
        if name in seen:
            with declared_at(site):
                raise TopologyError(
                    f"two {what}s are named {name!r}: do you declare the same {what} twice?"
                    " Give one another name"
                )
        seen.add(name)


def _likely(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
