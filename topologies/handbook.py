"""The Fraud Detection Handbook's payments: features of customers and terminals, labels seven days late."""

from river import linear_model, optim, preprocessing

from streamer import Entity, Model, Policy, Topology, amount, count, fraud_rate, mean, merchant, review
from streamer.models.transforms import Log1p

customers = Entity("customer", features=[count("1d", "7d", "30d"), mean(amount, "1d", "7d", "30d")])
terminals = Entity(
    "terminal",
    keys=[merchant],
    # Labels come seven days late, and count when they come: the frauds as known.
    features=[count("1d", "7d", "30d"), fraud_rate("1d", "7d", "30d")],
)

fraud = Model(
    "fraud",
    inputs=[customers, terminals],
    good_after="7d",
    learner=Log1p() | preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01)),
)
policy = Policy("handbook", version=1, rules=[review(fraud >= 0.5)])
topology = Topology("handbook", models=[fraud], policy=policy)
