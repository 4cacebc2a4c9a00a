"""Every supported pipeline shape through one suite: equal to River, steady bytes, safe snapshots."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, optim, preprocessing

from streamer.batch import Bool, Float64
from streamer.errors import ConfigError
from streamer.models.learner import Learner
from streamer.models.scorer import compile_pipeline
from streamer.models.snapshot import Snapshot
from streamer.models.transforms import Log1p

KEY = b"sixteen or more bytes"
INPUTS = ("amount", "count", "gap", "late")

Pipeline = Callable[[], Any]

SHAPES: dict[str, Pipeline] = {
    "regression": linear_model.LogisticRegression,
    "scaled": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    "centred": lambda: preprocessing.StandardScaler(with_std=False) | linear_model.LogisticRegression(),
    "log": lambda: Log1p() | linear_model.LogisticRegression(),
    "log scaled": lambda: Log1p() | preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    "log centred": lambda: (
        Log1p() | preprocessing.StandardScaler(with_std=False) | linear_model.LogisticRegression()
    ),
    "l1": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(l1=0.01),
    "l2": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(l2=0.01),
    "adam": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.Adam(0.1)),
    "nesterov": lambda: (
        preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.NesterovMomentum(0.05))
    ),
    "ftrl": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.FTRLProximal()),
    "schedule": lambda: (
        preprocessing.StandardScaler()
        | linear_model.LogisticRegression(optim.SGD(optim.schedulers.InverseScaling(0.5)), intercept_lr=0.3)
    ),
    "intercept": lambda: (
        preprocessing.StandardScaler()
        | linear_model.LogisticRegression(intercept_init=-4.0, intercept_lr=0.0)
    ),
    "class weights": lambda: (
        preprocessing.StandardScaler()
        | linear_model.LogisticRegression(loss=optim.losses.Log(weight_pos=9.0))
    ),
    "focal": lambda: (
        preprocessing.StandardScaler() | linear_model.LogisticRegression(loss=optim.losses.BinaryFocalLoss())
    ),
    "random weights": lambda: (
        preprocessing.StandardScaler()
        | linear_model.LogisticRegression(initializer=optim.initializers.Normal(seed=3))
    ),
}

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)

values = st.one_of(
    st.just(math.nan),
    st.integers(-3, 3).map(float),
    st.floats(-1e4, 1e4),
    st.floats(0, 1e12),
)


class Stream(msgspec.Struct):
    """Labelled examples: x (n, k) with NaN for absent, y (n,), weight (n,)."""

    x: Float64
    y: Bool
    weight: Float64


@st.composite
def streams(draw: st.DrawFn, most: int = 25) -> Stream:
    """Draw a stream, some of whose inputs may be missing throughout."""
    rows = draw(
        st.lists(
            st.tuples(*[values] * len(INPUTS), st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 7.0])),
            max_size=most,
        )
    )
    x = np.array([row[:-2] for row in rows], np.float64).reshape(-1, len(INPUTS))
    x[:, draw(st.lists(st.integers(0, len(INPUTS) - 1), max_size=2))] = math.nan
    return Stream(
        x, np.array([row[-2] for row in rows], np.bool_), np.array([row[-1] for row in rows], np.float64)
    )


def as_river(row: list[float]) -> dict[str, float]:
    """One example as River is given it: no key for what is absent."""
    return {name: value for name, value in zip(INPUTS, row, strict=True) if not math.isnan(value)}


def taught_by_river(shape: Pipeline, stream: Stream) -> Any:
    """Make the oracle: River alone, one example after the other."""
    pipeline = shape()
    for row, label, weight in zip(stream.x.tolist(), stream.y.tolist(), stream.weight.tolist(), strict=True):
        pipeline.learn_one(as_river(row), label, w=weight)
    return pipeline


def river_scores(pipeline: Any, x: Float64) -> list[float]:
    """Ask the oracle."""
    return [pipeline.predict_proba_one(as_river(row))[True] for row in x.tolist()]


def learner_of(shape: Pipeline, stream: Stream) -> Learner:
    """Teach a learner the whole stream in one batch."""
    learner = Learner("fraud", shape(), INPUTS, topology="f00d")
    learner.learn_many(stream.x, stream.y, stream.weight)
    return learner


@every_shape
@given(stream=streams(), asked=streams())
@settings(max_examples=25, deadline=None)
def test_scores_equal_river(shape: Pipeline, stream: Stream, asked: Stream) -> None:
    """A compiled scorer answers what River's predict_proba_one answers, to 1e-9, after any stream."""
    pipeline = taught_by_river(shape, stream)
    scores = compile_pipeline(pipeline, INPUTS).score_many(asked.x)
    np.testing.assert_allclose(scores, river_scores(pipeline, asked.x), rtol=0, atol=1e-9)


