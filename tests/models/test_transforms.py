"""River transformers of our own, as River calls them."""

import math

import pytest
from river import linear_model

from streamer.models.transforms import Log1p


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e12, -1e12, 1e-12])
def test_log1p_is_mirrored(value: float) -> None:
    """The transform of -x is minus that of x, and growing."""
    transformed = Log1p().transform_one({"x": value})
    assert transformed == {"x": math.log1p(value) if value >= 0 else -math.log1p(-value)}


def test_log1p_works_in_a_pipeline() -> None:
    """It composes with `|` and leaves the example as it was."""
    pipeline = Log1p() | linear_model.LogisticRegression()
    x = {"a": 99.0}
    pipeline.learn_one(x, y=True)
    assert x == {"a": 99.0}
    assert pipeline["LogisticRegression"].weights == {"a": pytest.approx(0.01 * 0.5 * math.log(100))}
