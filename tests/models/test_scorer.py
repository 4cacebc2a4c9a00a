"""Compiled scorers by hand: single values, explanations, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from river import compose, linear_model, optim, preprocessing

from streamer.errors import StreamerError, TopologyError
from streamer.models.compiled import Compiled
from streamer.models.scorer import Scorer, compile_pipeline
from streamer.models.transforms import Log1p


def logistic(z: float) -> float:
    """Map log odds to a probability."""
    return 1 / (1 + math.exp(-z))


def test_a_score_by_hand() -> None:
    """Scaled inputs times weights plus intercept, through the logistic function."""
    scorer = Scorer(["a", "b"], Compiled((10.0, 0.0), (2.0, 1.0), (0.5, -1.0), 0.25))
    scores = scorer.score_many(np.array([[14.0, 1.0], [math.nan, 1.0], [math.nan, math.nan]]))
    assert scores.tolist() == [logistic(0.5 * 2 - 1 + 0.25), logistic(-1 + 0.25), logistic(0.25)]


def test_contributions_add_up_to_the_score() -> None:
    """The sum of a row's contributions and the intercept is the log odds of its score, bit for bit."""
    rng = np.random.default_rng(1)
    k = 37
    scorer = Scorer(
        [f"f{at}" for at in range(k)],
        Compiled(
            tuple(rng.normal(size=k)), tuple(rng.random(k)), tuple(rng.normal(size=k)), -0.5, log1p=True
        ),
    )
    x = rng.normal(size=(50, k)) * 10 ** rng.uniform(-6, 12, (50, k))
    x[rng.random(x.shape) < 0.2] = math.nan
    for parts, score in zip(
        scorer.contributions_many(x).tolist(), scorer.score_many(x).tolist(), strict=True
    ):
        z = 0.0
        for part in parts:
            z += part
        z += -0.5
        assert score == (0.0 if z < -30 else 1.0 if z > 30 else logistic(z))


def test_scores_end_where_river_ends_them() -> None:
    """Beyond log odds of 30 a score is exactly 0 or 1, as in River."""
    scorer = Scorer(["a"], Compiled((0.0,), (1.0,), (1.0,), 0.0))
    assert scorer.score_many(np.array([[30.1], [-30.1], [30.0]])).tolist() == [1.0, 0.0, logistic(30.0)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e150, -1e308])
def test_what_is_no_usable_number_is_absent(value: float) -> None:
    """Infinite and monstrous inputs count as absent, so that a score is always a number."""
    scorer = Scorer(["a", "b"], Compiled((1.0, 1.0), (2.0, 2.0), (3.0, 3.0), 0.5, log1p=True))
    x = np.array([[value, 0.0]])
    assert scorer.score_many(x).tolist() == [logistic(3 * (0 - 1) / 2 + 0.5)]
    assert scorer.contributions_many(x).tolist() == [[0.0, -1.5]]


def test_compiling_leaves_the_pipeline_alone() -> None:
    """Compiling for inputs that the scaler has never seen adds nothing to the scaler."""
    pipeline = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    compile_pipeline(pipeline, ["never", "seen"])
    assert not pipeline["StandardScaler"].means
    assert not pipeline["StandardScaler"].vars


def test_an_input_without_variance_is_silent() -> None:
    """Where all values were equal, the scaled value is 0 whatever comes, as in River."""
    pipeline = preprocessing.StandardScaler() | linear_model.LogisticRegression(intercept_lr=0.0)
    for label in (True, False, True):
        pipeline.learn_one({"same": 7.0}, label)
    pipeline["LogisticRegression"]._weights["same"] = 5.0
    assert compile_pipeline(pipeline, ["same"]).score_many(np.array([[9.0]])).tolist() == [0.5]


class OwnLoss(optim.losses.Log):
    """A loss with a mean function of its own."""

    def mean_func(self, y_pred: Any) -> Any:
        """Give the log odds back, which are no probability."""
        return y_pred


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [
        (linear_model.Perceptron(), "got Perceptron"),
        (preprocessing.StandardScaler(), "got StandardScaler"),
        (
            preprocessing.MinMaxScaler() | linear_model.LogisticRegression(),
            "got MinMaxScaler | LogisticRegression",
        ),
        (
            compose.Pipeline(preprocessing.StandardScaler(), Log1p(), linear_model.LogisticRegression()),
            "got StandardScaler | Log1p | LogisticRegression",
        ),
        (compose.Pipeline(), "got an empty one"),
        (
            preprocessing.StandardScaler(window_size=5) | linear_model.LogisticRegression(),
            "got window_size=5",
        ),
        (linear_model.LogisticRegression(loss=OwnLoss()), "got OwnLoss"),
        (linear_model.LogisticRegression(initializer=optim.initializers.Normal()), "got Normal without one"),
        ("fraud", "got str"),
    ],
)
def test_unsupported_pipelines_are_named(pipeline: object, found: str) -> None:
    """What cannot be compiled is refused, with what it is and what to use instead."""
    with pytest.raises(TopologyError) as refused:
        compile_pipeline(pipeline, ["a"])
    assert found in str(refused.value)


def test_the_supported_shapes_are_in_the_error() -> None:
    """Whoever tries another model reads which ones work."""
    with pytest.raises(TopologyError, match=r"Log1p\(\) \| preprocessing.StandardScaler\(\) \| linear_model"):
        compile_pipeline(linear_model.Perceptron(), ["a"])


def test_an_input_twice_is_refused() -> None:
    """Two columns of one name would reach River as one."""
    with pytest.raises(TopologyError, match="got 'a' twice"):
        compile_pipeline(linear_model.LogisticRegression(), ["a", "b", "a"])


@pytest.mark.parametrize(
    ("compiled", "found"),
    [
        (Compiled((0.0,), (1.0,), (math.nan,), 0.0), "got nan as weight of a"),
        (Compiled((math.inf,), (1.0,), (0.0,), 0.0), "got inf as mean of a"),
        (Compiled((0.0,), (1.0,), (0.0,), -math.inf), "got -inf as intercept"),
    ],
)
def test_a_diverged_model_does_not_score(compiled: Compiled, found: str) -> None:
    """A model whose numbers are none is refused before it can answer a payment."""
    with pytest.raises(StreamerError, match=found):
        Scorer(["a"], compiled)


def test_rows_of_another_width_are_refused() -> None:
    """Columns are by place, so their number must fit."""
    scorer = compile_pipeline(linear_model.LogisticRegression(), ["a", "b"])
    with pytest.raises(ValueError, match=r"expected rows of 2 inputs, got an array of shape \(1, 3\)"):
        scorer.score_many(np.zeros((1, 3)))
