"""Scores rows of inputs with a River pipeline compiled to arrays."""

from collections.abc import Sequence

import numpy as np

from streamer.batch import Float64
from streamer.models import kernels
from streamer.models.compiled import Compiled
from streamer.models.pipelines import check_inputs, parts_of


class Scorer:
    """A model at one version; immutable, and safe to use from several threads.

    A score equals `predict_proba_one(x)[True]` of the pipeline to 1e-9. Inputs that are NaN, infinite or
    beyond 1e150 are absent: River would not be given their key. The bytes of a score depend on its row alone.
    """

    def __init__(self, inputs: Sequence[str], compiled: Compiled) -> None:
        self.inputs = check_inputs(inputs)
        self.compiled = compiled
        compiled.check_finite(self.inputs)
        self._scaling = np.array([compiled.means, compiled.deviations, compiled.weights], np.float64)
        silent = self._scaling[1] == 0.0
        self._scaling[1, silent] = 1.0
        self._scaling[2, silent] = 0.0
        self._intercept = float(compiled.intercept)
        # An empty batch loads the kernels now, so that the first payment does not wait for them.
        self.score_many(np.empty((0, len(self.inputs))))

    def score_many(self, x: Float64) -> Float64:
        """Score rows: x float64 (n, k), columns in the order of `inputs`; gives probabilities, float64 (n,).

        >>> scorer = Scorer(["amount"], Compiled((5.0,), (2.0,), (1.0,), 0.0))
        >>> scorer.score_many(np.array([[5.0], [7.0], [np.nan]])).round(4).tolist()
        [0.5, 0.7311, 0.5]
        """
        out = np.empty(len(x))
        kernels.score(self._rows(x), self.compiled.log1p, self._scaling, self._intercept, out)
        return out

    def contributions_many(self, x: Float64) -> Float64:
        """Explain rows: what each input adds to the log odds, weight times scaled value; float64 (n, k).

        An absent input adds 0. The sum of a row, in order, plus the intercept is the log odds of its score.
        """
        rows = self._rows(x)
        out = np.empty_like(rows)
        kernels.contribute(rows, self.compiled.log1p, self._scaling, out)
        return out

    def _rows(self, x: Float64) -> Float64:
        if x.ndim != 2 or x.shape[1] != len(self.inputs):
            raise ValueError(f"expected rows of {len(self.inputs)} inputs, got an array of shape {x.shape}")
        # One layout, or numba compiles a kernel anew for each of them: seconds, in the middle of the stream.
        return np.require(x, np.float64, ("C", "W"))


def compile_pipeline(pipeline: object, inputs: Sequence[str]) -> Scorer:
    """Compile a River pipeline as it is now; later learning does not change the scorer.

    Raises TopologyError if the pipeline is not supported, and StreamerError if the model has diverged.

    >>> from river import linear_model
    >>> compile_pipeline(linear_model.LogisticRegression(), ["amount"]).score_many(np.array([[3.0]])).tolist()
    [0.5]
    """
    names = check_inputs(inputs)
    parts = parts_of(pipeline)
    # .get, because indexing a defaultdict would add to the learner's state.
    means, deviations = [0.0] * len(names), [1.0] * len(names)
    if parts.scaler is not None:
        means = [float(parts.scaler.means.get(name, 0.0)) for name in names]
        if parts.scaler.with_std:
            deviations = [float(parts.scaler.vars.get(name, 0.0)) ** 0.5 for name in names]
    weights = parts.regression.weights
    compiled = Compiled(
        tuple(means),
        tuple(deviations),
        tuple(float(weights.get(name, 0.0)) for name in names),
        float(parts.regression.intercept),
        parts.log1p,
    )
    return Scorer(names, compiled)
