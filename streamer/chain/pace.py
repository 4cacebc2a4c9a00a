"""Keeps the entries of a chain together in event time while all of them have old payments to read.

Otherwise those of a faster worker would read hours ahead of the others': what they answered would lack the
payments of the others, and these would come late for every key, at a cost each.
"""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from streamer.batch import Int64

BATCHES: Final = 6
"""So many batches an entry reads ahead of the slowest: some are on their way, and stages want large steps."""

PATIENCE_S: Final = 1.0
"""Who was not heard for so long is not waited for: its worker may have died."""


class Heard:
    """How far the entries have come whose payments reach a stage, by partition of the stage before it.

    `clock` is in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paces: dict[int, tuple[int, float]] = {}

    def note(self, partition: int, pace: int) -> None:
        """Note the pace that a message gives, see `Pace.take`."""
        self._paces[partition] = pace, self._clock()

    @property
    def slowest(self) -> int:
        """The least pace of those heard of late; 0 where none has more to read."""
        since = self._clock() - PATIENCE_S
        return min((pace for pace, noted in self._paces.values() if pace and noted > since), default=0)


class Pace:
    """How far one entry has come, and whether it should wait for others that were `heard`.

    Only entries that have more to read take part: where payments are read as they come nobody waits.
    """

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._reached = self._span = 0.0

    def take(self, event_time: Int64, *, more: bool) -> int:
        """Note a batch of payments (n,), in ms, n > 0; answers its pace: its median, or 0 without `more`.

        One payment from the future says nothing of how far the others are.
        """
        early, middle, late = np.percentile(event_time, (25, 50, 75))
        self._reached, self._span = (middle, 2.0 * (late - early)) if more else (0.0, 0.0)
        return int(self._reached)

    @property
    def ahead(self) -> bool:
        """Whether the entry should wait."""
        slowest = self._heard.slowest if self._reached else 0
        return slowest > 0 and self._reached - slowest > BATCHES * self._span
