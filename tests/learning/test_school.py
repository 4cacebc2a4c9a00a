"""The school: one learner for all shards, each example learned once, and its snapshots score everywhere."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from river import linear_model, optim, preprocessing

from streamer import Entity, Model, Policy, Topology, amount, count, total
from streamer.batch import Outgoing, Records
from streamer.learning.examples import Examples, Message, decode, encode
from streamer.learning.learning import Learning
from streamer.learning.signing import Signing
from streamer.scoring import Taken
from streamer.settings import Models, Secret, Settings, Size, State
from streamer.state.store import LETTERS, META, MODELS, Progress, Store, WriteSet, nested
from tests.chain.test_shard import features_of
from tests.chains import Job, Log, Worker, spread
from tests.learning.test_learning import outcome
from tests.test_engine import DAY, NOW, payment

SETTINGS = Settings(state=State(memory_budget=Size(1 << 20)))
KEYED = Settings(state=SETTINGS.state, models=Models(snapshot_key=Secret("k" * 20)))
cards = Entity("card", features=[count("1h"), total(amount, "1h")])
shops = Entity("merchant", features=[count("1h")])


def pipeline() -> Any:
    """A pipeline that knows nothing."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1))


MODELS_OF = {
    "fast": Model("fast", [cards, shops], pipeline(), good_after="1d"),
    "slow": Model("slow", [shops, cards["sum_amount_1h"]], pipeline(), good_after="2d"),
}
TOPOLOGY = Topology("tested", list(MODELS_OF.values()), Policy("tested", 1))
Example = tuple[tuple[float, ...], bool, float]


class Term:
    """Learning on all shards of a job at random; keeps what the school has learned and committed."""

    def __init__(self, path: Path, draws: random.Random, settings: Settings = SETTINGS, n: int = 90) -> None:
        self.draws = draws
        self.log = Log(3)
        self.job = Job(path, TOPOLOGY, settings, self.log, draws)
        self.learned: dict[str, list[Example]] = {name: [] for name in MODELS_OF}
        self.versions: dict[str, list[int]] = {name: [] for name in MODELS_OF}
        self._since: dict[str, list[Example]] = {name: [] for name in MODELS_OF}
        self.number = 0
        self.pay(n)

    def pay(self, n: int) -> list[str]:
        """Decide so many payments of the present, in all shards, and commit; answers their ids."""
        names = []
        for _ in range(n):
            one = payment(
                self.number, NOW + self.number, amount=self.draws.randrange(1, 10_000),
                card=f"c{self.draws.randrange(4)}", merchant=self.draws.choice(["m1", "m2", None]),
            )  # fmt: skip
            spread(self.log, [(self.draws.randrange(3), NOW, msgspec.json.encode(one), ())])
            names.append(str(one["payment_id"]))
            self.number += 1
        self.job.run()
        return names

    def report(self, numbers: Iterable[int], name: str = "o") -> None:
        """Write that these payments are fraud."""
        out = Outgoing("outcomes")
        for number in numbers:
            out.append(b"p%d" % number, msgspec.json.encode(outcome(name, number)))
        self.log.send(out)

    def learn(self, worker: Worker, most: int) -> None:
        """Learn a little; at the school, note what of."""
        if worker.number == 0:
            for name, student in worker.learning.room.students.items():
                queued = ((row, part) for part in student.queue for row in range(len(part)))
                for row, part in itertools.islice(queued, most):
                    inputs = tuple(part.inputs[row].tolist())
                    self._since[name].append((inputs, bool(part.fraud[row]), float(part.weight[row])))
        worker.learning.learn(most)

    def take_in(self, worker: Worker) -> Taken:
        """Commit what was learned, all that is queued."""
        while worker.learning.waiting:
            self.learn(worker, 7)
        taken = worker.learning.hand_over()
        worker.commit(taken)
        if worker.number == 0:
            for name, since in self._since.items():
                self.learned[name] += since
                since.clear()
            for name, (version, _) in taken.scorers.items():
                self.versions[name].append(version)
        return taken

    def crash(self, worker: Worker) -> None:
        """Lose what was not committed, at any point of a commit that takes something in, or after it."""
        match self.draws.randrange(5):
            case 0 if not worker.learning.waiting:  # a commit that never was
                worker.shard.cut(worker.learning.hand_over())
            case 1:  # stored and not told
                self.take_in(worker)
            case 2:  # told in part, and nobody remembers
                for outgoing in worker.shard.tell():
                    most = self.draws.randint(0, len(outgoing))
                    self.log.send(outgoing, most)
                    if most < len(outgoing):
                        break
            case 3:  # told, and the commit that knows so is torn
                worker.tell()
                worker.shard.cut()
            case _:
                pass
        if worker.number == 0:
            for since in self._since.values():
                since.clear()
        worker.crash()

    def step(self, crashes: float) -> None:
        """Something of what a worker does beside deciding."""
        draws, worker = self.draws, self.draws.choice(self.job.workers)
        match draws.randrange(7):
            case 0:
                worker.join()
            case 1:
                worker.hear(draws.randint(1, 3))
            case 2:
                worker.learning.mature(NOW + draws.randrange(4) * DAY)
            case 3:
                self.learn(worker, draws.randint(1, 20))
            case 4:
                self.take_in(worker)
            case 5:
                worker.tell()
            case _:
                worker.commit()
        if draws.random() < crashes:
            self.job.crashes += 1
            self.crash(worker)

    def finish(self) -> None:
        """Until all has been joined, matured, learned, sent and heard."""
        while True:
            for worker in self.job.workers:
                worker.join()
                worker.hear()
                while worker.learning.mature(NOW + 100 * DAY):
                    pass
                if worker.learning.waiting or worker.learning.has_news:
                    self.take_in(worker)
                worker.tell()
                worker.commit()
            if not any(worker.unheard() or worker.learning.has_news for worker in self.job.workers):
                return

    def inputs(self, model: str) -> dict[str, tuple[float, ...]]:
        """By payment, what a model was given, from the topic `features`."""
        return {
            payment_id: tuple(
                math.nan if found[name] is None else found[name] for name in MODELS_OF[model].features
            )
            for payment_id, (value,) in features_of(self.log).items()
            for found in [msgspec.json.decode(value)["features"]]
        }

    def check_once(self, model: str, frauds: Collection[int]) -> None:
        """Each fraud is learned once, what is good once, and a fraud known late was good before, once."""
        inputs = self.inputs(model)
        good = counted([(inputs[f"p{n}"], False, 1.0) for n in range(self.number) if n not in frauds])
        known = counted([(inputs[f"p{n}"], True, 1.0) for n in frauds])
        late = counted([(inputs[f"p{n}"], False, 1.0) for n in frauds])
        assert good + known <= counted(self.learned[model]) <= good + known + late


