"""Brings a state directory up to the end of its shard's changelog, and keeps it there beside the owner."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from streamer.errors import StateError
from streamer.state.changelog_records import Mark, mark_of
from streamer.state.replica import Replica
from streamer.state.store import Place
from streamer.transport.changelog_reader import ChangelogReader, Fetched

log = logging.getLogger(__name__)

WAIT_MS = 500
"""How long a standby's fetch waits for more, unless there is much."""

REFRESH_MS = 60_000
"""How often a standby that has nothing to do notes that it misses nothing."""

SHARE = 2
"""A directory is out of date after one part in so many of the time that deletions are kept: clocks differ."""

_NEAR_THE_END = (2, 10_000)
"""How far before the end the last commit ends: its mark and the broker's own, unless others were aborted."""

_LOOKS, _LOOK_S = 300, 0.1


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a restore is; `left` are the records still to be read at most: compaction has removed some.

    `reached` is the offset of the next record, whatever an earlier restore has read of those before.

    >>> str(RestoreProgress(3, rows=1_000_000, left=500_000, reached=9, seconds=2.0, seconds_left=1.0))
    'shard 3: 1,000,000 rows restored, at most 500,000 to do, 1 s left (500,000 rows/s)'
    """

    shard: int
    rows: int
    left: int
    reached: int
    seconds: float
    seconds_left: float

    @property
    def rows_per_second(self) -> float:
        """Rows read a second, so far."""
        return self.rows / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"shard {self.shard}: {self.rows:,} rows restored, at most {self.left:,} to do,"
            f" {self.seconds_left:.0f} s left ({self.rows_per_second:,.0f} rows/s)"
        )


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found: `place` is `None` where the changelog has nothing yet, `end` is where it ends."""

    rows: int
    place: Place | None
    end: int


def ignore(_: RestoreProgress) -> None:
    """Report to nobody."""


def now_ms() -> int:
    """The time in ms since 1970."""
    return int(time.time() * 1000)


