"""Disk use is bounded, nothing that is needed goes, and what is let go of is let go of whole."""

import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streamer import Entity, Model, amount, count, distinct, first, mean, merchant, total
from streamer.settings import Commit, Duration, Events, Settings, Size, State
from streamer.state.decided import DecidedBatches
from streamer.state.store import BLOCKS, DECIDED, IDS, LABELS, SEEN, Store
from tests.features.oracle import Event, feature_of
from tests.learning.test_learning import Lab, outcome, pipeline, topology_of
from tests.test_engine import NOW, commit, payment, records_of

HOUR, DAY = 3_600_000, 86_400_000
ROOMS = {"blocks": BLOCKS, "decided": DECIDED, "ids": IDS, "outcomes": SEEN, "labels": LABELS}
SETTINGS = Settings(
    state=State(memory_budget=Size(1 << 19), decided_retention=Duration(10 * DAY)),
    events=Events(allowed_lateness=Duration(DAY), dedup_window=Duration(DAY)),
    commit=Commit(redo_payments=0),
)
ENTITIES = [
    Entity("card", features=[count("1h", "1d", "5d"), total(amount, "2d"), distinct(merchant, "3d")]),
    Entity("merchant", features=[count("1d"), mean(amount, "2d"), first(amount, "1d")]),
    Entity("pair", keys=("card", "merchant"), features=[count("3d", delay="1d")]),
]
TOPOLOGY = topology_of(Model("fraud", ENTITIES, pipeline(), good_after="4d"))


def rows(store: Store) -> dict[str, int]:
    """Rows of each room."""
    return {name: sum(1 for _ in store.scan(room)) for name, room in ROOMS.items()}


@dataclass
class Stream:
    """Payments of cards that come and go, 250 a day, some late, some test traffic, some ids used again."""

    draws: random.Random
    arrived: int = 0

    def batch(self, n: int) -> tuple[list[dict[str, object]], list[int]]:
        """The next payments, and when each arrives."""
        values, times = [], []
        for _ in range(n):
            number, now = self.arrived, NOW + self.arrived * DAY // 250
            draws = self.draws
            values.append(
                payment(
                    number - 2_000 if number % 500 == 499 and number > 2_000 else number,
                    now - draws.choice([0] * 9 + [draws.randrange(DAY)]),
                    card=f"c{number // 20 + draws.randrange(30)}",
                    merchant=draws.choice([f"m{draws.randrange(9)}", f"shop{number // 3}"]),
                    amount=draws.randrange(10_000),
                    live=draws.random() > 0.02,
                )
            )
            times.append(now)
            self.arrived += 1
        return values, times


def test_months_take_no_more_room_than_weeks(tmp_path: Path) -> None:
    """120 days: from the time all retention has passed no room grows, and features equal brute force."""
    lab = Lab(tmp_path / "state", TOPOLOGY, SETTINGS)
    stream = Stream(random.Random(5))
    counted: dict[tuple[object, ...], list[Event]] = {}
    sizes: list[dict[str, int]] = []
    swept: Counter[str] = Counter()
    for number in range(300):
        values, times = stream.batch(100)
        lab.engine.process(records_of(values, lab.offset, times))
        lab.offset += len(values)
        commit(lab.engine, lab.store)
        decided = DecidedBatches(lab.store).batch(number)
        assert decided is not None
        assert len(decided) == 100
        for row, value in enumerate(values):
            event = Event(
                int(str(value["event_time"])),
                int(str(value["amount"])),
                bool(value["live"]),
                {"card": str(value["card"]), "merchant": str(value["merchant"])},
            )
            keys = [tuple(event.value(name) for name in entity.keys) for entity in ENTITIES]
            if row % 20 == 0:
                expected = [
                    feature_of(feature, counted.get((entity.name, key), []), event)
                    for entity, key in zip(ENTITIES, keys, strict=True)
                    for feature in entity.features
                ]
                np.testing.assert_allclose(decided.features[row], expected, rtol=1e-12)
            if event.live:
                for entity, key in zip(ENTITIES, keys, strict=True):
                    counted.setdefault((entity.name, key), []).append(event)
        then = (number - 10) * 100
        assert lab.join(*[outcome(f"o{one}", one) for one in range(max(then, 0), then + 99, 5)]) == []
        if number >= 60:  # 24 days after the payment: too late by all accounts
            assert lab.join(outcome("late", (number - 60) * 100 + 1)) == [0]
        lab.mature(lab.engine.clock)
        lab.hand_over()
        if number == 150:
            swept += lab.engine.swept
            lab.restart()
        if number % 25 == 24:
            sizes.append(rows(lab.store))
    swept += lab.engine.swept
    lab.store.close()
    assert all(swept[name] > 0 for name in ("blocks", "decided", "ids", "outcomes"))
    settled, later = sizes[2:5], sizes[5:]
    for name in ROOMS:
        assert max(size[name] for size in later) <= 1.2 * max(size[name] for size in settled), name
        # What is younger than its retention is there: ten days of payments, of outcomes six.
    assert all(size["decided"] >= 25 for size in later)
    assert all(2_500 <= size["ids"] <= 2 * 2_500 + 1_000 for size in later)
    # A tenth of all cards and shops is within any window: 6 of 120 days, and half as long until it is found.
    total_keys = len(counted)
    assert all(size["blocks"] < total_keys / 7 for size in later)


