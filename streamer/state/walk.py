"""Goes round the rows of a room of the store, a few at each commit, at the pace of event time."""

from dataclasses import dataclass
from itertools import islice
from typing import Final

from streamer.state.store import Store

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


class Walk:
    """Looks at all rows under `prefix` in about `round_ms` of event time, and then again from the first."""

    def __init__(self, store: Store, prefix: bytes, round_ms: int) -> None:
        self._store = store
        self._prefix = prefix
        self._round_ms = max(round_ms, 1)
        self._at = b""
        self._clock: int | None = None
        self._due = 0.0
        self._seen = 0
        self._share = 1.0
        """What part of the rows of the store these are, as the last round has found."""

    def step(self, clock: int, stored: int) -> Slice | None:
        """The rows that are due at event time `clock` (ms), if any; the store has about `stored` rows."""
        since = clock if self._clock is None else self._clock
        self._clock = max(clock, since)
        rows = max(stored * self._share, LEAST)
        self._due = min(self._due + rows * (self._clock - since) / self._round_ms, MOST)
        if self._due < LEAST:
            return None
        wanted, self._due = int(self._due), 0.0
        begin = self._at
        found = list(islice(self._store.scan(self._prefix, begin), wanted))
        self._seen += len(found)
        if len(found) == wanted:
            self._at = found[-1][0][len(self._prefix) :] + b"\0"
            return Slice(begin, self._at, found)
        self._share = self._seen / max(stored, 1)
        self._at, self._seen = b"", 0
        return Slice(begin, None, found)
