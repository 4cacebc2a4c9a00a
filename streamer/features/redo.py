"""Payments that were decided before a crash and that the rows of their keys lack."""

# ruff: noqa: PLR0913, PLR0917 - a kernel is one flat loop over arrays it is given
# mypy: disable-error-code="arg-type,assignment,return-value,no-any-return"
# (numpy's integers and Python's are the same to numba)

from typing import Final

import numpy as np

from streamer.batch import Bool, Int64, Text
from streamer.features.columns import Prepared
from streamer.features.compiled import kernel
from streamer.features.fields import Column
from streamer.features.layout import UInt32

_NONE: Final = np.empty(0, np.int64)
_FIRST: Final = np.zeros(1, np.int64)


@kernel
def chain(hashes: Int64, heads: UInt32, following: UInt32) -> None:
    """Let each bucket begin a chain of the rows whose hash falls into it, in order; a link is a row + 1."""
    last = heads.shape[0] - 1
    for row in range(hashes.shape[0] - 1, -1, -1):
        bucket = hashes[row] & last
        following[row] = heads[bucket]
        heads[bucket] = row + 1


@kernel
def count_rows(wanted: Int64, hashes: Int64, heads: UInt32, following: UInt32) -> int:
    """How many rows have one of these hashes, a hash that is wanted twice counted twice."""
    found = 0
    for place in range(wanted.shape[0]):
        link = np.int64(heads[wanted[place] & (heads.shape[0] - 1)])
        while link != 0:
            found += hashes[link - 1] == wanted[place]
            link = np.int64(following[link - 1])
    return found


@kernel
def find_rows(
    wanted: Int64, hashes: Int64, heads: UInt32, following: UInt32, places: Int64, rows: Int64
) -> None:
    """Write these rows, and the place in `wanted` of the hash of each."""
    found = 0
    for place in range(wanted.shape[0]):
        link = np.int64(heads[wanted[place] & (heads.shape[0] - 1)])
        while link != 0:
            if hashes[link - 1] == wanted[place]:
                places[found], rows[found] = place, link - 1
                found += 1
            link = np.int64(following[link - 1])


@kernel
def walk(heads: UInt32, following: UInt32, cursor: Int64, rows: Int64) -> None:
    """Write the next rows, bucket by bucket; `cursor` is the next bucket and the link in the one before."""
    bucket, link = cursor[0], cursor[1]
    for place in range(rows.shape[0]):
        while link == 0:
            link = np.int64(heads[bucket])
            bucket += 1
        rows[place] = link - 1
        link = np.int64(following[link - 1])
    cursor[0], cursor[1] = bucket, link


class Redo:
    """The payments of one entity's keys, each found again when its key comes into memory.

    So a start need not read every key of the last minutes from the store before the first answer.
    """

    def __init__(self, key_fields: tuple[str, ...], columns: tuple[Column, ...]) -> None:
        self._key_fields = key_fields
        self._columns = columns
        self._parts: list[tuple[Text, Int64, Int64, Int64, Int64]] = []
        self._sealed = True
        self._taken = 0
        self._cursor = np.zeros(2, np.int64)
        self.keys = Text(np.empty(0, np.uint8), np.zeros(1, np.int64))
        """The keys of all payments; rows below are places among them."""
        self.numbers = _NONE
        self.times = _NONE
        self.values = np.empty((len(columns), 0), np.int64)
        self._hashes = _NONE
        self._heads, self._following = np.zeros(1, np.uint32), np.empty(0, np.uint32)

    def add(self, prepared: Prepared, number: int) -> None:
        """Take the live payments of batch `number`; batches come in order."""
        text, hashes = prepared.keys(self._key_fields)
        chosen = prepared.batch.live & text.present
        rows = np.flatnonzero(chosen)
        values = np.empty((len(self._columns), len(rows)), np.int64)
        for place, column in enumerate(self._columns):
            values[place] = prepared.kept(column)[rows]
        times = prepared.batch.event_time[rows]
        self._parts.append((_only(text, chosen), hashes[rows], times, np.full(len(rows), number), values))
        self._sealed = False

    def __len__(self) -> int:
        """How many payments there are, taken or not: a key that comes back may lack any of them."""
        self._seal()
        return len(self._hashes)

    @property
    def left(self) -> int:
        """How many of them have not been taken."""
        return len(self) - self._taken

    def find(self, hashes: Int64) -> tuple[Int64, Int64]:
        """The payments of keys with these hashes, those of a key in order: places in `hashes`, and rows."""
        self._seal()
        known = hashes, self._hashes, self._heads, self._following
        found = count_rows(*known)
        places, rows = np.empty(found, np.int64), np.empty(found, np.int64)
        find_rows(*known, places, rows)
        return places, rows

    def take(self, most: int | None) -> tuple[Text, Int64]:
        """The keys, with their hashes, of so many payments not taken so far; without `most` of all.

        Those of one key follow each other, so that it comes into memory once.
        """
        rows = np.empty(self.left if most is None else min(most, self.left), np.int64)
        walk(self._heads, self._following, self._cursor, rows)
        self._taken += len(rows)
        return _rows_of(self.keys, rows), self._hashes[rows]

    def _seal(self) -> None:
        if self._sealed:
            return
        texts, hashes, times, numbers, values = zip(*self._parts, strict=True)
        ends = np.zeros(sum(map(len, texts)) + 1, np.int64)
        np.cumsum(np.concatenate([np.diff(text.ends) for text in texts]), out=ends[1:])
        self.keys = Text(np.concatenate([text.data for text in texts]), ends)
        self.times, self.numbers = np.concatenate(times), np.concatenate(numbers)
        self.values = np.concatenate(values, axis=1)
        self._hashes = np.concatenate(hashes)
        # Sorting by hash would take five times as long.
        self._heads = np.zeros(1 << max(len(self._hashes) - 1, 0).bit_length(), np.uint32)
        self._following = np.empty(len(self._hashes), np.uint32)
        chain(self._hashes, self._heads, self._following)
        self._parts = [(self.keys, self._hashes, self.times, self.numbers, self.values)]
        self._sealed = True


def _only(text: Text, chosen: Bool) -> Text:
    """Some rows of a column in their order, without what its data has beyond them."""
    lengths = np.diff(text.ends)
    ends = np.concatenate((_FIRST, np.cumsum(lengths[chosen])))
    return Text(text.data[: text.ends[-1]][np.repeat(chosen, lengths)], ends)


def _rows_of(text: Text, rows: Int64) -> Text:
    data, ends = text.data.tobytes(), text.ends
    chosen = [
        data[start:end] for start, end in zip(ends[rows].tolist(), ends[rows + 1].tolist(), strict=True)
    ]
    lengths = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum([len(one) for one in chosen], out=lengths[1:])
    return Text(np.frombuffer(b"".join(chosen), np.uint8), lengths)
