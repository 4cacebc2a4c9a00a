"""The load of the benchmark: 210 exact velocity features of five entities, and a score of all of them."""

import random

from river import linear_model, optim

from streamer import (
    Entity,
    Model,
    Policy,
    Topology,
    amount,
    block,
    card,
    count,
    device,
    distinct,
    maximum,
    mean,
    merchant,
    std,
    total,
)
from streamer.models.transforms import Log1p

WINDOWS = ("1m", "5m", "1h", "6h", "1d", "7d", "30d")
COUNTERPARTS = {"card": merchant, "customer": device, "merchant": card, "ip": card, "device": card}

entities = [
    Entity(
        name,
        features=[
            count(*WINDOWS),
            total(amount, *WINDOWS),
            mean(amount, *WINDOWS),
            std(amount, *WINDOWS),
            maximum(amount, *WINDOWS),
            distinct(counterpart, *WINDOWS),
        ],
    )
    for name, counterpart in COUNTERPARTS.items()
]

learner = Log1p() | linear_model.LogisticRegression(optim.SGD(0.01))
chance = random.Random(7)  # noqa: S311 - weights for a score that costs what a real one costs
for _ in range(50):
    learner.learn_one(
        {feature.name: chance.lognormvariate(4.0, 2.0) for entity in entities for feature in entity.features},
        chance.random() < 0.5,
    )

fraud = Model("fraud", inputs=entities, learner=learner)
policy = Policy("velocity", version=1, rules=[block(fraud >= 0.9)])
topology = Topology("velocity", models=[fraud], policy=policy)
