"""Payments as features see them: with amounts in the base currency, the same when they are counted again."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from streamer.batch import Int64
from streamer.errors import StateError
from streamer.features.layout import MISSING
from streamer.payments import PaymentBatch
from streamer.rates import RateTable
from streamer.state.store import META, Row, Store

RATES: Final = META + b"rates/"
"""Rows of the tables that were in force, by version."""

OWN: Final = -2
"""Stands in a column for an amount that is in the base currency as it is."""

_NOTHING: Final = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Converted:
    """A batch whose `amount` is in the base currency, `MISSING` where that is not known.

    `others` are the amounts of the payments in other currencies, in order, -1 for a missing one. `unrated`
    counts those without a rate, by currency.
    """

    payments: PaymentBatch
    others: Int64
    unrated: Counter[str]


class InForce(msgspec.Struct, frozen=True):
    """To which currency a version of the rates brings amounts, and from which batches on it did.

    `commit` is the one that stored the last of them; the version with the greatest is in force.
    """

    base: str
    since: list[int]
    commit: int


def convert(table: RateTable, payments: PaymentBatch) -> Converted:
    """Bring the amounts of a batch to the base currency."""
    currencies = [row.currency for row in payments.rows]
    if not set(currencies) - {table.base}:  # what most batches are, at the cost of a look
        return Converted(payments, _NOTHING, Counter())
    amount, unrated = table.to_base(payments.amount, currencies, payments.event_time)
    others = amount[_others(table, payments)]
    lacking: Counter[str] = Counter(currencies[row] for row in np.flatnonzero(unrated).tolist())
    return Converted(replace(payments, amount=amount), np.where(others == MISSING, -1, others), lacking)


def convert_again(table: RateTable, payments: PaymentBatch, others: Int64) -> PaymentBatch:
    """The same batch as it was converted when it was decided, whatever the rates are now."""
    rows = _others(table, payments)
    if len(rows) != len(others):
        raise StateError(
            f"a decided batch is damaged: expected {len(rows)} amounts in the base currency, got"
            f" {len(others)}; restore the state directory or replay"
        )
    if not len(rows):
        return payments
    amount = payments.amount.copy()
    amount[rows] = np.where(others < 0, MISSING, others)
    return replace(payments, amount=amount)


def as_column(table: RateTable, payments: PaymentBatch, others: Int64) -> Int64:
    """`Converted.others` at the places of their payments, int64 (n,), and `OWN` at those of all others."""
    column = np.full(len(payments), OWN, np.int64)
    if len(others):
        column[_others(table, payments)] = others
    return column


def from_column(payments: PaymentBatch, column: Int64) -> PaymentBatch:
    """The same payments with the amounts of such a column."""
    own = column == OWN
    if own.all():
        return payments
    return replace(payments, amount=np.where(own, payments.amount, np.where(column < 0, MISSING, column)))


def others_of(column: Int64) -> Int64:
    """The inverse of `as_column`."""
    return np.asarray(column[column != OWN], np.int64)


def take_effect(table: RateTable, store: Store) -> list[Row]:
    """Rows that say from which batch on the table is in force, if it was not when the last one was stored.

    Raises `StateError` where the amounts in the store are in another base currency.
    """
    known = {
        key.removeprefix(RATES).decode(): msgspec.msgpack.decode(value, type=InForce)
        for key, value in store.scan(RATES)
    }
    for one in known.values():
        if one.base != table.base:
            raise StateError(
                f"{store.path} holds amounts in {one.base}, and the topology's base currency is"
                f" {table.base}: name a new state directory with --state and replay, or keep {one.base}"
            )
    if max(known, key=lambda version: known[version].commit, default=None) == table.version:
        return []
    before = known[table.version].since if table.version in known else []
    progress = store.progress
    row = InForce(table.base, [*before, progress.batches], progress.commits + 1)
    return [(RATES + table.version.encode(), msgspec.msgpack.encode(row))]


def _others(table: RateTable, payments: PaymentBatch) -> Int64:
    """The places of payments in other currencies."""
    return np.flatnonzero([row.currency != table.base for row in payments.rows])
