"""The table of `scripts/reliability`: what it shows of which figures, and of a part that failed."""

from typing import Any

from tests.reliability.command import table


def test_the_table_names_each_figure_with_its_unit() -> None:
    """Counts as they are, speeds with thousands, changes with their sign."""
    storm = {
        "kills": 20,
        "payments": 4_000,
        "missing": 0,
        "doubled_in_state": 1,
        "doubled_in_output": 2,
        "repeats_with_other_bytes": 3,
        "longest_pause_s": 2.5,
    }
    rebalances = {
        "events": {"nothing": 1, "add": 4, "stop": 2},
        "payments": 16_000,
        "rate": 300,
        "missing": 0,
        "doubled_in_state": 1,
        "doubled_in_output": 2,
        "longest_pause_s": 2.5,
        "longest_pauses_s": {"add": 1.5, "stop": 2.5},
    }
    workers = {
        "one": {"payments_per_second": 8_000.0},
        "two": {"payments_per_second": 12_000.0},
        "times": 1.5,
        "broker_share_one": 0.2,
    }
    changelog = {"throughput_percent": -12.4, "processor_percent": 9.6}
    found: dict[str, dict[str, Any]] = {
        "embedded": storm,
        "rebalances": rebalances,
        "workers": workers,
        "changelog": changelog,
    }
    assert table(found).splitlines() == [
        "| what | figure |",
        "|---|---|",
        "| embedded log: kills, payments | 20, 4,000 |",
        "| embedded log: missing | 0 |",
        "| embedded log: doubled in state | 1 |",
        "| embedded log: doubled in output, with other bytes | 2, 3 |",
        "| embedded log: longest pause after a kill | 2.5 s |",
        "| 8 partitions, payments | 16,000 at 300/s |",
        "| rebalances | 4 add, 2 stop |",
        "| rebalances: missing | 0 |",
        "| rebalances: doubled in state, in output | 1, 2 |",
        "| longest pause after a rebalance | 2.5 s (add 1.5 s, stop 2.5 s) |",
        "| 8 partitions: one worker, two workers | 8,000/s, 12,000/s |",
        "| two workers against one | 1.5 times (goal: 1.6) |",
        "| the broker's share of processor time, one worker, two | 0.2, ? |",
        "| changelog: throughput, the worker's processor time per payment | -12 %, +10 % |",
    ]


def test_a_part_that_failed_is_told_and_the_others_stay() -> None:
    """In one row, on one line."""
    ended = {"missing": None, "failures": 1}
    found = {"state": {"error": "expected a worker\nat work"}, "kafka": {"error": "no broker"}}
    shown = table(found | {"embedded": ended})
    assert shown.splitlines()[2:] == [
        "| embedded | not measured: the torture did not come to its end; run it by itself to see why |",
        "| kafka | not measured: no broker |",
        "| state | not measured: expected a worker at work |",
    ]
