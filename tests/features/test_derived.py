"""Derived features."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Float64
from streamer.events import MAX_AMOUNT, MAX_TIME
from streamer.features.aggregates import count, mean, std
from streamer.features.declarations import Derived, Entity
from streamer.features.derived import evaluate
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
from streamer.features.fields import amount, attempt, lat, number
from tests.features.oracle import Batch, Event

CARD = Entity("card", features=[count("1m", "1h")])
SHOP = Entity("merchant", features=[count("1h")])
USUAL = Entity("customer", features=[count("1m"), mean(amount, "1d"), std(amount, "1d")])
MIDNIGHT = 1_704_067_200_000
"""Monday 2024-01-01T00:00:00Z."""


def computed(derived: list[Derived], given: dict[str, list[float]], events: list[Event]) -> Float64:
    """The derived columns of payments with these features."""
    features = np.full((len(events), len(given) + len(derived)), np.nan)
    for column, values in enumerate(given.values()):
        features[:, column] = values
    names = [*given, *(one.name for one in derived)]
    evaluate(derived, names, features, Batch(events), Batch(events).amount)
    return features[:, len(given) :]


def of_payments(one: Derived, events: list[Event]) -> list[float]:
    """What payments themselves say."""
    values: list[float] = computed([one], {}, events)[:, 0].tolist()
    return values


def test_arithmetic_and_absence() -> None:
    """Ratios, differences, constants and logarithms; a division by zero or an absent part is absent."""
    surge = (CARD["count_1m"] / CARD["count_1h"]).named("surge")
    difference = CARD["count_1h"] - SHOP["count_1h"]
    derived = [
        surge,
        (2 - surge * 3).named("rest"),
        difference.log1p().named("log1p"),
        difference.log().named("log"),
    ]
    given = {
        "card_count_1m": [1, 1, np.nan],
        "card_count_1h": [4, 0, 2],
        "merchant_count_1h": [1, 1, np.nan],
    }
    expected = [
        [0.25, 1.25, math.log1p(3), math.log(3)],
        [np.nan, np.nan, np.nan, np.nan],
        [np.nan, np.nan, np.nan, np.nan],
    ]
    np.testing.assert_array_equal(computed(derived, given, [Event(0)] * 3), expected)


def test_logarithms_end_where_they_have_no_value() -> None:
    """ln(1 + x) above -1, ln(x) above 0; infinity stays."""
    x = CARD["count_1m"]
    given = {"card_count_1m": [-1.0, -0.5, 0.0, 1.0, math.inf]}
    got = computed([x.log1p().named("a"), x.log().named("b")], given, [Event(0)] * 5)
    expected = [
        [np.nan, np.nan], [math.log(0.5), np.nan], [0.0, np.nan], [math.log(2.0), 0.0], [math.inf, math.inf]
    ]  # fmt: skip
    np.testing.assert_allclose(got, expected, rtol=1e-15)


def test_a_zscore_is_absent_without_spread() -> None:
    """(x - mean) / std of the payment's own amount; absent where std is 0 or anything is absent."""
    z = zscore(payment_value(amount), USUAL["mean_amount_1d"], USUAL["std_amount_1d"]).named("z")
    given = {
        "customer_mean_amount_1d": [100.0, 100.0, np.nan, 100.0],
        "customer_std_amount_1d": [50.0, 0.0, 50.0, np.nan],
    }
    got = computed([z], given, [Event(0, 175)] * 4)[:, 0]
    np.testing.assert_array_equal(got, [1.5, np.nan, np.nan, np.nan])


def test_entities_cross() -> None:
    """A card's count over its shop's, less the customer's, times the payment's amount: any mixture works."""
    cross = (CARD["count_1m"] / SHOP["count_1h"] - USUAL["count_1m"] * payment_value(amount)).named("cross")
    assert cross.entities() == (CARD, SHOP, USUAL)
    given = {"card_count_1m": [3.0], "merchant_count_1h": [4.0], "customer_count_1m": [2.0]}
    assert computed([cross], given, [Event(0, 5)])[0, 0] == 0.75 - 10.0


def test_comparisons_name_their_feature() -> None:
    """A rule finds the column, the threshold and the entities of a comparison."""
    rule = (CARD["count_1m"] / SHOP["count_1h"]).named("share") >= 0.5
    assert (rule.feature, rule.operator, rule.threshold) == ("share", ">=", 0.5)
    assert rule.entities() == (CARD, SHOP)


