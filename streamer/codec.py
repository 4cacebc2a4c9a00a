"""Bytes to payments and outcomes: only what is bad leaves the batch, each with its code and reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, Final, TypeVar, cast, get_type_hints

import msgspec
import numpy as np
from msgspec import Meta, Struct, structs

from streamer.batch import Records
from streamer.decoding import Read, RecordDecoder, incoming_names
from streamer.events import (
    MAX_ID_BYTES,
    MAX_TEXT_BYTES,
    MAX_TIME,
    REQUIRED,
    AttributeType,
    Outcome,
    Payment,
    Scalar,
    Source,
    TimeUnit,
)
from streamer.pan import PanGuard
from streamer.payments import PaymentBatch
from streamer.rejections import Rejected
from streamer.settings import Events, PanPolicy

__all__ = ["Decoded", "OutcomeCodec", "PaymentBatch", "PaymentCodec", "Rejected"]

S = TypeVar("S", Payment, Outcome)
Fault = tuple[int, str, str]
"""Position in the rows, code, error."""

_NO_TEXT: Final = frozenset(
    {"event_time", "occurred_at", "amount", "attempt", "lat", "lon", "live", "attributes"}
)
_MOST: Final[Mapping[TimeUnit, int]] = {
    "ms": MAX_TIME,
    "s": MAX_TIME // 1000,
    "us": MAX_TIME * 1000 + 999,
    "ns": 2**63 - 1,
}
_TO_MS: Final[Mapping[TimeUnit, Callable[[int], int]]] = {
    "s": lambda time: time * 1000,
    "us": lambda time: time // 1000,
    "ns": lambda time: time // 1_000_000,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a batch of records: each is a payment or rejected, both in the order of the records."""

    payments: PaymentBatch
    rejected: list[Rejected]


class PaymentCodec:
    """Reads the payments of a source; raises ConfigError for a PAN policy `hash` without a key.

    Where an object has a field twice, the last one counts. `null` is the same as an absent field.
    """

    def __init__(
        self, source: Source | None = None, events: Events | None = None, pan_policy: PanPolicy | None = None
    ) -> None:
        source, events, pan_policy = source or Source(), events or Events(), pan_policy or PanPolicy()
        names = incoming_names(Payment, source.rename)
        self._names = names
        wire = _wire(source, names)
        self._foreign = wire is not Payment
        self._decoder = RecordDecoder(wire, events.max_record_bytes, names["payment_id"])
        self._to_ms = _TO_MS.get(source.time_unit)
        self._attributes = dict(source.attributes)
        self._guard = PanGuard(pan_policy.by_field(), events.pan_key.encode())

    def decode(self, records: Records) -> Decoded:
        """Read a batch; nothing is raised, whatever the bytes."""
        read = self._decoder.decode(records.values)
        payments = self._ours(read.rows)
        faults = _too_long(payments, read.wide, self._names)
        faults += self._declared(payments)
        faults += [(position, "pan", self._pan_error(name)) for position, name in self._guard.apply(payments)]
        kept, index, rejected = _without(payments, read, faults)
        places = np.array(index, np.int64)
        offsets = np.array(records.offsets, np.int64)
        log_time = np.array(records.timestamps, np.int64)
        if rejected:
            offsets, log_time = offsets[places], log_time[places]
        return Decoded(PaymentBatch.of(kept, places, offsets, log_time), rejected)

    def _ours(self, rows: list[Payment]) -> list[Payment]:
        """Payments under our names and in milliseconds, whatever the source writes."""
        if self._foreign:
            rows = [Payment(*structs.astuple(row)) for row in rows]
        if self._to_ms is not None:
            for row in rows:
                structs.force_setattr(row, "event_time", self._to_ms(row.event_time))
        return rows

    def _declared(self, payments: list[Payment]) -> list[Fault]:
        """Leave the declared attributes in their declared types."""
        faults = []
        for position, payment in enumerate(payments):
            given = payment.attributes
            if given is None:
                continue
            kept: dict[str, Scalar] = {}
            for name, kind in self._attributes.items():
                value = given.get(name)
                if value is None:
                    continue
                value, error = _cast(value, kind)
                if error:
                    where = f"{self._names['attributes']}.{name}"
                    faults.append((position, "invalid_field", f"{error} - at `$.{where}`"))
                    break
                kept[name] = value
            structs.force_setattr(payment, "attributes", kept or None)
        return faults

    def _pan_error(self, name: str) -> str:
        return (
            f"Expected a token, got what looks like a card number (13 to 19 digits passing Luhn)"
            f" - at `$.{self._names[name]}`; send a token, or change [pan_policy] {name}"
        )


