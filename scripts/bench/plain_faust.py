"""The velocity job as a competent Faust user writes it: tables, one payment at a time, with figures.

Forty features: count and sum of amount over 1m, 1h, 1d and 7d for card, customer, merchant, device and ip.
A key's newest 256 events are one JSON value of a `faust.Table` on RocksDB with a changelog, and a logistic
score over the features becomes a JSON decision. Where there is a choice it is to Faust's advantage: dicts
instead of Records, one partition (so no `group_by`, no extra hop), no validation, no rejections,
at-least-once, approximate beyond 256 events per key, a producer that waits 5 ms to fill its batches.

Run it on one core: taskset -c 0 python scripts/bench/plain_faust.py --broker kafka://localhost:9092 --fill
"""

import argparse
import asyncio
import json
import math
import os
import platform
import random
import resource
import sys
import tempfile
import time
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import accumulate
from operator import itemgetter
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient

ENTITIES = ("card", "customer", "merchant", "device", "ip")
WINDOWS_MS = {"1m": 60_000, "1h": 3_600_000, "1d": 86_400_000, "7d": 604_800_000}
KEPT_EVENTS = 256
BIAS, WEIGHT = -4.0, 0.01


@dataclass
class Run:
    """What is measured: clocks at the first payment and after the last confirmed decision."""

    wanted: int
    seen: int = 0
    began: float = 0.0
    began_cpu: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        """Start the clocks."""
        self.began, self.began_cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stop the clocks."""
        self.seconds = time.perf_counter() - self.began
        self.cpu_seconds = time.process_time() - self.began_cpu
        self.done.set()


def velocity(events: list[list[int]], entity: str, now: int, features: dict[str, float]) -> None:
    """Add an entity's counts and sums; `events` are [time, amount] in time order, `now` included."""
    end = bisect_right(events, [now, sys.maxsize])
    for name, window in WINDOWS_MS.items():
        recent = events[bisect_right(events, [now - window, sys.maxsize]) : end]
        features[f"{entity}_count_{name}"] = len(recent)
        features[f"{entity}_sum_amount_{name}"] = sum(map(itemgetter(1), recent))


def decide(payment: dict[str, Any], features: dict[str, float]) -> dict[str, Any]:
    """Score and decide."""
    score = 1.0 / (1.0 + math.exp(-(BIAS + WEIGHT * sum(map(math.log1p, features.values())))))
    return {
        "payment_id": payment["payment_id"],
        "event_time": payment["event_time"],
        "action": "block" if score >= 0.95 else "allow",
        "score": score,
    }


def build(arguments: argparse.Namespace, name: str, directory: str, run: Run) -> faust.App:
    """Declare the app: a topic in, five tables, a topic out, one agent."""
    app = faust.App(
        name,
        broker=arguments.broker,
        store=arguments.store,
        datadir=directory,
        topic_partitions=1,
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        producer_linger=0.005,
        web_enabled=False,
    )
    payments = app.topic(arguments.topic, key_type=bytes, value_serializer="json")
    decisions = app.topic(f"{name}-decisions", key_type=str, value_serializer="json")
    tables = {entity: app.Table(entity, key_type=str, default=list) for entity in ENTITIES}

    @app.agent(payments)
    async def score(stream: faust.StreamT[Any]) -> None:
        async for payment in stream:
            if run.seen == 0:
                run.start()
            now, amount = payment["event_time"], payment["amount"]
            features: dict[str, float] = {}
            for entity, table in tables.items():
                key = payment.get(entity)
                if key is None:
                    continue
                events = table[key]
                insort(events, [now, amount])
                oldest = bisect_right(events, [events[-1][0] - WINDOWS_MS["7d"], sys.maxsize])
                del events[: max(oldest, len(events) - KEPT_EVENTS)]
                table[key] = events
                velocity(events, entity, now, features)
            delivery = await decisions.send(key=payment["payment_id"], value=decide(payment, features))
            run.seen += 1
            if run.seen == run.wanted:
                await delivery
                run.stop()

    return app


