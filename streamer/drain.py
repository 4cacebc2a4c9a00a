"""Tells when everything that was in the payments at a moment has passed all stages of a chain."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from streamer.transport.seam import Admin

POLL_S = 0.25


class Drain:
    """Watches the topics of a chain, in their order, and how far `group` has committed each.

    What a stage has committed was delivered to the next one: so once a topic is committed up to its end of a
    moment, the next one's end of now has all of that.
    """

    def __init__(self, admin: Callable[[], Admin], group: str, topics: Sequence[str]) -> None:
        self._admin = admin
        self._group = group
        self._topics = topics
        self._turn = asyncio.Lock()
        self._passed_ms = 0

    def has_passed(self, moment_ms: int) -> bool:
        """Whether it is known that what was there at `moment_ms` (since 1970) has passed."""
        return moment_ms < self._passed_ms

    async def passed(self) -> None:
        """Wait until what is there now has passed."""
        now = int(time.time() * 1000)
        async with self._turn:
            if self.has_passed(now):
                return
            now = int(time.time() * 1000)
            with closing(await asyncio.to_thread(self._admin)) as admin:
                for topic in self._topics:
                    ends = await asyncio.to_thread(admin.end_offsets, topic)
                    await self._committed(admin, topic, ends)
            self._passed_ms = now

    async def _committed(self, admin: Admin, topic: str, ends: Mapping[int, int]) -> None:
        while True:
            if _reached(await asyncio.to_thread(admin.committed, self._group, topic), ends):
                return
            await asyncio.sleep(POLL_S)


def _reached(committed: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(committed.get(partition, 0) >= end for partition, end in ends.items())
