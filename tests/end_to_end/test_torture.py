"""The short form of `scripts/torture`: a worker killed at every named point under the storm, on both logs."""

from pathlib import Path

import pytest

from streamer.faults import POINTS
from tests.torture.report import report
from tests.torture.run import TOPICS, Plan, torture

from .logs import EmbeddedPlace, KafkaPlace

SEED = 20_261_126


def test_killed_at_every_point_on_the_embedded_log(tmp_path: Path) -> None:
    """Nothing is missing or counted twice, and all is as the oracle says, after a kill at each point."""
    plan = Plan(payments=2_400, kills=len(POINTS) + 1, seed=SEED)
    place = EmbeddedPlace(tmp_path / "log", "")
    found = report(torture(plan, place, tmp_path), "pytest", most_repeats=0)
    assert not found.failures, str(found)
    assert found.figures["kills"] == plan.kills
    assert found.figures["killed_elsewhere"] == []
    assert found.figures["decisions"] > plan.payments * 0.9
    assert found.figures["snapshots"] > 1


@pytest.mark.kafka
def test_killed_on_kafka(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """The same on Kafka, where a new worker of the group has to wait until the dead one's session ends."""
    plan = Plan(payments=1_200, kills=5, seed=4, points="random")  # one point of each kind
    place = KafkaPlace(broker, topic_prefix, TOPICS)
    with place.topics():
        found = report(torture(plan, place, tmp_path), "pytest", most_repeats=0)
    assert not found.failures, str(found)
    assert found.figures["kills"] == plan.kills
