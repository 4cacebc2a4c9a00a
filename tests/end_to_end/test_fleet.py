"""Workers that share partitions come, go, die and sleep: nothing is lost or counted twice."""

from pathlib import Path
from typing import Any

import pytest

from tests.torture.fleet import Fleet, FleetPlan, fleet_of, torture_fleet
from tests.torture.fleet_report import fleet_report
from tests.torture.run import TOPICS
from tests.torture.storm import storm

from .logs import KafkaPlace
from .test_surroundings import refused
from .worker import Worker

SEED = 20_261_126

pytestmark = pytest.mark.kafka


def figures_of(plan: FleetPlan, broker: str, prefix: str, directory: Path) -> dict[str, Any]:
    """Torture a fleet; answers the figures once all is as the oracle says."""
    place = KafkaPlace(broker, prefix, TOPICS, plan.partitions)
    with place.topics():
        found = fleet_report(torture_fleet(plan, place, directory), "pytest")
    assert not found.failures, str(found)
    assert found.figures["decisions"] > plan.payments * 0.9
    assert found.figures["snapshots"] > 1
    return dict(found.figures)


def events(*names: str, **more: Any) -> FleetPlan:
    """These events, one after the other, under load."""
    return FleetPlan(len(names) * 300, len(names), SEED, only=names, rate=100, gap_s=(0.5, 2.0), **more)


def test_workers_come_go_die_and_sleep(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """Partitions go on elsewhere, from the changelog; who slept past its session replaces nothing.

    What such a worker still sends is a repeat that its source position tells.
    """
    plan = events("pause", "add", "kill_for_good", "add", "stop")
    figures = figures_of(plan, broker, topic_prefix, tmp_path)
    assert figures["events"].keys() >= {"pause", "add", "kill_for_good"}


def test_transactions_answer_once_over_kills(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """A reader of finished transactions sees each answer once; at rest there is a lag of 0."""
    plan = events("kill", "empty", guarantee="transactions")
    assert figures_of(plan, broker, topic_prefix, tmp_path)["doubled_in_output"] == 0


def test_a_standby_has_read_nearly_everything_before(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """Who kept a copy of a shard reads a few rows when it takes it over, not all of them."""
    plan = FleetPlan(2_000, 0, SEED, partitions=2, standbys=1)
    place = KafkaPlace(broker, topic_prefix, TOPICS, plan.partitions)
    with place.topics(), fleet_of(plan, place, tmp_path) as fleet:
        fleet.wait_for(lambda: all(len(_owned(fleet, name)) == 1 for name in fleet.workers), "a share each")
        place.spread(storm(plan.payments, SEED).payments)
        fleet.wait_for(lambda: _taken(fleet) >= plan.payments and fleet.lag() == 0.0, "all answers")
        name, (dead,) = "worker-0", _owned(fleet, "worker-0")
        other = fleet.workers["worker-1"]
        fleet.wait_for(lambda: _restored(other, dead) > plan.payments, "a copy")
        fleet.wait_for(lambda: other.metric("streamer_restore_left_rows", shard=dead) == 0.0, "a copy")
        fleet.kill(name)
        place.spread(storm(100, SEED + 1).payments)
        fleet.wait_for(lambda: len(_owned(fleet, "worker-1")) == 2, "a takeover")
        assert _restored(other, dead) < plan.payments / 2


def test_a_worker_that_is_added_reads_a_state_before_it_has_to_answer(
    broker: str, topic_prefix: str, tmp_path: Path
) -> None:
    """It has read all but a few rows, as a copy, when it is given its shard."""
    plan = FleetPlan(2_000, 0, SEED, partitions=2, workers=1)
    place = KafkaPlace(broker, topic_prefix, TOPICS, plan.partitions)
    with place.topics(), fleet_of(plan, place, tmp_path) as fleet:
        place.spread(storm(plan.payments, SEED).payments)
        fleet.wait_for(lambda: _taken(fleet) >= plan.payments and fleet.lag() == 0.0, "all answers")
        name = fleet.add()
        fleet.wait_for(lambda: len(_owned(fleet, name)) == 1, "a share")
        (shard,) = _owned(fleet, name)
        assert _restored(fleet.workers[name], shard) < plan.payments / 2
        fleet.wait_for(lambda: len(_owned(fleet, "worker-0")) == 1, "the other share")


def test_outcomes_of_another_number_of_partitions(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """The line tells the partitions of both topics and what to do; the worker does not start."""
    payments = KafkaPlace(broker, topic_prefix, ("payments",), 4)
    outcomes = KafkaPlace(broker, topic_prefix, ("outcomes",), 2)
    with payments.topics(), outcomes.topics():
        line = refused(["run", "--broker", payments.url, "--state", str(tmp_path / "state")], topic_prefix)
    assert f"{topic_prefix}payments 4" in line
    assert f"{topic_prefix}outcomes 2" in line
    assert "create" in line


def _taken(fleet: Fleet) -> float:
    return sum(worker.taken for worker in fleet.all)


def _owned(fleet: Fleet, name: str) -> set[str]:
    """The shards that a worker decides: those whose payments it tells the lag of."""
    return {
        shard
        for shard in map(str, range(2))
        if fleet.workers[name].metric("streamer_lag_records", partition=shard) is not None
    }


def _restored(worker: Worker, shard: str) -> float:
    return worker.metric("streamer_restore_rows", shard=shard) or 0.0
