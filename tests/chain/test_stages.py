"""The chain of a topology: who follows whom, by which keys, over which topics."""

import re

import pytest

from streamer import Entity, Model, Policy, Topology, count, fraud_count, total
from streamer import amount as paid
from streamer.chain.stages import Chain, check_partitions
from streamer.errors import ConfigError, TopologyError
from streamer.settings import Topics
from tests.learning.test_learning import pipeline


def topology_of(*entities: Entity) -> Topology:
    """A topology of a model over these entities."""
    return Topology("tested", [Model("fraud", entities, pipeline())], Policy("tested", 1))


shops = Entity("merchant", features=[count("1h"), total(paid, "1h")])
pairs = Entity("pair", keys=("card", "merchant"), features=[count("1d")])
cards = Entity("card", features=[count("1h")])
again = Entity("card_frauds", keys=["card"], features=[fraud_count("1d")])


def test_entities_with_the_same_keys_share_a_stage() -> None:
    """Each stage knows whom it hears, what it counts by which keys, and what the payments bring along."""
    chain = Chain.of(topology_of(shops, pairs, again, cards), Topics(prefix="eu-"))
    assert chain.topics == (
        "eu-payments",
        "eu-stages.identify",
        "eu-stages.card",
        "eu-stages.merchant",
        "eu-stages.pair",
        "eu-stages.score",
    )
    assert chain.internal == (*chain.topics[1:], "eu-stages.learn", "eu-stages.models")
    assert [(stage.name, stage.before, stage.keys, stage.learns) for stage in chain.stages] == [
        ("identify", "entry", (), False),
        ("card", "identify", ("card",), True),
        ("merchant", "card", ("merchant",), False),
        ("pair", "merchant", ("card", "merchant"), False),
        ("score", "pair", (), False),
    ]
    assert chain.counting[0].entities == (cards, again)
    assert chain.stages[-1].columns == (
        "card_count_1h", "card_frauds_fraud_count_1d", "merchant_count_1h", "merchant_sum_amount_1h",
        "pair_count_1d",
    )  # fmt: skip
    assert chain.stages[-1].widths == (2, 2, 1)


def test_the_order_of_mention_does_not_matter() -> None:
    """Moving an input of a model moves no stage; another feature changes what follows and nothing before."""
    one = Chain.of(topology_of(shops, pairs, cards), Topics())
    other = Chain.of(topology_of(cards, shops, pairs), Topics())
    assert one == other
    more = Entity("merchant", features=[count("1h"), total(paid, "1d")])
    changed = Chain.of(topology_of(more, pairs, cards), Topics())
    same = [a.layout == b.layout for a, b in zip(one.stages, changed.stages, strict=True)]
    assert same == [True, True, True, False, False]


@pytest.mark.parametrize("name", ["score", "identify", "learn", "models"])
def test_an_entity_is_not_called_like_a_stage(name: str) -> None:
    """Its topic would be that stage's."""
    topology = topology_of(Entity(name, keys=["card"], features=[count("1h")]))
    with pytest.raises(TopologyError, match=f"entity '{name}': expected another name .*; rename it"):
        Chain.of(topology, Topics())


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"a": 8, "b": 8, "c": 4}, "got a 8, b 8, c 4; create c with 8 partitions"),
        ({"a": 8, "b": 8}, "got a 8, b 8, c (missing); create c with 8 partitions"),
        ({"b": 3}, "got a (missing), b 3, c (missing); create a, c with 3 partitions"),
        ({}, "got a (missing), b (missing), c (missing); create a, b, c with as many partitions"),
    ],
)
def test_all_topics_have_as_many_partitions(counts: dict[str, int], message: str) -> None:
    """The error names each topic with its number, and what to do."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_partitions(["a", "b", "c"], counts)
    assert check_partitions(["a", "b"], {"a": 5, "b": 5, "c": 1}) == 5
