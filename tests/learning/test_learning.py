"""Learning: each payment is learned from as its label says, once, and a crash changes nothing of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from river import linear_model, optim, preprocessing

from streamer import Entity, Model, Policy, Topology, amount, count, mean, total
from streamer.engine import Engine
from streamer.errors import ConfigError
from streamer.events import Outcome, Rejection
from streamer.learning.learning import Learning
from streamer.models.compiled import Compiled
from streamer.models.learner import Learner
from streamer.rejections import Rejected
from streamer.scoring import Taken
from streamer.settings import Models, Secret, Settings, Size, State
from streamer.state.decided import DecidedBatches
from streamer.state.store import Store, positions_of
from tests.test_engine import NOW, commit, payment, records_of

WEEK = 7 * 86_400_000
SETTINGS = Settings(state=State(memory_budget=Size(1 << 24)))
cards = Entity("card", features=[count("1h"), total(amount, "1h")])


def pipeline() -> Any:
    """A pipeline that knows nothing."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1))


def topology_of(*models: Model) -> Topology:
    """A topology of these models, by default one that learns from all of the good payments."""
    policy = Policy("tested", 1)
    return Topology("tested", models or (Model("fraud", [cards], pipeline(), good_after="7d"),), policy)


class Lab:
    """An engine and its learners on one state directory, moved by hand."""

    def __init__(self, path: Path, topology: Topology | None = None, given: Settings = SETTINGS) -> None:
        self.path = path
        self.given = given
        self.topology = topology or topology_of()
        self.offset = 0
        self.outcomes = 0
        self._start()

    def _start(self) -> None:
        self.store = Store.open(self.path)
        self.engine = Engine(self.topology, self.store, self.given)
        self.learning = Learning(self.topology, self.store, self.given, self.engine.identify)
        for snapshot in self.learning.snapshots():
            self.engine.restore_scorer(snapshot.model, snapshot.version, snapshot.scorer())

    def restart(self, topology: Topology | None = None) -> None:
        """Leave as a crash does, and start again, perhaps with another topology."""
        self.store.close()
        self.topology = topology or self.topology
        self._start()

    def decide(self, *values: dict[str, object]) -> None:
        """Decide payments in a batch and commit."""
        self.engine.process(records_of(values, self.offset))
        self.offset += len(values)
        commit(self.engine, self.store)

    def join(self, *outcomes: Outcome) -> list[int]:
        """Join outcomes in one batch; answers the indexes of those without a payment."""
        unknown = self.learning.join(outcomes)
        self.outcomes += len(outcomes)
        self.learning.advance("outcomes", 0, self.outcomes)
        return unknown

    def learn(self) -> None:
        """Learn all that is queued."""
        while self.learning.learn(3):
            pass

    def mature(self, clock: int) -> None:
        """Learn from all that is good at this time."""
        while self.learning.mature(clock):
            self.learn()
        self.learn()

    def hand_over(self) -> Taken:
        """Let a commit take in what was learned."""
        taken = self.learning.hand_over()
        commit(self.engine, self.store, taken)
        return taken

    def features(self, *payment_ids: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Features as they were decided."""
        found = DecidedBatches(self.store).find(self.engine.identify(list(payment_ids)))
        return np.stack([one.features for one in found if one is not None])

    def taught(self, *examples: tuple[str, bool] | tuple[str, bool, float]) -> Compiled:
        """What a learner that learned exactly these payments, labels and weights would know."""
        model = self.topology.models[0]
        learner = Learner(model.name, model.learner, model.features)
        x = self.features(*(example[0] for example in examples))
        weights = [example[2] if len(example) > 2 else 1.0 for example in examples]
        columns = self.topology.columns_of(model.features)
        labels = np.array([example[1] for example in examples])
        learner.learn_many(x[:, columns], labels, np.array(weights))
        return learner.scorer().compiled

    @property
    def knowledge(self) -> Compiled:
        """What the first model's learner knows now."""
        return next(iter(self.learning.room.students.values())).learner.scorer().compiled


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab of one model."""
    made = Lab(tmp_path / "state")
    yield made
    made.store.close()


def outcome(name: str, number: int, kind: str = "chargeback", at: int = NOW, **more: Any) -> Outcome:
    """What became of payment `number`."""
    given = {"outcome_id": name, "payment_id": f"p{number}", "kind": kind, "event_time": at}
    return msgspec.convert(given | more, Outcome)


def some(numbers: Sequence[int], at: int = NOW) -> list[dict[str, object]]:
    """Payments of these numbers, one each second."""
    return [payment(number, at + number * 1_000, amount=50 + number * number) for number in numbers]


def test_silence_makes_good_exactly_in_time(lab: Lab) -> None:
    """A batch matures when its newest payment is `good_after` old, not one millisecond before."""
    lab.decide(*some([1, 2]))
    lab.decide(*some([3]))
    assert not lab.learning.mature(NOW + 2_000 + WEEK - 1)
    assert lab.learning.waiting == 0
    assert lab.learning.mature(NOW + 2_000 + WEEK)
    assert lab.learning.waiting == 2
    assert not lab.learning.mature(NOW + 2_000 + WEEK)
    lab.mature(NOW + 3_000 + WEEK)
    assert lab.learning.learned == {"fraud": 3}
    assert lab.knowledge == lab.taught(("p1", False), ("p2", False), ("p3", False))


def test_fraud_is_learned_when_it_is_known(lab: Lab) -> None:
    """Once something counts as good, a fraud is learned with the features as they were decided."""
    lab.decide(*some([1, 2]))
    lab.mature(NOW + WEEK + 2_000)
    lab.decide(*some([3, 4], NOW + WEEK))
    assert lab.join(outcome("o1", 3)) == []
    lab.learn()
    assert lab.knowledge == lab.taught(("p1", False), ("p2", False), ("p3", True))
    lab.mature(NOW + 3 * WEEK)
    assert lab.knowledge == lab.taught(("p1", False), ("p2", False), ("p3", True), ("p4", False))


def test_a_repeat_changes_nothing_while_a_commit_is_under_way(lab: Lab) -> None:
    """What was handed over and is not stored yet is known: an outcome again, or another of that fraud."""
    lab.decide(*some([1, 2, 3]))
    lab.mature(NOW + WEEK + 3_000)
    lab.join(outcome("o1", 2))
    lab.learn()
    under_way = lab.learning.hand_over()
    assert [one.payment.payment_id for one in under_way.frauds] == ["p2"]
    lab.join(outcome("o1", 2), outcome("o2", 2), outcome("o3", 3))
    lab.learn()
    commit(lab.engine, lab.store, under_way)
    lab.learning.taken_in()
    assert [one.payment.payment_id for one in lab.hand_over().frauds] == ["p3"]
    goods = [(f"p{number}", False) for number in (1, 2, 3)]
    assert lab.knowledge == lab.taught(*goods, ("p2", True), ("p3", True))


@pytest.mark.parametrize("how", ["at once", "one by one", "after a commit", "after a start"])
def test_a_repeat_changes_nothing(lab: Lab, how: str) -> None:
    """An outcome_id counts once per payment, wherever it is repeated."""
    lab.decide(*some([1, 2, 3]))
    lab.mature(NOW + WEEK + 3_000)
    if how == "at once":
        lab.join(outcome("o1", 2), outcome("o1", 2), outcome("o1", 3), outcome("o1", 2, "confirmed_good"))
    else:
        for one in (outcome("o1", 2), outcome("o1", 3), outcome("o1", 2), outcome("o1", 2, "confirmed_good")):
            lab.join(one)
            lab.learn()
            if how != "one by one":
                lab.hand_over()
            if how == "after a start":
                lab.restart()
    lab.learn()
    goods = [(f"p{number}", False) for number in (1, 2, 3)]
    assert lab.knowledge == lab.taught(*goods, ("p2", True), ("p3", True))


KINDS = ["chargeback", "dispute_won", "fraud_reported", "review_approved", "refund", "declined"]


def flips(kinds: Sequence[str]) -> list[tuple[str, bool]]:
    """The examples of a payment with these outcomes after it matured, by hand: one for each new label."""
    fraud = {"chargeback": True, "dispute_won": False, "fraud_reported": True, "review_approved": False}
    labels = [fraud[kind] for kind in kinds if kind in fraud]
    return [("p2", label) for at, label in enumerate(labels) if at == 0 or labels[at - 1] != label]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(KINDS), max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_each_change_of_a_label_is_learned_once(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], apart: list[bool]
) -> None:
    """Fraud, good, fraud again: each change is one example, however the outcomes arrive in batches."""
    lab = Lab(tmp_path_factory.mktemp("flips") / "state")
    lab.decide(*some([1]))
    lab.mature(NOW + WEEK + 1_000)
    lab.decide(*some([2], NOW + WEEK))
    batch: list[Outcome] = []
    for number, kind in enumerate(kinds):
        batch.append(outcome(f"o{number}", 2, kind))
        if apart[number]:
            lab.join(*batch)
            batch = []
    lab.join(*batch)
    lab.learn()
    assert lab.knowledge == lab.taught(("p1", False), *flips(kinds))
    lab.store.close()


def test_fraud_before_anything_good_waits(lab: Lab) -> None:
    """Frauds known before the first batch matures are learned with it, in the order of payments, once."""
    lab.decide(*some([1, 2, 3]))
    lab.decide(*some([4, 5]))
    lab.join(outcome("o1", 2, "fraud_reported"), outcome("o2", 2), outcome("o3", 5))
    assert lab.learning.waiting == 0
    lab.hand_over()
    lab.restart()
    lab.mature(NOW + WEEK + 3_000)
    assert lab.knowledge == lab.taught(("p1", False), ("p2", True), ("p3", False))
    lab.hand_over()
    lab.restart()
    lab.join(outcome("o4", 2, "dispute_lost"), outcome("o5", 5, "dispute_lost"))
    lab.mature(NOW + 2 * WEEK)
    examples = [("p1", False), ("p2", True), ("p3", False), ("p4", False), ("p5", True)]
    assert lab.knowledge == lab.taught(*examples)


def test_fraud_that_turns_out_good_while_it_waits(lab: Lab) -> None:
    """The last label counts, and the payment is learned from once."""
    lab.decide(*some([1, 2, 3]))
    lab.join(outcome("o1", 2), outcome("o2", 2, "dispute_won"), outcome("o3", 3), outcome("o4", 3, "refund"))
    lab.mature(NOW + WEEK + 3_000)
    assert lab.knowledge == lab.taught(("p2", False), ("p1", False), ("p3", True))


def test_declined_payments_are_no_goods(lab: Lab) -> None:
    """A declined payment says nothing by its silence, but a fraud on it does; authorized says nothing."""
    lab.decide(*some([1, 2, 3, 4]))
    lab.join(outcome("o1", 1, "declined"), outcome("o2", 2, "declined"), outcome("o3", 3, "authorized"))
    lab.hand_over()
    lab.restart()
    lab.join(outcome("o4", 2, "fraud_reported"), outcome("o5", 2, "declined"))
    lab.mature(NOW + WEEK + 4_000)
    assert lab.knowledge == lab.taught(("p2", True), ("p3", False), ("p4", False))


def test_the_category_of_a_chargeback_holds_for_its_dispute(lab: Lab) -> None:
    """A dispute about a lost parcel, won or lost, says nothing of fraud, also when the steps come apart."""
    lab.decide(*some([1, 2, 3]))
    lab.mature(NOW + WEEK + 3_000)
    lab.join(outcome("o1", 2, category="product"), outcome("o2", 3, category="fraud"))
    lab.learn()
    lab.hand_over()
    lab.restart()
    lab.join(outcome("o3", 2, "dispute_lost"), outcome("o4", 3, "dispute_lost"))
    lab.join(outcome("o5", 2, "dispute_won"), outcome("o6", 3, "dispute_won"))
    lab.learn()
    goods = [(f"p{number}", False) for number in (1, 2, 3)]
    assert lab.knowledge == lab.taught(*goods, ("p3", True), ("p3", False))


def test_test_traffic_is_not_learned_from(lab: Lab) -> None:
    """Payments with `live` false teach nothing, neither by silence nor by an outcome."""
    test = {"live": False}
    lab.decide(*some([1]), *(one | test for one in some([2, 3])))
    lab.join(outcome("o1", 2))
    lab.mature(NOW + WEEK + 3_000)
    lab.join(outcome("o2", 3))
    lab.learn()
    assert lab.knowledge == lab.taught(("p1", False))


def test_a_share_of_the_good_is_learned_with_its_weight(tmp_path: Path) -> None:
    """About that share is drawn, by source alone, each weighing its inverse; frauds are all learned."""
    numbers = range(1, 401)
    learned = []
    for share in (1.0, 0.25):
        model = Model("fraud", [cards], pipeline(), good_after="7d", good_share=share)
        lab = Lab(tmp_path / str(share), topology_of(model))
        lab.decide(*some(numbers))
        lab.join(*(outcome(f"o{number}", number) for number in range(1, 11)))
        assert lab.learning.mature(NOW + 400_000 + WEEK)
        (examples,) = lab.learning.room.students["fraud"].queue
        learned.append(examples)
        lab.store.close()
    everything, drawn = learned
    assert everything.weight.tolist() == [1.0] * 400
    assert int(everything.fraud.sum()) == int(drawn.fraud.sum()) == 10
    assert set(drawn.weight[drawn.fraud]) == {1.0}
    assert set(drawn.weight[~drawn.fraud]) == {4.0}
    # 390 draws of a quarter: 97.5 on average, deviation 8.6
    assert 60 < int((~drawn.fraud).sum()) < 135


def test_an_unknown_payment_is_told_and_may_come_later(lab: Lab) -> None:
    """What was never decided is named by its index, leaves no trace, and joins once it is there."""
    lab.decide(*some([1]))
    lab.mature(NOW + WEEK + 1_000)
    late = outcome("o2", 2)
    assert lab.join(outcome("o1", 1, "refund"), late, outcome("o3", 3)) == [1, 2]
    assert lab.learning.kinds == {"refund": 1}
    lab.decide(*some([2]))
    assert lab.join(late) == []
    lab.learn()
    assert lab.knowledge == lab.taught(("p1", False), ("p2", True))


def test_what_is_no_outcome_is_rejected(lab: Lab) -> None:
    """Bad records are told apart with their index, and rejections carry their source."""
    values: list[bytes | None] = [b"{", msgspec.json.encode(outcome("o1", 1)), None]
    records = records_of(values, 7, topic="outcomes")
    outcomes, rejected = lab.learning.read(records)
    assert outcomes == [(1, outcome("o1", 1))]
    assert [(one.index, one.code) for one in rejected] == [(0, "invalid_json"), (2, "invalid_json")]
    assert not lab.learning.has_news
    lab.learning.reject(records, [*rejected, Rejected(1, "unknown_payment", "Expected it", "p1")])
    assert lab.learning.has_news
    out = lab.learning.hand_over().rejected
    assert out is not None
    read = [msgspec.json.decode(value or b"", type=Rejection) for value in out.values]
    assert out.topic == "outcomes.rejected"
    assert [one.code for one in read] == ["invalid_json", "invalid_json", "unknown_payment"]
    assert out.keys == [None, None, b"p1"]
    assert [dict(headers)["streamer_source"] for headers in out.headers] == [
        b"outcomes/0/7", b"outcomes/0/9", b"outcomes/0/8",
    ]  # fmt: skip


def test_versions_grow_with_what_was_learned(lab: Lab) -> None:
    """Only a model that learned since its last snapshot gets a new one, numbered on after a start."""
    lab.decide(*some([1, 2, 3]))
    assert not lab.learning.has_news
    lab.mature(NOW + WEEK + 3_000)
    assert lab.learning.has_news
    first = lab.hand_over()
    assert {name: version for name, (version, _) in first.scorers.items()} == {"fraud": 1}
    assert not lab.learning.has_news
    lab.join(outcome("o1", 1, "refund"))
    second = lab.hand_over()
    assert (second.scorers, second.snapshots) == ({}, {})
    lab.restart()
    assert lab.engine.versions == {"fraud": 1}
    lab.join(outcome("o2", 1))
    lab.learn()
    third = lab.hand_over()
    assert {name: version for name, (version, _) in third.scorers.items()} == {"fraud": 2}
    assert lab.store.progress.models == {"fraud": 2}
    (snapshot,) = lab.learning.snapshots()
    assert (snapshot.version, snapshot.examples, snapshot.topology) == (2, 4, lab.topology.fingerprint)
    assert snapshot.trained_until == NOW + 3_000


def test_a_snapshot_is_scored_by_as_it_was_learned(lab: Lab) -> None:
    """The scorer handed over and the one found in the store after a start are the learner's."""
    lab.decide(*some([1, 2, 3]))
    lab.mature(NOW + WEEK + 3_000)
    taken = lab.hand_over()
    assert taken.scorers["fraud"][1].compiled == lab.knowledge
    lab.restart()
    assert [one.scorer().compiled for one in lab.learning.snapshots()] == [lab.knowledge]


def test_snapshots_are_signed(tmp_path: Path) -> None:
    """A state directory with snapshots of another key is refused with the remedy."""
    keyed = Settings(state=SETTINGS.state, models=Models(snapshot_key=Secret("k" * 16)))
    lab = Lab(tmp_path / "state", given=keyed)
    lab.decide(*some([1]))
    lab.mature(NOW + 2 * WEEK)
    lab.hand_over()
    lab.given = SETTINGS
    with pytest.raises(ConfigError, match="snapshot_key"):
        lab.restart()
    lab.store.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.integers(1, 4)),
        st.tuples(
            st.just("join"), st.lists(st.tuples(st.integers(0, 12), st.sampled_from(KINDS)), max_size=4)
        ),
        st.tuples(st.just("mature"), st.integers(0, 12)),
        st.tuples(st.just("hand_over"), st.just(0)),
    ),
    max_size=12,
)


