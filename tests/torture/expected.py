"""What must come of a storm: computed from the input, and from the journal for what depends on learning."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from streamer.journal import JournalEntry
from streamer.models.snapshot import Snapshot
from tests.end_to_end.acceptance import Acceptance, Limits, Refused
from tests.end_to_end.logs import Sent
from tests.end_to_end.reading import Outcome, Payment, Unread, read_outcome

from .ledger import EVERYTHING, Feature, Ledger, Value

Place = tuple[int, int]
"""Partition and offset."""

Score = Callable[[Mapping[str, Value]], float]

COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda one, other: one >= other,
    ">": lambda one, other: one > other,
    "<=": lambda one, other: one <= other,
    "<": lambda one, other: one < other,
}


@dataclass(frozen=True)
class Inputs:
    """What was sent, by offset; `prefix` is that of the topics."""

    payments: Sequence[Sent]
    outcomes: Sequence[Sent]
    prefix: str
    limits: Limits
    places: Mapping[str, Sequence[Place]] = field(default_factory=dict)
    """Partition and offset of each record by topic; without, they are in partition 0, one after the other."""

    def source(self, topic: str, index: int) -> str:
        """How answers name a record."""
        partition, offset = self.places[topic][index] if self.places else (0, index)
        return f"{self.prefix}{topic}/{partition}/{offset}"

    def index(self, topic: str, place: Place) -> int:
        """Which record is at a place; -1 for none."""
        if not self.places:
            return place[1] if place[0] == 0 else -1
        return self._indices[topic].get(place, -1)

    @cached_property
    def _indices(self) -> Mapping[str, Mapping[Place, int]]:
        return {
            topic: {place: at for at, place in enumerate(places)} for topic, places in self.places.items()
        }


@dataclass(frozen=True)
class Decided:
    """A decision as it must be, but for its features."""

    payment: Payment
    score: float
    version: str
    action: str
    codes: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass
class Expected:
    """All answers by offset; of a decided payment the features are a row, NaN where absent."""

    names: tuple[str, ...]
    answers: list[Decided | Refused]
    features: Any
    outcomes: dict[int, Refused] = field(default_factory=dict)


def accept(inputs: Inputs) -> list[Payment | Refused]:
    """Which payments are decided: that depends on the payments alone."""
    acceptance = Acceptance(inputs.limits)
    return [
        acceptance.judge(offset, sent.timestamp, sent.value) for offset, sent in enumerate(inputs.payments)
    ]


def refuse_outcomes(inputs: Inputs, accepted: Iterable[Payment | Refused]) -> dict[int, Refused]:
    """Which outcomes are rejected: those that are none, or of payments that are never decided."""
    decided = {payment["payment_id"] for payment in accepted if isinstance(payment, dict)}
    refused = {}
    for offset, sent in enumerate(inputs.outcomes):
        outcome = read_outcome(sent.value, inputs.limits.max_record_bytes)
        if isinstance(outcome, Unread):
            refused[offset] = Refused(outcome.code, outcome.payment_id)
        elif outcome["payment_id"] not in decided:
            refused[offset] = Refused("unknown_payment", outcome["payment_id"])
    return refused


def frauds_in(
    inputs: Inputs, accepted: Iterable[Payment | Refused], position: int
) -> Iterable[tuple[Payment, int]]:
    """Payments that the first outcomes tell to be frauds, and when that became known."""
    return _Frauds(inputs, accepted).until(position)


def says_fraud(outcomes: Sequence[Outcome]) -> bool:
    """Whether the last of a payment's outcomes says that it is a fraud, given those before it."""
    last = outcomes[-1]
    if last["kind"] == "fraud_reported":
        return True
    grounds = [each.get("category", "fraud") for each in outcomes if each["kind"] == "chargeback"]
    ground = last.get("category", grounds[-1] if grounds else "fraud")
    return last["kind"] in {"chargeback", "dispute_lost"} and ground == "fraud"


