"""Every payment record of the mixture has the one answer that the oracle gives it, on both logs alike."""

import base64
import json
import math
from collections import Counter

import pytest

from .conftest import OUTPUTS, MakeRun, Run
from .logs import Got, Sent
from .mixture import PAN
from .oracle import Answer

MOST_RECEIVED = 4096
COPIED = ("traceparent", "tracestate", "correlation_id")


def close(expected: float | None, actual: float | None) -> bool:
    """Whether two features or scores are the same to 1e-9."""
    if expected is None or actual is None:
        return expected is actual
    return math.isclose(expected, actual, rel_tol=1e-9, abs_tol=1e-12)


def test_every_record_has_exactly_one_answer(run: Run, sent: list[Sent]) -> None:
    """No record is without an answer and none has two, over a stop and a start."""
    sources = Counter(got.source for topic in OUTPUTS[:2] for got in run.answers[topic])
    assert {f"{run.place.prefix}payments/0/{offset}": 1 for offset in range(len(sent))} == sources


def test_answers_come_in_the_order_of_the_payments(run: Run) -> None:
    """Each output is in the order of its input."""
    for topic in OUTPUTS[:2]:
        offsets = list(run.by_offset(topic))
        assert sorted(offsets) == offsets


def test_codes_and_payment_ids_equal_the_oracles(run: Run, expected: list[Answer]) -> None:
    """The same records are rejected, with the same codes and ids, keyed by them."""
    wanted = [(at, each.code, each.payment_id) for at, each in enumerate(expected) if each.code is not None]
    found = []
    for offset, got in run.by_offset("payments.rejected").items():
        rejection = json.loads(got.value or b"")
        found.append((offset, rejection["code"], rejection["payment_id"]))
        assert got.key == (None if rejection["payment_id"] is None else rejection["payment_id"].encode())
    assert wanted == found


def test_a_repeated_payment_names_the_first_ones_source(run: Run, expected: list[Answer]) -> None:
    """`duplicate` and `id_conflict` say where the payment was decided."""
    rejected = run.by_offset("payments.rejected")
    for offset, each in enumerate(expected):
        if each.first is not None:
            source = f"{run.place.prefix}payments/0/{each.first}"
            assert source in json.loads(rejected[offset].value or b"")["error"].split()


def test_rejections_carry_what_was_received(run: Run, sent: list[Sent]) -> None:
    """The original bytes come back, at most 4 KiB of them, with card numbers masked."""
    for offset, got in run.by_offset("payments.rejected").items():
        rejection = json.loads(got.value or b"")
        original, received = sent[offset].value or b"", base64.b64decode(rejection["received"])
        assert PAN.encode() not in received
        assert PAN not in rejection["error"]
        # Thirteen digits of an event_time may pass for a card number, one time in ten.
        shown = bytes(
            here if there != ord("*") else there for here, there in zip(original, received, strict=False)
        )
        assert shown == received
        assert len(received) == min(len(original), MOST_RECEIVED)


def test_decisions_equal_the_oracles(run: Run, expected: list[Answer]) -> None:
    """Ids, scores to 1e-9, actions and missing entities are those of River and of the rules, read naively."""
    decisions = run.by_offset("decisions")
    assert [offset for offset, each in enumerate(expected) if each.code is None] == list(decisions)
    for offset, got in decisions.items():
        decision, wanted = json.loads(got.value or b""), expected[offset]
        assert wanted.payment_id == decision["payment_id"] == (got.key or b"").decode()
        assert close(wanted.score, decision["score"]), (offset, wanted)
        assert decision["scores"] == {"fraud": decision["score"]}
        assert (wanted.action, list(wanted.missing)) == (decision["action"], decision["missing"]), (
            offset,
            wanted,
        )
        assert (decision["policy"], decision["models"]) == ("tested@4", {"fraud": "0"})


def test_features_equal_the_oracles(run: Run, expected: list[Answer]) -> None:
    """Every feature of every decided payment is what counting one by one gives."""
    decided = [each for each in expected if each.code is None]
    assert len(decided) == len(run.answers["features"])
    for wanted, got in zip(decided, run.answers["features"], strict=True):
        found = json.loads(got.value or b"")
        assert wanted.payment_id == found["payment_id"] == (got.key or b"").decode()
        assert wanted.features.keys() == found["features"].keys()
        wrong = {
            name: (value, found["features"][name])
            for name, value in wanted.features.items()
            if not close(value, found["features"][name])
        }
        assert not wrong, wanted.payment_id


def test_tracing_headers_are_copied(run: Run, sent: list[Sent]) -> None:
    """Tracing headers of a payment stand in its decision as they came, other headers do not."""
    for offset, got in run.by_offset("decisions").items():
        wanted = {name: value for name, value in sent[offset].headers if name in COPIED}
        found = dict(got.headers)
        assert wanted == {name: value for name, value in found.items() if name in COPIED}
        assert "other" not in found
        assert found["content-type"] == b"application/json"
        assert {"ce_specversion", "ce_id", "ce_type", "ce_source"} <= found.keys()


def test_sigterm_stops_cleanly(run: Run) -> None:
    """Both workers end with exit status 0 and without a traceback."""
    assert run.statuses == [0, 0]
    assert "Traceback" not in run.stderr


@pytest.mark.kafka
@pytest.mark.parametrize("topic", OUTPUTS)
def test_both_logs_give_the_same_bytes(make_run: MakeRun, topic: str) -> None:
    """Key, value and headers are the same on Kafka and on the embedded log, but for topic names."""
    embedded, kafka = (
        [unnamed(got, run.place.prefix) for got in run.answers[topic]]
        for run in (make_run("log"), make_run("kafka"))
    )
    assert embedded == kafka


def unnamed(got: Got, prefix: str) -> str:
    """A record in full, without the prefix of its log's topics."""
    return repr(got.content).replace(prefix, "")
