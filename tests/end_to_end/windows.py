"""Features by their names, computed from the list of all earlier payments of a key, one by one."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .reading import Payment

UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
NAME = re.compile(
    r"(?P<aggregate>count|sum|mean|std|max|min|distinct|since_last)(_(?P<field>[a-z_]+?))?"
    r"(_(?P<length>[0-9]+)(?P<unit>ms|s|m|h|d))?(?P<before>_before)?"
)


@dataclass(frozen=True)
class Feature:
    """What the name of a feature says, without its entity; the window is in ms, if it has one."""

    aggregate: str
    field: str | None
    window: int | None
    before: bool

    @classmethod
    def named(cls, name: str) -> "Feature":
        """Take a name such as `mean_amount_30d_before` apart."""
        parts = NAME.fullmatch(name)
        if parts is None:
            raise ValueError(f"the oracle does not know the feature {name!r}")
        window = int(parts["length"]) * UNITS[parts["unit"]] if parts["length"] else None
        return cls(parts["aggregate"], parts["field"], window, parts["before"] is not None)

    def of(self, payment: Payment, earlier: Sequence[Payment]) -> float | None:
        """Its value for a payment, given those of its key that arrived before and are not later."""
        now = payment["event_time"]
        known = list(earlier)
        if self.aggregate == "since_last":
            # Seconds, as declared by the topology of these tests.
            return (now - max(other["event_time"] for other in known)) / 1_000 if known else None
        if not self.before:
            known.append(payment)
        if self.window is not None:
            known = [other for other in known if other["event_time"] > now - self.window]
        if self.aggregate == "count":
            return float(len(known))
        if self.field is None:
            raise ValueError(f"{self.aggregate} needs a field")
        return _aggregate(self.aggregate, [other[self.field] for other in known if self.field in other])


def _aggregate(name: str, values: list[int]) -> float | None:
    if name == "distinct":
        return float(len(set(values)))
    if name == "sum":
        return float(sum(values))
    if not values:
        return None
    count, total = len(values), sum(values)
    if name == "mean":
        return float(Fraction(total, count))
    if name == "std":
        # In integers, because the difference of two large squares is all that is left of a small spread.
        return math.sqrt(Fraction(count * sum(value * value for value in values) - total**2, count**2))
    return float(max(values) if name == "max" else min(values))
