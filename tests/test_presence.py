"""A topic that is gone is told from one of which nothing is known at the moment."""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from streamer.errors import StateError, StreamerError
from streamer.presence import LOOKS, Presence, Watch

TOPICS = ("payments", "outcomes")


class Cluster:
    """What brokers say: topics that are missing, ids of the others; or nothing at all."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.ids = {topic: f"id of {topic}" for topic in TOPICS}
        self.answers = True
        self.closed = 0

    def missing(self, topics: Sequence[str]) -> Collection[str]:
        """Those that are gone."""
        if not self.answers:
            raise StreamerError("nobody answers")
        return self.gone.intersection(topics)

    def identities(self, topics: Sequence[str]) -> Mapping[str, str]:
        """Of those that are there."""
        return {topic: self.ids[topic] for topic in topics if topic in self.ids and topic not in self.gone}

    def close(self) -> None:
        """Count it."""
        self.closed += 1


def looks(presence: Presence, cluster: Any, count: int) -> list[str]:
    """What so many looks have found."""
    return [str(found) for _ in range(count) if (found := presence.look(cluster)) is not None]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_that_stays_away_was_deleted(topic: str) -> None:
    """Not at the first look: a broker that has just started may not know it yet."""
    presence, cluster = Presence(TOPICS), Cluster()
    assert looks(presence, cluster, 2 * LOOKS) == []
    cluster.gone = {topic}
    assert looks(presence, cluster, LOOKS - 1) == []
    (told,) = looks(presence, cluster, 1)
    assert told.startswith(f"topic {topic} was deleted while it was read")
    assert "start with an empty state directory" in told


def test_a_topic_that_comes_back_was_not_deleted() -> None:
    """Nor was one while nobody could be asked: looks count only in a row."""
    presence, cluster = Presence(TOPICS), Cluster()
    for _ in range(3):
        cluster.gone = {"payments"}
        assert looks(presence, cluster, LOOKS - 1) == []
        cluster.gone = set()
        assert looks(presence, cluster, 1) == []
        cluster.gone = {"payments"}
        assert looks(presence, cluster, LOOKS - 1) == []
        presence.forget()


def test_a_topic_made_anew_is_another() -> None:
    """Its id tells, at the first look; one whose id is not told for a moment is the same."""
    presence, cluster = Presence(TOPICS), Cluster()
    assert looks(presence, cluster, 1) == []
    known = cluster.ids.pop("outcomes")
    assert looks(presence, cluster, 2 * LOOKS) == []
    cluster.ids["outcomes"] = known
    assert looks(presence, cluster, 1) == []
    cluster.ids["outcomes"] = "another"
    (told,) = looks(presence, cluster, 1)
    assert told.startswith("topic outcomes was deleted and created again (it had id id of outcomes")


def test_the_watch_tells_once_and_only_of_what_is_gone() -> None:
    """While nobody answers it connects anew, as often as it takes."""
    cluster = Cluster()
    cluster.answers = False
    told: list[StateError] = []
    asked, heard = threading.Event(), threading.Event()

    def admin() -> Any:
        if cluster.closed == 2 * LOOKS:
            asked.set()
        return cluster

    def on_lost(error: StateError) -> None:
        told.append(error)
        heard.set()

    with Watch(admin, TOPICS, on_lost, every_s=0.001):
        assert asked.wait(30)
        assert told == []
        cluster.gone = {"payments"}
        cluster.answers = True
        assert heard.wait(30)
    assert [str(error).partition(" was")[0] for error in told] == ["topic payments"]
