"""The aggregates of habits: rhythm, places, what is usual, what fades, and all that ever was."""

from typing import Final, Literal

from streamer.errors import TopologyError
from streamer.features.aggregate import (
    Aggregate,
    CustomAggregate,
    check_field,
    check_where,
    check_windows,
    numeric,
)
from streamer.features.fields import Field, Where

MOST_VALUES: Final = 100
"""As many latest values can be features."""


def novelty(field: Field, *windows: str, where: Where | None = None, name: str | None = None) -> Aggregate:
    """1 if the payment's value of a field is new to the key in the window before it, 0 if not.

    Absent where the payment has no value or does not meet the condition. Without a window it looks back over
    the entity's longest. For novelty since ever, declare an entity of both fields with `lifetime_count`.
    """
    column = check_field("novelty", field).column
    return Aggregate("novelty", column, windows, check_where("novelty", where), None, name)


def last_values(
    field: Field,
    k: int,
    *windows: str,
    where: Where | None = None,
    delay: str | None = None,
    name: str | None = None,
) -> Aggregate:
    """The k latest values of a number, latest first: `card_last1_amount_7d`, `card_last2_amount_7d`, ..."""
    if not (isinstance(k, int) and 1 <= k <= MOST_VALUES):
        raise TopologyError(f"last_values: expected k from 1 to {MOST_VALUES}, got {k!r}")
    one = numeric("last", field, windows, (where, delay, name))
    return Aggregate("last", one.column, windows, one.where, delay, name, ranks=k)


def mean_gap(
    *windows: str,
    unit: str = "s",
    where: Where | None = None,
    delay: str | None = None,
    name: str | None = None,
) -> Aggregate:
    """Mean time between consecutive payments; absent where there are fewer than two."""
    where = check_where("mean_gap", where)
    return Aggregate("mean_gap", None, check_windows("mean_gap", windows), where, delay, name, unit)


def min_gap(*windows: str, unit: str = "s", where: Where | None = None, name: str | None = None) -> Aggregate:
    """Least time between consecutive payments; absent where there are fewer than two.

    It has no `delay`: the least gaps are kept up to the newest payment alone.
    """
    where = check_where("min_gap", where)
    return Aggregate("min_gap", None, check_windows("min_gap", windows), where, None, name, unit)