def river(model: str, examples: list[Example]) -> Any:
    """What River itself has learned from examples in this order."""
    scaler, regression = preprocessing.StandardScaler(), linear_model.LogisticRegression(optim.SGD(0.1))
    names = MODELS_OF[model].features
    for inputs, fraud, weight in examples:
        given = {name: value for name, value in zip(names, inputs, strict=True) if not math.isnan(value)}
        scaler.learn_one(given)
        regression.learn_one(scaler.transform_one(given), fraud, weight)
    return scaler | regression


def counted(examples: list[Example]) -> Counter[str]:
    """How often each example is there; absent inputs are equal."""
    return Counter(map(repr, examples))


@pytest.mark.parametrize("settings", [SETTINGS, KEYED], ids=["no key", "key"])
@pytest.mark.parametrize("seed", range(5))
def test_every_example_is_learned_once_by_one_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, settings: Settings
) -> None:
    """Whatever crashes: as River does in the order in which the school got them, and scored by everywhere."""
    if seed % 2:
        monkeypatch.setattr("streamer.learning.examples.MOST_BYTES", 400)  # five examples a message
    draws = random.Random(seed)
    term = Term(tmp_path, draws, settings)
    frauds = draws.sample(range(90), 25)
    waves = [frauds[:8], frauds[8:16], frauds[4:20], frauds[16:]]
    for wave, numbers in enumerate(waves):
        term.report(numbers, f"o{wave % 2}")
        for _ in range(40):
            term.step(crashes=0.15)
    term.finish()
    assert term.job.crashes > 5
    assert term.job.unreadable == []
    school, *others = term.job.workers
    for name in MODELS_OF:
        learned = term.learned[name]
        term.check_once(name, frauds)
        oracle = river(name, learned)
        student = school.learning.room.students[name]
        assert student.learner.examples == len(learned)
        assert dict(student.learner.pipeline["LogisticRegression"].weights) == dict(
            oracle["LogisticRegression"].weights
        )
        assert student.learner.pipeline["LogisticRegression"].intercept == (
            oracle["LogisticRegression"].intercept
        )
        assert term.versions[name] == list(range(1, len(term.versions[name]) + 1))
    last = {name: versions[-1] for name, versions in term.versions.items()}
    for worker in (*others, school):
        assert worker.shard.versions == worker.store.progress.models == last
        assert list(worker.store.scan(LETTERS)) == []
        worker.crash()
        assert worker.shard.versions == last
        assert worker.unheard() == 0
    new = term.pay(30)
    decisions = {key: msgspec.json.decode(value or b"") for key, value, _ in term.log.all("decisions")}
    assert all(term.log.end("stages.score", worker.number) for worker in term.job.workers)
    for name, model in MODELS_OF.items():
        inputs, oracle = term.inputs(name), river(name, term.learned[name])
        for one in new:
            decision = decisions[one.encode()]
            assert decision["models"] == {name: str(version) for name, version in last.items()}
            given = zip(model.features, inputs[one], strict=True)
            present = {feature: value for feature, value in given if not math.isnan(value)}
            expected = oracle.predict_proba_one(present)[True]
            assert decision["scores"][name] == pytest.approx(expected, abs=1e-9)
    term.job.close()


