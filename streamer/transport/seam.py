"""What a log must offer to the live rim: batches in, batches out, positions, topics."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamer.batch import Outgoing
from streamer.errors import StreamerError

Delivered = Mapping[tuple[str, int], int]
"""Topic and partition to the offset after the last record that was delivered there."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be created where it is missing."""

    name: str
    partitions: int = 1
    compacted: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    """More of its configuration, in Kafka's names; the embedded log has none."""


def unasked(delivery: asyncio.Future[Delivered]) -> asyncio.Future[Delivered]:
    """The same; if it fails nobody need ask about it, since every later call of its publisher raises too."""

    def ask(done: asyncio.Future[Delivered]) -> None:
        if not done.cancelled():
            done.exception()

    delivery.add_done_callback(ask)
    return delivery


class Publisher(Protocol):
    """Sends records in batches; every delivery is confirmed before a commit may pass it."""

    async def start(self) -> None:
        """Connect."""

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """Hand records over, in order; what is returned ends when all of them are durable, or raises."""

    async def stop(self) -> None:
        """Wait for what is under way, then disconnect."""


class Transactions(Publisher, Protocol):
    """Publishes so that all that is sent up to a seal becomes visible together, or never."""

    def seal(self) -> None:
        """Let what was sent so far be the transaction that the next `commit` ends; later sends are held."""

    async def commit(
        self,
        closing: Sequence[Outgoing] = (),
        offsets: Mapping[tuple[str, int], int] | None = None,
        group: str = "",
    ) -> Delivered:
        """Make the sealed transaction visible, with `closing` as its last records and a group's offsets."""

    async def abort(self) -> None:
        """Let nothing of it ever be visible."""


class Admin(Protocol):
    """Asks a log about its topics before anything subscribes; synchronous, used at start and by commands."""

    def partitions(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Partitions of each topic that exists; absent ones are left out."""

    def missing(self, topics: Sequence[str]) -> Collection[str]:
        """Those that do not exist; not those of which nothing can be told at the moment."""

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that do not exist yet."""

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        """The next offset of each partition."""

    def identities(self, topics: Sequence[str]) -> Mapping[str, str]:
        """What tells each topic from another one of the same name, as far as that is known."""

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """The group's committed offsets; partitions without one are left out."""

    def close(self) -> None:
        """Disconnect."""


@dataclass(slots=True)
class Buffer:
    """What was fetched and not yet processed, per partition, so that memory stays flat under overload.

    The consumer takes on delivery, the agent gives back after its work; a partition with `limit` bytes or
    `batches` batches is not fetched until it is below both again, and none while more than `waiting` batches
    of all are left, but for those of the topics `apart`. All on one event loop.
    """

    limit: int
    batches: int = 3
    waiting: float = math.inf
    apart: Collection[str] = ()
    _bytes: dict[tuple[str, int], int] = field(default_factory=dict)
    _batches: dict[tuple[str, int], int] = field(default_factory=dict)
    _left: int = 0
    _wake: Callable[[], None] = lambda: None

    def take(self, topic: str, partition: int, nbytes: int) -> None:
        """Count a delivered batch."""
        place = topic, partition
        self._bytes[place] = self._bytes.get(place, 0) + nbytes
        self._batches[place] = self._batches.get(place, 0) + 1
        self._left += topic not in self.apart

    def give_back(self, topic: str, partition: int, nbytes: int) -> None:
        """A batch has been worked off."""
        place = topic, partition
        self._bytes[place] = max(self._bytes.get(place, 0) - nbytes, 0)
        if self._batches.get(place, 0):
            self._batches[place] -= 1
            self._left -= topic not in self.apart
        self._wake()

    def has_room(self, topic: str, partition: int) -> bool:
        """Whether another batch of this partition may be delivered."""
        place = topic, partition
        return (
            self._left <= self.waiting
            and self._batches.get(place, 0) < self.batches
            and self._bytes.get(place, 0) < self.limit
        )

    @property
    def held(self) -> int:
        """Bytes delivered and not yet given back, of all partitions."""
        return sum(self._bytes.values())

    def on_room(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever something is given back."""
        self._wake = wake

    def reset(self) -> None:
        """Forget everything: the queues were cleared at a rebalance."""
        self._bytes.clear()
        self._batches.clear()
        self._left = 0
        self._wake()


@dataclass(slots=True)
class Rim:
    """What the transport needs from the application; attribute `rim` of the Faust app.

    `start_positions` is asked after each rebalance for the partitions assigned (topic, partition) and answers
    the offset to read next of each; `None` means from the beginning, and one that is left out is not read
    before the consumer is told to `take_up` it. `commit` replaces Faust's own commit.
    `fail` is told what ends the worker, such as a position that is lost; nothing is delivered after it.
    Partition n of every topic belongs to shard n modulo `shards`, and a shard goes to one worker as a whole;
    `standbys` others are told to keep a copy of its state, of which `warm` says how far they have come, and
    `ready` which of them miss next to nothing: another worker's shard is given to none but those. It answers
    `None` where there are no copies.
    Partitions of which `may_read` says no are not read for now; it is asked whenever a batch is worked off.
    `security` has aiokafka's names: `security_protocol`, `sasl_*`, `ssl_context`.
    """

    start_positions: Callable[[Iterable[tuple[str, int]]], Mapping[tuple[str, int], int | None]]
    commit: Callable[[], Awaitable[bool]]
    fail: Callable[[StreamerError], None]
    buffer: Buffer
    fetch_max_wait_ms: int = 10
    fetch_max_bytes: int = 4 << 20
    batch_max_records: int = 1000
    shards: int = 1
    standbys: int = 0
    warm: Callable[[], Mapping[int, int]] = dict
    ready: Callable[[], Collection[int] | None] = lambda: None
    may_read: Callable[[str, int], bool] = lambda *_: True
    security: Mapping[str, object] = field(default_factory=dict)
