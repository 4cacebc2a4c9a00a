"""Tests that every record is judged by itself, whatever the bytes around it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamer.batch import Records
from streamer.codec import PaymentCodec
from streamer.decoding import depth
from streamer.events import Payment, Source
from streamer.settings import Events, Size

EVENT: dict[str, Any] = {
    "payment_id": "p1",
    "event_time": 1_700_000_000_000,
    "amount": 1250,
    "currency": "EUR",
}
GOOD = json.dumps(EVENT).encode()


def batch(*values: bytes | None) -> Records:
    """Records with the given values, at offsets 10, 20, ..."""
    n = len(values)
    offsets = list(range(10, 10 * n + 1, 10))
    return Records("payments", 3, offsets, list(range(n)), [None] * n, list(values), [()] * n, 0)


def event(**changes: object) -> bytes:
    """A payment record with some fields changed or added."""
    return json.dumps(EVENT | changes).encode()


def text(field: str) -> bytes:
    """A payment record with one more field, given as JSON text."""
    return GOOD[:-1] + b"," + field.encode("utf-8", "surrogatepass") + b"}"


def nested(levels: int) -> bytes:
    """A payment record with an unknown field of so many levels, the record's own included."""
    return text('"x":' + "[" * (levels - 1) + "]" * (levels - 1))


FORGERIES = [
    [b'{"payment_id":"a","x":"', b'"}'],
    [b'{"payment_id":"a","event_time":1', b'"amount":1,"currency":"EUR"}'],
    [GOOD + b",0," + GOOD, b'{"x":[', b"]}"],
    [b'{"x":[', GOOD, b"]}"],
    [GOOD + b"],[" + GOOD],
    [GOOD + b"\n" + GOOD],
    [b"/*", GOOD, b"*/"],
]


@pytest.mark.parametrize("pieces", FORGERIES)
def test_broken_records_forge_nothing(pieces: list[bytes]) -> None:
    """Pieces that would be payments if they were joined are judged each for itself."""
    expected = [index for index, piece in enumerate(pieces) if piece == GOOD]
    decoded = PaymentCodec().decode(batch(*pieces))
    assert expected == decoded.payments.index.tolist()
    assert len(pieces) == len(decoded.payments) + len(decoded.rejected)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["4111111111111111", "EUR"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
MUTATED = st.builds(
    lambda source, at, junk, cut: source[: at % len(source)] + junk + source[(at + cut) % len(source) :],
    st.sampled_from([GOOD, event(card="é" * 100), event(attributes={"a": 1}), nested(70), nested(10)]),
    st.integers(0, 200),
    st.one_of(st.binary(max_size=4), st.sampled_from([b"\\ud800", b"NaN", b"{", b"]", b'"', b"9" * 30])),
    st.integers(0, 5),
)
FIELDS = st.dictionaries(st.sampled_from([*Payment.__struct_fields__, "x"]), SCALARS | JSON, max_size=4)
VALUES = st.one_of(
    st.just(GOOD),
    st.none(),
    st.binary(max_size=40),
    MUTATED,
    JSON.map(lambda value: json.dumps(value).encode()),
    FIELDS.map(lambda fields: event(**fields)),
    st.sampled_from([piece for forgery in FORGERIES for piece in forgery]),
)
CODECS = [
    PaymentCodec(),
    PaymentCodec(
        Source({"id": "payment_id", "payment_id": "order"}, "us", {"a": int}),
        Events(max_record_bytes=Size(150)),
    ),
]


@given(st.lists(VALUES, max_size=12), st.sampled_from(CODECS))
@example([b'{"', b'":{}', b"}"], CODECS[0])
def test_every_record_is_answered_by_itself(values: list[bytes | None], codec: PaymentCodec) -> None:
    """Whatever the bytes: one answer per record, in order, the same as if it were alone, and passable on."""
    decoded = codec.decode(batch(*values))
    places = decoded.payments.index.tolist()
    refused = [rejected.index for rejected in decoded.rejected]
    assert places == sorted(places)
    assert refused == sorted(refused)
    assert list(range(len(values))) == sorted(places + refused)
    payments, rejections = iter(decoded.payments.rows), iter(decoded.rejected)
    for index, value in enumerate(values):
        alone = codec.decode(batch(value))
        if index in places:
            assert alone.payments.rows == [next(payments)]
        else:
            (one,), other = alone.rejected, next(rejections)
            assert (one.code, one.error, one.payment_id) == (other.code, other.error, other.payment_id)
    for name in ("payment_id", "card", "order", "email"):
        assert len(decoded.payments) == len(decoded.payments.text(name))
    for payment in decoded.payments.rows:
        msgspec.json.encode(payment)


@given(JSON)
def test_depth_equals_counting(value: object) -> None:
    """The depth of a JSON text is that of its value."""

    def levels(part: object) -> int:
        if isinstance(part, dict):
            return 1 + max(map(levels, part.values()), default=0)
        return 1 + max(map(levels, part), default=0) if isinstance(part, list) else 0

    assert levels(value) == depth(json.dumps(value).encode())
