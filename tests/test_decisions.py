"""Policies: the first rule that holds decides, and the reasons say why, the most important first."""

import operator
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import linear_model

from streamer import Entity, Model, Policy, allow, amount, block, challenge, count, maximum, review
from streamer.decisions import Judge
from streamer.events import Reason
from streamer.topology import ACTIONS, Condition, Rule

cards = Entity("card", features=[count("1m"), maximum(amount, "1d")])
fraud = Model("fraud", [cards], linear_model.LogisticRegression())
abuse = Model("abuse", [cards], linear_model.LogisticRegression())
COLUMNS = {"card_count_1m": 0, "card_max_amount_1d": 1}
NAN = float("nan")


class Explained:
    """Contributions that are the same for every row of a model; remembers which rows were asked for."""

    def __init__(self, *features: Sequence[str]) -> None:
        self.features = features
        self.asked: list[tuple[int, list[int]]] = []

    def __call__(self, model: int, rows: npt.NDArray[np.intp]) -> list[list[Reason]]:
        """The reasons of each of the rows."""
        self.asked.append((model, rows.tolist()))
        named = self.features[model]
        return [[Reason("by the model", name, float(row)) for name in named] for row in rows.tolist()]


def judge(
    rules: Sequence[Rule],
    scores: Sequence[Sequence[float]],
    features: Sequence[Sequence[float]] | None = None,
    explained: Explained | None = None,
) -> tuple[list[str], list[list[Reason]]]:
    """Actions and reasons of payments with these scores and features."""
    given_features = np.array(features if features is not None else [[0.0, 0.0]] * len(scores), np.float64)
    judged = Judge(Policy("tested", 1, rules), ["fraud", "abuse"], COLUMNS).judge(
        np.array(scores, np.float64).reshape(len(scores), 2),
        given_features.reshape(len(scores), 2),
        explained or Explained(["a", "b", "c", "d"], ["e"]),
    )
    return [ACTIONS[code] for code in judged.action], judged.reasons


def test_without_a_rule_that_holds_it_is_allow() -> None:
    """Neither no rules nor rules that do not hold stop a payment or give reasons."""
    assert judge([], [[1.0, 1.0]]) == (["allow"], [[]])
    assert judge([block(fraud >= 0.9)], [[0.8, 1.0]]) == (["allow"], [[]])
    assert judge([block(fraud >= 0.9)], []) == ([], [])


def test_the_first_rule_that_holds_decides() -> None:
    """A milder rule above a harder one wins, row by row."""
    rules = [challenge(cards["count_1m"] > 5), block(fraud >= 0.9), review(fraud >= 0.5)]
    actions, _ = judge(rules, [[0.95, 0], [0.95, 0], [0.6, 0], [0.1, 0]], [[9, 0], [0, 0], [0, 0], [0, 0]])
    assert actions == ["challenge", "block", "review", "allow"]


def test_allow_ends_the_search_and_gives_no_reasons() -> None:
    """What is trusted stays allowed, whatever the rules below say, and so needs no reasons."""
    rules = [allow(cards["count_1m"] < 1, reason="trusted"), block(fraud >= 0.5)]
    assert judge(rules, [[0.9, 0]], [[0, 0]]) == (["allow"], [[]])


def test_what_speaks_for_a_payment_is_no_reason_against_it() -> None:
    """An `allow` below the rule that decided is not among the reasons."""
    rules = [block(cards["count_1m"] > 5, "burst"), allow(cards["max_amount_1d"] < 100, "small")]
    assert judge(rules, [[0, 0]], [[9, 1]]) == (["block"], [[Reason("burst", "card_count_1m", 9.0)]])


def test_reasons_of_other_rules_that_hold_follow() -> None:
    """The deciding rule's reason comes first, then those of the rules below that hold as well."""
    rules = [
        review(cards["max_amount_1d"] > 100, "large"),
        block(cards["count_1m"] > 5, "burst"),
        block(fraud >= 0.9),
    ]
    actions, reasons = judge(rules, [[0.95, 0], [0.95, 0]], [[9, 500], [9, 1]], Explained(["a"], []))
    assert actions == ["review", "block"]
    assert reasons == [
        [
            Reason("large", "card_max_amount_1d", 500.0),
            Reason("burst", "card_count_1m", 9.0),
            Reason("fraud_score", "a", 0.0),
        ],
        [Reason("burst", "card_count_1m", 9.0), Reason("fraud_score", "a", 1.0)],
    ]


