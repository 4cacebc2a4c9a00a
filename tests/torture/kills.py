"""When a worker is killed: at a named point of its work, or from outside after so many payments."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamer.faults import POINTS
from tests.end_to_end.worker import Worker

OUTSIDE = "outside"
LOOK_S, ASK_S, GRACE_S = 0.002, 0.1, 1.5
MOST_VISITS = {"answer": 12, "commit": 4, "take_in": 2, "start": 1, "stop": 1}

Behind = Callable[[Worker], bool]


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the `count`th visit of a point, or from outside once so many payments were taken in."""

    point: str
    count: int

    @property
    def faults(self) -> str:
        """What the worker is armed with."""
        return "" if self.point == OUTSIDE else f"{self.point}:{self.count}"

    def strike(self, worker: Worker, behind: Behind, segment: int) -> bool:
        """Wait until the worker is dead; answers whether it died where it was meant to.

        A worker that has had nothing left to do for a while is killed from outside. Raises AssertionError
        for a worker that ends in another way.
        """
        if self.point == OUTSIDE or self.point.startswith("stop."):
            enough = self.count if self.point == OUTSIDE else segment // 2
            worker.wait_for(lambda: worker.taken >= enough or not behind(worker))
            worker.process.send_signal(signal.SIGKILL if self.point == OUTSIDE else signal.SIGTERM)
        as_meant = self._wait(worker, behind)
        if worker.process.returncode != -signal.SIGKILL:
            raise AssertionError(
                f"expected a worker killed at {self.point}:{self.count}, got exit status"
                f" {worker.process.returncode}: {worker.stderr}"
            )
        return as_meant

    @staticmethod
    def _wait(worker: Worker, behind: Behind) -> bool:
        asked = busy = time.monotonic()
        while worker.process.poll() is None:
            time.sleep(LOOK_S)
            now = time.monotonic()
            if now - asked < ASK_S:
                continue
            asked, busy = now, now if behind(worker) else busy
            if now - busy > GRACE_S:
                worker.kill()
                return False
        return True


def kills(count: int, segment: int, points: str, draws: random.Random, *, embedded: bool) -> Sequence[Kill]:
    """So many kills: with `all` every named point and one from outside in turn, with `random` any of them."""
    # An embedded log has no changelog.
    known = [point for point in POINTS if not (embedded and point == "commit.logged")] + [OUTSIDE]
    chosen = [known[number % len(known)] for number in range(count)]
    if points == "random":
        chosen = draws.choices(known, k=count)
    return [
        Kill(point, draws.randint(1, MOST_VISITS.get(point.partition(".")[0], max(segment, 1))))
        for point in chosen
    ]
