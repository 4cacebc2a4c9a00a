"""What an entity takes in memory, and for how long its events are kept, as its plan says."""

from dataclasses import dataclass

from streamer.features.declarations import Entity
from streamer.features.fields import Column
from streamer.features.keyed import INDEX_BYTES
from streamer.features.layout import CHUNK_ROWS
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
    compiled = compile_entity(entity, allowed_lateness)
    shape = compiled.plan.shape
    return Footprint(
        key_bytes=8 * shape.header + INDEX_BYTES,
        event_bytes=8 * shape.chunk // CHUNK_ROWS,
        chunk_events=CHUNK_ROWS,
        kept=compiled.columns,
        retention=shape.retention,
    )
