"""From outcomes to features: each fraud counts once, from the commit that took it in, whatever crashes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import Entity, Model, Policy, Topology, count, fraud_count, fraud_rate, review
from streamer.engine import Engine
from streamer.events import Outcome
from streamer.features.frauds import FraudFeature
from streamer.learning.learning import Learning
from streamer.settings import Settings, Size, State
from streamer.state.store import Store, positions_of
from tests.learning.test_learning import outcome, pipeline
from tests.test_engine import DAY, HOUR, NOW, commit, decisions_of, features_of, payment, records_of

shops = Entity("merchant", features=[count("1h"), fraud_rate("1d", prior=(1, 4)), fraud_count("1h", "30d")])
pairs = Entity("pair", keys=("card", "merchant"), features=[fraud_count("1d", delay="1h")])
fraud = Model("fraud", [shops, pairs], pipeline(), good_after="7d")
rules = [review(shops["fraud_rate_1d"] >= 0.5, reason="known_fraud")]
TOPOLOGY = Topology("tested", [fraud], Policy("tested", 1, rules))

Features = dict[str, float | None]


class Worker:
    """An engine and its learning on one state directory; the topics are lists that it reads again."""

    def __init__(self, path: Path, budget: int = 1 << 24) -> None:
        self.path = path
        self.settings = Settings(state=State(memory_budget=Size(budget)))
        self.payments: list[dict[str, object]] = []
        self.outcomes: list[Outcome] = []
        self.answers: dict[str, Features] = {}
        self.decisions: dict[str, object] = {}
        self._start()

    def _start(self) -> None:
        self.store = Store.open(self.path)
        self.engine = Engine(TOPOLOGY, self.store, self.settings, emit_features=True)
        self.learning = Learning(TOPOLOGY, self.store, self.settings, self.engine.identify)
        for snapshot in self.learning.snapshots():
            self.engine.restore_scorer(snapshot.model, snapshot.version, snapshot.scorer())

    @property
    def committed(self) -> dict[tuple[str, int], int]:
        """The positions in the store."""
        return dict(positions_of(self.store.progress))

    def pay(self, *payments: dict[str, object]) -> list[Features]:
        """Decide payments; whatever is decided again has the same features and the same decision."""
        at = len(self.payments)
        self.payments += payments
        self._decide(at)
        return [self.answers[str(one["payment_id"])] for one in payments]

    def _decide(self, at: int) -> None:
        given = self.payments[at:]
        if not given:
            return
        answer = self.engine.process(records_of(given, at, [NOW + 1_000 * DAY] * len(given)))
        for name, features in features_of(answer).items():
            assert self.answers.setdefault(name, features) == features
        for name, decision in decisions_of(answer).items():
            assert self.decisions.setdefault(name, decision) == decision

    def tell(self, *outcomes: Outcome) -> None:
        """Join outcomes, and learn from them."""
        self.outcomes += outcomes
        self._join(len(self.outcomes) - len(outcomes))

    def _join(self, at: int) -> None:
        assert self.learning.join(self.outcomes[at:]) == []
        self.learning.advance("outcomes", 0, len(self.outcomes))
        while self.learning.learn(10):
            pass

    def commit(self) -> None:
        """Store what was decided."""
        commit(self.engine, self.store)

    def take_in(self) -> None:
        """Let a commit take in what was joined."""
        commit(self.engine, self.store, self.learning.hand_over())

    def crash(self) -> None:
        """Lose what is not stored, start again, and read the topics from there to where they were."""
        self.store.close()
        self._start()
        self._decide(self.committed.get(("payments", 0), 0))
        self._join(self.committed.get(("outcomes", 0), 0))


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker on an empty directory."""
    made = Worker(tmp_path / "state")
    yield made
    made.store.close()


def frauds_of(features: Features) -> float | None:
    """How many frauds are known of the merchant in 30 days."""
    return features["merchant_fraud_count_30d"]


