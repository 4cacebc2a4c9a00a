"""A broker forgets the transactional id of a worker that was idle for long: nothing is lost or doubled."""

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from .conftest import OUTPUTS, MakeBroker, command
from .logs import KafkaPlace, Sent
from .worker import DEADLINE_S, environment, running

FORGETFUL = (
    "transactional.id.expiration.ms=10000",
    "transaction.remove.expired.transaction.cleanup.interval.ms=500",
)
FIRST = 60


async def forgotten(server: str, name: str) -> None:
    """Wait until a broker has forgotten an id that it knew: the last record of its key is empty."""
    consumer = AIOKafkaConsumer(
        "__transaction_state",
        bootstrap_servers=server,
        auto_offset_reset="earliest",
        exclude_internal_topics=False,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            known = False
            async for record in consumer:
                if name.encode() in record.key:
                    if record.value is None and known:
                        return
                    known = record.value is not None
    finally:
        await consumer.stop()


@pytest.mark.kafka
@pytest.mark.parametrize("guarantee", ["at_least_once", "transactions"])
def test_a_worker_whose_id_has_expired(
    guarantee: str, make_broker: MakeBroker, sent: list[Sent], tmp_path: Path
) -> None:
    """It ends with one line that says so, and the next start answers what came meanwhile, all of it once."""
    place = KafkaPlace(make_broker(*FORGETFUL).server, f"{guarantee}-")
    arguments = [*command(place, tmp_path / "state"), "--guarantee", guarantee]
    with place.topics():
        place.send(sent[:FIRST])
        with running(arguments, environment(place.prefix), tmp_path / "one") as one:
            one.wait_caught_up(place.prefix)
            name = f"{place.prefix}workers-{place.prefix}-0"
            asyncio.run(forgotten(place.server, name))
            before = one.stderr
            place.send(sent[FIRST : 2 * FIRST])
            assert one.process.wait(DEADLINE_S) == 1, one.stderr
        (told,) = one.stderr.removeprefix(before).splitlines()
        assert f"the broker no longer knows {name}" in told
        with running(arguments, environment(place.prefix), tmp_path / "two") as two:
            two.wait_caught_up(place.prefix)
            assert two.stop() == 0, two.stderr
        answers = [got for topic in OUTPUTS[:2] for part in place.read_committed(topic) for got in part]
    sources = [int(got.source.rpartition("/")[2]) for got in answers]
    assert sorted(sources) == list(range(2 * FIRST))
