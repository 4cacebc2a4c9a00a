"""Reads a payment or outcome record as the contract words it, slowly and with the standard library alone."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

LAST_TIME = 253_402_300_799_999
REQUIRED = ("payment_id", "event_time", "amount", "currency")
OUTCOME_REQUIRED = ("outcome_id", "payment_id", "kind", "event_time")
TEXTS = (
    "card", "customer", "merchant", "device", "ip", "email", "phone", "terminal", "order", "tenant",
    "channel", "payment_method", "wallet", "card_network", "funding", "entry_mode", "acquirer",
    "merchant_country", "card_country", "billing_country", "shipping_country", "ip_country",
)  # fmt: skip
MAX_ATTRIBUTES = 32

Payment = dict[str, Any]
Outcome = dict[str, Any]
Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Unread:
    """Why a record is no payment, and its id where that much could be read."""

    code: str
    payment_id: str | None = None


def read(value: bytes | None, max_bytes: int) -> Payment | Unread:
    """Read a record's value: the known fields of a payment that are there, or why it is none."""
    payment = _read(value, max_bytes, CHECKS, REQUIRED)
    if isinstance(payment, dict) and _is_pan(payment.get("card", "")):
        return Unread("pan", payment["payment_id"])
    return payment


def read_outcome(value: bytes | None, max_bytes: int) -> Outcome | Unread:
    """Read a record's value: the known fields of an outcome that are there, or why it is none."""
    outcome = _read(value, max_bytes, OUTCOME_CHECKS, OUTCOME_REQUIRED)
    if isinstance(outcome, Unread):
        return outcome
    lacks_currency = "amount" in outcome and "currency" not in outcome
    lacks_action = outcome["kind"] == "enforced" and "action" not in outcome
    return Unread("missing_field", outcome["payment_id"]) if lacks_currency or lacks_action else outcome


def _read(
    value: bytes | None, max_bytes: int, checks: Mapping[str, Check], required: Sequence[str]
) -> dict[str, Any] | Unread:
    found = _json_object(value or b"")
    if found is None:
        return Unread("invalid_json")
    # An optional field of null is an absent one.
    event = {
        name: content
        for name, content in found.items()
        if name in checks and (content is not None or name in required)
    }
    payment_id = found.get("payment_id")
    readable = payment_id if _is_text(payment_id, 128) else None
    if len(value or b"") > max_bytes:
        return Unread("too_large", readable)
    if not all(checks[name](content) for name, content in event.items()):
        return Unread("invalid_field", readable)
    if not all(name in event for name in required):
        return Unread("missing_field", readable)
    return event


def _json_object(value: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(value.decode(), parse_constant=_refuse)
        # Half of a surrogate pair is text for Python, but can never be sent on as UTF-8.
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _is_text(content: object, most: int) -> bool:
    return isinstance(content, str) and 1 <= len(content.encode()) <= most


def _is_pan(text: str) -> bool:
    if re.fullmatch(r"[0-9]{13,19}", text) is None:
        return False
    total = 0
    for place, digit in enumerate(reversed(text)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def _is_number_within(most: int) -> Check:
    return lambda content: type(content) in {int, float} and -most <= content <= most


def _is_flat(content: Any) -> bool:
    if not isinstance(content, dict) or len(content) > MAX_ATTRIBUTES:
        return False
    return not any(isinstance(each, dict | list) for each in content.values())


def _between(low: int, high: int) -> Check:
    return lambda content: type(content) is int and low <= content <= high


def _like(pattern: str) -> Check:
    return lambda content: isinstance(content, str) and re.fullmatch(pattern, content) is not None


CHECKS: dict[str, Check] = {
    "payment_id": lambda content: _is_text(content, 128),
    "event_time": _between(0, LAST_TIME),
    "amount": _between(0, 10**12),
    "currency": _like("[A-Z]{3}"),
    **dict.fromkeys(TEXTS, lambda content: _is_text(content, 256)),
    "type": _like("one_off|recurring|installment|verification"),
    "initiator": _like("customer|merchant"),
    "bin": _like("[0-9]{6,8}"),
    "mcc": _like(".{4}"),
    "attempt": _between(1, 2**53),
    "live": lambda content: isinstance(content, bool),
    "lat": _is_number_within(90),
    "lon": _is_number_within(180),
    "attributes": _is_flat,
}
OUTCOME_CHECKS: dict[str, Check] = {
    "outcome_id": lambda content: _is_text(content, 256),
    "payment_id": CHECKS["payment_id"],
    "kind": _like(
        "authorized|declined|captured|cancelled|fraud_reported|inquiry|chargeback|chargeback_reversed|"
        "dispute_won|dispute_lost|refund|review_approved|review_rejected|challenge_passed|challenge_failed|"
        "confirmed_good|enforced"
    ),
    "event_time": CHECKS["event_time"],
    "occurred_at": CHECKS["event_time"],
    "category": _like("fraud|product|processing|authorization|other"),
    "amount": CHECKS["amount"],
    "currency": CHECKS["currency"],
    **dict.fromkeys(
        ("reason_code", "response_code", "dispute_id", "stage"), lambda content: _is_text(content, 256)
    ),
    "action": _like("allow|challenge|review|block"),
}
