"""A shard that sends its examples to the school, and scores by the snapshots that come back."""

from collections import Counter
from typing import Final

from streamer.batch import Records
from streamer.chain.stages import LEARN, MODELS
from streamer.errors import StreamerError
from streamer.learning.examples import Examples, Message, encode, join, split
from streamer.learning.signing import Signing
from streamer.models.scorer import Scorer
from streamer.models.snapshot import Snapshot
from streamer.scoring import Letter, Taken
from streamer.settings import Settings
from streamer.state.store import META, Store
from streamer.topology import Topology

MOST_KEPT: Final = 4 << 20
"""Bytes of examples that are no longer kept for the next interval."""

Received = tuple[Snapshot, Scorer]

NUMBERED: Final = META + b"told/" + LEARN.encode()
"""Row of the number of the next message to the school."""


class Pupil:
    """Shard `number`, which learns nothing itself.

    Its messages are numbered and stored before they are sent, so the school knows what it has heard.
    """

    teaches = False
    hears = MODELS
    waiting = 0

    def __init__(self, topology: Topology, store: Store, settings: Settings, number: int) -> None:
        self._signing = Signing(store, settings)
        self._number = number
        self._numbered = int(store.get_many([NUMBERED])[0] or b"0")
        self._models = {model.name: model for model in topology.models}
        self._kept: dict[str, list[Examples]] = {}
        self._bytes = 0
        stored = [self._signing.stored(model) for model in topology.models]
        self._versions = {one.model: one.version for one in stored if one is not None}
        self._received: dict[str, Received] = {}
        self.learned: Counter[str] = Counter()

    def teach(self, examples: Examples) -> None:
        """Keep examples for the school."""
        self._kept.setdefault(examples.model, []).append(examples)
        self._bytes += examples.inputs.nbytes

    def learn(self, most: int) -> int:
        """Nothing is learned here; answers 0."""
        del most
        return 0

    @property
    def has_news(self) -> bool:
        """Whether there are examples to send or snapshots to score by."""
        return bool(self._kept or self._received)

    @property
    def is_due(self) -> bool:
        """Whether a snapshot has come, for which the school has waited, or examples take much memory."""
        return bool(self._received) or self._bytes >= MOST_KEPT

    def hear(self, records: Records) -> list[str]:
        """Keep the newest snapshot of each model; answers what could not be used, and why."""
        unused = []
        for offset, value in zip(records.offsets, records.values, strict=True):
            try:
                self._hear(value)
            except (StreamerError, ValueError, RecursionError) as error:
                unused.append(f"{error} - at `{records.topic}/{records.partition}/{offset}`; it is skipped")
        return unused

    def hand_over(self, taken: Taken) -> None:
        """Add the messages to the school, and the snapshots to score by."""
        for name, (snapshot, scorer) in self._received.items():
            row, _ = self._signing.row(snapshot)
            taken.rows.append(row)
            taken.scorers[name] = (snapshot.version, scorer)
        for name, kept in self._kept.items():
            for examples in split(join(kept)):
                message = Message(self._number, self._numbered, self._models[name].features, examples)
                taken.letters.append(Letter(LEARN, (0,), None, encode(message)))
                self._numbered += 1
        if self._kept:
            taken.rows.append((NUMBERED, str(self._numbered).encode()))
        self._received, self._kept, self._bytes = {}, {}, 0

    def _hear(self, value: bytes | None) -> None:
        snapshot = self._signing.opened(value or b"")
        model = self._models.get(snapshot.model)
        if model is None or snapshot.inputs != model.features:
            expected = ", ".join(self._models) if model is None else f"{len(model.features)} given inputs"
            raise StreamerError(
                f"Snapshot {snapshot.version} of model {snapshot.model!r} refused: expected {expected}, got"
                f" one of {len(snapshot.inputs)} inputs learned under topology {snapshot.topology}: is"
                " another topology at work on shard 0?"
            )
        if snapshot.version > self._versions.get(snapshot.model, 0):
            self._received[snapshot.model] = snapshot, snapshot.scorer()
            self._versions[snapshot.model] = snapshot.version
