"""Tests that records become payments and outcomes, and that what is bad harms nothing but itself."""

import json
import re
from typing import Any

import numpy as np
import pytest

from streamer.batch import Records
from streamer.codec import Decoded, OutcomeCodec, PaymentCodec
from streamer.decoding import MAX_DEPTH
from streamer.errors import ConfigError
from streamer.events import Outcome, Payment, Source
from streamer.settings import Events, PanPolicy, Secret, Size

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


def decode(*values: bytes | None) -> Decoded:
    """Read records of an ordinary source."""
    return PaymentCodec().decode(batch(*values))


BAD: list[tuple[bytes | None, str, str, str | None]] = [
    (None, "invalid_json", "Expected a JSON object, got no value (a tombstone)", None),
    (b"", "invalid_json", "Expected a JSON object, got an empty value", None),
    (b" ", "invalid_json", "Input data was truncated", None),
    (b"{", "invalid_json", "Input data was truncated", None),
    (GOOD[:-1], "invalid_json", "Input data was truncated", None),
    (GOOD + b"x", "invalid_json", "JSON is malformed: trailing characters", None),
    (GOOD + GOOD, "invalid_json", "JSON is malformed: trailing characters", None),
    (b"\xef\xbb\xbf" + GOOD, "invalid_json", "JSON is malformed: invalid character", None),
    (b"[]", "invalid_json", "Expected `object`, got `array`", None),
    (b"null", "invalid_json", "Expected `object`, got `null`", None),
    (b"7", "invalid_json", "Expected `object`, got `int`", None),
    (b'{"amount":1}', "missing_field", "Object missing required field `payment_id`", None),
    (b'{"payment_id":"p1"}', "missing_field", "Object missing required field `event_time`", "p1"),
    (event(amount="1"), "invalid_field", "Expected `int`, got `str` - at `$.amount`", "p1"),
    (event(amount=1.0), "invalid_field", "Expected `int`, got `float` - at `$.amount`", "p1"),
    (event(amount=True), "invalid_field", "Expected `int`, got `bool` - at `$.amount`", "p1"),
    (event(amount=None), "invalid_field", "Expected `int`, got `null` - at `$.amount`", "p1"),
    (event(amount=-1), "invalid_field", "Expected `int` >= 0 - at `$.amount`", "p1"),
    (event(amount=10**400), "invalid_field", "Expected `int` <= 1000000000000 - at `$.amount`", "p1"),
    (text('"amount":1' + "0" * 5000), "invalid_field", "Integer value out of range - at `$.amount`", "p1"),
    (event(event_time=-1), "invalid_field", "Expected `int` >= 0 - at `$.event_time`", "p1"),
    (event(lat=float("nan")), "invalid_json", "JSON is malformed: invalid character", None),
    (event(lon=float("-inf")), "invalid_json", "JSON is malformed: invalid character", None),
    (event(lat=10**400), "invalid_field", "Number out of range - at `$.lat`", "p1"),
    (text('"lat":1e400'), "invalid_field", "Number out of range - at `$.lat`", "p1"),
    (event(currency="XXX"), "invalid_field", "Invalid enum value 'XXX' - at `$.currency`", "p1"),
    (event(card=""), "invalid_field", "Expected `str` of length >= 1 - at `$.card`", "p1"),
    (event(card="x" * 10_000), "invalid_field", "Expected `str` of length <= 256 - at `$.card`", "p1"),
    (
        event(card="é" * 129),
        "invalid_field",
        "Expected `str` of at most 256 bytes, got 258 - at `$.card`",
        "p1",
    ),
    (event(payment_id=""), "invalid_field", "Expected `str` of length >= 1 - at `$.payment_id`", None),
    (
        event(payment_id="é" * 65),
        "invalid_field",
        "Expected `str` of at most 128 bytes, got 130 - at `$.payment_id`",
        None,
    ),
    (
        text(f'"ip":"{"é" * 200}"'),
        "invalid_field",
        "Expected `str` of at most 256 bytes, got 400 - at `$.ip`",
        "p1",
    ),
    (
        event(card="\ud800\u00e9 and"),
        "invalid_json",
        "JSON is malformed: invalid utf-16 surrogate pair",
        None,
    ),
    (
        event(unknown="\udc00"),
        "invalid_json",
        "JSON is malformed: invalid utf-16 surrogate pair",
        None,
    ),
    (text('"card":"\ud800"'), "invalid_json", "Expected UTF-8, got byte 0xed (byte 92)", "p1"),
    (GOOD[:-1] + b',"x":"\xff"}', "invalid_json", "Expected UTF-8, got byte 0xff (byte 89)", "p1"),
    (text('"card":"a\0b"'), "invalid_json", "JSON is malformed: invalid character", None),
    (GOOD + b"\0", "invalid_json", "JSON is malformed: trailing characters", None),
    (
        nested(MAX_DEPTH + 1),
        "invalid_json",
        "Expected at most 64 levels of arrays and objects, got more",
        None,
    ),
    (b"[" * 100_000, "invalid_json", "Expected at most 64 levels of arrays and objects, got more", None),
    (event(x="y" * 10_000_000), "too_large", "Expected at most 1048576 bytes, got 10000093", "p1"),
    (
        event(card="4111 1111 1111 1111"),
        "pan",
        (
            "Expected a token, got what looks like a card number (13 to 19 digits passing Luhn)"
            " - at `$.card`; send a token, or change [pan_policy] card"
        ),
        "p1",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: (bad[0] or b"None")[:40].decode("ascii", "replace"))
def test_bad_records_leave_alone(bad: tuple[bytes | None, str, str, str | None]) -> None:
    """What is bad is rejected with its reason; its neighbours are not touched."""
    value, *expected = bad
    decoded = decode(GOOD, value, event(payment_id="p2"))
    assert [payment.payment_id for payment in decoded.payments.rows] == ["p1", "p2"]
    assert decoded.payments.index.tolist() == [0, 2]
    (rejected,) = decoded.rejected
    assert rejected.index == 1
    error = re.sub(r"^(JSON is malformed.*) \(byte [0-9]+\)$", r"\1", rejected.error)
    assert expected == [rejected.code, error, rejected.payment_id]


@pytest.mark.parametrize(
    ("value", "field", "expected"),
    [
        (text('"unknown":{"a":[1,{"b":null}]}'), "card", None),
        (text('"unknown":1e400'), "card", None),
        (text('"amount":7'), "amount", 7),
        (text('"card":null'), "card", None),
        (text('"lat":52'), "lat", 52.0),
        (text(r'"card":"\ud83d\ude00"'), "card", "\U0001f600"),
        (text(r'"card":"a\u0000b"'), "card", "a\0b"),
        (text(f'"card":"{"é" * 128}"'), "card", "é" * 128),
        (event(payment_id="é" * 64), "payment_id", "é" * 64),
        (b" \n" + GOOD + b"\r\t", "card", None),
        (nested(MAX_DEPTH), "card", None),
        (text('"x":[' + "[],{}," * 100 + '"[[["]'), "card", None),
        (event(event_time=253_402_300_799_999), "event_time", 253_402_300_799_999),
        (event(amount=10**12), "amount", 10**12),
        (event(customer="4111111111111111"), "customer", "4111111111111111"),
    ],
)
def test_unusual_but_good(value: bytes, field: str, expected: object) -> None:
    """Unknown fields are ignored, the last of equal fields counts, null is absent, limits are inclusive."""
    decoded = decode(value)
    assert decoded.rejected == []
    assert expected == getattr(decoded.payments.rows[0], field)


def test_columns() -> None:
    """A batch gives its fields as columns; what is absent is empty, NaN or live."""
    decoded = decode(b"bad", event(card="c", lat=1.5, live=False), event(amount=3, attempt=2))
    payments = decoded.payments
    assert payments.index.tolist() == [1, 2]
    assert payments.offsets.tolist() == [20, 30]
    assert payments.log_time.tolist() == [1, 2]
    assert payments.amount.tolist() == [1250, 3]
    assert payments.live.tolist() == [False, True]
    assert payments.text("card").present.tolist() == [True, False]
    assert payments.payment_id.data.tobytes() == b"p1p1"
    np.testing.assert_array_equal([1.5, np.nan], payments.number("lat"))
    np.testing.assert_array_equal([np.nan, 2.0], payments.number("attempt"))
    assert {np.dtype(np.int64)} == {
        column.dtype for column in (payments.index, payments.offsets, payments.event_time, payments.amount)
    }


def test_take() -> None:
    """A batch can be narrowed by mask or by positions, and its columns follow."""
    payments = decode(*(event(payment_id=f"p{i}", amount=i, card=f"c{i}") for i in range(4))).payments
    assert payments.text("card").data.tobytes() == b"c0c1c2c3"
    for chosen in (np.array([False, True, False, True]), np.array([1, 3])):
        taken = payments.take(chosen)
        assert [payment.payment_id for payment in taken.rows] == ["p1", "p3"]
        assert [1, 3] == taken.amount.tolist() == taken.index.tolist()
        assert taken.text("card").data.tobytes() == b"c1c3"
    assert len(payments.take(np.zeros(4, np.bool_))) == 0
    with pytest.raises(IndexError, match="mask of 4"):
        payments.take(np.array([True]))


def test_empty_batch() -> None:
    """No records give no payments."""
    decoded = decode()
    assert (len(decoded.payments), decoded.rejected) == (0, [])
    assert len(decoded.payments.text("card")) == 0


def test_source_renames_and_scales() -> None:
    """A producer's own names and unit of time need no job in front; errors speak of its names."""
    codec = PaymentCodec(Source(rename={"id": "payment_id", "customer": "email"}, time_unit="ns"))
    one = {"id": "x", "customer": "me@example.org", "event_time": 1_700_000_000_123_999_999, "amount": 1}
    decoded = codec.decode(
        batch(json.dumps(one | {"currency": "JPY"}).encode(), json.dumps(one).encode(), GOOD)
    )
    expected = Payment("x", 1_700_000_000_123, 1, "JPY", email="me@example.org")
    assert [expected] == decoded.payments.rows
    assert [Payment] == [type(payment) for payment in decoded.payments.rows]
    assert [(rejected.code, rejected.payment_id) for rejected in decoded.rejected] == [
        ("missing_field", "x"),
        ("missing_field", None),
    ]
    assert decoded.rejected[1].error == "Object missing required field `id`"


@pytest.mark.parametrize(
    ("unit", "time"), [("s", 2), ("ms", 2_000), ("us", 2_000_999), ("ns", 2_000_999_999)]
)
def test_units_of_time(unit: Any, time: int) -> None:
    """Every unit ends as whole milliseconds."""
    decoded = PaymentCodec(Source(time_unit=unit)).decode(batch(event(event_time=time)))
    assert decoded.payments.event_time.tolist() == [2_000]


def test_time_beyond_the_year_9999() -> None:
    """Seconds that are milliseconds in truth are refused, not multiplied."""
    decoded = PaymentCodec(Source(time_unit="s")).decode(batch(GOOD))
    assert [rejected.code for rejected in decoded.rejected] == ["invalid_field"]


def test_declared_attributes() -> None:
    """Declared attributes are kept in their type, others are dropped, null is absent."""
    codec = PaymentCodec(Source(attributes={"items": int, "ratio": float, "tier": str, "gift": bool}))
    given_attributes = {"items": 3, "ratio": 1, "tier": "gold", "gift": True, "other": 10**400}
    decoded = codec.decode(batch(event(attributes=given_attributes), event(attributes={"tier": None}), GOOD))
    assert [payment.attributes for payment in decoded.payments.rows] == [
        {"items": 3, "ratio": 1.0, "tier": "gold", "gift": True},
        None,
        None,
    ]
    np.testing.assert_array_equal([3.0, np.nan, np.nan], decoded.payments.number("items"))
    np.testing.assert_array_equal([1.0, np.nan, np.nan], decoded.payments.number("gift"))
    assert decoded.payments.text("tier").data.tobytes() == b"gold"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"items": "3"}, "Expected `int`, got `str` - at `$.attributes.items`"),
        ({"items": True}, "Expected `int`, got `bool` - at `$.attributes.items`"),
        ({"items": 2**63}, "Expected `int` of 64 bits, got a larger one - at `$.attributes.items`"),
        ({"ratio": 10**400}, "Expected `float`, got `int` - at `$.attributes.ratio`"),
        ({"tier": ""}, "Expected `str` of 1 to 256 bytes, got 0 - at `$.attributes.tier`"),
        ({"tier": "é" * 129}, "Expected `str` of 1 to 256 bytes, got 258 - at `$.attributes.tier`"),
    ],
)
def test_wrong_attributes(attributes: dict[str, object], expected: str) -> None:
    """A declared attribute of another type or size is a bad field."""
    codec = PaymentCodec(Source(attributes={"items": int, "ratio": float, "tier": str}))
    (rejected,) = codec.decode(batch(event(attributes=attributes))).rejected
    assert ("invalid_field", expected) == (rejected.code, rejected.error)


