"""Label-fed features: exact against lists of payments and frauds, whatever is late, lost or evicted."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import TopologyError
from streamer.features.aggregates import count, maximum
from streamer.features.declarations import Entity
from streamer.features.fields import amount
from streamer.features.frauds import FraudFeature, fraud_count, fraud_rate
from streamer.features.labelled import split
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event, Value, feature_of
from tests.features.starting import started

LATENESS = 200

SHOP = Entity(
    "merchant",
    features=[
        fraud_count("20ms", "100ms"),
        count("50ms"),
        fraud_rate("20ms", "60ms", prior=(1, 20)),
        maximum(amount, "30ms"),
        fraud_rate("40ms", prior=(0, 0), delay="10ms"),
        fraud_count("100ms", delay="30ms", name="merchant_older_frauds"),
    ],
)
PAIR = Entity("pair", keys=("card", "merchant"), features=[fraud_count("50ms")])
CARD = Entity("card", features=[count("20ms"), count("100ms").before()])
ENTITIES = [SHOP, PAIR, CARD]


class Ledger:
    """Every payment and every fraud so far, each with its key; a feature is counted from the lists."""

    def __init__(self) -> None:
        self.paid: list[Event] = []
        self.frauds: list[Event] = []

    def answer(self, event: Event) -> list[float]:
        """The features of the next payment; afterwards it is counted."""
        row = []
        for entity in ENTITIES:
            key = [event.value(name) for name in entity.keys]
            for feature in entity.features:
                if None in key:
                    row.append(math.nan)
                elif isinstance(feature, FraudFeature):
                    end = event.time - feature.delay
                    frauds, paid = (
                        sum(
                            end - feature.window < other.time <= end
                            for other in events
                            if [other.value(name) for name in entity.keys] == key
                        )
                        for events in (self.frauds, self.paid)
                    )
                    if feature.prior is None:
                        row.append(float(frauds))
                    else:
                        below = paid + feature.prior[1]
                        row.append((frauds + feature.prior[0]) / below if below else math.nan)
                else:
                    mine = [one for one in self.paid if [one.value(name) for name in entity.keys] == key]
                    row.append(feature_of(feature, mine, event))
        if event.live:
            self.paid.append(event)
        return row

    def know(self, frauds: list[Event]) -> None:
        """Frauds that became known at their times."""
        self.frauds += [fraud for fraud in frauds if fraud.live]


@dataclass
class Lab:
    """Features on a store, committed and crashed by hand as the engine does."""

    blocks: Blocks
    budget: int
    batches: list[Batch]
    stored: int = 0
    begin: int = 0

    def open(self) -> Features:
        """What a start finds."""
        again = self.batches[self.begin : self.stored]
        limits = {"memory_budget": self.budget, "allowed_lateness": LATENESS}
        return started(ENTITIES, self.blocks, again, self.stored, **limits)

    def commit(self, features: Features, most: int | None) -> None:
        """Store a cut."""
        rows = features.cut(None, most)
        self.begin, self.stored = features.oldest_after_cut, len(self.batches)
        self.blocks.write(rows)
        features.written()


def payment(draw: st.DrawFn, now: int) -> Event:
    """A payment of few keys, perhaps late, test traffic, or without a merchant."""
    fields: dict[str, Value] = {
        "card": draw(st.sampled_from([None, "a", "b"])),
        "merchant": draw(st.sampled_from([None, "m", "m", "m", "n", "o" * 60])),
    }
    late = draw(st.sampled_from([0, 0, 0, 7, 90, LATENESS]))
    return Event(now - late, draw(st.integers(0, 99)), draw(st.integers(0, 9)) > 0, fields)


Act = list[Event] | tuple[list[Event], list[int]] | str | int


@st.composite
def stories(draw: st.DrawFn) -> list[Act]:
    """Batches of payments, frauds among the earlier ones and when they become known, commits, crashes.

    Most frauds become known in the past of the payments, some in their future, some in the far future.
    """
    now = 1_700_000_000_000
    seen: list[Event] = []
    told: list[Act] = []
    for _ in range(draw(st.integers(1, 25))):
        match draw(st.sampled_from(["pay", "pay", "pay", "know", "know", "commit", "crash"])):
            case "pay":
                batch = []
                for _ in range(draw(st.integers(1, 8))):
                    now += draw(st.sampled_from([0, 0, 1, 5, 40]))
                    batch.append(payment(draw, now))
                seen += batch
                told.append(batch)
            case "know" if seen:
                frauds = draw(st.lists(st.sampled_from(seen), min_size=1, max_size=6))
                after = st.sampled_from([-300, -50, -10, -1, 0, 0, 20, 10**6, 10**12])
                told.append((frauds, [now + draw(after) for _ in frauds]))
            case "commit":
                told.append(draw(st.integers(0, 3)))
            case _:
                told.append("crash")
    return told


@settings(max_examples=60, deadline=None)
@given(told=stories(), budget=st.sampled_from([0, 1 << 20]))
def test_equals_brute_force(told: list[Act], budget: int) -> None:
    """Counts and rates are what their definition says, through late frauds, evictions and crashes."""
    ledger, lab = Ledger(), Lab(Blocks(), budget, [])
    features = lab.open()
    for act in told:
        match act:
            case list():
                lab.batches.append(Batch(act))
                got = features.update(lab.batches[-1], None, len(lab.batches) - 1)
                np.testing.assert_array_equal(got, np.array([ledger.answer(event) for event in act]))
            case (frauds, times):
                known = [replace(one, time=time) for one, time in zip(frauds, times, strict=True)]
                ledger.know(known)
                features.know(Batch(known), min(one.time for one in frauds))
                lab.commit(features, 0)  # frauds come in at a commit, and are stored with it
            case int(most):
                features.catch_up(most)
                lab.commit(features, most)
            case _:
                lab.commit(features, 0)
                features = lab.open()


def shop_events(times: list[int]) -> Batch:
    """Payments, or frauds, of one merchant."""
    return Batch([Event(time, fields={"merchant": "m"}) for time in times])


def test_a_window_ends_with_the_payment_and_its_delay() -> None:
    """(t - d - W, t - d], to the millisecond, by the time when a fraud became known."""
    entity = Entity("merchant", features=[fraud_count("10ms"), fraud_count("10ms", delay="5ms")])
    features = Features([entity], memory_budget=1 << 20, allowed_lateness=100, blocks=Blocks())
    features.know(shop_events([1_000]), 0)
    times = [999, 1_000, 1_004, 1_005, 1_009, 1_010, 1_014, 1_015]
    got = features.update(shop_events(times))
    assert got[:, 0].tolist() == [0, 1, 1, 1, 1, 0, 0, 0]
    assert got[:, 1].tolist() == [0, 0, 0, 1, 1, 1, 1, 0]


def test_a_payment_does_not_change_its_own_rate() -> None:
    """The rate of a key begins with its prior; payments before this one are in the denominator."""
    entity = Entity("merchant", features=[fraud_rate("1s")])
    features = Features([entity], memory_budget=1 << 20, allowed_lateness=100, blocks=Blocks())
    got = features.update(shop_events([1_000, 1_001]))
    assert got[:, 0].tolist() == [1 / 200, 1 / 201]
    features.know(shop_events([1_002, 1_003]), 1_000)
    assert features.update(shop_events([1_005]))[:, 0].tolist() == [3 / 202]


def test_absent_keys_give_absent_features() -> None:
    """Without a merchant there is no number of frauds."""
    features = Features([SHOP], memory_budget=1 << 20, allowed_lateness=100, blocks=Blocks())
    features.know(Batch([Event(1)]), 1)
    assert np.isnan(features.update(Batch([Event(5)]))).all()


def test_frauds_are_written_at_once_and_forgotten_in_time() -> None:
    """Each cut has what became known since the last one; what payments have left behind is deleted."""
    entity = Entity("merchant", features=[fraud_count("100ms")])
    blocks = Blocks()
    features = Features([entity], memory_budget=1 << 20, allowed_lateness=100, blocks=blocks)
    for i in range(400):
        features.know(shop_events([10 * i + 500]), 10 * i)
        rows = features.cut(0, 0)
        assert rows
        assert features.cut() == []
        blocks.write(rows)
        features.written()
    # 700 ms at ten a hundred, in blocks of 16, and what is half empty at both ends.
    assert len(blocks.rows) <= 70 // 16 + 3
    assert features.oldest == features.oldest_after_cut == 0


def test_an_entity_of_fraud_counts_keeps_no_payments() -> None:
    """Nothing is asked of payments, so none are stored; with a rate they are."""
    assert split(CARD) is None
    alone, with_rate = split(PAIR), split(SHOP)
    assert alone is not None
    assert alone.payments is None
    assert with_rate is not None
    assert with_rate.payments is not None
    assert (with_rate.payments.name, with_rate.payments.keys) == (SHOP.name, SHOP.keys)


def test_names_follow_the_contract() -> None:
    """Entity, aggregate, window, delay; they stand where they are declared."""
    entity = Entity("ip", features=[fraud_rate("30d"), count("1h"), fraud_count("1d", "30d", delay="7d")])
    assert [feature.name for feature in entity.features] == [
        "ip_fraud_rate_30d",
        "ip_count_1h",
        "ip_fraud_count_1d_delay_7d",
        "ip_fraud_count_30d_delay_7d",
    ]
    assert entity["fraud_rate_30d"].name == "ip_fraud_rate_30d"
    assert repr(entity) != repr(Entity("ip", features=[fraud_rate("30d", prior=(2, 200))]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (fraud_count, "fraud_count: expected at least one window"),
        (lambda: fraud_rate(amount, "1d"), 'fraud_rate: expected windows such as "30d", got amount'),  # type: ignore[arg-type]
        (lambda: Entity("ip", features=[fraud_count("1y")]), "entity 'ip', fraud_count: Expected a duration"),
        (lambda: Entity("ip", features=[fraud_rate("1d", delay="x")]), "entity 'ip', fraud_rate: Expected"),
        (lambda: fraud_rate("1d", prior=(-1, 200)), "two numbers from 0 on"),
        (lambda: fraud_rate("1d", prior=(1, math.nan)), "two numbers from 0 on"),
        (lambda: fraud_rate("1d", prior=(1, math.inf)), "two numbers from 0 on"),
        (lambda: fraud_rate("1d", prior=0.005), "got 0.005"),  # type: ignore[arg-type]
        (lambda: fraud_rate("1d", prior=(1, 2, 3)), "two numbers from 0 on"),  # type: ignore[arg-type]
        (lambda: fraud_rate("1d", prior=("1", 2)), "two numbers from 0 on"),  # type: ignore[arg-type]
        (lambda: fraud_rate("1d", prior=(True, 2)), "two numbers from 0 on"),
        (lambda: fraud_rate("1d").before(), "never counts the payment itself; leave out .before()"),
        (
            lambda: Entity("ip", features=[fraud_rate("1d"), fraud_rate("1d", prior=(0, 1))]),
            "two features are named 'ip_fraud_rate_1d'",
        ),
        (lambda: Entity("ip", features=[fraud_count("1d", "2d", name="n")]), "write 'n_{window}'"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(build: Callable[[], object], message: str) -> None:
    """Every mistake is a TopologyError that says where and what to write."""
    with pytest.raises(TopologyError) as raised:
        build()
    assert message in str(raised.value)