def follow(lab: Lab, steps: Sequence[tuple[str, Any]], first: int = 0) -> None:
    """Take steps numbered from `first`; outcomes and payments are named after their step."""
    for number, (what, how) in enumerate(steps, first):
        match what:
            case "decide":
                lab.decide(*some(range(lab.offset, lab.offset + how)))
            case "join":
                joined = [outcome(f"o{number}-{at}", one, kind) for at, (one, kind) in enumerate(how)]
                lab.join(*joined)
                lab.learn()
            case "mature":
                lab.mature(NOW + WEEK + how * 1_000)
            case _:
                lab.hand_over()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, STEPS)
def test_a_crash_changes_nothing_that_is_learned(
    tmp_path_factory: pytest.TempPathFactory, before: list[tuple[str, Any]], lost: list[tuple[str, Any]]
) -> None:
    """Steps since the last commit, taken again after a start, leave the learner as without the crash."""
    path = tmp_path_factory.mktemp("crash")
    lost = [step for step in lost if step[0] in ("join", "mature")]
    calm, hit = Lab(path / "calm"), Lab(path / "hit")
    for lab in (calm, hit):
        follow(lab, before)
        lab.hand_over()
    follow(hit, lost, 100)
    hit.restart()
    hit.outcomes = positions_of(hit.store.progress)["outcomes", 0] if calm.outcomes else 0
    for lab in (calm, hit):
        follow(lab, lost, 100)
        lab.learning.room.students["fraud"].fresh = True
    one, other = calm.hand_over(), hit.hand_over()
    assert calm.knowledge == hit.knowledge
    assert one.positions == other.positions
    assert [version for version, _ in one.scorers.values()] == [
        version for version, _ in other.scorers.values()
    ]
    calm.store.close()
    hit.store.close()


