"""What a worker says when it starts."""

import logging
from pathlib import Path

import pytest

from streamer import amount, total
from streamer.errors import StateError
from streamer.job import Job, check_topics, tell_changes
from streamer.state.store import Progress, Store
from tests.test_declared import topology, written
from tests.test_engine import SETTINGS


def test_changed_declarations_are_told_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line each, once: a start without changes says nothing, also while a new feature fills."""
    before, after = topology(), topology(total(amount, "1d"))

    def told(number: int) -> list[str]:
        caplog.clear()
        with Store.open(tmp_path) as store, caplog.at_level(logging.WARNING):
            tell_changes(Job(after, "log://x", tmp_path, "g", SETTINGS), store)
        written(tmp_path, after, number)
        return caplog.messages

    written(tmp_path, before, 1)
    feature, model = told(2)
    assert feature == (
        "feature card_sum_amount_1d: new, starts without amount, which entity card keeps from"
        " 2023-11-14T22:14:20Z on; right for payments from 2023-11-15T22:14:20Z on (in 1d)"
    )
    assert model == "model fraud: its inputs changed: forgets what it has learned"
    assert told(3) == []


def test_a_topic_made_anew_is_refused() -> None:
    """Not one of which nothing was read, and not where the broker tells no ids; later ones are noted."""
    read = Progress(positions={"payments": {0: 7}}, topics={"payments": "a", "outcomes": "b"})
    assert check_topics(read, {"payments": "a", "outcomes": "c", "stages.card": "d"}) == {
        "payments": "a",
        "outcomes": "c",
        "stages.card": "d",
    }
    assert check_topics(read, {}) == read.topics
    with pytest.raises(StateError, match=r"topic payments was deleted and created again .* id a.* z now"):
        check_topics(read, {"payments": "z"})
