"""Closes the loop: outcomes are joined to features as decided, learners learn, snapshots are handed over."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from streamer.batch import Bool, Float64, Int64, Outgoing, Records
from streamer.codec import OutcomeCodec
from streamer.engine import Taken
from streamer.events import Outcome, Payment
from streamer.models.labels import DISPUTE, evidence
from streamer.models.learner import Learner
from streamer.models.snapshot import Snapshot
from streamer.payments import KnownFraud
from streamer.rejections import Rejected, encode_rejection
from streamer.settings import Settings
from streamer.state.decided import ROW_BITS, Decided, DecidedBatches, Found
from streamer.state.identities import ENTRY
from streamer.state.store import FRAUDS, LABELS, META, MODELS, SEEN, Position, Row, Store, positions_of
from streamer.topology import Model, Topology

GOOD, FRAUD, UNKNOWN, WAITING = b"\0", b"\1", b"\2", b"\3"
"""Labels: learned as good, learned as fraud, to be left out, fraud to be learned when its batch matures."""


@dataclass(slots=True)
class Examples:
    """Payments to learn from: all features (n, F), labels (n,), weights (n,), newest event time in ms."""

    features: Float64
    fraud: Bool
    weight: Float64
    until: int


@dataclass(slots=True)
class _Student:
    """A model's learner and how far it has come."""

    model: Model
    learner: Learner
    columns: Int64
    version: int
    cursor: int
    """Number of the next decided batch that may mature."""
    begin: int = 0
    """The first batch that was there for it."""
    queue: list[Examples] = field(default_factory=list)
    fresh: bool = False
    """Whether it has learned since its last snapshot."""


