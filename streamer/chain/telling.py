"""Tells counting stages of known frauds: once stored, numbered, and again until that is delivered."""

from collections.abc import Sequence

import msgspec

from streamer.batch import Outgoing
from streamer.chain.outbox import Outbox
from streamer.chain.outlet import Outlet
from streamer.events import Payment
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
        self._box = Outbox(store, UNTOLD)

    @property
    def told(self) -> bool:
        """Whether a commit would forget anything."""
        return self._box.sent

    def cut(self, frauds: Sequence[KnownFraud]) -> list[Row]:
        """The rows of a commit: what was told is delivered by then, and `frauds` are to be told after it."""
        first = self.numbered
        if self._outlets:
            self.numbered += len(frauds)
        return self._box.cut(
            (number.to_bytes(8, "big"), msgspec.msgpack.encode(_Untold(one.payment, one.known)))
            for number, one in zip(range(first, self.numbered), frauds, strict=False)
        )

    def written(self) -> None:
        """The last cut is in the store."""
        self._box.written()

    def outgoing(self) -> list[Outgoing]:
        """What is stored and was not told since the start."""
        stored = self._box.take()
        if not stored:
            return []
        first = int.from_bytes(stored[0][0], "big")
        told = [msgspec.msgpack.decode(value, type=_Untold) for _, value in stored]
        frauds = [KnownFraud(one.payment, one.known) for one in told]
        return [out for outlet in self._outlets for out in outlet.tell(frauds, first)]
