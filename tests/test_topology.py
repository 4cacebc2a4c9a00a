"""Topologies: every mistake is refused with its remedy, the fingerprint follows the declarations alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from river import linear_model, optim, preprocessing

from streamer import (
    Entity,
    Model,
    Policy,
    Source,
    Topology,
    allow,
    amount,
    block,
    card,
    challenge,
    count,
    distinct,
    merchant,
    number,
    payment_value,
    review,
    text,
    total,
)
from streamer.errors import TopologyError
from streamer.topology import Condition, Rule

cards = Entity("card", features=[count("1h", "1d"), total(amount, "1h")])
shops = Entity("merchant", features=[count("1d"), distinct(card, "1h")])
NAN = float("nan")
surge = (cards["sum_amount_1h"] / cards["count_1h"]).named("surge")


def pipeline(rate: float = 0.01) -> Any:
    """A supported pipeline."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(rate))


def model(name: str = "fraud", **changes: Any) -> Model:
    """A valid model but for the changes."""
    return Model(name, **{"inputs": [cards], "learner": pipeline()} | changes)


def topology(**changes: Any) -> Topology:
    """A valid topology but for the changes."""
    given: dict[str, Any] = {"models": [model()], "policy": Policy("default", 1)}
    return Topology(**{"name": "payments"} | given | changes)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "name of a model": (lambda: model("1st"), "begins with a letter, got '1st'"),
    "empty name": (lambda: topology(name=""), "expected a topology name"),
    "name of a policy": (lambda: Policy("a b", 1), "expected a policy name"),
    "no inputs": (lambda: model(inputs=[]), "write inputs=[...] with entities or features"),
    "one input, no list": (lambda: model(inputs=cards), "expected a list of inputs, got one input"),
    "input by its name": (
        lambda: model(inputs=["card_count_1h"]),
        "got str; a feature of an entity is entity",
    ),
    "unnamed expression": (lambda: model(inputs=[cards["count_1h"] / 2]), 'a name with .named("...")'),
    "input twice": (lambda: model(inputs=[cards, cards["count_1h"]]), "two inputs are named 'card_count_1h'"),
    "share of nothing": (lambda: model(good_share=0.0), "good_share above 0 and at most 1, got 0.0"),
    "share above all": (lambda: model(good_share=1.5), "good_share above 0 and at most 1, got 1.5"),
    "good_after": (lambda: model(good_after="45"), "model 'fraud': good_after: Expected a duration"),
    "good_after of a number": (lambda: model(good_after=45), "model 'fraud': good_after"),
    "pipeline": (
        lambda: model(learner=linear_model.Perceptron()),
        "model 'fraud': A model cannot be compiled: expected a supported pipeline, got Perceptron",
    ),
    "threshold": (lambda: model() >= 95.0, "expected a threshold from 0 to 1, got 95.0"),
    "threshold of no number": (lambda: model() < NAN, "expected a threshold from 0 to 1, got nan"),
    "two comparisons in one": (lambda: block(0.5 <= model() < 0.9), "write one rule for each comparison"),
    "a condition with and": (lambda: block((model() >= 0.5) and (model() < 0.9)), "not `and`, `or`"),
    "rule without comparison": (lambda: block(NotImplemented), "expected a comparison such as"),
    "rule on an entity": (lambda: review(cards), "got `Entity`"),  # type: ignore[arg-type]
    "version": (lambda: Policy("default", 0), "expected a version of 1 or more, got 0"),
    "one rule, no list": (
        lambda: Policy("default", 1, block(model() >= 0.5)),  # type: ignore[arg-type]
        "write rules=[block(...), review(...)]",
    ),
    "condition as a rule": (
        lambda: Policy("default", 1, [model() >= 0.5]),  # type: ignore[list-item]
        "expected a list of Rule, got ScoreCondition",
    ),
    "no model": (lambda: topology(models=[]), "has no model; its decisions need a score"),
    "one model, no list": (lambda: topology(models=model()), "models: expected a list of Model, got Model"),
    "no policy": (lambda: topology(policy=None), "expected a Policy, got NoneType"),
    "two models": (lambda: topology(models=[model(), model()]), "two models are named 'fraud'"),
    "two entities": (
        lambda: topology(entities=[Entity("card", features=[count("5m")])]),
        "two entitys are named 'card': do you declare the same entity twice?",
    ),
    "feature of one name": (
        lambda: topology(models=[model(inputs=[cards, (cards["count_1h"] * 2).named("card_count_1d")])]),
        "two inputs are named 'card_count_1d'",
    ),
    "feature of the name of another entity's": (
        lambda: topology(
            models=[model(inputs=[cards, (cards["count_1h"] * 2).named("merchant_count_1d")])],
            entities=[shops],
        ),
        "two features are named 'merchant_count_1d'",
    ),
    "two derived of one name": (
        lambda: topology(
            models=[model(inputs=[surge]), model("other", inputs=[(cards["count_1h"] * 2).named("surge")])]
        ),
        "rename one with .named()",
    ),
    "rule of another derived of one name": (
        lambda: topology(
            models=[model(inputs=[surge])],
            policy=Policy("default", 1, [block((cards["count_1h"] * 2).named("surge") > 1)]),
        ),
        "rename one with .named()",
    ),
    "action": (
        lambda: topology(policy=Policy("default", 1, [Rule("deny", model() > 0.5, "x")])),  # type: ignore[arg-type]
        "unknown action 'deny'; one of ('allow', 'challenge', 'review', 'block')",
    ),
    "unlisted model": (
        lambda: topology(policy=Policy("default", 1, [block(model("frauds") > 0.5)])),
        "uses model 'frauds', which the topology does not list; did you mean 'fraud'?",
    ),
    "currency": (
        lambda: topology(base_currency="EURO"),
        "expected an ISO 4217 code such as 'EUR' as base_currency, got 'EURO'; did you mean 'EUR'?",
    ),
    "feature": (lambda: cards["count_2h"], "entity 'card' has no feature 'count_2h'; did you mean"),
    "attribute that the source lacks": (
        lambda: topology(entities=[Entity("shop_id", keys=[text("shop_id")], features=[count("1h")])]),
        "got nothing of that name; declare it: source=Source(attributes={'shop_id': str})",
    ),
    "misspelt attribute": (
        lambda: topology(entities=[Entity("merchant", features=[distinct(text("devise"), "1h")])]),
        "got nothing of that name; did you mean 'device'?",
    ),
    "attribute of another type": (
        lambda: topology(
            entities=[Entity("merchant", features=[total(number("basket"), "1h")])],
            source=Source(attributes={"basket": str}),
        ),
        "field 'basket': expected an attribute of the source that is a number, got str",
    ),
    "own value that the source lacks": (
        lambda: topology(models=[model(inputs=[(payment_value(number("size")) * 2).named("twice")])]),
        "field 'size': expected an attribute of the source that is a number",
    ),
    "field with two decimals": (
        lambda: topology(
            entities=[
                Entity("merchant", features=[total(number("lat", 2), "1h"), total(number("lat", 3), "2h")])
            ]
        ),
        "entity 'merchant' uses field 'lat' with two types or numbers of decimals",
    ),
    "field as an input": (lambda: model(inputs=[amount]), "write payment_value(amount)"),
    "text as an input": (lambda: model(inputs=[merchant]), "field 'merchant' is text; count or group by it"),
    "threshold of text": (lambda: model() >= "0.5", "a threshold from 0 to 1, got '0.5'"),  # type: ignore[operator]
    "share of text": (lambda: model(good_share="all"), "at most 1, got 'all'"),
    "version of text": (lambda: Policy("default", "1"), "expected a version of 1 or more, got '1'"),  # type: ignore[arg-type]
    "attribute of a made field": (lambda: Source(attributes={"email_domain": str}), "rename it"),
    "attribute of the source": (
        lambda: Source(attributes={"card": str}),
        "rename it",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_is_refused_with_its_remedy(wrong: str) -> None:
    """What cannot run is refused when it is declared, in words that name the place and the fix."""
    declare, remedy = WRONG[wrong]
    with pytest.raises(TopologyError) as refused:
        declare()
    assert remedy in str(refused.value)
    assert "\n" not in str(refused.value)


def test_features_are_in_the_order_of_first_mention() -> None:
    """Entities that nothing else names come first, then those of models in order, then derived features."""
    pairs = Entity("pair", keys=("card", "merchant"), features=[count("1d")])
    made = topology(models=[model(inputs=[shops, surge])], entities=[pairs])
    assert made.features == (
        "pair_count_1d",
        "merchant_count_1d",
        "merchant_distinct_card_1h",
        "card_count_1h",
        "card_count_1d",
        "card_sum_amount_1h",
        "surge",
    )
    assert made.models[0].features == ("merchant_count_1d", "merchant_distinct_card_1h", "surge")
    assert made.columns_of(made.models[0].features) == [1, 2, 6]


def test_an_entity_that_several_name_is_one() -> None:
    """A model, a rule and a derived feature share their entity's columns."""
    rules = [review(cards["count_1h"] > 3), block(model() > 0.5)]
    made = topology(
        models=[model(inputs=[cards, surge])], policy=Policy("default", 1, rules), entities=[cards]
    )
    assert made.all_entities == (cards,)
    assert made.features == ("card_count_1h", "card_count_1d", "card_sum_amount_1h", "surge")


def test_what_only_a_rule_names_is_computed() -> None:
    """Entities and derived features of rules have columns although no model takes them in."""
    risky = (shops["distinct_card_1h"] / shops["count_1d"]).named("shop_risk")
    made = topology(policy=Policy("default", 1, [review(risky > 0.5)]))
    assert made.features == (*model().features, "merchant_count_1d", "merchant_distinct_card_1h", "shop_risk")


def test_rules_have_stable_codes() -> None:
    """A rule's reason is the one given, else named after what it looks at."""
    conditions: list[Condition] = [model() >= 0.5, cards["count_1h"] > 8, surge > 2]
    assert [block(one).reason for one in conditions] == ["fraud_score", "card_count_1h", "surge"]
    assert [make(conditions[0], "sure") for make in (allow, challenge, review, block)] == [
        Rule(action, conditions[0], "sure") for action in ("allow", "challenge", "review", "block")
    ]


CHANGES: dict[str, Callable[[], Topology]] = {
    "name": lambda: topology(name="other"),
    "currency": lambda: topology(base_currency="USD"),
    "renamed field": lambda: topology(source=Source(rename={"shop": "merchant"})),
    "unit of time": lambda: topology(source=Source(time_unit="s")),
    "attribute": lambda: topology(source=Source(attributes={"basket": int})),
    "type of an attribute": lambda: topology(source=Source(attributes={"basket": float})),
    "entity": lambda: topology(entities=[shops]),
    "order of entities": lambda: topology(entities=[cards, shops]),
    "keys": lambda: topology(
        models=[model(inputs=[Entity("card", keys=[merchant], features=[count("1h")])])]
    ),
    "window": lambda: topology(models=[model(inputs=[Entity("card", features=[count("2h")])])]),
    "condition": lambda: topology(
        models=[model(inputs=[Entity("card", features=[count("1h", where=amount > 1, name="card_some")])])]
    ),
    "value of a condition": lambda: topology(
        models=[model(inputs=[Entity("card", features=[count("1h", where=amount > 2, name="card_some")])])]
    ),
    "before": lambda: topology(
        models=[model(inputs=[Entity("card", features=[count("1h", name="card_count_1h").before()])])]
    ),
    "derived": lambda: topology(models=[model(inputs=[cards, surge])]),
    "expression": lambda: topology(models=[model(inputs=[cards, (surge * 2).named("surge")])]),
    "order of inputs": lambda: topology(models=[model(inputs=[surge, cards])]),
    "name of a model": lambda: topology(models=[model("other")]),
    "second model": lambda: topology(models=[model(), model("other")]),
    "learning rate": lambda: topology(models=[model(learner=pipeline(0.02))]),
    "scaler": lambda: topology(models=[model(learner=linear_model.LogisticRegression(optim.SGD(0.01)))]),
    "good_after": lambda: topology(models=[model(good_after="44d")]),
    "good_share": lambda: topology(models=[model(good_share=0.5)]),
    "version of the policy": lambda: topology(policy=Policy("default", 2)),
    "rule": lambda: topology(policy=Policy("default", 1, [block(model() > 0.5)])),
    "threshold": lambda: topology(policy=Policy("default", 1, [block(model() > 0.6)])),
    "operator": lambda: topology(policy=Policy("default", 1, [block(model() >= 0.5)])),
    "action": lambda: topology(policy=Policy("default", 1, [review(model() > 0.5)])),
    "reason": lambda: topology(policy=Policy("default", 1, [block(model() > 0.5, "sure")])),
    "rule on a feature": lambda: topology(policy=Policy("default", 1, [block(cards["count_1h"] > 0.5)])),
    "order of rules": lambda: topology(
        policy=Policy("default", 1, [review(cards["count_1h"] > 1), block(model() > 0.5)])
    ),
    "the other order of rules": lambda: topology(
        policy=Policy("default", 1, [block(model() > 0.5), review(cards["count_1h"] > 1)])
    ),
}


def test_a_fingerprint_follows_every_declaration() -> None:
    """No two of these topologies share a fingerprint, and none that of the one they were changed from."""
    found = {name: make().fingerprint for name, make in CHANGES.items()} | {"": topology().fingerprint}
    twice = {name: one for name, one in found.items() if list(found.values()).count(one) > 1}
    assert twice == {}
    assert all(len(one) == 12 and int(one, 16) >= 0 for one in found.values())


def test_a_fingerprint_follows_nothing_else() -> None:
    """Declared anew, or with a good_after in other words, it is the same."""
    assert topology().fingerprint == topology().fingerprint
    assert model().good_after_ms == 45 * 86_400_000
    assert topology(models=[model(good_after="1080h")]).fingerprint == topology().fingerprint


DECLARED = """
from river import linear_model, optim
from streamer import *

some = channel.isin({"web", "app", "pos", "moto", "mail"})
cards = Entity("card", features=[count("1h", where=some, name="web")])
fraud = Model("fraud", [cards], linear_model.LogisticRegression(optim.Adam(0.01)))
topology = Topology("payments", [fraud], Policy("default", 1), Source(rename={"a": "card", "b": "merchant"}))
"""


def test_a_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Neither addresses of objects nor the seed of Python's hashes show in it."""
    file = tmp_path / "declared.py"
    file.write_text(DECLARED)
    program = (
        "from pathlib import Path; from streamer.loading import load_topology;"
        f"print(load_topology(Path({str(file)!r})).fingerprint)"
    )
    prints = {
        subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1
