"""The aggregates that labels feed: how many payments of a key turned out to be fraud, and their share."""

import math
from dataclasses import dataclass

from streamer.errors import TopologyError
from streamer.features.aggregate import Aggregate, Feature

Prior = tuple[float, float]
"""Frauds and payments that a rate begins with."""


@dataclass(frozen=True, slots=True)
class FraudFeature(Feature):
    """A number of frauds, or with a `prior` their share.

    Its window is one of the times at which frauds became known, and the same of payments before this one.
    """

    prior: Prior | None = None


@dataclass(frozen=True, slots=True)
class FraudAggregate(Aggregate):
    """A family of features that labels feed, one for each window."""

    prior: Prior | None = None

    def before(self) -> Aggregate:
        """Refused: such a feature never sees the payment itself."""
        raise TopologyError(f"{self.kind} never counts the payment itself; leave out .before()")

    def _feature(self, name: str, window: int, delay: int, place: int) -> Feature:
        del place
        return FraudFeature(
            name=name, kind=self.kind, column=None, window=window, delay=delay, where=None,
            before_payment=True, unit=1, prior=self.prior,
        )  # fmt: skip


def fraud_count(*windows: str, delay: str | None = None, name: str | None = None) -> Aggregate:
    """How many payments of the key became known as fraud in (t - delay - window, t - delay].

    A payment becomes known as fraud at the event_time of the first outcome read that says so (see
    `streamer.models.labels`), and counts once: a repeat or a second report adds nothing, and a claim that is
    withdrawn later stays counted, as it was known then. Test traffic does not count. An outcome takes effect
    at the commit that takes it in: every payment decided after that, late ones included, sees it.

    >>> fraud_count("1d", "30d").features("merchant", 0)[1].name
    'merchant_fraud_count_30d'
    """
    return FraudAggregate("fraud_count", windows=_windows("fraud_count", windows), delay=delay, name=name)


def fraud_rate(
    *windows: str, prior: Prior = (1, 200), delay: str | None = None, name: str | None = None
) -> Aggregate:
    """The share of frauds: (frauds + prior[0]) / (payments + prior[1]), absent where that divides by 0.

    Frauds are those of `fraud_count`; payments are those of `count(...).before()` over the same window and
    delay, so a payment does not change its own rate. Both are taken by their own time: the frauds of a window
    are mostly of payments before it, so after a fall in traffic the rate can exceed 1. The prior, as many
    frauds in as many payments, is what a key without history has, and keeps a single fraud from looking
    like a certainty.

    >>> fraud_rate("30d").features("merchant", 0)[0].name
    'merchant_fraud_rate_30d'
    """
    return FraudAggregate(
        "fraud_rate",
        windows=_windows("fraud_rate", windows),
        delay=delay,
        name=name,
        prior=_checked(prior),
    )


def _windows(kind: str, windows: tuple[object, ...]) -> tuple[str, ...]:
    if not windows:
        raise TopologyError(f'{kind}: expected at least one window such as "30d", got none')
    given = tuple(window for window in windows if isinstance(window, str))
    if len(given) < len(windows):
        strange = next(window for window in windows if not isinstance(window, str))
        raise TopologyError(f'{kind}: expected windows such as "30d", got {strange!r}; it takes no field')
    return given


def _checked(prior: object) -> Prior:
    match prior:
        case (int() | float() as frauds, int() | float() as payments) if _counts(frauds, payments):
            return (frauds, payments)
    raise TopologyError(
        f"fraud_rate: expected a prior of two numbers from 0 on, (frauds, payments), got {prior!r};"
        " (1, 200) stands for one fraud in 200 payments"
    )


def _counts(*numbers: float) -> bool:
    return all(number >= 0 and math.isfinite(number) and not isinstance(number, bool) for number in numbers)
