"""Derived features."""

import numpy as np

from streamer.features.aggregates import count
from streamer.features.declarations import Entity
from streamer.features.derived import evaluate

CARD = Entity("card", features=[count("1m", "1h")])
SHOP = Entity("merchant", features=[count("1h")])


def test_arithmetic_and_absence() -> None:
    """Ratios, differences, constants and logarithms; a division by zero or an absent part is absent."""
    surge = (CARD["count_1m"] / CARD["count_1h"]).named("surge")
    derived = (
        surge,
        (2 - surge * 3).named("rest"),
        (CARD["count_1h"] - SHOP["count_1h"]).log1p().named("log"),
    )
    names = ["card_count_1m", "card_count_1h", "merchant_count_1h", "surge", "rest", "log"]
    features = np.full((3, 6), np.nan)
    features[:, :3] = [[1, 4, 1], [1, 0, 1], [np.nan, 2, np.nan]]
    evaluate(derived, names, features, 3)
    expected = [[0.25, 1.25, np.log1p(3)], [np.nan, np.nan, np.nan], [np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(features[:, 3:], expected)


def test_comparisons_name_their_feature() -> None:
    """A rule finds the column, the threshold and the entities of a comparison."""
    rule = (CARD["count_1m"] / SHOP["count_1h"]).named("share") >= 0.5
    assert (rule.feature, rule.operator, rule.threshold) == ("share", ">=", 0.5)
    assert rule.entities() == (CARD, SHOP)


def test_equal_expressions_are_equal() -> None:
    """The same derived feature may be named twice."""
    assert (CARD["count_1m"] + 1).named("a") == (CARD["count_1m"] + 1).named("a")
    assert (CARD["count_1m"] + 1).named("a") != (CARD["count_1m"] + 2).named("a")
