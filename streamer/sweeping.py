"""Keeps the state from growing for ever: names, at each commit, some rows that nothing can need again."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from streamer.features.table import Features
from streamer.settings import Settings
from streamer.state.retention import MARK, Retention
from streamer.state.store import BLOCKS, DECIDED, IDS, OUTCOMES, SIGHTED, Row, Store
from streamer.state.walk import Walk
from streamer.topology import Topology

ROOMS: Final = {
    BLOCKS[0]: "blocks",
    DECIDED[0]: "decided",
    IDS[0]: "ids",
    OUTCOMES[0]: "outcomes",
    SIGHTED[0]: "ids",
}
"""What the rooms that shrink are called in figures."""

ROUNDS: Final = 2
"""Times that all keys are looked at in the time that their events are kept."""

SPARE: Final = 2
"""Batches that may go at a commit beyond as many as have come: so a backlog is worked off."""


class Sweeper:
    """Asks features and retention what may go. `swept` counts the rows by room.

    Time is event time: the least of the partitions' greatest, so that none of them misses anything.
    """

    def __init__(self, topology: Topology, store: Store, settings: Settings, features: Features) -> None:
        self._keys = KeySweeper(store, features)
        self._decided = DecidedSweeper(topology, store, settings)
        self.swept: Counter[str] = Counter()

    def rows(self, greatest: Mapping[int, int], log_time: int, batches: int) -> list[Row]:
        """Rows to be deleted with the commit that is cut now, before all that it writes.

        `greatest` are the partitions' greatest event times, `log_time` the greatest record timestamp in ms,
        `batches` the number of the next batch.
        """
        times = [time for time in greatest.values() if time]
        if not times:
            return []
        clock = min(times)
        rows = self._decided.rows(clock, max(times), log_time, batches) + self._keys.rows(clock)
        self.swept.update(counted(rows))
        return rows


class DecidedSweeper:
    """Decided batches, and what is kept by their payments."""

    def __init__(self, topology: Topology, store: Store, settings: Settings) -> None:
        self._retention = Retention(
            store,
            [model.name for model in topology.models],
            settings.state.decided_retention,
            remembered(settings),
        )
        self._batches = store.progress.batches

    def rows(self, clock: int, newest: int, log_time: int, batches: int) -> list[Row]:
        """What may go at event time `clock`; the others as `Sweeper` and `Retention` have them."""
        rows = self._retention.drop(clock, newest, batches - self._batches + SPARE)
        self._batches = batches
        return rows + self._retention.forget(clock, log_time)


class KeySweeper:
    """Keys of entities that no payment to come can see."""

    def __init__(self, store: Store, features: Features) -> None:
        self._features = features
        self._walks = [
            (Walk(store, BLOCKS + begin, retention // ROUNDS), retention)
            for begin, retention in features.rooms
        ]
        self._begin = None if store.empty else 0
        """Event time before which nothing was kept here: a young store needs no sweep."""

    def rows(self, clock: int) -> list[Row]:
        """What may go at event time `clock`."""
        if self._begin is None:
            self._begin = clock
        rows: list[Row] = []
        for room, (walk, retention) in enumerate(self._walks):
            part = walk.step(clock) if clock - self._begin >= retention else None
            if part is not None:
                found = [(key[len(BLOCKS) :], value) for key, value in part.rows]
                gone = self._features.sweep(room, found, clock)
                rows += [walk.place, *((BLOCKS + key, None) for key in gone)]
        return rows


class SightedSweeper:
    """Marks of payments that were seen too long ago to matter."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._remembered = remembered(settings)
        self._walk = Walk(store, SIGHTED, self._remembered // ROUNDS)

    def rows(self, clock: int, log_time: int) -> list[Row]:
        """What may go at event time `clock`; `log_time` is the greatest record timestamp in ms."""
        part = self._walk.step(clock)
        if part is None:
            return []
        times = np.frombuffer(b"".join(value for _, value in part.rows), MARK)["time"]
        old = (times < log_time - self._remembered).tolist()
        gone = [key for (key, _), goes in zip(part.rows, old, strict=True) if goes]
        return [self._walk.place, *((key, None) for key in gone)]


def remembered(settings: Settings) -> int:
    """How long marks of payments are kept, in ms of log time."""
    # Records of a partition that lags have older log times.
    return settings.events.dedup_window + settings.events.allowed_lateness


def counted(rows: Iterable[Row]) -> Counter[str]:
    """How many rows go, by room."""
    return Counter(ROOMS[key[0]] for key, value in rows if value is None)
