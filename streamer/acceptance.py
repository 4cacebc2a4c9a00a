"""Which payments are decided: those that come in time and for the first time; the others are told why not."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.batch import Int64, Records, Text
from streamer.encoding import canonical
from streamer.payments import PaymentBatch
from streamer.rejections import Rejected
from streamer.settings import Events
from streamer.state.decided import OFFSET_BITS, name_of
from streamer.state.identities import CONFLICT, ENTRY, NEW, Identities


@dataclass(frozen=True, slots=True)
class Accepted:
    """Payments to decide, with their marks (dtype `ENTRY`) and canonical content."""

    payments: PaymentBatch
    marks: npt.NDArray[np.void]
    content: Text


class Punctuality:
    """Judges payments by their time.

    `greatest` is the greatest event time (ms) of each partition's live payments that are not from the future.
    """

    def __init__(self, events: Events, greatest: Mapping[int, int]) -> None:
        self._events = events
        self.greatest = dict(greatest)

    def keep(self, partition: int, payments: PaymentBatch, rejected: list[Rejected]) -> PaymentBatch:
        """Leave out what comes too late or from the future, and tell so in `rejected`."""
        events = self._events
        fine = np.ones(len(payments), np.bool_)
        if events.future_reference != "none":
            fine = payments.event_time <= payments.log_time + events.future_tolerance
            rejected.extend(_future(payments, np.flatnonzero(~fine), events.future_tolerance))
        before = self.greatest.get(partition, 0)
        counted = np.where(fine & payments.live, payments.event_time, 0)
        greatest = np.maximum.accumulate(np.concatenate(([before], counted)))
        self.greatest[partition] = int(greatest[-1])
        late = fine & (payments.event_time < greatest[:-1] - events.allowed_lateness)
        rejected.extend(_late(payments, np.flatnonzero(late), greatest, events.allowed_lateness))
        fine &= ~late
        return payments if fine.all() else payments.take(fine)


class Recognition:
    """Judges payments by their id; `topic` is where they come from."""

    def __init__(self, topic: str, identities: Identities) -> None:
        self._topic = topic
        self._identities = identities

    def marks(self, payments: PaymentBatch, content: Text, source: Int64) -> npt.NDArray[np.void]:
        """The marks (dtype `ENTRY`) of payments, not decided yet."""
        marks = np.zeros(len(payments), ENTRY)
        digest = self._identities.digest(payments.payment_id)
        marks["high"], marks["low"] = digest[:, 0], digest[:, 1]
        marks["content"] = self._identities.digest(content)[:, 0]
        marks["time"] = payments.log_time
        marks["source"] = source
        return marks

    def judge(
        self, payments: PaymentBatch, marks: npt.NDArray[np.void], rejected: list[Rejected]
    ) -> npt.NDArray[np.bool_]:
        """Tell which payments are new (n,), and why the others are not in `rejected`."""
        verdict, first = self._identities.judge(marks)
        new = verdict == NEW
        if not new.all():
            rejected.extend(_repeated(self._topic, payments, np.flatnonzero(~new), verdict, first))
        return np.asarray(new, np.bool_)


class Acceptance:
    """Judges payments by their time and their id, in this order."""

    def __init__(
        self, topic: str, events: Events, identities: Identities, greatest: Mapping[int, int]
    ) -> None:
        self._punctuality = Punctuality(events, greatest)
        self._recognition = Recognition(topic, identities)

    @property
    def greatest(self) -> Mapping[int, int]:
        """See `Punctuality`."""
        return self._punctuality.greatest

    def accept(
        self, records: Records, payments: PaymentBatch, rejected: list[Rejected]
    ) -> tuple[Accepted, list[Rejected]]:
        """Leave out what comes too late, from the future or again; `rejected` are those refused before."""
        payments = self._punctuality.keep(records.partition, payments, rejected)
        content = canonical(payments.rows)
        source = (records.partition << OFFSET_BITS) + payments.offsets
        marks = self._recognition.marks(payments, content, source)
        new = self._recognition.judge(payments, marks, rejected)
        if not new.all():
            payments, marks = payments.take(new), marks[new]
            content = canonical(payments.rows)
        rejected.sort(key=lambda item: item.index)
        return Accepted(payments, marks, content), rejected


def _future(payments: PaymentBatch, rows: Int64, tolerance: int) -> list[Rejected]:
    return [
        Rejected(
            int(payments.index[row]),
            "future",
            f"Expected an event_time at most {tolerance} ms after the record's timestamp"
            f" {payments.log_time[row]}, got {payments.event_time[row]} - at `$.event_time`",
            payments.rows[row].payment_id,
        )
        for row in rows.tolist()
    ]


def _late(payments: PaymentBatch, rows: Int64, greatest: Int64, lateness: int) -> list[Rejected]:
    return [
        Rejected(
            int(payments.index[row]),
            "too_late",
            f"Expected an event_time at most {lateness} ms before the partition's greatest"
            f" {greatest[row]}, got {payments.event_time[row]} - at `$.event_time`",
            payments.rows[row].payment_id,
        )
        for row in rows.tolist()
    ]


def _repeated(
    topic: str, payments: PaymentBatch, rows: Int64, verdict: npt.NDArray[np.int8], first: Int64
) -> list[Rejected]:
    repeated = []
    for row in rows.tolist():
        code, content = ("id_conflict", "another") if verdict[row] == CONFLICT else ("duplicate", "the same")
        where = name_of(topic, int(first[row]))
        error = f"Expected a new payment_id, got that of {where} with {content} content - at `$.payment_id`"
        repeated.append(Rejected(int(payments.index[row]), code, error, payments.rows[row].payment_id))
    return repeated
