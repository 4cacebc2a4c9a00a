"""Named points of a worker's work at which a test may kill, fail or delay it; without a test, nothing."""

import logging
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamer.errors import ConfigError, StreamerError

log = logging.getLogger(__name__)

POINTS: Mapping[str, str] = {
    "answer.decided": "a batch is decided, nothing of it is sent",
    "answer.sent": "the answers of a batch are handed over, perhaps not yet delivered",
    "commit.cut": "a commit has its rows, deliveries are not confirmed",
    "commit.confirmed": "everything the commit covers is delivered, nothing is stored",
    "commit.logged": "the commit is in the changelog, not in the store",
    "commit.written": "the commit is in the store, not forced onto the disk",
    "commit.synced": "the commit is on the disk",
    "commit.group": "the group's offsets are committed",
    "take_in.cut": "outcomes and snapshots are in the engine, not in the store",
    "take_in.written": "outcomes and snapshots are in the store, not in the journal",
    "take_in.models": "the snapshots are published, the journal entry is not",
    "take_in.journaled": "the journal entry is published",
    "start.opened": "the state is open, nothing is read yet",
    "start.recalled": "what was published before is known, nothing is decided yet",
    "stop.begun": "the worker was told to stop, the last commit is not begun",
}
"""Every point, and what is true when it is reached."""

_ACTION = re.compile(
    r"(?P<point>[a-z_.]+|\*)(:(?P<nth>\d+))?(:(?P<action>kill|fail|exit|sleep(?P<seconds>[0-9.]+)|"
    r"chance(?P<chance>[0-9.]+)))?"
)
EXPECTED = "point[:nth][:kill|fail|exit|sleepSECONDS|chanceP], separated by commas"


@dataclass(slots=True)
class Fault:
    """What happens at the `nth` time that `point` (or any: `*`) is reached, and never again."""

    point: str
    nth: int
    act: Callable[[str], None]

    def reach(self, point: str) -> None:
        """Count this visit and act on the nth."""
        if self.point in {point, "*"} and self.nth > 0:
            self.nth -= 1
            if self.nth == 0:
                self.act(point)


_armed: list[Fault] = []


def reach(point: str) -> None:
    """Pass a point of `POINTS`."""
    for fault in _armed:
        fault.reach(point)


def arm(plan: str) -> None:
    """Set faults from their text, instead of those set before; raises `ConfigError` for one that is none.

    `commit.written:3` kills the process (SIGKILL) the third time the point is reached. `fail` raises there,
    `exit` ends the process at once with status 70, `sleep0.3` holds everything up for 0.3 s. `chance0.01`
    kills at each visit with that chance, drawn anew in each process.
    """
    _armed[:] = [_fault(text.strip()) for text in plan.split(",") if text.strip()]
    if _armed:
        log.warning("faults armed for a test: %s", plan)


def _fault(text: str) -> Fault:
    found = _ACTION.fullmatch(text)
    if found is None or found["point"] not in {*POINTS, "*"}:
        raise ConfigError(
            f"Expected faults as {EXPECTED}, got {text!r}; the points are {', '.join(POINTS)}, or * for any"
        )
    nth = int(found["nth"] or 1)
    if found["chance"] is not None:
        return _Chance(found["point"], float(found["chance"]))
    return Fault(found["point"], nth, _act(found["action"] or "kill", found["seconds"]))


class _Chance(Fault):
    def __init__(self, point: str, chance: float) -> None:
        super().__init__(point, 1, _kill)
        self._chance = chance
        self._draws = random.SystemRandom()

    def reach(self, point: str) -> None:
        if self.point in {point, "*"} and self._draws.random() < self._chance:
            self.act(point)


def _act(action: str, seconds: str | None) -> Callable[[str], None]:
    if seconds is not None:
        wait = float(seconds)
        return lambda _: time.sleep(wait)
    return {"kill": _kill, "fail": _fail, "exit": _exit}[action]


def _kill(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(_: str) -> None:
    os._exit(70)


def _fail(point: str) -> None:
    raise StreamerError(f"a fault was armed at {point}")
