"""What an entity takes in memory, and for how long its events are kept, as its plan says."""

from dataclasses import dataclass

from streamer.features.declarations import Entity
from streamer.features.fields import Column
from streamer.features.hot import INDEX_BYTES
from streamer.features.labelled import tables_of
from streamer.features.layout import CHUNK_ROWS
from streamer.features.needs import kept_for
from streamer.features.plan import compile_entity


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes in memory of a key without events, and of each event more; what is kept of one, and for how long.

    A key of more than 40 bytes takes as many more as it is long. Memory is given to `chunk_events` at a time.
    `retention` is in ms, behind the newest event of the key.
    """

    key_bytes: int
    event_bytes: int
    chunk_events: int
    kept: tuple[Column, ...]
    retention: int


def footprint_of(entity: Entity, allowed_lateness: int) -> Footprint:
    """The footprint where events may be late by so many ms."""
    tables = [compile_entity(table, allowed_lateness) for table in tables_of(entity)]
    return Footprint(
        key_bytes=sum(8 * table.plan.shape.header + INDEX_BYTES for table in tables),
        event_bytes=8 * tables[0].plan.shape.chunk // CHUNK_ROWS,
        chunk_events=CHUNK_ROWS,
        kept=tuple(dict.fromkeys(column for feature in entity.features for column in kept_for(feature))),
        retention=max(table.plan.shape.retention for table in tables),
    )
