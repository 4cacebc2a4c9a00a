"""Reads one payment record as the contract words it, slowly and with the standard library alone."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

REQUIRED = ("payment_id", "event_time", "amount", "currency")
TEXTS = (
    "card", "customer", "merchant", "device", "ip", "email", "phone", "terminal", "order", "tenant",
    "channel", "payment_method", "wallet", "card_network", "funding", "entry_mode", "acquirer",
    "merchant_country", "card_country", "billing_country", "shipping_country", "ip_country",
)  # fmt: skip
MAX_ATTRIBUTES = 32

Payment = dict[str, Any]
Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Unread:
    """Why a record is no payment, and its id where that much could be read."""

    code: str
    payment_id: str | None = None


def read(value: bytes | None, max_bytes: int) -> Payment | Unread:
    """Read a record's value: the known fields of a payment, or why it is none."""
    found = _json_object(value or b"")
    if found is None:
        return Unread("invalid_json")
    payment = {name: content for name, content in found.items() if name in CHECKS}
    payment_id = found.get("payment_id")
    readable = payment_id if _is_text(payment_id, 128) else None
    code = "too_large" if len(value or b"") > max_bytes else _fault(payment)
    return payment if code is None else Unread(code, readable)


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


def _fault(payment: Payment) -> str | None:
    if not all(CHECKS[name](content) for name, content in payment.items()):
        return "invalid_field"
    if not all(name in payment for name in REQUIRED):
        return "missing_field"
    return "pan" if _is_pan(payment.get("card", "")) else None


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


def _is_number(content: Any) -> bool:
    return type(content) in {int, float} and abs(content) <= sys.float_info.max


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
    "event_time": _between(0, 2**63 - 1),
    "amount": _between(0, 10**12),
    "currency": _like("[A-Z]{3}"),
    **dict.fromkeys(TEXTS, lambda content: _is_text(content, 256)),
    "type": _like("one_off|recurring|installment|verification"),
    "initiator": _like("customer|merchant"),
    "bin": _like("[0-9]{6,8}"),
    "mcc": _like(".{4}"),
    "attempt": _between(1, 2**63 - 1),
    "live": lambda content: isinstance(content, bool),
    "lat": _is_number,
    "lon": _is_number,
    "attributes": _is_flat,
}