def test_the_position_of_outcomes_is_that_of_the_commit(lab: Lab) -> None:
    """Outcomes joined but not handed over are read again after a start."""
    lab.decide(*some([1]))
    lab.join(outcome("o1", 1, "refund"))
    lab.hand_over()
    lab.join(outcome("o2", 1, "refund"))
    assert lab.learning.positions == {("outcomes", 0): 2}
    lab.restart()
    assert lab.learning.positions == {("outcomes", 0): 1}


def test_kept_features_are_aligned_by_name(lab: Lab) -> None:
    """Batches decided under earlier declarations teach today's model what they have; the rest is absent."""
    lab.decide(*some([1, 2, 3]))
    old = lab.features("p1", "p2", "p3")
    changed = Entity("card", features=[mean(amount, "1d"), total(amount, "1h"), count("1h")])
    lab.restart(topology_of(Model("fraud", [changed], pipeline(), good_after="7d")))
    lab.decide(*some([4], NOW + 10_000))
    lab.join(outcome("o1", 2))
    lab.mature(NOW + WEEK + 30_000)
    model = lab.topology.models[0]
    learner = Learner("fraud", model.learner, model.features)
    absent = np.full(3, np.nan)
    learner.learn_many(np.stack([absent, old[:, 1], old[:, 0]], axis=1), np.array([False, True, False]))
    learner.learn_many(lab.features("p4"), np.array([False]))
    assert lab.knowledge == learner.scorer().compiled


