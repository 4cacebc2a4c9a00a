"""Drives the shards of a job over a log in memory: at random, with crashes, and what they sent stays sent."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.batch import Headers, Outgoing, Records
from streamer.chain.shard import Shard
from streamer.chain.wire import FRAUDS, decode
from streamer.learning.learning import Learning
from streamer.partitioning import partitions_of
from streamer.rates import RateTable
from streamer.scoring import Answer, Taken
from streamer.settings import Settings
from streamer.state.store import Position, Store
from streamer.topology import Topology

Sent = tuple[bytes | None, bytes | None, tuple[Any, ...]]


def source_of(headers: Headers) -> str:
    """The record that an answer names as its source."""
    return dict(headers)["streamer_source"].decode()


@dataclass
class Log:
    """Topics of `partitions` partitions each; a record is its timestamp, key, value and headers."""

    partitions: int
    records: dict[Position, list[tuple[int, bytes | None, bytes | None, Headers]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def append(
        self, topic: str, partition: int, timestamp: int, value: bytes | None, headers: Headers = ()
    ) -> None:
        """Add one record without a key."""
        self.records[topic, partition].append((timestamp, None, value, headers))

    def send(self, outgoing: Outgoing, most: int | None = None) -> None:
        """Add the records of an outgoing batch, only the first `most` if given."""
        chosen = partitions_of(outgoing.keys, self.partitions, 0)
        for place, (key, value, headers) in enumerate(
            zip(outgoing.keys, outgoing.values, outgoing.headers, strict=True)
        ):
            if most is None or place < most:
                partition = chosen[place] if outgoing.partition is None else outgoing.partition
                self.records[outgoing.topic, partition].append((0, key, value, headers))

    def read(self, topic: str, partition: int, start: int, most: int) -> Records:
        """The next records from `start` on."""
        found = self.records[topic, partition][start : start + most]
        return Records(
            topic,
            partition,
            list(range(start, start + len(found))),
            [one[0] for one in found],
            [one[1] for one in found],
            [one[2] for one in found],
            [one[3] for one in found],
            0,
            more=start + most < self.end(topic, partition),
        )

    def end(self, topic: str, partition: int) -> int:
        """The next offset."""
        return len(self.records[topic, partition])

    def all(self, topic: str) -> Iterator[Sent]:
        """Key, value and headers of all records of a topic."""
        for partition in range(self.partitions):
            for _, key, value, headers in self.records[topic, partition]:
                yield key, value, tuple(headers)

    def answers(self, *topics: str) -> dict[str, set[tuple[str, Sent]]]:
        """By source, the distinct records of these topics."""
        found: dict[str, set[tuple[str, Sent]]] = defaultdict(set)
        for topic in topics:
            for sent in self.all(topic):
                found[source_of(sent[2])].add((topic, sent))
        return found

    def order(self, topic: str, partition: int) -> list[str]:
        """The payments in the order in which a stage counts them; again and frauds left out."""
        seen: dict[str, None] = {}
        for _, _, value, _ in self.records[topic, partition]:
            head, rows = decode(value)
            if head.kind != FRAUDS:
                seen.update(
                    dict.fromkeys(
                        f"{one >> 48}/{one & (1 << 48) - 1}" for one in rows.number("source").tolist()
                    )
                )
        return list(seen)


class Worker:
    """One shard, its learners and its store; `crash` loses what was not committed."""

    def __init__(self, job: "Job", number: int) -> None:
        self._job = job
        self.number = number
        self._start()

    def _start(self) -> None:
        job = self._job
        self.store = Store.open(job.path / str(self.number))
        self.shard = Shard(
            job.topology, self.store, job.settings,
            number=self.number, shards=job.log.partitions, emit_features=True, rates=job.rates,
        )  # fmt: skip
        self.learning = Learning(
            job.topology, self.store, job.settings, self.shard.identify,
            number=self.number, shards=job.log.partitions,
        )  # fmt: skip
        for snapshot in self.learning.snapshots():
            self.shard.restore_scorer(snapshot.model, snapshot.version, snapshot.scorer())

    def waiting(self) -> list[str]:
        """The topics with records that it has not read."""
        return [topic for topic in self.shard.chain.topics if self._left(topic)]

    def _left(self, topic: str) -> int:
        reached = self.shard.positions.get((topic, self.number), 0)
        return self._job.log.end(topic, self.number) - reached

    def process(self, topic: str, most: int) -> Answer:
        """Read some records, and send nothing yet."""
        start = self.shard.positions.get((topic, self.number), 0)
        answer = self.shard.process(self._job.log.read(topic, self.number, start, most))
        self._job.unreadable += answer.unreadable
        return answer

    def unheard(self) -> int:
        """Records of other shards' learning that it has not read."""
        topic = self.learning.hears
        return self._job.log.end(topic, self.number) - self.learning.positions.get((topic, self.number), 0)

    def hear(self, most: int = 1 << 30) -> None:
        """Let its learning read some of them."""
        topic = self.learning.hears
        start = self.learning.positions.get((topic, self.number), 0)
        records = self._job.log.read(topic, self.number, start, most)
        if len(records):
            self._job.unreadable += self.learning.hear(records)

    def commit(self, taken: Taken | None = None) -> None:
        """Store what was done, and tell of frauds afterwards."""
        self.store.commit(self.shard.cut(taken))
        self.shard.written()

    def tell(self) -> None:
        """Send what other shards are to be told."""
        for outgoing in self.shard.tell():
            self._job.log.send(outgoing)

    def join(self) -> list[int]:
        """Join all outcomes that are there; answers which have no payment."""
        topic = self._job.settings.topics.resolved.outcomes
        start = self.learning.positions.get((topic, self.number), 0)
        records = self._job.log.read(topic, self.number, start, 1 << 30)
        if not len(records):
            return []
        outcomes, _ = self.learning.read(records)
        unknown = self.learning.join([outcome for _, outcome in outcomes])
        self.learning.advance(topic, self.number, records.offsets[-1] + 1)
        return unknown

    def crash(self, *, torn: bool = False) -> None:
        """Lose what is not stored and start again; `torn`: just before a commit is written."""
        if torn:
            self.shard.cut()
        self.store.close()
        self._start()


