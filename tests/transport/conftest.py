"""A small real Faust app that keeps what it receives, for the tests of every transport."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import faust
import pytest

from streamer.transport.seam import Buffer, Rim

DEADLINE_S = 30.0


class Sink:
    """A worker whose store is a dict: one agent that keeps the batches, and gives room back unless held."""

    def __init__(self, url: str, group: str, topics: list[str], **rim: Any) -> None:
        self.batches: list[Any] = []
        self.positions: dict[tuple[str, int], int | None] = {}
        self.hold = False
        self.closed: set[int] = set()
        """Partitions whose positions are not known yet."""
        self.buffer: Buffer = rim.pop("buffer", None) or Buffer(16 << 20)
        self.commits = 0
        self.failures: list[BaseException] = []
        self.revoked: list[frozenset[Any]] = []
        self.app = faust.App(
            group,
            broker=url,
            store="memory://",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            stream_wait_empty=False,
            stream_buffer_maxsize=1 << 20,
            stream_recovery_delay=0.0,
            broker_commit_interval=0.1,
            broker_session_timeout=6.0,
            broker_heartbeat_interval=0.3,
        )
        self.app.rim = Rim(
            start_positions=self._start_positions,
            commit=self._commit,
            fail=self.failures.append,
            buffer=self.buffer,
            **rim,
        )
        self.app.on_partitions_revoked.connect(self._on_revoked)
        source = self.app.topic(*topics, key_serializer="raw", value_serializer="raw")
        self.app.agent(source, name="sink")(self._take)

    def _start_positions(self, partitions: Any) -> dict[tuple[str, int], int | None]:
        return {tp: self.positions.get(tp) for tp in partitions if tp[1] not in self.closed}

    async def _commit(self) -> bool:
        self.commits += 1
        return True

    async def _on_revoked(self, _app: Any, revoked: Any, **_: Any) -> None:
        self.revoked.append(frozenset((tp.topic, tp.partition) for tp in revoked))

    async def _take(self, stream: Any) -> None:
        async for records in stream:
            self.batches.append(records)
            self.positions[records.topic, records.partition] = records.offsets[-1] + 1
            if not self.hold:
                self.buffer.give_back(records.topic, records.partition, records.nbytes)

    def offsets(self, topic: str, partition: int) -> list[int]:
        """All offsets received of one partition, in order."""
        return [
            offset
            for records in self.batches
            if (records.topic, records.partition) == (topic, partition)
            for offset in records.offsets
        ]

    @property
    def assigned(self) -> set[tuple[str, int]]:
        """The partitions that the app reads now."""
        return {(tp.topic, tp.partition) for tp in self.app.consumer.assignment()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Sink"]:
        """Run until the block ends."""
        await self.app.start()
        try:
            yield self
        finally:
            await self.app.stop()


async def _eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@pytest.fixture
def make_sink() -> Callable[..., Sink]:
    """Make a worker from an URL, a group, topics and keywords for its `Rim`."""
    return Sink


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    """Wait until a condition holds."""
    return _eventually
