"""What a user's own parts have to keep to: run these checks in a test of your own."""

import itertools
import math

import numpy as np

from streamer.batch import Float64, Int64
from streamer.errors import TopologyError
from streamer.features.aggregate import CustomAggregate
from streamer.features.fields import amount
from streamer.features.habits import custom

__all__ = ["check_aggregate"]

_NOW = 1_700_000_000_000


def check_aggregate(aggregate: CustomAggregate) -> None:
    """Raise `TopologyError` where a custom aggregate breaks a rule; for tests.

    It must answer a float for any window, the empty one and equal times included, the same one each time,
    whatever it was asked before, and leave the window as it was.

    >>> class Last:
    ...     name = "latest"
    ...     def compute(self, times, values, at):
    ...         return values[-1] if len(values) else math.nan
    >>> check_aggregate(Last())
    """
    custom(aggregate, amount, "1h")
    windows = [_window(n, step) for n, step in itertools.product((0, 1, 2, 7, 100), (0, 1, 60_000))]
    first = [_ask(aggregate, *window) for window in windows]
    for window, earlier in reversed(list(zip(windows, first, strict=True))):
        again = _ask(aggregate, *window)
        if again != earlier and not (math.isnan(again) and math.isnan(earlier)):
            raise TopologyError(
                f"custom aggregate {aggregate.name!r}: expected the same answer for the same window, got"
                f" {earlier} and then {again}; keep nothing between calls, and use neither clock nor chance"
            )


def _window(n: int, step: int) -> tuple[Int64, Float64]:
    times = _NOW - step * np.arange(n, dtype=np.int64)[::-1]
    return times, np.array([(7 * i * i + 3) % 101 for i in range(n)], np.float64)


def _ask(aggregate: CustomAggregate, times: Int64, values: Float64) -> float:
    given = times.copy(), values.copy()
    try:
        answer = aggregate.compute(*given, _NOW)
    except Exception as error:
        raise TopologyError(
            f"custom aggregate {aggregate.name!r}: expected a number of {len(times)} events, got {error!r};"
            " answer nan where there is nothing to say"
        ) from error
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.number):
        raise TopologyError(
            f"custom aggregate {aggregate.name!r}: expected a number of {len(times)} events, got {answer!r}"
        )
    if not (np.array_equal(given[0], times) and np.array_equal(given[1], values)):
        raise TopologyError(
            f"custom aggregate {aggregate.name!r} changes the arrays it is given; let it work on a copy"
        )
    return float(answer)
