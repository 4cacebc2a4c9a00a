"""What must come of payments that pass a chain of stages; its topics are asked for their order alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from streamer.chain.stages import Chain, Stage
from streamer.chain.wire import FRAUDS, decode
from streamer.models.snapshot import Snapshot
from streamer.state.decided import OFFSET_BITS
from tests.end_to_end.acceptance import Acceptance, Refused
from tests.end_to_end.logs import Got
from tests.end_to_end.reading import Payment

from .expected import Decided, Expected, Inputs, Oracle, Score, frauds_in, refuse_outcomes, scorer

Place = tuple[int, int]


@dataclass(frozen=True)
class Heard:
    """What a stage hears at one place of its order: the payment at `place`, or one known as fraud since."""

    place: Place
    payment_id: str = ""
    known: int = 0


def heard(topic: Sequence[Sequence[Got]]) -> list[list[Heard]]:
    """What each partition of a stage's topic brings, once: what a sender repeats has a position of before."""
    found = []
    for partition in topic:
        marks: dict[tuple[str, int], int] = {}
        new: list[Heard] = []
        for got in partition:
            head, rows = decode(got.value)
            sender = head.stage, head.partition
            columns = (rows.number(name).tolist() for name in ("position", "source", "log_time"))
            payments = rows.table.column("payment").to_pylist()
            for position, source, log_time, payment in zip(*columns, payments, strict=True):
                if position <= marks.get(sender, -1):
                    continue
                marks[sender] = position
                if head.kind == FRAUDS:
                    told = msgspec.msgpack.decode(payment)
                    new.append(Heard((-1, -1), told["payment_id"], log_time))
                else:
                    new.append(Heard((source >> OFFSET_BITS, source & ((1 << OFFSET_BITS) - 1))))
        found.append(new)
    return found


def accept(inputs: Inputs) -> list[Payment | Refused]:
    """Which payments are decided: judged by partition, since those of one id share one."""
    judges: dict[int, Acceptance] = {}
    answers = []
    for (partition, offset), sent in zip(inputs.places["payments"], inputs.payments, strict=True):
        answer = judges.setdefault(partition, Acceptance(inputs.limits)).judge(
            offset, sent.timestamp, sent.value
        )
        if isinstance(answer, Refused) and answer.first is not None:
            answer = replace(answer, first=inputs.index("payments", (partition, answer.first)))
        answers.append(answer)
    return answers


class ChainOracle(Oracle):
    """Computes what stages must add to each payment in the order of their topics."""

    def follow(
        self,
        inputs: Inputs,
        chain: Chain,
        topics: Mapping[str, Sequence[Sequence[Got]]],
        versions: Mapping[int, int],
        snapshots: Mapping[int, Snapshot],
    ) -> Expected:
        """All answers; `topics` are those between stages, `versions` what each payment says it was scored by.

        `problems` tells where a stage misses a payment, hears it twice, is not told of a fraud, or where a
        shard goes back to an older version.
        """
        self.problems: list[str] = []
        self._accepted = accept(inputs)
        self._rows: dict[int, dict[str, Any]] = {
            index: {} for index, payment in enumerate(self._accepted) if isinstance(payment, dict)
        }
        self._frauds = {
            payment["payment_id"]: (payment, known)
            for payment, known in frauds_in(inputs, self._accepted, len(inputs.outcomes))
        }
        for stage in chain.counting:
            self._count(stage, heard(topics[stage.topic]), inputs)
        scores: dict[int, Score] = {0: self._untaught}
        order = [self._indices(each, inputs) for each in heard(topics[chain.stages[-1].topic])]
        self._check_once(chain.stages[-1].name, [index for indices in order for index in indices])
        for indices in order:
            named = [versions[index] for index in indices if index in versions]
            if named != sorted(named):
                self.problems.append(f"a shard went back to an older model: {named}")
        answers: list[Decided | Refused] = []
        features = np.full((len(self._accepted), len(self.names)), np.nan)
        for index, payment in enumerate(self._accepted):
            if isinstance(payment, Refused):
                answers.append(payment)
                continue
            row = self._rows[index]
            row |= {name: derive(payment, row) for name, derive in self._derived.items()}
            features[index] = [np.nan if row[name] is None else row[name] for name in self.names]
            version = versions.get(index, 0)
            if version not in scores:
                scores[version] = scorer(snapshots[version])
            answers.append(self._decide(payment, row, scores[version](row), version))
        return Expected(self.names, answers, features, refuse_outcomes(inputs, self._accepted))

    def _indices(self, partition: Sequence[Heard], inputs: Inputs) -> list[int]:
        return [inputs.index("payments", each.place) for each in partition if not each.payment_id]

    def _count(self, stage: Stage, partitions: Sequence[Sequence[Heard]], inputs: Inputs) -> None:
        entities = [each for each in self._entities if each.name in {one.name for one in stage.entities}]
        told: list[tuple[str, int]] = []
        order: list[int] = []
        for partition in partitions:
            for each in partition:
                if each.payment_id:
                    told.append((each.payment_id, each.known))
                    payment = self._frauds.get(each.payment_id, ({}, 0))[0]
                    for entity in entities:
                        ledger = self._ledger(entity, payment)
                        if ledger is not None:
                            ledger.blame(each.known)
                    continue
                order.append(index := inputs.index("payments", each.place))
                accepted = self._accepted[index]
                if not isinstance(accepted, dict):
                    raise AssertionError(  # noqa: TRY004 - what is judged is wrong, not our argument
                        f"stage {stage.name} hears of {each.place}: {accepted}"
                    )
                for entity in entities:
                    ledger = self._ledger(entity, accepted)
                    self._rows[index] |= (
                        dict.fromkeys(entity.names)
                        if ledger is None
                        else zip(entity.names, ledger.features(accepted, entity.features), strict=True)
                    )
        self._check_once(stage.name, order)
        if stage.learns:
            wanted = sorted(
                (name, known)
                for name, (payment, known) in self._frauds.items()
                if all(key in payment for key in stage.keys)
            )
            if sorted(told) != wanted:
                missing, more = set(wanted) - set(told), set(told) - set(wanted)
                self.problems.append(
                    f"stage {stage.name}: expected to hear of {len(wanted)} frauds once, got {len(told)};"
                    f" not told: {sorted(missing)[:5]}, told of besides: {sorted(more)[:5]}"
                )

    def _check_once(self, stage: str, order: Sequence[int]) -> None:
        if sorted(order) != sorted(self._rows):
            missing, more = set(self._rows) - set(order), len(order) - len(set(order))
            self.problems.append(
                f"stage {stage}: expected {len(self._rows)} payments once each, got {len(order)}; missing:"
                f" {sorted(missing)[:5]}, twice: {more}"
            )
