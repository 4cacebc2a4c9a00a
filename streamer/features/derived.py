"""Columns computed from other features of the same payments."""

from collections.abc import Mapping, Sequence

import numpy as np

from streamer.batch import Float64
from streamer.features.declarations import Binary, Compare, Constant, Derived, Expression, FeatureRef, Log1p

__all__ = ["Compare", "Derived", "FeatureRef", "evaluate"]


def evaluate(derived: Sequence[Derived], columns: Sequence[str], features: Float64, first: int) -> None:
    """Fill the columns from `first` on with the derived features, from the columns before; absent is NaN.

    `columns` names the columns of `features` (n, F).
    """
    at = {name: column for column, name in enumerate(columns)}
    with np.errstate(all="ignore"):
        for place, one in enumerate(derived, first):
            features[:, place] = _value(one.expression, at, features)


def _value(expression: Expression, at: Mapping[str, int], features: Float64) -> Float64 | float:
    match expression:
        case Constant(value):
            return value
        case FeatureRef(name=name):
            return features[:, at[name]]
        case Derived(expression=inner):
            return _value(inner, at, features)
        case Log1p(operand):
            x = np.asarray(_value(operand, at, features), np.float64)
            return np.where(x > -1.0, np.log1p(x), np.nan)
        case Binary(operator, left, right):
            return _combine(operator, _value(left, at, features), _value(right, at, features))
    raise TypeError(f"expected an expression over features, got {expression!r}")


def _combine(operator: str, left: Float64 | float, right: Float64 | float) -> Float64 | float:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    denominator = np.asarray(right, np.float64)
    return np.where(denominator != 0.0, np.divide(left, denominator), np.nan)