def test_a_model_of_other_inputs_starts_anew(lab: Lab) -> None:
    """A snapshot of other inputs neither scores nor goes on learning; its version is not used again."""
    lab.decide(*some([1, 2]))
    lab.mature(NOW + WEEK + 2_000)
    lab.hand_over()
    changed = Entity("card", features=[total(amount, "1h"), count("1h")])
    lab.restart(topology_of(Model("fraud", [changed], pipeline(), good_after="7d")))
    assert list(lab.learning.snapshots()) == []
    lab.decide(*some([3]))
    lab.join(outcome("o1", 3))
    lab.learn()
    assert lab.knowledge == lab.taught(("p3", True))
    taken = lab.hand_over()
    assert taken.scorers["fraud"][0] == 2


def test_models_learn_each_in_their_own_time(tmp_path: Path) -> None:
    """Two models see the same goods, each after its own silence, through its own inputs."""
    other = Entity("merchant", features=[count("1h")])
    models = [
        Model("fast", [cards], pipeline(), good_after="1d"),
        Model("slow", [other, cards["count_1h"]], pipeline(), good_after="2d"),
    ]
    lab = Lab(tmp_path / "state", topology_of(*models))
    day = 86_400_000
    lab.decide(*some([1, 2]))
    lab.mature(NOW + 2_000 + day)
    assert lab.learning.learned == {"fast": 2}
    lab.mature(NOW + 2_000 + 2 * day)
    assert lab.learning.learned == {"fast": 2, "slow": 2}
    taken = lab.hand_over()
    assert {name: version for name, (version, _) in taken.scorers.items()} == {"fast": 1, "slow": 1}
    lab.store.close()


