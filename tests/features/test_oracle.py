"""The oracle itself, against values worked out by hand."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamer.batch import Float64, Int64
from streamer.features.fields import Field, amount, attempt, lat, merchant
from tests.features.definitions import EXACT, TOLERANCES, Event, feature_of, tolerance

SECOND = 1_000


def wanted(kind: str, field: Field | None = None, **options: Any) -> Any:
    """What the oracle reads of a feature; of the last ten seconds unless told otherwise."""
    usual = {"window": 10 * SECOND, "delay": 0, "where": None, "before_payment": False, "unit": 1}
    given = usual | {"parameter": 0, "custom": None} | options
    return SimpleNamespace(kind=kind, column=field.column if field is not None else None, **given)


def paid(*rows: tuple[int, int], **fields: Any) -> list[Event]:
    """Payments at seconds, with amounts; all have the fields."""
    return [Event(SECOND * second, money, fields=fields) for second, money in rows]


def at(second: float, *values: str | float | None, names: str = "merchant") -> Event:
    """A payment of 100 with some fields."""
    return Event(int(SECOND * second), fields=dict(zip(names.split(), values, strict=True)))


def expect(want: float, feature: Any, events: list[Event]) -> None:
    """The last of the events, which arrived in this order, has this feature."""
    got = feature_of(feature, events[:-1], events[-1])
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


NAN = math.nan


@pytest.mark.parametrize(
    ("want", "amounts"),
    [
        # Of 1, 2, 6 the mean is 3, the squares of what they differ are 4, 1, 9, the cubes -8, -1, 27.
        (6 / (14 / 3) ** 1.5, [1, 2, 6]),
        (0.0, [1, 2, 3]),
        (NAN, [7, 7, 7]),
        (NAN, [7]),
        # Of -3/4, -3/4, -3/4, 9/4 times 10^12 / 3.
        (2 / 3**0.5, [0, 0, 0, 10**12]),
    ],
)
def test_skewness(want: float, amounts: list[int]) -> None:
    """The third central moment over the second to the power of one and a half."""
    expect(want, wanted("skewness", amount), paid(*enumerate(amounts)))


def test_last_values() -> None:
    """Counted from the latest in event time; of equal times what arrived later is later."""
    events = paid((3, 30), (1, 10), (3, 31), (2, 20), (4, 40))
    for back, want in enumerate([40.0, 31.0, 30.0, 20.0, 10.0, NAN], start=1):
        expect(want, wanted("last", amount, parameter=back), events)
    expect(40.0, wanted("last", amount), events)
    expect(31.0, wanted("last", amount, parameter=1, before_payment=True), events)


def test_late_payments_see_what_arrived_up_to_their_own_time() -> None:
    """What arrived before and happened later is not there; windows are half open; of ties it is the last."""
    events = paid((0, 1), (2, 2), (12, 3), (10, 4), (10, 5))
    expect(5.0, wanted("last", amount, parameter=1), events)
    expect(4.0, wanted("last", amount, parameter=2), events)
    expect(2.0, wanted("last", amount, parameter=3), events)
    expect(NAN, wanted("last", amount, parameter=4), events)
    expect(3.0, wanted("count"), events)
    expect(3.0, wanted("count", delay=SECOND // 2), [*events, *paid((11, 6))])


def test_novelty() -> None:
    """Whether the value occurs in the window up to the payment's time, as far as payments have arrived."""
    new = wanted("novelty", merchant)
    expect(1.0, new, [at(1, "a")])
    expect(0.0, new, [at(1, "a"), at(1, "a")])
    expect(1.0, new, [at(1, "a"), at(11, "a")])
    expect(1.0, new, [at(5, "a"), at(4, "a")])
    expect(NAN, new, [at(1, "a"), at(2, None)])
    retried = wanted("novelty", merchant, where=attempt > 1)
    tries = [at(second, "a", count, names="merchant attempt") for second, count in ((1, 1), (2, 2))]
    expect(1.0, retried, tries)
    expect(NAN, retried, tries[::-1])
    # To six decimals these are one place.
    expect(0.0, wanted("novelty", lat), [at(1, 5.0000001, names="lat"), at(2, 5.0, names="lat")])


