"""Batches of records and of columns: what flows between the rims and the engine."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

Headers = Sequence[tuple[str, bytes]]

SOURCE = "streamer_source"
"""The header of an answer that names the record it answers: topic/partition/offset."""


@dataclass(frozen=True, slots=True)
class Records:
    """Consecutive records of one partition, in offset order, as the log delivered them.

    The lists are parallel. Offsets increase but may have gaps (compaction, transactions).
    Timestamps are milliseconds since 1970 UTC. A value of `None` is a tombstone. `more`: the partition had
    more when they were taken, as far as that was known.
    """

    topic: str
    partition: int
    offsets: list[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]
    nbytes: int
    more: bool = False

    def __len__(self) -> int:
        return len(self.offsets)

    def since(self, offset: int) -> "Records":
        """Those that are not before `offset`."""
        start = bisect_left(self.offsets, offset)
        if start == 0:
            return self
        return replace(
            self,
            offsets=self.offsets[start:],
            timestamps=self.timestamps[start:],
            keys=self.keys[start:],
            values=self.values[start:],
            headers=self.headers[start:],
        )


@dataclass(slots=True)
class Outgoing:
    """Records on their way to one topic, in order. The lists are parallel.

    `partition` is `None` where the key decides (Kafka's default partitioner: murmur2 of the key). `patient`:
    they may wait a moment for others to leave with.
    """

    topic: str
    partition: int | None = None
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    patient: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def append(self, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Add one record at the end."""
        self.keys.append(key)
        self.values.append(value)
        self.headers.append(headers)


@dataclass(frozen=True, slots=True)
class Text:
    """A column of strings as UTF-8: row `i` is `data[ends[i]:ends[i + 1]]`; an absent value is empty.

    `data` is uint8 of any length, read-only, `ends` int64 of shape (n + 1,) starting at 0.
    """

    data: Bytes
    ends: Int64

    def __post_init__(self) -> None:
        """Let nobody write to it: numba compiles a kernel anew for arrays that may be written to."""
        self.data.flags.writeable = False

    @classmethod
    def pack(cls, values: Sequence[str | None]) -> Self:
        """Pack strings (without lone surrogates) into one buffer.

        >>> Text.pack(["visa", None, "é"]).ends.tolist()
        [0, 4, 4, 6]
        """
        texts = [value or "" for value in values]
        data = "".join(texts).encode()
        ends = np.zeros(len(texts) + 1, np.int64)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        if int(lengths.sum()) != len(data):
            lengths = np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts))
        np.cumsum(lengths, out=ends[1:])
        return cls(np.frombuffer(data, np.uint8), ends)

    @property
    def present(self) -> Bool:
        """Which rows have a value; shape (n,)."""
        return np.diff(self.ends) > 0

    def __len__(self) -> int:
        return len(self.ends) - 1
