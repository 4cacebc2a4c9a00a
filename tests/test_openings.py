"""Shards are opened beside each other; what has gone elsewhere meanwhile is let go of."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from streamer.openings import Beginning, Openings


class Site:
    """Opens a shard when its gate is opened, or fails as it is told, and notes what came of it."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.openings = Openings(self._work_on, self.failures.append)
        self.gates: dict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self.wrong: dict[int, Exception] = {}
        self.begun: list[int] = []
        self.ended: list[tuple[int, bool]] = []

    async def _work_on(self, shard: int, beginning: Beginning) -> None:
        self.begun.append(shard)
        await self.gates[shard].wait()
        if shard in self.wrong:
            raise self.wrong[shard]
        self.ended.append((shard, beginning.wanted))

    async def give(self, generation: int, *shards: int) -> None:
        """A rebalance: these shards are the worker's now."""
        self.openings.revoke()
        self.openings.assign(frozenset(shards), generation)
        for shard in shards:
            self.openings.begin(shard)
        await turn()


async def turn() -> None:
    """Let everything take its next steps."""
    for _ in range(10):
        await asyncio.sleep(0)


def played(scene: Callable[[Site], Coroutine[Any, Any, None]]) -> Site:
    """What a site came to, once nothing is under way any more."""

    async def play() -> Site:
        site = Site()
        await scene(site)
        await asyncio.gather(*site.openings.under_way, return_exceptions=True)
        return site

    return asyncio.run(asyncio.wait_for(play(), 10))


def test_shards_are_opened_beside_each_other() -> None:
    """Each is open when it is, whatever others wait for; a rebalance that leaves it changes nothing."""

    async def scene(site: Site) -> None:
        await site.give(1, 0, 1, 2)
        assert site.begun == [0, 1, 2]
        site.gates[1].set()
        await turn()
        assert site.ended == [(1, True)]
        await site.give(2, 0, 2)
        assert site.begun == [0, 1, 2]
        site.gates[2].set()
        site.gates[0].set()

    site = played(scene)
    assert sorted(site.ended) == [(0, True), (1, True), (2, True)]
    assert not site.failures


def test_a_shard_that_went_elsewhere_is_let_go_of_before_it_is_opened_again() -> None:
    """Two openings of one shard never use its directory at once."""

    async def scene(site: Site) -> None:
        await site.give(1, 0)
        await site.give(2)
        await site.give(3, 0)
        assert site.begun == [0]
        site.gates[0].set()

    assert played(scene).ended == [(0, False), (0, True)]


def test_a_shard_of_a_generation_that_was_missed_is_opened_again() -> None:
    """Another worker may have had it between."""

    async def scene(site: Site) -> None:
        await site.give(4, 0)
        await site.give(6, 0)
        site.gates[0].set()

    assert played(scene).ended == [(0, False), (0, True)]


def test_what_goes_wrong_with_a_shard_that_went_elsewhere_is_no_failure() -> None:
    """It is not known before the rebalance has ended: the new owner may be what is in the way."""
    wrong = ValueError("in the way")

    async def scene(site: Site, *left: int) -> None:
        site.wrong[0] = wrong
        await site.give(1, 0)
        site.openings.revoke()
        site.gates[0].set()
        await turn()
        assert not site.failures
        site.openings.assign(frozenset(left), 2)

    assert not played(scene).failures
    assert played(lambda site: scene(site, 0)).failures == [wrong]
