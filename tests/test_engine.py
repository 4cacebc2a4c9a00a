"""The engine: one answer per record, the same however the stream is cut, and nothing twice after a crash."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from river import linear_model, optim, preprocessing

from streamer import (
    Entity,
    Model,
    Policy,
    Topology,
    amount,
    block,
    count,
    distinct,
    mean,
    merchant,
    review,
    since_last,
    total,
)
from streamer.batch import Headers, Outgoing, Records
from streamer.conversion import RATES, InForce
from streamer.engine import Engine
from streamer.errors import StateError
from streamer.events import Decision, Rejection
from streamer.models.learner import Learner
from streamer.rates import RateTable
from streamer.scoring import Answer, Taken
from streamer.settings import Duration, Events, Rates, Settings, Size, State
from streamer.state.decided import DecidedBatches
from streamer.state.store import Progress, Store, WriteSet, positions_of

NOW = 1_700_000_000_000
HOUR, DAY = 3_600_000, 86_400_000
SETTINGS = Settings(state=State(memory_budget=Size(1 << 24)))

cards = Entity(
    "card",
    features=[
        count("1m", "1h", "1d"),
        total(amount, "1h"),
        mean(amount, "1d").before(),
        distinct(merchant, "1h"),
        since_last(unit="s"),
    ],
)
shops = Entity("merchant", features=[count("1h")])
pairs = Entity("pair", keys=("card", "merchant"), features=[count("1d")])
surge = (cards["sum_amount_1h"] / cards["mean_amount_1d_before"]).named("surge")


def taught() -> Any:
    """A pipeline that has learned that many payments of one card are fraud."""
    pipeline = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.1))
    draws = random.Random(1)
    for _ in range(200):
        burst = draws.randrange(10)
        pipeline.learn_one({"card_count_1h": burst, "surge": draws.random()}, burst > 5)
    return pipeline


fraud = Model("fraud", inputs=[cards, shops, surge], learner=taught())
TOPOLOGY = Topology(
    "tested",
    models=[fraud],
    policy=Policy("tested", 2, [review(cards["count_1m"] > 3, reason="burst"), block(fraud >= 0.6)]),
    entities=[pairs],
)


def payment(number: int, at: int = NOW, **changes: object) -> dict[str, object]:
    """A valid payment, fields changed."""
    given = {"payment_id": f"p{number}", "event_time": at, "amount": 100 + number, "currency": "EUR"}
    return given | {"card": "c1", "merchant": "m1"} | changes


def records_of(
    values: Iterable[Mapping[str, object] | bytes | None],
    start: int = 0,
    log_times: Sequence[int] | None = None,
    topic: str = "payments",
) -> Records:
    """Consecutive records from offset `start`; their log times are the event times unless given."""
    given = list(values)
    encoded = [value if isinstance(value, bytes | None) else msgspec.json.encode(value) for value in given]
    times = [int(str(value["event_time"])) if isinstance(value, Mapping) else NOW for value in given]
    n = len(given)
    return Records(
        topic,
        0,
        list(range(start, start + n)),
        list(log_times) if log_times is not None else times,
        [None] * n,
        encoded,
        [()] * n,
        sum(map(len, filter(None, encoded))),
    )


def cut_up(records: Records, sizes: Iterable[int]) -> list[Records]:
    """The same records in batches of these sizes, the last one with the rest."""
    parts, at = [], 0
    for size in (*sizes, len(records)):
        to = slice(at, at + size)
        if records.offsets[to]:
            parts.append(
                Records(
                    records.topic,
                    records.partition,
                    records.offsets[to],
                    records.timestamps[to],
                    records.keys[to],
                    records.values[to],
                    records.headers[to],
                    0,
                )
            )
        at += size
    return parts


def commit(engine: Engine, store: Store, taken: Taken | None = None) -> WriteSet:
    """What the worker does once all deliveries are confirmed."""
    writes = engine.cut(taken)
    store.commit(writes)
    engine.written()
    return writes


Sent = tuple[bytes | None, bytes | None, Headers]


def sent(outgoings: Iterable[Outgoing | None]) -> list[Sent]:
    """All records of these, in order."""
    return [
        record
        for out in outgoings
        if out is not None
        for record in zip(out.keys, out.values, out.headers, strict=True)
    ]


def decisions_of(answer: Answer) -> dict[str, Decision]:
    """The decisions by payment."""
    read = [msgspec.json.decode(value or b"", type=Decision) for value in answer.decisions.values]
    return {decision.payment_id: decision for decision in read}


def rejections_of(answer: Answer) -> list[Rejection]:
    """The rejections in order."""
    return [msgspec.json.decode(value or b"", type=Rejection) for value in answer.rejected.values]


def codes_of(answer: Answer) -> list[tuple[str | None, str]]:
    """Payment and code of each rejection."""
    return [(rejection.payment_id, rejection.code) for rejection in rejections_of(answer)]


def features_of(answer: Answer) -> dict[str, dict[str, float | None]]:
    """The features sent, by payment."""
    assert answer.features is not None
    read = [msgspec.json.decode(value or b"") for value in answer.features.values]
    return {one["payment_id"]: one["features"] for one in read}


def source_of(headers: Headers) -> int:
    """The offset that a record names as its source."""
    return int(dict(headers)["streamer_source"].rsplit(b"/", 1)[1])


def offsets_answered(answer: Answer) -> list[int]:
    """The offsets of the records that an answer is about."""
    return sorted(source_of(headers) for _, _, headers in sent([answer.decisions, answer.rejected]))


def mixture(draws: random.Random, n: int) -> Records:
    """Payments of few cards with all that can be wrong with them."""
    values: list[Mapping[str, object] | bytes | None] = []
    log_times: list[int] = []
    for number in range(n):
        at = NOW + number * 7_000
        kind = draws.randrange(14)
        value: Mapping[str, object] | bytes | None = payment(
            number, at - draws.choice([0, 0, 0, 90_000, 3 * HOUR]), card=f"c{draws.randrange(3)}",
            merchant=f"m{draws.randrange(2)}", amount=draws.randrange(1, 10_000),
        )  # fmt: skip
        match kind:
            case 0:
                value = draws.choice(
                    [b"{", b"", None, b"\xff", b"[1]", b'{"payment_id": "x"}', b'{"amount": -1}']
                )
            case 1 | 2 if values:
                value = draws.choice(values)
            case 3:
                value = payment(draws.randrange(number + 1), at, amount=7)
            case 4:
                value = payment(number, at + 2 * HOUR)
            case 5:
                value = payment(number, at - 8 * DAY)
            case 6:
                value = payment(number, at, live=False)
            case 7:
                value = payment(number, at, card=None)
            case 8:
                value = payment(number, at, card="4111111111111111")
            case _:
                pass
        values.append(value)
        log_times.append(at)
    return records_of(values, 100, log_times)


def run(
    path: Path, parts: Iterable[Records], commits: Iterable[bool] = ()
) -> tuple[list[Sent], list[Sent], list[Sent], list[object]]:
    """Decisions, rejections and features sent for the parts, and the rows stored of each payment."""
    wanted = iter(commits)
    with Store.open(path) as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
        answers = []
        for part in parts:
            answers.append(engine.process(part))
            if next(wanted, False):
                commit(engine, store)
        commit(engine, store)
        stored: list[object] = [
            (source, when, action, scores.tobytes(), features.tobytes())
            for _, batch in DecidedBatches(store).scan()
            for source, when, action, scores, features in zip(
                batch.source.tolist(),
                batch.event_time.tolist(),
                batch.action.tolist(),
                batch.scores,
                batch.features,
                strict=True,
            )
        ]
    return (
        sent(answer.decisions for answer in answers),
        sent(answer.rejected for answer in answers),
        sent(answer.features for answer in answers),
        stored,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Records, Any]:
    """A mixture of records, and all that came of it in one batch."""
    records = mixture(random.Random(11), 600)
    return records, run(tmp_path_factory.mktemp("whole") / "state", [records])


def test_every_record_has_one_answer(whole: tuple[Records, Any]) -> None:
    """A decision or a rejection, never both and never neither, and every kind of rejection is there."""
    records, (decisions, rejected, features, stored) = whole
    answered = [source_of(headers) for _, _, headers in (*decisions, *rejected)]
    assert sorted(answered) == records.offsets
    assert len(decisions) == len(features) == len(stored) > 300
    found = {msgspec.json.decode(value or b"", type=Rejection).code for _, value, _ in rejected}
    assert found == {
        "duplicate",
        "future",
        "id_conflict",
        "invalid_field",
        "invalid_json",
        "missing_field",
        "pan",
        "too_late",
    }
    assert [source_of(headers) for _, _, headers in decisions] == sorted(
        source_of(headers) for _, _, headers in decisions
    )
    actions = {msgspec.json.decode(value or b"", type=Decision).action for _, value, _ in decisions}
    assert actions == {"allow", "review", "block"}


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("commits", ["at the end", "after each batch"])
def test_batch_size_changes_nothing(
    whole: tuple[Records, Any],
    size: int,
    commits: str,
    tmp_path: Path,
) -> None:
    """Keys, values and headers of every answer, and the features stored, are those of one large batch."""
    records, expected = whole
    parts = cut_up(records, [size] * len(records))
    assert run(tmp_path / "state", parts, [commits == "after each batch"] * len(parts)) == expected


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.lists(st.integers(1, 12), max_size=8), st.lists(st.booleans(), max_size=8))
def test_cuts_and_commits_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: list[int], commits: list[bool]
) -> None:
    """However a stream is cut into batches and wherever it is committed, its answers are the same."""
    records = mixture(random.Random(seed), 40)
    path = tmp_path_factory.mktemp("cuts")
    expected = run(path / "one", [records])
    assert run(path / "many", cut_up(records, sizes), commits) == expected


def test_a_crash_repeats_the_same_bytes(whole: tuple[Records, Any], tmp_path: Path) -> None:
    """What was answered but not committed is answered again after a start, byte for byte."""
    records, expected = whole
    parts = cut_up(records, [90] * 7)
    answers: dict[int, Sent] = {}
    for crash in range(len(parts)):
        with Store.open(tmp_path / "state") as store:
            engine = Engine(TOPOLOGY, store, SETTINGS)
            reached = positions_of(store.progress).get(("payments", 0), 100)
            for number, part in enumerate(parts[: crash + 1]):
                if part.offsets[0] < reached:
                    continue
                answer = engine.process(part)
                for record in sent([answer.decisions, answer.rejected]):
                    assert answers.setdefault(source_of(record[2]), record) == record
                if number < crash:
                    commit(engine, store)
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        for record in sent([engine.process(parts[-1]).decisions]):
            assert answers[source_of(record[2])] == record
    assert list(answers.values()) != []
    assert answers == {source_of(record[2]): record for record in (*expected[0], *expected[1])}


def test_features_are_those_of_the_stream(tmp_path: Path) -> None:
    """Counts, sums and ratios as one would find them by hand; what was not there is null."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
        answer = engine.process(
            records_of(
                [
                    payment(1, NOW, amount=100),
                    payment(2, NOW + 30_000, amount=300, merchant="m2"),
                    payment(3, NOW + 2 * HOUR, amount=600),
                    payment(4, NOW + 2 * HOUR, card=None, merchant=None),
                ]
            )
        )
    found = features_of(answer)
    assert found["p1"] == {
        "pair_count_1d": 1, "card_count_1m": 1, "card_count_1h": 1, "card_count_1d": 1,
        "card_sum_amount_1h": 100, "card_mean_amount_1d_before": None, "card_distinct_merchant_1h": 1,
        "card_since_last": None, "merchant_count_1h": 1, "surge": None,
    }  # fmt: skip
    assert found["p2"]["surge"] == 4.0
    assert found["p2"]["card_distinct_merchant_1h"] == 2
    assert found["p3"] == {
        "pair_count_1d": 2, "card_count_1m": 1, "card_count_1h": 1, "card_count_1d": 3,
        "card_sum_amount_1h": 600, "card_mean_amount_1d_before": 200, "card_distinct_merchant_1h": 1,
        "card_since_last": 7170, "merchant_count_1h": 1, "surge": 3.0,
    }  # fmt: skip
    assert set(found["p4"].values()) == {None}
    missing = {name: decision.missing for name, decision in decisions_of(answer).items()}
    assert missing == {"p1": [], "p2": [], "p3": [], "p4": ["card", "merchant"]}
    assert answer.present == {"pair": 3, "card": 3, "merchant": 3}


