"""Which partition a key belongs to: Kafka's default partitioner, for whole columns of keys."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from streamer.batch import Bytes, Int64, Text

_MULTIPLIER: Final = np.uint32(0x5BD1E995)
_SEED: Final = np.uint32(0x9747B28C)


def murmur2_many(keys: Sequence[bytes]) -> npt.NDArray[np.uint32]:
    """Hash keys as Kafka's default partitioner does; shape (n,).

    Source: https://github.com/apache/kafka, Utils.murmur2.

    >>> murmur2_many([b"", b"21", b"foobar"]).astype("int32").tolist()
    [275646681, -973932308, -790332482]
    """
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    return _murmur2(np.frombuffer(b"".join(keys), np.uint8), lengths)


def partitions_of(keys: Sequence[bytes | None], count: int, keyless: int) -> list[int]:
    """Return the partition of each key out of `count`, as every Kafka client does; without a key: `keyless`.

    >>> partitions_of([b"21", None, b"foobar"], 8, keyless=5)
    [4, 5, 6]
    """
    hashed = _within(murmur2_many([key or b"" for key in keys]), count)
    return [
        keyless if key is None else partition for key, partition in zip(keys, hashed.tolist(), strict=True)
    ]


def partitions_of_text(keys: Text, count: int) -> Int64:
    """The same of a column of keys, where an absent one is the empty one; shape (n,).

    >>> partitions_of_text(Text.pack(["21", "foobar"]), 8).tolist()
    [4, 6]
    """
    if count == 1:
        return np.zeros(len(keys), np.int64)
    return _within(_murmur2(keys.data[: keys.ends[-1]], np.diff(keys.ends)), count)


def _within(hashed: npt.NDArray[np.uint32], count: int) -> Int64:
    return (hashed & np.uint32(0x7FFFFFFF)).astype(np.int64) % count


# Longer keys are hashed apart, so that one of them does not widen the table of a whole batch.
_WIDE: Final = 256


def _murmur2(data: Bytes, lengths: Int64) -> npt.NDArray[np.uint32]:
    """Hash n keys laid end to end."""
    out = np.empty(len(lengths), np.uint32)
    wide = lengths > _WIDE
    if wide.any():
        ends = np.cumsum(lengths)
        for row in np.flatnonzero(wide).tolist():
            end, length = int(ends[row]), int(lengths[row])
            out[row] = _narrow(data[end - length : end], lengths[row : row + 1])[0]
        data, lengths = data[~np.repeat(wide, lengths)], lengths[~wide]
    out[~wide] = _narrow(data, lengths)
    return out


def _narrow(data: Bytes, lengths: Int64) -> npt.NDArray[np.uint32]:
    """Hash all keys at once, word by word, from a table as wide as the longest."""
    words = int(lengths.max(initial=0)) // 4 + 1
    cells = np.zeros((len(lengths), 4 * words), np.uint8)
    cells[np.arange(4 * words) < lengths[:, np.newaxis]] = data
    table = cells.view("<u4")
    whole, odd_bytes = lengths >> 2, lengths & 3
    hashed = lengths.astype(np.uint32) ^ _SEED
    for word in range(words):
        mixed = table[:, word] * _MULTIPLIER
        mixed ^= mixed >> 24
        mixed *= _MULTIPLIER
        hashed = np.where(word < whole, (hashed * _MULTIPLIER) ^ mixed, hashed)
    # The table is padded with zeros, so a key's last word holds just its one to three odd bytes.
    odd = table[np.arange(len(table)), whole]
    hashed = np.where(odd_bytes > 0, (hashed ^ odd) * _MULTIPLIER, hashed)
    hashed ^= hashed >> 13
    hashed *= _MULTIPLIER
    hashed ^= hashed >> 15
    return hashed.astype(np.uint32, copy=False)
