"""Runs a topology in a test: payments and outcomes in, answers out as Python objects, time moved by hand."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Self

import msgspec

from streamer.batch import Headers, Outgoing, Records
from streamer.engine import Engine
from streamer.errors import StreamerError
from streamer.events import Action, Decision, Rejection
from streamer.learning.learning import Learning, unknown
from streamer.rejections import add_rejections
from streamer.scoring import Answer
from streamer.settings import Settings, Size, State
from streamer.state.store import Store, WriteSet
from streamer.topology import Topology
from streamer.units import parse_duration

START = 1_767_225_600_000
"""Where a driver's time begins: 2026-01-01T00:00:00 UTC, in milliseconds."""

SETTINGS = Settings(state=State(memory_budget=Size(64 << 20)))

Given = Mapping[str, object] | bytes | None
"""A record's value: fields, or the bytes that are on the topic; `None` is a tombstone."""


class _Emitted(msgspec.Struct):
    features: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Answered:
    """What one payment got: a decision with the features that led to it, or a rejection.

    `key`, `value` and `headers` are the record in `decisions` or in `payments.rejected`, byte for byte.
    """

    decision: Decision | None
    rejection: Rejection | None
    features: Mapping[str, float | None]
    key: bytes | None
    value: bytes
    headers: Headers = field(repr=False)

    @property
    def action(self) -> Action:
        """What the caller is told to do; raises `StreamerError` with the reason where nothing was decided."""
        return self._decided.action

    @property
    def score(self) -> float | None:
        """The deciding model's probability of fraud."""
        return self._decided.score

    @property
    def code(self) -> str | None:
        """Why it was rejected, `None` where it was not."""
        return None if self.rejection is None else self.rejection.code

    @property
    def _decided(self) -> Decision:
        if self.decision is None:
            said = "nothing" if self.rejection is None else f"{self.rejection.code}: {self.rejection.error}"
            raise StreamerError(f"Expected a decision, got a rejection: {said}")
        return self.decision


