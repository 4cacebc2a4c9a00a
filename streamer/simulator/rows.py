"""The columns of simulated payments and outcomes, and the codes in them."""

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
Generator = np.random.Generator

DAY = 86_400_000
HOUR = 3_600_000

SCENARIOS = (
    "genuine",
    "card_testing",
    "account_takeover",
    "compromised_merchant",
    "stolen_card",
    "friendly_fraud",
)
GENUINE, TESTING, TAKEOVER, COMPROMISED, STOLEN, FRIENDLY = range(6)

# How a payment is written: which of the optional fields it carries.
TILL, ONLINE, SHIPPED, MERCHANT_INITIATED, BARE = range(5)

# How it was paid: an index of `wire.USAGES`.
CHIP, CONTACTLESS, APPLE_TILL, GOOGLE_TILL = range(4)
STORED, TYPED, APPLE_ONLINE, GOOGLE_ONLINE, IN_APP, INSTALLMENT, VERIFICATION, RECURRING = range(4, 12)

RESPONSES = (b"00", b"05", b"51", b"54", b"14", b"59", b"61", b"91")
APPROVED, DO_NOT_HONOUR, NO_FUNDS, EXPIRED, INVALID, SUSPECTED, OVER_LIMIT, UNAVAILABLE = range(8)

KINDS = (
    b"authorized",
    b"declined",
    b"captured",
    b"cancelled",
    b"refund",
    b"fraud_reported",
    b"chargeback",
    b"chargeback_reversed",
    b"dispute_won",
    b"dispute_lost",
)
(
    AUTHORIZED,
    DECLINED,
    CAPTURED,
    CANCELLED,
    REFUND,
    FRAUD_REPORTED,
    CHARGEBACK,
    CHARGEBACK_REVERSED,
    DISPUTE_WON,
    DISPUTE_LOST,
) = range(10)

CATEGORIES = (b"", b"fraud", b"product", b"processing")
NO_CATEGORY, FRAUD, PRODUCT, PROCESSING = range(4)

PAYMENT = np.dtype(
    [
        ("time", "i8"),  # event time, ms
        ("arrival", "i8"),  # when it takes its turn in the stream, ms
        ("who", "i8"),
        ("card", "i8"),
        ("product", "i4"),  # kind of card: bin, network, funding, country
        ("merchant", "i4"),
        ("device", "i8"),
        ("ip", "i4"),
        ("ip_country", "u1"),
        ("home", "u1"),
        ("shipping", "u1"),
        ("currency", "u1"),
        ("amount", "i8"),
        ("lat", "f4"),
        ("lon", "f4"),
        ("order", "i8"),
        ("attempt", "u1"),
        ("contact", "i8"),
        ("form", "u1"),
        ("usage", "u1"),
        ("response", "u1"),
        ("scenario", "u1"),
    ]
)

OUTCOME = np.dtype(
    [
        ("time", "i8"),  # when it became known to us, ms
        ("arrival", "i8"),
        ("occurred", "i8"),  # the network's time, ms
        ("number", "i8"),  # of its payment
        ("kind", "u1"),
        ("category", "u1"),
        ("detail", "u1"),  # index of `RESPONSES` for answers, of the network for disputes
        ("currency", "u1"),
        ("amount", "i8"),
    ]
)


def fill(dtype: np.dtype[np.void], count: int, **columns: Any) -> Rows:
    """Build rows from columns; what is not named is zero.

    >>> fill(OUTCOME, 2, kind=REFUND)["kind"].tolist()
    [4, 4]
    """
    rows = np.zeros(count, dtype)
    for name, values in columns.items():
        rows[name] = values
    return rows
