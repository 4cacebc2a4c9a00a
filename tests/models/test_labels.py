"""What outcomes say about fraud, kind by kind."""

import pytest

from streamer.models.labels import ALONE, DISPUTE, SILENT, evidence, settle

KINDS = [
    "authorized",
    "declined",
    "captured",
    "cancelled",
    "fraud_reported",
    "inquiry",
    "chargeback",
    "chargeback_reversed",
    "dispute_won",
    "dispute_lost",
    "refund",
    "review_approved",
    "review_rejected",
    "challenge_passed",
    "challenge_failed",
    "confirmed_good",
    "enforced",
]


def test_every_kind_of_the_contract_is_decided() -> None:
    """No kind is forgotten, none is in two tables."""
    assert sorted([*ALONE, *DISPUTE, *SILENT]) == sorted(KINDS)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("fraud_reported", True),
        ("chargeback", True),
        ("dispute_lost", True),
        ("confirmed_good", False),
        ("review_approved", False),
        ("chargeback_reversed", False),
        ("dispute_won", False),
        ("authorized", None),
        ("declined", None),
        ("refund", None),
        ("challenge_passed", None),
        ("review_rejected", None),
        ("enforced", None),
        ("of_a_later_release", None),
    ],
)
def test_evidence_of_one_outcome(kind: str, expected: object) -> None:
    """Each kind without a category says what its table says."""
    assert evidence(kind) is expected


@pytest.mark.parametrize("kind", list(DISPUTE))
@pytest.mark.parametrize("category", ["product", "processing", "authorization", "other"])
def test_disputes_about_something_else_say_nothing(kind: str, category: str) -> None:
    """Disputes about goods prove neither fraud nor good, by its own category or an earlier one."""
    assert evidence(kind, category) is None
    assert evidence(kind, None, category) is None


def test_a_steps_own_category_wins() -> None:
    """A step that names its category is not overruled by that of the chargeback before."""
    assert evidence("dispute_lost", "fraud", "product") is True
    assert evidence("dispute_lost", "product", "fraud") is None


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], None),
        ([("authorized", None), ("captured", None)], None),
        ([("review_approved", None), ("chargeback", None)], True),
        ([("chargeback", None), ("dispute_won", None)], False),
        ([("chargeback", "fraud"), ("dispute_won", None), ("dispute_lost", None)], True),
        ([("chargeback", "product"), ("dispute_lost", None)], None),
        ([("fraud_reported", None), ("chargeback", "product"), ("chargeback_reversed", None)], True),
        ([("chargeback", "fraud"), ("refund", None), ("challenge_passed", None)], True),
        ([("chargeback", "fraud"), ("confirmed_good", None)], False),
    ],
)
def test_the_last_word_counts(outcomes: list[tuple[str, str | None]], expected: object) -> None:
    """Over a payment's history the last outcome that says anything decides."""
    assert settle(outcomes) is expected
