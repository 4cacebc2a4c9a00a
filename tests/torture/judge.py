"""Holds all that a worker put out against what must come of its input, and counts what differs."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.end_to_end.acceptance import Refused
from tests.end_to_end.logs import Got

from .expected import Decided, Expected, Inputs

INPUTS = {"decisions": "payments", "payments.rejected": "payments", "features": "payments"}
INPUTS["outcomes.rejected"] = "outcomes"
OUTPUTS = tuple(INPUTS)

# Numbers that are integers: these are compared exactly.
EXACT = re.compile(r"(.+_)?(count|sum|max|min|distinct|novelty)(_.+)?|payment_amount")
NEIGHBOURS = 4

Features = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it must be: at the offset of an input record."""

    kind: str
    topic: str
    offset: int
    what: str
    expected: object
    got: object

    def __str__(self) -> str:
        where = f"{self.kind}: {self.topic} of offset {self.offset}: {self.what}"
        return f"{where}: expected {self.expected!r}, got {self.got!r}"


@dataclass
class Verdict:
    """What was found: records that differ by kind, and the first difference of each kind.

    `details` counts by what differs in them, `answers` and `repeats` by topic the input records that were
    answered, and the records that answer one again.
    """

    wrong: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, Difference] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, *differences: Difference) -> None:
        """Count a record that differs, in one thing or many; one that does not is not counted."""
        for found in differences[:1]:
            self.wrong[found.kind] += 1
            if found.offset < self.firsts.setdefault(found.kind, found).offset:
                self.firsts[found.kind] = found
        self.details.update(f"{found.topic} {found.what}" for found in differences)


@dataclass(frozen=True)
class Constants:
    """What stands in every decision of a run."""

    policy: str
    topology: str
    model: str


