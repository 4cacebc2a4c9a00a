"""The topology of the end-to-end tests: small, with a pair of keys and a model trained before the start."""

import math
import random

from river import linear_model, optim, preprocessing

from streamer import (
    Entity,
    Model,
    Policy,
    Topology,
    amount,
    block,
    card,
    count,
    distinct,
    maximum,
    mean,
    merchant,
    minimum,
    review,
    since_last,
    std,
    total,
)
from streamer.models.transforms import Log1p

cards = Entity(
    "card",
    features=[
        count("1m", "1h", "1d", "30d"),
        count("1h").before(),
        total(amount, "1h", "7d"),
        mean(amount, "30d").before(),
        std(amount, "1d", "30d"),
        maximum(amount, "7d"),
        minimum(amount, "1d"),
        distinct(merchant, "1h", "30d"),
        since_last(unit="s"),
    ],
)
customers = Entity("customer", features=[count("7d"), total(amount, "1d"), distinct(card, "30d")])
merchants = Entity("merchant", features=[count("5m", "1d"), mean(amount, "7d"), distinct(card, "1d")])
pairs = Entity("card_merchant", keys=("card", "merchant"), features=[count("30d"), since_last(unit="s")])
surge = (cards["sum_amount_1h"] / cards["mean_amount_30d_before"]).named("card_surge")

fraud = Model(
    "fraud",
    inputs=[cards, customers, merchants, pairs, surge],
    good_after="3650d",
    learner=Log1p() | preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05)),
)

draws = random.Random(7)
for _ in range(300):
    example = {name: draws.lognormvariate(2.0, 2.0) for name in fraud.features}
    fraud.learner.learn_one(example, math.log1p(example["card_count_1h"]) + draws.gauss(0.0, 1.0) > 3.0)

policy = Policy(
    "tested",
    version=4,
    rules=[
        review(cards["count_1m"] > 3, reason="card_burst"),
        block(fraud >= 0.9),
        review(fraud >= 0.6),
    ],
)

topology = Topology("tested", models=[fraud], policy=policy, entities=[pairs])
