"""Goes round the rows of a room of the store, a few at each commit, at the pace of event time."""

from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from streamer.state.store import META, Row, Store

MOST: Final = 1_000
"""Rows looked at in one step; about a millisecond."""

LEAST: Final = 64
"""Rows worth a step: fewer wait until there are so many."""


@dataclass(frozen=True, slots=True)
class Slice:
    """All rows under a prefix, from `begin` up to `end`, both without it; no `end`: up to its last row."""

    begin: bytes
    end: bytes | None
    rows: list[tuple[bytes, bytes]]


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a walk goes on, when this round began (event time), `rows` of the last one, `seen` in this."""

    at: bytes
    began: int
    seen: int
    rows: int


class Walk:
    """Looks at all rows under `prefix` in about `round_ms` of event time, and then again from the first.

    It expects as many rows as in the last round, and hurries where there are more. The store remembers its
    place, so that starts often made leave nothing out.
    """

    def __init__(self, store: Store, prefix: bytes, round_ms: int) -> None:
        self._store = store
        self._prefix = prefix
        self._round_ms = max(round_ms, 1)
        self._key = META + b"walk/" + prefix
        kept = store.get_many([self._key])[0]
        self._place = None if kept is None else msgspec.msgpack.decode(kept, type=_Place)
        self._clock: int | None = None
        self._due = 0.0

    @property
    def place(self) -> Row:
        """The row by which the store remembers; to be written after each step."""
        return self._key, msgspec.msgpack.encode(self._place)

    def step(self, clock: int) -> Slice | None:
        """The rows that are due at event time `clock` (ms), if any."""
        place = self._place or _Place(b"", clock, 0, self._store.rows())
        since = clock if self._clock is None else self._clock
        self._place, self._clock = place, max(clock, since)
        rows = max(place.rows, place.seen, LEAST) * max((clock - place.began) / self._round_ms, 1.0)
        self._due = min(self._due + rows * (self._clock - since) / self._round_ms, MOST)
        if self._due < LEAST:
            return None
        wanted, self._due = int(self._due), 0.0
        found = list(islice(self._store.scan(self._prefix, place.at), wanted))
        seen = place.seen + len(found)
        if len(found) < wanted:
            self._place = _Place(b"", clock, 0, seen)
            return Slice(place.at, None, found)
        end = found[-1][0][len(self._prefix) :] + b"\0"
        self._place = _Place(end, place.began, seen, place.rows)
        return Slice(place.at, end, found)
