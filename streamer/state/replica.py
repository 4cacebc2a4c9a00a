"""A state directory while it is filled from its changelog: marked until its rows are those of one commit."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self, cast

import msgspec
from rocksdict import DbClosedError, Rdict, WriteBatch, WriteOptions

from streamer.errors import StateError, StreamerError
from streamer.state import synced
from streamer.state.changelog_records import Joiner, Mark, Record, mark_of
from streamer.state.store import FORMAT, META, PLACE, PROGRESS, SECRET, Place
from streamer.state.store_directory import FORMAT as FORMAT_NAME
from streamer.state.store_directory import explained, open_database

BATCH_BYTES = 8 << 20
"""Rows are written when so many bytes wait, or when they reach a commit."""

_EVERYTHING = bytes(1), b"\xff" * 64


class Replica:
    """Takes records of a changelog in order, and keeps with its rows the `place` that they reach, atomically.

    Nothing is logged ahead: what a crash loses is read again from the `place` that is left, which is never
    newer than its rows. `Store.open` refuses the directory until `reach` has said that the rows are whole.
    """

    def __init__(self, db: Rdict, path: Path, secret: bytes) -> None:
        self._db = db
        self.path = path
        self._secret = secret
        raw, place = cast("list[bytes | None]", db.get([PROGRESS, PLACE]))
        try:
            self.place = None if place is None else msgspec.msgpack.decode(place, type=Place)
        except msgspec.MsgspecError as error:
            raise explained(path, f"its place in the changelog is unreadable ({error})") from error
        self._progress = raw
        self.empty = raw is None and place is None
        """Whether nothing was ever stored here."""
        self._joiner = Joiner()
        self._batch = WriteBatch(raw_mode=True)
        self._options = WriteOptions()
        self._options.disable_wal = True  # type: ignore[method-assign, assignment]  # it is a property
        self.mark: tuple[Mark, int] | None = None
        """The last mark that was read, and its offset."""
        self.lost = False
        """Whether what lies where the directory's last commit ended is not that commit."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the directory; raises `StateError` with the remedy where it cannot."""
        db, secret = open_database(path, META, filled=True)
        try:
            return cls(db, path, secret)
        except StateError:
            db.close()
            raise

    def wipe(self, place: Place) -> None:
        """Begin from nothing at `place`, which is not whole."""
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(*_EVERYTHING)
        batch.put(FORMAT, FORMAT_NAME)
        batch.put(SECRET, self._secret)
        self._batch, self._joiner = batch, Joiner()
        self._write(place)
        synced.note(self.path, 0)

    def add(self, records: Iterable[Record], start: int) -> int:
        """Take committed records from offset `start` on; answers how many there were.

        Those before it are compared with what is here, and their mark is noted. Raises `StateError` for what
        no owner can have written.
        """
        try:
            return self._add(records, start)
        except (msgspec.MsgspecError, KeyError) as error:
            raise StateError(
                f"a record of the changelog is damaged: {error}; restore the topic from a copy"
            ) from error

    def _add(self, records: Iterable[Record], start: int) -> int:
        put, delete = self._batch.put, self._batch.delete
        count = 0
        alert = self._joiner.alert
        for record in records:
            if record.offset < start:
                self._note(record)
                self._compare(record)
                continue
            count += 1
            key, value = record.key, record.value
            if alert or record.headers:
                row = self._joiner.row(record)
                alert = self._joiner.alert
                self._note(record)
                if row is None:
                    continue
                value = row[1]
            if value is None:
                delete(key)
            else:
                put(key, value)
        return count

    def advance(self, place: Place) -> None:
        """Write what waits, if it is much: the rows reach `place`, which is not whole."""
        if self._batch.size_in_bytes() >= BATCH_BYTES and not self._joiner.waiting:
            self._write(place)

    def reach(self, place: Place) -> None:
        """Write what waits: the rows are those of the commit at `place`."""
        if self._joiner.missing:
            raise StateError(
                f"partition {place.shard} of topic {place.topic} is damaged: parts of"
                f" {len(self._joiner.missing)} rows are missing; restore the topic from a copy, or rebuild"
                " the state by replay"
            )
        self._write(place)

    def flush(self) -> None:
        """Bring what was written onto the disk."""
        self._attempt(self._db.flush)

    def close(self) -> None:
        """Bring what was written onto the disk and let go of the directory."""
        with suppress(DbClosedError):
            self._attempt(self._db.flush)
            self._db.close()

    def _write(self, place: Place) -> None:
        batch, self._batch = self._batch, WriteBatch(raw_mode=True)
        batch.put(PLACE, msgspec.msgpack.encode(place))
        self._attempt(lambda: self._db.write(batch, self._options))
        self.place = place
        self.empty = False

    def _note(self, record: Record) -> None:
        mark = mark_of(record)
        if mark is not None:
            self.mark = mark, record.offset

    def _compare(self, record: Record) -> None:
        place = self.place
        if place is not None and place.whole and record.offset == place.last:
            self.lost = record.value != self._progress

    def _attempt(self, what: Callable[[], object]) -> None:
        try:
            what()
        except DbClosedError:
            raise
        except Exception as error:  # rocksdict raises nothing narrower
            raise StreamerError(
                f"The state directory {self.path} refused rows of the changelog: {error};"
                " make room or mend the disk and start again: it goes on from there"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
