"""Every aggregate through one suite: exact on random streams, whatever the batches, budget and restarts."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.batch import Float64, Int64
from streamer.features.aggregates import (
    Aggregate,
    count,
    custom,
    decayed_count,
    decayed_mean,
    decayed_total,
    distance_from_last,
    distinct,
    entropy,
    first,
    geo_velocity,
    last,
    last_values,
    lifetime_age,
    lifetime_count,
    maximum,
    mean,
    mean_gap,
    min_gap,
    minimum,
    mode,
    mode_share,
    novelty,
    quantile,
    session_count,
    session_duration,
    session_total,
    since_first,
    since_last,
    skewness,
    spread,
    std,
    total,
    variance,
)
from streamer.features.declarations import Entity
from streamer.features.fields import amount, attempt, lat, merchant
from streamer.features.table import Features
from tests.features.definitions import EXACT, tolerance
from tests.features.oracle import Batch, Blocks, Event, Oracle, Value

LATENESS = 200
"""How late a payment may be, in ms."""

WINDOWS = ("5ms", "20ms", "100ms")


class Fading:
    """A user's own aggregate: what the values sum to when each is divided by its age."""

    name = "fading"

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """Absent where there is none."""
        return float(np.sum(values / (1 + at - times))) if len(values) else float("nan")


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
    "skewness": [
        skewness(amount, *WINDOWS),
        skewness(amount, "20ms").before(),
        skewness(amount, "20ms", delay="10ms"),
        skewness(lat, "100ms"),
        skewness(amount, "50ms", where=attempt > 1, name="lopsided"),
    ],
    "last_values": [
        last_values(amount, 3, *WINDOWS),
        last_values(amount, 2, "20ms").before(),
        last_values(lat, 2, "20ms", delay="10ms"),
        last_values(amount, 1, "50ms", where=attempt > 1, name="latest"),
        last(amount, "20ms"),
    ],
    "novelty": [
        novelty(merchant),
        novelty(merchant, *WINDOWS),
        novelty(attempt, "20ms"),
        novelty(lat, "100ms"),
        novelty(merchant, "50ms", where=attempt > 1, name="new"),
    ],
    "mean_gap": [
        mean_gap(*WINDOWS, unit="ms"),
        mean_gap("20ms").before(),
        mean_gap("20ms", unit="h", delay="10ms"),
        mean_gap("100ms", where=merchant != "m1", name="pace"),
    ],
    "min_gap": [
        min_gap(*WINDOWS, unit="ms"),
        min_gap("20ms").before(),
        min_gap("100ms", unit="ms", where=merchant == "m1", name="rush"),
    ],
    "mode": [
        mode(amount, *WINDOWS),
        mode(amount, "20ms").before(),
        mode(attempt, "20ms", "100ms", delay="10ms"),
        mode(lat, "100ms"),
        mode(attempt, "50ms", where=merchant == "m1", name="usual"),
    ],
    "mode of text": [
        mode(merchant, *WINDOWS),
        mode(merchant, "20ms").before(),
        mode(merchant, "20ms", "100ms", delay="10ms"),
        mode(merchant, "50ms", where=attempt > 1, name="favourite"),
    ],
    "mode_share": [
        mode_share(merchant, *WINDOWS),
        mode_share(merchant, "20ms").before(),
        mode_share(attempt, "20ms", "100ms", delay="10ms"),
        mode_share(amount, "50ms", where=attempt > 1, name="loyalty"),
    ],
    "entropy": [
        entropy(merchant, *WINDOWS),
        entropy(merchant, "20ms").before(),
        entropy(attempt, "20ms", "100ms", delay="10ms"),
        entropy(amount, "50ms", where=attempt > 1, name="variety"),
    ],
    "decayed_count": [
        decayed_count("1ms", "5ms", "20ms"),
        decayed_count("5ms").before(),
        decayed_count("5ms", delay="10ms"),
        decayed_count("100ms", within="20ms"),
        decayed_count("3ms", within="120ms", where=attempt > 1, name="recent"),
    ],
    "decayed_sum": [
        decayed_total(amount, "1ms", "5ms", "20ms"),
        decayed_total(amount, "5ms").before(),
        decayed_total(amount, "5ms", delay="10ms"),
        decayed_total(amount, "100ms", within="20ms"),
        decayed_total(lat, "20ms"),
        decayed_total(amount, "3ms", within="120ms", where=attempt > 1, name="recent"),
    ],
    "decayed_mean": [
        decayed_mean(amount, "1ms", "5ms", "20ms"),
        decayed_mean(amount, "5ms").before(),
        decayed_mean(amount, "5ms", delay="10ms"),
        decayed_mean(amount, "100ms", within="20ms"),
        decayed_mean(lat, "20ms"),
        decayed_mean(amount, "3ms", within="120ms", where=attempt > 1, name="recent"),
    ],
    "quantile": [
        quantile(amount, 0.5, *WINDOWS),
        quantile(amount, 0.95, *WINDOWS),
        quantile(amount, 0.01, "100ms"),
        quantile(amount, 0.28, "100ms"),
        quantile(amount, 0.5, "20ms").before(),
        quantile(amount, 0.95, "20ms", delay="10ms"),
        quantile(lat, 0.5, "100ms"),
        quantile(amount, 0.9, "50ms", where=attempt > 1, name="dear"),
    ],
    "distance_from_last": [
        distance_from_last(),
        distance_from_last(*WINDOWS),
        distance_from_last("50ms", where=attempt > 1, name="away"),
    ],
    "geo_velocity": [
        geo_velocity(),
        geo_velocity(*WINDOWS, "5s"),
        geo_velocity("50ms", where=attempt > 1, name="speed"),
    ],
    "session": [
        count("100ms"),
        session_count("1ms"),
        session_count("8ms"),
        session_count("8ms").before(),
        session_count("8ms", where=attempt > 1, name="tries"),
        session_duration("8ms", unit="ms"),
        session_duration("40ms").before(),
        session_duration("8ms", where=merchant != "m1", name="stay"),
        session_total(amount, "1ms"),
        session_total(amount, "8ms"),
        session_total(amount, "8ms").before(),
        session_total(lat, "8ms"),
        session_total(amount, "8ms", where=attempt > 1, name="basket"),
    ],
    "lifetime": [
        lifetime_count(),
        lifetime_count().before(),
        lifetime_count(where=(attempt > 1) & (merchant != "m1"), name="retries"),
        lifetime_age(unit="ms"),
        lifetime_age().before(),
        lifetime_age(unit="d", where=attempt > 1, name="since_retry"),
        count("5ms"),
    ],
    "custom": [
        custom(Fading(), amount, *WINDOWS),
        custom(Fading(), amount, "20ms").before(),
        custom(Fading(), amount, "20ms", delay="10ms"),
        custom(Fading(), attempt, "50ms", where=merchant != "m1", name="faded"),
    ],
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
steps = st.sampled_from([0, 0, 0, 0, 1, 1, 3, 3, 8, 8, 40, 40, 1_500])
lateness = st.sampled_from([0, 0, 0, 0, 1, 7, 30, 120, LATENESS])
# A few places come again; others may be anywhere, antipodes included.
latitudes = st.one_of(st.sampled_from([-33.8688, 0.0, 51.5]), st.floats(-90, 90))
longitudes = st.one_of(st.sampled_from([-180.0, 0.0, 151.2093]), st.floats(-180, 180))


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Payments of few keys: ties, late ones, missing values, test payments, huge amounts."""
    keys = draw(st.sampled_from([st.just("a"), cards]))
    merchants = draw(st.sampled_from([2, 50]))
    now = 1_700_000_000_000
    events = []
    # A list strategy would mostly draw five or six, which no block and no window notices.
    for _ in range(draw(st.integers(1, 80))):
        now += draw(steps)
        fields: dict[str, Value] = {
            "card": draw(keys),
            "merchant": f"m{draw(st.integers(0, merchants))}",
            "attempt": draw(st.sampled_from([None, 1, 2, 3])),
            "lat": draw(latitudes),
            "lon": draw(longitudes),
        }
        missing = draw(st.sampled_from(["", "", "", "merchant", "lat", "lon"]))
        fields = {name: None if name == missing else value for name, value in fields.items()}
        live = draw(st.integers(0, 19)) > 0
        events.append(Event(now - draw(lateness), draw(amounts), live, fields))
    return events


def expect_equal(got: npt.NDArray[np.float64], want: list[list[float]], entity: Entity) -> None:
    """Equal to the oracle: exactly where a feature is an integer, else as near as its kind is to be."""
    expected = np.array(want).reshape(got.shape)
    for column, feature in enumerate(entity.features):
        whole = feature.kind in EXACT and not (feature.column and feature.column.decimals)
        relative, absolute = (0.0, 0.0) if whole else tolerance(feature.kind)
        np.testing.assert_allclose(
            got[:, column], expected[:, column], rtol=relative, atol=absolute, err_msg=feature.name
        )


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
    features = Features([entity], memory_budget=budget, allowed_lateness=LATENESS, blocks=blocks)
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
            features = Features([entity], memory_budget=budget, allowed_lateness=LATENESS, blocks=blocks)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_of_a_huge_amount(family: str) -> None:
    """What the greatest amounts did to sums, squares and cubes is gone when they have left, late ones too."""
    entity = Entity("card", features=FAMILIES[family])
    oracle = Oracle([entity])
    features = Features([entity], memory_budget=1 << 20, allowed_lateness=LATENESS, blocks=Blocks())
    small = [3, 1, 4, 1, 5, 9, 2, 6]
    events = []
    for number in range(240):
        huge, late = number % 48 in {0, 1, 7}, number % 24 == 7
        fields = {
            "card": "c",
            "merchant": f"m{number % 5 % 3}",
            "attempt": 1 + number % 3,
            "lat": 50 + number % 7 / 1_000,
            "lon": 4 + number % 11 / 1_000,
        }
        time = 1_000_000 + 4 * number - 90 * late
        events.append(Event(time, 10**12 - number if huge else small[number % 8], fields=fields))
    expect_equal(features.update(Batch(events)), [oracle.answer(event) for event in events], entity)
