"""Tells when everything that was in the payments at a moment has passed all stages of a chain."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Protocol

from streamer.transport.seam import Admin

POLL_S = 0.25


class Topics(Protocol):
    """Where the topics of a chain are looked at."""

    def admin(self) -> Admin:
        """Make an admin; raises `ConfigError` where nothing answers."""

    async def is_read(self, topic: str, positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
        """Whether no record is left from `positions` up to `ends`."""


class Drain:
    """Watches the topics of a chain, in their order, and how far `group` has committed each.

    What a stage has committed was delivered to the next one: so once a topic is committed up to its end of a
    moment, the next one's end of now has all of that.
    """

    def __init__(self, log: Topics, group: str, topics: Sequence[str]) -> None:
        self._log = log
        self._group = group
        self._topics = topics
        self._turn = asyncio.Lock()
        self._passed_ms = 0

    def has_passed(self, moment_ms: int) -> bool:
        """Whether it is known that what was there at `moment_ms` (since 1970) has passed."""
        return moment_ms < self._passed_ms

    async def passed(self) -> None:
        """Wait until what is there now has passed."""
        asked = int(time.time() * 1000)
        async with self._turn:
            if self.has_passed(asked):
                return
            now = int(time.time() * 1000)
            with closing(await asyncio.to_thread(self._log.admin)) as admin:
                for topic in self._topics:
                    ends = await asyncio.to_thread(admin.end_offsets, topic)
                    await self._committed(admin, topic, ends)
            self._passed_ms = now

    async def _committed(self, admin: Admin, topic: str, ends: Mapping[int, int]) -> None:
        before: Mapping[int, int] = {}
        while True:
            committed = await asyncio.to_thread(admin.committed, self._group, topic)
            if all(committed.get(partition, 0) >= end for partition, end in ends.items()):
                return
            # Where it stands still, there may be nothing but what ends transactions, which nobody is given.
            if committed == before and await self._log.is_read(topic, committed, ends):
                return
            before = committed
            await asyncio.sleep(POLL_S)
