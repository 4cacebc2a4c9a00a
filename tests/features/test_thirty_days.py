"""Half a million payments of thirty days, one in a hundred late, feature by feature."""

import numpy as np
import pytest

from streamer.batch import Int64
from streamer.features.aggregates import Aggregate, count, distinct, maximum, mean, minimum, std, total
from streamer.features.declarations import Entity
from streamer.features.fields import TextField, amount, card, device, merchant
from tests.features.arrays import Stream, answers
from tests.features.sweeps import Span, Sweep

PAYMENTS = 510_000
HOUR = 3_600_000
DAY = 24 * HOUR
ALLOWED_LATENESS = 7 * DAY


def family(other: TextField) -> list[Aggregate]:
    """Every aggregate over several windows, without the payment, and some time ago."""
    windows, ago = ("1h", "7d", "30d"), "6h"
    found = [count(*windows), count("7d").before(), count("1d", delay=ago)]
    found += [distinct(other, *windows), distinct(other, "7d").before(), distinct(other, "1d", delay=ago)]
    for aggregate in (total, mean, std, maximum, minimum):
        found += [aggregate(amount, *windows), aggregate(amount, "7d").before()]
        found.append(aggregate(amount, "1d", delay=ago))
    return found


ENTITIES = [
    Entity("card", features=[*family(merchant), distinct(device, "7d")]),
    Entity("merchant", features=family(card)),
    Entity("device", features=family(card)),
]


def choose(source: np.random.Generator, n: int, evenness: float) -> Int64:
    """One of n for every payment, the first ones more often."""
    weights = np.arange(1, n + 1) ** -evenness
    return source.choice(n, PAYMENTS, p=weights / weights.sum())


def thirty_days() -> Stream:
    """Ties, huge amounts, test payments, absent devices; late by hours, some by days, some repeat a time."""
    source = np.random.default_rng(30)
    time = np.sort(source.integers(0, 30 * DAY, PAYMENTS)) + 1_700_000_000_000
    tied = np.flatnonzero(source.random(PAYMENTS - 1) < 0.1) + 1
    time[tied] = time[tied - 1]
    texts = {"card": choose(source, 20_000, 0.5), "merchant": choose(source, 2_000, 0.7)}
    texts["device"] = np.where(source.random(PAYMENTS) < 0.05, -1, choose(source, 15_000, 0.3))
    # Half of the ties are of one card, merchant and device, as are those with an earlier time below.
    for column in texts.values():
        column[tied[::2]] = column[tied[::2] - 1]
    late = source.choice(PAYMENTS, PAYMENTS // 100, replace=False)
    hours = source.exponential(2 * HOUR, len(late)) + np.where(
        source.random(len(late)) < 0.1, source.uniform(0, 6 * DAY, len(late)), 0
    )
    again, once = np.split(late, [len(late) // 4])
    earlier = np.maximum(again - source.integers(1, 20_000, len(again)), 0)
    for column in texts.values():
        column[again] = column[earlier]
    shifted = time.copy()
    shifted[once] -= np.minimum(hours[len(again) :].astype(np.int64) + 1, ALLOWED_LATENESS)
    shifted[again] = time[earlier]
    money = source.lognormal(8, 1.5, PAYMENTS).astype(np.int64)
    money[source.random(PAYMENTS) < 0.0005] = 10**12
    return Stream(shifted, money, source.random(PAYMENTS) > 0.01, texts)


@pytest.fixture(scope="module")
def stream() -> Stream:
    """The payments, about one in a hundred of them late, some by days."""
    payments = thirty_days()
    lateness = np.maximum.accumulate(payments.event_time) - payments.event_time
    assert 0.009 < (lateness > 0).mean() < 0.011
    assert (lateness > DAY).sum() > 300
    assert lateness.max() <= ALLOWED_LATENESS
    return payments


def test_thirty_days_feature_by_feature(stream: Stream) -> None:
    """Every feature of every payment is what sorting and searching the whole stream gives."""
    got = answers(stream, ENTITIES, size=1_000, allowed_lateness=ALLOWED_LATENESS, memory_budget=100_000_000)
    column = 0
    for entity in ENTITIES:
        sweep = Sweep(stream, entity)
        spans: dict[tuple[int, int, bool], Span] = {}
        for feature in entity.features:
            window = (feature.window, feature.delay, feature.before_payment)
            span = spans.get(window) or spans.setdefault(window, sweep.span(feature))
            want = np.full(len(stream), np.nan)
            want[sweep.order] = sweep.feature(feature, span)
            tolerance = 1e-9 if feature.kind in {"mean", "std"} else 0
            np.testing.assert_allclose(got[:, column], want, rtol=tolerance, atol=0, err_msg=feature.name)
            column += 1
    assert column == got.shape[1]