def lesson(number: int, sender: int = 1, model: str = "fast", names: tuple[str, ...] | None = None) -> bytes:
    """A message of two examples."""
    names = MODELS_OF["fast"].features if names is None else names
    inputs = np.arange(2.0 * len(names)).reshape(2, len(names)) + number
    examples = Examples(model, inputs, np.array([True, False]), np.array([1.0, 4.0]), NOW + number)
    return encode(Message(sender, number, names, examples))


def records_of(topic: str, partition: int, *values: bytes | None) -> Records:
    """Records from offset 0 on."""
    log = Log(3)
    for value in values:
        log.append(topic, partition, NOW, value)
    return log.read(topic, partition, 0, 1 << 20)


def learning_on(store: Store, number: int = 0, settings: Settings = SETTINGS) -> Learning:
    """The learning of one of three shards that joins nothing."""
    return Learning(TOPOLOGY, store, settings, lambda _: [], number=number, shards=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store."""
    with Store.open(tmp_path / "state") as made:
        yield made


def test_the_school_skips_what_is_no_lesson(store: Store) -> None:
    """Garbage, damage, senders and models that there are not: each is named, and the rest is learned."""
    learning = learning_on(store)
    whole = lesson(0)
    damaged = whole[:60] + bytes([whole[60] ^ 1]) + whole[61:]
    values = [
        None,
        b"{}",
        damaged,
        lesson(0, sender=3),
        lesson(0, sender=0),
        lesson(0, 2, "gone"),
        whole,
        whole,
    ]
    texts = learning.hear(records_of("stages.learn", 0, *values))
    expected = [
        "got no value",
        "begin otherwise",
        "is damaged",
        "got 3",
        "got 0",
        "got 2 for 'gone' from shard 2",
    ]
    assert len(texts) == len(expected)
    for place, (text, part) in enumerate(zip(texts, expected, strict=True)):
        assert part in text
        assert text.endswith(f" - at `stages.learn/0/{place}`; it is skipped")
    assert learning.waiting == 2
    assert learning.positions == {("stages.learn", 0): 8}


def test_lessons_of_other_inputs_teach_what_they_have(store: Store) -> None:
    """A shard under earlier declarations names its inputs: those known here are learned, others absent."""
    learning = learning_on(store)
    learning.hear(records_of("stages.learn", 0, lesson(5, names=("gone", "card_count_1h"))))
    (examples,) = learning.room.students["fast"].queue
    expected = {"card_count_1h": [6.0, 8.0]}
    for column, name in enumerate(MODELS_OF["fast"].features):
        assert np.array_equal(examples.inputs[:, column], expected.get(name, [math.nan] * 2), equal_nan=True)
    assert examples.fraud.tolist() == [True, False]
    assert examples.weight.tolist() == [1.0, 4.0]


class Teacher:
    """A school with a store of its own, for the letters that it would send."""

    def __init__(self, path: Path, settings: Settings = SETTINGS) -> None:
        self.store = Store.open(path)
        self.learning = learning_on(self.store, settings=settings)
        self.heard = 0

    def letter(self) -> bytes:
        """Learn, take a snapshot, and answer what the others get of it."""
        values = [lesson(number) for number in range(self.heard + 1)]
        assert self.learning.hear(records_of("stages.learn", 0, *values)) == []
        self.heard += 1
        self.learning.learn(1 << 20)
        taken = self.learning.hand_over()
        self.store.commit(WriteSet(Progress(positions=nested(taken.positions)), taken.rows))
        (letter,) = taken.letters
        assert (letter.to, letter.partitions, letter.key) == ("models", (1, 2), b"fast")
        return letter.value


@pytest.fixture
def teacher(tmp_path: Path) -> Iterator[Teacher]:
    """A school without a key."""
    made = Teacher(tmp_path / "school")
    yield made
    made.store.close()


def test_a_pupil_takes_the_newest_snapshot(store: Store, teacher: Teacher) -> None:
    """Older and repeated ones change nothing, before a start or after it; it is signed anew for the store."""
    first, second, third = (teacher.letter() for _ in range(3))
    pupil = learning_on(store, 2)
    assert pupil.hear(records_of("stages.models", 2, second, first, second)) == []
    assert (pupil.has_news, pupil.is_due) == (True, True)
    taken = pupil.hand_over()
    assert {name: version for name, (version, _) in taken.scorers.items()} == {"fast": 2}
    assert (taken.snapshots, taken.letters) == ({}, [])
    assert taken.positions == {("stages.models", 2): 3}
    store.commit(WriteSet(Progress(), taken.rows))
    again = learning_on(store, 2)
    (kept,) = again.snapshots()
    assert (kept.version, kept.learner) == (2, None)
    assert kept.compiled == taken.scorers["fast"][1].compiled
    assert again.hear(records_of("stages.models", 2, first, second)) == []
    assert not again.has_news
    again.hear(records_of("stages.models", 2, third))
    assert again.hand_over().scorers["fast"][0] == 3


def test_nothing_received_is_ever_unpickled(teacher: Teacher) -> None:
    """A letter holds what a scorer needs, and no learner; the school's own row does hold it."""
    letter = teacher.letter()
    assert Signing(teacher.store, SETTINGS).opened(letter).learner is None
    (kept,) = teacher.learning.snapshots()
    assert kept.learner is not None


def test_a_pupil_refuses_what_it_cannot_score_by(store: Store, teacher: Teacher) -> None:
    """No snapshot, a damaged one, one of another model or of other inputs: named, skipped, never used."""
    letter = teacher.letter()
    signing = Signing(teacher.store, SETTINGS)
    made = signing.opened(letter)
    values = [
        None,
        b"{}",
        letter[:90] + bytes([letter[90] ^ 1]) + letter[91:],
        signing.letter(msgspec.structs.replace(made, model="gone")),
        signing.letter(msgspec.structs.replace(made, model="slow")),
        signing.letter(
            msgspec.structs.replace(made, compiled=msgspec.structs.replace(made.compiled, intercept=math.nan))
        ),
    ]
    expected = [
        "begin with",
        "begin with",
        "signature",
        "expected fast, slow",
        "expected 2 given",
        "diverged",
    ]
    pupil = learning_on(store, 1)
    texts = pupil.hear(records_of("stages.models", 1, *values))
    assert len(texts) == len(expected)
    for place, (text, part) in enumerate(zip(texts, expected, strict=True)):
        assert part in text
        assert text.endswith(f" - at `stages.models/1/{place}`; it is skipped")
    assert not pupil.has_news
    assert pupil.positions == {("stages.models", 1): 6}
    pupil.hear(records_of("stages.models", 1, letter))
    assert pupil.hand_over().scorers["fast"][0] == 1


def test_a_key_tells_strangers_from_the_school(store: Store, tmp_path: Path) -> None:
    """With a key set, what was signed without one or by another is refused; what it signed is used."""
    other = Settings(state=SETTINGS.state, models=Models(snapshot_key=Secret("other" * 4)))
    pupil = learning_on(store, 1, KEYED)
    for number, given in enumerate((SETTINGS, other, KEYED)):
        one = Teacher(tmp_path / str(number), given)
        texts = pupil.hear(records_of("stages.models", 1, one.letter()))
        assert [("snapshot_key" in text) for text in texts] == ([] if given is KEYED else [True])
        assert pupil.has_news == (given is KEYED)
        one.store.close()


def test_other_topics_are_none_of_its_business(store: Store) -> None:
    """A shard skips what is written where nobody should write, and goes on."""
    for number, heard, other in ((0, "stages.learn", "stages.models"), (1, "stages.models", "stages.learn")):
        learning = learning_on(store, number)
        assert learning.hears == heard
        texts = learning.hear(records_of(other, number, lesson(0)))
        assert texts == [f"Expected records of {heard}, got {other}/{number}; they are skipped"]
        assert learning.waiting == 0
        assert learning.positions == {(other, number): 1}


def test_examples_do_not_fill_the_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pupil with many examples is due before its interval; they leave in numbered messages."""
    monkeypatch.setattr("streamer.learning.pupil.MOST_KEPT", 1_000)
    pupil = learning_on(store, 1)
    inputs = np.ones((30, 3))
    pupil.room.teach(Examples("fast", inputs, np.ones(30, np.bool_), np.ones(30), NOW))
    assert (pupil.has_news, pupil.is_due) == (True, False)
    pupil.room.teach(Examples("fast", inputs, np.ones(30, np.bool_), np.ones(30), NOW + 1))
    pupil.room.teach(Examples("slow", inputs[:1, :2], np.ones(1, np.bool_), np.ones(1), NOW))
    assert (pupil.has_news, pupil.is_due, pupil.waiting) == (True, True, 0)
    taken = pupil.hand_over()
    assert (pupil.has_news, pupil.is_due) == (False, False)
    found = [decode(letter.value) for letter in taken.letters]
    assert [(one.sender, one.number, one.examples.model, len(one.examples)) for one in found] == [
        (1, 0, "fast", 60),
        (1, 1, "slow", 1),
    ]
    assert {(letter.to, letter.partitions) for letter in taken.letters} == {("learn", (0,))}
    store.commit(WriteSet(Progress(), taken.rows))
    after = learning_on(store, 1)
    after.room.teach(Examples("fast", inputs, np.ones(30, np.bool_), np.ones(30), NOW))
    assert [decode(letter.value).number for letter in after.hand_over().letters] == [2]


def test_one_partition_sends_no_letters(store: Store) -> None:
    """A single shard keeps its snapshots and what it has heard to itself."""
    learning = Learning(TOPOLOGY, store, SETTINGS, lambda _: [])
    learning.room.teach(Examples("fast", np.ones((1, 3)), np.ones(1, np.bool_), np.ones(1), NOW))
    learning.learn(1)
    taken = learning.hand_over()
    assert taken.letters == []
    assert sorted(key for key, _ in taken.rows) == [
        MODELS + b"fast", META + b"matured/fast", META + b"matured/slow",
    ]  # fmt: skip


def test_garbage_stops_no_learning(tmp_path: Path) -> None:
    """Between the messages of three shards, repeated and damaged ones: all is learned once, each is named."""
    term = Term(tmp_path, random.Random(7))
    term.report(range(0, 90, 3))
    damaged: set[bytes | None] = set()
    for _ in range(120):
        term.step(crashes=0.05)
        topic, partition = term.draws.choice(
            [("stages.learn", 0), ("stages.models", 1), ("stages.models", 2)]
        )
        present = [value for _, _, value, _ in term.log.records[topic, partition] if value]
        if present and term.draws.random() < 0.3:
            term.log.append(topic, partition, NOW, term.draws.choice(present))
        if present and term.draws.random() < 0.3:
            one = bytearray(term.draws.choice(present))
            one[term.draws.randrange(len(one))] ^= 1 << term.draws.randrange(8)
            term.log.append(topic, partition, NOW, bytes(one))
            damaged.add(bytes(one))
    term.finish()
    for name in MODELS_OF:
        term.check_once(name, range(0, 90, 3))
    places = {
        f"{topic}/{partition}/{offset}"
        for (topic, partition), records in term.log.records.items()
        for offset, (_, _, value, _) in enumerate(records)
        if value in damaged
    }
    assert len(places) > 10
    assert {text.rpartition("at `")[2].partition("`")[0] for text in term.job.unreadable} == places
    for worker in term.job.workers:
        assert worker.shard.versions == term.job.workers[0].shard.versions
    term.job.close()
