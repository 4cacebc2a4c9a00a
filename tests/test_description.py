"""A topology as plain data."""

from river import linear_model

from streamer import Entity, Model, Policy, Topology, amount, attempt, block, count, hour_sin, total
from streamer.description import describe
from streamer.features.footprint import footprint_of

cards = Entity("card", features=[count("1h"), total(amount, "7d", where=attempt > 1, name="card_retried_7d")])
surge = (cards["retried_7d"] / cards["count_1h"]).named("surge")


def test_a_description_is_plain_data() -> None:
    """What `check --json` prints has every name that a topology declares, what it means and what it takes."""
    fraud = Model("fraud", [cards, surge, hour_sin], linear_model.LogisticRegression(), good_after="7d")
    made = Topology("payments", [fraud], Policy("default", 3, [block(fraud > 0.5, "sure")]))
    taken = footprint_of(cards, 86_400_000)
    included = "the payment included"
    assert describe(made, 86_400_000) == {
        "topology": "payments",
        "fingerprint": made.fingerprint,
        "entities": {
            "card": {
                "keys": ["card"],
                "features": ["card_count_1h", "card_retried_7d"],
                "key_bytes": taken.key_bytes,
                "event_bytes": taken.event_bytes,
                "chunk_events": taken.chunk_events,
                "kept": ["attempt", "amount"],
                "retention": "8d",
            }
        },
        "features": [
            {
                "name": "card_count_1h",
                "entity": "card",
                "meaning": f"number of payments over (t - 1h, t], {included}",
                "dtype": "float64",
                "window": "1h",
            },
            {
                "name": "card_retried_7d",
                "entity": "card",
                "meaning": f"sum of amount over (t - 7d, t], {included}, where attempt > 1",
                "dtype": "float64",
                "window": "7d",
            },
            {
                "name": "surge",
                "entity": None,
                "meaning": "card_retried_7d / card_count_1h",
                "dtype": "float64",
            },
            {
                "name": "hour_sin",
                "entity": None,
                "meaning": "sine of the UTC hour of the day",
                "dtype": "float64",
            },
        ],
        "derived": ["surge", "hour_sin"],
        "models": {"fraud": {"inputs": 4, "good_after": "7d"}},
        "policy": {"name": "default@3", "rules": [{"action": "block", "reason": "sure"}]},
    }