def test_pan_policy() -> None:
    """A policy per field decides about card numbers."""
    pan = "4111111111111111"
    values = batch(event(card=pan), event(order=pan), event(card="token"))
    policy = PanPolicy(card="hash", order="reject")
    decoded = PaymentCodec(None, Events(pan_key=Secret("0123456789abcdef")), policy).decode(values)
    assert decoded.payments.index.tolist() == [0, 2]
    assert [len(payment.card or "") for payment in decoded.payments.rows] == [64, 5]
    assert [(rejected.index, rejected.code) for rejected in decoded.rejected] == [(1, "pan")]
    with pytest.raises(ConfigError, match="pan_key"):
        PaymentCodec(pan_policy=PanPolicy(card="hash"))


def test_limit_of_records() -> None:
    """The largest record that is read is a setting, and inclusive."""
    codec = PaymentCodec(None, Events(max_record_bytes=Size(len(GOOD))))
    decoded = codec.decode(batch(GOOD, GOOD + b" "))
    assert [(rejected.index, rejected.code) for rejected in decoded.rejected] == [(1, "too_large")]


OUTCOME: dict[str, Any] = {"outcome_id": "o", "payment_id": "p1", "kind": "refund", "event_time": 5}


def outcome(**changes: object) -> bytes:
    """An outcome record with some fields changed or added."""
    return json.dumps(OUTCOME | changes).encode()