def test_the_future_is_judged_by_the_record(tmp_path: Path) -> None:
    """An event time more than the tolerance ahead of its record's timestamp is refused, and forgotten."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        tolerance = SETTINGS.events.future_tolerance
        ahead = [payment(1, NOW + tolerance), payment(2, NOW + tolerance + 1)]
        answer = engine.process(records_of(ahead, log_times=[NOW, NOW]))
        assert list(decisions_of(answer)) == ["p1"]
        (rejection,) = rejections_of(answer)
        assert rejection.code == "future"
        assert rejection.error == (
            f"Expected an event_time at most {tolerance} ms after the record's timestamp {NOW},"
            f" got {NOW + tolerance + 1} - at `$.event_time`"
        )
        assert engine.clock == NOW + tolerance
        again = engine.process(records_of([payment(2, NOW)], 2))
        assert list(decisions_of(again)) == ["p2"]


def test_without_a_reference_nothing_is_from_the_future(tmp_path: Path) -> None:
    """`future_reference = none` takes any event time."""
    free = Settings(state=SETTINGS.state, events=Events(future_reference="none"))
    with Store.open(tmp_path / "state") as store:
        answer = Engine(TOPOLOGY, store, free).process(records_of([payment(1, NOW + DAY)], log_times=[NOW]))
    assert list(decisions_of(answer)) == ["p1"]


def test_what_is_too_late_is_judged_by_what_came_before_it(tmp_path: Path) -> None:
    """Exactly the allowed lateness counts, one more does not; the greatest time survives a start."""
    lateness = SETTINGS.events.allowed_lateness
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        late = [payment(1, NOW - lateness - 1), payment(2, NOW), payment(3, NOW - lateness)]
        answer = engine.process(records_of([*late, payment(4, NOW - lateness - 1)]))
        assert list(decisions_of(answer)) == ["p1", "p2", "p3"]
        (rejection,) = rejections_of(answer)
        assert (rejection.payment_id, rejection.code) == ("p4", "too_late")
        assert f"the partition's greatest {NOW}, got {NOW - lateness - 1}" in rejection.error
        commit(engine, store)
    with Store.open(tmp_path / "state") as store:
        answer = Engine(TOPOLOGY, store, SETTINGS).process(records_of([payment(5, NOW - lateness - 1)], 4))
        assert codes_of(answer) == [("p5", "too_late")]


def test_refused_payments_do_not_move_time(tmp_path: Path) -> None:
    """Neither the future nor test traffic makes a payment late."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        times = [NOW + 30 * DAY, NOW + 30 * DAY, NOW]
        values = [payment(1, times[0]), payment(2, times[1], live=False), payment(3)]
        answer = engine.process(records_of(values, log_times=[NOW, times[1], NOW]))
        assert list(decisions_of(answer)) == ["p2", "p3"]
        assert codes_of(answer) == [("p1", "future")]
        assert engine.clock == NOW


