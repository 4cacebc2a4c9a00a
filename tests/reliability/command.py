"""The command `scripts/reliability`: arguments in, one table and one line of JSON out."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import state
from .commands import Commands, Figures

PARTITIONS = "8"
GOAL = 1.6
"""Times one worker's throughput that two on two cores should reach."""

REBALANCES = ("add", "stop", "add", "kill_for_good")
"""Workers of a fleet are added and removed in turn, every other one by SIGKILL."""

RATE, PER_EVENT = 300, 2_000
"""Payments a second for a fleet, a part of what it can do, and from one event to the next."""


class Measurement:
    """The parts of the table, each a method that fills in figures by name."""

    def __init__(self, options: argparse.Namespace, commands: Commands) -> None:
        self._options = options
        self._commands = commands

    @property
    def parts(self) -> Mapping[str, Callable[[], Figures]]:
        """All parts by name, in the order of the table."""
        return {
            "embedded": lambda: self._torture([]),
            "kafka": lambda: self._torture(["--broker", self._options.broker]),
            "rebalances": self._rebalances,
            "state": self._state,
            "workers": self._workers,
            "changelog": lambda: self._cost(["--changelog", "off"], ["--changelog", "auto"]),
            "transactions": lambda: self._cost([], ["--guarantee", "transactions"]),
        }

    def _torture(self, arguments: Sequence[str]) -> Figures:
        given = self._options
        sizes = ["--payments", str(given.storm), "--kills", str(given.kills), "--json"]
        found = self._commands.torture(*arguments, *sizes)
        names = ("kills", "payments", "missing", "doubled_in_state", "doubled_in_output")
        more = ("repeats_with_other_bytes", "longest_pause_s", "seed", "failures")
        return {name: found.get(name) for name in (*names, *more)}

    def _rebalances(self) -> Figures:
        events = 2 * self._options.rebalances
        sizes = ["--payments", str(events * PER_EVENT), "--kills", str(events), "--rate", str(RATE), "--json"]
        fleet = ["--broker", self._options.broker, "--partitions", PARTITIONS, "--workers", "2"]
        found = self._commands.torture(*fleet, "--events", *REBALANCES, *sizes)
        names = ("events", "payments", "rate", "missing", "doubled_in_state", "doubled_in_output")
        more = ("longest_pause_s", "longest_pauses_s", "seed", "failures")
        return {name: found.get(name) for name in (*names, *more)}

    def _state(self) -> Figures:
        with tempfile.TemporaryDirectory(prefix="reliability-") as directory:
            server = self._options.broker.removeprefix("kafka://")
            return state.measure(server, self._options.events, Path(directory))

    def _workers(self) -> Figures:
        one = self._bench("--partitions", PARTITIONS)
        two = [*one, "--workers", "2"]
        alone, together = self._commands.pairs(one, two, self._options.rounds)
        found: dict[str, Any] = {"one": alone, "two": together}
        found["times"] = round(together["payments_per_second"] / alone["payments_per_second"], 2)
        for name, figures in (("one", alone), ("two", together)):
            broker, worker = figures.get("broker_cpu_us_per_payment"), figures["cpu_us_per_payment"]
            if broker is not None:
                found[f"broker_share_{name}"] = round(broker / (broker + worker), 2)
        return found

    def _cost(self, without: Sequence[str], having: Sequence[str]) -> Figures:
        base = self._bench()
        before, after = self._commands.pairs([*base, *without], [*base, *having], self._options.rounds)
        return {
            "without": before,
            "with": after,
            "throughput_percent": _percent(after, before, "payments_per_second"),
            "processor_percent": _percent(after, before, "cpu_us_per_payment"),
        }

    def _bench(self, *arguments: str) -> list[str]:
        given = self._options
        sizes = ["--payments", str(given.payments), "--seconds", "0"]
        return ["payments", "--broker", given.broker, *sizes, *arguments]


def main(arguments: Sequence[str]) -> int:
    """Measure; answers 0, or 1 where the storm found something wrong or a part could not be measured."""
    options = _parse(arguments)
    commands = Commands()
    measurement = Measurement(options, commands)
    found: dict[str, Any] = {}
    failed = False
    for name, part in measurement.parts.items():
        if name not in options.only:
            continue
        try:
            found[name] = part()
            failed |= bool(found[name].get("failures"))
        except AssertionError as error:
            found[name] = {"error": str(error)}
            failed = True
    line = json.dumps({**found, **_surroundings(arguments, commands.done)})
    sys.stdout.write(f"{table(found)}\n\n{line}\n")
    return int(failed)


