"""A power cut takes what was not forced onto the disk, of the log or of the state: no answer goes with it."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

from .conftest import OUTPUTS, MakePlace, MakeRun, command
from .logs import EmbeddedPlace, Sent
from .test_mixture import unnamed
from .worker import environment, running

NOTED = """
import json, sys
from streamer.state.log import Log
from streamer.state.store import Store

def noting(sync):
    def synced(self):
        sizes = {file.name: file.stat().st_size for file in self.path.glob("*.log")}
        sync(self)
        with open(f"{self.path}.sizes", "w") as out:
            json.dump(sizes, out)
    return synced

Store._sync, Log.flush = noting(Store._sync), noting(Log.flush)
from streamer.cli import main
sys.argv[0] = "streamer"
main()
"""
"""The command, which notes beside a directory how much of each write-ahead log was forced onto the disk."""

CUTS = ((1.0, 0.0), (0.0, 0.7))
"""The share of what was not forced that the state keeps, and the log."""


def cut_power(directory: Path, kept: float) -> int:
    """Take what was not forced from the write-ahead logs, but a share; answers the bytes that are lost."""
    noted = Path(f"{directory}.sizes")
    sizes = json.loads(noted.read_text()) if noted.exists() else {}
    lost = 0
    for file in directory.glob("*.log"):
        data = file.read_bytes()
        synced = sizes.get(file.name, 0)
        left = synced + int((len(data) - synced) * kept)
        file.write_bytes(data[:left])
        lost += len(data) - left
    return lost


def test_power_is_cut_and_comes_back(
    make_place: MakePlace, make_run: MakeRun, sent: list[Sent], tmp_path: Path
) -> None:
    """Again and again, whatever is lost of log and state: each record is answered, repeats are the same."""
    place = make_place("log")
    assert isinstance(place, EmbeddedPlace)
    place.send(sent)
    draws = random.Random(5)
    for number, (of_state, of_log) in enumerate(CUTS):
        settings = environment(
            place.prefix,
            BUFFERS_BATCH_MAX_RECORDS="4",
            COMMIT_INTERVAL_MS="5",
            COMMIT_FSYNC_INTERVAL_MS="200",
            TESTING_FAULTS=f"commit.written:{draws.randrange(4, 9)}",
        )
        worker = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", NOTED, *command(place, tmp_path / "state", f"cut-{number}")],
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert worker.returncode == -signal.SIGKILL, worker.stderr
        assert (cut_power(tmp_path / "state", of_state) > 0) == (of_state < 1.0)
        assert (cut_power(place.directory, of_log) > 0) == (of_log < 1.0)
    with running(command(place, tmp_path / "state"), environment(place.prefix), tmp_path / "last") as last:
        last.wait_caught_up(place.prefix)
        assert last.stop() == 0
    undisturbed = make_run("log")
    for topic in OUTPUTS:
        found = [unnamed(got, place.prefix) for got in place.read(topic)]
        wanted = [unnamed(got, undisturbed.place.prefix) for got in undisturbed.answers[topic]]
        assert list(dict.fromkeys(wanted)) == list(dict.fromkeys(found)), topic
