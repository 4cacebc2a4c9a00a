"""Which keys sign snapshots: those in a store, which others may not have, and those between shards."""

from typing import Final

import msgspec

from streamer.models.snapshot import Snapshot
from streamer.settings import Settings
from streamer.state.store import MODELS, Row, Store
from streamer.topology import Model

_SHARED: Final = b"streamer: topics between shards are trusted"
"""Signs, where no key is set, what shards send each other: it tells damage and nothing else.

Stores have secrets of their own, so one of them is of no use to another shard. Who can write to these topics
can write payments' features there as well; a snapshot is sent without its learner, so that nothing received
is ever unpickled.
"""


class Signing:
    """Reads and writes the snapshots of one store, and the letters by which they reach other shards."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        given = settings.models.snapshot_key.encode()
        self._own = given or store.secret
        self._shared = given or _SHARED

    def stored(self, model: Model) -> Snapshot | None:
        """The last snapshot of a model, perhaps of other inputs; raises `ConfigError` for another key."""
        value = self._store.get_many([MODELS + model.name.encode()])[0]
        return None if value is None else Snapshot.decode(value, self._own)

    def row(self, snapshot: Snapshot) -> tuple[Row, bytes]:
        """The row that stores a snapshot, and its bytes, which others with the key can read."""
        encoded = snapshot.encode(self._own)
        return (MODELS + snapshot.model.encode(), encoded), encoded

    def letter(self, snapshot: Snapshot) -> bytes:
        """What other shards get of a snapshot: enough to score."""
        return msgspec.structs.replace(snapshot, learner=None).encode(self._shared)

    def opened(self, letter: bytes) -> Snapshot:
        """The inverse of `letter`; raises `ConfigError` for what no shard with the same key has sent."""
        return Snapshot.decode(letter, self._shared)
