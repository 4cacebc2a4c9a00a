"""Measures a worker of its own process: throughput on one core, latency at a fixed rate, memory."""

import asyncio
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamer.batch import Outgoing
from streamer.errors import ConfigError, StreamerError
from streamer.generate import outgoing
from streamer.settings import Settings
from streamer.simulator import Encoded
from streamer.simulator.places import rates_csv
from streamer.state.store import BLOCKS, Store
from streamer.transport.connect import Connection, connect
from streamer.transport.seam import TopicSpec
from streamer.workloads import Workload

CORE = "0"
"""The processor that the worker is held to; the broker and the bench itself float."""

WARM_SHARE = 0.1
"""The first part of the payments, not counted: caches and kernels warm up."""

NEWEST = b"\xff\xff\xff\xff"
"""The end of the row key of a key's newest block."""

PLAIN_FAUST = Path("scripts/bench/plain_faust.py")

SETTLE_S = 2.0
TURN_S = 0.005

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


def bench(job: BenchJob, workload: Workload, say: Say) -> Mapping[str, object]:
    """Measure `workload` and return the figures."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}-"
    # The latency phase goes on where the throughput phase ends, so that event time does too.
    extra = int(job.rate * job.seconds) if job.broker.startswith("kafka:") else 0
    with tempfile.TemporaryDirectory(prefix="streamer-bench-") as directory:
        topic = prefix + "payments"
        with connect(job.broker, job.settings) as connection:
            connection.admin().create([TopicSpec(topic), TopicSpec(prefix + "outcomes")])
            source = spoiled(workload.payments(job.payments + extra), job.bad)
            held = asyncio.run(_fill(connection, topic, source, job.payments))
        say(f"{job.payments:,} payments in topic {topic}")
        with _worker(job, workload, prefix, Path(directory)) as worker:
            figures = _throughput(worker, job.payments)
            say(f"{figures['payments_per_second']:,} payments/s on one core")
            if extra:
                figures |= asyncio.run(_latency(job, prefix, held, source))
            figures["peak_rss_mb"] = worker.peak_rss_mb()
        figures |= _state(Path(directory) / "state", job.payments + extra)
        if job.plain_faust:
            figures["plain_faust"] = _plain_faust(job, say)
        return {
            "workload": workload.name,
            **figures,
            "bad_share": job.bad,
            "memory_budget": job.memory or "default",
            "versions": _versions(),
            "command": job.command,
        }


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
    pin = ["taskset", "-c", CORE] if shutil.which("taskset") else []
    command = [*pin, sys.executable, str(PLAIN_FAUST), "--broker", job.broker, "--fill"]
    done = subprocess.run(  # noqa: S603 - our own program
        [*command, "--payments", str(job.plain_faust)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StreamerError(f"{PLAIN_FAUST} failed: {done.stderr[-500:]}")
    figures: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    say(f"{figures['payments_per_second']} payments/s for the plain Faust job on one core")
    return {name: figures[name] for name in ("payments", "payments_per_second", "cpu_us_per_payment")}


@dataclass(slots=True)
class _Worker:
    """A worker in a process of its own, watched through its metrics."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    def sample(self) -> dict[str, float]:
        """The values of all series without labels, and of the stages."""
        if self.process.poll() is not None:
            raise StreamerError("the worker ended early: " + " ".join(self.lines[-5:]))
        with urllib.request.urlopen(self.url + "/metrics", timeout=30) as page:  # noqa: S310 - our own loopback URL
            text = page.read().decode()
        return {
            name + (label or ""): float(value)
            for name, label, value in re.findall(r'^(\w+)(?:{stage="(\w+)"})? (\S+)$', text, re.MULTILINE)
        }

    def peak_rss_mb(self) -> int:
        """The most memory it ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) // 1024 if found else 0


@contextmanager
def _worker(job: BenchJob, workload: Workload, prefix: str, directory: Path) -> Iterator[_Worker]:
    rates = directory / "rates.csv"
    rates.write_text(rates_csv())
    environment = os.environ | {
        "STREAMER_TOPICS_PREFIX": prefix,
        "STREAMER_WEB_PORT": "0",
        "STREAMER_RATES_FILE": str(rates),
    }
    if job.memory is not None:
        environment["STREAMER_STATE_MEMORY_BUDGET"] = job.memory
    pin = ["taskset", "-c", CORE] if shutil.which("taskset") else []
    arguments = ["run", workload.topology, "--broker", job.broker, "--state", str(directory / "state")]
    process = subprocess.Popen(  # noqa: S603 - our own program
        [*pin, sys.executable, "-m", "streamer", *arguments, "--group", prefix + "group"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    url = ""
    try:
        assert process.stderr is not None  # noqa: S101 - asked for above
        for line in process.stderr:
            lines.append(line.strip())
            found = re.search(r"http://\S+", line)
            if found:
                url = found[0]
                break
        if not url:
            raise StreamerError("the worker did not start: " + " ".join(lines))
        threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True).start()
        yield _Worker(process, url, lines)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


async def _fill(
    connection: Connection, topic: str, source: Iterator[Encoded], payments: int
) -> list[Encoded]:
    """Send the first `payments`; answers what was drawn beyond them."""
    publisher = connection.publisher()
    await publisher.start()
    sent = 0
    try:
        while sent < payments:
            chunk = next(source)
            now = min(len(chunk), payments - sent)
            await (await publisher.send(outgoing(topic, _part(chunk, 0, now))))
            sent += now
        return [_part(chunk, now, len(chunk))]
    finally:
        await publisher.stop()


def _part(chunk: Encoded, start: int, end: int) -> Encoded:
    return Encoded(chunk.keys[start:end], chunk.values[start:end], chunk.times[start:end])


def _throughput(worker: _Worker, payments: int) -> dict[str, object]:
    samples = []
    while True:
        sample = worker.sample()
        samples.append((time.perf_counter(), sample))
        if sample["streamer_payments_total"] >= payments:
            break
        time.sleep(0.1)
    start_time, start = next(
        item for item in samples if item[1]["streamer_payments_total"] >= payments * WARM_SHARE
    )
    end_time, end = samples[-1]
    n = end["streamer_payments_total"] - start["streamer_payments_total"]
    if n <= 0:
        raise ConfigError(
            "too few payments for a figure: all were decided between two looks; raise --payments"
        )
    stages = {
        name.removeprefix("streamer_stage_seconds_total"): round(
            (end[name] - start.get(name, 0.0)) / n * 1e6, 2
        )
        for name in end
        if name.startswith("streamer_stage_seconds_total")
    }
    cpu = end["process_cpu_seconds_total"] - start["process_cpu_seconds_total"]
    return {
        "payments": payments,
        "payments_per_second": round(n / (end_time - start_time)),
        "cpu_us_per_payment": round(cpu / n * 1e6, 2),
        "stage_us_per_payment": stages,
    }


async def _latency(
    job: BenchJob, prefix: str, held: list[Encoded], source: Iterator[Encoded]
) -> dict[str, object]:
    """Send at the rate, then compare the record timestamps of decisions with those of their payments."""
    topic = prefix + "payments"
    wanted = int(job.rate * job.seconds)
    keys, values = [], []
    for chunk in (*held, *source):
        keys.extend(chunk.keys)
        values.extend(chunk.values)
    with connect(job.broker, job.settings) as connection:
        admin = connection.admin()
        starts = {name: admin.end_offsets(name)[0] for name in (topic, prefix + "decisions")}
        publisher = connection.publisher()
        await publisher.start()
        try:
            await asyncio.sleep(SETTLE_S)
            began, sent = time.monotonic(), 0
            while sent < wanted:
                due = min(wanted, int((time.monotonic() - began + TURN_S) * job.rate))
                if due > sent:
                    part = Outgoing(topic, 0, [*keys[sent:due]], [*values[sent:due]], [()] * (due - sent))
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


async def _times(connection: Connection, topic: str, start: int) -> dict[bytes | None, int]:
    """The record timestamps, in ms, by key."""
    times: dict[bytes | None, int] = {}
    async for records in connection.tail(topic, {0: start}):
        times |= zip(records.keys, records.timestamps, strict=True)
    return times


def _state(directory: Path, payments: int) -> dict[str, object]:
    """What a stopped worker left on disk; blocks are keys' events, beside them are decided batches."""
    keys = taken = 0
    with Store.open(directory) as store:
        entities = set()
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
