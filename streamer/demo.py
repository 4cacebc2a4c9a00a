"""The demo: simulated payments into an embedded log, the whole app on it, and what came of it."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from streamer.agents import Agents
from streamer.events import Decision
from streamer.generate import outgoing
from streamer.job import Job, Site, prepare_topics
from streamer.loading import DEFAULT, load_topology
from streamer.metrics import Metrics
from streamer.quality import average_precision, roc_auc
from streamer.settings import Commit, Models, Rates, Settings
from streamer.simulator import Scenario, Simulator
from streamer.simulator.places import rates_csv
from streamer.state.log import Log
from streamer.transport.connect import connect
from streamer.transport.seam import Publisher
from streamer.worker import quiet, serve

CHUNK = 500
"""Payments sent at once; the next ones follow when these are answered."""

SNAPSHOT_MS = 500
"""Models learn for weeks within seconds here, so their snapshots come more often than in production."""


COMMIT_MS = 10
"""Outcomes wait for the commit of their payments, and here they follow within moments."""


@dataclass(slots=True)
class Tally:
    """What the demo counts while it runs."""

    payments: int = 0
    outcomes: int = 0
    decisions: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    blocked_fraud: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    fraud: list[bool] = field(default_factory=list)
    examples: list[Decision] = field(default_factory=list)
    seconds: float = 0.0
    versions: Mapping[str, int] = field(default_factory=dict)


Show = Callable[[Tally, Mapping[str, int]], None]


@dataclass(frozen=True, slots=True)
class Demo:
    """One run: how many payments, from which seed, kept in which directory."""

    payments: int
    seed: int
    directory: Path


def run_demo(demo: Demo, show: Show) -> dict[str, object]:
    """Run it; `show` is called about once a second with the tally and the model versions."""
    quiet()
    settings = Settings(
        models=Models(snapshot_interval_ms=SNAPSHOT_MS),
        commit=Commit(interval_ms=COMMIT_MS),
        rates=Rates(file=str(demo.directory / "rates.csv")),
    )
    job = Job(
        load_topology(DEFAULT), f"log://{demo.directory}/log", demo.directory / "state", "demo", settings
    )
    return asyncio.run(_run(demo, job, show))


async def _run(demo: Demo, job: Job, show: Show) -> dict[str, object]:
    stop = asyncio.Event()
    started: asyncio.Future[Agents] = asyncio.get_running_loop().create_future()
    with connect(job.broker, job.settings) as connection:
        _write_rates(job)
        partitions = prepare_topics(job, connection.admin(), embedded=True)
        site = Site(job, connection, partitions, Metrics(), "demo")
        worker = asyncio.ensure_future(serve(site, stop, started.set_result))
        feeder = _Feeder(demo, site, show)
        feeding = asyncio.ensure_future(feeder.feed(started))
        await asyncio.wait((worker, feeding), return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        if worker.done():
            feeding.cancel()
        await worker
        await feeding
        return _summary(feeder.tally, site.metrics)


def _write_rates(job: Job) -> None:
    """Leave the rates that the simulator thinks in where the settings name them."""
    Path(job.settings.rates.file).write_text(rates_csv(), encoding="ascii")


class _Feeder:
    """Plays upstream: sends payments and outcomes, waits for their answers, reads them."""

    def __init__(self, demo: Demo, site: Site, show: Show) -> None:
        self._demo = demo
        self._site = site
        self._show = show
        self._topics = site.job.settings.topics.resolved
        self.tally = Tally()

    async def feed(self, started: asyncio.Future[Agents]) -> None:
        """Send all there is, a chunk at a time."""
        agents = await started
        publisher = self._site.connection.publisher()
        await publisher.start()
        try:
            await agents.assigned.wait()
            await self._send_all(agents, publisher)
        finally:
            await publisher.stop()

    async def _send_all(self, agents: Agents, publisher: Publisher) -> None:
        tally, demo = self.tally, self._demo
        simulator = Simulator(Scenario.for_payments(demo.payments, demo.seed))
        log = Log.open(demo.directory / "log")
        began = shown = time.monotonic()
        for chunk in simulator.chunks(demo.payments, CHUNK):
            for topic, encoded in (
                (self._topics.payments, chunk.payments),
                (self._topics.outcomes, chunk.outcomes),
            ):
                if len(encoded):
                    await (await publisher.send(outgoing(topic, encoded)))
            tally.payments += len(chunk.payments)
            tally.outcomes += len(chunk.outcomes)
            await agents.caught_up()
            truth = dict(zip(chunk.payments.keys, chunk.payments.fraud.tolist(), strict=True))
            _read(log, self._topics.decisions, truth, tally)
            if time.monotonic() - shown >= 1.0:
                shown = time.monotonic()
                self._show(tally, agents.versions)
        await agents.hand_over()
        tally.seconds = time.monotonic() - began
        tally.versions = dict(agents.versions)
        self._show(tally, agents.versions)
        log.close()


def _read(log: Log, topic: str, truth: Mapping[bytes, bool], tally: Tally) -> None:
    """Read the decisions that have come since the last time."""
    while True:
        records = log.fetch(topic, 0, tally.decisions, 1000, 1 << 22)
        if not len(records):
            return
        tally.decisions = records.offsets[-1] + 1
        for key, value in zip(records.keys, records.values, strict=True):
            decision = msgspec.json.decode(value or b"", type=Decision)
            fraud = truth.get(key or b"", False)
            tally.actions[decision.action] += 1
            tally.scores.append(decision.score or 0.0)
            tally.fraud.append(fraud)
            if decision.action == "block":
                tally.blocked_fraud += fraud
                tally.examples = [*tally.examples[-2:], decision]


def _summary(tally: Tally, metrics: Metrics) -> dict[str, object]:
    half = len(tally.scores) // 2
    score, fraud = np.array(tally.scores[half:]), np.array(tally.fraud[half:], np.bool_)
    p50, p99 = metrics.latency_quantiles((0.5, 0.99))
    return {
        "payments": tally.payments,
        "decisions": tally.decisions,
        "rejected": tally.payments - tally.decisions,
        "outcomes": tally.outcomes,
        "actions": dict(tally.actions),
        "seconds": round(tally.seconds, 2),
        "payments_per_second": round(tally.payments / max(tally.seconds, 1e-9)),
        "latency_p50_ms": p50,
        "latency_p99_ms": p99,
        "models": tally.versions,
        "frauds": int(sum(tally.fraud)),
        "blocked_frauds": tally.blocked_fraud,
        "second_half": {
            "frauds": int(fraud.sum()),
            "auc": _rounded(roc_auc(fraud, score)),
            "average_precision": _rounded(average_precision(fraud, score)),
        },
    }


def _rounded(figure: float) -> float | None:
    """Three decimals; `None` for what is not a number, which JSON does not know."""
    return None if math.isnan(figure) else round(figure, 3)
