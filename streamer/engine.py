"""One batch through one topology: records in, decisions, rejections and a write set out."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from streamer.acceptance import Acceptance, Accepted
from streamer.batch import Float64, Outgoing, Records, Text
from streamer.codec import PaymentCodec
from streamer.conversion import convert, convert_again, take_effect
from streamer.decisions import Judge
from streamer.declared import declared_rows
from streamer.encoding import DecisionEncoder
from streamer.events import Reason
from streamer.features.derived import evaluate
from streamer.features.table import Features
from streamer.features.table import warm_up as features_warm_up
from streamer.models.scorer import Scorer, compile_pipeline
from streamer.payments import KnownFraud, PaymentBatch
from streamer.rates import RateTable, read_rates
from streamer.recall import PaymentReader
from streamer.rejections import encode_rejection
from streamer.settings import Settings
from streamer.state.decided import Decided, DecidedBatches, rows_of
from streamer.state.identities import Identities
from streamer.state.store import (
    BLOCKS,
    META,
    Position,
    Progress,
    Row,
    Store,
    WriteSet,
    nested,
    positions_of,
    prefixed,
)
from streamer.sweeping import Sweeper
from streamer.topology import ACTIONS, Topology

DIRTY_SHARE = 2
"""Keys waiting to be written may take one part in so many of the memory budget."""

IDENTITIES_SHARE = 8
"""One part in so many of the memory budget holds the marks of payments seen."""

CATCH_UP = 64
"""Payments before a crash whose keys, of each entity, are brought up to date at a commit."""


def no_lap(_: str) -> None:
    """Measure nothing."""


@dataclass(slots=True)
class Answer:
    """What became of one batch of payment records."""

    decisions: Outgoing
    rejected: Outgoing
    features: Outgoing | None = None
    actions: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    present: Mapping[str, int] = field(default_factory=dict)
    unrated: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Taken:
    """What learning hands over to be taken in at a commit: rows, positions, new scorers by model, frauds."""

    rows: list[Row] = field(default_factory=list)
    positions: dict[Position, int] = field(default_factory=dict)
    scorers: dict[str, tuple[int, Scorer]] = field(default_factory=dict)
    snapshots: dict[str, bytes] = field(default_factory=dict)
    frauds: list[KnownFraud] = field(default_factory=list)


class Engine:
    """Decides payments of one topology on one store; synchronous, without a clock.

    `lap` is told the name of each stage when it ends, for whoever measures. `rates` are read from the file
    that the settings name unless they are given.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named where they are given
        self,
        topology: Topology,
        store: Store,
        settings: Settings,
        *,
        lap: Callable[[str], None] = no_lap,
        emit_features: bool = False,
        rates: RateTable | None = None,
    ) -> None:
        self.topology = topology
        self.settings = settings
        self.columns = topology.features
        self._store = store
        self._lap = lap
        self._emit_features = emit_features
        self._topics = settings.topics.resolved
        self._codec = PaymentCodec(topology.source, settings.events, settings.pan_policy)
        self._rates = read_rates(settings.rates.file, topology.base_currency) if rates is None else rates
        budget = settings.state.memory_budget
        self._features = Features(
            topology.all_entities,
            memory_budget=budget - budget // IDENTITIES_SHARE,
            allowed_lateness=settings.events.allowed_lateness,
            blocks=_Blocks(store),
            spilled=not store.empty,
            next_number=store.progress.batches,
        )
        self._decided = DecidedBatches(store)
        self._identities = Identities(
            settings.events.dedup_window,
            budget // IDENTITIES_SHARE,
            self._decided.marks,
            store.secret,
            spilled=None if store.empty else store.progress.log_time,
        )
        self._sweeper = Sweeper(topology, store, settings, self._features)
        self._models = tuple(model.name for model in topology.models)
        self._inputs = [np.array(topology.columns_of(model.features)) for model in topology.models]
        self._scorers = [compile_pipeline(model.learner, model.features) for model in topology.models]
        self._versions = dict.fromkeys(self._models, 0)
        self._judge = Judge(
            topology.policy, self._models, {name: column for column, name in enumerate(self.columns)}
        )
        self._encoder = self._new_encoder()
        self._positions: dict[Position, int] = dict(positions_of(store.progress))
        self._acceptance = Acceptance(settings.events, self._identities, store.progress.greatest)
        self._log_time = store.progress.log_time
        self._batches = store.progress.batches
        self._sizes: deque[tuple[int, int]] = deque()
        self._unwritten = self._uncut = 0
        self._changed = False
        self._commits = store.progress.commits
        self._rows = take_effect(self._rates, store)
        if store.progress.topology != topology.fingerprint:
            names = msgspec.msgpack.encode(self.columns)
            self._rows.append((META + b"columns/" + topology.fingerprint.encode(), names))
        self._rows.extend(declared_rows(store, topology, settings.events.allowed_lateness))
        self._redo(store.progress.redo)

    @property
    def positions(self) -> Mapping[Position, int]:
        """Offset of the next record of each topic and partition."""
        return self._positions

    @property
    def versions(self) -> Mapping[str, int]:
        """The version of each model that decides."""
        return self._versions

    @property
    def keys(self) -> Mapping[str, int]:
        """Keys in memory, per entity."""
        return self._features.keys

    @property
    def clock(self) -> int:
        """Greatest event time of any partition in ms; what the stream takes for now."""
        return max(self._acceptance.greatest.values(), default=0)

    @property
    def changed(self) -> bool:
        """Whether anything has happened since the last cut."""
        return self._changed

    @property
    def swept(self) -> Counter[str]:
        """Rows deleted that nothing to come can ask for, by room of the store, since last cleared."""
        return self._sweeper.swept

    @property
    def waiting_rows(self) -> int:
        """Rows that the next commit cannot leave for later."""
        return len(self._rows)

    def identify(self, payment_ids: Sequence[str]) -> list[bytes]:
        """The 16-byte digests under which payments are found again."""
        raw = self._identities.digest(Text.pack(payment_ids)).tobytes()
        return [raw[at : at + 16] for at in range(0, len(raw), 16)]

    def process(self, records: Records) -> Answer:
        """Answer a batch of payment records: each gets a decision or a rejection."""
        self._lap("wait")
        self._changed = True
        topics = self._topics
        answer = Answer(
            Outgoing(topics.decisions),
            Outgoing(topics.payments_rejected),
            Outgoing(topics.features) if self._emit_features else None,
        )
        decoded = self._codec.decode(records)
        self._lap("decode")
        batch, rejected = self._acceptance.accept(records, decoded.payments, decoded.rejected)
        self._lap("identify")
        if len(batch.payments):
            self._decide(records, batch, answer)
        for item in rejected:
            key, value, headers = encode_rejection(records, item)
            answer.rejected.append(key, value, headers)
            answer.codes[item.code] += 1
        self._positions[records.topic, records.partition] = records.offsets[-1] + 1
        self._log_time = max(self._log_time, *records.timestamps)
        self._lap("encode")
        return answer

    def cut(self, taken: Taken | None = None, *, everything: bool = False) -> WriteSet:
        """What the commit at the positions reached has to write; copied.

        The decided batches are a log from which keys can be brought up to date, so a key's events are written
        once for all its payments of a while, unless `everything` is. With `taken`, outcomes and new scorers
        come in at this position: later payments are scored by them, and see the frauds in their features.
        """
        # What goes stands first: the same key may come again in this commit.
        rows = self._sweeper.rows(self._acceptance.greatest, self._log_time, self._batches)
        rows.extend(self._rows)
        self._rows = []
        if taken is not None:
            rows.extend(taken.rows)
            self._positions.update(taken.positions)
            for name, (version, scorer) in taken.scorers.items():
                self._scorers[self._models.index(name)] = scorer
                self._versions[name] = version
            self._encoder = self._new_encoder()
            if taken.frauds:
                self._know(taken.frauds)
        self._features.catch_up(None if everything else CATCH_UP)
        before, most = (None, None) if everything else self._ripe()
        rows.extend(prefixed(BLOCKS, self._features.cut(before, most)))
        self._changed = False
        self._identities.cut()
        self._commits += 1
        self._lap("cut")
        return WriteSet(
            Progress(
                positions=nested(self._positions),
                greatest=dict(self._acceptance.greatest),
                log_time=self._log_time,
                batches=self._batches,
                redo=self._features.oldest_after_cut,
                models=dict(self._versions),
                commits=self._commits,
                topology=self.topology.fingerprint,
            ),
            rows,
        )

    def written(self) -> None:
        """The last cut is in the store: what it held may leave memory."""
        self._features.written()
        self._identities.written()

    def restore_scorer(self, model: str, version: int, scorer: Scorer) -> None:
        """Score with a snapshot found in the store, before the first batch."""
        self._scorers[self._models.index(model)] = scorer
        self._versions[model] = version
        self._encoder = self._new_encoder()

    def _decide(self, records: Records, accepted: Accepted, answer: Answer) -> None:
        payments = accepted.payments
        n = len(payments)
        features = np.empty((n, len(self.columns)))
        width = len(self._features.names)
        converted = convert(self._rates, payments)
        answer.unrated = converted.unrated
        self._features.update(converted.payments, features[:, :width], self._batches)
        evaluate(self.topology.derived, self.columns, features, converted.payments, payments.amount)
        self._lap("features")
        inputs = [np.ascontiguousarray(features[:, columns]) for columns in self._inputs]
        scores = np.empty((n, len(self._scorers)))
        for column, (scorer, given) in enumerate(zip(self._scorers, inputs, strict=True)):
            scores[:, column] = scorer.score_many(given)
        self._lap("score")
        judged = self._judge.judge(
            self._decisive(scores), features, lambda model, rows: self._reasons(model, inputs[model][rows])
        )
        answer.decisions.keys, answer.decisions.values, answer.decisions.headers = self._encoder.encode(
            records, payments, [ACTIONS[code] for code in judged.action.tolist()], scores, judged.reasons
        )
        counts = np.bincount(judged.action, minlength=len(ACTIONS))
        answer.actions = Counter(
            {name: int(count) for name, count in zip(ACTIONS, counts, strict=True) if count}
        )
        answer.present = {
            entity.name: int(np.logical_and.reduce([payments.text(key).present for key in entity.keys]).sum())
            for entity in self.topology.all_entities
        }
        if answer.features is not None:
            self._emit(payments, features, answer)
        self._lap("encode")
        decided = Decided(
            self.topology.fingerprint,
            self._versions,
            accepted.marks["source"],
            payments.event_time,
            judged.action,
            scores,
            features,
            accepted.content,
            converted.others,
        )
        self._rows.extend(rows_of(self._batches, decided, accepted.marks))
        self._sizes.append((self._batches, n))
        self._unwritten += n
        self._uncut += n
        self._batches += 1
        self._lap("store")

    def _decisive(self, scores: Float64) -> Float64:
        """Scores for the rules: those of a model that knows nothing yet are NaN, and meet no condition."""
        blank = [column for column, scorer in enumerate(self._scorers) if _is_blank(scorer)]
        if not blank:
            return scores
        known = scores.copy()
        known[:, blank] = np.nan
        return known

    def _ripe(self) -> tuple[int, int]:
        """Which keys have waited long enough: those changed before this batch, and how many of them."""
        limit = self.settings.commit.redo_payments
        while self._sizes and self._unwritten - self._sizes[0][1] >= limit:
            self._unwritten -= self._sizes.popleft()[1]
        before = self._sizes[0][0] if self._sizes else self._batches
        if self._features.dirty_bytes > self.settings.state.memory_budget // DIRTY_SHARE:
            before = self._batches
        # No payment makes more keys wait than there are entities, so as many a payment keep up.
        most = self.settings.commit.max_dirty_rows + self._uncut * len(self.topology.all_entities)
        self._uncut = 0
        return before, most

    def _redo(self, start: int) -> None:
        """Give the features the batches decided after their keys were last written."""
        reader = PaymentReader(self._features.fields)
        for number, content, others in self._decided.payments(start):
            batch = convert_again(self._rates, reader.read(content), others)
            self._features.replay(batch, number)

    def _know(self, frauds: Sequence[KnownFraud]) -> None:
        """Count payments as frauds of their keys, as of when that became known."""
        payments = PaymentBatch.stored([one.payment for one in frauds])
        known = np.array([one.known for one in frauds], np.int64)
        self._features.know(replace(payments, event_time=known), int(payments.event_time.min()))

    def _reasons(self, model: int, given: Float64) -> list[list[Reason]]:
        """For each row the inputs that raised its score the most, greatest first."""
        names = self.topology.models[model].features
        raised = np.nan_to_num(self._scorers[model].contributions_many(given))
        order = np.argsort(-raised, axis=1, kind="stable")[:, :3]
        code = f"{self._models[model]}_score"
        return [
            [
                Reason(code, names[column], float(given[row, column]))
                for column in columns
                if raised[row, column] > 0.0
            ]
            for row, columns in enumerate(order.tolist())
        ]

    def _emit(self, payments: PaymentBatch, features: Float64, answer: Answer) -> None:
        """Send the features with the source of the decisions made of them."""
        out = answer.features
        assert out is not None  # noqa: S101 - the caller has looked
        sources = [[source] for source, *_ in answer.decisions.headers]
        for row, values, headers in zip(payments.rows, features.tolist(), sources, strict=True):
            named = {
                name: None if value != value else value  # noqa: PLR0124 - NaN is the one value unlike itself
                for name, value in zip(self.columns, values, strict=True)
            }
            out.append(
                row.payment_id.encode(),
                msgspec.json.encode(
                    {"payment_id": row.payment_id, "event_time": row.event_time, "features": named}
                ),
                headers,
            )

    def _new_encoder(self) -> DecisionEncoder:
        return DecisionEncoder(
            topology=self.topology.name,
            fingerprint=self.topology.fingerprint,
            policy=self.topology.policy.label,
            models={name: str(version) for name, version in self._versions.items()},
            entities=tuple(
                dict.fromkeys(key for entity in self.topology.all_entities for key in entity.keys)
            ),
        )


class _Blocks:
    """The room of the store in which features keep their events."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        return self._store.get_many([BLOCKS + key for key in keys])


def warm_up() -> None:
    """Compile every kernel, or load it from the cache on disk, so that the first payments need not wait."""
    features_warm_up()
    Identities(1, 1, lambda digests: [None] * len(digests))


def _is_blank(scorer: Scorer) -> bool:
    """Whether a model has learned nothing yet: it gives every payment the same score."""
    return not scorer.compiled.intercept and not any(scorer.compiled.weights)