class Restorer:
    """Fills the directory `path` from the partition that `reader` reads; each call of it opens and closes it.

    `deletions_ms` is how long the topic keeps deletions (`delete.retention.ms`): a directory that is further
    behind would keep rows that are gone, and is rebuilt from nothing. `report` is told after every fetch,
    `clock` answers ms since 1970.
    """

    def __init__(
        self,
        reader: ChangelogReader,
        path: Path,
        deletions_ms: int,
        report: Callable[[RestoreProgress], None] = ignore,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._reader = reader
        self._path = path
        self._deletions_ms = deletions_ms
        self._report = report
        self._clock = clock

    async def restore(self) -> Restored:
        """Bring the directory to the state of the last commit; for the shard's owner, once others are fenced.

        Killed half-way it leaves a directory that `Store.open` refuses and the next call completes. A
        directory with rows of its own that stands in no changelog is left as it is while there is nothing in
        this one.

        Raises `StateError` where directory and changelog do not belong together, or rows are missing in it.
        """
        return await self._run(None)

    async def follow(self, stop: asyncio.Event) -> Restored:
        """Keep the directory at the end of the changelog while its owner writes there, until told to stop.

        Raises as `restore` does, and `StreamerError` where the broker is away for longer than the reader's
        patience.
        """
        return await self._run(stop)

    async def _run(self, stop: asyncio.Event | None) -> Restored:
        with Replica.open(self._path) as replica:
            first, end = await self._bounds(replica.place)
            course = await self._course(replica, first, end)
            if replica.place is not None and self._outdated(replica.place, end):
                log.warning(
                    "the state in %s is too far behind topic %s to catch up: it is rebuilt",
                    self._path,
                    self._reader.topic,
                )
                course.begin_anew()
            await self._follow(course, stop)
            return Restored(course.rows, replica.place, end)

    async def _bounds(self, place: Place | None) -> tuple[int, int]:
        """The first offset and the end; a commit that was made here a moment ago may not be below it yet."""
        for _ in range(_LOOKS):
            first, end = await self._reader.bounds()
            # A broker answers that a transaction has ended before its marks are written.
            if place is None or place.offset <= end or place.offset > await self._reader.written():
                break
            await asyncio.sleep(_LOOK_S)
        return first, end

    async def _course(self, replica: Replica, first: int, end: int) -> "_Course":
        course = _Course(replica, self._reader, first, end, self._clock)
        for distance in _NEAR_THE_END:
            if first < end and not course.proven:
                course.expect(await self._reader.fetch(max(first, end - distance)))
        return course

    async def _follow(self, course: "_Course", stop: asyncio.Event | None) -> None:
        began = time.monotonic()
        start = course.start
        fetching = asyncio.create_task(self._reader.fetch(start))
        stopping = asyncio.create_task(stop.wait()) if stop else None
        waiters = {stopping} if stopping else set()
        try:
            while True:
                await asyncio.wait({fetching, *waiters}, return_when=asyncio.FIRST_COMPLETED)
                if stopping is not None and stopping.done():
                    return
                fetched = fetching.result()
                there = fetched.next >= fetched.end
                if stop is not None or not there:
                    # On its way while this one is worked off.
                    wait_ms = WAIT_MS if there else 0
                    fetching = asyncio.create_task(self._reader.fetch(fetched.next, wait_ms))
                await _to_the_end(asyncio.to_thread(course.take, fetched))
                seconds = time.monotonic() - began
                left = max(0, fetched.end - fetched.next)
                speed = (fetched.next - start) / max(seconds, 1e-9)
                seconds_left = left / speed if speed else 0.0
                self._report(
                    RestoreProgress(
                        self._reader.shard, course.rows, left, fetched.next, seconds, seconds_left
                    )
                )
                if stop is None and there:
                    return
        finally:
            for task in {fetching, *waiters}:
                task.cancel()
            await asyncio.gather(fetching, *waiters, return_exceptions=True)

    def _outdated(self, place: Place, end: int) -> bool:
        """Whether deletions may have vanished before they were read here; not if nothing came after."""
        return abs(self._clock() - place.at) > self._deletions_ms // SHARE and end > place.offset + 1


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work in a thread, even when cancelled meanwhile: it uses what is closed next."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait({task})


class _Course:
    """Takes what is fetched to the replica, and sees to it that it is of the changelog that it stands in."""

    def __init__(
        self, replica: Replica, reader: ChangelogReader, first: int, end: int, clock: Callable[[], int]
    ) -> None:
        self._replica = replica
        self._name = f"partition {reader.shard} of topic {reader.topic}"
        self._first = first
        self._clock = clock
        self._strange = replica.place is None and not replica.empty
        """Whether there are rows that came from no changelog."""
        self._expected: Mark | None = None
        self.proven = False
        """Whether the changelog is known to be the one that the directory stands in."""
        self.rows = 0
        self._place = replica.place or Place(
            changelog=b"",
            begin=first,
            topic=reader.topic,
            shard=reader.shard,
            offset=first,
            last=-1,
            at=clock(),
            whole=False,
        )
        place = replica.place
        if place is None:
            return
        if (place.topic, place.shard) != (reader.topic, reader.shard):
            raise self._foreign(f"the directory stands in partition {place.shard} of topic {place.topic}")
        if place.offset > end:
            raise self._foreign(f"the directory stands at offset {place.offset}, which ends at {end}")
        if place.changelog:
            self._expected = Mark(place.changelog, place.begin)

    @property
    def start(self) -> int:
        """Where to read: the end of the last commit that was read comes again, to prove that it is there."""
        return self._place.offset if self._place.last < 0 else self._place.last

    def begin_anew(self) -> None:
        """Forget all rows, and read everything."""
        if not self.proven:
            raise self._foreign("the last commit of the directory is not in it")
        self._place = msgspec.structs.replace(
            self._place, offset=self._first, last=-1, at=self._clock(), whole=False
        )
        self._replica.wipe(self._place)

    def expect(self, fetched: Fetched) -> None:
        """Compare the mark of the last commit there is, if it is among these."""
        for batch in fetched.batches:
            self._check_sum(batch)
            for record in batch:
                mark = mark_of(record)
                if mark is not None:
                    self._check(mark)

    def take(self, fetched: Fetched) -> None:
        """Add what was fetched; the rows are whole where it reaches the end."""
        for batch in fetched.batches:
            self._check_sum(batch)
            count = self._replica.add(batch, self._place.offset)
            if self._strange and count:
                raise self._foreign("the directory has a state of its own that stands in no changelog")
            if self._replica.lost:
                raise self._foreign("the last commit of the directory was lost there, and others came")
            self.rows += count
            if self._replica.mark is not None:
                self._check(self._replica.mark[0])
            self._place = msgspec.structs.replace(
                self._place,
                offset=max(batch.next_offset, self._place.offset),
                last=self._replica.mark[1] if self._replica.mark else self._place.last,
                whole=False,
            )
            if self.proven or self._expected is None:
                self._replica.advance(self._place)
        if fetched.next >= fetched.end:
            self._reach()

    def _reach(self) -> None:
        place = self._place
        if place.last < 0 and not self.rows and self._replica.place is None:
            return
        if not self.proven:
            raise self._foreign("the end of the last commit is not in it")
        stored = self._replica.place
        place = msgspec.structs.replace(place, offset=place.last + 1, at=self._clock(), whole=True)
        if (
            stored is None
            or place.offset > stored.offset
            or not stored.whole
            or (place.at - stored.at >= REFRESH_MS)
        ):
            self._replica.reach(place)
        self._place = place

    def _check_sum(self, batch: Any) -> None:
        if not batch.validate_crc():
            raise StateError(
                f"{self._name} is damaged at offset {batch.base_offset}: its checksum does not hold; restore"
                " the topic from a copy, or rebuild the state by replay"
            )

    def _check(self, mark: Mark) -> None:
        if self._expected is None:
            self._expected = mark
            self._place = msgspec.structs.replace(self._place, changelog=mark.changelog, begin=mark.begin)
        if mark != self._expected:
            raise self._foreign("the directory stands in another changelog")
        if self._first > mark.begin:
            raise StateError(
                f"{self._name} begins at offset {self._first}, its first commit was at {mark.begin}: rows"
                " have been deleted. Its cleanup.policy must be compact alone; restore it from a copy, or"
                " rebuild the state by replay with a new topic"
            )
        self.proven = True

    def _foreign(self, what: str) -> StateError:
        return StateError(
            f"The state directory {self._replica.path} does not belong to {self._name}: {what}. Was the topic"
            " deleted and created again, is it another cluster, or did it lose records? Restore the topic, or"
            " move the directory away: a new one is rebuilt from the topic"
        )
