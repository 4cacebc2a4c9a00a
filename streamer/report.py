"""What commands show to a person."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from streamer.changes import Change, time_of
from streamer.demo import Tally


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


@dataclass(frozen=True, slots=True)
class Compared:
    """What changes for a state directory, whose newest payment is of `clock` (ms)."""

    state: Path
    clock: int
    changes: Sequence[Change]


def show_topology(out: Console, described: Mapping[str, Any]) -> None:
    """Everything a topology declares, from its description."""
    out.print(f"topology {described['topology']}, fingerprint {described['fingerprint']}: valid")
    for name, entity in described["entities"].items():
        out.print(f"\nentity {name} by {', '.join(entity['keys'])}")
        out.print(
            f"  {entity['key_bytes']} bytes of memory per hot key and {entity['event_bytes']} per event,"
            f" {entity['chunk_events']} events at a time;"
            f" events are kept for {entity['retention']}"
        )
        out.print(f"  kept of an event: {', '.join(('event_time', *entity['kept']))}")
        _show_features(out, [one for one in described["features"] if one["entity"] == name])
    derived = [one for one in described["features"] if one["entity"] is None]
    if derived:
        out.print("\nderived")
        _show_features(out, derived)
    for name, model in described["models"].items():
        out.print(f"\nmodel {name}: {model['inputs']} inputs, good after {model['good_after']}")
    out.print(f"\npolicy {described['policy']['name']}")
    for number, rule in enumerate(described["policy"]["rules"], 1):
        out.print(f"  {number}. {rule['action']} for {rule['reason']}")


def _show_features(out: Console, features: Sequence[Mapping[str, str]]) -> None:
    width = max(len(feature["name"]) for feature in features)
    for feature in features:
        out.print(f"  {feature['name']:{width}}  {feature['dtype']}  {feature['meaning']}")


def show_changes(out: Console, compared: Compared) -> None:
    """What changes for a state directory."""
    said = "these change" if compared.changes else "nothing changes"
    out.print(f"\nstate {compared.state}, up to {time_of(compared.clock)}: {said}")
    for change in compared.changes:
        out.print(f"  {change}")


def compared_json(compared: Compared) -> dict[str, Any]:
    """The same as plain data; times in ms."""
    return {
        "path": str(compared.state),
        "clock": compared.clock,
        "changes": [asdict(change) for change in compared.changes],
    }
