"""The embedded log: topics in one RocksDB directory, appended in atomic batches, read from any offset."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from re import fullmatch
from time import time_ns
from typing import Self

import msgspec
from rocksdict import Rdict, WriteBatch, WriteOptions

from streamer.batch import Outgoing, Records
from streamer.errors import ConfigError, StreamerError
from streamer.state import synced
from streamer.state.log_chunks import Rows, check
from streamer.state.log_directory import check_end, damaged, open_directory
from streamer.state.log_partition import LogPartition, Place

_TOPIC = b"t"
_shared: dict[Path, "Log"] = {}


class Topic(msgspec.Struct, frozen=True, array_like=True):
    """A topic: its number in its rows' keys, its partitions, and whether later values replace earlier ones.

    The log keeps every record of a compacted topic too; whoever reads it lets the later values win.
    """

    number: int
    partitions: int
    compacted: bool


class Log:
    """One log directory; opened by `Log.open`, which shares one instance per directory.

    An instance is used from one thread, that of the event loop. When an append returns it is in the hands of
    the operating system and survives the process; it is on the disk with `sync=True` or after `flush`.
    """

    def __init__(self, path: Path, database: Rdict) -> None:
        self.path = path
        self.topics: dict[str, Topic] = {}
        self._database = database
        self._write_options = WriteOptions()
        self._partitions: dict[tuple[str, int], LogPartition] = {}
        self._wakes: list[Callable[[], None]] = []
        self._users = 0
        rows = database.iter()
        rows.seek(_TOPIC)
        while rows.valid() and rows.key().startswith(_TOPIC):
            self._add(rows.key()[1:].decode(), msgspec.msgpack.decode(rows.value(), type=Topic))
            rows.next()
        check_end(rows, path)
        if self._size < synced.noted(path):
            raise damaged(
                path,
                "records are gone that had been forced onto the disk"
                f" (remove {path / synced.NAME} to go on with what is left)",
            )

    @classmethod
    def open(cls, path: Path, *, sync: bool = False) -> "Log":
        """Open the log in `path`, created where it is absent; every `open` needs its `close`.

        `sync` makes each append wait for the disk, for all users of this log. Raises `StateError`.
        """
        real = path.resolve()
        log = _shared.get(real)
        if log is None:
            database = open_directory(real)
            try:
                log = _shared[real] = cls(real, database)
            except BaseException:
                database.close()
                raise
        log._users += 1
        log._write_options.sync = log._write_options.sync or sync
        return log

    def close(self) -> None:
        """Give this use back; the last one closes the database."""
        self._users -= 1
        if self._users == 0:
            del _shared[self.path]
            with self._writing():
                try:
                    self.flush()
                finally:
                    self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, raised: object, *_: object) -> None:
        # What is raised already says more than that a close fails after it.
        with nullcontext() if raised is None else suppress(StreamerError):
            self.close()

    def create_topic(self, name: str, partitions: int = 1, *, compacted: bool = False) -> None:
        """Create a topic; raises `ConfigError` where it exists or cannot be."""
        if not fullmatch(r"[a-zA-Z0-9._-]{1,249}", name) or name in {".", ".."}:
            raise ConfigError(f"Expected a topic name of letters, digits, '.', '_' and '-', got {name!r}")
        if partitions < 1:
            raise ConfigError(f"Expected at least one partition for topic {name}, got {partitions}")
        if name in self.topics:
            raise ConfigError(f"Topic {name} exists already in the log {self.path}")
        topic = Topic(len(self.topics), partitions, compacted)
        batch = WriteBatch(raw_mode=True)
        batch.put(_TOPIC + name.encode(), msgspec.msgpack.encode(topic))
        self._write(batch)
        self._add(name, topic)

    def append(self, outgoing: Outgoing, timestamps: Sequence[int] | None = None) -> int:
        """Append records to one partition, all or none; answers the offset of the first.

        The partition may be `None` where the topic has one. Timestamps (milliseconds) are now unless given.
        """
        partition = self._partition_of(outgoing)
        base = partition.end
        stamps = [time_ns() // 1_000_000] * len(outgoing) if timestamps is None else list(timestamps)
        self._append([(partition, Rows(stamps, outgoing.keys, outgoing.values, outgoing.headers))])
        return base

    def append_many(self, batches: Sequence[Outgoing]) -> None:
        """Append to several topics and partitions, all or none, now."""
        now = time_ns() // 1_000_000
        self._append(
            [
                (self._partition_of(each), Rows([now] * len(each), each.keys, each.values, each.headers))
                for each in batches
            ]
        )

    def fetch(
        self, topic: str, partition: int, offset: int, max_records: int = 1000, max_bytes: int = 4 << 20
    ) -> Records:
        """Read records from `offset` on: none at the end of the log, else at least one whatever its size.

        Raises `StateError` for an offset outside the log, and where the log is damaged.
        """
        return self._partition(topic, partition).read(offset, max_records, max_bytes)

    def first_offset(self, topic: str, partition: int) -> int:
        """Return the oldest offset that is kept."""
        return self._partition(topic, partition).first

    def end_offset(self, topic: str, partition: int) -> int:
        """Return the offset that the next record will get."""
        return self._partition(topic, partition).end

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the next offset of each partition."""
        return {number: self.end_offset(topic, number) for number in range(self._topic(topic).partitions)}

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Forget the records below offset `before`; the others keep their offsets."""
        place = self._partition(topic, partition)
        batch = WriteBatch(raw_mode=True)
        place.put_first(batch, before)
        self._write(batch)
        place.first = before

    def commit(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Store where a group of consumers reads next: (topic, partition) to offset."""
        batch = WriteBatch(raw_mode=True)
        for (topic, partition), offset in positions.items():
            self._partition(topic, partition).put_position(batch, group, offset)
        self._write(batch)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Return the positions that a group has stored, by partition; those never stored are left out."""
        positions = {
            number: self._partition(topic, number).position(group)
            for number in range(self._topic(topic).partitions)
        }
        return {number: offset for number, offset in positions.items() if offset is not None}

    def flush(self) -> None:
        """Return when everything appended so far is on the disk; may run in another thread."""
        reached = self._size
        with self._writing():
            self._database.flush_wal(sync=True)
            synced.note(self.path, reached)

    def on_append(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after every append of this process, until what is returned is called."""
        self._wakes.append(wake)
        return lambda: self._wakes.remove(wake)

    def _add(self, name: str, topic: Topic) -> None:
        self.topics[name] = topic
        for number in range(topic.partitions):
            place = Place(name, topic.number, number)
            self._partitions[name, number] = LogPartition(self._database, self.path, place)

    @property
    def _size(self) -> int:
        """Topics, and records ever appended: never less than before."""
        return len(self.topics) + sum(partition.end for partition in list(self._partitions.values()))

    def _topic(self, name: str) -> Topic:
        if name not in self.topics:
            known = ", ".join(self.topics) or "none"
            raise ConfigError(f"Topic {name} does not exist in the log {self.path}; there are: {known}")
        return self.topics[name]

    def _partition(self, topic: str, number: int) -> LogPartition:
        partition = self._partitions.get((topic, number))
        if partition is None:
            last = self._topic(topic).partitions - 1
            raise ConfigError(f"Expected a partition of {topic} from 0 to {last}, got {number}")
        return partition

    def _partition_of(self, outgoing: Outgoing) -> LogPartition:
        if outgoing.partition is None and self._topic(outgoing.topic).partitions > 1:
            raise StreamerError(
                f"Expected a partition of {outgoing.topic}, got None; a LogPublisher goes by the key"
            )
        return self._partition(outgoing.topic, outgoing.partition or 0)

    def _append(self, parts: Sequence[tuple[LogPartition, Rows]]) -> None:
        batch = WriteBatch(raw_mode=True)
        ends: dict[LogPartition, int] = {}
        for partition, rows in parts:
            check(rows, partition.name)
            ends[partition] = partition.put(batch, ends.get(partition, partition.end), rows)
        self._write(batch)
        for partition, end in ends.items():
            partition.end = end
        for wake in self._wakes:
            wake()

    def _write(self, batch: WriteBatch) -> None:
        with self._writing():
            self._database.write(batch, self._write_options)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except StreamerError:
            raise
        except Exception as error:  # rocksdict raises nothing narrower
            raise StreamerError(
                f"The log {self.path} cannot be written ({error}); is the disk full?"
            ) from error
