"""What an outcome says about fraud: True, False, or None where it says nothing."""

from collections.abc import Iterable

FRAUD = "fraud"

# Known at once or never taken back: these speak for themselves, whatever else is known.
ALONE = {
    "fraud_reported": True,  # the issuer's early report: the cardholder denies the payment
    "confirmed_good": False,  # somebody asked the customer, or an analyst closed the case
    "review_approved": False,  # a person looked and let it pass; a later chargeback overrules it, being later
}

# Steps of a dispute count only when it is about fraud: a lost parcel is a complaint of the real cardholder.
DISPUTE = {
    "chargeback": True,
    "dispute_lost": True,  # the claim was upheld
    "chargeback_reversed": False,  # the issuer withdrew the claim
    "dispute_won": False,  # the claim was rejected: the cardholder took part ("friendly" fraud)
}

# No evidence of fraud, or evidence of our own making, from which a model would only learn what it did before.
SILENT = frozenset(
    {
        "authorized",  # the issuer's model had no objection either; most frauds are authorized
        "declined",  # for want of funds, a typing error or suspicion, and never disputed later
        "captured",
        "cancelled",
        "refund",  # returns are everyday life, and frauds are refunded too, to avoid a dispute
        "inquiry",  # a question, often about a forgotten purchase; a chargeback follows where it was meant
        "review_rejected",  # a suspicion that stopped the payment, so that nothing can ever confirm it
        "challenge_passed",  # taken-over accounts pass too; silence until `good_after` makes it good
        "challenge_failed",  # customers lose their phones and give up; the payment never came to be
        "enforced",  # what the caller did, not what was true
    },
)


def evidence(kind: str, category: str | None = None, disputed: str | None = None) -> bool | None:
    """Whether one outcome says fraud (True), good (False) or nothing (None).

    `category` is the outcome's own, `disputed` that of the payment's last chargeback, for the later steps
    of a dispute that do not repeat it. Where both are absent the dispute counts as one about fraud.
    Kinds added later say nothing.

    >>> evidence("chargeback"), evidence("chargeback", "product"), evidence("dispute_won", disputed="fraud")
    (True, None, False)
    """
    if kind in DISPUTE:
        return DISPUTE[kind] if (category or disputed or FRAUD) == FRAUD else None
    return ALONE.get(kind)


def settle(outcomes: Iterable[tuple[str, str | None]]) -> bool | None:
    """Weigh all outcomes of one payment, (kind, category) in the order they became known.

    The last one that says anything decides.

    >>> settle([("review_approved", None), ("chargeback", "fraud"), ("refund", None)])
    True
    >>> settle([("fraud_reported", None), ("chargeback", "product"), ("dispute_won", None)])
    True
    """
    verdict: bool | None = None
    disputed: str | None = None
    for kind, category in outcomes:
        found = evidence(kind, category, disputed)
        verdict = verdict if found is None else found
        if kind == "chargeback":
            disputed = category or FRAUD
    return verdict
