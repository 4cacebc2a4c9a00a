"""A model as numbers: what a scorer needs and a snapshot carries."""

import math

import msgspec

from streamer.errors import StreamerError


class Compiled(msgspec.Struct, frozen=True):
    """A logistic regression with its scaling, one value per input.

    An input x contributes weight * (x' - mean) / deviation, where x' is sign(x) log(1 + abs(x)) with `log1p`
    and x without. An input whose deviation is 0 (no variance, or never seen) contributes nothing.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    log1p: bool = False

    def __post_init__(self) -> None:
        if not len(self.means) == len(self.deviations) == len(self.weights):
            raise ValueError(
                f"expected one mean, deviation and weight per input, got {len(self.means)}, "
                f"{len(self.deviations)} and {len(self.weights)}"
            )

    def check_finite(self, inputs: tuple[str, ...]) -> None:
        """Raise StreamerError for a model that has diverged: its scores would be no numbers."""
        for what, values in (("mean", self.means), ("deviation", self.deviations), ("weight", self.weights)):
            for name, value in zip(inputs, values, strict=True):
                if not math.isfinite(value):
                    raise StreamerError(_diverged(f"{what} of {name}", value))
        if not math.isfinite(self.intercept):
            raise StreamerError(_diverged("intercept", self.intercept))


def _diverged(what: str, value: float) -> str:
    return (
        f"A model has diverged: expected finite numbers, got {value} as {what}. Go back to its last snapshot,"
        " and lower the learning rate, put a StandardScaler before the regression or set clip_gradient"
    )
