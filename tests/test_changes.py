"""What changed declarations do to stored state: what is said, and that it is true."""

import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model

from streamer import (
    Entity,
    Model,
    Policy,
    Topology,
    amount,
    attempt,
    count,
    distinct,
    merchant,
    number,
    total,
)
from streamer.changes import Change, Declared, compare, declare
from streamer.errors import StateError
from streamer.features.aggregates import Aggregate
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event, Oracle

DAY = 86_400_000
CLOCK = 1_704_067_200_000
"""2024-01-01T00:00:00Z."""

GONE = "removed; its events stay on disk, unused: declared again it lacks the payments in between"


def topology(*entities: Entity, **changes: Any) -> Topology:
    """Entities and a model of the first one's first feature."""
    inputs = changes.pop("inputs", [entities[0][entities[0].features[0].name]])
    return Topology(
        "small",
        [Model(changes.pop("model", "fraud"), inputs, linear_model.LogisticRegression())],
        Policy("mine", 1),
        entities=entities,
    )


def cards(*aggregates: Aggregate) -> Entity:
    """Cards, counted by the day at least."""
    return Entity("card", features=[count("1d"), *aggregates])


def changes(before: Topology, after: Topology, lateness: int = DAY, later: int | None = None) -> list[Change]:
    """What one after the other changes; `before` from the first payment on."""
    return compare(after, lateness if later is None else later, declare(before, lateness, None, 0), CLOCK)


def test_nothing_changes() -> None:
    """The same declarations again, also with more memory of what was kept."""
    assert changes(topology(cards()), topology(cards())) == []


def test_a_new_feature_of_kept_fields_is_right_at_once() -> None:
    """Its fields were kept, and its window is no longer than the longest."""
    before = topology(cards(total(amount, "7d")))
    (change,) = changes(before, topology(cards(total(amount, "7d", "2d"))))
    assert (change.subject, change.kind, change.ready_from) == ("feature card_sum_amount_2d", "new", None)
    assert str(change) == "feature card_sum_amount_2d: new, right at once: all that it needs has been kept"


def test_a_field_that_was_not_kept_starts_empty() -> None:
    """Until its window has passed since; the window of the derived feature with it."""
    before, share = topology(cards()), cards(distinct(merchant, "12h", "1d"))
    after = topology(share, inputs=[share["count_1d"], (share["distinct_merchant_1d"] / 2).named("half")])
    got = {change.subject: change for change in changes(before, after)}
    said = "starts without merchant, which entity card keeps from 2024-01-01T00:00:00Z on"
    assert str(got["feature card_distinct_merchant_12h"]) == (
        f"feature card_distinct_merchant_12h: new, {said};"
        " right for payments from 2024-01-01T12:00:00Z on (in 12h)"
    )
    assert got["feature card_distinct_merchant_1d"].ready_from == CLOCK + DAY
    assert got["derived feature half"].ready_from == CLOCK + DAY
    assert "has learned" in got["model fraud"].effect


def test_a_longer_window_lacks_what_was_dropped() -> None:
    """A day and a day of lateness were kept: a week is right five days later, when all of it was kept."""
    (change,) = changes(topology(cards()), topology(cards(count("7d"))))
    assert str(change) == (
        "feature card_count_7d: new, lacks what was dropped, since events were kept for 2d only;"
        " right for payments from 2024-01-06T00:00:00Z on (in 5d)"
    )
    assert change.ready_from == CLOCK + 5 * DAY


def test_more_lateness_is_lacked_by_late_payments() -> None:
    """Kept for a day and a day: with three days of lateness, payments later than a day may lack something."""
    (change,) = changes(topology(cards()), topology(cards()), later=3 * DAY)
    assert (change.kind, change.ready_from) == ("filling", CLOCK - DAY)
    assert "right for payments from 2023-12-31T00:00:00Z on" in change.effect
    assert "(in" not in change.effect


def test_waiting_goes_on_over_later_changes() -> None:
    """What is kept since yesterday is still so after another change, and nothing when its time has come."""
    first, second = topology(cards()), topology(cards(distinct(merchant, "2d")))
    third = topology(cards(distinct(merchant, "2d"), total(amount, "1d")))
    noted = declare(first, DAY, None, 0)
    noted = declare(second, DAY, noted, CLOCK)
    waiting = {change.subject: change for change in compare(third, DAY, noted, CLOCK + DAY)}
    assert waiting["feature card_distinct_merchant_2d"].kind == "filling"
    assert waiting["feature card_distinct_merchant_2d"].ready_from == CLOCK + 2 * DAY
    noted = declare(third, DAY, noted, CLOCK + DAY)
    assert compare(third, DAY, noted, CLOCK + 3 * DAY) == []


def test_a_changed_feature_says_what_it_was() -> None:
    """The same name for something else."""
    before = topology(cards(count("1h", where=attempt > 1, name="card_retries")))
    after = topology(cards(count("1h", where=attempt > 2, name="card_retries")))
    (change,) = changes(before, after)
    assert change.kind == "changed"
    assert "where attempt > 1' to 'number of payments over (t - 1h, t]" in change.effect
    assert change.effect.endswith("where attempt > 2', right at once: all that it needs has been kept")