def test_gaps() -> None:
    """Between neighbours in event time, whatever the order of arrival; one payment has none."""
    events = paid((7, 1), (1, 1), (4, 1), (8, 1))
    expect((3 + 3 + 1) / 3, wanted("mean_gap", unit=SECOND), events)
    expect(1.0, wanted("min_gap", unit=SECOND), events)
    expect(3_000.0, wanted("min_gap", before_payment=True), events)
    expect(0.0, wanted("min_gap"), [*events, *paid((8, 1))])
    for kind in ("mean_gap", "min_gap"):
        expect(NAN, wanted(kind), paid((1, 1), (11, 1)))
        expect(NAN, wanted(kind), paid((1, 1)))


def test_mode_of_numbers() -> None:
    """The most frequent; among equally frequent ones that which was seen last."""
    mode = wanted("mode", amount)
    expect(5.0, mode, paid((1, 5), (2, 5), (3, 8)))
    expect(8.0, mode, paid((1, 5), (2, 8), (2, 5), (3, 8)))
    expect(5.0, mode, paid((2, 8), (2, 5)))
    expect(9.0, mode, paid((3, 8), (1, 5), (4, 9)))
    expect(8.0, wanted("mode", amount, before_payment=True), paid((3, 8), (1, 5), (4, 9)))
    expect(NAN, wanted("mode", amount, before_payment=True), paid((3, 8)))


def test_mode_of_text() -> None:
    """Whether the payment's own value is as frequent as any."""
    usual = wanted("mode", merchant)
    seen = [at(1, "a"), at(2, "a"), at(3, "b")]
    expect(1.0, usual, [*seen, at(4, "b")])
    expect(0.0, usual, [*seen, at(4, "c")])
    expect(0.0, wanted("mode", merchant, before_payment=True), [*seen, at(4, "b")])
    expect(NAN, usual, [*seen, at(4, None)])
    expect(NAN, wanted("mode", merchant, before_payment=True), [at(4, "b")])


def test_shares_and_entropy() -> None:
    """Of a, a, b and nothing: two of three, and -(2/3 ln 2/3 + 1/3 ln 1/3)."""
    events = [at(1, "a"), at(2, None), at(3, "b"), at(4, "a")]
    expect(2 / 3, wanted("mode_share", merchant), events)
    expect(math.log(3) - 2 / 3 * math.log(2), wanted("entropy", merchant), events)
    expect(math.log(2), wanted("entropy", merchant, before_payment=True), events)
    expect(0.0, wanted("entropy", merchant), events[:1])
    for kind in ("mode_share", "entropy"):
        expect(NAN, wanted(kind, merchant), [at(1, None)])


def test_decay() -> None:
    """After a half-life a half, after two a quarter; nothing beyond `within`."""
    events = paid((0, 10**12), (6, 8), (8, 2), (10, 1))
    options = {"parameter": 2 * SECOND, "window": 10 * SECOND}
    expect(0.25 + 0.5 + 1, wanted("decayed_count", **options), events)
    expect(8 / 4 + 2 / 2 + 1, wanted("decayed_sum", amount, **options), events)
    expect(4 / 1.75, wanted("decayed_mean", amount, **options), events)
    expect(3 / 0.75, wanted("decayed_mean", amount, before_payment=True, **options), events)
    expect(10**12 / 32 + 4, wanted("decayed_sum", amount, **options | {"window": 10_001}), events)
    # As of two seconds ago: the 8 has halved, the 2 is new.
    expect(8 / 2 + 2 + 10**12 / 16, wanted("decayed_sum", amount, delay=2 * SECOND, **options), events)
    first = {"before_payment": True} | options
    expect(0.0, wanted("decayed_count", **first), events[:1])
    expect(0.0, wanted("decayed_sum", amount, **first), events[:1])
    expect(NAN, wanted("decayed_mean", amount, **first), events[:1])


