"""The last step of a decision: from features to scores, action and reasons, encoded and kept."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from streamer.batch import SOURCE, Float64, Int64, Outgoing, Records, Text
from streamer.decisions import Judge
from streamer.encoding import Copied, DecisionEncoder
from streamer.events import Reason
from streamer.features.derived import evaluate
from streamer.models.scorer import Scorer, compile_pipeline
from streamer.payments import KnownFraud, PaymentBatch
from streamer.rejections import Rejected, add_rejections
from streamer.settings import Topics
from streamer.state.decided import Decided, rows_of
from streamer.state.store import Position, Row
from streamer.topology import ACTIONS, Topology


@dataclass(slots=True)
class Answer:
    """What became of one batch of records.

    `forwarded` are rows for the later stages of a chain, for given partitions. `unreadable` says what came
    from an earlier one and could not be read: nobody's payment, but somebody's mistake.
    """

    decisions: Outgoing
    rejected: Outgoing
    features: Outgoing | None = None
    actions: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    unrated: Counter[str] = field(default_factory=Counter)
    forwarded: list[Outgoing] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    log_times: list[Int64] = field(default_factory=list)
    """Record timestamps (ms) of the payments that were decided."""

    @classmethod
    def to(cls, topics: Topics, *, emit_features: bool) -> Self:
        """An answer that is still empty, to these topics."""
        return cls(
            Outgoing(topics.decisions),
            Outgoing(topics.payments_rejected),
            Outgoing(topics.features) if emit_features else None,
        )

    def refuse(self, records: Records, rejected: Sequence[Rejected]) -> None:
        """Answer records that get no decision."""
        add_rejections(self.rejected, records, rejected)
        self.codes.update(item.code for item in rejected)


class Letter(msgspec.Struct, frozen=True, array_like=True):
    """One record for some partitions of the topic between stages that ends in `to`."""

    to: str
    partitions: tuple[int, ...]
    key: bytes | None
    value: bytes


@dataclass(slots=True)
class Taken:
    """What learning hands over to be taken in at a commit: rows, positions, new scorers by model, frauds.

    `rejected` answers outcomes before these positions, to be delivered before this is stored. `snapshots` are
    to be published, `letters` to be sent to other shards, both once it is.
    """

    rows: list[Row] = field(default_factory=list)
    positions: dict[Position, int] = field(default_factory=dict)
    scorers: dict[str, tuple[int, Scorer]] = field(default_factory=dict)
    snapshots: dict[str, bytes] = field(default_factory=dict)
    frauds: list[KnownFraud] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    rejected: Outgoing | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """n payments with the features of their entities in the first columns of `features` (n, all columns).

    `converted` are the same payments with amounts in the base currency. `marks` (dtype `ENTRY`), `content`,
    `others`, `sources` and `copied` are as `Decided` and `DecisionEncoder` want them.
    """

    payments: PaymentBatch
    converted: PaymentBatch
    features: Float64
    marks: npt.NDArray[np.void]
    content: Text
    others: Int64
    sources: Sequence[bytes]
    copied: Copied


class Scoring:
    """The models and the policy of a topology, and the number of the next decided batch.

    `rows` are those of the store that the next commit has to write.
    """

    def __init__(self, topology: Topology, batches: int, lap: Callable[[str], None]) -> None:
        self._topology = topology
        self._lap = lap
        self._names = tuple(model.name for model in topology.models)
        self._inputs = [np.array(topology.columns_of(model.features)) for model in topology.models]
        self._scorers = [compile_pipeline(model.learner, model.features) for model in topology.models]
        self.versions = dict.fromkeys(self._names, 0)
        self._judge = Judge(
            topology.policy, self._names, {name: column for column, name in enumerate(topology.features)}
        )
        self._encoder = self._new_encoder()
        self.batches = batches
        self.rows: list[Row] = []

    def use(self, scorers: Mapping[str, tuple[int, Scorer]]) -> None:
        """Score with these from now on, by model its version and scorer."""
        for name, (version, scorer) in scorers.items():
            self._scorers[self._names.index(name)] = scorer
            self.versions[name] = version
        self._encoder = self._new_encoder()

    def decide(self, given: Counted, answer: Answer) -> None:
        """Fill in derived features, decide, and encode into `answer`; keep what was decided."""
        topology, payments, features = self._topology, given.payments, given.features
        evaluate(topology.derived, topology.features, features, given.converted, payments.amount)
        self._lap("features")
        inputs = [np.ascontiguousarray(features[:, columns]) for columns in self._inputs]
        scores = np.empty((len(payments), len(self._scorers)))
        for column, (scorer, taken) in enumerate(zip(self._scorers, inputs, strict=True)):
            scores[:, column] = scorer.score_many(taken)
        self._lap("score")
        judged = self._judge.judge(
            self._decisive(scores), features, lambda model, rows: self._reasons(model, inputs[model][rows])
        )
        actions = [ACTIONS[code] for code in judged.action.tolist()]
        keys, values, headers = self._encoder.encode_from(
            given.sources, given.copied, payments, actions, scores, judged.reasons
        )
        answer.decisions.keys += keys
        answer.decisions.values += values
        answer.decisions.headers += headers
        answer.actions.update(actions)
        for entity in topology.all_entities:
            present = np.logical_and.reduce([payments.text(key).present for key in entity.keys])
            answer.present[entity.name] += int(present.sum())
        answer.log_times.append(payments.log_time)
        if answer.features is not None:
            _emit(topology.features, given, answer.features)
        self._lap("encode")
        decided = Decided(
            topology.fingerprint,
            self.versions,
            given.marks["source"],
            payments.event_time,
            judged.action,
            scores,
            features,
            given.content,
            given.others,
        )
        self.rows.extend(rows_of(self.batches, decided, given.marks))
        self.batches += 1
        self._lap("store")

    def _decisive(self, scores: Float64) -> Float64:
        """Scores for the rules: those of a model that knows nothing yet are NaN, and meet no condition."""
        blank = [column for column, scorer in enumerate(self._scorers) if _is_blank(scorer)]
        if not blank:
            return scores
        known = scores.copy()
        known[:, blank] = np.nan
        return known

    def _reasons(self, model: int, given: Float64) -> list[list[Reason]]:
        """For each row the inputs that raised its score the most, greatest first."""
        names = self._topology.models[model].features
        raised = np.nan_to_num(self._scorers[model].contributions_many(given))
        order = np.argsort(-raised, axis=1, kind="stable")[:, :3]
        code = f"{self._names[model]}_score"
        return [
            [
                Reason(code, names[column], float(given[row, column]))
                for column in columns
                if raised[row, column] > 0.0
            ]
            for row, columns in enumerate(order.tolist())
        ]

    def _new_encoder(self) -> DecisionEncoder:
        topology = self._topology
        return DecisionEncoder(
            topology=topology.name,
            fingerprint=topology.fingerprint,
            policy=topology.policy.label,
            models={name: str(version) for name, version in self.versions.items()},
            entities=tuple(dict.fromkeys(key for entity in topology.all_entities for key in entity.keys)),
        )


def _emit(names: Sequence[str], given: Counted, out: Outgoing) -> None:
    for row, values, source in zip(given.payments.rows, given.features.tolist(), given.sources, strict=True):
        named = {
            name: None if value != value else value  # noqa: PLR0124 - NaN is the one value unlike itself
            for name, value in zip(names, values, strict=True)
        }
        value = {"payment_id": row.payment_id, "event_time": row.event_time, "features": named}
        out.append(row.payment_id.encode(), msgspec.json.encode(value), [(SOURCE, source)])


def _is_blank(scorer: Scorer) -> bool:
    """Whether a model has learned nothing yet: it gives every payment the same score."""
    return not scorer.compiled.intercept and not any(scorer.compiled.weights)