class Job:
    """All shards of a job, scheduled by `draws`."""

    def __init__(  # noqa: PLR0913 - a job is made in few places
        self,
        path: Path,
        topology: Topology,
        settings: Settings,
        log: Log,
        draws: random.Random,
        *,
        rates: RateTable | None = None,
    ) -> None:
        self.path, self.topology, self.settings, self.log, self.rates = path, topology, settings, log, rates
        self.unreadable: list[str] = []
        self.crashes = 0
        self._draws = draws
        self.workers = [Worker(self, number) for number in range(log.partitions)]

    def run(self, *, most: int = 40, commits: float = 0.2, crashes: float = 0.0) -> None:
        """Until everything is read and committed: random shards, topics, batch sizes, commits, crashes."""
        draws = self._draws
        while ready := [(worker, topic) for worker in self.workers for topic in worker.waiting()]:
            worker, topic = draws.choice(ready)
            answer = worker.process(topic, draws.randint(1, most))
            if draws.random() < crashes:
                self.crashes += 1
                self._send(answer, torn=True)
                worker.crash(torn=draws.random() < 0.3)
                continue
            self._send(answer)
            if draws.random() < commits:
                worker.commit()
        for worker in self.workers:
            worker.commit()

    def run_stages(self) -> None:
        """Until the stages have read all that was sent to them; no payments."""
        while ready := [
            (worker, topic)
            for worker in self.workers
            for topic in worker.waiting()
            if topic != worker.shard.chain.payments
        ]:
            for worker, topic in ready:
                self._send(worker.process(topic, 1 << 30))

    def _send(self, answer: Answer, *, torn: bool = False) -> None:
        """Send an answer; `torn`: of every batch only some first records."""
        for outgoing in (answer.decisions, answer.rejected, answer.features, *answer.forwarded):
            if outgoing is not None:
                self.log.send(outgoing, self._draws.randint(0, len(outgoing)) if torn else None)

    def close(self) -> None:
        """Let go of the stores."""
        for worker in self.workers:
            worker.store.close()


def spread(
    log: Log, values: Sequence[tuple[int, int, bytes | None, Headers]], topic: str = "payments"
) -> None:
    """Write records: the partition, timestamp, value and headers of each."""
    for partition, timestamp, value, headers in values:
        log.append(topic, partition, timestamp, value, headers)
