"""Which River pipelines are supported, and what their parts are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from river import compose, linear_model, optim, preprocessing

from streamer.errors import TopologyError
from streamer.models.transforms import Log1p

SUPPORTED = (
    "Supported is `Log1p() | preprocessing.StandardScaler() | linear_model.LogisticRegression(...)`; Log1p"
    " and the scaler may be left out"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The steps of a supported pipeline; the River objects themselves, not copies."""

    log1p: bool
    scaler: Any | None
    regression: Any


def parts_of(pipeline: object) -> Parts:
    """Take a pipeline apart; raises TopologyError if it, or an option of a step, is not supported.

    >>> parts_of(linear_model.LogisticRegression()).log1p
    False
    """
    steps: list[Any] = list(pipeline.steps.values()) if type(pipeline) is compose.Pipeline else [pipeline]
    left = list(steps)
    # type() and not isinstance: a subclass may override what the compiled arrays would not follow.
    log1p = bool(left) and type(left[0]) is Log1p
    left = left[1:] if log1p else left
    scaler = left[0] if left and type(left[0]) is preprocessing.StandardScaler else None
    left = left if scaler is None else left[1:]
    if len(left) != 1 or type(left[0]) is not linear_model.LogisticRegression:
        shape = " | ".join(type(step).__name__ for step in steps) or "an empty one"
        raise TopologyError(
            f"A model cannot be compiled: expected a supported pipeline, got {shape}. {SUPPORTED}"
        )
    _check_options(scaler, left[0])
    return Parts(log1p, scaler, left[0])


def check_inputs(inputs: Sequence[str]) -> tuple[str, ...]:
    """Return the names of inputs as a tuple, or say which one is there twice."""
    names = tuple(inputs)
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise TopologyError(f"A model's inputs must differ, got {twice!r} twice; list every feature once")
    return names


def _check_options(scaler: Any | None, regression: Any) -> None:
    if scaler is not None and scaler.window_size is not None:
        raise TopologyError(
            f"A model cannot be compiled: expected StandardScaler without window_size, got"
            f" window_size={scaler.window_size}. Leave it out: the mean and variance of all examples are used"
        )
    if type(regression.loss).mean_func is not optim.losses.BinaryLoss.mean_func:
        raise TopologyError(
            f"A model cannot be compiled: expected a loss with River's logistic mean function, got"
            f" {type(regression.loss).__name__} with one of its own. Use optim.losses.Log()"
        )
    if getattr(regression.initializer, "seed", 0) is None:
        raise TopologyError(
            f"A model must learn the same twice: expected a seed, got"
            f" {type(regression.initializer).__name__} without one. Add seed=1 to it"
        )
