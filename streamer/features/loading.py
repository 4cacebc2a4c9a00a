"""Finds the stored blocks of keys that come back into memory."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from streamer.batch import Bytes, Int64
from streamer.errors import StateError
from streamer.features.blocks import AS_OF_AT, HEAD, HEADER, is_sound
from streamer.features.layout import BLOCK_CHUNKS

COUNT_AT, SKIP_AT, FIRST_AT = 5, 6, 8
FIRST_AND_NUMBER: Final = struct.Struct("<II")


class BlockStore(Protocol):
    """Where blocks are found again."""

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of row keys, `None` where there is none."""


@dataclass
class Stored:
    """What the store has of the key at a place: row keys and values, oldest first.

    `begin` is a chunk, `as_of` the first batch of payments that it lacks.
    """

    place: int
    begin: int
    as_of: int
    keys: list[bytes]
    values: list[bytes]


def find_blocks(store: BlockStore, row_keys: list[bytes], entity: str) -> list[Stored]:
    """The blocks of those keys of which the store has any; `row_keys` are of their newest blocks."""
    found = [
        _begin(place, row_keys[place], head, entity)
        for place, head in enumerate(store.get_many(row_keys))
        if head is not None
    ]
    sealed = [key for one in found for key in one.keys[:-1]]
    if sealed:
        values = iter(store.get_many(sealed))
        for one in found:
            older = [_whole(key, next(values), entity) for key in one.keys[:-1]]
            one.values[:0] = older
            if older:
                one.begin += older[0][SKIP_AT]
    return found


def unusable(entity: str, row_key: bytes, why: str) -> StateError:
    """A block that cannot be used."""
    number = int.from_bytes(row_key[-4:], "big")
    block = "newest block" if number == HEAD else f"block {number}"
    return StateError(
        f"entity {entity!r}, key {row_key[4:-4]!r}, {block}: cannot be used because of {why}; its features"
        " would be wrong. Restore the state directory from a copy, or delete it and let replay build it again"
    )


def pack_bytes(parts: Sequence[bytes]) -> tuple[Bytes, Int64]:
    """Parts one after the other, 8 bytes more, and where each part ends, beginning with 0."""
    ends = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=ends[1:])
    return np.frombuffer(b"".join((*parts, bytes(8))), np.uint8), ends


def _begin(place: int, row_key: bytes, head: bytes, entity: str) -> Stored:
    """What a newest block says of the older ones, once its checksum agrees."""
    first, number = FIRST_AND_NUMBER.unpack_from(_whole(row_key, head, entity), FIRST_AT)
    if number != first and not is_sound(np.frombuffer(row_key, np.uint8), np.frombuffer(head, np.uint8)):
        raise unusable(entity, row_key, "damage")
    older = [row_key[:-4] + block.to_bytes(4, "big") for block in range(first, number)]
    begin = first * BLOCK_CHUNKS + (0 if older else head[SKIP_AT])
    as_of = int.from_bytes(head[AS_OF_AT:HEADER], "little")
    return Stored(place, begin, as_of, [*older, row_key], [head])


def _whole(row_key: bytes, value: bytes | None, entity: str) -> bytes:
    if value is None:
        raise unusable(entity, row_key, "loss")
    if len(value) < HEADER:
        raise unusable(entity, row_key, "damage")
    return value