def test_a_fraud_counts_from_the_commit_that_takes_it_in(worker: Worker) -> None:
    """Before it, it is not known; after it, it is, as of its own time, also to late payments and rules."""
    worker.pay(payment(1), payment(2, NOW + 1))
    worker.commit()
    worker.tell(outcome("o1", 1, at=NOW + 10))
    assert worker.pay(payment(3, NOW + 20))[0] == {
        "merchant_count_1h": 3, "merchant_fraud_rate_1d": 1 / 6, "merchant_fraud_count_1h": 0,
        "merchant_fraud_count_30d": 0, "pair_fraud_count_1d_delay_1h": 0,
    }  # fmt: skip
    worker.take_in()
    late, now, later = worker.pay(payment(4, NOW + 9), payment(5, NOW + 10), payment(6, NOW + HOUR + 10))
    assert (frauds_of(late), frauds_of(now), frauds_of(later)) == (0, 1, 1)
    assert now["merchant_fraud_rate_1d"] == 2 / 7
    assert later == {
        "merchant_count_1h": 2, "merchant_fraud_rate_1d": 2 / 9, "merchant_fraud_count_1h": 0,
        "merchant_fraud_count_30d": 1, "pair_fraud_count_1d_delay_1h": 1,
    }  # fmt: skip
    worker.commit()
    worker.tell(*(outcome("o2", number, at=NOW + HOUR) for number in (2, 3, 4, 5)))
    worker.take_in()
    worker.pay(payment(7, NOW + HOUR + 20))
    assert [reason.code for reason in worker.decisions["p7"].reasons] == ["known_fraud"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("between", ["nothing", "take_in", "crash"])
def test_a_payment_is_a_fraud_once(worker: Worker, between: str) -> None:
    """A repeat, a second report, a claim withdrawn and raised again: one fraud, known since the first."""
    worker.pay(payment(1))
    worker.commit()
    for one in (
        outcome("o1", 1, "fraud_reported", NOW + 10),
        outcome("o1", 1, "fraud_reported", NOW + 11),
        outcome("o2", 1, "chargeback", NOW + 12),
        outcome("o3", 1, "dispute_won", NOW + 13),
        outcome("o4", 1, "chargeback", NOW + 14),
        outcome("o3", 1, "chargeback", NOW + 15),
    ):
        worker.tell(one)
        if between != "nothing":
            worker.take_in()
        if between == "crash":
            worker.crash()
    worker.take_in()
    found = worker.pay(*(payment(10 + after, NOW + after) for after in (9, 10, 20)))
    assert [frauds_of(one) for one in found] == [0, 1, 1]


def test_what_is_no_fraud_does_not_count(worker: Worker) -> None:
    """Complaints, refunds, approvals and test traffic."""
    worker.pay(*(payment(number) for number in range(4)), payment(4, live=False))
    worker.commit()
    worker.tell(
        outcome("o1", 0, "chargeback", category="product"),
        outcome("o2", 0, "dispute_lost"),
        outcome("o3", 1, "refund"),
        outcome("o4", 2, "review_approved"),
        outcome("o5", 3, "dispute_won"),
        outcome("o6", 4, "chargeback"),
    )
    worker.take_in()
    assert worker.pay(payment(5, NOW + 1))[0]["merchant_fraud_count_1h"] == 0


def test_keys_are_those_of_the_payment(worker: Worker) -> None:
    """A fraud counts for the merchant and the pair it was at; without a merchant for none."""
    worker.pay(payment(1), payment(2, merchant="m2"), payment(3, merchant=None))
    worker.commit()
    worker.tell(*(outcome("o1", number) for number in (1, 2, 3)))
    worker.take_in()
    worker.crash()
    later = NOW + HOUR + 1
    found = worker.pay(payment(4, later), payment(5, later, card="c2"), payment(6, later, merchant=None))
    assert [frauds_of(one) for one in found] == [1, 1, None]
    assert [one["pair_fraud_count_1d_delay_1h"] for one in found] == [1, 0, None]


@dataclass
class Ledger:
    """All that counts, in lists: payments as they arrived, frauds as they were taken in."""

    paid: list[dict[str, Any]] = field(default_factory=list)
    frauds: list[tuple[dict[str, Any], int]] = field(default_factory=list)

    def answer(self, given: dict[str, Any]) -> Features:
        """The features of a payment; afterwards it is counted."""
        found: Features = {}
        for entity in (shops, pairs):
            for feature in entity.features:
                end = given["event_time"] - feature.delay
                times = [[one["event_time"] for one in self.paid if self._same(entity, one, given)]]
                times += [[known for one, known in self.frauds if self._same(entity, one, given)]]
                paid, frauds = (sum(end - feature.window < at <= end for at in of) for of in times)
                if None in [given[key] for key in entity.keys]:
                    found[feature.name] = None
                elif not isinstance(feature, FraudFeature):
                    found[feature.name] = paid + 1
                elif feature.prior is None:
                    found[feature.name] = frauds
                else:
                    found[feature.name] = (frauds + feature.prior[0]) / (paid + feature.prior[1])
        self.paid.append(given)
        return found

    @staticmethod
    def _same(entity: Entity, one: dict[str, Any], other: dict[str, Any]) -> bool:
        return [one[key] for key in entity.keys] == [other[key] for key in entity.keys]


Step = tuple[str, list[tuple[int, int, int]]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pay", "pay", "tell", "tell", "take_in", "commit", "crash", "torn"]),
        st.lists(
            st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(-40, 20)), min_size=1, max_size=6
        ),
    ),
    max_size=30,
)
KINDS = ["chargeback", "fraud_reported", "dispute_won", "refund"]