@every_shape
@given(stream=streams(), asked=streams(), cut=st.integers(0, 25))
@settings(max_examples=25, deadline=None)
def test_learning_equals_river(shape: Pipeline, stream: Stream, asked: Stream, cut: int) -> None:
    """A learner fed in batches answers exactly what a River pipeline fed one by one answers."""
    oracle = taught_by_river(shape, stream)
    learner = Learner("fraud", shape(), INPUTS)
    for part in (slice(None, cut), slice(cut, None)):
        learner.learn_many(stream.x[part], stream.y[part], stream.weight[part])
    assert river_scores(learner.pipeline, asked.x) == river_scores(oracle, asked.x)


@every_shape
@given(stream=streams(), asked=streams(), order=st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_bytes_are_those_of_the_row(shape: Pipeline, stream: Stream, asked: Stream, order: Any) -> None:
    """A row has the same bytes of score and contributions alone, among others, and at any place."""
    scorer = learner_of(shape, stream).scorer()
    rows = list(range(len(asked.x)))
    order.shuffle(rows)
    together, contributions = scorer.score_many(asked.x), scorer.contributions_many(asked.x)
    assert scorer.score_many(asked.x[rows]).tobytes() == together[rows].tobytes()
    assert scorer.contributions_many(asked.x[rows]).tobytes() == contributions[rows].tobytes()
    for at in rows:
        assert scorer.score_many(asked.x[at : at + 1]).tobytes() == together[at : at + 1].tobytes()


@every_shape
@given(before=streams(), after=streams(), asked=streams())
@settings(max_examples=15, deadline=None)
def test_snapshot_and_restore_change_nothing(
    shape: Pipeline, before: Stream, after: Stream, asked: Stream
) -> None:
    """A learner restored from an encoded snapshot scores and learns on as one that never stopped."""
    steady = learner_of(shape, before)
    steady.learn_many(after.x, after.y, after.weight)
    interrupted = learner_of(shape, before)
    snapshot = Snapshot.decode(interrupted.snapshot(1).encode(KEY), KEY)
    restored = Learner.restore(snapshot)
    assert restored.scorer().score_many(asked.x).tobytes() == snapshot.scorer().score_many(asked.x).tobytes()
    for learner in (interrupted, restored):
        learner.learn_many(after.x, after.y, after.weight)
        assert learner.scorer().score_many(asked.x).tobytes() == steady.scorer().score_many(asked.x).tobytes()
    assert msgspec.structs.replace(restored.snapshot(2), learner=None) == msgspec.structs.replace(
        interrupted.snapshot(2), learner=None
    )


@every_shape
@given(stream=streams(most=3), at=st.integers(min_value=0), flip=st.integers(1, 255))
@settings(max_examples=15, deadline=None)
def test_a_changed_snapshot_is_refused(shape: Pipeline, stream: Stream, at: int, flip: int) -> None:
    """Whatever byte of an encoded snapshot changes, reading it ends in an error."""
    data = bytearray(learner_of(shape, stream).snapshot(1).encode(KEY))
    data[at % len(data)] ^= flip
    with pytest.raises(ConfigError, match="Snapshot refused"):
        Snapshot.decode(bytes(data), KEY)


@every_shape
def test_never_learned_knows_nothing_but_its_intercept(shape: Pipeline) -> None:
    """Before the first example the score is that of the initial intercept."""
    expected = 1 / (1 + math.exp(4.0)) if shape is SHAPES["intercept"] else 0.5
    scorer = Learner("fraud", shape(), INPUTS).scorer()
    assert scorer.score_many(np.array([[1.0, 2.0, math.nan, -4.0]])).tolist() == [expected]
