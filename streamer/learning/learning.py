"""Closes the loop: outcomes are joined to features as decided, learners learn, snapshots are handed over."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from streamer.batch import Outgoing, Records
from streamer.codec import OutcomeCodec
from streamer.events import Outcome
from streamer.learning.joining import Joining
from streamer.learning.pupil import Pupil
from streamer.learning.school import School
from streamer.learning.signing import Signing
from streamer.models.snapshot import Snapshot
from streamer.rejections import Rejected, add_rejections
from streamer.scoring import Taken
from streamer.settings import Settings
from streamer.state.store import Position, Store, positions_of
from streamer.topology import Topology

MOST_REJECTED: Final = 1_000
"""Rejections that no longer wait for the next interval; each takes up to 6 KiB of memory."""


class Learning:
    """What shard `number` of `shards` does beside scoring; synchronous, without a clock, on the same store.

    Every shard joins its own outcomes. Shard 0 is the school, where every model has its one learner.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named where they are given
        self,
        topology: Topology,
        store: Store,
        settings: Settings,
        identify: Callable[[list[str]], list[bytes]],
        *,
        number: int = 0,
        shards: int = 1,
    ) -> None:
        self._topology = topology
        self._signing = Signing(store, settings)
        self.room: School | Pupil = (
            Pupil(topology, store, settings, number) if number else School(topology, store, settings, shards)
        )
        self.joining = Joining(topology, store, identify, self.room.teach)
        self._codec = OutcomeCodec()
        topics = settings.topics.resolved
        self._rejected = Outgoing(topics.outcomes_rejected)
        self.hears = f"{topics.stages}.{self.room.hears}"
        """The topic between shards whose records are for `hear`."""
        self._positions = {
            position: offset
            for position, offset in positions_of(store.progress).items()
            if position[0] in {topics.outcomes, self.hears}
        }
        self.learned = self.room.learned
        self.kinds = self.joining.kinds

    def snapshots(self) -> Iterator[Snapshot]:
        """The snapshots that were in the store, for the scorers to start from; none of other inputs."""
        for model in self._topology.models:
            snapshot = self._signing.stored(model)
            if snapshot is not None and snapshot.inputs == model.features:
                yield snapshot

    def read(self, records: Records) -> tuple[list[tuple[int, Outcome]], list[Rejected]]:
        """The outcomes of a batch with their index in it, and what is no outcome."""
        return self._codec.decode(records)

    def unknown(self, outcomes: Sequence[Outcome]) -> list[int]:
        """The indexes of outcomes whose payment is not here: not yet, or not any more."""
        return self.joining.unknown(outcomes)

    def join(self, outcomes: Sequence[Outcome]) -> list[int]:
        """Join outcomes to payments, as `Joining.join` does."""
        return self.joining.join(outcomes)

    def hear(self, records: Records) -> list[str]:
        """Take in what other shards send: to the school examples, to the others snapshots, each once.

        Answers what could not be used, with where it is and why. Records of other topics are skipped.
        """
        self.advance(records.topic, records.partition, records.offsets[-1] + 1)
        if records.topic != self.hears:
            return [
                f"Expected records of {self.hears}, got {records.topic}/{records.partition}; they are skipped"
            ]
        return self.room.hear(records)

    def reject(self, records: Records, rejected: Sequence[Rejected]) -> None:
        """Keep the answers to records of a batch that are refused, to be handed over with their position."""
        add_rejections(self._rejected, records, rejected)

    def advance(self, topic: str, partition: int, offset: int) -> None:
        """Outcomes below `offset` have been joined or rejected."""
        self._positions[topic, partition] = offset

    def mature(self, clock: int, batches: int = 1) -> bool:
        """Queue payments good for long enough at event time `clock`; whether there may be more."""
        return self.joining.mature(clock, batches)

    def learn(self, most: int) -> int:
        """Learn from at most so many queued examples of each model; answers how many are left."""
        return self.room.learn(most)

    @property
    def positions(self) -> Mapping[Position, int]:
        """Offset of the next record of each partition of outcomes, and of what is heard, to be taken in."""
        return self._positions

    @property
    def waiting(self) -> int:
        """Examples queued."""
        return self.room.waiting

    @property
    def teaches(self) -> bool:
        """Whether the snapshots in the store are its own to publish."""
        return self.room.teaches

    @property
    def has_news(self) -> bool:
        """Whether there is anything to hand over."""
        return self.joining.has_news or self.room.has_news or bool(self._rejected.values)

    @property
    def is_due(self) -> bool:
        """Whether that should not wait for its interval."""
        return self.room.is_due or len(self._rejected) >= MOST_REJECTED

    def taken_in(self) -> None:
        """The commit that was first to take something in, of those not told of yet, is in the store."""
        self.joining.taken_in()

    def hand_over(self) -> Taken:
        """What a commit takes in, which `taken_in` tells of; only to be called when nothing is queued."""
        rows, frauds = self.joining.hand_over()
        taken = Taken(rows=rows, positions=dict(self._positions), frauds=frauds, rejected=self._rejected)
        self._rejected = Outgoing(self._rejected.topic)
        self.room.hand_over(taken)
        return taken


def unknown(index: int, outcome: Outcome) -> Rejected:
    """Refuse the outcome at `index` of a batch: no payment of its id is known."""
    return Rejected(
        index,
        "unknown_payment",
        f"Expected the payment_id of a decided payment, got one that was never decided here"
        f" or whose retention has passed - at `$.payment_id`; outcome {outcome.outcome_id!r}",
        outcome.payment_id,
    )
