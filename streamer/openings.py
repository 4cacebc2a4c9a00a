"""The shards that are being opened, beside the stream of others, and whether they are still wanted then."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from streamer.parts import Parts


class Opening(Protocol):
    """Where the states of shards come from."""

    @property
    def warm(self) -> Mapping[int, int]:
        """How far the copy of each shard has come."""

    @property
    def ready(self) -> Collection[int] | None:
        """The shards whose copies miss next to nothing, or cannot be made; `None`: none is made of any."""

    async def open(self, shard: int) -> Parts:
        """Bring the state of a shard up to date and put together what works on it."""

    async def copy(self, shards: frozenset[int]) -> None:
        """Keep copies of these shards of others, and of no more."""

    def settle(self) -> None:
        """All that is to be open is open."""


class Beginning:
    """A shard that is being opened. `wanted`: it has not gone elsewhere meanwhile."""

    task: asyncio.Task[None]
    wanted = True


class Openings:
    """Opens the shards that a worker is given, as many at once as there are, and each once at a time.

    `work_on` opens one; it looks at `wanted` before it goes on with what it has opened. `fail` is told what
    went wrong with one that is wanted.
    """

    def __init__(
        self,
        work_on: Callable[[int, Beginning], Awaitable[None]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._work_on = work_on
        self._fail = fail
        self._last: dict[int, Beginning] = {}
        self._generation = 0
        self._told = asyncio.Event()
        self.wanted: frozenset[int] = frozenset()
        self.under_way: set[asyncio.Task[None]] = set()

    def revoke(self) -> None:
        """It is not known what is wanted, until `assign`."""
        self._told.clear()

    def assign(self, wanted: frozenset[int], generation: int) -> None:
        """These shards are this worker's in this generation of its group, and no others."""
        missed = not 0 <= generation - self._generation <= 1
        self.wanted, self._generation = wanted, generation
        for shard, beginning in self._last.items():
            # In a generation that was missed another worker may have had any of them.
            beginning.wanted &= shard in wanted and not missed
        self._told.set()

    def begin(self, shard: int) -> asyncio.Task[None]:
        """Open a shard, unless that is under way."""
        before = self._last.get(shard)
        if before is not None and before.wanted and not before.task.done():
            return before.task
        beginning = self._last[shard] = Beginning()
        task = asyncio.ensure_future(self._begin(shard, beginning, before))
        beginning.task = task
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    async def _begin(self, shard: int, beginning: Beginning, before: Beginning | None) -> None:
        try:
            if before is not None:
                await asyncio.wait([before.task])  # it may hold the directory yet
            if beginning.wanted:
                await self._work_on(shard, beginning)
        except BaseException as error:
            if isinstance(error, Exception):
                await self._told.wait()  # perhaps it has gone elsewhere, and this is what came of it
            if beginning.wanted:
                self._fail(error)
            if not isinstance(error, Exception):
                raise