def test_a_score_is_explained_by_its_three_greatest_contributions() -> None:
    """They keep the order of the scorer and stand under the rule's own code."""
    _, reasons = judge([block(fraud >= 0.9, "sure")], [[0.95, 0]])
    assert reasons == [[Reason("sure", name, 0.0) for name in ("a", "b", "c")]]


def test_a_model_is_explained_once() -> None:
    """Two rules on one score do not repeat its reasons, and only rows that are caught are explained."""
    explained = Explained(["a"], ["e"])
    rules = [block(fraud >= 0.9, "sure"), review(fraud >= 0.5), review(abuse >= 0.5)]
    _, reasons = judge(rules, [[0.95, 0.7], [0.6, 0.1], [0.1, 0.1]], explained=explained)
    assert reasons == [
        [Reason("sure", "a", 0.0), Reason("abuse_score", "e", 0.0)],
        [Reason("fraud_score", "a", 1.0)],
        [],
    ]
    assert explained.asked == [(0, [0]), (0, [1]), (1, [0])]


def test_a_score_that_nothing_raised_has_its_code() -> None:
    """A payment that a score stopped is never without a reason."""
    assert judge([block(fraud >= 0.5)], [[0.9, 0]], explained=Explained([], []))[1] == [
        [Reason("fraud_score")]
    ]


def test_two_rules_that_say_the_same_are_one_reason() -> None:
    """Two thresholds of one feature under its own code give that reason once."""
    rules = [block(cards["count_1m"] > 8), review(cards["count_1m"] > 5)]
    assert judge(rules, [[0, 0]], [[9, 0]]) == (["block"], [[Reason("card_count_1m", "card_count_1m", 9.0)]])


@pytest.mark.parametrize(
    "condition",
    [
        cards["count_1m"] > -1e300,
        cards["count_1m"] >= -1e300,
        cards["count_1m"] < 1e300,
        cards["count_1m"] <= 1e300,
        fraud > 0.0,
        fraud >= 0.0,
        fraud < 1.0,
        fraud <= 1.0,
    ],
)
def test_what_is_absent_meets_no_condition(condition: Condition) -> None:
    """Neither a feature nor a score that is not there is above or below anything."""
    assert judge([block(condition)], [[NAN, NAN]], [[NAN, NAN]]) == (["allow"], [[]])
    assert judge([block(condition)], [[0.5, NAN]], [[1.0, NAN]])[0] == ["block"]


def test_an_infinite_feature_is_compared() -> None:
    """A derived feature beyond all numbers is above every threshold."""
    assert judge([block(cards["count_1m"] > 8)], [[0, 0]], [[float("inf"), 0]])[0] == ["block"]


OPERATORS: dict[str, tuple[Callable[[float, float], bool], Callable[[float], Condition]]] = {
    ">": (operator.gt, lambda at: cards["count_1m"] > at),
    ">=": (operator.ge, lambda at: cards["count_1m"] >= at),
    "<": (operator.lt, lambda at: cards["count_1m"] < at),
    "<=": (operator.le, lambda at: cards["count_1m"] <= at),
    "score >": (operator.gt, lambda at: fraud > at),
    "score >=": (operator.ge, lambda at: fraud >= at),
    "score <": (operator.lt, lambda at: fraud < at),
    "score <=": (operator.le, lambda at: fraud <= at),
}
values = st.sampled_from([0.0, 0.25, 0.5, 1.0, NAN])
rules_drawn = st.lists(
    st.tuples(
        st.sampled_from(sorted(OPERATORS)), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from(ACTIONS)
    ),
    max_size=5,
)


@given(rules_drawn, st.lists(st.tuples(values, values), min_size=1, max_size=6))
def test_judging_equals_reading_the_rules_aloud(
    drawn: list[tuple[str, float, str]], rows: list[tuple[float, float]]
) -> None:
    """The first rule from above whose comparison is true gives the action, one payment at a time."""
    makers = {"allow": allow, "challenge": challenge, "review": review, "block": block}
    rules = [makers[action](OPERATORS[name][1](at)) for name, at, action in drawn]
    expected = [
        next(
            (
                action
                for name, at, action in drawn
                if OPERATORS[name][0](score if name.startswith("score") else feature, at)
            ),
            "allow",
        )
        for score, feature in rows
    ]
    actions, reasons = judge(
        rules, [[score, 0.0] for score, _ in rows], [[feature, 0.0] for _, feature in rows]
    )
    assert actions == expected
    assert [bool(why) for why in reasons] == [action != "allow" for action in expected]
