"""The state directory: one RocksDB that takes one atomic write batch per commit."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

import msgspec
from rocksdict import DbClosedError, Rdict, RdictIter, ReadOptions, WriteBatch

from streamer.errors import StateError, StreamerError
from streamer.state import synced
from streamer.state.store_directory import explained, open_database, read_database

BLOCKS, DECIDED, IDS, OUTCOMES, MODELS, META, SIGHTED = (bytes([number]) for number in range(1, 8))
"""First byte of every row: which room of the store it belongs to."""

SEEN, LABELS, FRAUDS, UNTOLD, LETTERS = (OUTCOMES + bytes([number]) for number in range(5))
"""Rows of outcomes by payment, of labels by the payment's source, of when frauds became known by payment, of
frauds that other shards are still to be told of, and of what else they are still to be sent."""

SHARD = META + b"shard"
"""Row that names the partition whose state this is, and of how many; none where it is that of all of them."""

Row = tuple[bytes, bytes | None]
"""A key and its value; `None` deletes."""

Position = tuple[str, int]
"""Topic and partition."""

Heard = dict[str, dict[str, dict[int, tuple[int, int]]]]
"""By stage, by the stage before it, by that one's partition: how far it was heard, and its clock in ms."""


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the state stands; written in the same batch as the rows that led there."""

    positions: dict[str, dict[int, int]] = {}
    """Topic, partition, offset of the next record to read."""
    greatest: dict[int, int] = {}
    """Payments partition, greatest event time in ms."""
    outputs: dict[str, dict[int, int]] = {}
    """Topic, partition, offset after the last answer delivered there; what follows is not committed."""
    topics: dict[str, str] = {}
    """What tells each topic that was read from a later one of the same name."""
    log_time: int = 0
    """Greatest record timestamp of a payment, in ms."""
    batches: int = 0
    """Decided batches stored so far."""
    redo: int = 0
    """The first decided batch that may hold payments not yet in the rows of their keys."""
    models: dict[str, int] = {}
    """Model, version that decides from the payments position on."""
    commits: int = 0
    topology: str = ""
    """Fingerprint of the topology that wrote last."""
    heard: Heard = {}
    """What the stages of a chain have counted; with the positions, since both say where the input stands."""
    frauds: int = 0
    """Known frauds that the stages of a chain were told of."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a state directory stands in the changelog of its shard; a row that is the directory's own."""

    changelog: bytes
    """Which one: 16 random bytes, drawn when it was begun."""
    begin: int
    """Offset at which it was begun."""
    topic: str
    shard: int
    offset: int
    """The next record to read."""
    last: int
    """Offset of the last record that ended a commit; -1 where none was read yet."""
    at: int
    """When nothing up to `offset` was missing, in ms since 1970: later deletions may be gone by now."""
    whole: bool
    """Whether the rows are those of a commit: not while they are brought up to date."""


@dataclass(slots=True)
class WriteSet:
    """Everything that one commit changes. `rows` are copies: later work does not touch them."""

    progress: Progress
    rows: list[Row] = field(default_factory=list)
    place: Place | None = None
    """Where the rows end in the changelog, if there is one."""


PROGRESS, PLACE, SECRET, FORMAT = (META + name for name in (b"progress", b"changelog", b"secret", b"format"))
"""Rows of a directory itself; `PLACE` and `FORMAT` are never in a changelog."""