class Learning:
    """The learners of a topology; synchronous, without a clock, apart from the engine but for its store."""

    def __init__(
        self,
        topology: Topology,
        store: Store,
        settings: Settings,
        identify: Callable[[list[str]], list[bytes]],
    ) -> None:
        self._topology = topology
        self._store = store
        self._settings = settings
        self._identify = identify
        self._key = settings.models.snapshot_key.encode() or store.secret
        self._decided = DecidedBatches(store)
        self._codec = OutcomeCodec()
        self._pending: dict[bytes, bytes] = {}
        self._frauds: list[KnownFraud] = []
        self._positions = {
            position: offset
            for position, offset in positions_of(store.progress).items()
            if position[0] == settings.topics.resolved.outcomes
        }
        self._columns: dict[str, tuple[str, ...]] = {topology.fingerprint: topology.features}
        self._students = [self._enrol(model) for model in topology.models]
        self.learned: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def snapshots(self) -> Iterator[Snapshot]:
        """The snapshots that were in the store, for the scorers to start from; none of other inputs."""
        for student in self._students:
            value = self._store.get_many([MODELS + student.model.name.encode()])[0]
            snapshot = None if value is None else Snapshot.decode(value, self._key)
            if snapshot is not None and snapshot.inputs == student.model.features:
                yield snapshot

    def read(self, records: Records) -> tuple[list[tuple[int, Outcome]], list[Rejected]]:
        """The outcomes of a batch with their index in it, and what is no outcome."""
        return self._codec.decode(records)

    def join(self, outcomes: Sequence[Outcome]) -> list[int]:
        """Join outcomes to payments and queue examples; answers the indexes of those without a payment.

        A repeat changes nothing. A payment is learned from once for each time its label changes. Fraud that
        is known before anything counts as good waits: alone it would make everything look like fraud. For
        the features that labels feed, a payment becomes known as fraud once, whatever is said of it later.
        """
        digests = self._identify([outcome.payment_id for outcome in outcomes])
        keys = [
            SEEN + digest + outcome.outcome_id.encode()
            for digest, outcome in zip(digests, outcomes, strict=True)
        ]
        seen = self._store.get_many(keys)
        marks = self._decided.marks(digests)
        first = self._decided.first
        unknown = []
        labelled: list[tuple[bytes, bool]] = []
        known_at: dict[bytes, int] = {}
        for index, (outcome, digest, key) in enumerate(zip(outcomes, digests, keys, strict=True)):
            mark = marks[index]
            # A mark outlives its batch for a while.
            if mark is None or int(np.frombuffer(mark, ENTRY)[0]["place"]) >> ROW_BITS < first:
                unknown.append(index)
                continue
            if seen[index] is not None or key in self._pending:
                continue
            self._pending[key] = msgspec.msgpack.encode(outcome)
            self.kinds[outcome.kind] += 1
            label = evidence(outcome.kind, outcome.category, self._disputed(digest, outcome))
            if label is None and outcome.kind != "declined":
                continue
            if label and self._first_heard(digest, outcome.event_time):
                known_at[digest] = outcome.event_time
            place = _label_key(int(np.frombuffer(mark, ENTRY)[0]["source"]))
            known = self._pending.get(place) or self._store.get_many([place])[0]
            if label is None:
                self._pending[place] = known or UNKNOWN
            elif label and not self._has_seen_good:
                self._pending[place] = WAITING
            elif known not in ((FRAUD, WAITING) if label else (GOOD,)):
                self._pending[place] = FRAUD if label else GOOD
                labelled.append((digest, label))
        found = self._live_payments([*known_at, *(digest for digest, _ in labelled)])
        self._queue_labelled([(found[digest], label) for digest, label in labelled if digest in found])
        self._frauds.extend(
            KnownFraud(msgspec.msgpack.decode(found[digest].payment, type=Payment), known)
            for digest, known in known_at.items()
            if digest in found
        )
        return unknown

    def _first_heard(self, digest: bytes, known: int) -> bool:
        """Whether nothing has said so far that a payment is fraud; from now on something has."""
        key = FRAUDS + digest
        if key in self._pending or self._store.get_many([key])[0] is not None:
            return False
        self._pending[key] = known.to_bytes(8, "big")
        return True

    def _live_payments(self, digests: Sequence[bytes]) -> dict[bytes, Found]:
        """The decided payments of these digests, as far as they are kept and no test traffic."""
        wanted = list(dict.fromkeys(digests))
        return {
            digest: found
            for digest, found in zip(wanted, self._decided.find(wanted), strict=True)
            if found is not None and _is_live(found.payment)
        }

    def _queue_labelled(self, pairs: Sequence[tuple[Found, bool]]) -> None:
        """Queue payments as examples, with the features as they were decided."""
        if pairs:
            features = np.stack([self._aligned(found) for found, _ in pairs])
            fraud = np.array([label for _, label in pairs])
            until = max(found.event_time for found, _ in pairs)
            self._queue(self._students, Examples(features, fraud, np.ones(len(pairs)), until))

    def reject(self, records: Records, rejected: Sequence[Rejected]) -> Outgoing:
        """The rejections of a batch, ready to be sent."""
        out = Outgoing(self._settings.topics.resolved.outcomes_rejected)
        for item in rejected:
            key, value, headers = encode_rejection(records, item)
            out.append(key, value, headers)
        return out

    def advance(self, topic: str, partition: int, offset: int) -> None:
        """Outcomes below `offset` have been joined."""
        self._positions[topic, partition] = offset

    def mature(self, clock: int, batches: int = 1) -> bool:
        """Queue payments good for long enough at event time `clock`; whether there may be more."""
        more = False
        for student in self._students:
            for _ in range(batches):
                decided = self._decided.batch(student.cursor)
                if decided is None or int(decided.event_time.max()) + student.model.good_after_ms > clock:
                    break
                student.cursor += 1
                self._queue_matured(student, decided)
            else:
                more = True
        return more

    def learn(self, most: int) -> int:
        """Learn from at most so many queued examples; answers how many are left."""
        for student in self._students:
            left = most
            while student.queue and left:
                head = student.queue[0]
                now = min(left, len(head.fraud))
                student.learner.learn_many(
                    head.features[:now][:, student.columns],
                    head.fraud[:now],
                    head.weight[:now],
                    until=head.until,
                )
                self.learned[student.model.name] += now
                student.fresh = True
                left -= now
                if now == len(head.fraud):
                    student.queue.pop(0)
                else:
                    student.queue[0] = Examples(
                        head.features[now:], head.fraud[now:], head.weight[now:], head.until
                    )
        return self.waiting

    @property
    def positions(self) -> Mapping[Position, int]:
        """Offset of the next outcome of each partition that has not been joined."""
        return self._positions

    @property
    def waiting(self) -> int:
        """Examples queued."""
        return sum(len(examples.fraud) for student in self._students for examples in student.queue)

    @property
    def _has_seen_good(self) -> bool:
        return all(student.cursor > student.begin for student in self._students)

    @property
    def has_news(self) -> bool:
        """Whether there is anything to hand over."""
        return bool(self._pending) or any(student.fresh for student in self._students)

    def hand_over(self) -> Taken:
        """What a commit takes in; only to be called when nothing is queued."""
        taken = Taken(positions=dict(self._positions), frauds=self._frauds)
        self._frauds = []
        taken.rows.extend(self._pending.items())
        self._pending = {}
        for student in self._students:
            name = student.model.name
            cursor: Row = (META + b"matured/" + name.encode(), str(student.cursor).encode())
            taken.rows.append(cursor)
            if student.fresh:
                student.fresh = False
                student.version += 1
                snapshot = student.learner.snapshot(student.version)
                encoded = snapshot.encode(self._key)
                taken.rows.append((MODELS + name.encode(), encoded))
                taken.scorers[name] = (student.version, snapshot.scorer())
                taken.snapshots[name] = encoded
        return taken

    def _enrol(self, model: Model) -> _Student:
        name = model.name.encode()
        kept, cursor = self._store.get_many([MODELS + name, META + b"matured/" + name])
        version = 0
        learner = Learner(model.name, model.learner, model.features, self._topology.fingerprint)
        if kept is not None:
            snapshot = Snapshot.decode(kept, self._key)
            version = snapshot.version
            if snapshot.inputs == model.features:
                learner = Learner.restore(snapshot)
                learner.topology = self._topology.fingerprint
        columns = np.array(self._topology.columns_of(model.features))
        # A model that is new here begins with what there is; what was there before is gone.
        first = self._decided.first
        begin = first if cursor is None else 0
        return _Student(model, learner, columns, version, max(int(cursor or b"0"), first), begin)

    def _disputed(self, digest: bytes, outcome: Outcome) -> str | None:
        """The category of the chargeback that a later step of a dispute is about, if it does not say."""
        if outcome.category is not None or outcome.kind == "chargeback" or outcome.kind not in DISPUTE:
            return None
        prefix = SEEN + digest
        known = [value for _, value in self._store.scan(prefix)]
        known.extend(value for key, value in self._pending.items() if key.startswith(prefix))
        steps = [msgspec.msgpack.decode(value, type=Outcome) for value in known]
        chargebacks = [step for step in steps if step.kind == "chargeback"]
        return max(chargebacks, key=lambda step: step.event_time).category if chargebacks else None

    def _queue(self, students: Sequence[_Student], examples: Examples) -> None:
        for student in students:
            student.queue.append(examples)

    def _queue_matured(self, student: _Student, decided: Decided) -> None:
        """Queue the good payments of a batch, as many as are wanted, and the frauds that waited."""
        labels = self._labels(decided.source)
        share = student.model.good_share
        waited = np.isin(decided.source, [place for place, label in labels.items() if label == WAITING])
        ends = decided.payment.ends.tolist()
        payments = decided.payment.data.tobytes()
        live = np.array([_is_live(payments[start:end]) for start, end in itertools.pairwise(ends)], np.bool_)
        waited &= live
        good = live & ~np.isin(decided.source, list(labels))
        if share < 1.0:
            mixed = (decided.source.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
            good &= mixed < np.uint64(share * (1 << 24))
        rows = np.flatnonzero(good | waited)
        if rows.size:
            features = self._align(decided.topology, decided.features[rows])
            fraud = waited[rows]
            weight = np.where(fraud, 1.0, 1.0 / share)
            until = int(decided.event_time[rows].max())
            self._queue([student], Examples(features, fraud, weight, until))

    def _labels(self, source: Int64) -> dict[int, bytes]:
        """The labels known of the payments between the first and the last of a batch, by source."""
        first, end = int(source.min()), _label_key(int(source.max()) + 1)
        labels = {
            int.from_bytes(key[len(LABELS) :], "big"): label
            for key, label in self._store.scan(LABELS, first.to_bytes(8, "big"), end)
        }
        for key, label in self._pending.items():
            if key.startswith(LABELS):
                labels[int.from_bytes(key[len(LABELS) :], "big")] = label
        return labels

    def _aligned(self, found: Found) -> Float64:
        row: Float64 = self._align(found.topology, found.features[np.newaxis])[0]
        return row

    def _align(self, fingerprint: str, features: Float64) -> Float64:
        """Features decided under earlier declarations, brought to today's columns by name."""
        if fingerprint == self._topology.fingerprint:
            return features
        if fingerprint not in self._columns:
            kept = self._store.get_many([META + b"columns/" + fingerprint.encode()])[0]
            self._columns[fingerprint] = tuple(msgspec.msgpack.decode(kept)) if kept else ()
        names = self._columns[fingerprint]
        today = {name: column for column, name in enumerate(self._topology.features)}
        out = np.full((len(features), len(today)), np.nan)
        for column, name in enumerate(names):
            if name in today:
                out[:, today[name]] = features[:, column]
        return out


def unknown(index: int, outcome: Outcome) -> Rejected:
    """Refuse the outcome at `index` of a batch: no payment of its id is known."""
    return Rejected(
        index,
        "unknown_payment",
        f"Expected the payment_id of a decided payment, got one that was never decided here"
        f" or whose retention has passed - at `$.payment_id`; outcome {outcome.outcome_id!r}",
        outcome.payment_id,
    )


class _Live(msgspec.Struct, gc=False):
    """Of a canonical payment, whether it is counted; absent is yes."""

    live: bool | None = True


def _is_live(payment: bytes) -> bool:
    return msgspec.msgpack.decode(payment, type=_Live).live is not False


def _label_key(source: int) -> bytes:
    return LABELS + source.to_bytes(8, "big")
