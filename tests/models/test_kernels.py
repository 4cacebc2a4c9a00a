"""The compiled loops against the standard library."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import preprocessing

from streamer.models import kernels
from streamer.models.compiled import Compiled
from streamer.models.scorer import Scorer


def log1p(values: list[float]) -> list[float]:
    """Take the vectorised log1p: contributions of weight 1."""
    n = len(values)
    scorer = Scorer(
        [str(at) for at in range(n)], Compiled((0.0,) * n, (1.0,) * n, (1.0,) * n, 0.0, log1p=True)
    )
    contributions: list[float] = scorer.contributions_many(np.array([values]))[0].tolist()
    return contributions


@given(st.lists(st.floats(-1e149, 1e149), min_size=1, max_size=20))
def test_log1p_equals_the_standard_library(values: list[float]) -> None:
    """The vectorised log1p agrees with math.log1p to a few units in the last place, at any magnitude."""
    expected = [math.copysign(math.log1p(abs(value)), value) for value in values]
    assert log1p(values) == pytest.approx(expected, rel=1e-15, abs=0)


def test_log1p_at_its_edges() -> None:
    """Zero, the smallest numbers, powers of two and the switch of the mantissa's range."""
    values = [
        0.0,
        5e-324,
        2.0**-60,
        2.0**-53,
        2.0**-52,
        math.sqrt(2) - 1,
        0.5,
        1.0,
        2.0**52,
        2.0**53,
        2.0**60,
        1e149,
    ]
    assert log1p(values) == pytest.approx([math.log1p(value) for value in values], rel=1e-15, abs=0)


def test_scaled_values_have_rivers_bits() -> None:
    """Every scaled value is the one River's StandardScaler gives after learning its row, to the last bit."""
    rng = np.random.default_rng(5)
    x = np.exp(rng.normal(size=(3000, 8)) * 3)
    river: Any = preprocessing.StandardScaler()
    expected = []
    for row in x.tolist():
        example = dict(enumerate(row))
        river.learn_one(example)
        expected.append(list(river.transform_one(example).values()))
    present = np.ones(x.shape, np.bool_)
    kernels.learn_scale(x, present, np.zeros(8, np.int64), np.zeros(8), np.zeros(8), 0.5)
    assert x.tolist() == expected


def test_a_kernel_compiles_once() -> None:
    """Other layouts and read-only arrays of inputs use the kernel that is there, not a new one of seconds."""
    scorer = Scorer(["a", "b"], Compiled((0.0, 0.0), (1.0, 1.0), (1.0, 1.0), 0.0))
    frozen = np.ones((3, 2))
    frozen.setflags(write=False)
    for x in (
        frozen,
        np.asfortranarray(np.ones((3, 2))),
        np.ones((3, 4))[:, ::2],
    ):
        scorer.score_many(x)
        scorer.contributions_many(x)
    assert len(kernels.score.signatures) == 1
    assert len(kernels.contribute.signatures) == 1