def test_test_traffic_is_answered_and_not_counted(tmp_path: Path) -> None:
    """A payment with `live` false is answered as a live one would be, and no later one sees it."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
        values = [payment(1), payment(2, live=False), payment(3), payment(2, live=False)]
        answer = engine.process(records_of(values))
    counts = {name: features["card_count_1h"] for name, features in features_of(answer).items()}
    assert counts == {"p1": 1, "p2": 2, "p3": 2}
    assert codes_of(answer) == [("p2", "duplicate")]


REPEATED = [payment(1), payment(2), payment(1), payment(2, amount=5)]


@pytest.mark.parametrize("sizes", [[4], [2, 2], [1, 1, 1, 1]])
@pytest.mark.parametrize("how", ["in memory", "after a commit", "after a start"])
def test_a_payment_is_decided_once(sizes: list[int], how: str, tmp_path: Path) -> None:
    """A repeat and a conflict name the first one's source, wherever the batches end and the worker starts."""
    store = Store.open(tmp_path / "state")
    engine = Engine(TOPOLOGY, store, SETTINGS)
    decided: list[str] = []
    rejected: list[Rejection] = []
    for part in cut_up(records_of(REPEATED, 40), sizes):
        answer = engine.process(part)
        decided.extend(decisions_of(answer))
        rejected.extend(rejections_of(answer))
        if how != "in memory":
            commit(engine, store)
        if how == "after a start":
            store.close()
            store = Store.open(tmp_path / "state")
            engine = Engine(TOPOLOGY, store, SETTINGS)
    store.close()
    assert decided == ["p1", "p2"]
    assert [(one.payment_id, one.code) for one in rejected] == [("p1", "duplicate"), ("p2", "id_conflict")]
    assert [one.error for one in rejected] == [
        f"Expected a new payment_id, got that of payments/0/{offset} with {content} content"
        " - at `$.payment_id`"
        for offset, content in ((40, "the same"), (41, "another"))
    ]


