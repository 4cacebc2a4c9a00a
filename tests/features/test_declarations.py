"""Declarations: names, and errors that name the place and propose the fix."""

import re
from collections.abc import Callable

import pytest

from streamer.errors import TopologyError
from streamer.features.aggregates import count, distinct, mean, since_last, total
from streamer.features.declarations import Entity
from streamer.features.fields import amount, attempt, currency, merchant, number, text


def test_names_follow_the_contract() -> None:
    """Entity, aggregate, field and window make the name; before and delay are suffixes."""
    entity = Entity(
        "card",
        features=[
            count("1m", "1h"),
            total(amount, "1h"),
            mean(amount, "30d").before(),
            distinct(merchant, "30d"),
            since_last(unit="s"),
            count("1h", where=attempt > 1, name="card_count_retry_1h"),
            count("1d", delay="7d"),
        ],
    )
    assert [feature.name for feature in entity.features] == [
        "card_count_1m",
        "card_count_1h",
        "card_sum_amount_1h",
        "card_mean_amount_30d_before",
        "card_distinct_merchant_30d",
        "card_since_last",
        "card_count_retry_1h",
        "card_count_1d_delay_7d",
    ]


def test_an_aggregate_without_a_window_looks_back_over_the_longest() -> None:
    """since_last sees as far as the entity's longest window and delay."""
    entity = Entity("card", features=[count("1h", delay="1d"), since_last()])
    assert entity.features[1].window == 25 * 3_600_000


def test_a_feature_is_found_with_or_without_the_entitys_name() -> None:
    """entity["count_1m"] and entity["card_count_1m"] are the same feature."""
    entity = Entity("card", features=[count("1m")])
    assert entity["count_1m"] == entity["card_count_1m"]
    assert entity["count_1m"].name == "card_count_1m"


def test_equal_declarations_are_equal_and_print_alike() -> None:
    """The fingerprint of a topology is made of what declarations print."""
    one, two = (Entity("card", features=[count("1m", where=attempt > 1, name="a")]) for _ in range(2))
    assert one == two
    assert repr(one) == repr(two)


def test_a_declared_attribute_can_be_a_key() -> None:
    """Fields beyond the contract's are declared by type."""
    assert Entity("shop", keys=(text("shop_id"), "merchant"), features=[count("1m")]).keys == (
        "shop_id",
        "merchant",
    )


def pair() -> Entity:
    """An entity to ask features of."""
    return Entity("pair", keys=("card", "merchant"), features=[count("1m", "1h")])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Entity("crad", features=[count("1m")]), "no field 'crad'; did you mean 'card'"),
        (lambda: Entity("amount", features=[count("1m")]), "'amount', which is a number"),
        (lambda: Entity("card", features=[count("1x")]), "entity 'card', count: Expected a duration"),
        (lambda: Entity("card", features=[count("1m", "1m")]), "two features are named 'card_count_1m'"),
        (lambda: Entity("card", features=[count("1m", where=attempt > 1)]), "needs a name of its own"),
        (lambda: Entity("card", features=[count("1m", "1h", name="n")]), "write 'n_{window}'"),
        (lambda: Entity("card", features=[]), "has no features"),
        (lambda: Entity("card", features=[amount]), "expected aggregates such as count"),  # type: ignore[list-item]
        (lambda: total(merchant, "1h"), "which is text; did you mean distinct(merchant, ...)"),
        (lambda: total("amount", "1h"), "expected a field first"),  # type: ignore[arg-type]
        (count, "expected at least one window"),
        (lambda: count("1h", where=True), "a condition such as"),  # type: ignore[arg-type]
        (lambda: currency == 3, "field 'currency': expected a text"),
        (lambda: amount > "3", "field 'amount': expected a number"),  # type: ignore[operator]
        (lambda: bool(amount > 3), "combine conditions with & | ~"),
        (lambda: Entity("card", features=[since_last(unit="y")]), "expected a unit of ms, s, m, h, d"),
        (lambda: Entity("card", features=[count("1h", delay=7)]), "expected a duration such as"),  # type: ignore[arg-type]
        (lambda: merchant > 3, "got one of text; compare it with == or !=, or write merchant.isin"),
        (lambda: text("amount"), "which is a number; write number('amount')"),
        (lambda: number("merchant"), "which is text; write text('merchant')"),
        (lambda: number("email_domain"), "which is text; write text('email_domain')"),
        (lambda: pair()["cuont_1m"], "no feature 'cuont_1m'; did you mean 'count_1m'"),
        (
            lambda: pair()["count_1m"] > pair()["count_1h"],  # type: ignore[operator]
            "name their difference or ratio first",
        ),
        (lambda: (pair()["count_1m"] / 2).named("a b"), "expected a feature name"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(build: Callable[[], object], message: str) -> None:
    """Every mistake is a TopologyError that says where and what to write."""
    with pytest.raises(TopologyError, match=re.escape(message)):
        build()