class Journal:
    """The entries in their order, and how far they have been followed."""

    def __init__(self, entries: Iterable[JournalEntry], prefix: str) -> None:
        by_sequence: dict[int, JournalEntry] = {}
        for entry in entries:
            if by_sequence.setdefault(entry.sequence, entry) != entry:
                other = by_sequence[entry.sequence]
                raise AssertionError(f"journal: two entries of one sequence: {other} and {entry}")
        self._entries = [by_sequence[sequence] for sequence in sorted(by_sequence)]
        self._payments, self._outcomes = f"{prefix}payments/0", f"{prefix}outcomes/0"
        for one, other in pairwise(self._entries):
            if any(before > after for before, after in zip(self._at(one), self._at(other), strict=True)):
                raise AssertionError(f"journal: positions go back from {one} to {other}")
        self._next = 0

    def reach(self, offset: int) -> Iterable[tuple[int, Mapping[str, int]]]:
        """Positions of outcomes and versions of models that come into force up to a payment."""
        while self._next < len(self._entries) and self._at(self._entries[self._next])[0] <= offset:
            entry = self._entries[self._next]
            self._next += 1
            yield self._at(entry)[1], entry.models

    def _at(self, entry: JournalEntry) -> tuple[int, int]:
        return entry.payments.get(self._payments, 0), entry.outcomes.get(self._outcomes, 0)


class Oracle:
    """Computes the answers of a topology of one model; `derived` and `conditions` are written by hand."""

    def __init__(
        self,
        topology: Any,
        derived: Mapping[str, Callable[[Payment, Mapping[str, Value]], Value]],
        conditions: Mapping[str, Callable[[Payment], bool]],
    ) -> None:
        self._topology = topology
        self._derived = derived
        (self._model,) = topology.models
        self._ids: dict[str, dict[str, int]] = {"merchant": {}, "card": {}, "device": {}}
        self._conditions = conditions
        self._entities = [_Entity(entity) for entity in topology.all_entities]
        self._ledgers: dict[tuple[str, ...], Ledger] = {}
        names = [name for entity in self._entities for name in entity.names]
        self.names = (*names, *derived)

    def expect(
        self, inputs: Inputs, entries: Iterable[JournalEntry], snapshots: Mapping[int, Snapshot]
    ) -> Expected:
        """All answers to the inputs, given the journal and the snapshots by version."""
        accepted = accept(inputs)
        frauds = _Frauds(inputs, accepted)
        journal = Journal(entries, inputs.prefix)
        rows = np.full((len(accepted), len(self.names)), np.nan)
        answers: list[Decided | Refused] = []
        version = 0
        score: Score = self._untaught
        for offset, payment in enumerate(accepted):
            for position, models in journal.reach(offset):
                for fraud, known in frauds.until(position):
                    self._blame(fraud, known)
                if models.get(self._model.name, version) != version:
                    version = models[self._model.name]
                    if version not in snapshots:
                        raise AssertionError(
                            f"models: version {version}, which the journal names, is not there"
                        )
                    score = scorer(snapshots[version])
            if isinstance(payment, Refused):
                answers.append(payment)
                continue
            features = self._features(payment)
            rows[offset] = [np.nan if value is None else value for value in features.values()]
            answers.append(self._decide(payment, features, score(features), version))
        return Expected(self.names, answers, rows, refuse_outcomes(inputs, accepted))

    def _untaught(self, features: Mapping[str, Value]) -> float:
        given = {name: features[name] for name in self._model.features if features[name] is not None}
        return float(self._model.learner.predict_proba_one(given)[True])

    def _ledger(self, entity: "_Entity", payment: Payment) -> Ledger | None:
        if not all(key in payment for key in entity.keys):
            return None
        name = (entity.name, *(payment[key] for key in entity.keys))
        if name not in self._ledgers:
            self._ledgers[name] = Ledger({track: self._values_of(track) for track in entity.tracks})
        return self._ledgers[name]

    def _values_of(self, track: str) -> Callable[[Payment], int | None]:
        """Which payments are on a track, and with which value."""
        if track == EVERYTHING:
            return lambda _: 1
        if track == "amount":
            return base_amount
        if track in self._conditions:
            holds = self._conditions[track]
            return lambda payment: 1 if holds(payment) else None
        ids = self._ids[track]
        return lambda payment: ids.setdefault(payment[track], len(ids)) if track in payment else None

    def _blame(self, payment: Payment, known: int) -> None:
        for entity in self._entities:
            ledger = self._ledger(entity, payment)
            if ledger is not None:
                ledger.blame(known)

    def _features(self, payment: Payment) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for entity in self._entities:
            ledger = self._ledger(entity, payment)
            if ledger is None:
                found |= dict.fromkeys(entity.names)
            else:
                found |= zip(entity.names, ledger.features(payment, entity.features), strict=True)
        return found | {name: derive(payment, found) for name, derive in self._derived.items()}

    def _decide(self, payment: Payment, features: Mapping[str, Value], score: float, version: int) -> Decided:
        action, codes = "allow", list[str]()
        open_still, explained = True, False
        for rule in self._topology.policy.rules:
            condition = rule.condition
            on_score = not hasattr(condition, "feature")
            found = score if on_score else features[condition.feature]
            if found is None or not COMPARE[condition.operator](found, condition.threshold):
                continue
            if open_still:
                action, open_still = rule.action, False
            if rule.action != "allow" and action != "allow" and not (on_score and explained):
                codes.append(rule.reason)
            explained = explained or on_score
        keys = dict.fromkeys(key for entity in self._entities for key in entity.keys)
        missing = tuple(key for key in keys if key not in payment)
        return Decided(payment, score, str(version), action, tuple(codes), missing)


