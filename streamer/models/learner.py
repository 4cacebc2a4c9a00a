"""The River side of a model: learns from labelled examples in order, and takes snapshots of itself."""

import copy
import itertools
import pickle
from collections.abc import Sequence
from importlib.metadata import version as installed
from typing import Any, Self

import numpy as np

from streamer.batch import Bool, Float64
from streamer.errors import ConfigError, StreamerError, TopologyError
from streamer.models import kernels
from streamer.models.pipelines import check_inputs, parts_of
from streamer.models.scaling import Scaling
from streamer.models.scorer import Scorer, compile_pipeline
from streamer.models.snapshot import Snapshot

RIVER = installed("river")


class Learner:
    """A River pipeline that learns; the numbers are those of its own `learn_one`, example by example.

    `name` is the model's; renaming it loses what was learned. `pipeline` is copied, with what it may already
    have learned elsewhere; one that is not supported or cannot be stored raises TopologyError. `topology` is
    the fingerprint that its snapshots carry.
    """

    def __init__(self, name: str, pipeline: object, inputs: Sequence[str], topology: str = "") -> None:
        self.name = name
        self.inputs = check_inputs(inputs)
        self.topology = topology
        self.examples = 0
        self.trained_until = 0
        self.version = 0
        self._pipeline: Any = copy.deepcopy(pipeline)
        parts = parts_of(self._pipeline)
        self._log1p = parts.log1p
        self._regression = parts.regression
        self._scaling = None if parts.scaler is None else Scaling(parts.scaler, self.inputs)
        _freeze(self._pipeline, name)

    def learn_many(self, x: Float64, y: Bool, weight: Float64 | None = None, *, until: int = 0) -> None:
        """Learn examples in order: inputs x float64 (n, k), labels y bool (n,), weights (n,) or all 1.

        Inputs that are NaN, infinite or beyond 1e150 are not given to River. `until` is the event time of the
        newest example (milliseconds since 1970 UTC).
        """
        weights = np.ones(len(x)) if weight is None else weight
        self._check(x, y, weights)
        present: Bool = np.asarray(np.abs(x) < kernels.LIMIT)  # false for NaN
        rows = np.array(x, np.float64, order="C")
        if self._log1p:
            kernels.log1p_exact(rows, present)
        if self._scaling is not None:
            self._scaling.learn_and_scale(rows, present)
        learn_one = self._regression.learn_one
        given: list[list[bool]] = present.tolist()
        whole: list[bool] = np.all(present, axis=1).tolist()
        for at, (row, label, w) in enumerate(zip(rows.tolist(), y.tolist(), weights.tolist(), strict=True)):
            pairs = zip(self.inputs, row, strict=True)
            learn_one(dict(pairs if whole[at] else itertools.compress(pairs, given[at])), label, w)
        self.examples += len(x)
        self.trained_until = max(self.trained_until, until)

    def scorer(self) -> Scorer:
        """Compile what has been learned so far; raises StreamerError if the model has diverged."""
        return compile_pipeline(self.pipeline, self.inputs)

    @property
    def pipeline(self) -> Any:
        """The River pipeline, up to date; to look at, not to teach."""
        if self._scaling is not None:
            self._scaling.write_back()
        return self._pipeline

    def snapshot(self, version: int) -> Snapshot:
        """Take a snapshot, under a version above the last one's. It changes nothing of what comes later.

        Raises StreamerError if the version does not grow, or the model has diverged.
        """
        if version <= self.version:
            raise StreamerError(
                f"Model {self.name!r}: expected a snapshot version above {self.version}, got {version}."
                " Does another learner publish the same model?"
            )
        compiled = self.scorer().compiled
        state = _freeze(self._pipeline, self.name)
        self.version = version
        return Snapshot(
            model=self.name,
            version=version,
            topology=self.topology,
            inputs=self.inputs,
            examples=self.examples,
            trained_until=self.trained_until,
            compiled=compiled,
            river=RIVER,
            learner=state,
        )

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Self:
        """Go on learning where a snapshot was taken: one from `Snapshot.decode` or from this process.

        Raises ConfigError if it holds no learner, or one of another River; its scorer works all the same.
        """
        where = f"Model {snapshot.model!r}, snapshot {snapshot.version}"
        if snapshot.learner is None:
            raise ConfigError(
                f"{where}: expected a learner to go on from, got scores only; start a new learner"
            )
        if snapshot.river != RIVER:
            raise ConfigError(
                f"{where}: expected a learner of the installed River {RIVER}, got one of"
                f" {snapshot.river}. It still scores; to go on learning `pip install"
                f" river=={snapshot.river}`, or start a new learner"
            )
        try:
            pipeline = pickle.loads(snapshot.learner)  # noqa: S301  (signed by ourselves)
        except (
            pickle.UnpicklingError,
            AttributeError,
            ImportError,
            EOFError,
            IndexError,
            TypeError,
        ) as error:
            raise ConfigError(
                f"{where}: its learner cannot be loaded: {error}. Has a class of the pipeline moved?"
                " It still scores; to go on learning put the class back, or start a new learner"
            ) from error
        learner = cls(snapshot.model, pipeline, snapshot.inputs, snapshot.topology)
        learner.examples = snapshot.examples
        learner.trained_until = snapshot.trained_until
        learner.version = snapshot.version
        return learner

    def _check(self, x: Float64, y: Bool, weights: Float64) -> None:
        if x.shape != (len(y), len(self.inputs)) or weights.shape != y.shape:
            raise ValueError(
                f"expected n rows of {len(self.inputs)} inputs, n labels and n weights, got shapes"
                f" {x.shape}, {y.shape} and {weights.shape}"
            )
        if y.dtype != np.bool_:
            raise ValueError(f"expected labels of dtype bool, got {y.dtype}")
        if not (np.isfinite(weights).all() and (weights >= 0.0).all()):
            raise ValueError(
                "expected finite weights of at least 0; one that is not would spoil the model for good"
            )


def _freeze(pipeline: object, name: str) -> bytes:
    try:
        return pickle.dumps(pipeline, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TopologyError(
            f"Model {name!r} cannot be stored: {error}. Put own losses and schedules, as classes and not"
            " lambdas, into a module that can be imported; a topology file is loaded by path and cannot"
        ) from error
