"""Joins outcomes to payments as they were decided and makes examples of them; silence makes the good ones."""

import itertools
from collections import ChainMap, Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from streamer.batch import Float64, Int64
from streamer.declared import columns_in
from streamer.events import Outcome, Payment
from streamer.learning.examples import Examples, aligned
from streamer.models.labels import DISPUTE, evidence
from streamer.payments import KnownFraud
from streamer.state.decided import ROW_BITS, Decided, DecidedBatches, Found
from streamer.state.identities import ENTRY
from streamer.state.retention import labels_of
from streamer.state.store import FRAUDS, LABELS, META, SEEN, Row, Store
from streamer.topology import Model, Topology

GOOD, FRAUD, UNKNOWN, WAITING = b"\0", b"\1", b"\2", b"\3"
"""Labels: learned as good, learned as fraud, to be left out, fraud to be learned when its batch matures."""


@dataclass(slots=True)
class _Maturing:
    """How far the decided batches have matured for a model."""

    model: Model
    cursor: int
    """Number of the next batch that may mature."""
    begin: int
    """The first batch that was there for it."""


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A payment whose label has changed; whether it waits for its batch to mature."""

    digest: bytes
    fraud: bool
    waits: bool


class Joining:
    """Outcomes and decided payments of one store; `teach` is given the examples that they make, in order."""

    def __init__(
        self,
        topology: Topology,
        store: Store,
        identify: Callable[[list[str]], list[bytes]],
        teach: Callable[[Examples], None],
    ) -> None:
        self._topology = topology
        self._store = store
        self._identify = identify
        self._teach = teach
        self._decided = DecidedBatches(store)
        self._pending: dict[bytes, bytes] = {}
        self._handed: deque[dict[bytes, bytes]] = deque()
        """Rows that were handed over and may not be in the store yet, newest first."""
        self._frauds: list[KnownFraud] = []
        self._columns: dict[str, tuple[str, ...]] = {topology.fingerprint: topology.features}
        self.maturing = [self._begun(model) for model in topology.models]
        self.kinds: Counter[str] = Counter()

    def unknown(self, outcomes: Sequence[Outcome]) -> list[int]:
        """The indexes of outcomes whose payment is not here: not yet, or not any more."""
        marks = self._decided.marks(self._identify([outcome.payment_id for outcome in outcomes]))
        first = self._decided.first
        return [index for index, mark in enumerate(marks) if not _is_kept(mark, first)]

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
        labelled: list[_Labelled] = []
        known_at: dict[bytes, int] = {}
        for index, (outcome, digest, key) in enumerate(zip(outcomes, digests, keys, strict=True)):
            mark = marks[index]
            if mark is None or not _is_kept(mark, first):
                unknown.append(index)
                continue
            if seen[index] is not None or key in self._unstored:
                continue
            self._pending[key] = msgspec.msgpack.encode(outcome)
            self.kinds[outcome.kind] += 1
            label = evidence(outcome.kind, outcome.category, self._disputed(digest, outcome))
            if label is None and outcome.kind != "declined":
                continue
            if label and self._first_heard(digest, outcome.event_time):
                known_at[digest] = outcome.event_time
            place = _label_key(int(np.frombuffer(mark, ENTRY)[0]["source"]))
            known = self._unstored.get(place) or self._store.get_many([place])[0]
            if label is None:
                self._pending[place] = known or UNKNOWN
            elif known not in ((FRAUD, WAITING) if label else (GOOD,)):
                waits = label and not self.has_seen_good
                self._pending[place] = (WAITING if waits else FRAUD) if label else GOOD
                labelled.append(_Labelled(digest, label, waits))
        found = self._live_payments([*known_at, *(one.digest for one in labelled)])
        self._teach_labelled([(found[one.digest], one) for one in labelled if one.digest in found])
        self._frauds.extend(
            KnownFraud(msgspec.msgpack.decode(found[digest].payment, type=Payment), known)
            for digest, known in known_at.items()
            if digest in found
        )
        return unknown

    def _first_heard(self, digest: bytes, known: int) -> bool:
        """Whether nothing has said so far that a payment is fraud; from now on something has."""
        key = FRAUDS + digest
        if key in self._unstored or self._store.get_many([key])[0] is not None:
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

    def _teach_labelled(self, pairs: Sequence[tuple[Found, _Labelled]]) -> None:
        """Make examples of payments, with the features as they were decided.

        A fraud that waits is one at once for a model that has matured its batch: that does not come again.
        """
        for one in self.maturing:
            now = [
                (found, labelled.fraud)
                for found, labelled in pairs
                if not labelled.waits or found.place >> ROW_BITS < one.cursor
            ]
            if now:
                inputs = [
                    self._inputs(one.model, found.topology, found.features[np.newaxis]) for found, _ in now
                ]
                fraud = np.array([label for _, label in now])
                until = max(found.event_time for found, _ in now)
                self._teach(Examples(one.model.name, np.concatenate(inputs), fraud, np.ones(len(now)), until))

    def mature(self, clock: int, batches: int = 1) -> bool:
        """Make examples of payments good for long enough at event time `clock`; whether there may be more."""
        more = False
        for one in self.maturing:
            for _ in range(batches):
                decided = self._decided.batch(one.cursor)
                if decided is None or int(decided.event_time.max()) + one.model.good_after_ms > clock:
                    break
                one.cursor += 1
                self._queue_matured(one.model, decided)
            else:
                more = True
        return more

    @property
    def has_seen_good(self) -> bool:
        """Whether anything has counted as good for every model."""
        return all(one.cursor > one.begin for one in self.maturing)

    @property
    def has_news(self) -> bool:
        """Whether any outcome was joined since the last rows."""
        return bool(self._pending)

    def hand_over(self) -> tuple[list[Row], list[KnownFraud]]:
        """The rows of what was joined and matured, and the frauds that became known, since the last time."""
        rows: list[Row] = list(self._pending.items())
        rows += [(_cursor_key(one.model), str(one.cursor).encode()) for one in self.maturing]
        frauds = self._frauds
        self._handed.appendleft(self._pending)
        self._pending, self._frauds = {}, []
        return rows, frauds

    def taken_in(self) -> None:
        """What was handed over first, of what is still under way, is in the store now."""
        self._handed.pop()

    @property
    def _unstored(self) -> Mapping[bytes, bytes]:
        """Rows that the store may not have yet: until a commit has them, what comes again must find them."""
        return ChainMap(self._pending, *self._handed)

    def _begun(self, model: Model) -> _Maturing:
        cursor = self._store.get_many([_cursor_key(model)])[0]
        # A model that is new here begins with what there is; what was there before is gone.
        first = self._decided.first
        return _Maturing(model, max(int(cursor or b"0"), first), first if cursor is None else 0)

    def _disputed(self, digest: bytes, outcome: Outcome) -> str | None:
        """The category of the chargeback that a later step of a dispute is about, if it does not say."""
        if outcome.category is not None or outcome.kind == "chargeback" or outcome.kind not in DISPUTE:
            return None
        prefix = SEEN + digest
        known = [value for _, value in self._store.scan(prefix)]
        known.extend(value for key, value in self._unstored.items() if key.startswith(prefix))
        steps = [msgspec.msgpack.decode(value, type=Outcome) for value in known]
        chargebacks = [step for step in steps if step.kind == "chargeback"]
        return max(chargebacks, key=lambda step: step.event_time).category if chargebacks else None

    def _queue_matured(self, model: Model, decided: Decided) -> None:
        """Make examples of a batch's good payments, as many as are wanted, and of the frauds that waited."""
        labels = self._labels(decided.source)
        share = model.good_share
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
            inputs = self._inputs(model, decided.topology, decided.features[rows])
            fraud = waited[rows]
            weight = np.where(fraud, 1.0, 1.0 / share)
            until = int(decided.event_time[rows].max())
            self._teach(Examples(model.name, inputs, fraud, weight, until))

    def _labels(self, source: Int64) -> dict[int, bytes]:
        """The labels known of the payments of a batch, and all that are to be written, by source."""
        labels = labels_of(self._store, source)
        for key, label in self._unstored.items():
            if key.startswith(LABELS):
                labels[int.from_bytes(key[len(LABELS) :], "big")] = label
        return labels

    def _inputs(self, model: Model, fingerprint: str, features: Float64) -> Float64:
        """The inputs of a model among features that may be of earlier declarations, found by name."""
        if fingerprint not in self._columns:
            self._columns[fingerprint] = columns_in(self._store, fingerprint)
        return aligned(features, self._columns[fingerprint], model.features)


def _is_kept(mark: bytes | None, first: int) -> bool:
    """Whether a payment's batch is there, which its mark outlives for a while; `first` is the first one."""
    return mark is not None and int(np.frombuffer(mark, ENTRY)[0]["place"]) >> ROW_BITS >= first


class _Live(msgspec.Struct, gc=False):
    """Of a canonical payment, whether it is counted; absent is yes."""

    live: bool | None = True


def _is_live(payment: bytes) -> bool:
    return msgspec.msgpack.decode(payment, type=_Live).live is not False


def _label_key(source: int) -> bytes:
    return LABELS + source.to_bytes(8, "big")


def _cursor_key(model: Model) -> bytes:
    return META + b"matured/" + model.name.encode()
