"""The handbook's customer features, on all of its payments."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamer.features.aggregates import count, mean
from streamer.features.declarations import Entity
from streamer.features.fields import amount
from tests.features.arrays import Stream, answers

PAYMENTS = Path(__file__).parents[2].parent / "shared/data/handbook/payments.parquet"
DAY = 86_400_000
WINDOWS = {"1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}


def read() -> Stream:
    """All payments, amounts in minor units."""
    table = pq.read_table(PAYMENTS, columns=["tx_datetime", "customer_id", "amount"])
    time = table["tx_datetime"].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
    minor = np.rint(table["amount"].to_numpy() * 100).astype(np.int64)
    customer = table["customer_id"].to_numpy().astype(np.int64)
    return Stream(time, minor, np.ones(len(time), np.bool_), {"customer": customer})


@pytest.mark.skipif(not PAYMENTS.exists(), reason=f"needs the handbook's payments in {PAYMENTS}")
def test_customer_features_of_every_payment() -> None:
    """Count and mean over 1, 7 and 30 days equal those from each customer's whole matrix of pairs."""
    stream = read()
    entity = Entity("customer", features=[count(*WINDOWS), mean(amount, *WINDOWS)])
    got = answers(stream, [entity], size=4_000, allowed_lateness=0, memory_budget=1 << 26)
    assert len(got) > 1_200_000
    assert (np.diff(stream.event_time) >= 0).all()  # none is late, so that earlier rows are earlier payments
    customers = stream.texts["customer"]
    order = np.argsort(customers, kind="stable")
    compared = 0
    for rows in np.split(order, np.flatnonzero(np.diff(customers[order])) + 1):
        time, minor = stream.event_time[rows], stream.amount[rows].astype(np.float64)
        age = time[:, np.newaxis] - time
        # Sums stay below 2^53, so that floats add them exactly in whatever order.
        summed = np.stack([np.ones(len(rows)), minor], axis=1)
        for column, window in enumerate(WINDOWS.values()):
            counts, sums = (np.tril(age < window).astype(np.float64) @ summed).T
            np.testing.assert_array_equal(got[rows, column], counts)
            np.testing.assert_allclose(got[rows, 3 + column], sums / counts, rtol=1e-9, atol=0)
        compared += len(rows)
    assert compared == len(stream)
