"""Payments that are late in runs, as from a partition that is behind others: found from one another."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.batch import Float64
from streamer.features.aggregates import (
    count,
    decayed_total,
    distinct,
    entropy,
    last_values,
    maximum,
    mean,
    session_total,
    since_last,
    std,
    total,
)
from streamer.features.declarations import Entity
from streamer.features.fields import amount, merchant
from streamer.features.layout import CURSORS
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event, Oracle

LATENESS = 400
CARD = Entity(
    "card",
    features=[
        count("20ms", "100ms", "300ms"),
        count("100ms", delay="50ms"),
        total(amount, "100ms"),
        mean(amount, "300ms").before(),
        std(amount, "100ms"),
        distinct(merchant, "20ms", "300ms"),
        distinct(merchant, "100ms", delay="50ms"),
        maximum(amount, "100ms"),
        last_values(amount, 2, "100ms"),
        since_last(),
        session_total(amount, "10ms"),
        decayed_total(amount, "50ms", within="300ms"),
        entropy(merchant, "100ms"),
    ],
)


def runs(draws: random.Random, n: int, cards: int) -> list[Event]:
    """Blocks in order of time, each of which begins somewhere around where the ones before have come to.

    Now and then time makes a leap, by which old rows go.
    """
    found: list[Event] = []
    reached = 1_000_000
    while len(found) < n:
        moment = reached - draws.choice([0, 0, 10, 60, 150, 300])
        for _ in range(draws.randint(1, 25)):
            moment += draws.choice([0, 1, 1, 3, 12] * 20 + [350, 1_500])
            fields = {"card": f"c{draws.randrange(cards)}", "merchant": f"m{draws.randrange(4)}"}
            found.append(Event(moment, draws.randrange(10_000), live=draws.random() > 0.05, fields=fields))
        reached = max(reached, moment)
    return found[:n]


def answers(stream: list[Event], size: int) -> Float64:
    """The features, by batches of so many."""
    features = Features([CARD], memory_budget=1 << 20, allowed_lateness=LATENESS, blocks=Blocks())
    return np.concatenate(
        [features.update(Batch(stream[at : at + size])) for at in range(0, len(stream), size)]
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3 * CURSORS]), st.integers(100, 900))
def test_a_batch_answers_as_payments_one_by_one_do(seed: int, cards: int, n: int) -> None:
    """Of few keys and of more than are remembered, the bytes of all features."""
    stream = runs(random.Random(seed), n, cards)
    assert answers(stream, n).tobytes() == answers(stream, 1).tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_answers_as_the_definitions_do(seed: int) -> None:
    """Every feature of every payment, computed from all that came before it."""
    stream = runs(random.Random(seed), 400, 2)
    oracle = Oracle([CARD])
    want = np.array([oracle.answer(event) for event in stream], np.float64)
    np.testing.assert_allclose(answers(stream, 200), want, rtol=1e-9, atol=1e-9)