def test_other_decimals_are_another_field() -> None:
    """What was kept of the field is of no use."""
    before = topology(cards(total(number("lat", 2), "1d")))
    after = topology(cards(total(number("lat", 4), "1d")))
    got = {change.subject: change for change in changes(before, after)}
    assert got["feature card_sum_lat_1d"].ready_from == CLOCK + DAY
    assert got["field lat of entity card"].kind == "removed"


def test_removed_things_are_named() -> None:
    """Features, fields, time, entities, derived features and models."""
    rich = cards(total(amount, "7d"))
    shops = Entity("merchant", features=[count("1h")])
    before = topology(rich, shops, inputs=[rich, (rich["count_1d"] * 2).named("double")])
    got = [str(change) for change in changes(before, topology(cards(), model="other"))]
    assert got == [
        "field amount of entity card: no longer kept; what needs it again later starts without it",
        "entity card: events are kept for 2d, no longer for 8d; older ones are dropped",
        "feature card_sum_amount_7d: removed",
        f"entity merchant: {GONE}",
        "derived feature double: removed",
        "model other: new, has learned nothing yet",
        "model fraud: removed; no longer scores or learns",
    ]


def test_a_renamed_entity_starts_empty() -> None:
    """The likely cause and the remedy are told."""
    before = topology(cards())
    renamed = Entity("plastic", keys=["card"], features=[count("1d")])
    got = {change.subject: change for change in changes(before, topology(renamed))}
    assert got["entity plastic"].effect == (
        "new, starts empty; if it is card renamed, give it that name back to keep its events"
    )
    assert got["feature plastic_count_1d"].ready_from == CLOCK + DAY
    assert got["entity card"].kind == "removed"


def test_other_keys_start_an_entity_empty() -> None:
    """Nothing of what was stored is found by them."""
    pair = [
        Entity("pair", keys=keys, features=[count("1d")]) for keys in (["card", "merchant"], ["card", "ip"])
    ]
    entity, feature = changes(topology(pair[0]), topology(pair[1]))
    assert entity.effect.startswith("its keys were card, merchant: starts empty")
    assert (feature.subject, feature.ready_from) == ("feature pair_count_1d", CLOCK + DAY)


def test_models_forget_with_other_inputs() -> None:
    """As their weights belong to the inputs."""
    card = cards(count("1h"))
    before, after = topology(card), topology(card, inputs=[card])
    assert [str(one) for one in changes(before, after)] == [
        "model fraud: its inputs changed: forgets what it has learned"
    ]


def test_notes_are_kept_as_they_are() -> None:
    """What is stored comes back; what is damaged is told."""
    noted = declare(topology(cards(total(amount, "7d"))), DAY, Declared(), CLOCK)
    assert Declared.decode(noted.encode()) == noted
    for damaged in (b"", b"\xc1", noted.encode()[:-1]):
        with pytest.raises(StateError, match=r"unreadable .* restore it from a copy"):
            Declared.decode(damaged)


AGGREGATES = [
    count("10ms"), count("100ms"), total(amount, "50ms"), count("40ms", delay="30ms"),
    distinct(merchant, "30ms", "80ms"), total(attempt, "60ms"),
    count("70ms", where=attempt > 1, name="card_retries"),
]  # fmt: skip


@settings(max_examples=60)
@given(st.data())
def test_what_is_said_to_be_right_is_right(data: st.DataObject) -> None:
    """However declarations change in a stream with late payments, the rest equals brute force over it all."""
    source = random.Random(data.draw(st.integers(0, 2**32)))
    blocks, seen, time = Blocks(), Oracle([]), 1_000_000
    noted: Declared | None = None
    for stage in range(3):
        entity = Entity(
            "card", features=data.draw(st.lists(st.sampled_from(AGGREGATES), min_size=1, unique_by=id))
        )
        lateness = data.draw(st.sampled_from([0, 20, 60]))
        made = topology(entity)
        if noted is None:
            ready = dict.fromkeys(made.features, 0)
        else:
            said = {change.subject: change.ready_from or 0 for change in compare(made, lateness, noted, time)}
            ready = {name: said.get(f"feature {name}", 0) for name in made.features}
        noted = declare(made, lateness, noted, time if stage else 0)
        features = Features([entity], memory_budget=1 << 20, allowed_lateness=lateness, blocks=blocks)
        seen.entities = [entity]
        for _ in range(source.randrange(60)):
            time += source.randrange(8)
            fields = {"card": f"c{source.randrange(2)}", "merchant": f"m{source.randrange(4)}"}
            event = Event(
                time - source.randrange(lateness + 1) if source.random() < 0.3 else time,
                source.randrange(100),
                fields={**fields, "attempt": source.randrange(4)},
            )
            got, expected = features.update(Batch([event]))[0], seen.answer(event)
            for name, one, other in zip(made.features, got, expected, strict=True):
                if event.time >= ready[name]:
                    np.testing.assert_allclose(one, other, rtol=1e-12, err_msg=name)
        blocks.write(features.cut())
        features.written()


def test_pairs_of_declarations_have_no_contradiction() -> None:
    """Whatever changes, each subject is told of at most once as new, changed or waiting."""
    for one, other in itertools.permutations(AGGREGATES, 2):
        said = [change.subject for change in changes(topology(cards(one)), topology(cards(other)))]
        features = [subject for subject in said if subject.startswith("feature")]
        assert len(features) == len(set(features))
