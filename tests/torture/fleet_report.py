"""The figures of a fleet's torture, and whether they are as they must be."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from streamer.chain.stages import Chain
from streamer.errors import StreamerError
from streamer.settings import Topics
from tests.end_to_end.logs import Got

from . import topology as tested
from .chain import ChainOracle
from .expected import Inputs
from .fleet import NOTHING, FleetRun
from .judge import OUTPUTS, Judge
from .report import CONDITIONS, DERIVED, Report, constants, counted, read_snapshots, repeats_in
from .run import LIMITS


def fleet_report(run: FleetRun, command: str) -> Report:
    """Judge everything that a fleet put out; with transactions no answer may be there twice."""
    place, plan = run.place, run.plan
    failures: list[str] = []
    outputs = {topic: [got for part in place.read_committed(topic) for got in part] for topic in OUTPUTS}
    stale = 0
    if plan.guarantee == "at_least_once" and "pause" in plan.only:
        outputs["decisions"], stale = _without_stale(outputs["decisions"])
    inputs = Inputs(
        run.storm.payments,
        [told.record for told in run.storm.outcomes],
        place.prefix,
        LIMITS,
        {"payments": run.payments, "outcomes": run.outcomes},
    )
    figures: dict[str, Any] = {"seed": plan.seed, "command": command}
    chain = Chain.of(tested.topology, Topics(prefix=place.prefix))
    try:
        snapshots = read_snapshots([got for part in place.read_committed("models") for got in part])
        topics = {
            stage.topic: place.read_committed(stage.topic.removeprefix(place.prefix))
            for stage in chain.stages
        }
        versions: dict[int, int] = {}
        for got in outputs["decisions"]:
            _, partition, offset = got.source.rsplit("/", 2)
            index = inputs.index("payments", (int(partition), int(offset)))
            versions.setdefault(index, int(json.loads(got.value or b"")["models"][tested.fraud.name]))
        oracle = ChainOracle(tested.topology, DERIVED, CONDITIONS)
        expected = oracle.follow(inputs, chain, topics, versions, snapshots)
    except (AssertionError, StreamerError) as error:
        return Report(figures, [str(error)])
    failures += oracle.problems
    judge = Judge(inputs, expected, constants())
    verdict = judge.judge(outputs)
    failures += [
        f"\n{verdict.wrong[kind]} x {first}\n{judge.neighbourhood(first)}"
        for kind, first in sorted(verdict.firsts.items(), key=lambda item: item[1].offset)
    ]
    repeats = repeats_in(verdict)
    if plan.guarantee == "transactions" and repeats:
        failures.append(f"expected no answer twice with transactions, got {dict(verdict.repeats)}")
    pauses = run.pauses()
    longest = {event: max(each) for event, each in pauses.items() if event != NOTHING}
    figures = {
        "partitions": plan.partitions,
        "workers": plan.workers,
        "guarantee": plan.guarantee,
        "events": dict(Counter(each.event for each in run.happened)),
        "payments": plan.payments,
        "rate": plan.rate,
        **counted(verdict),
        "doubled_in_output": repeats,
        "stale_decisions_of_sleepers": stale,
        "what_differs": dict(verdict.details.most_common()),
        "outcomes": len(run.storm.outcomes),
        "snapshots": len(snapshots),
        "pauses_s": pauses,
        "longest_pauses_s": longest,
        "longest_pause_s": max(longest.values(), default=0.0),
        **figures,
    }
    return Report(figures, failures)


def _without_stale(decisions: Sequence[Got]) -> tuple[list[Got], int]:
    """Decisions without those of another version behind the first for a payment, and how many these are.

    Only transactions keep a worker that has slept from publishing what it held, by the model that it had.
    """
    first: dict[str, Got] = {}
    kept = [got for got in decisions if first.setdefault(got.source, got).content == got.content]
    return kept, len(decisions) - len(kept)