def follow(worker: Worker, steps: Sequence[Step]) -> None:
    """Take the steps, and compare each payment's features with those of the ledger."""
    ledger = Ledger()
    heard: dict[tuple[str, str], Outcome] = {}
    waiting: list[tuple[dict[str, Any], int]] = []
    counted: set[str] = set()
    for what, how in steps:
        match what:
            case "pay":
                at = len(worker.payments)
                values = [
                    payment(at + n, NOW + (at + n) * HOUR + late * HOUR, merchant=[None, "m1", "m2"][shop])
                    for n, (_, shop, late) in enumerate(how)
                ]
                found = worker.pay(*values)
                assert found == [ledger.answer(value) for value in values]
            case "tell":
                known = worker.committed.get(("payments", 0), 0)
                told = [
                    outcome(f"o{one % 5}", one % known, KINDS[kind + one % 2], NOW + (one + after) * HOUR)
                    for one, kind, after in (how if known else [])
                ]
                worker.tell(*told)
                for one in told:
                    if (one.payment_id, one.outcome_id) in heard:
                        continue
                    heard[one.payment_id, one.outcome_id] = one
                    if one.kind in ("chargeback", "fraud_reported") and one.payment_id not in counted:
                        counted.add(one.payment_id)
                        number = int(one.payment_id.removeprefix("p"))
                        waiting.append((worker.payments[number], one.event_time))
            case "take_in":
                worker.take_in()
                ledger.frauds += waiting
                waiting = []
            case "commit":
                worker.commit()
            case "torn":
                worker.engine.cut(worker.learning.hand_over())
                worker.crash()
            case _:
                worker.crash()


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, budget=st.sampled_from([0, 1 << 24]))
def test_equals_brute_force(tmp_path_factory: pytest.TempPathFactory, steps: list[Step], budget: int) -> None:
    """Repeats, late frauds, crashes between commits and torn ones: the features are those of the lists."""
    worker = Worker(tmp_path_factory.mktemp("frauds") / "state", budget)
    follow(worker, steps)
    worker.store.close()
