"""Runs the commands of this repository, each as a process of its own, and reads the JSON of its last line."""

import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
Figures = Mapping[str, Any]


@dataclass
class Commands:
    """Runs commands one after the other; `done` are those that ran, as a user would type them."""

    done: list[str] = field(default_factory=list)

    def torture(self, *arguments: str) -> Figures:
        """Run `scripts/torture`; its figures also where it found something wrong."""
        return self._run([str(ROOT / "scripts" / "torture"), *arguments], "scripts/torture", {0, 1})

    def bench(self, *arguments: str) -> Figures:
        """Run `streamer bench`."""
        return self._run(["-m", "streamer", "bench", *arguments], "streamer bench", {0})

    def _run(self, command: Sequence[str], name: str, statuses: set[int]) -> Figures:
        arguments = command[1:] if name.startswith("scripts") else command[3:]
        shown = shlex.join([*name.split(), *arguments])
        sys.stderr.write(f"$ {shown}\n")
        ended = subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if ended.returncode not in statuses or not ended.stdout.strip():
            raise AssertionError(f"{shown} ended with status {ended.returncode}: {ended.stderr[-2_000:]}")
        if shown not in self.done:
            self.done.append(shown)
        found: Figures = json.loads(ended.stdout.splitlines()[-1])
        return found

    def pairs(self, one: Sequence[str], other: Sequence[str], rounds: int) -> tuple[Figures, Figures]:
        """Run `streamer bench` with these arguments in turn, the order changing: each one's medians."""
        found: tuple[list[Figures], list[Figures]] = [], []
        for number in range(rounds):
            for place in (0, 1) if number % 2 == 0 else (1, 0):
                found[place].append(self.bench(*(one, other)[place]))
        return _medians(found[0]), _medians(found[1])


def _medians(runs: Sequence[Figures]) -> Figures:
    names = ("payments_per_second", "cpu_us_per_payment", "broker_cpu_us_per_payment", "load_average")
    return {
        name: round(statistics.median(run[name] for run in runs), 2)
        for name in names
        if all(name in run for run in runs)
    }