def mode(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Of numbers the most frequent value, of equals the one seen last; of text whether the own one is it.

    For text: 1 if no other is more frequent than the payment's own, else 0, and absent without one.
    """
    return _any("mode", field, windows, where, delay, name)


def mode_share(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """The most frequent value's share of all values of a field."""
    return _any("mode_share", field, windows, where, delay, name)


def entropy(
    field: Field, *windows: str, where: Where | None = None, delay: str | None = None, name: str | None = None
) -> Aggregate:
    """Shannon entropy of the values of a field, in nats; 0 where all are equal."""
    return _any("entropy", field, windows, where, delay, name)


def quantile(
    field: Field,
    q: float,
    *windows: str,
    where: Where | None = None,
    delay: str | None = None,
    name: str | None = None,
) -> Aggregate:
    """The nearest-rank quantile of a number, within 1 % of it: value ceil(q n) of the n sorted ones.

    Features are called by percent: `quantile(amount, 0.95, "7d")` is `card_p95_amount_7d`.
    """
    if not (isinstance(q, float) and 0.0 < q < 1.0):
        raise TopologyError(f"quantile: expected q between 0 and 1, such as 0.95, got {q!r}")
    one = numeric("quantile", field, windows, (where, delay, name))
    label = f"p{q * 100:.6g}".replace(".", "_")
    return Aggregate("quantile", one.column, windows, one.where, delay, name, label=label, parameters=(q,))


def decayed_count(
    *half_lives: str,
    within: str | None = None,
    where: Where | None = None,
    delay: str | None = None,
    name: str | None = None,
) -> Aggregate:
    """How many payments, each weighted by 2^(-age / half-life), up to `within` (32 half-lives) back."""
    windows = check_windows("decayed_count", half_lives)
    where = check_where("decayed_count", where)
    return Aggregate("decayed_count", None, windows, where, delay, name, within=within)


def decayed_total(
    field: Field,
    *half_lives: str,
    within: str | None = None,
    where: Where | None = None,
    delay: str | None = None,
    name: str | None = None,
) -> Aggregate:
    """Sum of a number, each weighted by 2^(-age / half-life), up to `within` (32 half-lives) back."""
    one = numeric("decayed_sum", field, half_lives, (where, delay, name))
    return Aggregate("decayed_sum", one.column, half_lives, one.where, delay, name, within=within)


def decayed_mean(
    field: Field,
    *half_lives: str,
    within: str | None = None,
    where: Where | None = None,
    delay: str | None = None,
    name: str | None = None,
) -> Aggregate:
    """Mean of a number, each weighted by 2^(-age / half-life), up to `within` (32 half-lives) back."""
    one = numeric("decayed_mean", field, half_lives, (where, delay, name))
    return Aggregate("decayed_mean", one.column, half_lives, one.where, delay, name, within=within)


def distance_from_last(*windows: str, where: Where | None = None, name: str | None = None) -> Aggregate:
    """Great-circle distance in km from the payment before that has `lat` and `lon`; absent without either."""
    where = check_where("distance_from_last", where)
    return Aggregate("distance_from_last", None, windows, where, None, name)


def geo_velocity(*windows: str, where: Where | None = None, name: str | None = None) -> Aggregate:
    """Speed from the payment before that has `lat` and `lon`, in km/h; less than a second counts as one."""
    where = check_where("geo_velocity", where)
    return Aggregate("geo_velocity", None, windows, where, None, name)


def session_count(*gaps: str, where: Where | None = None, name: str | None = None) -> Aggregate:
    """How many payments in the session: the run up to now in which no two are further apart than the gap.

    A session reaches back over the entity's longest window at most.
    """
    windows = check_windows("session_count", gaps)
    return Aggregate("session_count", None, windows, check_where("session_count", where), None, name)


def session_total(field: Field, *gaps: str, where: Where | None = None, name: str | None = None) -> Aggregate:
    """Sum of a number over the session (see `session_count`) of payments that have it."""
    return numeric("session_sum", field, gaps, (where, None, name))


def session_duration(
    *gaps: str, unit: str = "s", where: Where | None = None, name: str | None = None
) -> Aggregate:
    """Time since the session (see `session_count`) began."""
    windows = check_windows("session_duration", gaps)
    where = check_where("session_duration", where)
    return Aggregate("session_duration", None, windows, where, None, name, unit)


def lifetime_count(*, where: Where | None = None, name: str | None = None) -> Aggregate:
    """How many payments ever, in order of arrival; kept when the events themselves are gone."""
    return Aggregate("lifetime_count", None, (), check_where("lifetime_count", where), None, name)


def lifetime_age(*, unit: str = "s", where: Where | None = None, name: str | None = None) -> Aggregate:
    """Time since the earliest payment ever; kept when the events themselves are gone."""
    return Aggregate("lifetime_age", None, (), check_where("lifetime_age", where), None, name, unit)


def custom(
    aggregate: CustomAggregate,
    field: Field,
    *windows: str,
    where: Where | None = None,
    delay: str | None = None,
    name: str | None = None,
) -> Aggregate:
    """A user's own aggregate of a number; it costs a call, and a copy of its window, for each payment.

    Where `compute` raises, the feature is absent.
    """
    label = getattr(aggregate, "name", None)
    computes = callable(getattr(aggregate, "compute", None))
    if not (isinstance(label, str) and label.isidentifier() and computes):
        raise TopologyError(
            "custom: expected an aggregate with a name of letters, digits and '_' and a method"
            f" compute(times, values, at), got {aggregate!r}"
        )
    one = numeric("custom", field, windows, (where, delay, name))
    return Aggregate("custom", one.column, windows, one.where, delay, name, label=label, custom=aggregate)


def _any(  # noqa: PLR0913, PLR0917 - the options of an aggregate
    kind: Literal["mode", "mode_share", "entropy"],
    field: Field,
    windows: tuple[str, ...],
    where: Where | None,
    delay: str | None,
    name: str | None,
) -> Aggregate:
    """An aggregate of a field of text or of numbers."""
    column = check_field(kind, field).column
    return Aggregate(kind, column, check_windows(kind, windows), check_where(kind, where), delay, name)
