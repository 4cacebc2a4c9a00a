"""The payments of the benchmarks, in chunks of encoded records."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from streamer.simulator import Encoded, Scenario, Simulator

CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured: a topology file and the payments to decide."""

    name: str
    topology: str
    payments: Callable[[int], Iterator[Encoded]]


def simulated(payments: int) -> Iterator[Encoded]:
    """The simulator's payments, without outcomes."""
    for chunk in Simulator(Scenario.for_payments(payments)).chunks(payments, CHUNK):
        if len(chunk.payments):
            yield chunk.payments


def velocity(payments: int) -> Iterator[Encoded]:
    """Load without a story: Zipf-like cards and merchants, seven days of event time in a million payments.

    200,000 cards, customer = card // 2, 5,000 merchants of which a few are very hot, 300,000 ips, 250,000
    devices; one payment in a hundred is 1 to 5 seconds late.
    """
    rng = np.random.default_rng(7)
    clock, step = 1_750_000_000_000.0, 7 * 86_400_000 / 1_000_000
    encode = msgspec.json.Encoder().encode
    for first in range(0, payments, CHUNK):
        n = min(CHUNK, payments - first)
        times = clock + np.cumsum(rng.exponential(step, n))
        clock = float(times[-1])
        late = rng.random(n) < 0.01
        times = (times - late * rng.integers(1_000, 5_000, n)).astype(np.int64).tolist()
        card = (200_000 * rng.random(n) ** 2.2).astype(np.int64).tolist()
        merchant = (5_000 * rng.random(n) ** 4.0).astype(np.int64).tolist()
        ip = rng.integers(0, 300_000, n).tolist()
        device = rng.integers(0, 250_000, n).tolist()
        amount = np.maximum(1, rng.lognormal(8.0, 1.2, n)).astype(np.int64).tolist()
        ids = [f"v{number:012d}" for number in range(first, first + n)]
        values = [
            encode(
                {
                    "payment_id": ids[row],
                    "event_time": times[row],
                    "amount": amount[row],
                    "currency": "EUR",
                    "card": f"card_{card[row]:08d}",
                    "customer": f"cust_{card[row] // 2:08d}",
                    "merchant": f"m_{merchant[row]:06d}",
                    "ip": f"10.{ip[row] >> 16}.{ip[row] >> 8 & 255}.{ip[row] & 255}",
                    "device": f"dev_{device[row]:08d}",
                    "mcc": "5411",
                    "merchant_country": "DE",
                }
            )
            for row in range(n)
        ]
        yield Encoded([one.encode() for one in ids], values, times)


WORKLOADS = {
    "payments": Workload("payments", "topologies/payments.py", velocity),
    "simulated": Workload("simulated", "topologies/payments.py", simulated),
    "velocity": Workload("velocity", "topologies/velocity.py", velocity),
}
