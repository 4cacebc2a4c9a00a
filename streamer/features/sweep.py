"""Finds the stored keys that no window can see any more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamer.features.blocks import HEAD, HEADER, VERSION, is_sound
from streamer.features.loading import COUNT_AT, FIRST_AND_NUMBER, FIRST_AT, BlockStore

VERSION_AT: Final = 4
_HEAD_NUMBER: Final = HEAD.to_bytes(4, "big")
_TIMES: Final = HEADER + 9


@dataclass(frozen=True, slots=True)
class Expired:
    """A key all of whose events are too old: its bytes, and its rows."""

    key: bytes
    rows: list[bytes]


def find_expired(rows: Sequence[tuple[bytes, bytes]], limit: int, store: BlockStore) -> list[Expired]:
    """The keys with their newest block among `rows` and no event after `limit` (ms).

    What is damaged or of another version stays, for whoever comes to read it to tell.
    """
    heads = [
        (key, value)
        for key, value in rows
        if key.endswith(_HEAD_NUMBER) and _is_old(value, limit) and _is_intact(key, value)
    ]
    older = [list(_sealed(key, value)) for key, value in heads]
    values = iter(store.get_many([key for keys in older for key in keys]))
    found = []
    for (head, _), keys in zip(heads, older, strict=True):
        blocks = [(key, next(values)) for key in keys]
        if all(
            value is not None and _is_old(value, limit) and _is_intact(key, value) for key, value in blocks
        ):
            found.append(Expired(head[4:-4], [*keys, head]))
    return found


def _is_old(value: bytes, limit: int) -> bool:
    """Whether a block has no event after `limit`."""
    if len(value) < _TIMES or value[VERSION_AT] != VERSION:
        return False
    least = int.from_bytes(value[HEADER : HEADER + 8], "little", signed=True)
    if least > limit:
        return False
    width = value[HEADER + 8]
    ends = range(_TIMES + width, _TIMES + width * value[COUNT_AT] + 1, width) if width else ()
    return all(least + int.from_bytes(value[end - width : end], "little") <= limit for end in ends)


def _is_intact(key: bytes, value: bytes) -> bool:
    return is_sound(np.frombuffer(key, np.uint8), np.frombuffer(value, np.uint8))


def _sealed(head: bytes, value: bytes) -> Iterator[bytes]:
    """The row keys of the older blocks of a newest one."""
    first, number = FIRST_AND_NUMBER.unpack_from(value, FIRST_AT)
    for block in range(first, number):
        yield head[:-4] + block.to_bytes(4, "big")
