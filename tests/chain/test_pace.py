"""Entries that have old payments to read stay together in event time; where they come live nobody waits."""

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamer.batch import Int64
from streamer.chain.pace import BATCHES, PATIENCE_S, Heard, Pace
from tests.chains import Job, Log, Worker
from tests.test_engine import HOUR, NOW, payment

from .test_shard import RATES, SETTINGS, TOPOLOGY

BATCH = 100
STEP = HOUR // BATCH
"""The event times of a batch are an hour, and those of the next one the hour after."""


class Now:
    """A clock that stands still."""

    seconds = 1_000.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


def hour(number: int) -> Int64:
    """Event times of a batch, in the order of a hash."""
    return np.random.default_rng(number).permutation(NOW + number * HOUR + STEP * np.arange(BATCH))


def test_an_entry_waits_for_those_that_are_behind() -> None:
    """More than so many batches before the slowest, and no longer than that one is."""
    heard = Heard(Now())
    pace = Pace(heard)
    assert pace.take(hour(0), more=True) == NOW + HOUR // 2 - STEP // 2
    assert not pace.ahead
    heard.note(3, NOW + HOUR // 2)
    for number in range(1, BATCHES + 1):
        assert not pace.ahead
        pace.take(hour(number), more=True)
    pace.take(hour(BATCHES + 1), more=True)
    assert pace.ahead
    heard.note(4, NOW + 9 * HOUR)
    assert pace.ahead
    heard.note(3, NOW + 3 * HOUR)
    assert not pace.ahead


def test_nobody_waits_where_payments_come_live() -> None:
    """Not who has read all that there is, and not for whom."""
    heard = Heard(Now())
    pace = Pace(heard)
    heard.note(3, NOW)
    assert pace.take(hour(20), more=False) == 0
    assert not pace.ahead
    pace.take(hour(21), more=True)
    assert pace.ahead
    heard.note(3, 0)
    assert not pace.ahead


def test_nobody_waits_for_whom_is_heard_no_more() -> None:
    """Its worker may be dead, and others go on in its place only after a session."""
    now = Now()
    heard = Heard(now)
    pace = Pace(heard)
    heard.note(3, NOW)
    pace.take(hour(20), more=True)
    assert pace.ahead
    now.seconds += PATIENCE_S
    assert not pace.ahead


def test_one_payment_from_the_future_stops_nobody() -> None:
    """Neither its own entry nor, as a pace to wait for, the others."""
    heard = Heard(Now())
    pace = Pace(heard)
    heard.note(3, NOW + HOUR // 2)
    times = hour(1)
    times[7] += 24 * HOUR
    assert pace.take(times, more=True) <= NOW + 2 * HOUR
    assert not pace.ahead


@pytest.fixture
def log() -> Log:
    """Two partitions with twelve hours of payments each, of many cards."""
    made = Log(2)
    for partition in range(2):
        for number in range(12 * BATCH):
            given = payment(2 * number + partition, NOW + number * STEP, card=f"c{number % 50}")
            made.append("payments", partition, NOW + 20 * HOUR, msgspec.json.encode(given))
    return made


def test_shards_hear_of_each_other(tmp_path: Path, log: Log) -> None:
    """Through the stages between; the one that has read on waits until the other has come as far."""
    job = Job(tmp_path, TOPOLOGY, SETTINGS, log, random.Random(1), rates=RATES)
    fast, slow = job.workers

    def read(worker: Worker, batches: int) -> None:
        for _ in range(batches):
            for outgoing in worker.process("payments", BATCH).forwarded:
                log.send(outgoing)
        job.run_stages()

    read(slow, 1)
    read(fast, BATCHES)
    assert not fast.shard.ahead
    read(fast, 3)
    assert fast.shard.ahead
    assert not slow.shard.ahead
    read(slow, 4)
    assert not fast.shard.ahead
    read(fast, 3)
    assert not fast.shard.ahead, "all is read"
    job.close()
