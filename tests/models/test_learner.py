"""Learners by hand: the same numbers as River, isolation, restoring, and what is refused."""

import math

import msgspec
import numpy as np
import pytest
from river import linear_model, optim, preprocessing

from streamer.errors import ConfigError, StreamerError, TopologyError
from streamer.models.learner import Learner


def pipeline() -> object:
    """Declare a scaler and a regression."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def examples(n: int, k: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Heavy-tailed inputs, a tenth of them absent, with labels that depend on the first."""
    rng = np.random.default_rng(seed)
    x = np.exp(rng.normal(size=(n, k)) * 3)
    y = x[:, 0] > np.median(x[:, 0])
    x[rng.random(x.shape) < 0.1] = math.nan
    return x, y


def test_the_scaler_has_rivers_bits() -> None:
    """Counts, means and variances, weights and intercept equal those of River's own loop to the last bit."""
    x, y = examples(2000, 6)
    names = [f"f{at}" for at in range(6)]
    river = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    for row, label in zip(x.tolist(), y.tolist(), strict=True):
        river.learn_one({n: v for n, v in zip(names, row, strict=True) if not math.isnan(v)}, label)
    learner = Learner("fraud", pipeline(), names)
    learner.learn_many(x, y)
    ours = learner.pipeline
    for attribute in ("counts", "means", "vars"):
        assert getattr(ours["StandardScaler"], attribute) == getattr(river["StandardScaler"], attribute)
    assert ours["LogisticRegression"].weights == river["LogisticRegression"].weights
    assert ours["LogisticRegression"].intercept == river["LogisticRegression"].intercept


def test_the_given_pipeline_is_not_taught() -> None:
    """Two learners of one pipeline learn apart, and the declaration stays as it was."""
    declared = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    x, y = examples(20, 2)
    first, second = Learner("a", declared, ["x", "y"]), Learner("b", declared, ["x", "y"])
    first.learn_many(x, y)
    assert not declared["StandardScaler"].counts
    assert not declared["LogisticRegression"].weights
    assert second.scorer().score_many(x).tolist() == [0.5] * 20


def test_what_was_learned_elsewhere_is_kept() -> None:
    """A pipeline that was trained before goes on from there, inputs of others included."""
    trained = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    trained.learn_one({"x": 1.0, "other": 5.0}, y=True)
    trained.learn_one({"x": 3.0, "other": 6.0}, y=False)
    learner = Learner("fraud", trained, ["x"])
    learner.learn_many(np.array([[4.0]]), np.array([True]))
    trained.learn_one({"x": 4.0}, y=True)
    assert learner.pipeline["StandardScaler"].means == trained["StandardScaler"].means
    assert learner.pipeline["StandardScaler"].counts == trained["StandardScaler"].counts
    assert learner.pipeline["LogisticRegression"].weights == trained["LogisticRegression"].weights


def test_monstrous_values_do_not_spoil_the_scaler() -> None:
    """An infinite or enormous value is absent; one alone would leave nothing but NaN for good."""
    learner = Learner("fraud", pipeline(), ["x"])
    learner.learn_many(np.array([[1.0], [math.inf], [-1e200], [3.0]]), np.array([True, False, True, False]))
    assert learner.pipeline["StandardScaler"].counts == {"x": 2}
    assert learner.pipeline["StandardScaler"].means == {"x": 2.0}
    assert learner.examples == 4


def test_the_given_arrays_are_not_changed() -> None:
    """Scaling happens in a copy."""
    x, y = examples(30, 3)
    before = x.tobytes()
    Learner("fraud", pipeline(), ["a", "b", "c"]).learn_many(x, y)
    assert x.tobytes() == before


