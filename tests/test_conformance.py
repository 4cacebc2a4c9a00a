"""The suite that a user's own aggregate has to pass: it lets honest ones through and names what others do."""

import math
from dataclasses import dataclass, field

import pytest

from streamer.batch import Float64, Int64
from streamer.conformance import check_aggregate
from streamer.errors import TopologyError


@dataclass
class Median:
    """The middle value."""

    name: str = "median"

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """Half of the values are below."""
        del times, at
        ordered = sorted(values.tolist())
        return ordered[len(ordered) // 2] if ordered else math.nan


class Sorting(Median):
    """Leaves its window in another order."""

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """Sort in place."""
        values.sort()
        return super().compute(times, values, at)


@dataclass
class Remembering(Median):
    """Counts its calls."""

    calls: list[int] = field(default_factory=list)

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """How often it was asked."""
        del times, values
        self.calls.append(at)
        return float(len(self.calls))


class Careless(Median):
    """Expects that there is something."""

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """The first value."""
        del times, at
        return float(values[0])


class Wordy(Median):
    """Answers in words."""

    def compute(self, times: Int64, values: Float64, at: int) -> float:
        """No number."""
        del times, values, at
        return "many"  # type: ignore[return-value]


def test_an_honest_one_passes() -> None:
    """A function of its window alone is fine."""
    check_aggregate(Median())


@pytest.mark.parametrize(
    ("aggregate", "said"),
    [
        (Sorting(), "changes the arrays"),
        (Remembering(), "the same answer for the same window"),
        (Careless(), "a number of 0 events, got IndexError"),
        (Wordy(), "got 'many'"),
        (Median("no name"), "letters, digits and '_'"),
    ],
)
def test_others_are_told_what_they_do(aggregate: Median, said: str) -> None:
    """Each fault has an error of its own."""
    with pytest.raises(TopologyError, match=said):
        check_aggregate(aggregate)