@pytest.mark.parametrize(
    ("want", "q", "n"),
    [(10.0, 0.5, 20), (11.0, 0.5, 21), (19.0, 0.95, 20), (20.0, 0.96, 20), (1.0, 0.01, 20), (1.0, 0.5, 1)],
)
def test_quantile(want: float, q: float, n: int) -> None:
    """The value whose rank is q * n, rounded up; of 1 to n that is the rank itself."""
    events = [Event(1, value) for value in sorted(range(1, n + 1), key=lambda value: value * 7 % 23)]
    expect(want, wanted("quantile", amount, parameter=q), events)


def test_quantile_is_of_the_number_as_typed() -> None:
    """0.28 of 25 is 7, although 0.28 * 25 exceeds 7 in floats."""
    assert math.ceil(0.28 * 25) == 8
    events = [Event(1, value) for value in range(1, 26)]
    expect(7.0, wanted("quantile", amount, parameter=0.28), events)
    expect(NAN, wanted("quantile", amount, parameter=0.28, before_payment=True), events[:1])


def located(second: float, latitude: float | None, longitude: float | None) -> Event:
    """A payment somewhere."""
    return at(second, latitude, longitude, names="lat lon")


RADIUS = 6371.0088


@pytest.mark.parametrize(
    ("want", "one", "other"),
    [
        (0.0, (48.2, 16.37), (48.2, 16.37)),
        (RADIUS * math.pi / 2, (0.0, 0.0), (90.0, 77.0)),
        (RADIUS * math.pi / 180, (0.0, 179.5), (0.0, -179.5)),
        (RADIUS * math.pi, (30.0, 10.0), (-30.0, -170.0)),
        (RADIUS * math.pi * (1 - 2e-6 / 180), (0.0, 0.0), (0.000002, 180.0)),
        (RADIUS * math.radians(1e-6), (60.0, 5.0), (60.000001, 5.0)),
        # Of the right-angled triangle, cos c = cos a cos b.
        (RADIUS * math.acos(math.cos(math.radians(3)) * math.cos(math.radians(4))), (0.0, 0.0), (3.0, 4.0)),
    ],
)
def test_distance(want: float, one: tuple[float, float], other: tuple[float, float]) -> None:
    """Great circles: quarters, halves, over the date line, antipodes and the smallest step."""
    expect(want, wanted("distance_from_last"), [located(1, *one), located(2, *other)])


def test_distance_is_from_the_latest_place() -> None:
    """Payments without a place are passed over, later ones not seen; a tenth of a second counts as one."""
    degree = RADIUS * math.pi / 180
    away, speed = wanted("distance_from_last"), wanted("geo_velocity")
    events = [located(1, 0, 0), located(2, 0, 1), located(3, 0, None), located(5, 0, 8), located(4, 0, 3)]
    expect(2 * degree, away, events)
    expect(2 * degree / 2 * 3_600, speed, events)
    expect(degree * 3_600, speed, [located(1, 0, 0), located(1.1, 0, 1)])
    expect(degree * 3_600, speed, [located(1, 0, 0), located(1, 0, 1)])
    for feature in (away, speed):
        expect(NAN, feature, [located(1, 0, 0), located(2, None, 1)])
        expect(NAN, feature, [located(1, 0, 0), located(11, 0, 1)])
        expect(NAN, feature, [located(1, 0, 0)])


