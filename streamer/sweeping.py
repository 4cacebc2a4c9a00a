"""Keeps the state from growing for ever: names, at each commit, some rows that nothing can need again."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from streamer.features.table import Features
from streamer.settings import Settings
from streamer.state.retention import Retention
from streamer.state.store import BLOCKS, DECIDED, IDS, OUTCOMES, Row, Store
from streamer.state.walk import Walk
from streamer.topology import Topology

ROOMS: Final = {BLOCKS[0]: "blocks", DECIDED[0]: "decided", IDS[0]: "ids", OUTCOMES[0]: "outcomes"}
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
        events = settings.events
        self._features = features
        self._retention = Retention(
            store,
            [model.name for model in topology.models],
            settings.state.decided_retention,
            # Records of a partition that lags have older log times.
            events.dedup_window + events.allowed_lateness,
        )
        self._walks = [
            (Walk(store, BLOCKS + begin, retention // ROUNDS), retention)
            for begin, retention in features.rooms
        ]
        self._begin = None if store.empty else 0
        """Event time before which nothing was kept here: a young store needs no sweep."""
        self._batches = store.progress.batches
        self.swept: Counter[str] = Counter()

    def rows(self, greatest: Mapping[int, int], log_time: int, batches: int) -> list[Row]:
        """Rows to be deleted with the commit that is cut now, before all that it writes.

        `greatest` are the partitions' greatest event times, `log_time` the greatest record timestamp in ms,
        `batches` the number of the next batch.
        """
        times = [time for time in greatest.values() if time]
        if not times:
            return []
        clock, newest = min(times), max(times)
        rows = self._retention.drop(clock, newest, batches - self._batches + SPARE)
        self._batches = batches
        rows += self._retention.forget(clock, log_time)
        rows += self._expired(clock)
        self.swept.update(ROOMS[key[0]] for key, value in rows if value is None)
        return rows

    def _expired(self, clock: int) -> list[Row]:
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
