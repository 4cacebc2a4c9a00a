"""Tests of the event structs, the currencies and the source."""

import msgspec
import pytest

from streamer.currencies import CODES, EXPONENTS, minor_units
from streamer.errors import TopologyError
from streamer.events import Decision, Payment, Reason, Rejection, Source

PAYMENT = Payment(payment_id="p1", event_time=1_700_000_000_000, amount=1250, currency="EUR")


def test_absent_fields_are_not_written() -> None:
    """A payment on the wire has only the fields that it has."""
    expected = b'{"payment_id":"p1","event_time":1700000000000,"amount":1250,"currency":"EUR"}'
    assert expected == msgspec.json.encode(PAYMENT)


def test_payments_are_frozen() -> None:
    """Nobody changes an event by accident."""
    with pytest.raises(AttributeError):
        PAYMENT.amount = 1  # type: ignore[misc]


def test_decision_survives_the_wire() -> None:
    """A decision reads back as it was written, nulls included."""
    decision = Decision(
        payment_id="p1",
        event_time=1,
        action="review",
        score=None,
        scores={"fraud": 0.5, "other": None},
        models={"fraud": "7"},
        reasons=[Reason("card_testing", "card_count_1m", 9.0), Reason("policy")],
        policy="default@3",
        topology="abc",
        missing=["ip"],
    )
    assert decision == msgspec.json.decode(msgspec.json.encode(decision), type=Decision)


def test_rejection_says_null() -> None:
    """An unreadable payment_id is written as null, not left out."""
    written = msgspec.json.encode(Rejection(payment_id=None, code="pan", error="e", received=""))
    assert written == b'{"payment_id":null,"code":"pan","error":"e","received":""}'


def test_currencies_have_their_decimal_places() -> None:
    """Every code has an exponent; the unusual ones are those of ISO 4217."""
    assert set(CODES) == set(EXPONENTS)
    assert len(set(CODES)) == len(CODES)
    assert tuple(map(minor_units, ("JPY", "EUR", "KWD", "CLF"))) == (1, 100, 1000, 10_000)
    assert all(len(code) == 3 and code.isupper() and code.isascii() for code in CODES)


def test_codes_without_minor_unit_are_unknown() -> None:
    """Metals and test codes cannot carry an amount in minor units."""
    assert not {"XAU", "XTS", "XXX", "eur"} & set(CODES)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"rename": {"shop": "shopp"}}, r"got 'shopp' - at Source\.rename\['shop'\]"),
        ({"rename": {"a": "card", "b": "card"}}, "one incoming name for 'card'"),
        ({"rename": {'a"b': "card"}}, "without quotes"),
        ({"rename": {"amount": "order"}}, "'amount' is required"),
        ({"time_unit": "min"}, "Expected one of s, ms, us, ns, got 'min'"),
        ({"attributes": {"card": str}}, "a name of its own"),
        ({"attributes": {"items": list}}, "Expected str, int, float or bool"),
        ({"attributes": {f"a{i}": str for i in range(33)}}, "at most 32 attributes, got 33"),
    ],
)
def test_source_refuses(arguments: dict[str, object], expected: str) -> None:
    """A source that cannot be read says so when it is built, and where."""
    with pytest.raises(TopologyError, match=expected):
        Source(**arguments)  # type: ignore[arg-type]
