"""How rows become records of a changelog and rows again: large ones in parts, the last of a commit marked."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from streamer.batch import Headers
from streamer.state.store import Row

PART_BYTES: Final = 900_000
"""A larger value is cut into parts of so many bytes: brokers take 1,048,588 a batch unless told otherwise."""

PARTS: Final = b"\x00"
"""First byte of the keys of parts: no room of the store."""

_WHOLE: Final = "streamer_parts"
_PART: Final = "streamer_part"
_MARK: Final = "streamer_changelog"

Written = tuple[bytes, bytes | None, Headers]
"""Key, value and headers of a record; a value of `None` deletes."""


class Record(Protocol):
    """What is read of a record."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    offset: int


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """What the last record of every commit, its progress, says of the changelog: that it is this one."""

    changelog: bytes
    """16 random bytes, drawn when the changelog was begun."""
    begin: int
    """Offset at which it was begun; what lies there and later is never deleted but for newer rows."""

    @property
    def headers(self) -> Headers:
        """The headers that carry it."""
        return ((_MARK, msgspec.msgpack.encode(self)),)


def mark_of(record: Record) -> Mark | None:
    """The mark of a record that ends a commit, `None` for all others; raises `msgspec.MsgspecError`."""
    for name, value in record.headers:
        if name == _MARK:
            return msgspec.msgpack.decode(value or b"", type=Mark)
    return None


def parts_of(value: bytes | None) -> int:
    """How many parts a value is cut into; a value that fits has none.

    >>> [parts_of(None), parts_of(bytes(PART_BYTES)), parts_of(bytes(PART_BYTES + 1))]
    [0, 0, 2]
    """
    return 0 if value is None or len(value) <= PART_BYTES else -(-len(value) // PART_BYTES)


def cut(key: bytes, value: bytes | None, before: int) -> list[Written]:
    """The records of a row whose last value had `before` parts: the parts first, the row itself last.

    The row's own record has no value of its own then, but a checksum that tells its parts from older ones.
    """
    count = parts_of(value)
    if value is None or not count:
        written: list[Written] = [(key, value, ())]
    else:
        written = [
            (_part_key(key, number), value[number * PART_BYTES :][:PART_BYTES], ((_PART, b""),))
            for number in range(count)
        ]
        written.append((key, b"", ((_WHOLE, msgspec.msgpack.encode((count, _checksum(value)))),)))
    # After the row, so that parts and row stay together.
    written += [(_part_key(key, number), None, ((_PART, b""),)) for number in range(count, before)]
    return written


class Joiner:
    """Puts parts together again.

    A row whose parts are not all there is passed over: a newer one follows that took their place, or the row
    was deleted. `missing` holds those of which neither has come yet; at the end of the changelog it is empty.
    """

    def __init__(self) -> None:
        self._parts: dict[bytes, bytes] = {}
        self.missing: set[bytes] = set()

    @property
    def waiting(self) -> bool:
        """Whether parts were read whose row was not."""
        return bool(self._parts)

    @property
    def alert(self) -> bool:
        """Whether the next record has to be seen here, though it has no headers."""
        return bool(self._parts or self.missing)

    def row(self, record: Record) -> Row | None:
        """The row that ends with this record; `None` if it is a part, or lacks parts."""
        whole = None
        for name, value in record.headers:
            if name == _PART:
                if record.value is None:
                    self._parts.pop(record.key, None)
                else:
                    self._parts[record.key] = record.value
                return None
            if name == _WHOLE:
                whole = msgspec.msgpack.decode(value or b"", type=tuple[int, bytes])
        self.missing.discard(record.key)
        row: Row | None = (record.key, record.value)
        if whole is not None:
            count, checksum = whole
            parts = [self._parts.get(_part_key(record.key, number)) for number in range(count)]
            joined = b"".join(part for part in parts if part is not None)
            row = (record.key, joined) if _checksum(joined) == checksum else None
            if row is None:
                self.missing.add(record.key)
        self._parts.clear()
        return row


def _part_key(key: bytes, number: int) -> bytes:
    return PARTS + key + number.to_bytes(4, "big")


def _checksum(value: bytes) -> bytes:
    return blake2b(value, digest_size=16).digest()
