"""What a feature means, in one sentence; by it a feature is also told from another one of its name."""

from collections.abc import Mapping
from typing import Final

from streamer.features.aggregate import SESSIONS, Feature
from streamer.features.declarations import Binary, Constant, Derived, Expression, FeatureRef, Log, Log1p
from streamer.features.expressions import OwnValue, Quantity
from streamer.features.fields import Both, Either, Known, Not, Test, Where
from streamer.units import format_duration

KINDS: Final[Mapping[str, str]] = {
    "count": "number of payments",
    "sum": "sum of {field}",
    "mean": "mean of {field}",
    "variance": "population variance of {field}",
    "std": "population standard deviation of {field}",
    "skewness": "population skewness of {field}",
    "min": "least {field}",
    "max": "greatest {field}",
    "range": "greatest minus least {field}",
    "distinct": "number of different values of {field}",
    "first": "earliest {field}",
    "last": "latest {field}",
    "since_last": "{unit} since the latest payment",
    "since_first": "{unit} since the earliest payment",
    "novelty": "1 if the payment's {field} is new, else 0,",
    "mean_gap": "mean {unit} between payments",
    "min_gap": "least {unit} between payments",
    "mode": "most frequent {field}",
    "mode_share": "share of the most frequent {field}",
    "entropy": "entropy of {field} in nats",
    "distance_from_last": "kilometres from the latest payment",
    "geo_velocity": "kilometres per hour from the latest payment",
    "session_count": "number of payments of the session",
    "session_duration": "{unit} since the session's first payment",
    "session_sum": "sum of {field} of the session",
    "lifetime_count": "number of payments",
    "lifetime_age": "{unit} since the earliest payment",
    "quantile": "{parameter}-quantile of {field}, within 1 %,",
    "decayed_count": "number of payments, each halved every {duration},",
    "decayed_sum": "sum of {field}, each halved every {duration},",
    "decayed_mean": "mean of {field}, weights halved every {duration},",
    "custom": "{custom} of {field}",
    "fraud_count": "number of payments that became known as fraud",
    "fraud_rate": "share of payments that became known as fraud",
}
"""By kind of feature; a kind that is not here is called by its name."""

ALONE: Final = frozenset({"since_last", "novelty", "distance_from_last", "geo_velocity"})
"""Kinds that compare the payment with others, so that it is not one of them."""

EVER: Final = frozenset({"lifetime_count", "lifetime_age"})
"""Kinds without a window."""

QUANTITIES: Final[Mapping[str, str]] = {
    "hour_sin": "sine of the UTC hour of the day",
    "hour_cos": "cosine of the UTC hour of the day",
    "weekday_sin": "sine of the UTC day of the week",
    "weekday_cos": "cosine of the UTC day of the week",
    "night": "1 before 06:00 UTC, else 0",
    "weekend": "1 on Saturday and Sunday UTC, else 0",
    "amount_roundness": "number of zeros that the amount in minor units ends in",
}
"""What the payment itself says."""

_UNITS: Final = {
    1: "milliseconds",
    1_000: "seconds",
    60_000: "minutes",
    3_600_000: "hours",
    86_400_000: "days",
}


def meaning_of(feature: Feature) -> str:
    """The sentence for a feature of an entity.

    >>> from streamer import Entity, amount, total
    >>> meaning_of(Entity("card", features=[total(amount, "1h")]).features[0])
    'sum of amount over (t - 1h, t], the payment included'
    """
    field = feature.column.name if feature.column else ""
    default = feature.kind.replace("_", " ") + (" of {field}" if field else "")
    duration = format_duration(int(feature.parameter)) if feature.parameter >= 1.0 else ""
    what = KINDS.get(feature.kind, default).format(
        field=field,
        unit=_UNITS[feature.unit],
        parameter=feature.parameter,
        duration=duration,
        custom=feature.custom.name if feature.custom is not None else "",
    )
    if feature.kind in SESSIONS:
        what += f" (gaps up to {duration})"
    if feature.kind == "last" and feature.parameter > 1:
        what = f"{field} {feature.parameter:g} from the latest"
    end = f"t - {format_duration(feature.delay)}" if feature.delay else "t"
    start = f"t - {format_duration(feature.delay + feature.window)}"
    parts = [f"{what} ever" if feature.kind in EVER else f"{what} over ({start}, {end}]"]
    if feature.before_payment or feature.kind in ALONE:
        parts.append("without the payment")
    elif not feature.delay:
        parts.append("the payment included")
    if feature.where is not None:
        parts.append(f"where {condition(feature.where)}")
    return ", ".join(parts)


def formula(expression: Expression) -> str:
    """The sentence for a derived feature.

    >>> from streamer import Entity, amount, count, payment_value
    >>> card = Entity("card", features=[count("1h")])
    >>> formula((payment_value(amount) / (card["count_1h"] + 1)).log1p())
    'log1p(payment_amount / (card_count_1h + 1))'
    """
    match expression:
        case Quantity(name):
            return QUANTITIES[name]
        case OwnValue(column):
            return f"the payment's own {column.name}"
        case Derived(expression=inner):
            return formula(inner)
    return _bare(expression)


def _bare(expression: Expression) -> str:
    """Without parentheses around all of it."""
    text = _operand(expression)
    return text[1:-1] if text.startswith("(") else text


def _operand(expression: Expression) -> str:
    match expression:
        case Constant(value):
            return repr(value).removesuffix(".0")
        case FeatureRef(name=name) | Derived(name=name, expression=Quantity() | OwnValue()):
            return name
        case Derived(expression=inner):
            return _operand(inner)
        case Log1p(operand):
            return f"log1p({_bare(operand)})"
        case Log(operand):
            return f"log({_bare(operand)})"
        case Binary(operator, left, right):
            return f"({_operand(left)} {operator} {_operand(right)})"
    raise TypeError(f"expected an expression over features, got {expression!r}")


def condition(where: Where) -> str:
    """A condition as it is written.

    >>> from streamer import attempt, currency
    >>> condition((attempt > 1) & ~currency.isin(["EUR", "USD"]))
    "attempt > 1 and not (currency is one of 'EUR', 'USD')"
    """
    match where:
        case Both(left, right):
            return f"{_part(left)} and {_part(right)}"
        case Either(left, right):
            return f"{_part(left)} or {_part(right)}"
        case Not(inner):
            return f"not ({condition(inner)})"
        case Known(column):
            return f"{column.name} is known"
        case Test(column, "==", values) if len(values) != 1:
            return f"{column.name} is one of {', '.join(map(repr, values))}"
        case Test(column, operator, (value,)):
            return f"{column.name} {operator} {value!r}"
    raise TypeError(f"expected a condition on payments, got {where!r}")


def _part(where: Where) -> str:
    return f"({condition(where)})" if isinstance(where, Both | Either) else condition(where)