def test_what_was_not_committed_is_forgotten(tmp_path: Path) -> None:
    """After a crash before the commit the same record is no duplicate, and is counted once."""
    answers = []
    for _ in range(2):
        with Store.open(tmp_path / "state") as store:
            engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
            answers.append(engine.process(records_of([payment(1), payment(2)])))
            assert store.progress == Progress()
    assert sent([answers[0].decisions]) == sent([answers[1].decisions])
    assert [features_of(answer)["p2"]["card_count_1h"] for answer in answers] == [2, 2]


def test_a_payment_id_is_remembered_for_its_window(tmp_path: Path) -> None:
    """The same id again is new once more than the window of log time has passed."""
    window = 10 * HOUR
    brief = Settings(state=SETTINGS.state, events=Events(dedup_window=Duration(window)))
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, brief)
        engine.process(records_of([payment(1)], log_times=[NOW]))
        commit(engine, store)
        assert codes_of(engine.process(records_of([payment(1)], 1, [NOW + window]))) == [("p1", "duplicate")]
        assert list(decisions_of(engine.process(records_of([payment(1)], 2, [NOW + window + 1])))) == ["p1"]


def test_a_batch_of_nothing_good_moves_the_position(tmp_path: Path) -> None:
    """Rejections alone are an answer: the next commit stores that they were given."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        answer = engine.process(records_of([b"{", None], 8))
        assert offsets_answered(answer) == [8, 9]
        assert engine.positions == {("payments", 0): 10}
        assert engine.changed
        commit(engine, store)
        assert not engine.changed
        assert positions_of(store.progress) == {("payments", 0): 10}


def test_partitions_are_apart(tmp_path: Path) -> None:
    """Positions and greatest times are those of each partition; keys are shared by all of them."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
        engine.process(records_of([payment(1, NOW + 30 * DAY)]))
        other = replace(records_of([payment(2), payment(1, NOW + 30 * DAY)], 5), partition=1)
        answer = engine.process(other)
        assert list(decisions_of(answer)) == ["p2"]
        assert "payments/0/0" in rejections_of(answer)[0].error
        progress = commit(engine, store).progress
    assert progress.positions == {"payments": {0: 1, 1: 7}}
    assert progress.greatest == {0: NOW + 30 * DAY, 1: NOW + 30 * DAY}


