"""The real command as a process of its own, watched through its exit status, its stderr and its /metrics."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

DEADLINE_S = 100.0
POLL_S = 0.01
ADDRESS = re.compile(r"metrics and health at (\S+)")
SAMPLE = re.compile(r"^(\w+)(\{.*\})? (\S+)$", re.MULTILINE)


def environment(prefix: str, **settings: str) -> dict[str, str]:
    """The environment of a worker: ours without settings, then those given, such as `WEB_PORT`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    chosen = {"TOPICS_PREFIX": prefix, "WEB_PORT": "0"} | settings
    return clean | {f"STREAMER_{name}": value for name, value in chosen.items()}


class Worker:
    """A running `streamer run`."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as stream:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "streamer", *arguments],
                env=env,
                stderr=stream,
                stdout=subprocess.DEVNULL,
            )

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._errors.read_text()

    @property
    def heeds_signals(self) -> bool:
        """Whether it is so far that SIGTERM lets it end as it should."""
        return ADDRESS.search(self.stderr) is not None

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of a metric's samples with these labels, `None` where there is none yet."""
        address = ADDRESS.search(self.stderr)
        if address is None:
            return None
        try:
            with urllib.request.urlopen(f"{address[1]}/metrics", timeout=5) as page:  # noqa: S310 - loopback
                text = page.read().decode()
        except (OSError, HTTPException):  # not there yet, or just killed
            return None
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [
            float(value)
            for sample, given, value in SAMPLE.findall(text)
            if sample == name and all(each in given for each in wanted)
        ]
        return sum(found) if found else None

    @property
    def taken(self) -> float:
        """How many payment records it has taken in."""
        return self.metric("streamer_payments_total") or 0.0

    def wait_taken(self, payments: int) -> None:
        """Wait until it has taken in so many payment records."""
        self.wait_for(lambda: self.taken >= payments)

    def wait_caught_up(self, prefix: str) -> None:
        """Wait until every payment record that is there has been answered."""
        self.wait_for(lambda: self.metric("streamer_lag_records", topic=f"{prefix}payments") == 0.0)

    def stop(self) -> int:
        """Ask it to stop with SIGTERM; answers its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def wait_for(self, condition: Callable[[], bool], progress: Callable[[], object] = lambda: None) -> None:
        """Wait until something holds; raises AssertionError for a worker that ends, or takes too long.

        It may take as long as it likes while what `progress` answers changes.
        """
        deadline, before = time.monotonic() + DEADLINE_S, progress()
        while not condition():
            if (now := progress()) != before:
                deadline, before = time.monotonic() + DEADLINE_S, now
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"expected a worker at work, got exit status {self.process.returncode}: {self.stderr}"
                )
            time.sleep(POLL_S)


@contextmanager
def running(arguments: Sequence[str], env: Mapping[str, str], errors: Path) -> Iterator[Worker]:
    """Run `streamer ARGUMENTS` until the block ends, whatever ends it."""
    worker = Worker(arguments, env, errors)
    try:
        yield worker
    finally:
        worker.kill()
