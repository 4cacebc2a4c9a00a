"""What an entity takes."""

import pytest

from streamer.features.aggregates import Aggregate, count, distinct, maximum, since_last, std
from streamer.features.declarations import Entity
from streamer.features.fields import amount, attempt, merchant
from streamer.features.footprint import footprint_of
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event


@pytest.mark.parametrize(
    "aggregates",
    [
        [count("1h")],
        [std(amount, "1h", "1d"), maximum(amount, "1d")],
        [distinct(merchant, "1d"), since_last()],
    ],
)
def test_it_is_what_a_table_counts(aggregates: list[Aggregate]) -> None:
    """Keys of short names with one event each, and one key with one event more than come at a time."""
    entity = Entity("card", features=aggregates)
    taken = footprint_of(entity, 0)

    def memory(cards: list[str]) -> int:
        features = Features([entity], memory_budget=1 << 20, allowed_lateness=0, blocks=Blocks())
        events = [Event(n, fields={"card": card, "merchant": "m"}) for n, card in enumerate(cards)]
        features.update(Batch(events))
        return features.memory

    chunk = taken.event_bytes * taken.chunk_events
    assert memory(["a", "b", "c"]) == 3 * (taken.key_bytes + chunk)
    assert memory(["a"] * (taken.chunk_events + 1)) == taken.key_bytes + 2 * chunk


def test_kept_fields_and_retention() -> None:
    """Each field that a feature or a condition names, once; the longest window, its delay, the lateness."""
    entity = Entity(
        "card",
        features=[
            count("1h", where=attempt > 1, name="card_retries"),
            std(amount, "1h", delay="1h"),
            maximum(amount, "1h"),
        ],
    )
    taken = footprint_of(entity, 500)
    assert [column.name for column in taken.kept] == ["attempt", "amount"]
    assert taken.retention == 2 * 3_600_000 + 500
