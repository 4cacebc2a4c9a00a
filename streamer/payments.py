"""Payments of one batch as rows and as columns."""

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streamer.batch import Bool, Float64, Int64, Text
from streamer.events import Payment

_FIELDS = frozenset(Payment.__struct_fields__)


@dataclass(frozen=True, slots=True)
class KnownFraud:
    """A payment that turned out to be fraud, and when that became known, in ms."""

    payment: Payment
    known: int


@dataclass(frozen=True, slots=True)
class PaymentBatch:
    """n payments in the order of their records; every array has shape (n,).

    `index` is the place of each in its `Records`, `offsets` and `log_time` (ms) are its record's,
    `event_time` is in ms, `amount` in minor units, `live` is false for test traffic. Other columns are made
    when asked for and kept.
    """

    rows: list[Payment]
    index: Int64
    offsets: Int64
    log_time: Int64
    event_time: Int64
    amount: Int64
    live: Bool
    _texts: dict[str, Text] = field(default_factory=dict, repr=False, compare=False)
    _numbers: dict[str, Float64] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, rows: list[Payment], index: Int64, offsets: Int64, log_time: Int64) -> Self:
        """Take the columns that every batch needs out of its rows."""
        return cls(
            rows,
            index,
            offsets,
            log_time,
            np.array([row.event_time for row in rows], np.int64),
            np.array([row.amount for row in rows], np.int64),
            np.array([row.live is not False for row in rows], np.bool_),
        )

    @classmethod
    def stored(cls, rows: list[Payment]) -> Self:
        """Payments that come from the store and not from records."""
        nothing = np.zeros(len(rows), np.int64)
        return cls.of(rows, nothing, nothing, nothing)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def payment_id(self) -> Text:
        """The column of payment ids."""
        return self.text("payment_id")

    def text(self, name: str) -> Text:
        """Pack a field or declared attribute of strings; absent is empty."""
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = Text.pack(self._values(name))
        return found

    def number(self, name: str) -> Float64:
        """Give a field or declared attribute of numbers or booleans as floats; absent is NaN."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = np.array(self._values(name), np.float64)
        return found

    def take(self, chosen: Bool | npt.NDArray[np.integer[Any]]) -> Self:
        """Choose payments by positions, or by a mask of shape (n,)."""
        if chosen.dtype == np.bool_ and len(chosen) != len(self):
            raise IndexError(f"Expected a mask of {len(self)} payments, got one of {len(chosen)}")
        places = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        rows = self.rows
        return type(self)(
            [rows[place] for place in places.tolist()],
            self.index[places],
            self.offsets[places],
            self.log_time[places],
            self.event_time[places],
            self.amount[places],
            self.live[places],
        )

    def _values(self, name: str) -> list[Any]:
        if name in _FIELDS:
            return list(map(attrgetter(name), self.rows))
        if name == "email_domain":
            return [_domain(row.email) for row in self.rows]
        return [None if row.attributes is None else row.attributes.get(name) for row in self.rows]


def _domain(email: str | None) -> str | None:
    """What follows the last @, in lower case."""
    at = -1 if email is None else email.rfind("@")
    return email[at + 1 :].lower() if email is not None and at >= 0 else None
