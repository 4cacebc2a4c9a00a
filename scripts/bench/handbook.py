"""Sends the handbook's payments through a real worker and compares the ids: none missing, none twice.

The last line is one JSON object. With --compare the same payments go through `log://` too, with models that
have learned before and stay as they are, and the decisions are compared byte for byte. Record timestamps are
those of the run: no payment is from the future.

python scripts/bench/handbook.py --broker kafka://localhost:9092 --payments data/handbook/payments.parquet
"""

import argparse
import asyncio
import base64
import hashlib
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streamer.batch import Outgoing
from streamer.settings import Settings, Topics
from streamer.state.log import Log
from streamer.transport.connect import connect
from streamer.transport.seam import TopicSpec

CHUNK = 2_000
TRAINED = """# The topology with models that have learned before.
import random
import runpy

topology = runpy.run_path({path!r})["topology"]
chance = random.Random(7)
for model in topology.models:
    for _ in range(200):
        row = {{name: chance.lognormvariate(2.0, 1.0) for name in model.features}}
        model.learner.learn_one(row, chance.random() < 0.5)
"""
UNDER_WAY = 8
POLL_S = 0.1
ADDRESS = re.compile(r"metrics and health at (\S+)")
COLUMNS = ["transaction_id", "tx_datetime", "customer_id", "terminal_id", "amount"]


@dataclass(frozen=True)
class Run:
    """One log, one worker, topics with a prefix of their own, a directory for everything else."""

    broker: str
    topology: str
    prefix: str
    directory: Path
    timeout_s: float
    fixed: bool
    """Whether the models stay as they are declared."""

    @property
    def settings(self) -> Settings:
        """Default settings but for the topics."""
        return Settings(topics=Topics(prefix=self.prefix))

    @property
    def decisions(self) -> Path:
        """Where the values of the decisions are kept, one a line, as they were read."""
        return self.directory / "decisions.ndjson"


def events(file: Path, limit: int | None) -> Iterator[tuple[int, bytes]]:
    """Each payment's id and its JSON event; amounts become minor units."""
    batches = pq.ParquetFile(file).iter_batches(CHUNK, columns=COLUMNS)
    rows = itertools.chain.from_iterable(_rows(batch) for batch in batches)
    for payment_id, event_time, customer, terminal, amount in itertools.islice(rows, limit):
        yield (
            payment_id,
            (
                b'{"payment_id":"%d","event_time":%d,"amount":%d,"currency":"EUR","customer":"%d","merchant":"%d"}'
                % (payment_id, event_time, amount, customer, terminal)
            ),
        )


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[int, ...]]:
    columns = [batch.column(name) for name in COLUMNS]
    columns[1] = columns[1].cast(pa.timestamp("ms")).cast(pa.int64())
    columns[4] = pc.round(pc.multiply(columns[4], 100.0)).cast(pa.int64())
    return zip(*(column.to_pylist() for column in columns), strict=True)


async def send(run: Run, file: Path, limit: int | None) -> list[int]:
    """Create the topics and send all payments in order; answers their ids."""
    topics = run.settings.topics.resolved
    ids: list[int] = []
    with connect(run.broker, run.settings) as connection:
        admin = connection.admin()
        admin.create([TopicSpec(topics.payments), TopicSpec(topics.outcomes)])
        admin.close()
        publisher = connection.publisher()
        await publisher.start()
        under_way: list[Awaitable[None]] = []
        source = events(file, limit)
        while chunk := list(itertools.islice(source, CHUNK)):
            outgoing = Outgoing(topics.payments, 0)
            for payment_id, event in chunk:
                outgoing.append(b"%d" % payment_id, event)
            ids.extend(payment_id for payment_id, _ in chunk)
            under_way.append(await publisher.send(outgoing))
            if len(under_way) > UNDER_WAY:
                await under_way.pop(0)
        for delivery in under_way:
            await delivery
        await publisher.stop()
    return ids


def work(run: Run, payments: int) -> float:
    """Run a worker until it has answered all payments; answers the seconds from its first to its last."""
    command = [sys.executable, "-m", "streamer", "run", run.topology, "--broker", run.broker]
    command += ["--state", str(run.directory / "state"), "--group", f"{run.prefix}worker"]
    env = os.environ | {"STREAMER_TOPICS_PREFIX": run.prefix, "STREAMER_WEB_PORT": "0"}
    if run.fixed:
        env["STREAMER_MODELS_SNAPSHOT_INTERVAL_MS"] = str(round(2_000 * run.timeout_s))
    errors = run.directory / "stderr"
    with errors.open("wb") as stream:
        worker = subprocess.Popen(command, env=env, stderr=stream)  # noqa: S603 - our own command
    began = deadline = time.monotonic()
    deadline += run.timeout_s
    answered = first = 0.0
    try:
        while answered < payments:
            time.sleep(POLL_S)
            if worker.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(
                    f"the worker answered {answered:.0f} of {payments} payments: {errors.read_text()}"
                )
            answered = taken(errors.read_text())
            if not first:
                began, first = time.monotonic(), answered
        seconds = time.monotonic() - began
        worker.send_signal(signal.SIGTERM)
        if worker.wait(run.timeout_s):
            raise SystemExit(f"the worker ended with {worker.returncode}: {errors.read_text()}")
    finally:
        worker.kill()
        worker.wait()
    return seconds * payments / max(1.0, payments - first)