class OutcomeCodec:
    """Reads outcomes; the rules are those of payments."""

    def __init__(self, events: Events | None = None) -> None:
        self._decoder = RecordDecoder(Outcome, (events or Events()).max_record_bytes)
        self._names = incoming_names(Outcome, {})

    def decode(self, records: Records) -> tuple[list[tuple[int, Outcome]], list[Rejected]]:
        """Read a batch: the outcomes, each with its index in it, and what was refused; both in order."""
        read = self._decoder.decode(records.values)
        faults = _too_long(read.rows, read.wide, self._names)
        for position, outcome in enumerate(read.rows):
            if outcome.amount is not None and outcome.currency is None:
                faults.append((position, "missing_field", _needed("currency", "there is an `amount`")))
            if outcome.kind == "enforced" and outcome.action is None:
                faults.append((position, "missing_field", _needed("action", "the kind is `enforced`")))
        rows, index, rejected = _without(read.rows, read, faults)
        return list(zip(index, rows, strict=True)), rejected


def _wire(source: Source, names: Mapping[str, str]) -> type[Payment]:
    """Make the struct that reads what the source writes: the fields of a payment in their order."""
    if not source.rename and source.time_unit == "ms":
        return Payment
    kinds = get_type_hints(Payment, include_extras=True)
    kinds["event_time"] = Annotated[int, Meta(ge=0, le=_MOST[source.time_unit])]
    fields: list[Any] = [(name, kinds[name]) for name in REQUIRED]
    fields += [
        (field.name, kinds[field.name], field.default) for field in structs.fields(Payment)[len(REQUIRED) :]
    ]
    return cast("type[Payment]", msgspec.defstruct("SourcePayment", fields, rename=names, gc=False))


def _too_long(rows: Sequence[Struct], wide: list[int], names: Mapping[str, str]) -> list[Fault]:
    """Find strings within the limit in characters but not in bytes."""
    texts = [name for name in names if name not in _NO_TEXT]
    values_of = attrgetter(*texts)
    faults = []
    for position in wide:
        values = values_of(rows[position])
        # No character has more than 4 bytes, so where all strings are shorter than that none is encoded.
        if max(map(len, filter(None, values))) * 4 <= MAX_ID_BYTES:
            continue
        for name, value in zip(texts, values, strict=True):
            most = MAX_ID_BYTES if name == "payment_id" else MAX_TEXT_BYTES
            got = len(value.encode()) if value else 0
            if got > most:
                error = f"Expected `str` of at most {most} bytes, got {got} - at `$.{names[name]}`"
                faults.append((position, "invalid_field", error))
                break
    return faults


def _cast(value: Scalar, kind: AttributeType) -> tuple[Scalar, str]:
    if kind is float and type(value) is int and abs(value) < 2**1023:
        value = float(value)
    if type(value) is not kind:
        return None, f"Expected `{kind.__name__}`, got `{type(value).__name__}`"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None, "Expected `int` of 64 bits, got a larger one"
    if isinstance(value, str) and not 0 < len(value.encode()) <= MAX_TEXT_BYTES:
        return None, f"Expected `str` of 1 to {MAX_TEXT_BYTES} bytes, got {len(value.encode())}"
    return value, ""


def _needed(name: str, because: str) -> str:
    return f"Object missing required field `{name}`, needed because {because}"


def _without(rows: list[S], read: Read[S], faults: list[Fault]) -> tuple[list[S], list[int], list[Rejected]]:
    """Take the faulty rows out: rows left, their indexes, all rejections; the first fault of a row counts."""
    if not faults:
        return rows, read.index, read.rejected
    first: dict[int, Rejected] = {}
    for position, code, error in faults:
        index = read.index[position]
        first.setdefault(position, Rejected(index, code, error, _id_of(rows[position])))
    kept = [position for position in range(len(rows)) if position not in first]
    rejected = sorted([*read.rejected, *first.values()], key=lambda item: item.index)
    return [rows[position] for position in kept], [read.index[position] for position in kept], rejected


def _id_of(row: Payment | Outcome) -> str | None:
    return row.payment_id if len(row.payment_id.encode()) <= MAX_ID_BYTES else None