def test_sessions() -> None:
    """The run of payments that ends now, with gaps of at most two seconds, as far as the window reaches."""
    options = {"parameter": 2 * SECOND, "window": 20 * SECOND}
    events = paid((1, 1), (4, 2), (6, 4), (8, 8), (9, 16))
    expect(4.0, wanted("session_count", **options), events)
    expect(5.0, wanted("session_duration", unit=SECOND, **options), events)
    expect(30.0, wanted("session_sum", amount, **options), events)
    before = options | {"before_payment": True}
    expect(14.0, wanted("session_sum", amount, **before), events)
    # A late one joins two runs; without itself the first has ended when the gap is longer.
    expect(3.0, wanted("session_count", **options), paid((1, 1), (3, 1), (8, 1), (5, 1)))
    late = paid((1, 1), (4, 1))
    expect(1.0, wanted("session_count", **options), late)
    expect(0.0, wanted("session_count", **before), late)
    expect(0.0, wanted("session_sum", amount, **before), late)
    expect(NAN, wanted("session_duration", **before), late)
    expect(2.0, wanted("session_count", **options | {"window": 2_000}), paid((5, 1), (6, 1), (7, 1)))
    # The payment itself does not match, and the run before it is near enough.
    chosen = [at(1, 2, names="attempt"), at(2, 2, names="attempt"), at(4, 1, names="attempt")]
    expect(2.0, wanted("session_count", where=attempt > 1, **options), chosen)
    expect(3.0, wanted("session_duration", where=attempt > 1, unit=SECOND, **options), chosen)
    # What lacks the field is not of the run, so that it cannot bridge a gap.
    gapped = [at(1, 5, names="attempt"), at(3, None, names="attempt"), at(5, 7, names="attempt")]
    expect(7.0, wanted("session_sum", attempt, **options), gapped)
    expect(3.0, wanted("session_count", **options), gapped)


def test_lifetimes() -> None:
    """All that has arrived, whatever its time; a payment older than all before it is their first."""
    events = paid((100, 1), (5, 1), (200, 1), (50, 1))
    expect(4.0, wanted("lifetime_count"), events)
    expect(3.0, wanted("lifetime_count", before_payment=True), events)
    expect(45.0, wanted("lifetime_age", unit=SECOND), events)
    first = [*events, *paid((2, 1))]
    expect(0.0, wanted("lifetime_age", unit=SECOND), first)
    expect(-3.0, wanted("lifetime_age", unit=SECOND, before_payment=True), first)
    expect(NAN, wanted("lifetime_age", before_payment=True), events[:1])
    tries = [at(1, 1, names="attempt"), at(2, 2, names="attempt"), at(6, 1, names="attempt")]
    expect(1.0, wanted("lifetime_count", where=attempt > 1), tries)
    expect(4.0, wanted("lifetime_age", where=attempt > 1, unit=SECOND), tries)
    expect(NAN, wanted("lifetime_age", where=attempt > 5), tries)


class Slope:
    """Value per second from the first to now, for a test."""

    name = "slope"

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """The sum, over the time since the first."""
        assert times.dtype == np.int64
        assert values.dtype == np.float64
        return float(values.sum() / (at - times[0])) if len(times) else NAN


def test_a_users_own() -> None:
    """It is given times and values in order, of payments that have the value, and the time of this one."""
    custom = wanted("custom", lat, custom=Slope())
    events = [located(3, 4.5, 0), located(1, -2.0000004, 0), located(2, None, 0), located(5, 1.5, 0)]
    expect((4.5 - 2 + 1.5) / 4_000, custom, events)
    expect(2.5 / 4_000, wanted("custom", lat, custom=Slope(), before_payment=True), events)
    expect(NAN, wanted("custom", lat, custom=Slope(), before_payment=True), events[:1])


def test_what_is_too_large_is_missing() -> None:
    """Beyond 10^12 of the smallest unit there is no value, which then is neither counted nor a mode."""
    events = [at(1, 2e6, names="lat"), at(2, 1e6, names="lat"), at(3, 3.0, names="lat")]
    expect(1e6, wanted("last", lat, parameter=2), events)
    expect(2.0, wanted("distinct", lat), events)
    expect(0.5, wanted("mode_share", lat), events)


def test_tolerances() -> None:
    """What is exact has no tolerance of its own; the rest is held to 1e-9, quantiles to one in a hundred."""
    assert not EXACT & TOLERANCES.keys()
    assert tolerance("mean") == (1e-9, 0.0)
    assert {kind for kind in TOLERANCES if tolerance(kind)[0] > 1e-9} == {"quantile"}
