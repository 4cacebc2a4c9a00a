"""The broker goes and comes back, the worker sleeps past its session: nothing is lost or counted twice."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import OUTPUTS, MakeRun, command
from .logs import KafkaPlace, Sent
from .test_mixture import unnamed
from .worker import DEADLINE_S, environment, running

SCRIPT = Path(__file__).parents[2] / "scripts" / "kafka"
SESSION_S = 6.0
DOWN_S = 3.0


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A broker of this test's own: its address, and what starts or stops it."""
    cached = Path("~/.m2/repository/org/apache/kafka").expanduser()
    if not (shutil.which("java") and shutil.which("mvn") and cached.exists()):
        pytest.skip("a broker to stop needs Java, and Maven with Kafka in its cache; see scripts/kafka")
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]

    def act(what: str) -> None:
        arguments = [str(SCRIPT), what, str(tmp_path / "kafka"), str(port)]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE_S)  # noqa: S603 - ours

    act("start")
    try:
        yield f"localhost:{port}", act
    finally:
        act("stop")


@pytest.mark.kafka
def test_broker_stopped_and_worker_asleep(
    own_broker: tuple[str, Callable[[str], None]], make_run: MakeRun, sent: list[Sent], tmp_path: Path
) -> None:
    """The worker goes on by itself; its answers are those of a worker that nothing disturbed."""
    server, act = own_broker
    place = KafkaPlace(server, "own-")
    third = len(sent) // 3
    env = environment(place.prefix, KAFKA_SESSION_TIMEOUT_MS=str(int(SESSION_S * 1000)))
    with place.topics():
        place.send(sent[:third])
        with running(command(place, tmp_path / "state"), env, tmp_path / "stderr") as worker:
            worker.wait_taken(third)
            act("stop")
            time.sleep(DOWN_S)
            act("start")
            place.send(sent[third : 2 * third])
            worker.wait_taken(2 * third)
            worker.process.send_signal(signal.SIGSTOP)
            place.send(sent[2 * third :])
            time.sleep(SESSION_S + 2.0)
            worker.process.send_signal(signal.SIGCONT)
            worker.wait_taken(len(sent))
            assert worker.stop() == 0, worker.stderr
        answers = {topic: place.read(topic) for topic in OUTPUTS}
    undisturbed = make_run("log")
    for topic in OUTPUTS:
        found = [unnamed(got, place.prefix) for got in answers[topic]]
        wanted = [unnamed(got, undisturbed.place.prefix) for got in undisturbed.answers[topic]]
        assert list(dict.fromkeys(wanted)) == list(dict.fromkeys(found)), topic
