"""Tells counting stages of known frauds: once stored, numbered, and again until that is delivered."""

from collections.abc import Sequence

import msgspec

from streamer.batch import Outgoing
from streamer.events import Payment
from streamer.outlet import Outlet
from streamer.payments import KnownFraud
from streamer.state.store import UNTOLD, Row, Store


class _Untold(msgspec.Struct, frozen=True, array_like=True):
    payment: Payment
    known: int


class Telling:
    """The frauds that this shard has learned of, on their way to the stages behind `outlets`.

    Which outcomes a commit takes in depends on the moment, so a fraud is numbered and stored before anybody
    is told: told again it has the same number, by which receivers know it.
    """

    def __init__(self, store: Store, outlets: Sequence[Outlet]) -> None:
        self._outlets = outlets
        self.numbered = store.progress.frauds
        """The number of the next fraud."""
        self._stored = [
            (int.from_bytes(key[len(UNTOLD) :], "big"), msgspec.msgpack.decode(value, type=_Untold))
            for key, value in store.scan(UNTOLD)
        ]
        self._cut: list[tuple[int, _Untold]] = []
        self._told: list[int] = []

    @property
    def told(self) -> bool:
        """Whether a commit would forget anything."""
        return bool(self._told)

    def cut(self, frauds: Sequence[KnownFraud]) -> list[Row]:
        """The rows of a commit: what was told is delivered by then, and `frauds` are to be told after it."""
        rows: list[Row] = [(_key(number), None) for number in self._told]
        self._told = []
        if self._outlets:
            for one in frauds:
                self._cut.append((self.numbered, _Untold(one.payment, one.known)))
                self.numbered += 1
            rows += [(_key(number), msgspec.msgpack.encode(one)) for number, one in self._cut]
        return rows

    def written(self) -> None:
        """The last cut is in the store."""
        self._stored += self._cut
        self._cut = []

    def outgoing(self) -> list[Outgoing]:
        """What is stored and was not told since the start."""
        stored, self._stored = self._stored, []
        if not stored:
            return []
        self._told += [number for number, _ in stored]
        frauds = [KnownFraud(one.payment, one.known) for _, one in stored]
        return [out for outlet in self._outlets for out in outlet.tell(frauds, stored[0][0])]


def _key(number: int) -> bytes:
    return UNTOLD + number.to_bytes(8, "big")
