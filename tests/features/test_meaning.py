"""Sentences on features."""

from typing import get_args

import pytest

from streamer import (
    Entity,
    amount,
    attempt,
    card_country,
    count,
    currency,
    distinct,
    hour_sin,
    maximum,
    mean,
    merchant,
    payment_value,
    since_first,
    since_last,
    spread,
    std,
)
from streamer.features.aggregate import Aggregate, Kind
from streamer.features.declarations import Expression
from streamer.features.fields import Where
from streamer.features.meaning import KINDS, condition, formula, meaning_of

CARD = Entity("card", features=[count("1h"), mean(amount, "30d").before()])


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (count("1m"), "number of payments over (t - 1m, t], the payment included"),
        (
            std(amount, "90s").before(),
            "population standard deviation of amount over (t - 90s, t], without the payment",
        ),
        (maximum(amount, "1d", delay="6d"), "greatest amount over (t - 7d, t - 6d]"),
        (
            distinct(merchant, "1h"),
            "number of different values of merchant over (t - 1h, t], the payment included",
        ),
        (spread(amount, "7d"), "greatest minus least amount over (t - 7d, t], the payment included"),
        (
            since_last("1d", unit="m"),
            "minutes since the latest payment over (t - 1d, t], without the payment",
        ),
        (since_first("1d"), "seconds since the earliest payment over (t - 1d, t], the payment included"),
        (
            count("1h", where=attempt > 1, name="retries"),
            "number of payments over (t - 1h, t], the payment included, where attempt > 1",
        ),
    ],
)
def test_one_sentence_each(aggregate: Aggregate, expected: str) -> None:
    """What is computed, over which window, with the payment or without, and of which payments."""
    assert meaning_of(Entity("card", features=[aggregate]).features[0]) == expected


def test_every_kind_has_its_words() -> None:
    """None is called by its bare name."""
    assert set(get_args(Kind)) <= KINDS.keys()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (currency == "EUR", "currency == 'EUR'"),
        (attempt != 2, "attempt != 2"),
        (currency.isin(["USD", "EUR"]), "currency is one of 'EUR', 'USD'"),
        (
            (attempt > 1) & (amount >= 500) | ~(currency == "EUR"),
            "(attempt > 1 and amount >= 500) or not (currency == 'EUR')",
        ),
        (
            (attempt > 1) & ((card_country == "FR") | (amount < 5)),
            "attempt > 1 and (card_country == 'FR' or amount < 5)",
        ),
    ],
)
def test_conditions_read_as_they_are_written(where: Where, expected: str) -> None:
    """With parentheses where they matter."""
    assert condition(where) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (CARD["count_1h"] / CARD["mean_amount_30d_before"], "card_count_1h / card_mean_amount_30d_before"),
        ((CARD["count_1h"] - 1.5) * (2 + CARD["count_1h"]), "(card_count_1h - 1.5) * (2 + card_count_1h)"),
        ((CARD["count_1h"] + 1).log() - hour_sin, "log(card_count_1h + 1) - hour_sin"),
        ((CARD["count_1h"] + 1).named("more").log1p(), "log1p(card_count_1h + 1)"),
        (payment_value(amount), "the payment's own amount"),
        (hour_sin, "sine of the UTC hour of the day"),
    ],
)
def test_formulas_read_as_they_are_written(expression: Expression, expected: str) -> None:
    """A named part is written out, so that another formula under its name is another one here."""
    assert formula(expression.named("x")) == expected