def test_models_taken_in_decide_from_there_on(tmp_path: Path) -> None:
    """Scores, versions and what is stored change at the cut and not before; a start keeps the versions."""
    learner = Learner("fraud", fraud.learner, fraud.features)
    learner.learn_many(np.ones((20, len(fraud.features))), np.ones(20, np.bool_))
    newer = learner.scorer()
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        before = decisions_of(engine.process(records_of([payment(1)])))["p1"]
        taken = Taken([(b"\4fraud", b"bytes")], {("outcomes", 0): 3}, {"fraud": (7, newer)})
        commit(engine, store, taken)
        after = decisions_of(engine.process(records_of([payment(2, card="c2", merchant="m2")], 1)))["p2"]
        commit(engine, store)
        assert (before.models, after.models) == ({"fraud": "0"}, {"fraud": "7"})
        assert before.score != after.score
        assert store.get_many([b"\4fraud"]) == [b"bytes"]
        assert positions_of(store.progress) == {("payments", 0): 2, ("outcomes", 0): 3}
        stored = [batch.models for _, batch in DecidedBatches(store).scan()]
        assert stored == [{"fraud": 0}, {"fraud": 7}]
        assert engine.versions == store.progress.models == {"fraud": 7}
    with Store.open(tmp_path / "state") as store:
        again = Engine(TOPOLOGY, store, SETTINGS)
        assert store.progress.models == {"fraud": 7}
        again.restore_scorer("fraud", 7, newer)
        same = decisions_of(again.process(records_of([payment(3, card="c3", merchant="m3")], 2)))["p3"]
        assert (same.score, same.models) == (after.score, after.models)


