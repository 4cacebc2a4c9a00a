"""The broker goes and comes back, the worker sleeps past its session: nothing is lost or counted twice."""

import signal
import time
from pathlib import Path

import pytest

from .conftest import OUTPUTS, MakeBroker, MakeRun, command
from .logs import KafkaPlace, Sent
from .test_mixture import unnamed
from .worker import environment, running

SESSION_S = 6.0
DOWN_S = 3.0


@pytest.mark.kafka
def test_broker_stopped_and_worker_asleep(
    make_broker: MakeBroker, make_run: MakeRun, sent: list[Sent], tmp_path: Path
) -> None:
    """The worker goes on by itself; its answers are those of a worker that nothing disturbed."""
    broker = make_broker()
    place = KafkaPlace(broker.server, "own-")
    third = len(sent) // 3
    env = environment(place.prefix, KAFKA_SESSION_TIMEOUT_MS=str(int(SESSION_S * 1000)))
    with place.topics():
        place.send(sent[:third])
        with running(command(place, tmp_path / "state"), env, tmp_path / "stderr") as worker:
            worker.wait_taken(third)
            broker.stop()
            time.sleep(DOWN_S)
            broker.start()
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
