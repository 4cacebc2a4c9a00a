"""Payments read back from their canonical content have the columns they had."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Text
from streamer.encoding import canonical
from streamer.events import Payment
from streamer.payments import PaymentBatch
from streamer.recall import PaymentReader

TEXTS = st.one_of(st.none(), st.text(min_size=1, max_size=8))

payments = st.builds(
    Payment,
    payment_id=st.text(min_size=1, max_size=20),
    event_time=st.integers(0, 2**52),
    amount=st.integers(0, 10**12),
    currency=st.just("EUR"),
    card=TEXTS,
    merchant=TEXTS,
    attempt=st.one_of(st.none(), st.integers(1, 300)),
    lat=st.one_of(st.none(), st.floats(-90, 90)),
    live=st.sampled_from([True, False, None]),
    attributes=st.one_of(
        st.none(), st.fixed_dictionaries({}, optional={"basket": st.integers(0, 9), "shop": st.text()})
    ),
)


@given(st.lists(payments, max_size=12))
def test_columns_come_back(rows: list[Payment]) -> None:
    """Whatever the payments, each column asked for is that of the batch they came in."""
    nothing = np.zeros(len(rows), np.int64)
    expected = PaymentBatch.of(rows, nothing, nothing, nothing)
    texts, numbers = ("card", "merchant", "shop", "payment_id"), ("attempt", "lat", "basket")
    got = PaymentReader([*texts, *numbers]).read(canonical(rows))
    assert len(rows) == len(got)
    for name in ("event_time", "amount", "live"):
        assert getattr(expected, name).tolist() == getattr(got, name).tolist()
    for name in texts:
        assert expected.text(name).data.tobytes() == got.text(name).data.tobytes()
        assert expected.text(name).ends.tolist() == got.text(name).ends.tolist()
    for name in numbers:
        assert expected.number(name).tobytes() == got.number(name).tobytes()


def test_what_was_not_asked_for_is_not_read() -> None:
    """Fields that no entity keeps may be of any type; 70,000 payments need a long head."""
    content = canonical([Payment("p", 5, 7, "EUR", card="c")] * 70_000)
    got = PaymentReader(()).read(Text(content.data, content.ends))
    assert (len(got), set(got.event_time.tolist()), set(got.amount.tolist())) == (70_000, {5}, {7})