def test_a_fraud_waits_for_no_model_that_has_passed_it(tmp_path: Path) -> None:
    """While one model has seen nothing good, another that has matured its batch learns it at once."""
    models = [
        Model(name, [cards], pipeline(), good_after=after) for name, after in (("a", "1d"), ("b", "2d"))
    ]
    lab = Lab(tmp_path / "state", topology_of(*models))
    day = 86_400_000
    lab.decide(*some([1, 2]))
    lab.mature(NOW + 2_000 + day)
    lab.decide(*some([3], NOW + day))
    lab.join(outcome("o1", 2), outcome("o2", 3))
    lab.learn()
    assert lab.knowledge == lab.taught(("p1", False), ("p2", False), ("p2", True))
    lab.hand_over()
    lab.restart()
    lab.join(outcome("o3", 2, "dispute_lost"))
    lab.mature(NOW + 9 * day)
    students = lab.learning.room.students
    assert lab.knowledge == lab.taught(("p1", False), ("p2", False), ("p2", True), ("p3", True))
    assert students["b"].learner.scorer().compiled == lab.taught(("p1", False), ("p2", True), ("p3", True))
    lab.store.close()


def test_a_fraud_that_was_learned_does_not_wait_again(tmp_path: Path) -> None:
    """A model that is new has seen nothing good; what the other one has learned it does not learn twice."""
    first = Model("fraud", [cards], pipeline(), good_after="7d")
    lab = Lab(tmp_path / "state", topology_of(first))
    lab.decide(*some([1]))
    lab.mature(NOW + WEEK + 1_000)
    lab.decide(*some([2], NOW + WEEK))
    lab.join(outcome("o1", 2))
    lab.learn()
    lab.hand_over()
    lab.restart(topology_of(first, Model("new", [cards], pipeline(), good_after="30d")))
    lab.join(outcome("o2", 2, "dispute_lost"))
    lab.mature(NOW + 3 * WEEK)
    assert lab.knowledge == lab.taught(("p1", False), ("p2", True))
    lab.store.close()