def table(found: Mapping[str, Figures]) -> str:
    """The figures as a table in Markdown; a part that is absent has no rows."""
    rows = [("what", "figure")]
    for name, title in (("embedded", "embedded log"), ("kafka", "Kafka")):
        if one := _whole(found, name, rows):
            rows += [
                (f"{title}: kills, payments", f"{one['kills']:,}, {one['payments']:,}"),
                (f"{title}: missing", f"{one['missing']}"),
                (f"{title}: doubled in state", f"{one['doubled_in_state']}"),
                (
                    f"{title}: doubled in output, with other bytes",
                    f"{one['doubled_in_output']}, {one['repeats_with_other_bytes']}",
                ),
                (f"{title}: longest pause after a kill", f"{one['longest_pause_s']} s"),
            ]
    if one := _whole(found, "rebalances", rows):
        happened = ", ".join(
            f"{count} {event}" for event, count in one["events"].items() if event != "nothing"
        )
        pauses = ", ".join(f"{event} {seconds} s" for event, seconds in one["longest_pauses_s"].items())
        rows += [
            (f"{PARTITIONS} partitions, payments", f"{one['payments']:,} at {one['rate']:,}/s"),
            ("rebalances", happened),
            ("rebalances: missing", f"{one['missing']}"),
            (
                "rebalances: doubled in state, in output",
                f"{one['doubled_in_state']}, {one['doubled_in_output']}",
            ),
            ("longest pause after a rebalance", f"{one['longest_pause_s']} s ({pauses})"),
        ]
    if one := _whole(found, "state", rows):
        events = f"{one['events']:,.0f} events, {one['state_mb']:,} MB of state"
        rows += [
            (f"pause after a kill, {events} on disk", f"{one['pause_with_state_s']} s"),
            ("pause with the state gone, from the changelog", f"{one['pause_from_changelog_s']} s"),
            (
                "restore from the changelog",
                f"{one['restore_rows_per_s']:,} rows/s, {one['restore_events_per_s']:,} events/s",
            ),
        ]
    if one := _whole(found, "workers", rows):
        rows += [
            (
                f"{PARTITIONS} partitions: one worker, two workers",
                f"{one['one']['payments_per_second']:,.0f}/s, {one['two']['payments_per_second']:,.0f}/s",
            ),
            ("two workers against one", f"{one['times']} times (goal: {GOAL})"),
            (
                "the broker's share of processor time, one worker, two",
                f"{one.get('broker_share_one', '?')}, {one.get('broker_share_two', '?')}",
            ),
        ]
    for name in ("changelog", "transactions"):
        if one := _whole(found, name, rows):
            rows.append(
                (
                    f"{name}: throughput, the worker's processor time per payment",
                    f"{one['throughput_percent']:+.0f} %, {one['processor_percent']:+.0f} %",
                )
            )
    lines = [f"| {what} | {figure} |" for what, figure in rows]
    return "\n".join([lines[0], "|---|---|", *lines[1:]])


def _whole(found: Mapping[str, Figures], name: str, rows: list[tuple[str, str]]) -> Figures | None:
    """The figures of a part; one that failed has a row that says so."""
    one = found.get(name)
    if one is None:
        return None
    wrong = one.get("error")
    if wrong is None and one.get("failures") and one.get("missing") is None:
        wrong = "the torture did not come to its end; run it by itself to see why"
    if wrong is None:
        return one
    rows.append((name, "not measured: " + " ".join(wrong.split())[:200]))
    return None


def _percent(after: Figures, before: Figures, name: str) -> float:
    change: float = 100.0 * (after[name] / before[name] - 1.0)
    return round(change, 1)


def _surroundings(arguments: Sequence[str], done: Sequence[str]) -> Figures:
    packages = ("streamer", "faust-streaming", "aiokafka", "rocksdict", "numba", "numpy", "pyarrow")
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {model[1] if model else platform.processor()}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "command": shlex.join(["scripts/reliability", *arguments]),
        "commands": list(done),
    }


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/reliability", description=__doc__)
    parser.add_argument("--broker", default="kafka://localhost:9092", help="kafka://host:port, on loopback")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a few minutes")
    parser.add_argument("--kills", type=int, help="of each torture (default 200; quick 20)")
    parser.add_argument("--storm", type=int, help="payments of each torture (default 200000; quick 4000)")
    parser.add_argument("--events", type=int, help="of entities, in the state (default 10 million; quick 1)")
    parser.add_argument("--payments", type=int, help="of each benchmark (default 400000; quick 100000)")
    parser.add_argument("--rounds", type=int, help="pairs of each comparison (default 5; quick 1)")
    parser.add_argument("--rebalances", type=int, help="workers added, and removed (default 20; quick 4)")
    names = list(Measurement(argparse.Namespace(), Commands()).parts)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="parts to measure")
    given = parser.parse_args(arguments)
    quick = {
        "rebalances": 4,
        "kills": 20,
        "storm": 4_000,
        "events": 1_000_000,
        "payments": 100_000,
        "rounds": 1,
    }
    full = {
        "rebalances": 20,
        "kills": 200,
        "storm": 200_000,
        "events": 10_000_000,
        "payments": 400_000,
        "rounds": 5,
    }
    for name, size in (quick if given.quick else full).items():
        if getattr(given, name) is None:
            setattr(given, name, size)
    return given
