"""Wrong surroundings: one clear line with the remedy, exit status 2, and no traceback."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.state.store import Progress, Store, WriteSet

from . import topology as tested
from .conftest import MakePlace, command
from .logs import KafkaPlace
from .worker import environment, running

BROKEN = """
from streamer import Entity, Model, Policy, Topology, amount, card, count
from river import linear_model

cards = Entity("card", features=[count("1h")])
fraud = Model("fraud", inputs=[cards], learner=linear_model.LogisticRegression())
policy = Policy("default", version=0)
topology = Topology("broken", models=[fraud], policy=policy)
"""


def refused(arguments: list[str], prefix: str = "", **settings: str) -> str:
    """Run a command that has to refuse; answers its line on stderr."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "streamer", *arguments],
        env=environment(prefix, **settings),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    """The line names the address and how to start a broker."""
    line = refused(
        ["run", tested.__file__, "--broker", "kafka://localhost:1", "--state", str(tmp_path / "state")]
    )
    assert "localhost:1" in line
    assert "scripts/kafka start" in line


@pytest.mark.parametrize("url", ["kafka://localhost", "log://", "redis://here"])
def test_a_wrong_url(url: str, tmp_path: Path) -> None:
    """The line shows the URL and both right forms."""
    line = refused(["run", tested.__file__, "--broker", url, "--state", str(tmp_path / "state")])
    assert repr(url) in line
    assert "kafka://host:port[,host:port] or log://DIR" in line


def test_a_topology_with_an_error(tmp_path: Path) -> None:
    """The line names the file and the line in it."""
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    line = refused(
        ["run", str(file), "--broker", f"log://{tmp_path}/log", "--state", str(tmp_path / "state")]
    )
    assert f"{file}:7:" in line
    assert "expected a version of 1 or more, got 0" in line


def test_a_topology_that_is_no_python(tmp_path: Path) -> None:
    """A syntax error is one line that names the place too."""
    file = tmp_path / "broken.py"
    file.write_text("topology = (\n")
    line = refused(
        ["run", str(file), "--broker", f"log://{tmp_path}/log", "--state", str(tmp_path / "state")]
    )
    assert f"{file}:1:" in line


def test_a_topology_that_is_not_there(tmp_path: Path) -> None:
    """The line names the path."""
    file = tmp_path / "absent.py"
    line = refused(
        ["run", str(file), "--broker", f"log://{tmp_path}/log", "--state", str(tmp_path / "state")]
    )
    assert str(file) in line


def test_an_unknown_setting(tmp_path: Path) -> None:
    """A misspelt variable is refused, and the likely name proposed."""
    arguments = [
        "run",
        tested.__file__,
        "--broker",
        f"log://{tmp_path}/log",
        "--state",
        str(tmp_path / "state"),
    ]
    line = refused(arguments, EVENTS_DEDUP_WINDOWS="1d")
    assert "did you mean `STREAMER_EVENTS_DEDUP_WINDOW`?" in line


def test_a_missing_option() -> None:
    """A command without its broker is wrong usage."""
    assert "--broker" in refused(["run", tested.__file__])


def test_state_and_log_in_use(make_place: MakePlace, tmp_path: Path) -> None:
    """A second worker on a log or on a state directory that another one holds is refused."""
    place, other = make_place("log"), make_place("log")
    with running(
        command(place, tmp_path / "state"), environment(place.prefix), tmp_path / "stderr"
    ) as worker:
        worker.wait_caught_up(place.prefix)
        held = refused(command(place, tmp_path / "mine"), place.prefix)
        assert place.url.removeprefix("log://") in held
        held = refused(command(other, tmp_path / "state"), other.prefix)
        assert str(tmp_path / "state") in held


def test_a_damaged_state(make_place: MakePlace, tmp_path: Path) -> None:
    """The line says what is broken and what to do; also where RocksDB itself would not have noticed."""
    state = tmp_path / "state"
    with Store.open(state) as store:
        for number in range(1, 4):
            store.commit(WriteSet(Progress(commits=number)))
        store.sync()
        shutil.copytree(state, tmp_path / "copy")
    (log,) = (tmp_path / "copy").glob("*.log")
    data = log.read_bytes()
    log.write_bytes(data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])
    line = refused(command(make_place("log"), tmp_path / "copy"))
    assert f"The state directory {tmp_path}/copy is damaged: commits up to number 3 had been forced" in line
    assert "the last one left is 2" in line
    assert "restore it from a copy, or move it away: a new one is rebuilt by replay" in line


@pytest.mark.kafka
def test_missing_topics(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """The line names the topics that have to be there; nothing is created."""
    place = KafkaPlace(broker, topic_prefix)
    line = refused(command(place, tmp_path / "state"), topic_prefix)
    assert f"{topic_prefix}payments" in line
    assert f"{topic_prefix}outcomes" in line
    assert place.read("decisions") == []
    assert not (tmp_path / "state").exists()