def batch_of_labelled(lab: Lab, at: int, begin: int, n: int = 70) -> None:
    """Payments of one moment, each with a chargeback, learned from."""
    values = [payment(number, at, card=f"c{number}") for number in range(begin, begin + n)]
    lab.engine.process(records_of(values, lab.offset))
    lab.offset += n
    commit(lab.engine, lab.store)
    lab.join(*[outcome(f"o{number}", number, at=at) for number in range(begin, begin + n)])
    lab.mature(lab.engine.clock)
    lab.hand_over()


def pass_time(lab: Lab, begin: int, end: int) -> None:
    """One card's payments, each half a day."""
    for at in range(begin, end, 12 * HOUR):
        lab.engine.process(records_of([payment(at, at, card="steady", amount=1)], lab.offset))
        lab.offset += 1
        # What a key waits for is held for a start: it is written here.
        lab.store.commit(lab.engine.cut(everything=True))
        lab.engine.written()
        lab.mature(lab.engine.clock)
        lab.hand_over()


def places(lab: Lab, numbers: range) -> int:
    """How many of these payments have a mark."""
    digests = lab.engine.identify([f"p{number}" for number in numbers])
    return sum(mark is not None for mark in DecidedBatches(lab.store).marks(digests))


def test_what_is_decided_goes_with_all_that_is_kept_by_it(tmp_path: Path) -> None:
    """Not before its retention has passed; within as long again its marks, outcomes and labels are gone."""
    lab = Lab(tmp_path / "state", TOPOLOGY, SETTINGS)
    batch_of_labelled(lab, NOW, 0)
    batch_of_labelled(lab, NOW + DAY, 70)
    pass_time(lab, NOW + DAY, NOW + 10 * DAY + 1)
    assert DecidedBatches(lab.store).first == 0
    assert rows(lab.store)["labels"] == 140
    pass_time(lab, NOW + 10 * DAY + 1, NOW + 11 * DAY)
    assert DecidedBatches(lab.store).first == 1
    assert rows(lab.store)["labels"] == 70
    assert lab.join(outcome("again", 3), outcome("o69", 69), outcome("another", 70)) == [0, 1]
    pass_time(lab, NOW + 11 * DAY, NOW + 31 * DAY)
    assert DecidedBatches(lab.store).first > 2
    assert rows(lab.store)["labels"] == 0
    assert places(lab, range(140)) == 0
    assert rows(lab.store)["outcomes"] <= 1
    lab.store.close()


def test_an_id_that_is_used_again_keeps_its_newer_mark(tmp_path: Path) -> None:
    """Its first payment's batch goes; a repeat of the second is a duplicate all the same."""
    lab = Lab(tmp_path / "state", TOPOLOGY, SETTINGS)
    batch_of_labelled(lab, NOW, 0)
    pass_time(lab, NOW, NOW + 9 * DAY)
    again = [payment(number, NOW + 9 * DAY, amount=7) for number in range(70)]
    lab.engine.process(records_of(again, lab.offset))
    commit(lab.engine, lab.store)
    lab.offset += 70
    pass_time(lab, NOW + 9 * DAY, NOW + 18 * DAY)
    assert DecidedBatches(lab.store).first > 0
    assert places(lab, range(70)) == 70
    lab.store.close()