def base_amount(payment: Payment) -> int | None:
    """The amount in the base currency; without rates only that of EUR is known."""
    return payment["amount"] if payment["currency"] == "EUR" else None


def scorer(snapshot: Snapshot) -> Score:
    """Score by the numbers of a snapshot, one feature at a time."""
    compiled = snapshot.compiled
    parts = list(zip(snapshot.inputs, compiled.means, compiled.deviations, compiled.weights, strict=True))

    def score(features: Mapping[str, Value]) -> float:
        terms = [compiled.intercept]
        for name, mean, deviation, weight in parts:
            value = features[name]
            if value is None or deviation == 0.0:
                continue
            if compiled.log1p:
                value = math.copysign(math.log1p(abs(value)), value)
            terms.append(weight * (value - mean) / deviation)
        margin = math.fsum(terms)
        return 1 / (1 + math.exp(-margin)) if margin > -700 else 0.0

    return score


class _Entity:
    """An entity's features as the oracle counts them."""

    def __init__(self, entity: Any) -> None:
        self.name = entity.name
        self.keys = entity.keys
        self.names = [feature.name for feature in entity.features]
        longest = max(feature.window for feature in entity.features)
        priors = [getattr(feature, "prior", None) or (0, 0) for feature in entity.features]
        self.features = [
            Feature.declared(name.removeprefix(f"{entity.name}_"), longest, prior)
            for name, prior in zip(self.names, priors, strict=True)
        ]
        self.tracks = {EVERYTHING, *(feature.track for feature in self.features)}


class _Frauds:
    """Payments that become known as fraud, in the order of the outcomes."""

    def __init__(self, inputs: Inputs, accepted: Iterable[Payment | Refused]) -> None:
        self._inputs = inputs
        self._decided = {payment["payment_id"]: payment for payment in accepted if isinstance(payment, dict)}
        self._heard: dict[str, dict[str, Outcome]] = {}
        self._known: set[str] = set()
        self._next = 0

    def until(self, position: int) -> Iterable[tuple[Payment, int]]:
        """Those that outcomes before a position tell of for the first time, and when they became known."""
        for sent in self._inputs.outcomes[self._next : position]:
            outcome = read_outcome(sent.value, self._inputs.limits.max_record_bytes)
            if isinstance(outcome, Unread) or outcome["payment_id"] not in self._decided:
                continue
            payment = self._decided[outcome["payment_id"]]
            heard = self._heard.setdefault(outcome["payment_id"], {})
            if outcome["outcome_id"] in heard:
                continue
            heard[outcome["outcome_id"]] = outcome
            if outcome["payment_id"] in self._known or not says_fraud(list(heard.values())):
                continue
            self._known.add(outcome["payment_id"])
            if payment.get("live", True):
                yield payment, outcome["event_time"]
        self._next = max(self._next, position)
