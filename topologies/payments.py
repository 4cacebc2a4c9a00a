"""Card payments: velocity of every card, customer, merchant, device and ip, and a model of fraud."""

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
    customer,
    device,
    distinct,
    fraud_count,
    maximum,
    mean,
    merchant,
    review,
    since_last,
    std,
    total,
)
from streamer.models.transforms import Log1p

cards = Entity(
    "card",
    features=[
        count("1m", "5m", "1h", "1d", "7d"),
        total(amount, "1h", "1d", "7d"),
        mean(amount, "30d").before(),
        std(amount, "30d").before(),
        maximum(amount, "30d").before(),
        distinct(merchant, "1h", "1d", "30d"),
        since_last(unit="s"),
    ],
)
customers = Entity(
    "customer",
    features=[
        count("1h", "1d", "7d"),
        total(amount, "1d", "7d"),
        distinct(card, "30d"),
        distinct(device, "1d", "30d"),
    ],
)
merchants = Entity(
    "merchant",
    features=[
        count("1h", "1d", "7d"),
        mean(amount, "7d"),
        distinct(card, "1h", "1d"),
    ],
)
devices = Entity(
    "device",
    features=[
        count("1h", "1d", "30d"),
        distinct(card, "1h", "1d", "30d"),
        distinct(customer, "30d"),
        fraud_count("30d"),
    ],
)
ips = Entity("ip", features=[count("5m", "1h", "1d"), distinct(card, "5m", "1h", "1d")])

surge = (cards["sum_amount_1h"] / cards["mean_amount_30d_before"]).named("card_surge")

fraud = Model(
    "fraud",
    inputs=[cards, customers, merchants, devices, ips, surge],
    good_after="7d",
    good_share=0.1,
    learner=Log1p() | preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01)),
)

policy = Policy(
    "default",
    version=1,
    rules=[
        block(fraud >= 0.5),
        review(fraud >= 0.1),
        review(ips["distinct_card_1h"] > 20, reason="card_testing"),
    ],
)

topology = Topology("payments", models=[fraud], policy=policy)
