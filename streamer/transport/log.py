"""Faust's transport over the embedded log, for URLs log://: one worker, which reads every partition."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from faust.transport import base
from faust.transport.drivers import TRANSPORTS
from faust.types import TP
from yarl import URL

from streamer.batch import Records
from streamer.errors import ConfigError, StateError, StreamerError
from streamer.state.log import Log
from streamer.transport.batching import BatchConductor, BatchConsumer, NoProducer


def register() -> None:
    """Let Faust use this transport for log://."""
    TRANSPORTS.aliases["log"] = f"{__name__}:Transport"


def directory_of(url: str) -> Path:
    """Take the directory out of log://DIR, as it is written; a relative one starts at the working directory.

    >>> directory_of("log://Data/log").relative_to(Path.cwd()).parts
    ('Data', 'log')
    """
    scheme, _, directory = url.partition("://")
    if scheme != "log" or not directory:
        raise ConfigError(
            f"Expected log://DIR, such as log://data/log or log:///var/lib/streamer/log, got {url!r}"
        )
    return Path(directory).expanduser().absolute()


def broker_url(directory: Path) -> URL:
    """Make what a Faust app takes as its `broker`.

    As text, Faust would split it at commas and take the start of a relative path for a host, in lower case.
    """
    return URL.build(scheme="log", path=str(directory.absolute()))


class Consumer(BatchConsumer):
    """Reads partitions as batches from where the store stands, on the event loop of the app."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened: Log | None = None
        self._forget: Callable[[], None] = lambda: None
        self._assigned: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self._news = asyncio.Event()

    async def on_start(self) -> None:
        """Open the log."""
        await super().on_start()
        self._opened = Log.open(directory_at(self.app.transport.url))
        self._forget = self._opened.on_append(self._news.set)

    async def on_shutdown(self) -> None:
        """Close the log, now that no task of the consumer is left."""
        self._forget()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Take every partition of the topics, as if a group of one had rebalanced."""
        known = {topic: self._log.end_offsets(topic) for topic in topics}
        # What Faust does on assignment waits for the end of this call.
        self.add_future(self._rebalance({TP(topic, number) for topic in known for number in known[topic]}))

    async def _rebalance(self, wanted: set[TP]) -> None:
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(self.assignment())
        self._assigned, self._positions = wanted, {}
        self.app.consumer_generation_id += 1
        await self.on_partitions_assigned(self.assignment(), self.app.consumer_generation_id)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the positions that the store stands at; `StateError` for one that the log does not have."""
        self._rim.buffer.reset()
        wanted = self._rim.start_positions([(tp.topic, tp.partition) for tp in self._assigned])
        self._positions = {
            tp: self._placed(tp, wanted.get((tp.topic, tp.partition))) for tp in self._assigned
        }
        return dict(self._positions)

    def _placed(self, tp: TP, position: int | None) -> int:
        first, end = self._log.first_offset(*tp), self._log.end_offset(*tp)
        if position is None:
            return first
        if not first <= position <= end:
            raise StateError(
                f"partition {tp.partition} of topic {tp.topic} cannot be read from offset {position}, where "
                f"the state stands: the log {self._log.path} has offsets {first} to {end}. Use the log and "
                "the state directory that belong together, or start with an empty state directory"
            )
        return position

    async def fetch(self, partitions: frozenset[TP], wakes: int, timeout: float) -> Mapping[TP, Records]:  # noqa: ASYNC109 - as BatchConsumer has it
        """Wait for records as `BatchConsumer.fetch` says."""
        generation = self.app.consumer_generation_id
        try:
            async with asyncio.timeout(timeout):
                while wakes == self._wakes and not any(map(self._has_more, partitions)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return {}
        outdated = wakes != self._wakes or generation != self.app.consumer_generation_id
        if outdated or not self.flow_active:
            return {}  # the positions may be those of another assignment
        return {tp: self._read(tp) for tp in partitions if self._has_more(tp)}

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch from these partitions again."""
        super().resume_partitions(tps)
        self.wake()

    def interrupt(self) -> None:
        """Let a waiting `fetch` return."""
        self._news.set()

    def _has_more(self, tp: TP) -> bool:
        position = self._positions.get(tp)
        paused = tp not in self._active_partitions
        return position is not None and not paused and position < self._log.end_offset(*tp)

    def _read(self, tp: TP) -> Records:
        rim = self._rim
        records = self._log.fetch(*tp, self._positions[tp], rim.batch_max_records, rim.fetch_max_bytes)
        self._positions[tp] = records.offsets[-1] + 1
        return records

    async def commit_positions(self, positions: Mapping[tuple[str, int], int]) -> bool:
        """Store the next offset of each (topic, partition) for the group, for those who ask how far it is."""
        self._log.commit(self.app.conf.id, positions)
        return True

    def end_offset(self, topic: str, partition: int) -> int | None:
        """Return the offset that the next record will get; for the lag."""
        return None if self._opened is None else self._opened.end_offset(topic, partition)

    @property
    def _log(self) -> Log:
        if self._opened is None:
            raise StreamerError("Expected a running app, got one that has not started or has stopped")
        return self._opened

    def assignment(self) -> set[TP]:
        """Return all partitions of the subscribed topics."""
        return set(self._assigned)

    def highwater(self, tp: TP) -> int:
        """Return the end of a partition."""
        return self._log.end_offset(*tp)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the ends of partitions."""
        return {tp: self.highwater(tp) for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the first offsets of partitions."""
        return {tp: self._log.first_offset(*tp) for tp in partitions}

    def topic_partitions(self, topic: str) -> int | None:
        """Count the partitions of a topic, if it exists."""
        return self._log.topics[topic].partitions if topic in self._log.topics else None

    async def position(self, tp: TP) -> int | None:
        """Return the next offset to read."""
        return self._positions.get(tp)

    async def _seek(self, partition: TP, offset: int) -> None:
        self._positions[partition] = self._placed(partition, offset)
        self.wake()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Read on from other offsets."""
        for tp, offset in partitions.items():
            await self.seek(tp, offset)

    async def create_topic(self, *_: Any, **__: Any) -> None:
        """Refuse: topics are created before anything subscribes."""
        raise _not_offered("topics created by Faust", "LogAdmin")

    def key_partition(self, *_: Any, **__: Any) -> int | None:
        """Refuse: nothing is sent through Faust."""
        raise _not_offered("records sent by Faust", "LogPublisher")

    async def _commit(self, *_: Any) -> bool:
        raise _not_offered("commits of acknowledged offsets", "commit_positions")

    async def _getmany(self, *_: Any, **__: Any) -> Any:
        raise _not_offered("single records", "fetch")

    def _to_message(self, *_: Any) -> Any:
        raise _not_offered("single records", "fetch")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)


def _not_offered(what: str, instead: str) -> StreamerError:
    return StreamerError(f"The embedded log does not offer {what}; use {instead}")


def directory_at(urls: list[URL]) -> Path:
    """Take the directory out of the app's broker, as `broker_url` has made it."""
    url = urls[0]
    if len(urls) > 1 or url.host or not url.path:
        raise ConfigError(f"Expected a broker made by broker_url(directory), got {';'.join(map(str, urls))}")
    return Path(url.path)


class Transport(base.Transport):
    """What Faust loads for log://."""

    Conductor = BatchConductor
    Consumer = Consumer
    Producer = NoProducer
    driver_version = "streamer"
