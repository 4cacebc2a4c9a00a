"""Tests of decisions as they are sent and of the content of payments."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Headers, Records
from streamer.codec import PaymentCodec
from streamer.encoding import DecisionEncoder, canonical
from streamer.events import Decision, Payment, Reason, Source

PAYMENT: dict[str, Any] = {"payment_id": "p1", "event_time": 7, "amount": 1250, "currency": "EUR"}


def records(*values: bytes, headers: Sequence[Headers] = ()) -> Records:
    """Records of one partition at offsets 5, 6, ..."""
    n = len(values)
    given_headers = list(headers) or [()] * n
    return Records("payments", 3, list(range(5, 5 + n)), [0] * n, [None] * n, list(values), given_headers, 0)


def encoder(**models: str) -> DecisionEncoder:
    """Make an encoder for some models."""
    return DecisionEncoder(
        topology="main", fingerprint="f00d", policy="default@3", models=models, entities=("card", "ip")
    )


def contents(*payments: Payment) -> list[bytes]:
    """Take the canonical contents apart."""
    text = canonical(payments)
    ends = text.ends.tolist()
    return [text.data[start:end].tobytes() for start, end in itertools.pairwise(ends)]


def test_decision_as_sent() -> None:
    """Key, value and headers are those of the contract, to the byte."""
    batch = records(json.dumps(PAYMENT | {"ip": "::1"}).encode())
    payments = PaymentCodec().decode(batch).payments
    reasons = [[Reason("card_testing", "card_count_1m", 9.0)]]
    sent = encoder(fraud="12", other="3").encode(
        batch, payments, ["review"], np.array([[0.25, 0.5]]), reasons
    )
    value = (
        b'{"payment_id":"p1","event_time":7,"action":"review","score":0.25,"scores":{"fraud":0.25,"other":0.5},'
        b'"models":{"fraud":"12","other":"3"},'
        b'"reasons":[{"code":"card_testing","feature":"card_count_1m","value":9.0}],'
        b'"policy":"default@3","topology":"f00d","missing":["card"]}'
    )
    headers = [
        ("streamer_source", b"payments/3/5"),
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", b"p1"),
        ("ce_type", b"streamer.decision"),
        ("ce_source", b"streamer/main"),
    ]
    assert ([b"p1"], [value], [headers]) == sent


def test_trace_headers_are_copied() -> None:
    """Trace and correlation go with the decision as they came, other headers do not."""
    trace = [("traceparent", b"00-1"), ("secret", b"x"), ("correlation_id", b"c")]
    batch = records(
        b"bad", json.dumps(PAYMENT).encode(), json.dumps(PAYMENT).encode(), headers=[(), trace, ()]
    )
    payments = PaymentCodec().decode(batch).payments
    _, _, (first, second) = encoder(m="1").encode(batch, payments, ["allow"] * 2, np.zeros((2, 1)), [[], []])
    assert list(first)[6:] == [("traceparent", b"00-1"), ("correlation_id", b"c")]
    assert list(second)[:1] == [("streamer_source", b"payments/3/7")]
    assert len(second) == 6


def test_headers_that_would_not_fit_are_not_copied() -> None:
    """Up to 64 KiB of them are; with more an answer could be too large for the log, and stop the stream."""
    exact = [("tracestate", b"x" * 65_000), ("correlation_id", b"y" * 536), ("other", b"z" * 900_000)]
    more = [("tracestate", b"x" * 65_001), ("correlation_id", b"y" * 536)]
    batch = records(json.dumps(PAYMENT).encode(), json.dumps(PAYMENT).encode(), headers=[exact, more])
    payments = PaymentCodec().decode(batch).payments
    _, _, (first, second) = encoder(m="1").encode(batch, payments, ["allow"] * 2, np.zeros((2, 1)), [[], []])
    assert list(first)[6:] == exact[:2]
    assert len(second) == 6


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
            st.floats(0, 1) | st.just(float("nan")),
            st.lists(st.builds(Reason, st.text(), st.none() | st.text(), st.floats(-9, 9)), max_size=2),
        ),
        max_size=5,
    )
)
def test_decisions_read_back(rows: list[tuple[str, float, list[Reason]]]) -> None:
    """Whatever the ids, a batch of decisions is as many values, each a decision on its own payment."""
    batch = records(*(json.dumps(PAYMENT | {"payment_id": name}).encode() for name, _, _ in rows))
    payments = PaymentCodec().decode(batch).payments
    scores = np.array([score for _, score, _ in rows]).reshape(-1, 1)
    sent = encoder(**{"odd näme": "1"}).encode(
        batch, payments, ["allow"] * len(rows), scores, [reasons for _, _, reasons in rows]
    )
    decisions = [msgspec.json.decode(value or b"", type=Decision) for value in sent[1]]
    expected = [(name, None if score != score else score, reasons) for name, score, reasons in rows]  # noqa: PLR0124 - NaN
    assert expected == [(one.payment_id, one.score, one.reasons) for one in decisions]
    assert [{"odd näme": score} for _, score, _ in expected] == [one.scores for one in decisions]
    assert [name.encode() for name, _, _ in rows] == sent[0]


def test_content_ignores_spelling() -> None:
    """Order, whitespace, escapes, unknown fields, nulls and doubled fields change no content."""
    codec = PaymentCodec(Source(attributes={"a": int, "b": float}))
    attributes = {"a": 1, "b": 2.0}
    plain = json.dumps(PAYMENT | {"card": "é", "attributes": attributes}).encode()
    spelt = json.dumps(
        {"x": 1, "attributes": {"z": 0, "b": 2, "a": 1}, "card": "é", "ip": None, "live": True}
        | dict(reversed(PAYMENT.items())),
        indent=2,
        ensure_ascii=False,
    ).encode()
    doubled = plain[:-1] + b',"amount":9,"amount":1250}'
    rows = codec.decode(records(plain, spelt, doubled)).payments.rows
    assert len(set(contents(*rows))) == 1


def test_content_tells_payments_apart() -> None:
    """Another value of any field is another content, and the content reads back as the payment."""
    one = Payment(**PAYMENT)
    others = [
        Payment(**PAYMENT | change)
        for change in ({"amount": 1}, {"live": False}, {"card": "1"}, {"lat": 1.0})
    ]
    written = contents(one, *others)
    assert len(set(written)) == 5
    assert [one, *others] == [msgspec.msgpack.decode(content, type=Payment) for content in written]
    assert contents() == []


def test_content_is_the_same_for_every_source() -> None:
    """Another producer's names and units give the same content."""
    other = {"id": "p1", "event_time": 7_000_000, "amount": 1250, "currency": "EUR"}
    codec = PaymentCodec(Source(rename={"id": "payment_id"}, time_unit="ns"))
    (row,) = codec.decode(records(json.dumps(other).encode())).payments.rows
    assert contents(Payment(**PAYMENT)) == contents(row)
