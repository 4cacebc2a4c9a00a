"""Measures workers as processes of their own: throughput, latency at a fixed rate, memory."""

import asyncio
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamer.batch import Outgoing
from streamer.bench_worker import core_of, pinned, running, throughput, throughput_of_all
from streamer.errors import ConfigError, StreamerError
from streamer.generate import outgoing
from streamer.job import Guarantee
from streamer.settings import Settings
from streamer.simulator import Encoded
from streamer.simulator.places import rates_csv
from streamer.state.store import BLOCKS, Store
from streamer.transport.connect import Connection, connect
from streamer.transport.seam import TopicSpec
from streamer.workloads import CHUNK, Workload

NEWEST = b"\xff\xff\xff\xff"
"""The end of the row key of a key's newest block."""

PLAIN_FAUST = Path("scripts/bench/plain_faust.py")

SETTLE_S = 2.0
TURN_S = 0.005

PATIENCE_MS = 120_000
"""Of the group with workers that stand still while payments are sent."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BenchJob:
    """One measurement: `rate` payments per second held for `seconds`, `memory` a budget such as "256MiB"."""

    broker: str
    payments: int
    rate: float
    seconds: float
    memory: str | None
    bad: float
    """Share of the payments that are broken."""
    plain_faust: int
    """Payments for the plain Faust job of scripts/bench, measured in the same run; 0: none."""
    settings: Settings
    command: str
    partitions: int = 1
    workers: int = 1
    guarantee: Guarantee = "at_least_once"

    def __post_init__(self) -> None:
        """Refuse what the log cannot do."""
        if not self.on_kafka and (self.partitions > 1 or self.workers > 1):
            raise ConfigError(
                f"expected one partition and one worker on {self.broker}, got {self.partitions} and"
                f" {self.workers}; only Kafka shares work out, name it with --broker kafka://host:port"
            )
        if self.workers > self.partitions:
            raise ConfigError(
                f"expected at most as many workers as partitions, got {self.workers} for {self.partitions};"
                " the others would stand by"
            )

    @property
    def on_kafka(self) -> bool:
        """Whether the log is Kafka."""
        return self.broker.startswith("kafka:")

    @property
    def cores(self) -> list[int]:
        """The core that each worker is held to; the broker and the bench itself float."""
        return [core_of(number) for number in range(self.workers)]


def bench(job: BenchJob, workload: Workload, say: Say) -> Mapping[str, object]:
    """Measure `workload` and return the figures."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    # The latency phase goes on where the throughput phase ends, so that event time does too.
    extra = int(job.rate * job.seconds) if job.on_kafka else 0
    source = _Source(spoiled(workload.payments(job.payments + extra), job.bad))
    with tempfile.TemporaryDirectory(prefix="streamer-bench-") as directory:
        topic, state = prefix + "payments", Path(directory) / "state"
        with connect(job.broker, job.settings) as connection:
            specs = [TopicSpec(prefix + name, job.partitions) for name in ("payments", "outcomes")]
            connection.admin().create(specs)
            if job.partitions == 1:
                asyncio.run(_fill(connection, topic, source.take(job.payments)))

        def fill(payments: int) -> None:
            with connect(job.broker, job.settings) as connection:
                asyncio.run(_fill(connection, topic, source.take(payments)))

        say(f"{job.payments:,} payments for topic {topic}")
        arguments = [workload.topology, "--broker", job.broker, "--group", prefix + "group"]
        arguments += ["--guarantee", job.guarantee]
        with running(arguments, _environment(job, prefix, Path(directory)), state, job.workers) as workers:
            if job.partitions == 1:
                figures = throughput(workers, job.payments, job.broker)
            else:
                figures = throughput_of_all(workers, job.payments, job.broker, fill)
            say(f"{figures['payments_per_second']:,} payments/s on {len({*job.cores})} core(s)")
            if extra:
                figures |= asyncio.run(_latency(job, prefix, source.take(extra)))
            figures["peak_rss_mb"] = sum(worker.peak_rss_mb() for worker in workers)
        if job.workers == 1:
            figures |= _state(state / "0", job.payments + extra)
        if job.plain_faust:
            figures["plain_faust"] = _plain_faust(job, say)
        return {
            "workload": workload.name,
            **figures,
            "partitions": job.partitions,
            "workers": job.workers,
            "cores": job.cores,
            "guarantee": job.guarantee,
            "changelog": job.settings.state.changelog if job.on_kafka else "off",
            "bad_share": job.bad,
            "memory_budget": job.memory or "default",
            "versions": _versions(),
            "command": job.command,
        }


def _environment(job: BenchJob, prefix: str, directory: Path) -> dict[str, str]:
    """The environment of the workers: ours, with topics of this measurement."""
    rates = directory / "rates.csv"
    rates.write_text(rates_csv())
    environment = os.environ | {
        "STREAMER_TOPICS_PREFIX": prefix,
        "STREAMER_WEB_PORT": "0",
        "STREAMER_RATES_FILE": str(rates),
        "STREAMER_STATE_CHANGELOG": job.settings.state.changelog,
    }
    if job.partitions > 1:
        environment["STREAMER_KAFKA_SESSION_TIMEOUT_MS"] = str(PATIENCE_MS)
    if job.memory is not None:
        environment["STREAMER_STATE_MEMORY_BUDGET"] = job.memory
    return environment