def taken(stderr: str) -> float:
    """The payment records that the worker has taken in, by its metrics."""
    address = ADDRESS.search(stderr)
    if address is None:
        return 0.0
    with urllib.request.urlopen(f"{address[1]}/metrics", timeout=10) as page:  # noqa: S310 - loopback
        found = re.search(r"^streamer_payments_total (\S+)$", page.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


async def read(run: Run, topic: str) -> AsyncIterator[bytes]:
    """The values of a topic's only partition, in order."""
    if run.broker.startswith("log://"):
        with Log.open(Path(run.broker.removeprefix("log://"))) as log:
            offset = 0
            while offset < log.end_offset(topic, 0):
                records = log.fetch(topic, 0, offset)
                offset = records.offsets[-1] + 1
                for value in records.values:
                    yield value or b""
        return
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=run.broker.removeprefix("kafka://"))
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            for fetched in (await consumer.getmany(timeout_ms=1_000)).values():
                for record in fetched:
                    yield record.value or b""
    finally:
        await consumer.stop()


async def judge(run: Run, ids: list[int]) -> dict[str, Any]:
    """Read all answers and compare their ids with those sent."""
    topics = run.settings.topics.resolved
    decided: Counter[int] = Counter()
    digest = hashlib.sha256()
    with run.decisions.open("wb") as kept:
        async for value in read(run, topics.decisions):
            decided[int(json.loads(value)["payment_id"])] += 1
            digest.update(value)
            kept.write(value + b"\n")
    codes = Counter([json.loads(value)["code"] async for value in read(run, topics.payments_rejected)])
    return {
        "broker": run.broker.partition("://")[0],
        "payments": len(ids),
        "decisions": decided.total(),
        "missing": len(set(ids) - decided.keys()),
        "twice": sum(times > 1 for times in decided.values()),
        "foreign": len(decided.keys() - set(ids)),
        "rejected": dict(codes),
        "sha256": digest.hexdigest(),
    }


def once(run: Run, arguments: argparse.Namespace) -> dict[str, Any]:
    """Send, work, read and compare on one log; its topics are gone afterwards."""
    try:
        ids = asyncio.run(send(run, arguments.payments, arguments.limit))
        seconds = work(run, len(ids))
        return asyncio.run(judge(run, ids)) | {"payments_per_second": round(len(ids) / seconds)}
    finally:
        if run.broker.startswith("kafka://"):
            asyncio.run(clean(run))


async def clean(run: Run) -> None:
    """Delete the topics of this run."""
    admin = AIOKafkaAdminClient(bootstrap_servers=run.broker.removeprefix("kafka://"))
    await admin.start()
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if name.startswith(run.prefix)])
    finally:
        await admin.close()


def first_difference(one: Path, other: Path) -> str | None:
    """The first pair of lines that are not the same bytes."""
    with one.open("rb") as left, other.open("rb") as right:
        for number, (a, b) in enumerate(itertools.zip_longest(left, right)):
            if a != b:
                return f"decision {number}: {a!r} and {b!r}"
    return None


def main() -> int:
    """Run on one log or on two, print one JSON line; exit status 1 unless every payment has one decision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--broker", required=True, help="kafka://host:port or log://DIR")
    parser.add_argument("--payments", required=True, type=Path, help="the handbook's payments.parquet")
    parser.add_argument("--limit", type=int, help="only so many payments; default all")
    parser.add_argument("--topology", default="topologies/handbook.py", help="a topology file")
    parser.add_argument(
        "--compare", action="store_true", help="through log:// in a temporary directory as well"
    )
    parser.add_argument("--timeout", type=float, default=1_800.0, help="seconds that a worker may take")
    arguments = parser.parse_args()
    prefix = f"handbook-{base64.b32encode(os.urandom(5)).decode().lower()}-"
    with tempfile.TemporaryDirectory(prefix=prefix) as temporary:
        brokers = [arguments.broker] + [f"log://{temporary}/log"] * arguments.compare
        topology = arguments.topology
        if arguments.compare:
            topology = str(Path(temporary) / "trained.py")
            Path(topology).write_text(TRAINED.format(path=str(Path(arguments.topology).resolve())))
        runs = [
            Run(broker, topology, prefix, Path(temporary) / str(number), arguments.timeout, arguments.compare)
            for number, broker in enumerate(brokers)
        ]
        found = []
        for run in runs:
            run.directory.mkdir()
            found.append(once(run, arguments))
        difference = first_difference(runs[0].decisions, runs[-1].decisions)
    exact = all(each["payments"] == each["decisions"] and not each["missing"] for each in found)
    report = {"job": "handbook", "exact": exact, "runs": found}
    if arguments.compare:
        report |= {"identical": difference is None, "difference": difference}
    names = ("streamer", "numpy", "numba", "aiokafka", "rocksdict")
    report["versions"] = {"python": platform.python_version()} | {name: version(name) for name in names}
    report["command"] = " ".join(sys.argv)
    print(json.dumps(report))
    return 0 if exact and difference is None else 1


if __name__ == "__main__":
    sys.exit(main())