def test_outcomes() -> None:
    """Outcomes keep their place in the batch; what is bad is rejected with its reason."""
    decoded, rejected = OutcomeCodec().decode(
        batch(
            outcome(amount=5, currency="EUR"),
            outcome(kind="unheard"),
            outcome(amount=5),
            outcome(kind="enforced"),
            outcome(kind="enforced", action="block"),
            outcome(outcome_id="é" * 129),
            None,
        )
    )
    assert [index for index, _ in decoded] == [0, 4]
    assert decoded[0][1] == Outcome(
        outcome_id="o", payment_id="p1", kind="refund", event_time=5, amount=5, currency="EUR"
    )
    assert [(one.index, one.code, one.error, one.payment_id) for one in rejected] == [
        (1, "invalid_field", "Invalid enum value 'unheard' - at `$.kind`", "p1"),
        (
            2,
            "missing_field",
            "Object missing required field `currency`, needed because there is an `amount`",
            "p1",
        ),
        (
            3,
            "missing_field",
            "Object missing required field `action`, needed because the kind is `enforced`",
            "p1",
        ),
        (5, "invalid_field", "Expected `str` of at most 256 bytes, got 258 - at `$.outcome_id`", "p1"),
        (6, "invalid_json", "Expected a JSON object, got no value (a tombstone)", None),
    ]
