"""What a user's tests need: a driver for topologies, a broker that fails when told to, a clock, fault points.

A topology is tested without Kafka and without threads: payments in, decisions, features and rejections out.

>>> from river import linear_model
>>> from streamer import Entity, Model, Policy, Topology, count, review
>>> cards = Entity("card", features=[count("1m")])
>>> fraud = Model("fraud", inputs=[cards], learner=linear_model.LogisticRegression())
>>> policy = Policy("default", version=1, rules=[review(cards["count_1m"] > 2, reason="burst")])
>>> with TopologyDriver(Topology("shop", models=[fraud], policy=policy)) as driver:
...     paid = {"amount": 1250, "currency": "EUR", "card": "c1"}
...     actions = [driver.decide_one({"payment_id": str(n), **paid}).action for n in range(3)]
...     repeated = driver.crash()
...     driver.advance("1m")
...     later = driver.decide_one({"payment_id": "later", **paid})
...     wrong = driver.decide_one({"payment_id": "wrong"})
>>> actions
['allow', 'allow', 'review']
>>> [answer.action for answer in repeated], later.features, later.action
(['allow', 'allow', 'review'], {'card_count_1m': 1.0}, 'allow')
>>> wrong.code, wrong.rejection.error
('missing_field', 'Object missing required field `amount`')

`FakePublisher` is the way out of a worker with acknowledgements that are slow, refused or lost, full buffers
and records too large; `Clock` is set by hand, for whatever takes one. `arm` sets faults at the `POINTS` of
a worker's work; `STREAMER_TESTING_FAULTS=commit.written:3` does the same for `streamer run`.
"""

from streamer.faults import POINTS, arm, reach
from streamer.testing.clock import Clock
from streamer.testing.driver import START, Answered, TopologyDriver
from streamer.testing.publisher import Delivery, FakePublisher, confirm, hold, lose, refuse, repeat

__all__ = [
    "POINTS",
    "START",
    "Answered",
    "Clock",
    "Delivery",
    "FakePublisher",
    "TopologyDriver",
    "arm",
    "confirm",
    "hold",
    "lose",
    "reach",
    "refuse",
    "repeat",
]