def test_an_id_that_comes_again_as_its_mark_goes_has_one(tmp_path: Path) -> None:
    """In one commit the old mark is deleted and the new one written: the new one stays."""
    lab = Lab(tmp_path / "state", TOPOLOGY, SETTINGS)
    batch_of_labelled(lab, NOW, 0)
    pass_time(lab, NOW, NOW + 10 * DAY + 13 * HOUR)
    assert places(lab, range(70)) == 70
    lab.engine.swept.clear()
    lab.decide(*[payment(number, NOW + 30 * DAY, amount=7) for number in range(70)])
    assert lab.engine.swept["ids"] >= 70
    assert places(lab, range(70)) == 70
    lab.store.close()


def test_what_was_not_learned_from_is_kept(tmp_path: Path) -> None:
    """Until the model has matured a batch and that is stored, however long ago its retention has passed."""
    lab = Lab(tmp_path / "state", TOPOLOGY, SETTINGS)
    lab.decide(payment(1))
    for day in range(1, 40):
        lab.decide(payment(day + 1, NOW + day * DAY))
    assert DecidedBatches(lab.store).first == 0
    lab.mature(lab.engine.clock)
    lab.decide(payment(100, NOW + 40 * DAY))
    assert DecidedBatches(lab.store).first == 0
    lab.hand_over()
    for number in range(101, 140):
        lab.decide(payment(number, NOW + 40 * DAY))
    assert DecidedBatches(lab.store).first == 30
    lab.store.close()


def test_what_a_start_needs_is_kept(tmp_path: Path) -> None:
    """Batches whose payments are not in the rows of their keys stay."""
    waits = replace_commit(SETTINGS, redo=1_000_000)
    lab = Lab(tmp_path / "state", TOPOLOGY, waits)
    for day in range(40):
        lab.decide(
            payment(day, NOW + day * DAY, card="c"), payment(100 + day, NOW + day * DAY, card=f"c{day}")
        )
    lab.mature(lab.engine.clock)
    lab.hand_over()
    lab.decide(payment(1_000, NOW + 40 * DAY))
    assert lab.store.progress.redo == 0
    assert DecidedBatches(lab.store).first == 0
    lab.store.close()


def test_a_new_model_begins_with_what_there_is(tmp_path: Path) -> None:
    """On a store whose first batches are gone it learns from the first there is, and frauds wait again."""
    lab = Lab(tmp_path / "state", TOPOLOGY, SETTINGS)
    batch_of_labelled(lab, NOW, 0)
    pass_time(lab, NOW, NOW + 20 * DAY)
    first_kept = DecidedBatches(lab.store).first
    assert first_kept > 0
    lab.restart(topology_of(*TOPOLOGY.models, Model("new", ENTITIES, pipeline(), good_after="4d")))
    maturing = lab.learning.joining.maturing[1]
    assert (maturing.cursor, lab.learning.joining.has_seen_good) == (first_kept, False)
    lab.mature(lab.engine.clock)
    assert maturing.cursor > first_kept
    assert lab.learning.joining.has_seen_good
    lab.store.close()


def replace_commit(given: Settings, redo: int) -> Settings:
    """The same settings, keys written after so many payments."""
    return Settings(state=given.state, events=given.events, commit=Commit(redo_payments=redo))


def test_a_partition_that_lags_holds_deletion_back(tmp_path: Path) -> None:
    """Keys are shared: what the slower partition may still ask for stays."""
    lab = Lab(tmp_path / "state", TOPOLOGY, SETTINGS)
    lab.engine.process(replace(records_of([payment(1)]), partition=1))
    commit(lab.engine, lab.store)
    batch_of_labelled(lab, NOW, 10)
    pass_time(lab, NOW, NOW + 40 * DAY)
    assert DecidedBatches(lab.store).first == 0
    assert not lab.engine.swept
    assert places(lab, range(1, 2)) == 1
    lab.store.close()
