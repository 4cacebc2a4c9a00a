"""One partition of the embedded log: which rows of the database are its own, and how they are read."""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple, cast

import msgspec
from rocksdict import Rdict, WriteBatch

from streamer.batch import Records
from streamer.errors import ConfigError, StateError
from streamer.state.log_chunks import Chunk, Rows, pack, split, unpack
from streamer.state.log_directory import check_end, damaged, value_of

_ROW = Struct(">cII")  # kind of row, number of the topic, partition
_CHUNK_ROW = Struct(">cIIQ")  # the same, and the offset of the chunk's first record
_OFFSET = Struct(">Q")
_CHUNK, _FIRST, _GROUP = b"c", b"f", b"g"
_GREATEST_OFFSET = (1 << 64) - 1


class Place(NamedTuple):
    """Where a partition is: its topic's name and number, and its own number."""

    topic: str
    topic_number: int
    number: int


class LogPartition:
    """Records in chunks, one row of the database each, keyed by the offset of the first.

    `first` is the oldest offset kept, `end` the one that the next record will get.
    """

    def __init__(self, database: Rdict, path: Path, place: Place) -> None:
        self.name = f"{place.topic}/{place.number}"
        self._database = database
        self._path = path
        self._place = place
        self._chunk_rows = self._row(_CHUNK)
        self._begun: Chunk | None = None  # what the last read has left in its middle
        first = value_of(database, path, self._row(_FIRST))
        self.first = self.end = 0 if first is None else cast("int", _OFFSET.unpack(first)[0])
        rows = database.iter()
        rows.seek_for_prev(self._chunk_row(_GREATEST_OFFSET))
        if rows.valid() and rows.key().startswith(self._chunk_rows):
            self.end = max(self.end, self._unpack(rows.key(), rows.value()).end)
        check_end(rows, path)

    def put(self, batch: WriteBatch, base: int, rows: Rows) -> int:
        """Add the rows to a write batch from offset `base` on; answers the offset after the last."""
        start = 0
        for stop in split(rows.values):
            batch.put(self._chunk_row(base + start), pack(rows.cut(start, stop)))
            start = stop
        return base + start

    def put_first(self, batch: WriteBatch, before: int) -> None:
        """Add to a write batch that the records below `before` are gone."""
        if not self.first <= before <= self.end:
            raise ConfigError(
                f"Expected an offset from {self.first} to {self.end} to truncate {self.name}, got {before}"
            )
        kept = next(self._chunks(before)).base if before < self.end else before
        batch.put(self._row(_FIRST), _OFFSET.pack(before))
        batch.delete_range(self._chunk_row(0), self._chunk_row(kept))

    def put_position(self, batch: WriteBatch, group: str, offset: int) -> None:
        """Add to a write batch where a group reads next."""
        batch.put(self._row(_GROUP) + group.encode(), _OFFSET.pack(offset))

    def position(self, group: str) -> int | None:
        """Return where a group reads next, if it has ever said so."""
        row = value_of(self._database, self._path, self._row(_GROUP) + group.encode())
        return None if row is None else cast("int", _OFFSET.unpack(row)[0])

    def read(self, offset: int, max_records: int, max_bytes: int) -> Records:
        """Read records from `offset` on: none at the end, else at least one whatever its size."""
        if not self.first <= offset <= self.end:
            raise StateError(
                f"Expected an offset from {self.first} to {self.end} to read {self.name} of the log "
                f"{self._path}, got {offset}; use the log and the state directory that belong together"
            )
        last = min(self.end, offset + max_records)
        taken = Rows([], [], [], [])
        at, nbytes = offset, 0
        chunks = self._chunks(offset)
        while at < last:
            chunk = next(chunks)
            start = at - chunk.base
            stop, size = chunk.fit(start, min(chunk.end, last) - chunk.base, max_bytes - nbytes)
            if stop == start and at == offset:
                stop, size = start + 1, chunk.rows.size(start)
            taken.add(chunk.rows.cut(start, stop))
            at, nbytes = chunk.base + stop, nbytes + size
            self._begun = chunk if at < chunk.end else None
            if self._begun:
                break
        return Records(self._place.topic, self._place.number, list(range(offset, at)), *taken, nbytes)

    def _chunks(self, offset: int) -> Iterator[Chunk]:
        """Give the chunk that holds `offset` and those after it; raises where one is missing."""
        begun = self._begun
        if begun and begun.base <= offset < begun.end:
            yield begun
            offset = begun.end
        rows = self._database.iter()
        rows.seek_for_prev(self._chunk_row(offset))
        while rows.valid() and rows.key().startswith(self._chunk_rows):
            chunk = self._unpack(rows.key(), rows.value())
            if not chunk.base <= offset < chunk.end:
                break
            yield chunk
            offset = chunk.end
            rows.next()
        check_end(rows, self._path)
        raise damaged(self._path, f"{self.name} has no record at offset {offset}, and ends at {self.end}")

    def _unpack(self, row: bytes, packed: bytes) -> Chunk:
        base: int = _CHUNK_ROW.unpack(row)[3]
        try:
            rows = unpack(packed)
        except msgspec.MsgspecError as error:
            raise damaged(self._path, f"{self.name} is unreadable at offset {base} ({error})") from error
        return Chunk(base, base + len(rows.values), rows, len(packed))

    def _row(self, kind: bytes) -> bytes:
        return _ROW.pack(kind, self._place.topic_number, self._place.number)

    def _chunk_row(self, offset: int) -> bytes:
        return _CHUNK_ROW.pack(_CHUNK, self._place.topic_number, self._place.number, offset)
