"""A batch as the tables keep it: hashes of text, exact integers of numbers, bits of conditions."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from streamer.batch import Bool, Bytes, Float64, Int64, Text
from streamer.features.fields import Both, Column, Either, Known, Not, Scalar, Test, Where
from streamer.features.keys import check_lengths, hash_bytes, hash_text, join_columns
from streamer.features.layout import LARGEST, MISSING
from streamer.features.plan import Mask

SEED: Final = 0x5DEECE66D
"""Of the hashes of text. They are stored, so changing it loses every distinct count."""


_ORDERS: Final[Mapping[str, Callable[[Float64, float], Bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Columns(Protocol):
    """A batch of n payments, in order of arrival; arrays have shape (n,)."""

    @property
    def event_time(self) -> Int64:
        """When each happened, in ms."""

    @property
    def amount(self) -> Int64:
        """How much, in minor units of one currency; `MISSING` where that is not known."""

    @property
    def live(self) -> Bool:
        """False for test traffic, which is answered and never counted."""

    def text(self, name: str) -> Text:
        """A field of text; absent is empty."""

    def number(self, name: str) -> Float64:
        """A field of numbers; absent is NaN."""

    def __len__(self) -> int:
        """Number of payments."""


class Prepared:
    """A batch and what has been made of its columns, each once for all entities."""

    def __init__(self, batch: Columns) -> None:
        self.batch = batch
        self._codes: dict[tuple[str, ...], tuple[Text, Int64]] = {}
        self._numbers: dict[Column, Int64] = {}

    def keys(self, fields: tuple[str, ...]) -> tuple[Text, Int64]:
        """The values of an entity's key fields, joined, and their hashes (n,)."""
        found = self._codes.get(fields)
        if found is None:
            columns = [self.batch.text(name) for name in fields]
            if len(fields) == 1:
                joined = columns[0]
                check_lengths(joined, fields[0])
            else:
                joined = join_columns(columns, " and ".join(fields))
            hashes = np.empty(len(joined), np.int64)
            hash_text(joined.data, joined.ends, SEED, hashes)
            found = self._codes[fields] = joined, hashes
        return found

    def kept(self, column: Column) -> Int64:
        """A column as it is kept, int64 (n,): 0 is an absent text, `MISSING` an absent number."""
        if column.text:
            return self.keys((column.name,))[1]
        if column.name == "amount":
            return self.batch.amount
        found = self._numbers.get(column)
        if found is None:
            found = self._numbers[column] = to_integers(self.batch.number(column.name), column.scale)
        return found


def to_integers(values: Float64, scale: float) -> Int64:
    """Numbers in their smallest unit; what is NaN or too large to sum exactly is `MISSING`."""
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * scale)
        fits = np.abs(scaled) <= LARGEST
        return np.where(fits, np.where(fits, scaled, 0.0).astype(np.int64), MISSING)


def hash_of(value: str) -> int:
    """The hash of one text, as `Prepared.kept` has it."""
    data: Bytes = np.frombuffer(value.encode(), np.uint8)
    return int(hash_bytes(data, 0, len(data), SEED))


def bits_of(masks: Sequence[Mask], kept: Mapping[Column, Int64], n: int) -> Int64:
    """One bit per mask, int64 (n,)."""
    bits = np.zeros(n, np.int64)
    for place, (where, column) in enumerate(masks):
        if where is None and column is None:
            bits |= 1 << place
            continue
        holds = np.ones(n, np.bool_) if where is None else meets(where, kept)
        if column is not None:
            holds = holds & _present(column, kept)
        bits |= holds.astype(np.int64) << place
    return bits


def meets(where: Where, kept: Mapping[Column, Int64]) -> Bool:
    """Which events meet a condition, bool (n,)."""
    match where:
        case Both(left, right):
            return meets(left, kept) & meets(right, kept)
        case Either(left, right):
            return meets(left, kept) | meets(right, kept)
        case Not(condition):
            return ~meets(condition, kept)
        case Known(column):
            return _present(column, kept)
        case Test(column, compare, values):
            found = _compare(column, kept[column], compare, values)
            return found & _present(column, kept)
    raise TypeError(f"expected a condition on payments, got {where!r}")


def _present(column: Column, kept: Mapping[Column, Int64]) -> Bool:
    return np.asarray(kept[column] != (0 if column.text else MISSING), np.bool_)


def _compare(column: Column, stored: Int64, compare: str, constants: tuple[Scalar, ...]) -> Bool:
    if column.text:
        known = np.array([hash_of(str(constant)) for constant in constants], np.int64)
        found = np.isin(stored, known, invert=compare == "!=")
    elif compare in _ORDERS:
        found = _ORDERS[compare](stored / column.scale, float(constants[0]))
    else:
        found = np.isin(stored / column.scale, np.array(constants, np.float64), invert=compare == "!=")
    return np.asarray(found, np.bool_)
