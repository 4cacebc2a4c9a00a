"""What a chain of stages costs: processor time per payment in one process, against the engine in one step.

python scripts/bench/chain.py [--topology FILE] [--payments N] [--shards N] [--batch N] [--commit N]

No log and no client: records move from list to list, and every store is written each `--commit` payments.
The last line is one JSON object; times are microseconds of processor time per payment.
"""

import argparse
import gc
import itertools
import json
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cramjam
import numpy as np
import pyarrow as pa

from streamer.batch import Outgoing, Records
from streamer.chain.shard import Shard
from streamer.chain.wire import decode, encode
from streamer.codec import PaymentCodec
from streamer.engine import Engine
from streamer.loading import load_topology
from streamer.settings import Settings, Size, State
from streamer.state.store import Store
from streamer.workloads import velocity

Lap = Callable[[str], None]


class Watch:
    """Adds up processor time by what it was spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        """What has passed since the last call was spent on this."""
        now = time.process_time()
        self.spent[name] += now - self._last
        self._last = now


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", type=Path, default=Path("topologies/velocity.py"))
    parser.add_argument("--payments", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--commit", type=int, default=20_000)
    given = parser.parse_args()
    gc.freeze()
    gc.disable()  # as it happens to fall, it would be counted to one stage or another
    values = [value for chunk in velocity(given.payments) for value in chunk.values]
    figures: dict[str, object] = {"engine": one_step(given, values), **chain(given, values)}
    figures |= {
        "payments": given.payments,
        "shards": given.shards,
        "batch": given.batch,
        "versions": {"python": platform.python_version(), "pyarrow": pa.__version__, "numpy": np.__version__},
        "command": " ".join(["python", *sys.argv]),
    }
    print(json.dumps(figures))


def records_of(topic: str, partition: int, start: int, values: list[bytes | None]) -> Records:
    """Consecutive records without keys and headers."""
    n = len(values)
    times = [2_000_000_000_000] * n
    return Records(topic, partition, list(range(start, start + n)), times, [None] * n, values, [()] * n, 0)


def one_step(given: argparse.Namespace, values: list[bytes]) -> dict[str, float]:
    """The engine; the first tenth warms up."""
    with tempfile.TemporaryDirectory() as path, Store.open(Path(path)) as store:
        engine = Engine(load_topology(given.topology), store, settings())
        watch, warm = Watch(), len(values) // 10
        for start in range(0, len(values), given.batch):
            if start == warm // given.batch * given.batch:
                watch = Watch()
            engine.process(records_of("payments", 0, start, [*values[start : start + given.batch]]))
            watch.lap("process")
            if start // given.commit != (start + given.batch) // given.commit:
                store.commit(engine.cut())
                engine.written()
                watch.lap("commit")
        return per_payment(watch, len(values) - warm)


def chain(given: argparse.Namespace, values: list[bytes]) -> dict[str, object]:
    """The shards, stage after stage; the first tenth warms up."""
    shards = given.shards
    topology = load_topology(given.topology)
    with tempfile.TemporaryDirectory() as path:
        stores = [Store.open(Path(path) / str(number)) for number in range(shards)]
        parts = [
            Shard(topology, store, settings(), number=number, shards=shards)
            for number, store in enumerate(stores)
        ]
        topics = parts[0].chain.topics
        queues: dict[tuple[str, int], list[bytes | None]] = defaultdict(list)
        ends: dict[tuple[str, int], int] = defaultdict(int)
        sent: dict[str, int] = defaultdict(int)
        samples: dict[str, list[bytes]] = defaultdict(list)
        watch, warm, step = Watch(), len(values) // 10, given.batch * shards
        for start in range(0, len(values), step):
            if start == warm // step * step:
                watch = Watch()
                sent.clear()
            for number in range(shards):
                queues[topics[0], number] += values[start + number : start + step : shards]
            for topic, number in itertools.product(topics, range(shards)):
                queue, queues[topic, number] = queues[topic, number], []
                records = records_of(topic, number, ends[topic, number], queue)
                ends[topic, number] += len(queue)
                watch.lap("bench")
                answer = parts[number].process(records)
                watch.lap(topic)
                for outgoing in answer.forwarded:
                    keep(outgoing, queues, sent, samples)
            if start // given.commit != (start + step) // given.commit:
                watch.lap("bench")
                for part, store in zip(parts, stores, strict=True):
                    store.commit(part.cut())
                    part.written()
                watch.lap("commit")
        for store in stores:
            store.close()
    counted = len(values) - warm
    figures = per_payment(watch, counted)
    figures.pop("bench")
    return {
        "chain": figures,
        "hop": {topic: hop(messages) for topic, messages in samples.items()},
        "bytes_sent": {topic: round(size / counted, 1) for topic, size in sent.items()},
        "json": json_cost(values[:1000]),
    }


def keep(
    outgoing: Outgoing,
    queues: dict[tuple[str, int], list[bytes | None]],
    sent: dict[str, int],
    samples: dict[str, list[bytes]],
) -> None:
    """Move what was sent to whom it is for."""
    messages = [value or b"" for value in outgoing.values]
    queues[outgoing.topic, outgoing.partition or 0] += messages
    sent[outgoing.topic] += sum(map(len, messages))
    samples[outgoing.topic] = [*samples[outgoing.topic], *messages][-20:]


def hop(messages: list[bytes]) -> dict[str, float]:
    """What it takes to write and read such messages, and what snappy makes of them."""
    read = [decode(message) for message in messages]
    rows = sum(len(one) for _, one in read)
    packed = sum(len(cramjam.snappy.compress_raw(message)) for message in messages)
    return {
        "rows": round(rows / len(messages), 1),
        "encode": best(lambda: [encode(head, one) for head, one in read], rows),
        "decode": best(lambda: [decode(message) for message in messages], rows),
        "bytes": round(sum(map(len, messages)) / rows, 1),
        "snappy_bytes": round(packed / rows, 1),
        "snappy": best(lambda: [cramjam.snappy.compress_raw(message) for message in messages], rows),
    }


def json_cost(values: list[bytes]) -> float:
    """What it takes to parse the payments as they came."""
    codec, records = PaymentCodec(), records_of("payments", 0, 0, [*values])
    return best(lambda: codec.decode(records), len(values))


def best(work: Callable[[], object], rows: int) -> float:
    """The best of several turns, in us of processor time for a row."""
    times = []
    for _ in range(7):
        begin = time.process_time()
        for _ in range(5):
            work()
        times.append((time.process_time() - begin) / 5 / rows * 1e6)
    return round(min(times), 3)


def per_payment(watch: Watch, payments: int) -> dict[str, float]:
    """Microseconds for a payment by what they were spent on, and in all."""
    each = {name: round(spent / payments * 1e6, 2) for name, spent in watch.spent.items()}
    total = sum(spent for name, spent in watch.spent.items() if name != "bench")
    return {**each, "total": round(total / payments * 1e6, 2)}


def settings() -> Settings:
    """Everything in memory."""
    return Settings(state=State(memory_budget=Size(1 << 30)))


if __name__ == "__main__":
    main()
