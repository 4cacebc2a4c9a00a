"""Decisions to bytes and headers, and payments to the bytes by which a repeat is told from a conflict."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Final

import msgspec
import numpy as np
from msgspec import Raw, Struct

from streamer.batch import SOURCE, Float64, Headers, Records, Text
from streamer.events import Payment, Reason
from streamer.payments import PaymentBatch

COPIED: Final = frozenset({"traceparent", "tracestate", "correlation_id"})

MOST_COPIED: Final = 1 << 16
"""Bytes of headers that are copied: with more of them an answer might not fit into the log."""

Copied = Mapping[int, Headers]
"""The headers that go with an answer, of the payments that have any, by their place in the batch."""

_json = msgspec.json.Encoder()
_canonical = msgspec.msgpack.Encoder(order="deterministic")


class _Wire(Struct, frozen=True, gc=False):
    """A decision, the parts that many share encoded already; the fields are those of `events.Decision`."""

    payment_id: str
    event_time: int
    action: str
    score: float
    scores: Struct
    models: Raw
    reasons: list[Reason]
    policy: Raw
    topology: Raw
    missing: Raw


class DecisionEncoder:
    """Writes decisions of one topology as long as its models' versions stay the same.

    `models` maps each model to its version, in the order of the scores' columns; the first one decides.
    `entities` are the fields of a payment whose absence is told in `missing`.
    """

    def __init__(
        self,
        *,
        topology: str,
        fingerprint: str,
        policy: str,
        models: Mapping[str, str | int],
        entities: Sequence[str],
    ) -> None:
        self._models = Raw(_json.encode(models))
        self._policy = Raw(_json.encode(policy))
        self._fingerprint = Raw(_json.encode(fingerprint))
        self._entities = tuple(entities)
        self._missing: dict[int, Raw] = {}
        names = {f"model{column}": name for column, name in enumerate(models)}
        self._scores = msgspec.defstruct(
            "Scores", [(name, float) for name in names], rename=names, frozen=True, gc=False
        )
        self._kind = ("content-type", b"application/json")
        self._version = ("ce_specversion", b"1.0")
        self._type = ("ce_type", b"streamer.decision")
        self._source = ("ce_source", f"streamer/{topology}".encode())

    def encode(
        self,
        records: Records,
        payments: PaymentBatch,
        actions: Sequence[str],
        scores: Float64,
        reasons: Sequence[list[Reason]],
    ) -> tuple[list[bytes | None], list[bytes | None], list[Headers]]:
        """Keys, values and headers of the decisions on n payments of `records`.

        `scores` has shape (n, models); NaN becomes null.
        """
        prefix = f"{records.topic}/{records.partition}/".encode()
        sources = [b"%b%d" % (prefix, offset) for offset in payments.offsets.tolist()]
        return self.encode_from(sources, copied_of(records, payments), payments, actions, scores, reasons)

    def encode_from(  # noqa: PLR0913, PLR0917 - parallel columns
        self,
        sources: Sequence[bytes],
        copied: Copied,
        payments: PaymentBatch,
        actions: Sequence[str],
        scores: Float64,
        reasons: Sequence[list[Reason]],
    ) -> tuple[list[bytes | None], list[bytes | None], list[Headers]]:
        """The same of payments of any partitions; `sources` are their records, topic/partition/offset."""
        ids = [payment.payment_id for payment in payments.rows]
        columns = scores.T.tolist()
        decisions = map(
            _Wire,
            ids,
            payments.event_time.tolist(),
            actions,
            columns[0],
            map(self._scores, *columns),
            repeat(self._models),
            reasons,
            repeat(self._policy),
            repeat(self._fingerprint),
            self._lacking(payments),
        )
        values = list(map(_json.encode, decisions))
        keys = [name.encode() for name in ids]
        return [*keys], [*values], self._headers(sources, copied, keys)

    def _lacking(self, payments: PaymentBatch) -> list[Raw]:
        lacks = np.zeros(len(payments), np.int64)
        for bit, name in enumerate(self._entities):
            lacks |= ~payments.text(name).present * np.int64(1 << bit)
        known = self._missing
        codes = lacks.tolist()
        for code in set(codes) - known.keys():
            names = [name for bit, name in enumerate(self._entities) if code >> bit & 1]
            known[code] = Raw(_json.encode(names))
        return [known[code] for code in codes]

    def _headers(self, sources: Sequence[bytes], copied: Copied, ids: Sequence[bytes]) -> list[Headers]:
        kind, version, type_, source = self._kind, self._version, self._type, self._source
        built: list[Headers] = [
            [(SOURCE, record), kind, version, ("ce_id", name), type_, source]
            for record, name in zip(sources, ids, strict=True)
        ]
        for position, headers in copied.items():
            built[position] = [*built[position], *headers]
        return built


def copied_of(records: Records, payments: PaymentBatch) -> Copied:
    """The headers of the payments' records that are to be copied."""
    if not any(records.headers):
        return {}
    found = {
        position: [header for header in records.headers[index] if header[0] in COPIED]
        for position, index in enumerate(payments.index.tolist())
    }
    return {
        position: headers
        for position, headers in found.items()
        if headers and sum(len(value or b"") for _, value in headers) <= MOST_COPIED
    }


def canonical(payments: Sequence[Payment]) -> Text:
    """Write each payment's content as MessagePack: equal whatever spelling and order it came in."""
    content = bytearray()
    ends = [0]
    into = _canonical.encode_into
    for payment in payments:
        into(payment, content, -1)
        ends.append(len(content))
    return Text(np.frombuffer(content, np.uint8), np.array(ends, np.int64))