class Store:
    """One RocksDB in one directory, held by one process.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path, Store.open(Path(path)) as store:
    ...     store.commit(WriteSet(Progress(commits=1), [(BLOCKS + b"k", b"v")]))
    ...     store.get_many([BLOCKS + b"k", BLOCKS + b"other"])
    [b'v', None]
    """

    def __init__(self, db: Rdict, path: Path, secret: bytes, *, owned: bool = True) -> None:
        self._db = db
        self._owned = owned
        self.path = path
        self.secret = secret
        """32 random bytes of this directory: seeds digests, signs snapshots where no key is set."""
        raw, place = self.get_many([PROGRESS, PLACE])
        try:
            self.progress = Progress() if raw is None else msgspec.msgpack.decode(raw, type=Progress)
            self.place = None if place is None else msgspec.msgpack.decode(place, type=Place)
        except msgspec.MsgspecError as error:
            raise explained(path, f"its progress is unreadable ({error})") from error
        if self.place is not None and not self.place.whole:
            raise StateError(
                f"The state directory {path} is half restored from partition {self.place.shard} of topic"
                f" {self.place.topic}; start a worker of that shard, which completes it, or remove it"
            )

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the state directory `path`; raises `StateError` with the remedy where it cannot."""
        return cls._of(path, open_database, owned=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open what was committed in `path` so far, only to read it; a worker may go on writing there.

        Raises `StateError` with the remedy where it cannot, or where there is no state directory.
        """
        return cls._of(path, read_database, owned=False)

    @classmethod
    def _of(cls, path: Path, opened: Callable[[Path, bytes], tuple[Rdict, bytes]], *, owned: bool) -> Self:
        # In this order: a worker that writes there may note more in the meantime.
        noted = synced.noted(path)
        db, secret = opened(path, META)
        try:
            store = cls(db, path, secret, owned=owned)
            if store.progress.commits < noted:
                raise explained(
                    path,
                    f"commits up to number {noted} had been forced onto the disk, and the last one left is"
                    f" {store.progress.commits} (remove {path / synced.NAME} to go on from there: what came"
                    " after it is decided again)",
                )
        except StateError:
            db.close()
            raise
        return store

    @property
    def empty(self) -> bool:
        """Whether no engine has committed anything yet."""
        return msgspec.structs.replace(self.progress, outputs={}, topics={}) == Progress()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of `keys`, in order, `None` where there is none."""
        if not keys:
            return []
        try:
            return cast("list[bytes | None]", self._db.get(list(keys)))
        except DbClosedError as error:
            raise self._closed() from error
        except Exception as error:  # rocksdict raises nothing narrower
            raise explained(self.path, str(error)) from error

    def first(self, prefix: bytes) -> bytes | None:
        """The first key that begins with `prefix`; its value is not read."""
        rows = self._db.iter()
        rows.seek(prefix)
        key = rows.key() if rows.valid() else None
        self._check(rows)
        return key if key is not None and key.startswith(prefix) else None

    def scan(
        self, prefix: bytes, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with `prefix`, in key order, from `prefix + start` to below the key `end`."""
        options = ReadOptions()
        bound = _after(prefix)
        if end is not None and (bound is None or end < bound):
            bound = end
        if bound is not None:
            options.set_iterate_upper_bound(bound)
        rows = self._db.iter(options)
        rows.seek(prefix + start)
        while rows.valid():
            yield rows.key(), rows.value()
            rows.next()
        self._check(rows)

    def commit(self, writes: WriteSet) -> None:
        """Store a write set atomically: it survives a kill once this returns, a power cut after `sync`."""
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in writes.rows:
            if value is None:
                delete(key)
            else:
                put(key, value)
        put(PROGRESS, msgspec.msgpack.encode(writes.progress))
        if writes.place is not None:
            put(PLACE, msgspec.msgpack.encode(writes.place))
        with self._refusals("a commit"):
            self._db.write(batch)
        self.progress = writes.progress
        self.place = writes.place or self.place

    def sync(self) -> None:
        """Force what was committed onto the disk; may run in another thread, beside commits."""
        with self._refusals("a sync"):
            self._sync()

    def rows(self) -> int:
        """About how many rows there are."""
        return int(self._db.property_int_value("rocksdb.estimate-num-keys") or 0)

    def size_bytes(self) -> int:
        """Bytes on disk, without what is still in memory tables."""
        return int(self._db.property_int_value("rocksdb.total-sst-files-size") or 0)

    def close(self) -> None:
        """Flush and let go of the directory."""
        with self._refusals("to be closed"), contextlib.suppress(DbClosedError):
            try:
                if self._owned:
                    self._sync()
            finally:
                self._db.close()

    def _sync(self) -> None:
        reached = self.progress.commits
        self._db.flush_wal(sync=True)
        synced.note(self.path, reached)

    def _check(self, rows: RdictIter) -> None:
        """Tell an end of rows from an error."""
        try:
            rows.status()
        except Exception as error:  # rocksdict raises nothing narrower
            raise explained(self.path, str(error)) from error

    def _closed(self) -> StreamerError:
        return StreamerError(f"The state directory {self.path} is closed already")

    @contextlib.contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        try:
            yield
        except DbClosedError as error:
            raise self._closed() from error
        except Exception as error:  # rocksdict raises nothing narrower
            raise StreamerError(
                f"The state directory {self.path} refused {what}: {error}; what was committed before is kept:"
                " make room or mend the disk and start again"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, raised: object, *_: object) -> None:
        # What is raised already says more than that a close fails after it.
        with contextlib.nullcontext() if raised is None else contextlib.suppress(StreamerError):
            self.close()


def positions_of(progress: Progress) -> Mapping[Position, int]:
    """The positions of `progress`, flat.

    >>> positions_of(Progress(positions={"payments": {0: 7}}))
    {('payments', 0): 7}
    """
    return flat(progress.positions)


def flat(offsets: Mapping[str, Mapping[int, int]]) -> dict[Position, int]:
    """Offsets by topic and partition, from offsets by partition by topic."""
    return {
        (topic, partition): offset
        for topic, partitions in offsets.items()
        for partition, offset in partitions.items()
    }


def check_shard(store: Store, wanted: bytes | None) -> None:
    """Raises `StateError` where a store holds the state of another shard; `wanted` names it, as 3 of 8.

    `None` is all partitions in one step.
    """
    found = store.get_many([SHARD])[0]
    if not store.empty and found != wanted:
        held, asked = (f"shard {one.decode()}" if one else "all partitions in one" for one in (found, wanted))
        raise StateError(
            f"{store.path} holds the state of {held}, expected that of {asked}: name its own directory with"
            " --state; where the number of partitions has changed, start on a new one and replay"
        )


def nested(positions: Mapping[Position, int]) -> dict[str, dict[int, int]]:
    """The inverse of `flat`."""
    out: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in positions.items():
        out.setdefault(topic, {})[partition] = offset
    return out


def prefixed(room: bytes, rows: Sequence[Row]) -> list[Row]:
    """The rows, moved into a room of the store."""
    return [(room + key, value) for key, value in rows]


def _after(prefix: bytes) -> bytes | None:
    """The first key after all keys that begin with `prefix`."""
    for cut in range(len(prefix) - 1, -1, -1):
        if prefix[cut] < 255:
            return prefix[:cut] + bytes([prefix[cut] + 1])
    return None
