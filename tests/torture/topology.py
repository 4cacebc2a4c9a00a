"""The topology of the storm: four entities and a pair, features that labels feed, and a model that learns."""

import random

from river import linear_model, optim, preprocessing

from streamer import (
    Entity,
    Model,
    Policy,
    Topology,
    allow,
    amount,
    block,
    card,
    challenge,
    count,
    device,
    distinct,
    fraud_count,
    fraud_rate,
    lifetime_count,
    maximum,
    mean,
    merchant,
    minimum,
    novelty,
    payment_value,
    review,
    since_last,
    std,
    total,
)
from streamer.models.transforms import Log1p

cards = Entity(
    "card",
    features=[
        count("1m", "1h", "1d", "7d"),
        count("1h").before(),
        count("1d", delay="1h"),
        count("1d", where=amount > 5_000, name="card_count_dear_1d"),
        total(amount, "1h", "1d"),
        mean(amount, "7d").before(),
        std(amount, "1d", "7d"),
        maximum(amount, "7d"),
        minimum(amount, "1d"),
        distinct(merchant, "1h", "7d"),
        novelty(merchant, "7d"),
        since_last(unit="s"),
        fraud_count("1d", "7d"),
        lifetime_count(),
    ],
)
customers = Entity("customer", features=[count("6h", "7d"), total(amount, "7d"), distinct(device, "7d")])
merchants = Entity(
    "merchant",
    features=[
        count("5m", "1d"),
        mean(amount, "1d"),
        distinct(card, "1d"),
        fraud_rate("1d", "7d", prior=(1, 50)),
        lifetime_count(),
    ],
)
ips = Entity("ip", features=[count("5m", "1h"), distinct(card, "1h"), fraud_count("7d", delay="1h")])
pairs = Entity(
    "card_merchant",
    keys=("card", "merchant"),
    features=[count("7d"), total(amount, "7d"), since_last(unit="s"), fraud_count("7d")],
)
surge = (cards["sum_amount_1h"] / cards["mean_amount_7d_before"]).named("card_surge")
spent = payment_value(amount)

fraud = Model(
    "fraud",
    inputs=[cards, customers, merchants, ips, pairs, surge, spent],
    good_after="12h",
    good_share=0.5,
    learner=Log1p() | preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01)),
)

# Trained before the start, so that the version before all snapshots scores too.
draws = random.Random(7)
for _ in range(300):
    example = {name: draws.lognormvariate(2.0, 2.0) for name in fraud.features}
    fraud.learner.learn_one(example, draws.random() < 0.3)

policy = Policy(
    "storm",
    version=3,
    rules=[
        block(merchants["fraud_rate_1d"] >= 0.05, reason="bad_merchant"),
        allow(pairs["count_7d"] > 8),
        block(fraud >= 0.8),
        review(cards["count_1m"] > 2, reason="card_burst"),
        review(fraud >= 0.5),
        challenge(cards["novelty_merchant_7d"] >= 1, reason="new_merchant"),
        challenge(fraud >= 0.2, reason="doubt"),
    ],
)

topology = Topology("storm", models=[fraud], policy=policy)
