"""Payments that are gone from below a worker: it refuses, says which, and offers the remedy."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from streamer.state.log import Log
from streamer.state.store import Store

from .conftest import MakeBroker, MakePlace, command
from .logs import EmbeddedPlace, KafkaPlace, Sent
from .worker import Worker, environment, running

FIRST = 60


def answered(place: Any, state: Path, count: int) -> None:
    """Let a worker answer what is there and stop it."""
    with running(command(place, state), environment(place.prefix), state.with_name("stderr")) as worker:
        worker.wait_taken(count)
        assert worker.stop() == 0


def line_of(place: Any, state: Path) -> str:
    """Start a worker that has to refuse with status 2; answers its last line."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "streamer", *command(place, state, "again")],
        env=environment(place.prefix),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def administer(
    place: KafkaPlace, act: Callable[[AIOKafkaAdminClient, str], Awaitable[Any]], name: str = "payments"
) -> None:
    """Do something with a topic."""

    async def administered() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=place.server)
        await admin.start()
        try:
            await act(admin, f"{place.prefix}{name}")
        finally:
            await admin.close()

    asyncio.run(administered())


def delete_below(offset: int) -> Callable[[AIOKafkaAdminClient, str], Awaitable[Any]]:
    """Delete the records before an offset, as retention does."""
    return lambda admin, topic: admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(offset)})


async def delete(admin: AIOKafkaAdminClient, topic: str) -> None:
    """Delete the topic."""
    await admin.delete_topics([topic])
    async with asyncio.timeout(30):
        while topic in await admin.list_topics():  # noqa: ASYNC110 - the broker tells nobody
            await asyncio.sleep(0.1)


async def create_again(admin: AIOKafkaAdminClient, topic: str) -> None:
    """Delete the topic and create one of the same name."""
    await delete(admin, topic)
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"retention.ms": "-1"})])


def test_records_deleted_below_the_position(
    kind: str, make_place: MakePlace, sent: list[Sent], tmp_path: Path
) -> None:
    """The first record that is left lies behind the state's position: what is between is lost."""
    place = make_place(kind)
    place.send(sent[:FIRST])
    answered(place, tmp_path / "state", FIRST)
    place.send(sent[FIRST : FIRST + 40])
    if isinstance(place, KafkaPlace):
        administer(place, delete_below(FIRST + 10))
    else:
        assert isinstance(place, EmbeddedPlace)
        with Log.open(place.directory) as log:
            log.truncate(f"{place.prefix}payments", 0, FIRST + 10)
    line = line_of(place, tmp_path / "state")
    assert f"partition 0 of topic {place.prefix}payments cannot be read from offset {FIRST}" in line
    assert ("deleted" in line) or (f"offsets {FIRST + 10} to " in line)
    assert "start with an empty state directory" in line


@pytest.mark.kafka
def test_a_topic_deleted_and_created_again(make_place: MakePlace, sent: list[Sent], tmp_path: Path) -> None:
    """Its records are others, though there are more of them than the state has seen."""
    place = make_place("kafka")
    assert isinstance(place, KafkaPlace)
    place.send(sent[:FIRST])
    answered(place, tmp_path / "state", FIRST)
    administer(place, create_again)
    place.send(sent[: FIRST + 10])
    line = line_of(place, tmp_path / "state")
    assert f"topic {place.prefix}payments was deleted and created again" in line
    assert "start with an empty state directory" in line


@contextmanager
def refusing(place: KafkaPlace, sent: list[Sent], path: Path, *more: str) -> Iterator[Worker]:
    """A worker that has answered what was sent first, and has to end with status 2 after the block."""
    place.send(sent[:FIRST])
    arguments = [*command(place, path / "state"), *more]
    with running(arguments, environment(place.prefix), path / "e") as worker:
        worker.wait_caught_up(place.prefix)
        yield worker
        assert worker.process.wait(60) == 2, worker.stderr


@pytest.mark.kafka
def test_a_topic_made_anew_while_the_worker_runs(
    make_place: MakePlace, sent: list[Sent], tmp_path: Path
) -> None:
    """The worker ends with a line that names the topic; it does not read on in other records."""
    place = make_place("kafka")
    assert isinstance(place, KafkaPlace)
    with refusing(place, sent, tmp_path) as worker:
        administer(place, create_again)
    line = worker.stderr.splitlines()[-1]
    # By where it ends or by its id, whichever is noticed first.
    assert f"topic {place.prefix}payments " in line
    assert ("created again (it had id" in line) or (f"cannot be read from offset {FIRST}" in line)
    assert "start with an empty state directory" in line


@pytest.mark.kafka
def test_records_deleted_before_a_worker_that_runs(
    make_place: MakePlace, sent: list[Sent], tmp_path: Path
) -> None:
    """One that comes too late for them ends with that one line, and with nothing of the frameworks below."""
    place = make_place("kafka")
    assert isinstance(place, KafkaPlace)
    with refusing(place, sent, tmp_path) as worker:
        before = worker.stderr
        worker.process.send_signal(signal.SIGSTOP)
        place.send(sent[FIRST : FIRST + 40])
        administer(place, delete_below(FIRST + 10))
        worker.process.send_signal(signal.SIGCONT)
    (told,) = worker.stderr.removeprefix(before).splitlines()
    assert f"partition 0 of topic {place.prefix}payments cannot be read from offset {FIRST}" in told
    assert f"offsets {FIRST} to {FIRST + 9} have been deleted" in told


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("name", "guarantee"),
    [("payments", "at_least_once"), ("payments", "transactions"), ("outcomes", "at_least_once")],
)
def test_a_topic_deleted_while_the_worker_runs(
    name: str, guarantee: str, make_broker: MakeBroker, sent: list[Sent], tmp_path: Path
) -> None:
    """The worker ends with a line that names the topic, and has stored all that it answered."""
    # Another broker creates the topic anew, at the first question of a consumer.
    place = KafkaPlace(make_broker("auto.create.topics.enable=false").server, f"{name}-{guarantee}-")
    with place.topics():
        with refusing(place, sent, tmp_path, "--guarantee", guarantee) as worker:
            administer(place, delete, name)
        line = worker.stderr.splitlines()[-1]
        assert f"topic {place.prefix}{name} was deleted while it was read" in line
        with Store.read(tmp_path / "state") as store:
            assert store.progress.positions[f"{place.prefix}payments"] == {0: FIRST}
