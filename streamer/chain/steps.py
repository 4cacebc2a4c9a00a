"""The stages of a chain, each a step from records to records; together they do what one engine does."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np

from streamer.acceptance import Punctuality, Recognition
from streamer.batch import Records
from streamer.chain.inbox import Inbox
from streamer.chain.outlet import Outlet
from streamer.chain.pace import Pace
from streamer.chain.stages import Stage
from streamer.chain.wire import FRAUDS, ROW_BITS, Rows
from streamer.codec import PaymentCodec
from streamer.conversion import as_column, convert, from_column, others_of
from streamer.encoding import canonical, copied_of
from streamer.features.expressions import OwnValue
from streamer.features.table import Features
from streamer.payments import PaymentBatch
from streamer.rates import RateTable
from streamer.recall import PaymentReader
from streamer.rejections import RECEIVED_READ, Rejected, rejection_of
from streamer.scoring import Answer, Counted, Scoring
from streamer.state.decided import OFFSET_BITS, mark_rows, name_of
from streamer.state.store import SIGHTED, Row
from streamer.topology import Topology


class Step(Protocol):
    """One stage at work on its partition."""

    def process(self, records: Records, answer: Answer) -> None:
        """Take records in and fill in what becomes of them."""


class Entry:
    """Reads payments, refuses what is none and what comes too late or from the future."""

    def __init__(self, codec: PaymentCodec, punctuality: Punctuality, outlet: Outlet, pace: Pace) -> None:
        self._codec = codec
        self._punctuality = punctuality
        self._outlet = outlet
        self._pace = pace

    def process(self, records: Records, answer: Answer) -> None:
        """Take payment records in."""
        decoded = self._codec.decode(records)
        rejected = decoded.rejected
        payments = self._punctuality.keep(records.partition, decoded.payments, rejected)
        answer.refuse(records, sorted(rejected, key=lambda one: one.index))
        if not len(payments):
            return
        values = records.values
        rows = Rows.of(
            canonical(payments.rows),
            {
                "source": (records.partition << OFFSET_BITS) + payments.offsets,
                "log_time": payments.log_time,
                "position": payments.offsets << ROW_BITS,
            },
            copied_of(records, payments),
            [(values[index] or b"")[:RECEIVED_READ] for index in payments.index.tolist()],
        )
        clock = self._punctuality.greatest[records.partition]
        pace = self._pace.take(payments.event_time, more=records.more)
        answer.forwarded += self._outlet.send(rows, payments, clock, pace)


class Identify:
    """Refuses payments that were seen before; brings the amounts of the others to the base currency.

    `rows` are those of the store that the next commit has to write.
    """

    def __init__(
        self, topic: str, inbox: Inbox, recognition: Recognition, rates: RateTable, outlet: Outlet
    ) -> None:
        self._topic = topic
        self.inbox = inbox
        self._recognition = recognition
        self._rates = rates
        self._outlet = outlet
        self._reader = PaymentReader(outlet.fields)
        self.rows: list[Row] = []
        self.log_time = 0

    def process(self, records: Records, answer: Answer) -> None:
        """Take rows in."""
        parts, answer.unreadable = self.inbox.receive(records)
        for part in parts:
            rows, payments = part.rows, _read(self._reader, part.rows)
            source = rows.number("source")
            marks = self._recognition.marks(payments, rows.payment, source)
            rejected: list[Rejected] = []
            new = self._recognition.judge(payments, marks, rejected)
            self.log_time = max(self.log_time, int(payments.log_time.max()))
            if rejected:
                received = rows.received
                for item in rejected:
                    name = name_of(self._topic, int(source[item.index])).encode()
                    answer.rejected.append(*rejection_of(item, received[item.index], name))
                    answer.codes[item.code] += 1
                rows, payments, marks = rows.take(np.flatnonzero(new)), payments.take(new), marks[new]
            if len(rows):
                self.rows += mark_rows(SIGHTED, marks)
                converted = convert(self._rates, payments)
                answer.unrated += converted.unrated
                column = as_column(self._rates, payments, converted.others)
                rows = rows.without_received().having(converted=column)
                answer.forwarded += self._outlet.send(rows, payments, self.inbox.clock, self.inbox.pace)


class Count:
    """Counts payments for the entities of its stage, and known frauds, and adds their features."""

    def __init__(self, stage: Stage, inbox: Inbox, features: Features, outlet: Outlet) -> None:
        self.inbox = inbox
        self.features = features
        self._outlet = outlet
        self._reader = PaymentReader({*stage.keys, *features.fields, *outlet.fields})
        self.number = 0
        """Number of the batch that is counted: the same from one cut to the next."""

    def process(self, records: Records, answer: Answer) -> None:
        """Take rows in."""
        # The clock of before, since rows of a message may be older than its own; others may be days behind.
        self.features.keep(self.inbox.clock)
        parts, answer.unreadable = self.inbox.receive(records)
        for part in parts:
            rows, payments = part.rows, _read(self._reader, part.rows)
            if part.kind == FRAUDS:
                horizon = int(payments.event_time.min())
                self.features.know(replace(payments, event_time=payments.log_time), horizon)
                continue
            counted = from_column(payments, rows.number("converted"))
            features = self.features.update(counted, None, self.number)
            rows = rows.counted(features)
            answer.forwarded += self._outlet.send(rows, payments, self.inbox.clock, self.inbox.pace)


class Score:
    """Decides, from the features that all stages have added.

    `greatest` is the greatest event time (ms) of each partition's live payments.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - all that a decision takes
        self,
        topology: Topology,
        topic: str,
        inbox: Inbox,
        stage: Stage,
        recognition: Recognition,
        scoring: Scoring,
    ) -> None:
        self._topic = topic.encode()
        self.inbox = inbox
        self._order = np.array(topology.columns_of(stage.columns), np.int64)
        self._widths = stage.widths
        self._width = len(topology.features)
        self._recognition = recognition
        self._scoring = scoring
        self._reader = PaymentReader(_needed(topology))
        self.greatest: dict[int, int] = {}

    def process(self, records: Records, answer: Answer) -> None:
        """Take rows in."""
        parts, answer.unreadable = self.inbox.receive(records)
        for part in parts:
            rows, payments = part.rows, _read(self._reader, part.rows)
            features = np.empty((len(rows), self._width))
            features[:, self._order] = rows.features(self._widths)
            source, column = rows.number("source"), rows.number("converted")
            content = rows.payment
            counted = Counted(
                payments,
                from_column(payments, column),
                features,
                self._recognition.marks(payments, content, source),
                content,
                others_of(column),
                self._names(source.tolist()),
                rows.tracing,
            )
            self._scoring.decide(counted, answer)
            partition = source >> OFFSET_BITS
            for one in np.unique(partition).tolist():
                times = payments.event_time[(partition == one) & payments.live]
                self.greatest[one] = max(self.greatest.get(one, 0), int(times.max(initial=0)))

    def _names(self, source: Iterable[int]) -> list[bytes]:
        topic, low = self._topic, (1 << OFFSET_BITS) - 1
        return [b"%b/%d/%d" % (topic, one >> OFFSET_BITS, one & low) for one in source]


def _needed(topology: Topology) -> set[str]:
    """The fields of a payment on which a decision depends, beside its features."""
    keys = {key for entity in topology.all_entities for key in entity.keys}
    parts = (part for one in topology.derived for part in one.walk())
    return {"payment_id", *keys, *(part.column.name for part in parts if isinstance(part, OwnValue))}


def _read(reader: PaymentReader, rows: Rows) -> PaymentBatch:
    """The payments of rows, with their log times."""
    payments = reader.read(rows.payment)
    return replace(payments, index=np.arange(len(rows), dtype=np.int64), log_time=rows.number("log_time"))
