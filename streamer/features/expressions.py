"""Features of the payment itself, which need no entity, and what is often made of features."""

from dataclasses import dataclass
from typing import Final, Literal

from streamer.errors import TopologyError
from streamer.features.declarations import Binary, Derived, Expression
from streamer.features.fields import Column, Field, NumberField

QuantityName = Literal[
    "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "night", "weekend", "amount_roundness"
]


@dataclass(frozen=True, slots=True)
class Quantity(Expression):
    """A number that every payment has."""

    name: QuantityName


@dataclass(frozen=True, slots=True)
class OwnValue(Expression):
    """The payment's own value of a field of numbers, as it is kept: rounded to the field's decimals."""

    column: Column


def payment_value(field: Field) -> Derived:
    """The payment's own value of a field of numbers, as the feature `payment_<field>`; absent if none.

    It is what the aggregates see: rounded to the field's decimals, absent if too large to be summed exactly.

    >>> from streamer import amount
    >>> payment_value(amount).name
    'payment_amount'
    """
    if not isinstance(field, NumberField):
        got = f"{field.name!r}, which is text" if isinstance(field, Field) else repr(field)
        raise TopologyError(f"payment_value: expected a field of numbers such as amount, got {got}")
    return Derived(f"payment_{field.name}", OwnValue(field.column))


def zscore(x: Expression, mean: Expression | float, std: Expression | float) -> Binary:
    """How many standard deviations `x` is above `mean`; absent where `std` is 0 or anything is absent."""
    if isinstance(x, Field):
        raise TopologyError(
            f"zscore: expected a feature first, got field {x.name!r}; write payment_value({x.name})"
        )
    if not isinstance(x, Expression):
        raise TopologyError(f"zscore: expected a feature first, got {x!r}")
    return (x - mean) / std


def _quantity(name: QuantityName) -> Derived:
    return Derived(name, Quantity(name))


hour_sin: Final = _quantity("hour_sin")
"""Sine of the hour of event_time (UTC, with minutes and below as its fraction), a day being the circle."""

hour_cos: Final = _quantity("hour_cos")
"""Cosine of the same: 1 at midnight, -1 at noon."""

weekday_sin: Final = _quantity("weekday_sin")
"""Sine of the weekday of event_time (UTC, Monday 0, with the time of day as fraction), a week the circle."""

weekday_cos: Final = _quantity("weekday_cos")
"""Cosine of the same: 1 where Monday begins."""

night: Final = _quantity("night")
"""1 from 00:00 to before 06:00 UTC, else 0."""

weekend: Final = _quantity("weekend")
"""1 on Saturdays and Sundays (UTC), else 0."""

amount_roundness: Final = _quantity("amount_roundness")
"""How many zeros the amount in minor units ends in, written in decimal: 2 for 1200, 0 for 1234; 0 for 0."""
