"""What a card with very many payments in its windows costs against cards with three, and how long it reloads.

python scripts/bench/hot_key.py [--events N] [--payments N]

No log and no client: one engine of topologies/velocity.py. All that differs is the card; windows of 30 days
see every payment. The last line is one JSON object; times are the processor's, of the reload the clock's too.
"""

import argparse
import gc
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from streamer.batch import Records
from streamer.engine import Engine
from streamer.loading import load_topology
from streamer.settings import Settings, Size, State
from streamer.state.store import Store

BATCH = 1_000
FEW = 3
TOPOLOGY = Path("topologies/velocity.py")
SETTINGS = Settings(state=State(memory_budget=Size(8 << 30)))
BEGIN = 1_750_000_000_000
STEP_MS = 1_000

encode = msgspec.json.Encoder().encode


class Payments:
    """Consecutive payments, each a second after the one before."""

    def __init__(self) -> None:
        self.sent = 0
        self._random = np.random.default_rng(7)

    def take(self, card_of: Callable[[int], str], n: int = BATCH) -> Records:
        """The next n; `card_of` names the card of each by its place in the batch."""
        first, self.sent = self.sent, self.sent + n
        merchant, ip = self._random.integers(0, 5_000, n), self._random.integers(0, 300_000, n)
        values: list[bytes | None] = [
            encode(
                {
                    "payment_id": f"p{first + row}",
                    "event_time": BEGIN + (first + row) * STEP_MS,
                    "amount": 1_000 + row,
                    "currency": "EUR",
                    "card": card_of(row),
                    "merchant": f"m{merchant[row]}",
                    "ip": f"10.0.{ip[row] // 250}.{ip[row] % 250}",
                }
            )
            for row in range(n)
        ]
        offsets = list(range(first, first + n))
        return Records("payments", 0, offsets, [2_000_000_000_000] * n, [None] * n, values, [()] * n, 0)


def hot(_: int) -> str:
    """The one card."""
    return "hot"


def few_from(first: int) -> Callable[[int], str]:
    """Cards with three payments each."""
    return lambda row: f"few{(first + row) // FEW}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="payments of the hot card")
    parser.add_argument("--payments", type=int, default=50_000, help="measured of each kind")
    given = parser.parse_args()
    gc.freeze()
    gc.disable()
    batches = given.payments // BATCH
    payments = Payments()
    with tempfile.TemporaryDirectory() as directory:
        with Store.open(Path(directory)) as store:
            engine = Engine(load_topology(TOPOLOGY), store, SETTINGS)
            fill(engine, store, payments, given.events)
            cold_us = measured(engine, [payments.take(few_from(batch * BATCH)) for batch in range(batches)])
            hot_us = measured(engine, [payments.take(hot) for _ in range(batches)])
            store.commit(engine.cut(everything=True))
            engine.written()
        with Store.open(Path(directory)) as store:
            engine = Engine(load_topology(TOPOLOGY), store, SETTINGS)
            one = payments.take(hot, 1)
            began, spent = time.perf_counter(), time.process_time()
            engine.process(one)
            reload_s, reload_cpu_s = time.perf_counter() - began, time.process_time() - spent
    figures = {
        "events_of_hot_card": given.events + batches * BATCH,
        "us_per_payment_of_few": round(cold_us, 2),
        "us_per_payment_of_hot": round(hot_us, 2),
        "reload_s": round(reload_s, 3),
        "reload_cpu_s": round(reload_cpu_s, 3),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "command": " ".join(["python", *sys.argv]),
    }
    print(json.dumps(figures))


def fill(engine: Engine, store: Store, payments: Payments, events: int) -> None:
    """Let the hot card have so many payments, with a commit each 20 batches as a worker has."""
    for batch in range(events // BATCH):
        engine.process(payments.take(hot))
        if batch % 20 == 0:
            store.commit(engine.cut())
            engine.written()


def measured(engine: Engine, batches: list[Records]) -> float:
    """Microseconds of the processor for a payment; the first fifth warms up."""
    warm = len(batches) // 5
    for records in batches[:warm]:
        engine.process(records)
    spent = time.process_time()
    for records in batches[warm:]:
        engine.process(records)
    return (time.process_time() - spent) / (BATCH * (len(batches) - warm)) * 1e6


if __name__ == "__main__":
    main()
