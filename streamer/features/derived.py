"""Columns computed from the payments themselves and from other features of theirs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamer.batch import Float64, Int64
from streamer.features.columns import Columns, Prepared
from streamer.features.declarations import (
    Binary,
    Compare,
    Constant,
    Derived,
    Expression,
    FeatureRef,
    Log,
    Log1p,
)
from streamer.features.expressions import OwnValue, Quantity, QuantityName
from streamer.features.layout import MISSING

__all__ = ["Compare", "Derived", "FeatureRef", "evaluate"]

_HOUR: Final = 3_600_000
_DAY: Final = 24 * _HOUR
_MONDAY: Final = 3 * _DAY
"""From the Monday before 1970 began, which was on a Thursday."""


def evaluate(
    derived: Sequence[Derived],
    columns: Sequence[str],
    features: Float64,
    payments: Columns,
    charged: Int64,
) -> None:
    """Fill the last columns with the derived features, from the columns before; absent is NaN.

    `columns` names the columns of `features` (n, F), which are those of the n `payments`; `charged` (n,) are
    the amounts as they were charged, in minor units of their own currencies.
    """
    if not derived:
        return
    at = {name: column for column, name in enumerate(columns)}
    given = _Given(features, at, Prepared(payments), charged)
    with np.errstate(all="ignore"):
        for place, one in enumerate(derived, len(columns) - len(derived)):
            features[:, place] = _value(one.expression, given)


@dataclass(frozen=True, slots=True)
class _Given:
    """What expressions are computed from."""

    features: Float64
    at: Mapping[str, int]
    payments: Prepared
    charged: Int64


def _value(expression: Expression, given: _Given) -> Float64 | float:
    match expression:
        case Constant(value):
            return value
        case FeatureRef(name=name):
            return given.features[:, given.at[name]]
        case Derived(expression=inner):
            return _value(inner, given)
        case Log1p(operand) | Log(operand):
            function, above = (math.log1p, -1.0) if isinstance(expression, Log1p) else (math.log, 0.0)
            return _each(function, _value(operand, given), above)
        case Binary(operator, left, right):
            return _combine(operator, _value(left, given), _value(right, given))
    return _own(expression, given)


def _own(expression: Expression, given: _Given) -> Float64:
    """What the payments themselves say."""
    match expression:
        case Quantity("amount_roundness"):
            return _roundness(given.charged)
        case Quantity(name):
            return _QUANTITIES[name](given.payments.batch)
        case OwnValue(column):
            kept = given.payments.kept(column)
            return np.where(kept == MISSING, np.nan, kept / column.scale)
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


def _each(function: Callable[[float], float], given: Float64 | float, above: float = -math.inf) -> Float64:
    """The function of each value above `above`, of the others NaN.

    One by one, since numpy's own may differ in the last bit between places of a batch.
    """
    values = np.asarray(given, np.float64)
    return np.array(
        [function(value) if value > above else math.nan for value in values.reshape(-1).tolist()]
    ).reshape(values.shape)


def _of_day(payments: Columns) -> Float64:
    """How much of its day (UTC) has passed, 0 to 1."""
    return payments.event_time % _DAY / _DAY


def _of_week(payments: Columns) -> Float64:
    """How much of its week (UTC, from Monday on) has passed, 0 to 1."""
    return (payments.event_time + _MONDAY) % (7 * _DAY) / (7 * _DAY)


def _roundness(amounts: Int64) -> Float64:
    zeros = np.zeros(len(amounts))
    rest, power = np.where(amounts == 0, 1, amounts), 10
    while (round_ := rest % power == 0).any():
        zeros += round_
        power *= 10
    return zeros


_TURN: Final = 2.0 * math.pi

_QUANTITIES: Final[Mapping[QuantityName, Callable[[Columns], Float64]]] = {
    "hour_sin": lambda payments: _each(math.sin, _TURN * _of_day(payments)),
    "hour_cos": lambda payments: _each(math.cos, _TURN * _of_day(payments)),
    "weekday_sin": lambda payments: _each(math.sin, _TURN * _of_week(payments)),
    "weekday_cos": lambda payments: _each(math.cos, _TURN * _of_week(payments)),
    "night": lambda payments: (payments.event_time % _DAY < 6 * _HOUR).astype(np.float64),
    "weekend": lambda payments: ((payments.event_time + _MONDAY) % (7 * _DAY) >= 5 * _DAY).astype(np.float64),
}
