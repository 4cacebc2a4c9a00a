"""One partition of a job of several: all stages of the chain at work on it, over one store."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from streamer.acceptance import Punctuality, Recognition
from streamer.batch import Outgoing, Records
from streamer.chain.inbox import Inbox
from streamer.chain.outbox import Post
from streamer.chain.outlet import Outlet
from streamer.chain.pace import Pace
from streamer.chain.stages import ENTRY, Chain, Stage
from streamer.chain.steps import Count, Entry, Identify, Score, Step
from streamer.chain.telling import Telling
from streamer.chain.wire import warm_up
from streamer.codec import PaymentCodec
from streamer.conversion import take_effect
from streamer.declared import declared_rows
from streamer.engine import IDENTITIES_SHARE, Blocks, no_lap
from streamer.errors import StreamerError
from streamer.features.table import Features
from streamer.models.scorer import Scorer
from streamer.rates import RateTable, read_rates
from streamer.scoring import Answer, Scoring, Taken
from streamer.settings import Settings
from streamer.state.decided import marks_in
from streamer.state.identities import Identities
from streamer.state.store import (
    BLOCKS,
    SHARD,
    SIGHTED,
    Position,
    Progress,
    Row,
    Store,
    WriteSet,
    check_shard,
    nested,
    positions_of,
    prefixed,
)
from streamer.sweeping import DecidedSweeper, KeySweeper, SightedSweeper, counted
from streamer.topology import Topology


class Shard:
    """Partition `number` of `shards`: every stage of `topology` on that partition of its topic.

    It offers what `Engine` does. All records that it is given are of its partition, and of the topics of its
    chain; what it answers may hold rows for stages of other shards. One store keeps the state of all stages
    together with their positions, so a commit is one write set. Stages have no decided batches to count again
    after a crash: every commit writes all keys that have changed. The memory budget is shared by all shards,
    since one worker may hold every one.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named where they are given
        self,
        topology: Topology,
        store: Store,
        settings: Settings,
        *,
        number: int,
        shards: int,
        lap: Callable[[str], None] = no_lap,
        emit_features: bool = False,
        rates: RateTable | None = None,
    ) -> None:
        if not 0 <= number < shards:
            raise StreamerError(f"expected a shard number from 0 to {shards - 1}, got {number}")
        check_shard(store, own := f"{number} of {shards}".encode())
        warm_up()
        self.topology = topology
        self.settings = settings
        self.columns = topology.features
        self.chain = Chain.of(topology, settings.topics)
        self.number = number
        self._lap = lap
        self._topics = settings.topics.resolved
        self._emit_features = emit_features
        progress = store.progress
        rates = read_rates(settings.rates.file, topology.base_currency) if rates is None else rates
        budget = settings.state.memory_budget // shards
        self._budget = budget - budget // IDENTITIES_SHARE
        self._identities = Identities(
            settings.events.dedup_window,
            budget // IDENTITIES_SHARE,
            lambda digests: marks_in(store, SIGHTED, digests),
            store.secret,
            spilled=None if store.empty else progress.log_time,
        )
        self._scoring = Scoring(topology, progress.batches, lap)
        self._punctuality = Punctuality(settings.events, {number: progress.greatest.get(number, 0)})
        recognition = Recognition(self._topics.payments, self._identities)
        identify, *counting, score = self.chain.stages
        outlets = {stage.before: Outlet(stage.before, number, stage, shards) for stage in self.chain.stages}
        inboxes = {
            stage.name: Inbox(stage, progress.heard.get(stage.name, {})) for stage in self.chain.stages
        }
        codec = PaymentCodec(topology.source, settings.events, settings.pan_policy)
        self._identify = Identify(
            self._topics.payments, inboxes[identify.name], recognition, rates, outlets[identify.name]
        )
        self._identify.log_time = progress.log_time
        self._score = Score(
            topology, self._topics.payments, inboxes[score.name], score, recognition, self._scoring
        )
        self._score.greatest = dict(progress.greatest)
        spilled = store.first(BLOCKS) is not None
        self._counts = {
            stage.name: Count(
                stage, inboxes[stage.name], self._features(stage, store, spilled=spilled), outlets[stage.name]
            )
            for stage in counting
        }
        self._inboxes = inboxes
        # By the keys of the first entities payments of every entry come together.
        self._pace = Pace(inboxes[self.chain.stages[1].name].paces)
        self._steps: dict[str, Step] = {
            self.chain.payments: Entry(codec, self._punctuality, outlets[ENTRY], self._pace),
            identify.topic: self._identify,
            **{stage.topic: self._counts[stage.name] for stage in counting},
            score.topic: self._score,
        }
        self._telling = Telling(
            store, [Outlet(score.name, number, stage, shards) for stage in counting if stage.learns]
        )
        self._post = Post(store, self._topics.stages)
        self._key_sweepers = {name: KeySweeper(store, step.features) for name, step in self._counts.items()}
        self._decided_sweeper = DecidedSweeper(topology, store, settings)
        self._sighted_sweeper = SightedSweeper(store, settings)
        self.swept: Counter[str] = Counter()
        """Rows deleted that nothing to come can ask for, by room of the store, since last cleared."""
        self._positions: dict[Position, int] = dict(positions_of(progress))
        self._commits = progress.commits
        self._start_batch()
        self._changed = False
        self._rows = take_effect(rates, store)
        if store.empty:
            self._rows.append((SHARD, own))
        self._rows.extend(declared_rows(store, topology, settings.events.allowed_lateness))

    @property
    def positions(self) -> Mapping[Position, int]:
        """Offset of the next record of each topic and partition."""
        return self._positions

    @property
    def decides_from(self) -> str:
        """The topic whose order is that in which decisions are made."""
        return self.chain.stages[-1].topic

    @property
    def versions(self) -> Mapping[str, int]:
        """The version of each model that decides."""
        return self._scoring.versions

    @property
    def keys(self) -> Mapping[str, int]:
        """Keys in memory, per entity."""
        return {name: keys for step in self._counts.values() for name, keys in step.features.keys.items()}

    @property
    def clock(self) -> int:
        """Greatest event time of any partition in ms, as far as it was heard here."""
        return max(self._greatest.values(), default=0)

    @property
    def ahead(self) -> bool:
        """Whether it should be given no payments for now: others are far behind."""
        return self._pace.ahead

    @property
    def changed(self) -> bool:
        """Whether anything has happened since the last cut."""
        return self._changed or self._telling.told or self._post.sent

    @property
    def waiting_rows(self) -> int:
        """Rows that the next commit cannot leave for later."""
        dirty = sum(step.features.dirty for step in self._counts.values())
        return len(self._rows) + len(self._identify.rows) + len(self._scoring.rows) + dirty

    def identify(self, payment_ids: Sequence[str]) -> list[bytes]:
        """The 16-byte digests under which payments are found again."""
        return self._identities.digests(payment_ids)

    def process(self, records: Records) -> Answer:
        """Let the stage that reads this topic take a batch of records in.

        Raises `StreamerError` for records of another partition or topic, for those taken in before, and for
        rows of another topology.
        """
        step = self._steps.get(records.topic)
        if step is None or records.partition != self.number:
            raise StreamerError(
                f"shard {self.number}: expected records of partition {self.number} of one of"
                f" {', '.join(self._steps)}, got {records.topic}/{records.partition}"
            )
        reached = self._positions.get((records.topic, records.partition), 0)
        if records.offsets[0] < reached:
            raise StreamerError(
                f"shard {self.number}: expected records of {records.topic}/{records.partition} from offset"
                f" {reached} on, got {records.offsets[0]}: they were taken in before. If the topic was made"
                " anew, start on new state: later stages know rows by these offsets"
            )
        self._lap("wait")
        self._changed = True
        answer = Answer.to(self._topics, emit_features=self._emit_features)
        self._share_memory()
        step.process(records, answer)
        self._positions[records.topic, records.partition] = records.offsets[-1] + 1
        self._lap("chain")
        return answer

    def tell(self) -> list[Outgoing]:
        """What other shards are to be told of frauds, examples and models, as far as a commit has stored it.

        To be sent before the next cut, which takes it for delivered. After a crash it is told again.
        """
        return [*self._telling.outgoing(), *self._post.outgoing()]

    def cut(self, taken: Taken | None = None, *, everything: bool = True) -> WriteSet:
        """What the commit at the positions reached has to write, all keys that have changed; copied.

        With `taken`, outcomes and new scorers come in at this position: later payments are scored by them.
        Its frauds are counted by the stages once they are told, see `tell`. `everything` is always so.
        """
        del everything
        rows = self._sweep() + self._rows + self._identify.rows + self._scoring.rows
        self._rows, self._identify.rows, self._scoring.rows = [], [], []
        if taken is not None:
            rows.extend(taken.rows)
            self._positions.update(taken.positions)
            self._scoring.use(taken.scorers)
        rows.extend(self._telling.cut([] if taken is None else taken.frauds))
        rows.extend(self._post.cut(self._commits, [] if taken is None else taken.letters))
        for step in self._counts.values():
            rows.extend(prefixed(BLOCKS, step.features.cut()))
        self._identities.cut()
        self._changed = False
        self._commits += 1
        self._start_batch()
        self._lap("cut")
        return WriteSet(
            Progress(
                positions=nested(self._positions),
                greatest=self._greatest,
                log_time=self._identify.log_time,
                batches=self._scoring.batches,
                redo=self._scoring.batches,
                models=dict(self._scoring.versions),
                commits=self._commits,
                topology=self.topology.fingerprint,
                heard={name: inbox.heard for name, inbox in self._inboxes.items()},
                frauds=self._telling.numbered,
            ),
            rows,
        )

    def written(self) -> None:
        """The last cut is in the store: what it held may leave memory, and others may be told."""
        for step in self._counts.values():
            step.features.written()
        self._identities.written()
        self._telling.written()
        self._post.written()

    def restore_scorer(self, model: str, version: int, scorer: Scorer) -> None:
        """Score with a snapshot found in the store, before the first batch."""
        self._scoring.use({model: (version, scorer)})

    @property
    def _greatest(self) -> dict[int, int]:
        """By partition of the payments: of its own at the entry, of the others as they are scored."""
        return {**self._score.greatest, **self._punctuality.greatest}

    def _features(self, stage: Stage, store: Store, *, spilled: bool) -> Features:
        return Features(
            stage.entities,
            memory_budget=self._budget,
            allowed_lateness=self.settings.events.allowed_lateness,
            blocks=Blocks(store),
            spilled=spilled,
            next_number=store.progress.commits,
        )

    def _start_batch(self) -> None:
        """Between two cuts, all that a stage counts is one batch."""
        for step in self._counts.values():
            step.number = self._commits

    def _share_memory(self) -> None:
        """Let each stage have as much of the budget as it has of the keys' memory."""
        held = {name: step.features.memory for name, step in self._counts.items()}
        total = sum(held.values())
        for name, step in self._counts.items():
            within = total <= self._budget
            step.features.memory_budget = self._budget if within else self._budget * held[name] // total

    def _sweep(self) -> list[Row]:
        """Rows to be deleted, each room by the clock of the stage that it belongs to."""
        clocks = {name: inbox.clock for name, inbox in self._inboxes.items()}
        rows: list[Row] = []
        for name, sweeper in self._key_sweepers.items():
            if clocks[name]:
                rows += sweeper.rows(clocks[name])
        log_time = self._identify.log_time
        identify, *_, score = self.chain.stages
        if clocks[identify.name]:
            rows += self._sighted_sweeper.rows(clocks[identify.name], log_time)
        if clocks[score.name]:
            newest = max(self._score.greatest.values(), default=0)
            rows += self._decided_sweeper.rows(clocks[score.name], newest, log_time, self._scoring.batches)
        self.swept.update(counted(rows))
        return rows
