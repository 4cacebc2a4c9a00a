"""Tests of recognising, refusing, hashing and masking card numbers."""

import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import ConfigError
from streamer.events import Payment
from streamer.pan import PanGuard, looks_like_pan, mask, passes_luhn

PAN = "4111111111111111"
KEY = b"0123456789abcdef"


def payment(**fields: str) -> Payment:
    """Make a valid payment with some fields of text."""
    return Payment(payment_id="p", event_time=1, amount=1, currency="EUR", **fields)  # type: ignore[arg-type]


def with_check_digit(digits: str) -> str:
    """Append to digits the one digit that makes Luhn's sum of the whole divisible by ten."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


@given(st.text("0123456789", min_size=12, max_size=18))
def test_check_digit_is_recognised(digits: str) -> None:
    """Of the ten last digits exactly the check digit passes, so a PAN is always seen."""
    pan = with_check_digit(digits)
    assert [pan] == [digits + last for last in "0123456789" if passes_luhn(digits + last)]
    assert looks_like_pan(pan)


@pytest.mark.parametrize("value", ["4111-1111-1111-1111", "4111 1111 1111 1111", " 4111111111111111 ", PAN])
def test_spelling_hides_nothing(value: str) -> None:
    """Spaces and dashes do not make a token of a card number."""
    assert looks_like_pan(value)
    assert PanGuard({"card": "reject"}).apply([payment(card=value)]) == [(0, "card")]


@pytest.mark.parametrize(
    "value",
    [
        "card_1",
        "4111111111111112",
        "411111111111",
        "tok4111111111111111",
        "4111111111111111a",
        "-",
        " ",
        "1" * 20,
    ],
)
def test_tokens_pass(value: str) -> None:
    """What is no card number is left alone."""
    assert not looks_like_pan(value)
    assert PanGuard({"card": "reject"}).apply([payment(card=value)]) == []


@given(st.one_of(st.none(), st.text("0123456789 -ab", min_size=1, max_size=24)))
def test_shortcut_agrees_with_the_rule(card: str | None) -> None:
    """The cheap test for tokens never lets a card number through."""
    expected = [(0, "card")] if card is not None and looks_like_pan(card) else []
    assert expected == PanGuard({"card": "reject"}).apply([payment(card=card)])  # type: ignore[arg-type]


def test_hash_replaces_the_number_by_its_hmac() -> None:
    """However a number is spelt, its hash is the same; tokens and other fields stay."""
    payments = [payment(card=PAN, order=PAN), payment(card="4111-1111-1111-1111"), payment(card="token")]
    assert PanGuard({"card": "hash", "order": "accept"}, KEY).apply(payments) == []
    expected = hmac.new(KEY, PAN.encode(), hashlib.sha256).hexdigest()
    assert [expected, expected, "token"] == [one.card for one in payments]
    assert payments[0].order == PAN


def test_hash_needs_a_key() -> None:
    """Hashes without a key can be looked up, so they are refused."""
    with pytest.raises(ConfigError, match="pan_key"):
        PanGuard({"card": "hash"})


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (b'{"card":"4111111111111111"}', b'{"card":"' + b"*" * 16 + b'"}'),
        (b"4111 1111-1111 1111.", b"**** ****-**** ****."),
        (b"4111\xc2\xa0111111111111!", b"****\xc2\xa0************!"),
        (rb"\u0034111111111111111", b"*" * 16),
        ("4111111111111111".encode("utf-16-le"), ("*" * 16).encode("utf-16-le")),
        (b'"amount":125,"event_time":1700000000001', b'"amount":125,"event_time":1700000000001'),
        (b"1" * 30, b"*" * 30),
    ],
)
def test_masking(received: bytes, expected: bytes) -> None:
    """Card numbers are starred in all spellings, other content stays."""
    assert expected == mask(received, 4096)


@given(st.integers(0, 40), st.text("0123456789", min_size=12, max_size=18), st.sampled_from(["", " ", "-"]))
def test_the_cut_reveals_nothing(before: int, digits: str, gap: str) -> None:
    """A number that the limit cuts through is masked up to the limit."""
    pan = gap.join(with_check_digit(digits))
    cut = mask(b"x" * before + pan.encode() + b"y" * 50, 30)
    assert len(cut) <= 30
    assert re.search(rb"[0-9]", cut) is None


@given(st.binary(max_size=200), st.integers(0, 200))
def test_masking_only_replaces_digits(data: bytes, limit: int) -> None:
    """Whatever the bytes, masking keeps to the limit and to digits."""
    masked = mask(data, limit)
    assert len(masked) <= limit
    if b"\\u" not in data:
        assert all(got in {ord("*"), was} for got, was in zip(masked, data, strict=False))
