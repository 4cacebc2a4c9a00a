"""Disk use is bounded: what nothing to come can ask for is deleted, and nothing else."""

import random
from collections import Counter
from pathlib import Path

import numpy as np

from streamer import Entity, Model, Policy, Topology, amount, count, distinct, fraud_count, merchant, total
from streamer.engine import Engine
from streamer.learning.learning import Learning
from streamer.settings import Duration, Events, Settings, Size, State
from streamer.state.retention import labels_of
from streamer.state.store import LABELS, Progress, Store, WriteSet
from tests.learning.test_learning import outcome, pipeline
from tests.test_engine import DAY, HOUR, NOW, commit, features_of, payment, records_of

CARDS = Entity("card", features=[count("1h", "1d"), total(amount, "1d"), distinct(merchant, "1d")])
SHOPS = Entity("merchant", features=[count("1d"), fraud_count("1d")])
TOPOLOGY = Topology(
    "tested", [Model("fraud", [CARDS, SHOPS], pipeline(), good_after="1d")], Policy("tested", 1)
)
KEPT = Settings(
    state=State(memory_budget=Size(1 << 16), decided_retention=Duration(5 * DAY)),
    events=Events(allowed_lateness=Duration(HOUR), dedup_window=Duration(DAY)),
)
FOR_EVER = Settings(
    state=State(memory_budget=Size(1 << 24), decided_retention=Duration(10_000 * DAY)), events=KEPT.events
)
A_DAY = 60


def day_of(day: int, source: random.Random) -> list[dict[str, object]]:
    """A day's payments: most cards never come back, a few do every other week, some payments are late."""
    payments = []
    for number in range(A_DAY):
        late = source.randrange(HOUR // 2) if source.random() < 0.1 else 0
        card = f"regular{number}" if number < 5 and day % 14 == 0 else f"card{day}-{number % 40}"
        at = NOW + day * DAY + number * DAY // A_DAY - late
        payments.append(
            payment(day * A_DAY + number, at, card=card, merchant=f"m{day // 20}-{source.randrange(5)}")
        )
    return payments


class Shop:
    """An engine and its learning that go through the days."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.store = Store.open(path)
        self.engine = Engine(TOPOLOGY, self.store, settings, emit_features=True)
        self.learning = Learning(TOPOLOGY, self.store, settings, self.engine.identify)

    def open(self, day: int) -> dict[str, dict[str, float | None]]:
        """Decide a day's payments, and hear of one fraud of the day before."""
        source, answers = random.Random(day), {}
        payments = day_of(day, source)
        for at in range(0, A_DAY, 20):
            records = records_of(payments[at : at + 20], day * A_DAY + at)
            answers |= features_of(self.engine.process(records))
            if at == 0 and day:
                number = (day - 1) * A_DAY + source.randrange(A_DAY)
                assert not self.learning.join([outcome(f"o{day}", number, at=NOW + day * DAY)])
            self.learning.mature(self.engine.clock, 100)
            while self.learning.learn(1_000):
                pass
            commit(self.engine, self.store, self.learning.hand_over())
        return answers

    def rows(self) -> Counter[int]:
        """How many rows each room has."""
        return Counter(key[0] for room in range(1, 5) for key, _ in self.store.scan(bytes([room])))


def test_months_leave_no_more_than_days(tmp_path: Path) -> None:
    """After the retention rows no longer grow; and each feature is that of a store that keeps all."""
    shop, hoarder = Shop(tmp_path / "kept", KEPT), Shop(tmp_path / "all", FOR_EVER)
    seen: list[Counter[int]] = []
    for day in range(120):
        assert hoarder.open(day) == shop.open(day)
        if day % 10 == 9:
            seen.append(shop.rows())
    for room in seen[0]:
        rows = [counts[room] for counts in seen[2:]]
        assert max(rows[5:]) <= 2 * max(rows[:5]) + 50, (room, rows)
    ever = hoarder.rows()
    assert sum(ever.values()) > 5 * sum(seen[-1].values())


def test_a_start_goes_on_deleting(tmp_path: Path) -> None:
    """What a worker left to be deleted the next one deletes."""
    shop = Shop(tmp_path, KEPT)
    for day in range(30):
        shop.open(day)
    shop.store.close()
    shop = Shop(tmp_path, KEPT)
    before = shop.rows()
    for day in range(30, 60):
        shop.open(day)
    after = shop.rows()
    assert all(after[room] <= 2 * before[room] + 50 for room in after)


def test_labels_of_a_batch_are_those_of_its_payments(tmp_path: Path) -> None:
    """In a batch of several partitions neither those in between nor those of other partitions count."""
    with Store.open(tmp_path / "state") as store:
        at = {(one, offset): (one << 48) + offset for one in range(3) for offset in range(9)}
        rows = [(LABELS + place.to_bytes(8, "big"), b"%d" % place) for place in at.values()]
        store.commit(WriteSet(Progress(), rows))
        batch = [at[2, 3], at[0, 1], at[2, 7], at[0, 5]]
        assert labels_of(store, np.array(batch)) == {place: b"%d" % place for place in batch}
