"""Simulated payments and outcomes, to the topics of a log or to files, at a rate if wanted."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path

from streamer.batch import Outgoing
from streamer.settings import Settings
from streamer.simulator import Encoded, Scenario, Simulator
from streamer.simulator.files import Format, write_files
from streamer.simulator.places import rates_csv
from streamer.transport.connect import connect
from streamer.transport.seam import Delivered, Publisher, TopicSpec

CHUNK = 2_000
UNDER_WAY = 8
"""Sends that need not be confirmed before the next one."""

TURN_S = 0.01
"""At a rate, records are sent in turns of so many seconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many payments, from which seed, over how many days, and how many a second (`None`: all at once)."""

    payments: int
    seed: int
    days: float
    rate: float | None

    @property
    def simulator(self) -> Simulator:
        """A new simulation of it."""
        return Simulator(Scenario.for_payments(self.payments, self.seed, self.days))

    @property
    def chunk(self) -> int:
        """Payments sent at once."""
        return CHUNK if self.rate is None else max(1, min(CHUNK, int(self.rate * TURN_S)))


def generate_files(load: Load, directory: Path, file_format: Format) -> Mapping[str, object]:
    """Write payments, outcomes and the truth as NDJSON or Parquet files into `directory`, and the rates."""
    began = time.perf_counter()
    write_files(load.simulator, load.payments, directory, file_format)
    (directory / "rates.csv").write_text(rates_csv())
    return _figures(load, time.perf_counter() - began, str(directory))


def generate_topics(load: Load, broker: str, settings: Settings) -> Mapping[str, object]:
    """Send payments and outcomes to their topics, creating these where they are missing."""
    topics = settings.topics.resolved
    with connect(broker, settings) as connection:
        admin = connection.admin()
        known = admin.partitions([topics.payments, topics.outcomes])
        admin.create([TopicSpec(name) for name in (topics.payments, topics.outcomes) if name not in known])
        admin.close()
        began = time.perf_counter()
        asyncio.run(_send(load, connection.publisher(), topics.payments, topics.outcomes))
        return _figures(load, time.perf_counter() - began, broker)


async def _send(load: Load, publisher: Publisher, payments: str, outcomes: str) -> None:
    await publisher.start()
    under_way: deque[Awaitable[Delivered]] = deque()
    try:
        began, sent = time.monotonic(), 0
        for chunk in load.simulator.chunks(load.payments, load.chunk):
            for topic, encoded in ((payments, chunk.payments), (outcomes, chunk.outcomes)):
                if encoded.keys:
                    under_way.append(await publisher.send(outgoing(topic, encoded)))
            while len(under_way) > UNDER_WAY:
                await under_way.popleft()
            sent += len(chunk.payments.keys)
            if load.rate is not None:
                await asyncio.sleep(max(0.0, began + sent / load.rate - time.monotonic()))
        await asyncio.gather(*under_way)
    finally:
        await publisher.stop()


def outgoing(topic: str, encoded: Encoded) -> Outgoing:
    """Simulated records on their way to a topic."""
    return Outgoing(topic, None, list(encoded.keys), list(encoded.values), [()] * len(encoded.keys))


def _figures(load: Load, seconds: float, where: str) -> Mapping[str, object]:
    return {
        "payments": load.payments,
        "to": where,
        "seconds": round(seconds, 2),
        "payments_per_second": round(load.payments / max(seconds, 1e-9)),
    }
