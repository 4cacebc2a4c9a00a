"""A broker of a test's own: one that it stops and starts, or that has other properties."""

import random
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from .worker import DEADLINE_S

SCRIPT = Path(__file__).parents[2] / "scripts" / "kafka"


def _free_port() -> int:
    """One whose neighbour, which the controller takes, is free too; below those that clients are given."""
    taken = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(taken.read_text().split()[0]) if taken.exists() else 32_768
    draws = random.SystemRandom()  # two brokers must not draw alike: one that is stopped keeps its port
    while True:
        port = draws.randrange(first // 2, first - 1)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("localhost", port))
                other.bind(("localhost", port + 1))
            except OSError:
                continue
        return port


class OwnBroker:
    """A broker in a directory, on a free port, with `properties` such as `num.partitions=3`."""

    def __init__(self, directory: Path, *properties: str) -> None:
        cached = Path("~/.m2/repository/org/apache/kafka").expanduser()
        if not (shutil.which("java") and shutil.which("mvn") and cached.exists()):
            pytest.skip(
                "a broker of its own needs Java, and Maven with Kafka in its cache; see scripts/kafka"
            )
        self._port = _free_port()
        self._directory = directory
        self._properties = properties
        self.server = f"localhost:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._act("start", str(self._port), *self._properties)

    def stop(self) -> None:
        """Stop it in good order."""
        self._act("stop")

    def _act(self, what: str, *more: str) -> None:
        arguments = [str(SCRIPT), what, str(self._directory), *more]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE_S)  # noqa: S603 - ours
