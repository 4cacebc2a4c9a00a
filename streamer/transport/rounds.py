"""Has a consumer ask for all that has come once a round, where each batch is dear to work off."""

# ruff: noqa: SLF001 - aiokafka has no public way to hold its fetcher back
import asyncio
from collections.abc import Collection
from typing import Any, Final

from aiokafka.structs import TopicPartition

GATHER_S: Final = 0.005
"""What is left of a partition waits so long for the others, which are asked for at the same moment."""


class Rounds:
    """Holds aiokafka's `fetcher` back from when records were taken until more are wanted.

    By itself it asks again at once, and a broker answers as soon as it has one record: what gathers of a
    partition while others are worked on comes in many small batches, each a request for the broker and a step
    for the worker.
    """

    def __init__(self, fetcher: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._fetcher = fetcher
        self._loop = loop
        self._begun: asyncio.Future[None] = loop.create_future()
        self._wanted: Collection[TopicPartition] = ()
        self._left: Collection[TopicPartition] = ()
        self._plan = fetcher._get_actions_per_node
        fetcher._get_actions_per_node = self._planned
        fetcher._prefetch_backoff = 0.0

    async def begin(self, wanted: Collection[TopicPartition]) -> None:
        """Let it ask; waits for a moment if something of the wanted partitions is left from before."""
        self._wanted, self._left = wanted, frozenset(self._fetcher._records)
        if not self._begun.done():
            self._begun.set_result(None)
        if any(place in wanted for place in self._left):
            waiter = self._fetcher._create_fetch_waiter()
            await asyncio.wait([waiter], timeout=GATHER_S)
            waiter.cancel()

    def end(self) -> None:
        """Records were taken: let it ask no more."""
        if self._begun.done():
            self._begun = self._loop.create_future()

    def _planned(self, assignment: Any) -> tuple[Any, ...]:
        fetches, resets, timeout, invalid_metadata, resumed = self._plan(assignment)
        if not self._begun.done():
            return [], resets, timeout, invalid_metadata, [*resumed, self._begun]
        # What has come is about to be taken.
        come = any(place in self._wanted and place not in self._left for place in self._fetcher._records)
        return [] if come else fetches, resets, timeout, invalid_metadata, resumed
