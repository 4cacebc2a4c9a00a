"""The learners of a topology, one for each model, whoever sends the examples; they make the snapshots."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from streamer.batch import Records
from streamer.chain.stages import LEARN, MODELS
from streamer.chain.wire import UnreadableError
from streamer.learning.examples import Examples, aligned, decode
from streamer.learning.signing import Signing
from streamer.models.learner import Learner
from streamer.scoring import Letter, Taken
from streamer.settings import Settings
from streamer.state.store import META, Store
from streamer.topology import Model, Topology

HEARD = META + b"heard/" + LEARN.encode()
"""Row of the number of the last message heard, by the shard that sent it."""


@dataclass(slots=True)
class Student:
    """A model's learner, and what it has still to learn."""

    model: Model
    learner: Learner
    version: int
    queue: list[Examples] = field(default_factory=list)
    fresh: bool = False
    """Whether it has learned since its last snapshot."""


class School:
    """Learns from the examples of this store, and from those that the others of `shards` send it.

    What was heard is stored with the snapshots that have learned from it, so a crash makes it learn the same
    again, and nothing twice. The others get each snapshot without its learner.
    """

    teaches = True
    hears = LEARN

    def __init__(self, topology: Topology, store: Store, settings: Settings, shards: int) -> None:
        self._signing = Signing(store, settings)
        self._shards = shards
        heard = store.get_many([HEARD])[0]
        self._heard: dict[int, int] = (
            {} if heard is None else msgspec.msgpack.decode(heard, type=dict[int, int])
        )
        self.students = {model.name: self._enrol(model, topology.fingerprint) for model in topology.models}
        self.learned: Counter[str] = Counter()

    def teach(self, examples: Examples) -> None:
        """Queue examples for their model."""
        self.students[examples.model].queue.append(examples)

    def learn(self, most: int) -> int:
        """Learn from at most so many queued examples of each model; answers how many are left."""
        for name, student in self.students.items():
            left = most
            while student.queue and left:
                head = student.queue[0]
                now = head.slice(0, left)
                student.learner.learn_many(now.inputs, now.fraud, now.weight, until=now.until)
                self.learned[name] += len(now)
                student.fresh = True
                left -= len(now)
                if len(now) == len(head):
                    student.queue.pop(0)
                else:
                    student.queue[0] = head.slice(len(now))
        return self.waiting

    @property
    def waiting(self) -> int:
        """Examples queued."""
        return sum(len(examples) for student in self.students.values() for examples in student.queue)

    @property
    def has_news(self) -> bool:
        """Whether anything was learned since the last snapshots."""
        return any(student.fresh for student in self.students.values())

    @property
    def is_due(self) -> bool:
        """Snapshots have an interval and nothing but that."""
        return False

    def hear(self, records: Records) -> list[str]:
        """Queue examples that other shards have sent, each once; answers what could not be used, and why."""
        unused = []
        for offset, value in zip(records.offsets, records.values, strict=True):
            try:
                self._hear(value)
            except UnreadableError as error:
                unused.append(f"{error} - at `{records.topic}/{records.partition}/{offset}`; it is skipped")
        return unused

    def hand_over(self, taken: Taken) -> None:
        """Add the snapshots of those that have learned, and how far the other shards were heard."""
        if self._heard:
            taken.rows.append((HEARD, msgspec.msgpack.encode(self._heard)))
        others = tuple(range(1, self._shards))
        for name, student in self.students.items():
            if not student.fresh:
                continue
            student.fresh = False
            student.version += 1
            snapshot = student.learner.snapshot(student.version)
            row, taken.snapshots[name] = self._signing.row(snapshot)
            taken.rows.append(row)
            taken.scorers[name] = (student.version, snapshot.scorer())
            if others:
                letter = self._signing.letter(snapshot)
                taken.letters.append(Letter(MODELS, others, name.encode(), letter))

    def _hear(self, value: bytes | None) -> None:
        message = decode(value)
        examples = message.examples
        if not 0 < message.sender < self._shards:
            raise UnreadableError(f"Expected examples of shard 1 to {self._shards - 1}, got {message.sender}")
        if message.number <= self._heard.get(message.sender, -1):
            return
        self._heard[message.sender] = message.number
        student = self.students.get(examples.model)
        if student is None:
            raise UnreadableError(
                f"Expected examples for one of {', '.join(self.students)}, got {len(examples)} for"
                f" {examples.model!r} from shard {message.sender}: is another topology at work there?"
            )
        inputs = aligned(examples.inputs, message.names, student.model.features)
        student.queue.append(
            Examples(examples.model, inputs, examples.fraud, examples.weight, examples.until)
        )

    def _enrol(self, model: Model, fingerprint: str) -> Student:
        snapshot = self._signing.stored(model)
        learner = Learner(model.name, model.learner, model.features, fingerprint)
        if snapshot is not None and snapshot.inputs == model.features:
            learner = Learner.restore(snapshot)
            learner.topology = fingerprint
        return Student(model, learner, 0 if snapshot is None else snapshot.version)
