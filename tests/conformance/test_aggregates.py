"""Every aggregate through one suite: exact on random streams, whatever the batches, budget and restarts."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.features.aggregates import (
    Aggregate,
    count,
    distinct,
    first,
    last,
    maximum,
    mean,
    minimum,
    since_first,
    since_last,
    spread,
    std,
    total,
    variance,
)
from streamer.features.declarations import Entity
from streamer.features.fields import amount, attempt, lat, merchant
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event, Oracle

WINDOWS = ("5ms", "20ms", "100ms")
FAMILIES: dict[str, list[Aggregate]] = {
    "count": [count(*WINDOWS), count("20ms").before(), count("20ms", "50ms", delay="10ms")],
    "sum": [total(amount, *WINDOWS), total(lat, "20ms"), total(amount, "20ms", delay="10ms")],
    "mean": [mean(amount, *WINDOWS), mean(amount, "20ms").before(), mean(lat, "100ms")],
    "variance": [variance(amount, *WINDOWS), variance(lat, "100ms"), variance(amount, "5ms", delay="50ms")],
    "std": [std(amount, *WINDOWS), std(amount, "20ms").before()],
    "min": [minimum(amount, *WINDOWS), minimum(amount, "20ms").before(), minimum(lat, "50ms", delay="10ms")],
    "max": [
        maximum(amount, *WINDOWS),
        maximum(amount, "20ms").before(),
        maximum(amount, "5ms", delay="50ms"),
    ],
    "range": [spread(amount, *WINDOWS), spread(amount, "20ms").before()],
    "distinct": [
        distinct(merchant, *WINDOWS),
        distinct(merchant, "20ms").before(),
        distinct(merchant, "5ms", "100ms", delay="50ms"),
        distinct(attempt, "50ms"),
    ],
    "first": [first(amount, *WINDOWS), first(amount, "20ms").before(), first(lat, "20ms", delay="10ms")],
    "last": [last(amount, *WINDOWS), last(amount, "20ms").before(), last(lat, "20ms", delay="10ms")],
    "since_last": [since_last(unit="ms"), since_last("10ms")],
    "since_first": [since_first(unit="ms"), since_first("10ms"), since_first("20ms", name="b").before()],
    "where": [
        count("20ms", where=attempt > 1, name="retries"),
        total(amount, "50ms", where=(attempt > 1) | (merchant == "m1"), name="some"),
        distinct(merchant, "30ms", where=~(attempt > 1), name="others"),
        maximum(amount, "30ms", where=merchant != "m2", name="most"),
        first(amount, "50ms", where=attempt == 1, name="opening"),
        since_last("30ms", where=merchant.isin(["m0", "m1"]), name="again"),
        std(lat, "100ms", where=(amount >= 3) & (lat < 40), name="near"),
    ],
}

amounts = st.one_of(st.integers(0, 5), st.integers(0, 10**12), st.just(10**12), st.none())
cards = st.sampled_from([None, "a", "b", "b", "c", "c", "c" * 41, "c" * 130])
steps = st.tuples(st.sampled_from([0, 0, 1, 3, 8, 40]), st.sampled_from([0, 0, 0, 0, 1, 7, 30, 120]))


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Payments of few keys: ties, late ones up to 120 ms, missing values, test payments, huge amounts."""
    keys = draw(st.sampled_from([st.just("a"), cards]))
    merchants = draw(st.sampled_from([2, 50]))
    now = 1_700_000_000_000
    events = []
    for step, late in draw(st.lists(steps, min_size=1, max_size=80)):
        now += step
        fields = {
            "card": draw(keys),
            "merchant": draw(st.one_of(st.none(), st.integers(0, merchants).map("m{}".format))),
            "attempt": draw(st.sampled_from([None, 1, 2, 3])),
            "lat": draw(st.one_of(st.none(), st.floats(-90, 90))),
        }
        events.append(Event(now - late, draw(amounts), draw(st.integers(0, 19)) > 0, fields))
    return events


def expect_equal(got: npt.NDArray[np.float64], want: list[list[float]], entity: Entity) -> None:
    """Equal to the oracle: exactly where a feature is an integer, else to 1e-9."""
    expected = np.array(want).reshape(got.shape)
    rounded = ("mean", "variance", "std")
    whole = [f.kind not in rounded and not (f.column and f.column.decimals) for f in entity.features]
    np.testing.assert_array_equal(got[:, whole], expected[:, whole])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=streams(),
    sizes=st.lists(st.integers(1, 30), min_size=80, max_size=80),
    budget=st.sampled_from([0, 1 << 20]),
    acts=st.lists(st.sampled_from(["", "cut", "write", "write", "restart"]), min_size=80, max_size=80),
)
def test_equals_brute_force(
    family: str, events: list[Event], sizes: list[int], budget: int, acts: list[str]
) -> None:
    """Each feature is what its definition says, through evictions, reloads and restarts."""
    entity = Entity("card", features=FAMILIES[family])
    oracle, blocks = Oracle([entity]), Blocks()
    features = Features([entity], memory_budget=budget, allowed_lateness=200, blocks=blocks)
    at = 0
    for size, act in zip(sizes, acts, strict=True):
        chosen = events[at : at + size]
        at += size
        if not chosen:
            break
        got = features.update(Batch(chosen))
        expect_equal(got, [oracle.answer(event) for event in chosen], entity)
        if act:
            blocks.write(features.cut())
        if act == "write":
            features.written()
        if act == "restart":
            features = Features([entity], memory_budget=budget, allowed_lateness=200, blocks=blocks)
