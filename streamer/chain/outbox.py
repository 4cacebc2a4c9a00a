"""What other shards are to get: stored with the commit that makes it, sent after it, again after a crash."""

from collections.abc import Iterable, Sequence

import msgspec

from streamer.batch import Outgoing
from streamer.scoring import Letter
from streamer.state.store import LETTERS, Row, Store


class Outbox:
    """The rows of a room of the store that are still to be sent, in the order of their keys.

    What a commit depends on the moment for is stored before anybody is told: told again it is the same, and
    receivers know it by its number.
    """

    def __init__(self, store: Store, room: bytes) -> None:
        self._room = room
        self._stored = [(key[len(room) :], value) for key, value in store.scan(room)]
        self._cut: list[tuple[bytes, bytes]] = []
        self._sent: list[bytes] = []

    @property
    def sent(self) -> bool:
        """Whether a commit would forget anything."""
        return bool(self._sent)

    def cut(self, items: Iterable[tuple[bytes, bytes]]) -> list[Row]:
        """The rows of a commit: what was sent is delivered by then, and `items` are to be sent after it."""
        rows: list[Row] = [(self._room + key, None) for key in self._sent]
        self._sent = []
        self._cut += items
        rows += [(self._room + key, value) for key, value in self._cut]
        return rows

    def written(self) -> None:
        """The last cut is in the store."""
        self._stored += self._cut
        self._cut = []

    def take(self) -> list[tuple[bytes, bytes]]:
        """What is stored and was not sent since the start, to be sent now."""
        stored, self._stored = self._stored, []
        self._sent += [key for key, _ in stored]
        return stored


class Post:
    """Letters on their way to the topics that begin with `stages`."""

    def __init__(self, store: Store, stages: str) -> None:
        self._stages = stages
        self._box = Outbox(store, LETTERS)

    @property
    def sent(self) -> bool:
        """Whether a commit would forget anything."""
        return self._box.sent

    def cut(self, commit: int, letters: Sequence[Letter]) -> list[Row]:
        """The rows of the commit of this number, which is above all that were stored."""
        return self._box.cut(
            (commit.to_bytes(8, "big") + place.to_bytes(4, "big"), msgspec.msgpack.encode(letter))
            for place, letter in enumerate(letters)
        )

    def written(self) -> None:
        """The last cut is in the store."""
        self._box.written()

    def outgoing(self) -> list[Outgoing]:
        """What is stored and was not sent since the start."""
        out: dict[tuple[str, int], Outgoing] = {}
        for _, value in self._box.take():
            letter = msgspec.msgpack.decode(value, type=Letter)
            topic = f"{self._stages}.{letter.to}"
            for partition in letter.partitions:
                out.setdefault((topic, partition), Outgoing(topic, partition)).append(
                    letter.key, letter.value
                )
        return list(out.values())
