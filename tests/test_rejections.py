"""Tests of what the topics of rejections are told."""

import base64

import msgspec
import pytest

from streamer.batch import Records
from streamer.codec import PaymentCodec
from streamer.events import Rejection
from streamer.rejections import MAX_RECEIVED, Rejected, encode_rejection

PAN = b"4111111111111111"


def records(value: bytes | None) -> Records:
    """A batch of one record."""
    return Records("payments", 3, [17], [5], [b"key"], [value], [()], 0)


def rejection(value: bytes | None, rejected: Rejected) -> Rejection:
    """Write a rejection and read it again."""
    return msgspec.json.decode(encode_rejection(records(value), rejected)[1], type=Rejection)


def test_rejection_as_sent() -> None:
    """Key, value and header say which payment, why, and where it stood."""
    key, value, headers = encode_rejection(records(b"{x"), Rejected(0, "invalid_json", "why", "p1"))
    assert key == b"p1"
    assert value == b'{"payment_id":"p1","code":"invalid_json","error":"why","received":"e3g="}'
    assert headers == [("streamer_source", b"payments/3/17")]


@pytest.mark.parametrize("value", [None, b""])
def test_nothing_received(value: bytes | None) -> None:
    """A tombstone has no key to answer under and nothing to show."""
    (rejected,) = PaymentCodec().decode(records(value)).rejected
    assert encode_rejection(records(value), rejected)[0] is None
    assert rejection(value, rejected).received == ""


@pytest.mark.parametrize("before", range(MAX_RECEIVED - 20, MAX_RECEIVED + 1))
def test_long_records_are_cut_after_masking(before: int) -> None:
    """At most 4 KiB are passed on, and no half card number at the cut."""
    received = base64.b64decode(rejection(b"x" * before + PAN * 2, Rejected(0, "too_large", "why")).received)
    assert len(received) == MAX_RECEIVED
    assert received == b"x" * before + b"*" * (MAX_RECEIVED - before)


@pytest.mark.parametrize(
    "value",
    [
        b'{"payment_id":"p","event_time":1,"amount":1,"currency":"EUR","card":"4111 1111 1111 1111"}',
        b'{"payment_id":"p","event_time":1,"amount":1,"currency":"EUR","type":"4111111111111111"}',
        b'{"payment_id":"p","event_time":1,"amount":1,"currency":"4111-1111-1111-1111"}',
        b'{"payment_id":"p","event_time":1,"amount":4111111111111111,"currency":"EUR"}',
        b'{"payment_id":"p","type":"' + b"z" * 300 + PAN * 100 + b'"}',
    ],
)
def test_no_card_number_gets_out(value: bytes) -> None:
    """Neither the error nor the copy of the record shows a card number, and errors stay short."""
    (rejected,) = PaymentCodec().decode(records(value)).rejected
    sent = rejection(value, rejected)
    assert len(sent.error) < 600
    for shown in (sent.error, base64.b64decode(sent.received).decode()):
        assert "1111" not in shown
