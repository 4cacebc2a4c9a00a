"""The judge of the storm finds each error that is put into outputs without one."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from streamer.journal import JournalEntry
from streamer.models.compiled import Compiled
from streamer.models.snapshot import Snapshot
from tests.end_to_end.acceptance import Refused
from tests.end_to_end.logs import Got

from . import topology as tested
from .expected import Decided, Expected, Inputs, Journal
from .judge import OUTPUTS, Judge, Verdict
from .report import constants, oracle, read_snapshots
from .run import LIMITS, SNAPSHOT_KEY
from .storm import storm

RECORDS = 900
Outputs = dict[str, list[Got]]


def snapshot(version: int, examples: int = 5) -> Snapshot:
    """A model that looks at nothing but how often the card paid within the hour."""
    inputs = tested.fraud.features
    ones = (1.0,) * len(inputs)
    weights = tuple(float(name == "card_count_1h") for name in inputs)
    compiled = Compiled(ones, ones, weights, 0.25 * version, log1p=True)
    return Snapshot("fraud", version, "any", inputs, examples, 0, compiled, "any")


@cache
def case() -> tuple[Inputs, Expected]:
    """A small storm and what must come of it, with half of the outcomes known halfway."""
    made = storm(RECORDS, 3)
    inputs = Inputs(made.payments, [told.record for told in made.outcomes], "t-", LIMITS)
    half = {"t-outcomes/0": len(made.outcomes) // 2}
    entries = [JournalEntry(1, {"t-payments/0": RECORDS // 2}, half, {"fraud": 1})]
    return inputs, oracle().expect(inputs, entries, {1: snapshot(1)})


def right() -> Outputs:
    """Outputs without an error, as a worker would write them."""
    return {topic: list(records) for topic, records in _right().items()}


@cache
def _right() -> Outputs:
    inputs, expected = case()
    outputs: Outputs = {topic: [] for topic in OUTPUTS}
    for offset, answer in enumerate(expected.answers):
        if isinstance(answer, Refused):
            outputs["payments.rejected"].append(rejection(answer, f"t-payments/0/{offset}"))
            continue
        row = dict(zip(expected.names, expected.features[offset].tolist(), strict=True))
        features = {name: None if value != value else value for name, value in row.items()}  # noqa: PLR0124
        name = {"payment_id": answer.payment["payment_id"], "event_time": answer.payment["event_time"]}
        headers = dict(inputs.payments[offset].headers) | {"streamer_source": b"t-payments/0/%d" % offset}
        outputs["decisions"].append(record({**name, **decision(answer)}, headers))
        outputs["features"].append(record({**name, "features": features}, {}))
    outputs["outcomes.rejected"] = [
        rejection(answer, f"t-outcomes/0/{offset}") for offset, answer in expected.outcomes.items()
    ]
    return outputs


def decision(answer: Decided) -> dict[str, Any]:
    """The fields of a decision but its payment's."""
    return {
        "action": answer.action,
        "score": answer.score,
        "scores": {"fraud": answer.score},
        "models": {"fraud": answer.version},
        "reasons": [{"code": code, "feature": None, "value": None} for code in answer.codes],
        "policy": constants().policy,
        "topology": constants().topology,
        "missing": list(answer.missing),
    }


def record(value: dict[str, Any], headers: dict[str, bytes]) -> Got:
    """A record keyed by its payment_id."""
    key = value["payment_id"]
    encoded = json.dumps(value).encode()
    return Got(None if key is None else key.encode(), encoded, tuple(headers.items()), 0)


def rejection(answer: Refused, source: str) -> Got:
    """A rejection that names the first payment where there is one."""
    error = f"seen before: t-payments/0/{answer.first} ."
    value = {"payment_id": answer.payment_id, "code": answer.code, "error": error, "received": ""}
    return record(value, {"streamer_source": source.encode()})


def changed(got: Got, change: Callable[[dict[str, Any]], None]) -> Got:
    """The same record with something in its value changed."""
    value = json.loads(got.value or b"")
    change(value)
    return replace(got, value=json.dumps(value).encode())


def judged(outputs: Outputs) -> Verdict:
    """What the judge says."""
    inputs, expected = case()
    return Judge(inputs, expected, constants()).judge(outputs)


def test_what_is_right_passes() -> None:
    """The outputs without an error are found to have none, and every kind of answer is among them."""
    outputs = right()
    verdict = judged(outputs)
    assert not verdict.wrong, verdict.firsts
    assert not verdict.repeats
    assert verdict.answers == {topic: len(records) for topic, records in outputs.items()}
    assert all(outputs.values())
    versions = {json.loads(got.value or b"")["models"]["fraud"] for got in outputs["decisions"]}
    assert versions == {"0", "1"}


