"""What a state directory was written under, read from its store."""

from typing import Final

import msgspec

from streamer.changes import Change, Declared, compare, declare
from streamer.state.store import META, Row, Store
from streamer.topology import Topology

DECLARED: Final = META + b"declared"
"""The row that says so."""


def declared_in(store: Store, topology: Topology, allowed_lateness: int) -> Declared | None:
    """What the store was written under; None where nothing was written.

    One without a note of it is taken to have held what the topology declares, if that wrote it last.
    """
    if store.empty:
        return None
    noted = store.get_many([DECLARED])[0]
    if noted is not None:
        return Declared.decode(noted)
    if store.progress.topology == topology.fingerprint:
        return declare(topology, allowed_lateness, None, 0)
    return Declared()


def clock_of(store: Store) -> int:
    """Greatest event time of any partition in ms."""
    return max(store.progress.greatest.values(), default=0)


def changes_in(store: Store, topology: Topology, allowed_lateness: int) -> list[Change]:
    """What changes where a topology takes the store over."""
    before = declared_in(store, topology, allowed_lateness)
    return [] if before is None else compare(topology, allowed_lateness, before, clock_of(store))


def declared_rows(store: Store, topology: Topology, allowed_lateness: int) -> list[Row]:
    """What the first commit of a topology has to write, so that later ones know what there is."""
    before = declared_in(store, topology, allowed_lateness)
    now = declare(topology, allowed_lateness, before, clock_of(store))
    rows: list[Row] = []
    if store.progress.topology != topology.fingerprint:
        rows.append((_columns(topology.fingerprint), msgspec.msgpack.encode(topology.features)))
    if store.get_many([DECLARED])[0] != now.encode():
        rows.append((DECLARED, now.encode()))
    return rows


def columns_in(store: Store, fingerprint: str) -> tuple[str, ...]:
    """The features, in order, of the topology of this fingerprint, if it ever wrote to the store."""
    names = store.get_many([_columns(fingerprint)])[0]
    return tuple(msgspec.msgpack.decode(names)) if names else ()


def _columns(fingerprint: str) -> bytes:
    return META + b"columns/" + fingerprint.encode()