def test_a_model_that_knows_nothing_decides_nothing(tmp_path: Path) -> None:
    """Before the first lesson a score is one half and meets no rule; rules on features hold all the same."""
    blank = Model("fraud", inputs=[cards], learner=linear_model.LogisticRegression())
    rules = [block(blank >= 0.1), block(blank < 0.9), review(cards["count_1m"] > 1)]
    made = Topology("tested", [blank], Policy("tested", 1, rules))
    with Store.open(tmp_path / "state") as store:
        answer = Engine(made, store, SETTINGS).process(records_of([payment(1), payment(2)]))
    found = decisions_of(answer)
    assert [(one.action, one.score) for one in found.values()] == [("allow", 0.5), ("review", 0.5)]
    assert answer.actions == {"allow": 1, "review": 1}


def test_reasons_are_the_inputs_that_raised_the_score(tmp_path: Path) -> None:
    """A block by score names its three greatest contributions, by features with their values."""
    values = [payment(number, NOW + number * 30_000) for number in range(12)]
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
        answer = engine.process(records_of(values))
        last = decisions_of(answer)["p11"]
        features = features_of(answer)["p11"]
    assert (last.action, last.policy, last.topology) == ("block", "tested@2", TOPOLOGY.fingerprint)
    assert {reason.code for reason in last.reasons} == {"fraud_score"}
    raised = {reason.feature: reason.value for reason in last.reasons}
    assert list(raised) == ["surge", "card_count_1h"]
    assert raised == {name: features[name] for name in raised if name}


def test_a_decided_payment_is_found_as_it_was_decided(tmp_path: Path) -> None:
    """Features, score, action and source of every payment come back from the store by its id."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
        answers = [
            engine.process(records_of([payment(1), payment(2, NOW + 5)], 3)),
            engine.process(records_of([payment(3, card=None)], 5)),
        ]
        commit(engine, store)
        found = DecidedBatches(store).find(engine.identify(["p1", "p2", "p3", "p4"]))
    assert found[3] is None
    for number, one in enumerate(found[:3], 1):
        assert one is not None
        answer = answers[number > 2]
        names = dict(zip(TOPOLOGY.features, one.features.tolist(), strict=True))
        given = features_of(answer)[f"p{number}"]
        assert {name: None if np.isnan(value) else value for name, value in names.items()} == given
        assert one.scores.tolist() == [decisions_of(answer)[f"p{number}"].score]
        assert (one.source, one.topology, one.models) == (number + 2, TOPOLOGY.fingerprint, {"fraud": 0})
        assert msgspec.msgpack.decode(one.payment)["payment_id"] == f"p{number}"


def test_rejections_come_in_the_order_of_records(tmp_path: Path) -> None:
    """Whatever stage refuses them."""
    values: list[Mapping[str, object] | bytes | None] = [
        payment(1),
        payment(1),
        b"{",
        payment(2, NOW - 30 * DAY),
        payment(3, NOW + DAY),
        payment(1, amount=9),
    ]
    with Store.open(tmp_path / "state") as store:
        answer = Engine(TOPOLOGY, store, SETTINGS).process(records_of(values, log_times=[NOW] * 6))
    assert [source_of(headers) for headers in answer.rejected.headers] == [1, 2, 3, 4, 5]
    assert codes_of(answer) == [
        ("p1", "duplicate"),
        (None, "invalid_json"),
        ("p2", "too_late"),
        ("p3", "future"),
        ("p1", "id_conflict"),
    ]
    assert answer.codes == {"duplicate": 1, "invalid_json": 1, "too_late": 1, "future": 1, "id_conflict": 1}


def test_without_a_rate_a_payment_counts_and_its_amount_does_not(tmp_path: Path) -> None:
    """It is decided and counted like any other; no sum and no mean knows it; its currency is told."""
    values = [
        payment(1, amount=100),
        payment(2, NOW + 30_000, amount=300, currency="USD", merchant="m2"),
        payment(3, NOW + 40_000, amount=600),
        payment(4, NOW + 50_000, amount=7, currency="JPY", card="c2"),
    ]
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True)
        answer = engine.process(records_of(values))
    assert list(decisions_of(answer)) == ["p1", "p2", "p3", "p4"]
    assert answer.unrated == {"USD": 1, "JPY": 1}
    found = features_of(answer)
    names = ("card_count_1h", "card_sum_amount_1h", "card_mean_amount_1d_before", "card_distinct_merchant_1h")
    assert [[found[one][name] for name in names] for one in found] == [
        [1, 100, None, 1],
        [2, 100, 100, 2],
        [3, 700, 100, 2],
        [1, 0, None, 1],
    ]


def test_amounts_are_summed_in_the_base_currency(tmp_path: Path) -> None:
    """By the rates of the file that the settings name, of the payment's own day, conditions included."""
    file = tmp_path / "rates.csv"
    file.write_text("date,currency,rate\n2023-11-14,USD,0.5\n2023-11-15,USD,2\n2023-11-14,JPY,0.01\n")
    big = Entity("card", features=[total(amount, "1d"), count("1d", where=amount > 400, name="big")])
    made = Topology("tested", [Model("fraud", [big], linear_model.LogisticRegression())], Policy("p", 1))
    midnight = 1_700_006_400_000  # 2023-11-15T00:00:00Z
    values = [
        payment(1, midnight - 2, amount=250),
        payment(2, midnight - 1, amount=601, currency="USD"),
        payment(3, midnight, amount=301, currency="USD"),
        payment(4, midnight, amount=700, currency="JPY"),
    ]
    with Store.open(tmp_path / "state") as store:
        engine = Engine(made, store, Settings(rates=Rates(file=str(file))), emit_features=True)
        answer = engine.process(records_of(values))
    assert not answer.unrated
    # 601 cents at 0.5 are 300.5, to the even 300; 301 at 2 are 602; 700 yen at 0.01 are 7 euros.
    assert [list(one.values()) for one in features_of(answer).values()] == [
        [250, 0],
        [550, 0],
        [1152, 1],
        [1852, 2],
    ]