class TopologyDriver:
    """One topology on an empty state of its own: the engine that runs live, without a log around it.

    Payments are answered at once, in the order given. As live, outcomes teach and decide nothing before a
    `commit`, which takes models in, and the stream's time is that of its payments: `advance` alone lets
    nothing expire or mature, the next payment does.

    The first driver on a machine compiles kernels, which takes a minute; later ones load them.
    """

    def __init__(self, topology: Topology, settings: Settings = SETTINGS) -> None:
        self.topology = topology
        self.now = START
        """The driver's time, in milliseconds: event time of payments that have none, log time of all."""
        self._settings = settings
        renamed = {ours: theirs for theirs, ours in topology.source.rename.items()}
        self._time_name = renamed.get("event_time", "event_time")
        self._directory = tempfile.TemporaryDirectory(prefix="streamer-driver-")
        self._payments: list[Records] = []
        self._outcomes = 0
        self._open()

    def decide_one(self, payment: Given, *, log_time: int | None = None) -> Answered:
        """Answer one payment; see `decide_many`."""
        return self.decide_many([payment], log_time=log_time)[0]

    def decide_many(
        self, payments: Iterable[Given] | Records, *, log_time: int | None = None
    ) -> list[Answered]:
        """Answer payments in one batch, each with a decision or a rejection.

        A mapping without `event_time` gets the driver's; a later one than the driver's moves time on to it,
        unless the records' timestamp is given as `log_time` (ms): so a payment may lie in the future.
        `Records` are taken as they are, their offsets following those before.
        """
        records = payments if isinstance(payments, Records) else self._records(payments, log_time)
        if not len(records):
            return []
        self._payments.append(records)
        return self._answer(records)

    def report_one(self, outcome: Given) -> Rejection | None:
        """Take an outcome in; see `report_many`."""
        return next(iter(self.report_many([outcome])), None)

    def report_many(self, outcomes: Iterable[Given]) -> list[Rejection]:
        """Join outcomes to the payments answered so far and learn from them; answers what was rejected.

        What is learned decides after the next `commit`. A mapping without `event_time` gets the driver's.
        """
        self._write(self._engine.cut())  # outcomes are joined to what is stored
        topic = self._settings.topics.resolved.outcomes
        values = _stamped(outcomes, "event_time", self.now)
        records = _encoded(topic, self._outcomes, values, self.now)
        if not len(records):
            return []
        found, rejected = self._learning.read(records)
        lost = self._learning.join([outcome for _, outcome in found])
        rejected.extend(unknown(*found[index]) for index in lost)
        self._outcomes += len(records)
        self._learning.advance(topic, 0, self._outcomes)
        out = Outgoing(self._settings.topics.resolved.outcomes_rejected)
        add_rejections(out, records, rejected)
        return [msgspec.json.decode(value or b"", type=Rejection) for value in out.values]

    def commit(self) -> None:
        """Store everything answered so far; learn what is due and let the models decide from here on."""
        engine, learning = self._engine, self._learning
        self._write(engine.cut())
        while learning.mature(engine.clock):
            learning.learn(learning.waiting)
        learning.learn(learning.waiting)
        if learning.has_news:
            self._write(engine.cut(learning.hand_over()))
            learning.taken_in()

    def restart(self) -> None:
        """Stop in good order, everything committed, and start again on the same state."""
        self.commit()
        self._write(self._engine.cut(everything=True))
        self._store.close()
        self._open()

    def crash(self) -> list[Answered]:
        """Fall over and start again where the last commit stands; answers what is decided once more.

        Outcomes reported since the last commit are forgotten: report them again.
        """
        self._store.close()
        self._open()
        again = (records.since(self._position) for records in self._payments)
        return [answered for records in again if len(records) for answered in self._answer(records)]

    def advance(self, duration: str) -> None:
        """Move time on by a duration such as "90s", "1h" or "7d"."""
        self.now += parse_duration(duration)

    @property
    def versions(self) -> Mapping[str, int]:
        """The version of each model that decides; 0 has learned nothing."""
        return self._engine.versions

    def close(self) -> None:
        """Let go of the state and delete it."""
        self._store.close()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _position(self) -> int:
        return self._engine.positions.get((self._settings.topics.resolved.payments, 0), 0)

    def _open(self) -> None:
        settings = self._settings
        self._store = Store.open(Path(self._directory.name) / "state")
        self._engine = Engine(self.topology, self._store, settings, emit_features=True)
        self._learning = Learning(self.topology, self._store, settings, self._engine.identify)
        for snapshot in self._learning.snapshots():
            self._engine.restore_scorer(snapshot.model, snapshot.version, snapshot.scorer())
        self._outcomes = self._learning.positions.get((settings.topics.resolved.outcomes, 0), 0)

    def _write(self, writes: WriteSet) -> None:
        self._store.commit(writes)
        self._engine.written()

    def _answer(self, records: Records) -> list[Answered]:
        answered = dict(_answers(self._engine.process(records)))
        return [answered[offset] for offset in records.offsets]

    def _records(self, payments: Iterable[Given], log_time: int | None) -> Records:
        given = list(payments)
        if log_time is None:
            times = [self._time_of(one) for one in given if isinstance(one, Mapping)]
            self.now = max([self.now, *times])
        topics = self._settings.topics.resolved
        unit = _PER_MS[self.topology.source.time_unit]
        values = _stamped(given, self._time_name, int(self.now * unit))
        return _encoded(topics.payments, self._position, values, self.now if log_time is None else log_time)

    def _time_of(self, payment: Mapping[str, object]) -> int:
        """When a payment happened, in ms; 0 where it does not say so as it should."""
        time = payment.get(self._time_name)
        return int(time / _PER_MS[self.topology.source.time_unit]) if isinstance(time, int | float) else 0


_PER_MS: Mapping[str, Fraction] = {
    "s": Fraction(1, 1000),
    "ms": Fraction(1),
    "us": Fraction(1000),
    "ns": Fraction(1000_000),
}


def _stamped(given: Iterable[Given], name: str, time: int) -> list[Given]:
    """The same values, a time put into mappings that have none."""
    return [{name: time, **one} if isinstance(one, Mapping) else one for one in given]


def _encoded(topic: str, start: int, values: Sequence[Given], log_time: int) -> Records:
    encoded = [msgspec.json.encode(value) if isinstance(value, Mapping) else value for value in values]
    n = len(encoded)
    return Records(
        topic,
        0,
        list(range(start, start + n)),
        [log_time] * n,
        [None] * n,
        encoded,
        [()] * n,
        sum(len(value or b"") for value in encoded),
    )


def _answers(answer: Answer) -> Iterator[tuple[int, Answered]]:
    """Every answer with the offset of the payment that it answers."""
    emitted = [] if answer.features is None else answer.features.values
    for (offset, key, value, headers), features in zip(_rows(answer.decisions), emitted, strict=True):
        decision = msgspec.json.decode(value, type=Decision)
        named = msgspec.json.decode(features or b"", type=_Emitted).features
        yield offset, Answered(decision, None, named, key, value, headers)
    for offset, key, value, headers in _rows(answer.rejected):
        yield offset, Answered(None, msgspec.json.decode(value, type=Rejection), {}, key, value, headers)


def _rows(outgoing: Outgoing) -> Iterator[tuple[int, bytes | None, bytes, Headers]]:
    for key, value, headers in zip(outgoing.keys, outgoing.values, outgoing.headers, strict=True):
        source = dict(headers)["streamer_source"].decode()
        yield int(source.rpartition("/")[2]), key, value or b"", headers
