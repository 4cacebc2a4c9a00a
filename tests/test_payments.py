"""Columns of payments."""

import numpy as np
import pytest

from streamer.events import Payment
from streamer.payments import PaymentBatch


def batch(*emails: str | None) -> PaymentBatch:
    """Payments of these payers."""
    rows = [Payment(f"p{n}", 1, 1, "EUR", email=email) for n, email in enumerate(emails)]
    nothing = np.zeros(len(rows), np.int64)
    return PaymentBatch.of(rows, nothing, nothing, nothing)


@pytest.mark.parametrize(
    ("email", "domain"),
    [
        ("ann@example.com", "example.com"),
        ("Ann@Mail.Example.COM", "mail.example.com"),
        ('"a@b"@example.org', "example.org"),
        ("ann@BÜCHER.example", "bücher.example"),
        ("ann", ""),
        ("ann@", ""),
        ("@", ""),
        (None, ""),
    ],
)
def test_the_domain_of_an_email(email: str | None, domain: str) -> None:
    """What follows the last @, in lower case; absent without one."""
    text = batch("x@first.example", email).text("email_domain")
    assert text.data[text.ends[1] : text.ends[2]].tobytes().decode() == domain
    assert text.present.tolist() == [True, bool(domain)]


def test_domains_follow_chosen_payments() -> None:
    """As any other column does."""
    text = batch("a@one.example", "b@two.example").take(np.array([1])).text("email_domain")
    assert text.data.tobytes() == b"two.example"