def test_a_payment_keeps_the_rate_it_was_decided_by(tmp_path: Path) -> None:
    """What is counted again after a crash is converted as it was, under new rates too; missing stays so."""
    values = [
        payment(1, amount=100, currency="USD"),
        payment(2, amount=10, currency="GBP"),
        payment(3, amount=1000),
    ]
    old = RateTable("EUR", {("USD", 0): Fraction(2)}, "old")
    new = RateTable("EUR", {("USD", 0): Fraction(3), ("GBP", 0): Fraction(5)}, "new")
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, rates=old)
        engine.process(records_of(values))
        commit(engine, store)
        assert store.progress.redo < store.progress.batches
    later = [payment(number, NOW + number, amount=10, currency="GBP") for number in (4, 5)]
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True, rates=new)
        found = features_of(engine.process(records_of(later, 3)))
        assert [one["card_sum_amount_1h"] for one in found.values()] == [1250, 1300]
        assert [one["card_count_1h"] for one in found.values()] == [4, 5]
        store.commit(engine.cut(everything=True))
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True, rates=old)
        (found_last,) = features_of(engine.process(records_of([payment(6, NOW + 6, amount=1)], 5))).values()
        assert found_last["card_sum_amount_1h"] == 1301


def test_the_rates_in_force_are_in_the_store(tmp_path: Path) -> None:
    """From which batch on, one row for each version, from its first commit on."""

    def start(version: str, number: int) -> None:
        with Store.open(tmp_path / "state") as store:
            engine = Engine(TOPOLOGY, store, SETTINGS, rates=RateTable("EUR", {}, version))
            engine.process(records_of([payment(number)], number))
            commit(engine, store)

    for number, version in enumerate(("none", "a", "a", "none", "b")):
        start(version, number)
    with Store.open(tmp_path / "state") as store:
        Engine(TOPOLOGY, store, SETTINGS, rates=RateTable("EUR", {}, "never committed"))
        stored = {
            key.removeprefix(RATES): msgspec.msgpack.decode(value, type=InForce)
            for key, value in store.scan(RATES)
        }
    assert {version: (one.base, one.since) for version, one in stored.items()} == {
        b"none": ("EUR", [0, 3]),
        b"a": ("EUR", [1]),
        b"b": ("EUR", [4]),
    }


def test_another_base_currency_needs_another_state(tmp_path: Path) -> None:
    """Sums in euros do not become sums in dollars."""
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        engine.process(records_of([payment(1)]))
        commit(engine, store)
        with pytest.raises(StateError, match=r"amounts in EUR, and .* currency is USD: name a new state"):
            Engine(replace(TOPOLOGY, base_currency="USD"), store, SETTINGS)
