"""A worker killed with SIGKILL leaves no payment without an answer, and none with two."""

from pathlib import Path

from .conftest import OUTPUTS, MakePlace, MakeRun, command
from .logs import Sent
from .test_mixture import unnamed
from .worker import environment, running

KILLS = 2


def test_killed_and_started_again(
    kind: str, make_place: MakePlace, make_run: MakeRun, sent: list[Sent], tmp_path: Path
) -> None:
    """After two kills the answers are, in number and bytes, those of a worker that was never killed."""
    place = make_place(kind)
    place.send(sent)
    state = tmp_path / "state"
    slow = environment(place.prefix, BUFFERS_BATCH_MAX_RECORDS="2")
    # A group of its own each time: Kafka would keep a dead member's partitions until its session ends, and
    # where to go on is told by the state alone.
    for number in range(KILLS):
        with running(command(place, state, f"killed-{number}"), slow, tmp_path / "killed") as worker:
            worker.wait_taken(len(sent) // 5)
            worker.kill()
    with running(command(place, state, "last"), environment(place.prefix), tmp_path / "last") as worker:
        worker.wait_caught_up(place.prefix)
        assert worker.stop() == 0
    undisturbed = make_run(kind)
    for topic in OUTPUTS:
        found = [unnamed(got, place.prefix) for got in place.read(topic)]
        wanted = [unnamed(got, undisturbed.place.prefix) for got in undisturbed.answers[topic]]
        assert sorted(wanted) == sorted(found), topic
