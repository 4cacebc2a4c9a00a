"""The aggregates of counts, sums, extremes and values that a topology can name, one function each."""

from streamer.features.aggregate import (
    Aggregate,
    CustomAggregate,
    Feature,
    check_field,
    check_where,
    check_windows,
    numeric,
)
from streamer.features.fields import Field, Where
from streamer.features.habits import (
    custom,
    decayed_count,
    decayed_mean,
    decayed_total,
    distance_from_last,
    entropy,
    geo_velocity,
    last_values,
    lifetime_age,
    lifetime_count,
    mean_gap,
    min_gap,
    mode,
    mode_share,
    novelty,
    quantile,
    session_count,
    session_duration,
    session_total,
)

__all__ = [
    "Aggregate",
    "CustomAggregate",
    "Feature",
    "count",
    "custom",
    "decayed_count",
    "decayed_mean",
    "decayed_total",
    "distance_from_last",
    "distinct",
    "entropy",
    "first",
    "geo_velocity",
    "last",
    "last_values",
    "lifetime_age",
    "lifetime_count",
    "maximum",
    "mean",
    "mean_gap",
    "min_gap",
    "minimum",
    "mode",
    "mode_share",
    "novelty",
    "quantile",
    "session_count",
    "session_duration",
    "session_total",
    "since_first",
    "since_last",
    "skewness",
    "spread",
    "std",
    "total",
    "variance",
]


def count(
    *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """How many payments."""
    return Aggregate("count", None, check_windows("count", windows), check_where("count", where), delay, name)


def total(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Sum of a number; of nothing it is 0."""
    return numeric("sum", field, windows, (where, delay, name))


def mean(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Arithmetic mean of a number; absent where there is none."""
    return numeric("mean", field, windows, (where, delay, name))


def variance(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Population variance of a number (divides by n), without cancellation."""
    return numeric("variance", field, windows, (where, delay, name))


def std(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Population standard deviation of a number (divides by n), without cancellation."""
    return numeric("std", field, windows, (where, delay, name))


def skewness(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Population skewness of a number, m3 / m2^1.5, without cancellation; absent where all are equal."""
    return numeric("skewness", field, windows, (where, delay, name))


def minimum(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Least value of a number."""
    return numeric("min", field, windows, (where, delay, name))


def maximum(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Greatest value of a number."""
    return numeric("max", field, windows, (where, delay, name))


def spread(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Greatest minus least value of a number; the feature is called `range`."""
    return numeric("range", field, windows, (where, delay, name))


def first(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Earliest value of a number in the window; of equal times the one that arrived first."""
    return numeric("first", field, windows, (where, delay, name))


def last(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Latest value of a number in the window; of equal times the one that arrived last."""
    return numeric("last", field, windows, (where, delay, name))


def distinct(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """How many different values of a field, exactly."""
    column = check_field("distinct", field).column
    return Aggregate(
        "distinct", column, check_windows("distinct", windows), check_where("distinct", where), delay, name
    )


def since_last(
    *windows: str, unit: str = "s", where: Where | None = None, name: str | None = None
) -> Aggregate:
    """Time since the payment before this one; without a window it looks back over the entity's longest."""
    return Aggregate("since_last", None, windows, check_where("since_last", where), None, name, unit)


def since_first(
    *windows: str, unit: str = "s", where: Where | None = None, name: str | None = None
) -> Aggregate:
    """Time since the first payment of the window, 0 if it is this one; without a window over the longest."""
    return Aggregate("since_first", None, windows, check_where("since_first", where), None, name, unit)
