"""Payments that were decided before a crash and that the rows of their keys lack."""

from typing import Final

import numpy as np

from streamer.batch import Int64, Text
from streamer.features.columns import Prepared
from streamer.features.fields import Column

_NONE: Final = np.empty(0, np.int64)


class Redo:
    """The payments of one entity's keys, each found again when its key comes into memory.

    So a start need not read every key of the last minutes from the store before the first answer.
    """

    def __init__(self, key_fields: tuple[str, ...], columns: tuple[Column, ...]) -> None:
        self._key_fields = key_fields
        self._columns = columns
        self._parts: list[tuple[Text, Int64, Int64, Int64, Int64]] = []
        self._sealed = True
        self._next = 0
        self.keys = Text(np.empty(0, np.uint8), np.zeros(1, np.int64))
        """The keys of all payments; rows below are places among them."""
        self.numbers = _NONE
        self.times = _NONE
        self.values = np.empty((len(columns), 0), np.int64)
        self._order = self._hashes = _NONE

    def add(self, prepared: Prepared, number: int) -> None:
        """Take the live payments of batch `number`; batches come in order."""
        text, hashes = prepared.keys(self._key_fields)
        rows = np.flatnonzero(prepared.batch.live & text.present)
        values = np.empty((len(self._columns), len(rows)), np.int64)
        for place, column in enumerate(self._columns):
            values[place] = prepared.kept(column)[rows]
        times = prepared.batch.event_time[rows]
        self._parts.append((_rows_of(text, rows), hashes[rows], times, np.full(len(rows), number), values))
        self._sealed = False

    def __len__(self) -> int:
        """How many payments there are, taken or not: a key that comes back may lack any of them."""
        self._seal()
        return len(self._order)

    @property
    def left(self) -> int:
        """How many of them have not been taken."""
        return len(self) - self._next

    def find(self, hashes: Int64) -> tuple[Int64, Int64]:
        """The payments of keys with these hashes, those of a key in order: places in `hashes`, and rows."""
        self._seal()
        begin = np.searchsorted(self._hashes, hashes)
        counts = np.searchsorted(self._hashes, hashes, "right") - begin
        places = np.repeat(np.arange(len(hashes)), counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, self._order[np.repeat(begin, counts) + within]

    def take(self, most: int | None) -> tuple[Text, Int64]:
        """The keys, with their hashes, of so many payments not taken so far; without `most` of all."""
        self._seal()
        end = len(self._order) if most is None else min(self._next + most, len(self._order))
        chosen = slice(self._next, end)
        self._next = end
        return _rows_of(self.keys, self._order[chosen]), self._hashes[chosen]

    def _seal(self) -> None:
        if self._sealed:
            return
        texts, hashes, times, numbers, values = zip(*self._parts, strict=True)
        ends = np.zeros(sum(map(len, texts)) + 1, np.int64)
        np.cumsum(np.concatenate([np.diff(text.ends) for text in texts]), out=ends[1:])
        self.keys = Text(np.concatenate([text.data for text in texts]), ends)
        self.times, self.numbers = np.concatenate(times), np.concatenate(numbers)
        self.values = np.concatenate(values, axis=1)
        unordered = np.concatenate(hashes)
        self._order = np.argsort(unordered, kind="stable")
        self._hashes = unordered[self._order]
        self._sealed = True


def _rows_of(text: Text, rows: Int64) -> Text:
    data, ends = text.data.tobytes(), text.ends
    chosen = [
        data[start:end] for start, end in zip(ends[rows].tolist(), ends[rows + 1].tolist(), strict=True)
    ]
    lengths = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum([len(one) for one in chosen], out=lengths[1:])
    return Text(np.frombuffer(b"".join(chosen), np.uint8), lengths)
