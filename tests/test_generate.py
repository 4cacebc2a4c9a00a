"""Generated payments: to topics and to files the same ones, whole, and at the rate that was asked for."""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import pytest

from streamer import generate
from streamer.batch import Outgoing
from streamer.errors import ConfigError
from streamer.events import Outcome, Payment
from streamer.generate import CHUNK, UNDER_WAY, Load, generate_files, generate_topics, outgoing
from streamer.settings import Settings, Topics
from streamer.state.log import Log


def read(directory: Path, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """All records of a topic of an embedded log."""
    found: list[tuple[bytes | None, bytes | None]] = []
    with Log.open(directory) as log:
        while records := log.fetch(topic, 0, len(found), 1_000, 1 << 24):
            found.extend(zip(records.keys, records.values, strict=True))
    return found


def test_topics_hold_what_was_simulated(tmp_path: Path) -> None:
    """Payments and outcomes arrive whole and in order, keyed by payment_id, in topics made for them."""
    load = Load(5_000, 3, 75.0, None)
    figures = generate_topics(load, f"log://{tmp_path}/log", Settings())
    assert (figures["payments"], figures["to"]) == (5_000, f"log://{tmp_path}/log")
    chunks = list(load.simulator.chunks(load.payments, load.chunk))
    payments = [
        pair for chunk in chunks for pair in zip(chunk.payments.keys, chunk.payments.values, strict=True)
    ]
    outcomes = [
        pair for chunk in chunks for pair in zip(chunk.outcomes.keys, chunk.outcomes.values, strict=True)
    ]
    assert read(tmp_path / "log", "payments") == payments
    assert read(tmp_path / "log", "outcomes") == outcomes
    assert len(payments) == 5_000
    for key, value in payments:
        assert key == msgspec.json.decode(value, type=Payment).payment_id.encode()
    for key, value in outcomes:
        assert key == msgspec.json.decode(value, type=Outcome).payment_id.encode()


def test_topics_are_those_of_the_settings(tmp_path: Path) -> None:
    """Names and prefix are kept, and a second run goes on where the first one ended."""
    settings = Settings(topics=Topics(prefix="test.", payments="in"))
    for _ in range(2):
        generate_topics(Load(10, 1, 75.0, None), f"log://{tmp_path}/log", settings)
    assert len(read(tmp_path / "log", "test.in")) == 20


def test_files_and_topics_agree(tmp_path: Path) -> None:
    """One seed gives one stream, wherever it goes."""
    load = Load(500, 9, 75.0, None)
    figures = generate_files(load, tmp_path / "files", "ndjson")
    generate_topics(load, f"log://{tmp_path}/log", Settings())
    lines = (tmp_path / "files" / "payments.ndjson").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Payment) for line in lines] == [
        msgspec.json.decode(value or b"", type=Payment) for _, value in read(tmp_path / "log", "payments")
    ]
    assert figures["to"] == str(tmp_path / "files")


@pytest.mark.parametrize(("rate", "chunk"), [(None, CHUNK), (1.0, 1), (1_000.0, 10), (1e9, CHUNK)])
def test_a_rate_is_sent_in_short_turns(rate: float | None, chunk: int) -> None:
    """About ten milliseconds of payments at once, at least one and never more than without a rate."""
    assert Load(10, 1, 75.0, rate).chunk == chunk


def test_a_rate_is_kept(tmp_path: Path) -> None:
    """So many payments take as long as the rate says."""
    began = time.monotonic()
    generate_topics(Load(100, 1, 75.0, 400.0), f"log://{tmp_path}/log", Settings())
    assert time.monotonic() - began >= 0.24
    assert len(read(tmp_path / "log", "payments")) == 100


class Counting:
    """A publisher that confirms late, and knows how many sends were open at once."""

    def __init__(self, fails_at: int = -1) -> None:
        self.open = 0
        self.most = 0
        self.sends = 0
        self.stopped = False
        self.fails_at = fails_at

    async def start(self) -> None:
        """There is nothing to connect."""

    async def send(self, outgoing: Outgoing) -> Awaitable[None]:
        """Take records; confirmed a few turns of the loop later."""
        assert len(outgoing)
        number, self.sends = self.sends, self.sends + 1
        self.open += 1
        self.most = max(self.most, self.open)
        return asyncio.ensure_future(self._deliver(number))

    async def _deliver(self, number: int) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        self.open -= 1
        if number == self.fails_at:
            raise ConnectionError("broker gone")

    async def stop(self) -> None:
        """Remember it."""
        self.stopped = True


def test_few_sends_are_under_way_and_all_are_confirmed() -> None:
    """Memory is bounded by the sends that are open, and the end waits for the last one."""
    publisher = Counting()
    asyncio.run(generate._send(Load(40_000, 1, 75.0, None), publisher, "payments", "outcomes"))
    assert publisher.open == 0
    assert publisher.sends > 20
    assert publisher.most <= UNDER_WAY + 2
    assert publisher.stopped


def test_a_lost_delivery_ends_it() -> None:
    """What was not delivered is not passed over in silence, and the publisher is stopped."""
    publisher = Counting(fails_at=3)
    with pytest.raises(ConnectionError, match="broker gone"):
        asyncio.run(generate._send(Load(40_000, 1, 75.0, None), publisher, "payments", "outcomes"))
    assert publisher.stopped


def test_a_wrong_url_is_refused() -> None:
    """The message has both forms."""
    with pytest.raises(ConfigError, match="log://DIR, got 'ftp://x'"):
        generate_topics(Load(1, 1, 75.0, None), "ftp://x", Settings())


def test_outgoing_keeps_the_order() -> None:
    """Keys and values of a chunk side by side, partitions left to the key."""
    chunk = next(iter(Load(50, 1, 75.0, None).simulator.chunks(50, 50)))
    out = outgoing("payments", chunk.payments)
    assert (out.topic, out.partition, len(out.headers)) == ("payments", None, len(chunk.payments.keys))
    assert list(zip(out.keys, out.values, strict=True)) == list(
        zip(chunk.payments.keys, chunk.payments.values, strict=True)
    )
