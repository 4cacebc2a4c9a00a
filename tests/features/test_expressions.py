"""Features of the payment itself: names, and what is refused."""

import re
from collections.abc import Callable

import pytest

from streamer.errors import TopologyError
from streamer.features.aggregates import count
from streamer.features.declarations import Derived, Entity
from streamer.features.expressions import (
    amount_roundness,
    hour_cos,
    hour_sin,
    night,
    payment_value,
    weekday_cos,
    weekday_sin,
    weekend,
    zscore,
)
from streamer.features.fields import amount, lat, merchant, number

CARD = Entity("card", features=[count("1h")])


def test_names_are_stable() -> None:
    """They are what models and stored decisions know them by."""
    given: list[Derived] = [
        hour_sin, hour_cos, weekday_sin, weekday_cos, night, weekend, amount_roundness,
        payment_value(amount), payment_value(lat), payment_value(number("size")),
    ]  # fmt: skip
    assert [one.name for one in given] == [
        "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "night", "weekend", "amount_roundness",
        "payment_amount", "payment_lat", "payment_size",
    ]  # fmt: skip


def test_they_need_no_entity() -> None:
    """They can be inputs, operands of rules and parts of expressions."""
    rule = hour_sin > 0.5
    assert (rule.feature, rule.entities()) == ("hour_sin", ())
    assert (payment_value(amount) * hour_cos).named("x").entities() == ()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: payment_value(merchant), "payment_value: expected a field of numbers such as amount, got"),
        (lambda: payment_value("amount"), "got 'amount'"),  # type: ignore[arg-type]
        (lambda: zscore(amount, 1.0, 2.0), "write payment_value(amount)"),  # type: ignore[arg-type]
        (lambda: zscore(3.0, 1.0, 2.0), "expected a feature first, got 3.0"),  # type: ignore[arg-type]
        (lambda: CARD["count_1h"] - amount, "got field 'amount'; write payment_value(amount)"),  # type: ignore[operator]
        (lambda: amount / CARD["count_1h"], "got field 'amount'; write payment_value(amount)"),
        (lambda: CARD["count_1h"] + merchant, "got field 'merchant'; which is text"),  # type: ignore[operator]
    ],
)
def test_a_mistake_is_named_with_its_remedy(build: Callable[[], object], message: str) -> None:
    """A field in place of a feature, or the other way round."""
    with pytest.raises(TopologyError, match=re.escape(message)):
        build()
