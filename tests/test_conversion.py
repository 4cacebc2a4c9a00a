"""Batches in the base currency: left alone where they can be, the same when they are counted again."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.conversion import convert, convert_again
from streamer.errors import StateError
from streamer.events import Payment
from streamer.features.layout import MISSING
from streamer.payments import PaymentBatch
from streamer.rates import RateTable

TABLE = RateTable("EUR", {("USD", 0): Fraction("0.5"), ("JPY", 0): Fraction(10**9)})


def batch_of(*amounts: tuple[int, str]) -> PaymentBatch:
    """Payments of these amounts and currencies."""
    rows = [Payment(f"p{row}", row, *one) for row, one in enumerate(amounts)]  # type: ignore[arg-type]
    nothing = np.zeros(len(rows), np.int64)
    return PaymentBatch.of(rows, nothing, nothing, nothing)


def test_a_batch_in_the_base_currency_is_left_alone() -> None:
    """Not even copied."""
    payments = batch_of((5, "EUR"), (7, "EUR"))
    converted = convert(TABLE, payments)
    assert converted.payments is payments
    assert len(converted.others) == len(converted.unrated) == 0
    assert convert_again(TABLE, payments, converted.others) is payments


def test_only_the_amounts_of_others_change() -> None:
    """A missing amount is told from 0, and the payments themselves stay as they came."""
    payments = batch_of((5, "EUR"), (8, "USD"), (7, "GBP"), (10**12, "JPY"), (0, "USD"), (3, "GBP"))
    converted = convert(TABLE, payments)
    assert converted.payments.amount.tolist() == [5, 4, MISSING, MISSING, 0, MISSING]
    assert converted.others.tolist() == [4, -1, -1, 0, -1]
    assert converted.unrated == {"GBP": 2}
    assert payments.amount.tolist() == [5, 8, 7, 10**12, 0, 3]
    assert converted.payments.rows is payments.rows


@given(st.lists(st.tuples(st.integers(0, 10**12), st.sampled_from(["EUR", "USD", "JPY", "GBP"]))))
def test_counted_again_it_is_the_same(amounts: list[tuple[int, str]]) -> None:
    """Whatever the rates are by then."""
    payments = batch_of(*amounts)
    converted = convert(TABLE, payments)
    again = convert_again(RateTable("EUR", {}), payments, converted.others)
    assert again.amount.tolist() == converted.payments.amount.tolist()


def test_amounts_that_do_not_fit_the_batch_are_damage() -> None:
    """Neither too few nor too many are taken for others'."""
    with pytest.raises(StateError, match="expected 1 amounts in the base currency, got 0; restore"):
        convert_again(TABLE, batch_of((5, "USD")), np.empty(0, np.int64))
    with pytest.raises(StateError, match="expected 0 amounts in the base currency, got 1; restore"):
        convert_again(TABLE, batch_of((5, "EUR")), np.zeros(1, np.int64))
