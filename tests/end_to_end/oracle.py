"""A naive second implementation of the contract: what must become of each payment record of a partition."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .acceptance import USUAL, Acceptance, Limits, Refused
from .reading import Payment
from .windows import Feature

Features = dict[str, float | None]
Derive = Callable[[Features], float | None]


@dataclass(frozen=True)
class Answer:
    """A decision, or a rejection with its code; `first` is the offset of the payment that it repeats."""

    payment_id: str | None
    code: str | None = None
    first: int | None = None
    features: Features = field(default_factory=dict)
    score: float = 0.0
    action: str = "allow"
    missing: tuple[str, ...] = ()


class Oracle:
    """Answers the records of one partition in order; `derived` computes what is not of one entity."""

    def __init__(self, topology: Any, derived: Mapping[str, Derive], limits: Limits = USUAL) -> None:
        self._topology = topology
        self._derived = derived
        self._acceptance = Acceptance(limits)
        self._counted: dict[tuple[str, ...], list[Payment]] = {}

    def answer(self, offset: int, timestamp: int, value: bytes | None) -> Answer:
        """Judge one record: its code, or its features, score and action."""
        payment = self._acceptance.judge(offset, timestamp, value)
        if isinstance(payment, Refused):
            return Answer(payment.payment_id, payment.code, payment.first)
        decided = self._decide(payment)
        for entity in self._topology.all_entities:
            if payment.get("live", True) and all(key in payment for key in entity.keys):
                self._counted.setdefault(_key(entity, payment), []).append(payment)
        return decided

    def _decide(self, payment: Payment) -> Answer:
        features: Features = {}
        for entity in self._topology.all_entities:
            features |= self._features_of(entity, payment)
        features |= {name: derive(features) for name, derive in self._derived.items()}
        (model,) = self._topology.models
        given = {name: features[name] for name in model.features if features[name] is not None}
        score = model.learner.predict_proba_one(given)[True]
        action = self._act(score, features)
        keys = dict.fromkeys(key for entity in self._topology.all_entities for key in entity.keys)
        missing = tuple(key for key in keys if key not in payment)
        return Answer(payment["payment_id"], None, None, features, score, action, missing)

    def _features_of(self, entity: Any, payment: Payment) -> Features:
        names = [feature.name for feature in entity.features]
        if not all(key in payment for key in entity.keys):
            return dict.fromkeys(names)
        counted = self._counted.get(_key(entity, payment), [])
        earlier = [other for other in counted if other["event_time"] <= payment["event_time"]]
        return {
            name: Feature.named(name.removeprefix(f"{entity.name}_")).of(payment, earlier) for name in names
        }

    def _act(self, score: float, features: Features) -> str:
        compare: dict[str, Callable[[float, float], bool]] = {
            ">=": lambda one, other: one >= other,
            ">": lambda one, other: one > other,
            "<=": lambda one, other: one <= other,
            "<": lambda one, other: one < other,
        }
        for rule in self._topology.policy.rules:
            condition = rule.condition
            found = features[condition.feature] if hasattr(condition, "feature") else score
            if found is not None and compare[condition.operator](found, condition.threshold):
                return str(rule.action)
        return "allow"


def _key(entity: Any, payment: Payment) -> tuple[str, ...]:
    return (entity.name, *(payment[key] for key in entity.keys))
