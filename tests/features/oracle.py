"""Payments as tests write them, and a computation of every feature that keeps all of them."""

import numpy as np

from streamer.batch import Bool, Float64, Int64, Text
from streamer.features.declarations import Entity
from streamer.features.layout import MISSING
from tests.features.definitions import NAN, Event, Value, feature_of

__all__ = ["Batch", "Blocks", "Event", "Oracle", "Value"]


class Batch:
    """Columns of events."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.event_time: Int64 = np.array([event.time for event in events], np.int64)
        self.amount: Int64 = np.array(
            [MISSING if event.amount is None else event.amount for event in events], np.int64
        )
        self.live: Bool = np.array([event.live for event in events], np.bool_)

    def text(self, name: str) -> Text:
        """A column of text."""
        return Text.pack([event.value(name) for event in self.events])  # type: ignore[misc]

    def number(self, name: str) -> Float64:
        """A column of numbers."""
        return np.array([event.value(name) for event in self.events], np.float64)

    def __len__(self) -> int:
        return len(self.events)


class Blocks:
    """A store of blocks that remembers how often it was asked."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.asked = 0

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """What was written last."""
        self.asked += len(keys)
        return [self.rows.get(key) for key in keys]

    def write(self, rows: list[tuple[bytes, bytes | None]]) -> None:
        """Take in a cut."""
        for key, value in rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value


class Oracle:
    """Keeps every live event of every key in order of arrival, and computes each feature from all of them."""

    def __init__(self, entities: list[Entity]) -> None:
        self.entities = entities
        self.seen: list[Event] = []

    def answer(self, event: Event) -> list[float]:
        """The features of the next event; afterwards it is counted."""
        row = []
        for entity in self.entities:
            key = [event.value(name) for name in entity.keys]
            if None in key:
                row += [NAN] * len(entity.features)
                continue
            mine = [other for other in self.seen if [other.value(name) for name in entity.keys] == key]
            row += [feature_of(feature, mine, event) for feature in entity.features]
        if event.live:
            self.seen.append(event)
        return row
