"""What commands show to a person."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from streamer.demo import Tally
from streamer.topology import Topology


def tick_line(tally: Tally, versions: Mapping[str, int]) -> str:
    """One line on how the demo stands."""
    models = " ".join(f"{name}@{version}" for name, version in versions.items())
    actions = " ".join(f"{action} {count:,}" for action, count in tally.actions.most_common())
    counts = f"{tally.payments:>9,} payments  {tally.decisions:>9,} decisions  {tally.outcomes:>9,} outcomes"
    return f"{counts}  {models}  {actions}"


def summarize_demo(out: Console, summary: Mapping[str, Any]) -> None:
    """The demo's result as a table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    half = summary["second_half"]
    rows = {
        "payments in": f"{summary['payments']:,}",
        "decisions out": f"{summary['decisions']:,}",
        "rejected": f"{summary['rejected']:,}",
        "outcomes learned from": f"{summary['outcomes']:,}",
        "actions": ", ".join(f"{name} {count:,}" for name, count in summary["actions"].items()),
        "throughput": f"{summary['payments_per_second']:,} payments/s, simulator, learning and log included",
        "latency": f"p50 {summary['latency_p50_ms']} ms, p99 {summary['latency_p99_ms']} ms (batches of 500)",
        "models": ", ".join(f"{name}@{version}" for name, version in summary["models"].items()),
        "second half": (
            f"AUC {half['auc']}, average precision {half['average_precision']} over {half['frauds']} frauds"
            " (simulated; on real payments average precision is several times lower)"
        ),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)


def show_topology(out: Console, topology: Topology) -> None:
    """Everything a topology declares."""
    out.print(f"topology {topology.name}, fingerprint {topology.fingerprint}: valid")
    for entity in topology.all_entities:
        out.print(f"\nentity {entity.name} by {', '.join(entity.keys)}")
        for feature in entity.features:
            out.print(f"  {feature.name}")
    for derived in topology.derived:
        out.print(f"\nderived {derived.name}")
    for model in topology.models:
        out.print(f"\nmodel {model.name}: {len(model.features)} inputs, good after {model.good_after}")
    out.print(f"\npolicy {topology.policy.label}")
    for number, rule in enumerate(topology.policy.rules, 1):
        out.print(f"  {number}. {rule.action} for {rule.reason}")
