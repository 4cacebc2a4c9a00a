"""How long a worker with a large state is silent: killed and started again, with its state and without."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from streamer.generate import outgoing
from streamer.settings import Settings
from streamer.simulator import Encoded
from streamer.simulator.places import rates_csv
from streamer.transport.connect import connect
from streamer.workloads import WORKLOADS
from tests.end_to_end.logs import KafkaPlace
from tests.end_to_end.worker import Worker, environment, running

ENTITIES = 5
"""Of the topology: each counts a payment as an event of its own."""

NEW = 2_000
"""Payments that come while the worker is dead."""

LOOK_S = 0.05
STALLED_S = 120.0

Figures = dict[str, float]


@dataclass
class _Job:
    """Topics of their own, a state directory, and how many payments have been sent."""

    place: KafkaPlace
    directory: Path
    payments: Iterator[Encoded]
    sent: int = 0

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        rates = self.directory / "rates.csv"
        rates.write_text(rates_csv())
        arguments = ["run", WORKLOADS["payments"].topology, "--broker", self.place.url]
        arguments += ["--state", str(self.state), "--group", f"{self.place.prefix}group"]
        env = environment(self.place.prefix, RATES_FILE=str(rates))
        with running(arguments, env, self.directory / "stderr") as worker:
            yield worker

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def send(self, payments: int) -> None:
        asyncio.run(self._send(payments))

    async def _send(self, payments: int) -> None:
        with connect(self.place.url, Settings()) as connection:
            publisher = connection.publisher()
            await publisher.start()
            end = self.sent + payments
            try:
                while self.sent < end:
                    chunk = next(self.payments)
                    await (await publisher.send(outgoing(f"{self.place.prefix}payments", chunk)))
                    self.sent += len(chunk)
            finally:
                await publisher.stop()

    def silence(self, worker: Worker, began: float) -> float:
        """Seconds from `began` (Unix) to the first decision after it, which `worker` has still to make."""
        deadline = time.monotonic() + STALLED_S
        while (first := asyncio.run(self._first_decision(began))) is None:
            _check(worker)
            if time.monotonic() > deadline:
                raise AssertionError(f"no decision in {STALLED_S} s: {worker.stderr}")
        return round(first - began, 2)

    async def _first_decision(self, moment: float) -> float | None:
        topic = f"{self.place.prefix}decisions"
        with connect(self.place.url, Settings()) as connection:
            end = connection.admin().end_offsets(topic)[0]
            async for records in connection.tail(topic, {0: max(0, end - 10 * NEW)}):
                for timestamp in records.timestamps:
                    if timestamp / 1_000 >= moment:
                        return timestamp / 1_000
        return None


def measure(server: str, events: int, directory: Path) -> Figures:
    """Fill a state with so many events of entities, then kill: seconds of silence, speed of the restore.

    Raises AssertionError for a worker that ends by itself or gets no further.
    """
    place = KafkaPlace(server, f"reliability-{uuid4().hex[:12]}-")
    payments = events // ENTITIES
    with place.topics():
        job = _Job(place, directory, WORKLOADS["payments"].payments(payments + 4 * NEW))
        job.send(payments)
        with job.worker() as worker:
            _wait_decided(worker, payments)
            worker.kill()
        size = sum(path.stat().st_size for path in job.state.rglob("*") if path.is_file())
        figures = {
            "events": float(payments * ENTITIES),
            "state_mb": round(size / 1e6),
            "pause_with_state_s": _pause(job),
        }
        shutil.rmtree(job.state)
        began = time.time()
        job.send(NEW)
        with job.worker() as worker:
            seconds, rows = _watch_restore(worker)
            pause = job.silence(worker, began)
            worker.stop()
        figures |= {
            "pause_from_changelog_s": pause,
            "restore_s": round(seconds, 2),
            "restore_rows": rows,
            "restore_rows_per_s": round(rows / seconds),
            "restore_events_per_s": round(payments * ENTITIES / seconds),
        }
    return figures


def _pause(job: _Job) -> float:
    """Payments come to a dead worker: seconds from its kill to the first decision on them."""
    began = time.time()
    job.send(NEW)
    with job.worker() as worker:
        return job.silence(worker, began)


def _wait_decided(worker: Worker, payments: int) -> None:
    last, since = -1.0, time.monotonic()
    while last < payments:
        time.sleep(LOOK_S)
        _check(worker)
        decided = worker.metric("streamer_decisions_total") or 0.0
        if decided > last:
            last, since = decided, time.monotonic()
        elif time.monotonic() - since > STALLED_S:
            raise AssertionError(f"no decision in {STALLED_S} s: {worker.stderr}")


def _watch_restore(worker: Worker) -> tuple[float, float]:
    """Seconds from the last look at which no row had come to the first at which all had, and the rows."""
    began = ended = time.monotonic()
    rows = 0.0
    while not (decided := worker.metric("streamer_decisions_total")):
        time.sleep(LOOK_S)
        _check(worker)
        now, found = time.monotonic(), worker.metric("streamer_restore_rows") or 0.0
        if not found:
            began = now
        elif found > rows:
            rows, ended = found, now
    if not rows:
        raise AssertionError(f"expected a restore before {decided:.0f} decisions, saw none; raise --events")
    return ended - began, rows


def _check(worker: Worker) -> None:
    if worker.process.poll() is not None:
        raise AssertionError(
            f"expected a worker at work, got exit status {worker.process.returncode}: {worker.stderr}"
        )