def test_equal_expressions_are_equal() -> None:
    """The same derived feature may be named twice."""
    assert (CARD["count_1m"] + 1).named("a") == (CARD["count_1m"] + 1).named("a")
    assert (CARD["count_1m"] + 1).named("a") != (CARD["count_1m"] + 2).named("a")


HOUR = 3_600_000


@pytest.mark.parametrize(
    ("one", "after", "expected"),
    [
        (hour_sin, 6 * HOUR, 1.0),
        (hour_sin, 3 * HOUR, math.sqrt(0.5)),
        (hour_cos, 0, 1.0),
        (hour_cos, 12 * HOUR, -1.0),
        (hour_cos, 90 * 60_000, math.cos(math.pi / 8)),
        (weekday_sin, 42 * HOUR, 1.0),
        (weekday_cos, 0, 1.0),
        (weekday_cos, 84 * HOUR, -1.0),
        (night, 0, 1.0),
        (night, 6 * HOUR - 1, 1.0),
        (night, 6 * HOUR, 0.0),
        (weekend, 5 * 24 * HOUR - 1, 0.0),
        (weekend, 5 * 24 * HOUR, 1.0),
        (weekend, 7 * 24 * HOUR - 1, 1.0),
        (weekend, 7 * 24 * HOUR, 0.0),
    ],
)
def test_times_of_day_and_week(one: Derived, after: int, expected: float) -> None:
    """So long after a Monday's midnight in UTC."""
    assert of_payments(one, [Event(MIDNIGHT + after)]) == [pytest.approx(expected, abs=1e-15)]


@given(st.integers(0, MAX_TIME))
def test_times_are_those_of_the_calendar(time: int) -> None:
    """What the calendar of the standard library says, for any event time."""
    then = datetime.fromtimestamp(time // 1000, UTC)
    hour = then.hour + then.minute / 60 + (then.second + time % 1000 / 1000) / 3600
    day = then.weekday() + hour / 24
    expected = {
        hour_sin: math.sin(math.tau * hour / 24),
        hour_cos: math.cos(math.tau * hour / 24),
        weekday_sin: math.sin(math.tau * day / 7),
        weekday_cos: math.cos(math.tau * day / 7),
        night: float(then.hour < 6),
        weekend: float(then.weekday() in (5, 6)),
    }
    for one, value in expected.items():
        assert of_payments(one, [Event(time)]) == [pytest.approx(value, abs=1e-12)]


@given(st.lists(st.integers(0, 12).map(lambda zeros: 10**zeros) | st.integers(0, MAX_AMOUNT), min_size=1))
def test_roundness_counts_the_zeros_at_the_end(amounts: list[int]) -> None:
    """As the amount in minor units is written; 0 for 0."""
    expected = [float(len(str(n)) - len(str(n).rstrip("0"))) if n else 0.0 for n in amounts]
    assert of_payments(amount_roundness, [Event(0, n) for n in amounts]) == expected


def test_own_values_are_rounded_as_they_are_kept() -> None:
    """To the field's decimals; absent where the payment has none, or one too large to be kept."""
    events = [
        Event(0, fields={"attempt": 3.0, "lat": 1.23456789, "size": 0.125}),
        Event(0, fields={"size": 1e12}),
    ]
    fields = [attempt, lat, number("size", 2)]
    got = computed([payment_value(field) for field in fields], {}, events)
    np.testing.assert_array_equal(got, [[3.0, 1.234568, 0.12], [np.nan, np.nan, np.nan]])
    assert of_payments(payment_value(amount), [Event(0, MAX_AMOUNT)]) == [1e12]


@given(st.lists(st.tuples(st.integers(0, MAX_TIME), st.integers(0, MAX_AMOUNT)), min_size=2, max_size=40))
def test_batch_size_changes_no_byte(payments: list[tuple[int, int]]) -> None:
    """A payment alone has the features that it has among others."""
    derived = [hour_sin, weekday_cos, payment_value(amount).log().named("log"), amount_roundness, night]
    events = [Event(*payment) for payment in payments]
    alone = np.concatenate([computed(derived, {}, [event]) for event in events])
    assert alone.tobytes() == computed(derived, {}, events).tobytes()
