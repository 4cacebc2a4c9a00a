"""What a stage hears of the stages before it: each row once, whatever a crash made them say again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.batch import Int64, Records
from streamer.chain.pace import Heard
from streamer.chain.stages import FRAUDS as TELLERS
from streamer.chain.stages import Stage
from streamer.chain.wire import FRAUDS, PAYMENTS, ROW_BITS, Head, Rows, UnreadableError, decode, join
from streamer.errors import StreamerError


@dataclass(frozen=True, slots=True)
class Part:
    """New rows of one kind, in order of arrival; their `position` is that in the stage's own topic."""

    kind: int
    rows: Rows


_Fresh = tuple[Rows, Int64]
"""New rows of a message, and their positions in the stage's own topic."""


class Inbox:
    """How far one stage has heard each partition of the stages before it.

    A sender emits rows in the order of its input and, after a crash, the same ones again from where it had
    committed, in other messages perhaps. So what lies at or below the last position heard was heard before.
    `heard` is what a store remembers: by sender and its partition, that position and the sender's clock.
    """

    def __init__(self, stage: Stage, heard: Mapping[str, Mapping[int, tuple[int, int]]]) -> None:
        self._stage = stage
        self._heard = {sender: dict(partitions) for sender, partitions in heard.items()}
        self.paces = Heard()

    @property
    def heard(self) -> dict[str, dict[int, tuple[int, int]]]:
        """A copy, to be stored with what has been made of it."""
        return {sender: dict(partitions) for sender, partitions in self._heard.items()}

    @property
    def clock(self) -> int:
        """No payment to come is older than this event time (ms) by more than the allowed lateness; or 0.

        Partitions that were never heard of do not count: nobody knows what they may bring.
        """
        return min((clock for _, clock in self._heard.get(self._stage.before, {}).values()), default=0)

    @property
    def pace(self) -> int:
        """How far the slowest entry has come that has more to read (event time, ms); 0 where none has."""
        return self.paces.slowest

    def receive(self, records: Records) -> tuple[list[Part], list[str]]:
        """The new rows, those of payments joined as far as no fraud stands between; and what is unreadable.

        Raises `StreamerError` for messages of another chain of stages: they must not be lost.
        """
        readable: list[tuple[int, Head, Rows]] = []
        unreadable = []
        for offset, value in zip(records.offsets, records.values, strict=True):
            where = f"{records.topic}/{records.partition}/{offset}"
            try:
                head, rows = decode(value)
            except UnreadableError as error:
                unreadable.append(f"{error} - at `{where}`; it is skipped: who else writes there?")
                continue
            self._check(head, where)
            if head.kind == PAYMENTS:
                self.paces.note(head.partition, head.pace)
            readable.append((offset, head, rows))
        parts: list[Part] = []
        run: list[_Fresh] = []
        for offset, head, rows in readable:
            fresh = self._fresh(offset, head, rows)
            if fresh is None:
                continue
            if head.kind == PAYMENTS:
                run.append(fresh)
                continue
            if run:
                parts.append(_part(PAYMENTS, run))
                run = []
            parts.append(_part(FRAUDS, [fresh]))
        if run:
            parts.append(_part(PAYMENTS, run))
        return parts, unreadable

    def _check(self, head: Head, where: str) -> None:
        stage = self._stage
        if head.kind == FRAUDS and head.stage == TELLERS and stage.learns:
            return
        if head.kind == PAYMENTS and head.stage == stage.before and head.layout == stage.layout:
            return
        raise StreamerError(
            f"Expected payments from stage {stage.before!r} with features {stage.layout:08x}, got kind"
            f" {head.kind} from {head.stage!r} with {head.layout:08x} - at `{where}`: they were sent under"
            " another topology; run that one until its stages have read all their topics, then start this one"
        )

    def _fresh(self, offset: int, head: Head, rows: Rows) -> _Fresh | None:
        """The rows not heard before, if any; from now on they are heard."""
        partitions = self._heard.setdefault(head.stage, {})
        mark, clock = partitions.get(head.partition, (-1, 0))
        positions = rows.number("position")
        begin, n = int(np.searchsorted(positions, mark, side="right")), len(rows)
        partitions[head.partition] = (max(mark, int(positions[-1])), max(clock, head.clock))
        if begin == n:
            return None
        own = (offset << ROW_BITS) + np.arange(begin, n, dtype=np.int64)
        return (rows.slice(begin, n) if begin else rows), own


def _part(kind: int, fresh: Sequence[_Fresh]) -> Part:
    rows = join([one for one, _ in fresh])
    return Part(kind, rows.having(position=np.concatenate([own for _, own in fresh])))
