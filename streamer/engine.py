"""One batch through one topology: records in, decisions, rejections and a write set out."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from streamer.acceptance import Acceptance, Accepted
from streamer.batch import Outgoing, Records
from streamer.codec import PaymentCodec
from streamer.conversion import convert, convert_again, take_effect
from streamer.declared import declared_rows
from streamer.encoding import copied_of
from streamer.features.table import Features
from streamer.features.table import warm_up as features_warm_up
from streamer.models.scorer import Scorer
from streamer.payments import KnownFraud, PaymentBatch
from streamer.rates import RateTable, read_rates
from streamer.recall import PaymentReader
from streamer.scoring import Answer, Counted, Scoring, Taken
from streamer.settings import Settings
from streamer.state.decided import DecidedBatches
from streamer.state.identities import Identities
from streamer.state.store import (
    BLOCKS,
    Position,
    Progress,
    Store,
    WriteSet,
    check_shard,
    nested,
    positions_of,
    prefixed,
)
from streamer.sweeping import Sweeper
from streamer.topology import Topology

DIRTY_SHARE = 2
"""Keys waiting to be written may take one part in so many of the memory budget."""

IDENTITIES_SHARE = 8
"""One part in so many of the memory budget holds the marks of payments seen."""

CATCH_UP = 64
"""Payments before a crash whose keys, of each entity, are brought up to date at a commit."""


def no_lap(_: str) -> None:
    """Measure nothing."""


class Engine:
    """Decides payments of one topology on one store; synchronous, without a clock.

    `lap` is told the name of each stage when it ends, for whoever measures. `rates` are read from the file
    that the settings name unless they are given.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named where they are given
        self,
        topology: Topology,
        store: Store,
        settings: Settings,
        *,
        lap: Callable[[str], None] = no_lap,
        emit_features: bool = False,
        rates: RateTable | None = None,
    ) -> None:
        check_shard(store, None)
        self.topology = topology
        self.settings = settings
        self.columns = topology.features
        self._store = store
        self._lap = lap
        self._emit_features = emit_features
        self._topics = settings.topics.resolved
        self._codec = PaymentCodec(topology.source, settings.events, settings.pan_policy)
        self._rates = read_rates(settings.rates.file, topology.base_currency) if rates is None else rates
        budget = settings.state.memory_budget
        self._features = Features(
            topology.all_entities,
            memory_budget=budget - budget // IDENTITIES_SHARE,
            allowed_lateness=settings.events.allowed_lateness,
            blocks=Blocks(store),
            spilled=store.first(BLOCKS) is not None,
            next_number=store.progress.batches,
        )
        self._decided = DecidedBatches(store)
        self._identities = Identities(
            settings.events.dedup_window,
            budget // IDENTITIES_SHARE,
            self._decided.marks,
            store.secret,
            spilled=None if store.empty else store.progress.log_time,
        )
        self._sweeper = Sweeper(topology, store, settings, self._features)
        self._scoring = Scoring(topology, store.progress.batches, lap)
        self._positions: dict[Position, int] = dict(positions_of(store.progress))
        self._acceptance = Acceptance(
            self._topics.payments, settings.events, self._identities, store.progress.greatest
        )
        self._log_time = store.progress.log_time
        self._sizes: deque[tuple[int, int]] = deque()
        self._unwritten = self._uncut = 0
        self._changed = False
        self._commits = store.progress.commits
        self._rows = take_effect(self._rates, store)
        self._rows.extend(declared_rows(store, topology, settings.events.allowed_lateness))
        self._redo(store.progress.redo)

    @property
    def positions(self) -> Mapping[Position, int]:
        """Offset of the next record of each topic and partition."""
        return self._positions

    @property
    def decides_from(self) -> str:
        """The topic whose order is that in which decisions are made."""
        return self._topics.payments

    @property
    def versions(self) -> Mapping[str, int]:
        """The version of each model that decides."""
        return self._scoring.versions

    @property
    def keys(self) -> Mapping[str, int]:
        """Keys in memory, per entity."""
        return self._features.keys

    @property
    def clock(self) -> int:
        """Greatest event time of any partition in ms; what the stream takes for now."""
        return max(self._acceptance.greatest.values(), default=0)

    @property
    def ahead(self) -> bool:
        """Never: there is no other shard to wait for."""
        return False

    @property
    def changed(self) -> bool:
        """Whether anything has happened since the last cut."""
        return self._changed

    @property
    def swept(self) -> Counter[str]:
        """Rows deleted that nothing to come can ask for, by room of the store, since last cleared."""
        return self._sweeper.swept

    @property
    def waiting_rows(self) -> int:
        """Rows that the next commit cannot leave for later."""
        return len(self._rows) + len(self._scoring.rows)

    def identify(self, payment_ids: Sequence[str]) -> list[bytes]:
        """The 16-byte digests under which payments are found again."""
        return self._identities.digests(payment_ids)

    def process(self, records: Records) -> Answer:
        """Answer a batch of payment records: each gets a decision or a rejection."""
        self._lap("wait")
        self._changed = True
        answer = Answer.to(self._topics, emit_features=self._emit_features)
        decoded = self._codec.decode(records)
        self._lap("decode")
        batch, rejected = self._acceptance.accept(records, decoded.payments, decoded.rejected)
        self._lap("identify")
        if len(batch.payments):
            self._decide(records, batch, answer)
        answer.refuse(records, rejected)
        self._positions[records.topic, records.partition] = records.offsets[-1] + 1
        self._log_time = max(self._log_time, *records.timestamps)
        self._lap("encode")
        return answer

    def cut(self, taken: Taken | None = None, *, everything: bool = False) -> WriteSet:
        """What the commit at the positions reached has to write; copied.

        The decided batches are a log from which keys can be brought up to date, so a key's events are written
        once for all its payments of a while, unless `everything` is. With `taken`, outcomes and new scorers
        come in at this position: later payments are scored by them, and see the frauds in their features.
        """
        # What goes stands first: the same key may come again in this commit.
        rows = self._sweeper.rows(self._acceptance.greatest, self._log_time, self._scoring.batches)
        rows += self._rows + self._scoring.rows
        self._rows, self._scoring.rows = [], []
        if taken is not None:
            rows.extend(taken.rows)
            self._positions.update(taken.positions)
            self._scoring.use(taken.scorers)
            if taken.frauds:
                self._know(taken.frauds)
        self._features.catch_up(None if everything else CATCH_UP)
        before, most = (None, None) if everything else self._ripe()
        rows.extend(prefixed(BLOCKS, self._features.cut(before, most)))
        self._changed = False
        self._identities.cut()
        self._commits += 1
        self._lap("cut")
        return WriteSet(
            Progress(
                positions=nested(self._positions),
                greatest=dict(self._acceptance.greatest),
                log_time=self._log_time,
                batches=self._scoring.batches,
                redo=self._features.oldest_after_cut,
                models=dict(self._scoring.versions),
                commits=self._commits,
                topology=self.topology.fingerprint,
            ),
            rows,
        )

    def tell(self) -> list[Outgoing]:
        """What other shards are to be told: of them there are none."""
        return []

    def written(self) -> None:
        """The last cut is in the store: what it held may leave memory."""
        self._features.written()
        self._identities.written()

    def restore_scorer(self, model: str, version: int, scorer: Scorer) -> None:
        """Score with a snapshot found in the store, before the first batch."""
        self._scoring.use({model: (version, scorer)})

    def _decide(self, records: Records, accepted: Accepted, answer: Answer) -> None:
        payments = accepted.payments
        number = self._scoring.batches
        features = np.empty((len(payments), len(self.columns)))
        converted = convert(self._rates, payments)
        answer.unrated = converted.unrated
        self._features.update(converted.payments, features[:, : len(self._features.names)], number)
        prefix = f"{records.topic}/{records.partition}/".encode()
        counted = Counted(
            payments,
            converted.payments,
            features,
            accepted.marks,
            accepted.content,
            converted.others,
            [b"%b%d" % (prefix, offset) for offset in payments.offsets.tolist()],
            copied_of(records, payments),
        )
        self._scoring.decide(counted, answer)
        self._sizes.append((number, len(payments)))
        self._unwritten += len(payments)
        self._uncut += len(payments)

    def _ripe(self) -> tuple[int, int]:
        """Which keys have waited long enough: those changed before this batch, and how many of them."""
        limit = self.settings.commit.redo_payments
        while self._sizes and self._unwritten - self._sizes[0][1] >= limit:
            self._unwritten -= self._sizes.popleft()[1]
        before = self._sizes[0][0] if self._sizes else self._scoring.batches
        if self._features.dirty_bytes > self.settings.state.memory_budget // DIRTY_SHARE:
            before = self._scoring.batches
        # No payment makes more keys wait than there are entities, so as many a payment keep up.
        most = self.settings.commit.max_dirty_rows + self._uncut * len(self.topology.all_entities)
        self._uncut = 0
        return before, most

    def _redo(self, start: int) -> None:
        """Give the features the batches decided after their keys were last written."""
        reader = PaymentReader(self._features.fields)
        for number, content, others in self._decided.payments(start):
            batch = convert_again(self._rates, reader.read(content), others)
            self._features.replay(batch, number)

    def _know(self, frauds: Sequence[KnownFraud]) -> None:
        """Count payments as frauds of their keys, as of when that became known."""
        payments = PaymentBatch.stored([one.payment for one in frauds])
        known = np.array([one.known for one in frauds], np.int64)
        self._features.know(replace(payments, event_time=known), int(payments.event_time.min()))


class Blocks:
    """The room of the store in which features keep their events."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """The values of block keys, in order, `None` where there is none."""
        return self._store.get_many([BLOCKS + key for key in keys])


def warm_up() -> None:
    """Compile every kernel, or load it from the cache on disk, so that the first payments need not wait."""
    features_warm_up()
    Identities(1, 1, lambda digests: [None] * len(digests))
