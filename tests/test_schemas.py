"""Tests that the JSON Schemas and the codec agree."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from streamer import schemas
from streamer.batch import Records
from streamer.codec import OutcomeCodec, PaymentCodec
from streamer.settings import PanPolicy

PAYMENTS = Draft202012Validator(schemas.schema("payment"))
OUTCOMES = Draft202012Validator(schemas.schema("outcome"))
# ASCII, so that characters are bytes; no whole floats, which JSON Schema cannot tell from integers.
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**13), 10**16),
    st.floats(-200, 200).filter(lambda number: not number.is_integer()),
    st.text(st.characters(codec="ascii"), max_size=6),
    st.sampled_from(["", "x" * 128, "x" * 129, "x" * 256, "x" * 257, "123456", "123456789", "one_off"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text("ab", min_size=1, max_size=2), st.integers(0, 9), max_size=3),
)
PAYMENT: dict[str, Any] = {"payment_id": "p", "event_time": 1, "amount": 1, "currency": "EUR"}
OUTCOME: dict[str, Any] = {"outcome_id": "o", "payment_id": "p", "kind": "refund", "event_time": 1}


def records(value: object) -> Records:
    """One JSON value as a batch of one record."""
    return Records("t", 0, [0], [0], [None], [json.dumps(value).encode()], [()], 0)


def accepted_payment(value: object) -> bool:
    """Ask for the codec's verdict, card numbers accepted."""
    return not PaymentCodec(pan_policy=PanPolicy(card="accept")).decode(records(value)).rejected


def accepted_outcome(value: object) -> bool:
    """Ask for the codec's verdict."""
    return not OutcomeCodec().decode(records(value))[1]


def variations(valid: dict[str, Any], name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw valid events with some fields replaced by anything, taken away or added."""
    names = [*schemas.schema(name)["properties"], "unknown"]
    changed = st.dictionaries(st.sampled_from(names), ANYTHING, max_size=3)
    missing = st.sets(st.sampled_from(sorted(valid)), max_size=1)
    return st.builds(
        lambda change, gone: {key: value for key, value in (valid | change).items() if key not in gone},
        changed,
        missing,
    )


@given(variations(PAYMENT, "payment"))
def test_payments_agree(value: dict[str, Any]) -> None:
    """The schema of payments accepts what the codec accepts."""
    assert PAYMENTS.is_valid(value) == accepted_payment(value)


@given(variations(OUTCOME, "outcome"))
def test_outcomes_agree(value: dict[str, Any]) -> None:
    """The schema of outcomes accepts what the codec accepts."""
    assert OUTCOMES.is_valid(value) == accepted_outcome(value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"amount": 10**12}, True),
        ({"amount": 10**12 + 1}, False),
        ({"currency": "XXX"}, False),
        ({"bin": "12345678"}, True),
        ({"bin": "1234567\n"}, False),
        ({"mcc": "5411"}, True),
        ({"mcc": "541"}, False),
        ({"lat": 90, "lon": -180}, True),
        ({"lat": 90.5}, False),
        ({"live": None, "attempt": 1}, True),
        ({"attempt": 0}, False),
        ({"event_time": 253_402_300_800_000}, False),
        ({"attributes": {f"a{i}": None for i in range(32)}}, True),
        ({"attributes": {f"a{i}": 1 for i in range(33)}}, False),
        ({"attributes": {"a": [1]}}, False),
    ],
)
def test_edges_of_payments(change: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a table's column
    """Both agree on the edges of the contract."""
    value = PAYMENT | change
    assert (expected, expected) == (PAYMENTS.is_valid(value), accepted_payment(value))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"amount": 5}, False),
        ({"amount": 5, "currency": "EUR"}, True),
        ({"amount": 5, "currency": None}, False),
        ({"amount": None}, True),
        ({"kind": "enforced"}, False),
        ({"kind": "enforced", "action": "block"}, True),
        ({"kind": "unheard_of"}, False),
    ],
)
def test_edges_of_outcomes(change: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a table's column
    """Both agree on which fields belong together."""
    value = OUTCOME | change
    assert (expected, expected) == (OUTCOMES.is_valid(value), accepted_outcome(value))


@pytest.mark.parametrize("name", schemas.EVENTS)
def test_every_field_is_described(name: str) -> None:
    """A schema is valid and says what each field means."""
    schema = schemas.schema(name)
    Draft202012Validator.check_schema(schema)
    assert [field for field, kind in schema["properties"].items() if not kind.get("description")] == []


def test_checked_in_schemas_agree() -> None:
    """The files in schemas/ are those that the events give."""
    assert schemas.check(Path(__file__).parents[1] / "schemas") == []


def test_check_names_the_differences(tmp_path: Path) -> None:
    """A changed, a missing and a stray file are each told, with the remedy."""
    schemas.write(tmp_path)
    (tmp_path / "payment.json").write_text("{}")
    (tmp_path / "outcome.json").unlink()
    (tmp_path / "other.json").write_text("{}")
    expected = [
        f"{tmp_path / 'payment.json'} differs from the event 'payment'; run `streamer schemas`",
        f"{tmp_path / 'outcome.json'} is missing; run `streamer schemas`",
        f"{tmp_path / 'other.json'} belongs to no event; delete it",
    ]
    assert expected == schemas.check(tmp_path)
