"""River transformers of our own, for pipelines that compile."""

import math
from collections.abc import Hashable
from typing import Any

from river import base


class Log1p(base.Transformer):
    """Take log(1 + x), mirrored for negative values: heavy-tailed counts and sums become comparable.

    It learns nothing. Use it before a scaler: `Log1p() | StandardScaler() | LogisticRegression()`.

    >>> Log1p().transform_one({"sum": 99.0, "difference": -99.0, "none": 0.0})
    {'sum': 4.605170185988092, 'difference': -4.605170185988092, 'none': 0.0}
    """

    def transform_one(self, x: dict[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the values of one example; names stay."""
        return {name: math.copysign(math.log1p(abs(value)), value) for name, value in x.items()}
