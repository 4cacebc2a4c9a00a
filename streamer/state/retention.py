"""Lets go of decided batches, and of all that is kept by their payments, once outcomes can no longer come."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from streamer.batch import Int64
from streamer.state.decided import DIGEST, OFFSET_BITS, ROW_BITS, DecidedBatches, batch_key, moments_of
from streamer.state.identities import ENTRY
from streamer.state.store import FRAUDS, IDS, LABELS, META, SEEN, Row, Store
from streamer.state.walk import Walk

MARK: Final = np.dtype(ENTRY.descr[2:])
"""The value of a row of the rooms `IDS` and `SIGHTED`."""

_BY_DIGEST: Final = (SEEN, FRAUDS)
"""What is kept by the digest of a payment's id, and goes with its mark."""


def labels_of(store: Store, source: Int64) -> dict[int, bytes]:
    """The labels stored of the payments of a batch, by source; they may be of several partitions."""
    wanted = set(source.tolist())
    partition = source >> OFFSET_BITS
    found = {}
    for one in np.unique(partition).tolist():
        places = source[partition == one]
        begin, end = int(places.min()), int(places.max()) + 1
        for key, label in store.scan(LABELS, begin.to_bytes(8, "big"), LABELS + end.to_bytes(8, "big")):
            place = int.from_bytes(key[len(LABELS) :], "big")
            if place in wanted:
                found[place] = label
    return found


class Retention:
    """Chooses rows to delete; to be stored with the commit that asks for them.

    A batch goes once all its payments are more than `retention` ms of event time old, no earlier than every
    one of `models` has matured it and a start no longer needs it. The marks of its payments, which lie in
    random order, follow within as long again, and not while one is `remembered` (ms of log time).
    """

    def __init__(self, store: Store, models: Sequence[str], retention: int, remembered: int) -> None:
        self._store = store
        self._cursors = [META + b"matured/" + model.encode() for model in models]
        self._retention = retention
        self._remembered = remembered
        self.first = DecidedBatches(store).first
        """Number of the first batch that is kept."""
        self._ready_at = 0
        """Event time before which that one stays."""
        self._marks = Walk(store, IDS, retention)

    def drop(self, clock: int, newest: int, most: int) -> list[Row]:
        """At most so many batches that may go at event time `clock`, with the labels of their payments.

        Nothing counted is newer than `newest`: what is, is test traffic that holds nothing up.
        """
        rows: list[Row] = []
        if clock < self._ready_at:
            return rows
        end = min(self._end(), self.first + most)
        while self.first < end:
            value = self._store.get_many([batch_key(self.first)])[0]
            if value is not None:
                source, event_time = moments_of(value)
                counted = event_time[event_time <= newest]
                self._ready_at = int(counted.max(initial=-(2**62))) + self._retention + 1
                if clock < self._ready_at:
                    break
                rows.append((batch_key(self.first), None))
                rows.extend(self._labels(source))
            self.first += 1
        return rows

    def forget(self, clock: int, log_time: int) -> list[Row]:
        """Marks whose batch is gone, and what is kept by them, of the part of the room that is due now."""
        part = self._marks.step(clock) if self.first else None
        if part is None:
            return []
        marks = np.frombuffer(b"".join(value for _, value in part.rows), MARK)
        gone = (marks["place"] >> ROW_BITS < self.first) & (marks["time"] < log_time - self._remembered)
        rows = [self._marks.place]
        kept = set()
        for (key, _), goes in zip(part.rows, gone.tolist(), strict=True):
            if goes:
                rows.append((key, None))
            else:
                kept.add(key[len(IDS) :])
        for room in _BY_DIGEST:
            end = None if part.end is None else room + part.end
            for key, _ in self._store.scan(room, part.begin, end):
                if key[len(room) : len(room) + DIGEST] not in kept:
                    rows.append((key, None))
        return rows

    def _end(self) -> int:
        """The first batch that a learner or a start may still need."""
        progress = self._store.progress
        matured = [int(cursor or b"0") for cursor in self._store.get_many(self._cursors)]
        return min(progress.redo, progress.batches, *matured)

    def _labels(self, source: Int64) -> list[Row]:
        """The labels of the payments of a batch."""
        return [(LABELS + one.to_bytes(8, "big"), None) for one in labels_of(self._store, source)]