class Judge:
    """Compares each output record, repeated ones too, with the answer to its input record."""

    def __init__(self, inputs: Inputs, expected: Expected, constants: Constants) -> None:
        self._inputs = inputs
        self._expected = expected
        self._constants = constants
        self._wanted: Mapping[str, frozenset[int]] = {
            "decisions": self._offsets(Decided),
            "features": self._offsets(Decided),
            "payments.rejected": self._offsets(Refused),
            "outcomes.rejected": frozenset(expected.outcomes),
        }
        self._by_name = {
            (answer.payment["payment_id"], answer.payment["event_time"]): offset
            for offset, answer in enumerate(expected.answers)
            if isinstance(answer, Decided)
        }

    def _offsets(self, kind: type) -> frozenset[int]:
        return frozenset(at for at, answer in enumerate(self._expected.answers) if isinstance(answer, kind))

    def judge(self, outputs: Mapping[str, Sequence[Got]]) -> Verdict:
        """Everything that differs, in all topics of `OUTPUTS`."""
        verdict = Verdict()
        checks: Mapping[str, Callable[[int, Got], Iterable[Difference]]] = {
            "decisions": self._check_decision,
            "features": self._check_features,
            "payments.rejected": self._check_rejection,
            "outcomes.rejected": self._check_rejection,
        }
        for topic in OUTPUTS:
            seen: dict[int, Got] = {}
            for got in outputs[topic]:
                offset = self._offset_of(got, topic)
                if offset in seen:
                    verdict.repeats[topic] += 1
                    if seen[offset].content == got.content:
                        continue
                    verdict.add(
                        Difference("repeat", topic, offset, "other bytes", seen[offset].content, got.content)
                    )
                seen.setdefault(offset, got)
                self._judge_one(topic, offset, checks[topic](offset, got), verdict)
            verdict.answers[topic] = len(seen)
            for offset in sorted(self._wanted[topic] - seen.keys()):
                verdict.add(Difference("missing", topic, offset, "answer", "one", "none"))
        return verdict

    def _judge_one(self, topic: str, offset: int, found: Iterable[Difference], verdict: Verdict) -> None:
        if offset not in self._wanted[topic]:
            wanted = self._answer(topic, offset)
            verdict.add(Difference("unexpected", topic, offset, "answer", wanted, "one in this topic"))
            return
        verdict.add(*found)

    def _answer(self, topic: str, offset: int) -> Decided | Refused | None:
        if INPUTS[topic] == "outcomes":
            return self._expected.outcomes.get(offset)
        return self._expected.answers[offset] if 0 <= offset < len(self._expected.answers) else None

    def _offset_of(self, got: Got, topic: str) -> int:
        """Which input record is answered: by its source; features have none, but an id and a time."""
        if topic == "features":
            found = json.loads(got.value or b"")
            return self._by_name.get((found["payment_id"], found["event_time"]), -1)
        name, partition, offset = got.source.rsplit("/", 2)
        if name != f"{self._inputs.prefix}{INPUTS[topic]}":
            return -1
        return self._inputs.index(INPUTS[topic], (int(partition), int(offset)))

    def _check_decision(self, offset: int, got: Got) -> Iterable[Difference]:
        wanted, decision = self._expected.answers[offset], json.loads(got.value or b"")
        if not isinstance(wanted, Decided):
            return
        payment_id, model = wanted.payment["payment_id"], self._constants.model
        codes = dict.fromkeys(reason["code"] for reason in decision["reasons"])
        pairs = {
            "key": (payment_id.encode(), got.key),
            "payment_id": (payment_id, decision["payment_id"]),
            "event_time": (wanted.payment["event_time"], decision["event_time"]),
            "models": ({model: wanted.version}, {name: str(at) for name, at in decision["models"].items()}),
            "scores": ({model: decision["score"]}, decision["scores"]),
            "action": (wanted.action, decision["action"]),
            "reasons": (wanted.codes, tuple(codes)),
            "missing": (list(wanted.missing), decision["missing"]),
            "policy": (self._constants.policy, decision["policy"]),
            "topology": (self._constants.topology, decision["topology"]),
            "traceparent": (self._traceparent(offset), dict(got.headers).get("traceparent")),
        }
        if not math.isclose(wanted.score, decision["score"], rel_tol=1e-9, abs_tol=1e-9):
            pairs = {"score": (wanted.score, decision["score"])} | pairs
        if pairs["models"][0] != pairs["models"][1]:
            pairs = {"models": pairs["models"]} | pairs
        row = self._row(offset)
        for reason in decision["reasons"]:
            if reason["feature"] is not None:
                known = row.get(reason["feature"], "no such feature")
                if not same(reason["feature"], known, reason["value"]):
                    pairs[f"reason {reason['feature']}"] = (known, reason["value"])
        for what, (one, other) in pairs.items():
            if one != other:
                yield Difference("decision", "decisions", offset, what, one, other)

    def _traceparent(self, offset: int) -> bytes | None:
        return dict(self._inputs.payments[offset].headers).get("traceparent")

    def _row(self, offset: int) -> dict[str, float | None]:
        row = self._expected.features[offset].tolist()
        return {
            name: None if math.isnan(value) else value
            for name, value in zip(self._expected.names, row, strict=True)
        }

    def _check_features(self, offset: int, got: Got) -> Iterable[Difference]:
        found = json.loads(got.value or b"")
        wanted = self._expected.answers[offset]
        if isinstance(wanted, Decided) and wanted.payment["payment_id"].encode() != got.key:
            yield Difference("feature", "features", offset, "key", wanted.payment["payment_id"], got.key)
        row = self._row(offset)
        if row.keys() != found["features"].keys():
            yield Difference("feature", "features", offset, "names", list(row), list(found["features"]))
            return
        for name, value in row.items():
            if not same(name, value, found["features"][name]):
                yield Difference("feature", "features", offset, name, value, found["features"][name])

    def _check_rejection(self, offset: int, got: Got) -> Iterable[Difference]:
        payments = got.source.startswith(f"{self._inputs.prefix}payments/")
        kind, topic = ("rejection", "payments.rejected") if payments else ("outcome", "outcomes.rejected")
        wanted = self._expected.answers[offset] if payments else self._expected.outcomes[offset]
        if not isinstance(wanted, Refused):
            return
        rejection = json.loads(got.value or b"")
        pairs = {
            "code": (wanted.code, rejection["code"]),
            "payment_id": (wanted.payment_id, rejection["payment_id"]),
            "key": (None if wanted.payment_id is None else wanted.payment_id.encode(), got.key),
        }
        for what, (one, other) in pairs.items():
            if one != other:
                yield Difference(kind, topic, offset, what, one, other)
        if wanted.first is not None:
            source = self._inputs.source("payments", wanted.first)
            if source not in rejection["error"].split():
                yield Difference(kind, topic, offset, "first source", source, rejection["error"])

    def neighbourhood(self, difference: Difference) -> str:
        """The input record of a difference and those before it that share an entity with it, as they came."""
        records = self._inputs.outcomes if difference.topic.startswith("outcomes") else self._inputs.payments
        if not 0 <= difference.offset < len(records):
            return "no such input record"
        lines = [f"input {difference.offset}: {records[difference.offset]!r:.2000}"]
        answer = self._expected.answers[difference.offset] if records is self._inputs.payments else None
        if isinstance(answer, Decided):
            lines.append(f"expected: {answer}")
            for name in ("card", "customer", "merchant", "ip"):
                lines += self._earlier(name, answer.payment.get(name), difference.offset)
        return "\n".join(lines)

    def _earlier(self, name: str, value: object, before: int) -> list[str]:
        found: list[str] = []
        for offset in range(before - 1, -1, -1):
            other = self._expected.answers[offset]
            if value is not None and isinstance(other, Decided) and other.payment.get(name) == value:
                found.append(f"same {name}, input {offset}: {other.payment}")
            if value is None or len(found) == NEIGHBOURS:
                break
        return found[::-1]


def same(name: str, expected: Any, got: Any) -> bool:
    """Whether a feature is as it must be: integers exactly, others to 1e-9."""
    if expected is None or got is None or isinstance(expected, str) or EXACT.fullmatch(name):
        return bool(expected == got)
    return math.isclose(expected, got, rel_tol=1e-9, abs_tol=1e-12)
