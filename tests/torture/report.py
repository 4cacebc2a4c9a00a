"""The figures of a torture, and whether they are as they must be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from streamer.errors import StreamerError
from streamer.journal import JournalEntry
from streamer.models.snapshot import Snapshot
from tests.end_to_end.logs import Got
from tests.end_to_end.reading import Payment

from . import topology as tested
from .expected import Inputs, Oracle, base_amount
from .judge import OUTPUTS, Constants, Judge, Verdict
from .ledger import Value
from .run import LIMITS, SNAPSHOT_KEY, Run

DEAR = 5_000


def _surge(_: Payment, features: Mapping[str, Value]) -> Value:
    above, below = features["card_sum_amount_1h"], features["card_mean_amount_7d_before"]
    return above / below if above is not None and below else None


DERIVED: Mapping[str, Callable[[Payment, Mapping[str, Value]], Value]] = {
    "card_surge": _surge,
    "payment_amount": lambda payment, _: base_amount(payment),
}
CONDITIONS: Mapping[str, Callable[[Payment], bool]] = {
    "dear": lambda payment: (base_amount(payment) or 0) > DEAR,
}


def oracle() -> Oracle:
    """The oracle of the storm's topology."""
    return Oracle(tested.topology, DERIVED, CONDITIONS)


def constants() -> Constants:
    """What stands in every decision of the storm's topology."""
    topology = tested.topology
    return Constants(topology.policy.label, topology.fingerprint, tested.fraud.name)


def read_snapshots(records: Sequence[Got]) -> dict[int, Snapshot]:
    """Snapshots by version; raises AssertionError for two of one version, or fewer examples than before."""
    values: dict[int, bytes] = {}
    found: dict[int, Snapshot] = {}
    for record in records:
        value = record.value or b""
        snapshot = Snapshot.decode(value, SNAPSHOT_KEY.encode())
        if values.setdefault(snapshot.version, value) != value:
            raise AssertionError(f"models: two snapshots of version {snapshot.version} differ")
        found[snapshot.version] = snapshot
    examples = [found[version].examples for version in sorted(found)]
    if examples != sorted(examples):
        raise AssertionError(f"models: the examples learned from became fewer: {examples}")
    return found


@dataclass(frozen=True)
class Report:
    """What is printed: figures for the last line, and what is wrong, if anything is."""

    figures: Mapping[str, Any]
    failures: Sequence[str]

    def __str__(self) -> str:
        shown = {name: value for name, value in self.figures.items() if value not in ([], {})}
        lines = [f"{name.replace('_', ' '):<26}{value}" for name, value in shown.items()]
        return "\n".join([*lines, *self.failures])

    @property
    def line(self) -> str:
        """The figures as one JSON object."""
        return msgspec.json.encode({**self.figures, "failures": len(self.failures)}).decode()


def report(run: Run, command: str, most_repeats: int | None = None) -> Report:
    """Judge everything that a run put out; more answers sent again than `most_repeats` are a failure."""
    place, plan = run.place, run.plan
    outputs = {topic: place.read(topic) for topic in OUTPUTS}
    failures: list[str] = []
    try:
        entries = [JournalEntry.decode(got.key, got.value or b"") for got in place.read("journal")]
        snapshots = read_snapshots(place.read("models"))
        inputs = Inputs(
            run.storm.payments, [told.record for told in run.storm.outcomes], place.prefix, LIMITS
        )
        judge = Judge(inputs, oracle().expect(inputs, entries, snapshots), constants())
    except (AssertionError, StreamerError) as error:
        return Report({"seed": plan.seed, "command": command, "kills": len(run.struck)}, [str(error)])
    verdict = judge.judge(outputs)
    failures += [
        f"\n{verdict.wrong[kind]} x {first}\n{judge.neighbourhood(first)}"
        for kind, first in sorted(verdict.firsts.items(), key=lambda item: item[1].offset)
    ]
    repeats = repeats_in(verdict)
    if most_repeats is not None and repeats > most_repeats:
        failures.append(f"expected at most {most_repeats} answers sent again, got {repeats}")
    figures = {
        "kills": len(run.struck),
        "killed_elsewhere": [str(struck) for struck in run.struck if not struck.as_meant],
        **counted(verdict),
        "what_differs": dict(verdict.details.most_common()),
        "payments": plan.payments,
        "outcomes": len(run.storm.outcomes),
        "snapshots": len(snapshots),
        "journal_entries": len({entry.sequence for entry in entries}),
        "longest_pause_s": round(max(run.pauses(outputs["decisions"]), default=0.0), 3),
        "seed": plan.seed,
        "command": command,
    }
    return Report(figures, failures)


def counted(verdict: Verdict) -> dict[str, Any]:
    """How many records of a verdict are right, missing, repeated and wrong."""
    wrong = verdict.wrong
    return {
        "decisions": verdict.answers["decisions"],
        "missing": wrong["missing"],
        "unexpected": wrong["unexpected"],
        "doubled_in_state": wrong["feature"],
        "doubled_in_output": repeats_in(verdict),
        "repeats": dict(verdict.repeats),
        "repeats_with_other_bytes": wrong["repeat"],
        "differing_decisions": wrong["decision"],
        "differing_rejections": wrong["rejection"],
        "differing_outcomes": wrong["outcome"],
    }


def repeats_in(verdict: Verdict) -> int:
    """Answers that were sent again."""
    return sum(verdict.repeats[topic] for topic in ("decisions", "payments.rejected", "outcomes.rejected"))