async def fill(broker: str, topic: str, count: int) -> None:
    """Send payments as WORKLOADS describes them for load: Zipf-like cards, a few very hot merchants."""
    draw = random.Random(7)  # noqa: S311 - test data, repeatable
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.removeprefix("kafka://"), linger_ms=20, compression_type="lz4"
    )
    await producer.start()
    merchants = list(accumulate(1.0 / rank for rank in range(1, 5_001)))
    now = int(time.time() * 1_000) - count * 605
    for number in range(count):
        card = min(int(draw.paretovariate(0.5)), 200_000 * 4) % 200_000
        late = draw.randrange(1_000, 5_000) if draw.random() < 0.01 else 0
        payment = {
            "payment_id": f"p{number}",
            "event_time": now + number * 605 - late,
            "amount": 100 + int(draw.expovariate(1 / 4_000)),
            "currency": "EUR",
            "card": f"card-{card}",
            "customer": f"customer-{card // 2}",
            "merchant": f"merchant-{draw.choices(range(5_000), cum_weights=merchants)[0]}",
            "device": f"device-{draw.randrange(250_000)}",
            "ip": f"10.{number % 4}.{draw.randrange(300)}.{draw.randrange(250)}",
        }
        await producer.send(topic, json.dumps(payment).encode(), key=str(payment["payment_id"]).encode())
    await producer.stop()


async def measure(arguments: argparse.Namespace, name: str) -> Run:
    """Run the app until the last decision is confirmed."""
    run = Run(arguments.payments)
    if arguments.fill:
        await fill(arguments.broker, arguments.topic, arguments.payments)
    with tempfile.TemporaryDirectory(prefix="plain-faust-") as directory:
        app = build(arguments, name, directory, run)
        await app.start()
        try:
            await asyncio.wait_for(run.done.wait(), arguments.timeout)
        finally:
            await app.stop()
    return run


def clean(broker: str, names: tuple[str, ...]) -> None:
    """Delete the topics this run created: those whose names begin with one of these."""
    admin = KafkaAdminClient(bootstrap_servers=broker.removeprefix("kafka://"))
    try:
        ours = [topic for topic in admin.list_topics() if topic.startswith(names)]
        if ours:
            admin.delete_topics(ours)
    finally:
        admin.close()


def report(arguments: argparse.Namespace, run: Run) -> dict[str, Any]:
    """Return the figures with what they need to be read."""
    return {
        "job": "plain-faust",
        "payments": run.seen,
        "payments_per_second": round(run.seen / run.seconds, 1),
        "cpu_us_per_payment": round(run.cpu_seconds / run.seen * 1e6, 1),
        "features": len(ENTITIES) * len(WINDOWS_MS) * 2,
        "store": arguments.store,
        "cores": len(os.sched_getaffinity(0)),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("faust-streaming", "aiokafka", "rocksdict")},
        },
        "command": " ".join(sys.argv),
    }


def main() -> int:
    """Measure, clean up, print one JSON line last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--broker", default="kafka://localhost:9092", help="kafka://host:port")
    parser.add_argument("--payments", type=int, default=20_000, help="payments to process")
    parser.add_argument("--prefix", default="plain-faust-", help="in front of every topic this run creates")
    parser.add_argument("--topic", help="payments topic that exists already, one partition")
    parser.add_argument(
        "--fill", action="store_true", help="generate the payments first, in a topic of its own"
    )
    parser.add_argument("--store", default="rocksdb://?driver=rocksdict", help="or memory://")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the last decision")
    arguments = parser.parse_args()
    if arguments.fill == bool(arguments.topic):
        parser.error("give either --fill or --topic NAME")
    if arguments.payments < 1:
        parser.error("--payments: expected at least 1")
    name = f"{arguments.prefix}{time.time_ns()}"
    arguments.topic = arguments.topic or f"{name}-payments"
    try:
        run = asyncio.run(measure(arguments, name))
    except TimeoutError:
        print(f"not all of {arguments.payments} payments came within {arguments.timeout} s", file=sys.stderr)
        return 1
    finally:
        clean(arguments.broker, (name,))
    print(json.dumps(report(arguments, run)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
