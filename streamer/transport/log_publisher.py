"""Publishes batches to the embedded log: atomic, in order per partition."""

import asyncio
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import Any

from streamer.batch import Outgoing
from streamer.errors import StreamerError
from streamer.partitioning import partitions_of
from streamer.state.log import Log
from streamer.transport.seam import Delivered


class LogPublisher:
    """`streamer.transport.seam.Publisher` on the log in a directory.

    What is sent is in the log at once, and on the disk when its delivery has been waited for. So a commit,
    which waits, is never stored while the payments that it covers, and their answers, can still be lost.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log: Log | None = None
        self._sends = 0
        self._synced = 0
        """Sends that are on the disk."""
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Open the log."""
        self._log = Log.open(self._directory)

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """Append the records, all or none."""
        log = self._opened
        parts = self._by_partition(log, outgoing)
        log.append_many(parts)
        self._sends += 1
        places = [(part.topic, part.partition or 0) for part in parts]
        return _Delivery(self, self._sends, {place: log.end_offset(*place) for place in places})

    async def synced(self, sends: int) -> None:
        """Wait until so many sends are on the disk; one wait for the disk serves all that were there."""
        async with self._turn:
            if self._synced < sends:
                now = self._sends
                await asyncio.to_thread(self._opened.flush)
                self._synced = now

    async def stop(self) -> None:
        """Close the log, everything on the disk."""
        async with self._turn:
            log, self._log = self._log, None
        if log is not None:
            log.close()

    @property
    def _opened(self) -> Log:
        if self._log is None:
            raise StreamerError("Expected a started publisher, got one that has not started or has stopped")
        return self._log

    def _by_partition(self, log: Log, outgoing: Outgoing) -> list[Outgoing]:
        count = len(log.end_offsets(outgoing.topic))
        if outgoing.partition is not None or count == 1:
            return [outgoing]
        parts: dict[int, Outgoing] = {}
        chosen = partitions_of(outgoing.keys, count, keyless=self._sends % count)
        for partition, key, value, headers in zip(
            chosen, outgoing.keys, outgoing.values, outgoing.headers, strict=True
        ):
            if partition not in parts:
                parts[partition] = Outgoing(outgoing.topic, partition)
            parts[partition].append(key, value, headers)
        return list(parts.values())


class _Delivery:
    """Ends when the records are on the disk; nothing waits for the disk before somebody waits for this."""

    def __init__(self, publisher: LogPublisher, sends: int, delivered: Delivered) -> None:
        self._publisher = publisher
        self._sends = sends
        self._delivered = delivered

    def __await__(self) -> Generator[Any, None, Delivered]:
        yield from self._publisher.synced(self._sends).__await__()
        return self._delivered
