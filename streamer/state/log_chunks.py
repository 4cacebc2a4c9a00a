"""Packs the records of one append into rows of the log, and back."""

from collections.abc import Sequence
from itertools import chain
from types import NoneType
from typing import NamedTuple

import msgspec

from streamer.batch import Headers
from streamer.errors import StreamerError

CHUNK_RECORDS = 1000
CHUNK_BYTES = 1 << 20

_Packed = tuple[
    int | list[int],
    list[bytes | None],
    list[bytes | None],
    list[tuple[tuple[str, bytes], ...]] | None,
]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_KEYS_AND_VALUES = frozenset((bytes, NoneType))


class Rows(NamedTuple):
    """Records on their way into a chunk, or out of one: parallel lists. Timestamps are milliseconds."""

    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]

    def cut(self, start: int, stop: int) -> "Rows":
        """Take the rows from `start` up to and without `stop`."""
        return Rows(
            self.timestamps[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.headers[start:stop],
        )

    def add(self, rows: "Rows") -> None:
        """Put more rows at the end."""
        self.timestamps.extend(rows.timestamps)
        self.keys.extend(rows.keys)
        self.values.extend(rows.values)
        self.headers.extend(rows.headers)

    def size(self, row: int) -> int:
        """Count the bytes of the key, the value and the headers of one row."""
        headers = sum(len(name) + len(value) for name, value in self.headers[row])
        return len(self.keys[row] or b"") + len(self.values[row] or b"") + headers


class Chunk(NamedTuple):
    """A stored chunk: the offset of its first row and the one after its last, its rows, its size in bytes."""

    base: int
    end: int
    rows: Rows
    nbytes: int

    def fit(self, start: int, stop: int, budget: int) -> tuple[int, int]:
        """Say how far the rows from `start` up to `stop` fit into `budget` bytes, and what those weigh."""
        if self.nbytes <= budget:
            return stop, self.nbytes * (stop - start) // (self.end - self.base)
        size = 0
        for row in range(start, stop):
            more = self.rows.size(row)
            if size + more > budget:
                return row, size
            size += more
        return stop, size


def check(rows: Rows, where: str) -> None:
    """Refuse what could be written and never read back: lists of different lengths, wrong types."""
    counts = [len(rows.timestamps), len(rows.keys), len(rows.values), len(rows.headers)]
    if len(set(counts)) > 1:
        found = ", ".join(f"{count} {name}" for count, name in zip(counts, Rows._fields, strict=True))
        raise StreamerError(f"Expected lists of one length for {where}, got {found}")
    wrong = (set(map(type, rows.keys)) | set(map(type, rows.values))) - _KEYS_AND_VALUES
    if wrong:
        raise StreamerError(
            f"Expected keys and values as bytes or None for {where}, got {wrong.pop().__name__}"
        )
    pairs = list(chain.from_iterable(rows.headers))
    if pairs:
        wrong = ({type(name) for name, _ in pairs} - {str}) | ({type(value) for _, value in pairs} - {bytes})
        if wrong:
            raise StreamerError(f"Expected headers as (str, bytes) for {where}, got {wrong.pop().__name__}")


def split(values: Sequence[bytes | None]) -> list[int]:
    """Choose where chunks end, so that reading at any offset unpacks little more than what is asked for.

    >>> split([b"a" * CHUNK_BYTES, b"", b"c"])
    [1, 3]
    """
    ends = []
    start = size = 0
    for row, value in enumerate(values, start=1):
        size += len(value or b"")
        if row - start == CHUNK_RECORDS or size >= CHUNK_BYTES or row == len(values):
            ends.append(row)
            start, size = row, 0
    return ends


def pack(rows: Rows) -> bytes:
    """Encode rows as MessagePack; equal timestamps and absent headers take no room."""
    first = rows.timestamps[0]
    alike = rows.timestamps.count(first) == len(rows.timestamps)
    headers = rows.headers if any(rows.headers) else None
    return _encode((first if alike else rows.timestamps, rows.keys, rows.values, headers))


def unpack(packed: bytes) -> Rows:
    """Decode what `pack` has encoded; raises `msgspec.MsgspecError` for anything else.

    >>> unpack(pack(Rows([7, 7], [b"k", None], [b"", None], [[("a", b"1")], ()])))
    Rows(timestamps=[7, 7], keys=[b'k', None], values=[b'', None], headers=[(('a', b'1'),), ()])
    """
    timestamps, keys, values, headers = _decode(packed)
    count = len(values)
    return Rows(
        [timestamps] * count if isinstance(timestamps, int) else timestamps,
        keys,
        values,
        [()] * count if headers is None else [*headers],
    )
