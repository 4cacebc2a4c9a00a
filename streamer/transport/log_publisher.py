"""Publishes batches to the embedded log: atomic, in order per partition."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from streamer.batch import Outgoing
from streamer.errors import StreamerError
from streamer.partitioning import partitions_of
from streamer.state.log import Log
from streamer.transport.seam import Delivered


class LogPublisher:
    """`streamer.transport.seam.Publisher` on the log in a directory; what is sent is in the log at once."""

    def __init__(self, directory: Path, *, sync: bool = False) -> None:
        self._directory = directory
        self._sync = sync
        self._log: Log | None = None
        self._sends = 0

    async def start(self) -> None:
        """Open the log."""
        self._log = Log.open(self._directory, sync=self._sync)

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """Append the records, all or none; there is nothing left to wait for."""
        if self._log is None:
            raise StreamerError("Expected a started publisher, got one that has not started or has stopped")
        parts = self._by_partition(self._log, outgoing)
        self._log.append_many(parts)
        places = [(part.topic, part.partition or 0) for part in parts]
        delivered: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        delivered.set_result({place: self._log.end_offset(*place) for place in places})
        return delivered

    async def stop(self) -> None:
        """Close the log."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def _by_partition(self, log: Log, outgoing: Outgoing) -> list[Outgoing]:
        count = len(log.end_offsets(outgoing.topic))
        if outgoing.partition is not None or count == 1:
            return [outgoing]
        self._sends += 1
        parts: dict[int, Outgoing] = {}
        chosen = partitions_of(outgoing.keys, count, keyless=self._sends % count)
        for partition, key, value, headers in zip(
            chosen, outgoing.keys, outgoing.values, outgoing.headers, strict=True
        ):
            if partition not in parts:
                parts[partition] = Outgoing(outgoing.topic, partition)
            parts[partition].append(key, value, headers)
        return list(parts.values())