def spoiled(chunks: Iterator[Encoded], share: float) -> Iterator[Encoded]:
    """Break so large a share of the payments, evenly spread, by cutting off their second half."""
    due = 0.0
    for chunk in chunks:
        values = list(chunk.values)
        for row, value in enumerate(values):
            due += share
            if due >= 1.0:
                due -= 1.0
                values[row] = value[: len(value) // 2]
        yield Encoded(chunk.keys, values, chunk.times)


def _plain_faust(job: BenchJob, say: Say) -> Mapping[str, object]:
    """The same job as a Faust user writes it, on the same core of the same machine at the same time."""
    if not PLAIN_FAUST.is_file():
        raise ConfigError(f"{PLAIN_FAUST} is not here: run from a checkout, or pass --plain-faust 0")
    command = [*pinned(core_of(0)), sys.executable, str(PLAIN_FAUST), "--broker", job.broker, "--fill"]
    done = subprocess.run(  # noqa: S603 - our own program
        [*command, "--payments", str(job.plain_faust)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StreamerError(f"{PLAIN_FAUST} failed: {done.stderr[-500:]}")
    figures: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    say(f"{figures['payments_per_second']} payments/s for the plain Faust job on one core")
    return {name: figures[name] for name in ("payments", "payments_per_second", "cpu_us_per_payment")}


class _Source:
    """Payments that are drawn piece by piece."""

    def __init__(self, chunks: Iterator[Encoded]) -> None:
        self._chunks = chunks
        self._left = Encoded([], [], [])

    def take(self, payments: int) -> Encoded:
        """The next so many."""
        keys, values, times = [*self._left.keys], [*self._left.values], [*self._left.times]
        while len(keys) < payments:
            chunk = next(self._chunks)
            keys += chunk.keys
            values += chunk.values
            times += chunk.times
        self._left = Encoded(keys[payments:], values[payments:], times[payments:])
        return Encoded(keys[:payments], values[:payments], times[:payments])


async def _fill(connection: Connection, topic: str, payments: Encoded) -> None:
    """Send payments as fast as it goes."""
    publisher = connection.publisher()
    await publisher.start()
    try:
        for first in range(0, len(payments), CHUNK):
            part = slice(first, first + CHUNK)
            chunk = Encoded(payments.keys[part], payments.values[part], payments.times[part])
            await (await publisher.send(outgoing(topic, chunk)))
    finally:
        await publisher.stop()


async def _latency(job: BenchJob, prefix: str, payments: Encoded) -> dict[str, object]:
    """Send at the rate, then compare the record timestamps of decisions with those of their payments."""
    topic, wanted = prefix + "payments", len(payments)
    keys, values = payments.keys, payments.values
    with connect(job.broker, job.settings) as connection:
        admin = connection.admin()
        starts = {name: admin.end_offsets(name) for name in (topic, prefix + "decisions")}
        publisher = connection.publisher()
        await publisher.start()
        try:
            await asyncio.sleep(SETTLE_S)
            began, sent = time.monotonic(), 0
            while sent < wanted:
                due = min(wanted, int((time.monotonic() - began + TURN_S) * job.rate))
                if due > sent:
                    part = Outgoing(topic, None, [*keys[sent:due]], [*values[sent:due]], [()] * (due - sent))
                    await publisher.send(part)
                    sent = due
                await asyncio.sleep(TURN_S)
            seconds = time.monotonic() - began
        finally:
            await publisher.stop()
        await asyncio.sleep(SETTLE_S)
        asked = await _times(connection, topic, starts[topic])
        answered = await _times(connection, prefix + "decisions", starts[prefix + "decisions"])
        admin.close()
    missing = len(asked.keys() - answered.keys())
    if missing and not job.bad:
        raise StreamerError(f"{missing} of {len(asked)} payments had no decision {SETTLE_S} s after the last")
    latency: npt.NDArray[np.float64] = np.array(
        [answered[key] - asked[key] for key in asked.keys() & answered.keys()], np.float64
    )
    p50, p99, p999 = np.percentile(latency, (50, 99, 99.9))
    return {
        "latency_rate": round(wanted / seconds),
        "latency_p50_ms": float(p50),
        "latency_p99_ms": float(p99),
        "latency_p999_ms": float(p999),
    }


async def _times(connection: Connection, topic: str, starts: Mapping[int, int]) -> dict[bytes | None, int]:
    """The record timestamps, in ms, by key."""
    times: dict[bytes | None, int] = {}
    async for records in connection.tail(topic, starts):
        times |= zip(records.keys, records.timestamps, strict=True)
    return times


def _state(directory: Path, payments: int) -> dict[str, object]:
    """What a stopped worker left on disk; blocks are keys' events, beside them are decided batches."""
    keys = taken = 0
    entities = set()
    for shard in sorted(directory.glob("shard-*")) or [directory]:
        with Store.open(shard) as store:
            for key, value in store.scan(BLOCKS):
                taken += len(key) + len(value)
                keys += key.endswith(NEWEST)
                entities.add(key[1:5])
    return {
        "state_bytes": _size(directory),
        "stored_keys": keys,
        "block_bytes_per_key": round(taken / max(keys, 1), 1),
        "block_bytes_per_event": round(taken / max(payments * len(entities), 1), 1),
    }


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _versions() -> dict[str, str]:
    packages = ("streamer", "faust-streaming", "aiokafka", "rocksdict", "numba", "numpy")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in packages
    }