def test_a_snapshot_tells_where_it_stands() -> None:
    """Name, version, topology, inputs, examples and newest event time are in it and come back."""
    learner = Learner("fraud", pipeline(), ["a", "b"], topology="f00d")
    x, y = examples(10, 2)
    learner.learn_many(x, y, until=2000)
    learner.learn_many(x, y, until=1000)
    snapshot = learner.snapshot(4)
    assert (snapshot.model, snapshot.version, snapshot.topology) == ("fraud", 4, "f00d")
    assert (snapshot.inputs, snapshot.examples, snapshot.trained_until) == (("a", "b"), 20, 2000)
    restored = Learner.restore(snapshot)
    assert (restored.name, restored.version, restored.topology) == ("fraud", 4, "f00d")
    assert (restored.inputs, restored.examples, restored.trained_until) == (("a", "b"), 20, 2000)


def test_versions_grow() -> None:
    """The same version twice is refused, after a restore as well."""
    learner = Learner("fraud", pipeline(), ["a"])
    snapshot = learner.snapshot(3)
    for again in (learner, Learner.restore(snapshot)):
        with pytest.raises(StreamerError, match="version above 3, got 3"):
            again.snapshot(3)


def test_a_learner_of_another_river_scores_on() -> None:
    """Its state is not unpickled, the error names both versions and the remedy, and its scorer works."""
    snapshot = msgspec.structs.replace(Learner("fraud", pipeline(), ["a"]).snapshot(1), river="0.1.0")
    with pytest.raises(ConfigError, match=r"pip install river==0\.1\.0") as refused:
        Learner.restore(snapshot)
    assert str(refused.value).startswith(
        "Model 'fraud', snapshot 1: expected a learner of the installed River"
    )
    assert snapshot.scorer().score_many(np.array([[1.0]])).tolist() == [0.5]


@pytest.mark.parametrize(
    ("state", "found"),
    [(None, "got scores only"), (b"", "cannot be loaded"), (b"\x80\x05cgone\nAway\n.", "moved")],
)
def test_without_a_usable_state_nothing_is_restored(state: bytes | None, found: str) -> None:
    """A snapshot without its learner, or with one that cannot be loaded, says so."""
    snapshot = msgspec.structs.replace(Learner("fraud", pipeline(), ["a"]).snapshot(1), learner=state)
    with pytest.raises(ConfigError, match=found):
        Learner.restore(snapshot)


def test_a_pipeline_that_cannot_be_stored_is_refused_at_once() -> None:
    """A class that pickle does not find again is refused when declared, not at the first snapshot."""

    class Local(optim.losses.Log):
        """A loss nobody can import."""

    with pytest.raises(TopologyError, match="Model 'fraud' cannot be stored"):
        Learner("fraud", linear_model.LogisticRegression(loss=Local()), ["a"])


def test_a_diverged_learner_publishes_nothing() -> None:
    """A learning rate that runs away ends in an error with the remedy, not in scores that are none."""
    runaway = linear_model.LogisticRegression(optim.SGD(1e300), l2=1.0)
    learner = Learner("fraud", runaway, ["a"])
    learner.learn_many(np.full((40, 1), 1e12), np.arange(40) % 2 == 0)
    with pytest.raises(StreamerError, match="lower the learning rate"):
        learner.snapshot(1)


@pytest.mark.parametrize(
    ("x", "y", "weight", "found"),
    [
        (np.zeros((2, 3)), np.zeros(2, np.bool_), None, "rows of 2 inputs"),
        (np.zeros((2, 2)), np.zeros(3, np.bool_), None, "n labels"),
        (np.zeros((2, 2)), np.zeros(2, np.bool_), np.ones(1), "n weights"),
        (np.zeros((2, 2)), np.zeros(2), None, "dtype bool, got float64"),
        (np.zeros((2, 2)), np.zeros(2, np.bool_), np.array([1.0, math.nan]), "finite weights"),
        (np.zeros((2, 2)), np.zeros(2, np.bool_), np.array([1.0, -1.0]), "finite weights"),
    ],
)
def test_examples_must_fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, found: str) -> None:
    """Shapes, labels and weights are checked before anything is learned."""
    learner = Learner("fraud", pipeline(), ["a", "b"])
    with pytest.raises(ValueError, match=found):
        learner.learn_many(x, y, weight)
    assert learner.examples == 0