@pytest.mark.parametrize("topic", OUTPUTS)
def test_a_record_that_is_not_there(topic: str) -> None:
    """Each record of each output is missed."""
    outputs = right()
    gone = outputs[topic].pop(len(outputs[topic]) // 2)
    verdict = judged(outputs)
    assert verdict.wrong == {"missing": 1}
    offset = verdict.firsts["missing"].offset
    assert topic == "features" or gone.source.endswith(f"/{offset}")


@pytest.mark.parametrize("topic", OUTPUTS)
def test_a_record_sent_again(topic: str) -> None:
    """The same bytes are counted as a repeat, other bytes are an error as well."""
    outputs = right()
    again = outputs[topic][0]
    outputs[topic].append(again)
    verdict = judged(outputs)
    assert (verdict.wrong, verdict.repeats) == ({}, {topic: 1})
    outputs[topic][-1] = replace(again, value=(again.value or b"") + b" ")
    verdict = judged(outputs)
    assert (verdict.wrong, verdict.repeats) == ({"repeat": 1}, {topic: 1})


@pytest.mark.parametrize("change", [lambda x: x + 1, lambda x: x * (1 + 1e-8) + 1e-8, lambda _: None])
def test_a_feature_that_is_not_as_it_must_be(change: Callable[[float], float | None]) -> None:
    """Any feature that differs by 1, by a little more than rounding, or is absent, each in a payment."""
    _, expected = case()
    outputs = right()
    places = iter(range(RECORDS // 2, RECORDS))
    for name in expected.names:
        for place in places:
            got = outputs["features"][place]
            value = json.loads(got.value or b"")
            if value["features"][name] is not None:
                value["features"][name] = change(value["features"][name])
                outputs["features"][place] = replace(got, value=json.dumps(value).encode())
                break
    verdict = judged(outputs)
    assert verdict.wrong == {"feature": len(expected.names)}
    assert verdict.details == {f"features {name}": 1 for name in expected.names}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", "review"), ("score", 0.5), ("scores", {}), ("models", {"fraud": "7"}), ("missing", ["ip"]),
        ("reasons", [{"code": "other", "feature": None, "value": None}]), ("policy", "storm@2"),
        ("topology", "0"), ("event_time", 0),
        ("reasons", [{"code": "doubt", "feature": "card_count_1h", "value": 1e6}]),
    ],
)  # fmt: skip
def test_a_decision_with_a_wrong_field(name: str, value: object) -> None:
    """Whatever differs in a decision is named."""
    outputs = right()
    outputs["decisions"][5] = changed(outputs["decisions"][5], lambda found: found.update({name: value}))
    verdict = judged(outputs)
    assert verdict.wrong == {"decision": 1}
    assert any(detail.split()[1].startswith(name.removesuffix("s")) for detail in verdict.details)


@pytest.mark.parametrize("topic", ["payments.rejected", "outcomes.rejected"])
def test_a_rejection_with_another_code(topic: str) -> None:
    """The code, the id and the first payment's source are compared."""
    outputs = right()
    outputs[topic][0] = changed(outputs[topic][0], lambda found: found.update(code="other"))
    assert sum(judged(outputs).wrong.values()) == 1


def test_a_repeat_that_names_another_first_payment() -> None:
    """A duplicate's error has to name the source of the payment that was decided."""
    _, expected = case()
    outputs = right()
    repeats = [at for at, each in enumerate(expected.answers) if isinstance(each, Refused) and each.first]
    (place,) = (
        at for at, got in enumerate(outputs["payments.rejected"]) if got.source.endswith(f"/0/{repeats[0]}")
    )
    outputs["payments.rejected"][place] = changed(
        outputs["payments.rejected"][place], lambda found: found.update(error="seen before")
    )
    assert judged(outputs).wrong == {"rejection": 1}


def test_a_decision_of_what_is_rejected_and_of_nothing() -> None:
    """An answer in the wrong topic, or to a record that was never sent, is not expected."""
    outputs = right()
    source = dict(outputs["payments.rejected"][0].headers)
    wrong = replace(outputs["decisions"][0], headers=tuple(source.items()))
    nowhere = replace(wrong, headers=(("streamer_source", b"t-payments/0/%d" % RECORDS),))
    outputs["decisions"] += [wrong, nowhere]
    assert judged(outputs).wrong == {"unexpected": 2}


def test_a_journal_that_contradicts_itself() -> None:
    """Two entries of one sequence, and positions that go back."""
    one = JournalEntry(1, {"payments/0": 5}, {"outcomes/0": 5}, {})
    Journal([one, one], "")
    with pytest.raises(AssertionError, match="one sequence"):
        Journal([one, replace_entry(one, payments=6)], "")
    for back in (replace_entry(one, 2, payments=4), replace_entry(one, 2, outcomes=4)):
        with pytest.raises(AssertionError, match="go back"):
            Journal([one, back], "")


def replace_entry(
    entry: JournalEntry, sequence: int | None = None, payments: int = 5, outcomes: int = 5
) -> JournalEntry:
    """An entry with something changed."""
    return JournalEntry(sequence or entry.sequence, {"payments/0": payments}, {"outcomes/0": outcomes}, {})


def test_snapshots_that_contradict_each_other() -> None:
    """Two of one version, and one that has learned from less than the one before."""
    key = SNAPSHOT_KEY.encode()
    one = Got(b"fraud", snapshot(1).encode(key), (), 0)
    assert read_snapshots([one, one]) == {1: snapshot(1)}
    with pytest.raises(AssertionError, match="version 1 differ"):
        read_snapshots([one, replace(one, value=snapshot(1, 6).encode(key))])
    with pytest.raises(AssertionError, match="became fewer"):
        read_snapshots([one, replace(one, value=snapshot(2, 4).encode(key))])


def test_a_snapshot_that_is_not_there() -> None:
    """The journal names a version that the topic of models does not have."""
    inputs, _ = case()
    with pytest.raises(AssertionError, match="version 9"):
        oracle().expect(inputs, [JournalEntry(1, {"t-payments/0": 5}, {}, {"fraud": 9})], {1: snapshot(1)})
