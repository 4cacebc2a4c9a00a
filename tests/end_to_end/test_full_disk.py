"""A disk that is full stops the worker with one line; with room again it goes on and no answer is missing."""

import subprocess
import sys
from pathlib import Path

from .conftest import OUTPUTS, MakePlace, MakeRun, command
from .logs import Sent
from .test_mixture import unnamed
from .worker import environment, running

BLOCKS = 200
"""The size of a file, in blocks of 512 bytes, beyond which nothing can be written: as on a full disk."""


def test_a_full_disk_stops_the_worker(
    kind: str, make_place: MakePlace, make_run: MakeRun, sent: list[Sent], tmp_path: Path
) -> None:
    """Exit status 1 and one line that names the directory and the remedy; nothing is lost."""
    undisturbed = make_run(kind)  # first, so that the kernels are compiled: they are kept on that disk too
    place = make_place(kind)
    place.send(sent)
    arguments = [sys.executable, "-m", "streamer", *command(place, tmp_path / "state", "full")]
    stopped = subprocess.run(  # noqa: S603 - our own command
        ["/bin/sh", "-c", f'ulimit -f {BLOCKS} && exec "$@"', "sh", *arguments],
        env=environment(place.prefix),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert stopped.returncode == 1, stopped.stderr
    assert "Traceback" not in stopped.stderr
    (line,) = [each for each in stopped.stderr.splitlines() if "File too large" in each]
    assert str(tmp_path / "state") in line or place.url.removeprefix("log://") in line
    with running(
        command(place, tmp_path / "state", "room"), environment(place.prefix), tmp_path / "e"
    ) as again:
        again.wait_caught_up(place.prefix)
        assert again.stop() == 0
    for topic in OUTPUTS:
        once = dict.fromkeys(unnamed(got, place.prefix) for got in place.read(topic))
        wanted = dict.fromkeys(unnamed(got, undisturbed.place.prefix) for got in undisturbed.answers[topic])
        assert list(wanted) == list(once), topic
