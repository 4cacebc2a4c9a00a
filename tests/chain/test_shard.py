"""Shards: what a chain of stages answers is what one engine answers, whatever crashes, and nothing twice."""

import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer import (
    Entity,
    Model,
    Policy,
    Topology,
    amount,
    block,
    count,
    distinct,
    fraud_count,
    fraud_rate,
    mean,
    merchant,
    payment_value,
    review,
    since_last,
    total,
)
from streamer.batch import Headers, Outgoing
from streamer.chain.shard import Shard
from streamer.engine import Engine
from streamer.errors import StateError, StreamerError
from streamer.features import hot
from streamer.rates import RateTable
from streamer.settings import Duration, Events, Settings, Size, State
from streamer.state.decided import DecidedBatches
from streamer.state.store import BLOCKS, DECIDED, IDS, SIGHTED, UNTOLD, Store
from tests.chains import Job, Log, spread
from tests.end_to_end.windows import Feature
from tests.learning.test_learning import outcome
from tests.test_engine import DAY, HOUR, NOW, mixture, payment, taught

SETTINGS = Settings(state=State(memory_budget=Size(1 << 20)))
ROOMY = Settings(state=State(memory_budget=Size(1 << 24)))
TIGHT = Settings(state=State(memory_budget=Size(1 << 12)))
RATES = RateTable("EUR", {("USD", 0): Fraction(9, 10)}, "then")


@pytest.fixture(autouse=True)
def _small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tables ask for few addresses: a start after a crash in the same process has to clear them."""
    monkeypatch.setattr(hot, "SLACK", 1 << 20)


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
card_frauds = Entity("card_fraud", keys=["card"], features=[fraud_count("30d")])
shops = Entity("merchant", features=[count("1h"), fraud_rate("1d", prior=(1, 4))])
pairs = Entity("pair", keys=("card", "merchant"), features=[count("1d")])
surge = (cards["sum_amount_1h"] / cards["mean_amount_1d_before"]).named("surge")
fraud = Model("fraud", inputs=[cards, shops, surge], learner=taught())
TOPOLOGY = Topology(
    "tested",
    models=[fraud],
    policy=Policy("tested", 2, [review(cards["count_1m"] > 3, reason="burst"), block(fraud >= 0.6)]),
    entities=[pairs, card_frauds],
)
ANSWERS = ("decisions", "payments.rejected")
Spread = list[tuple[int, int, bytes | None, Headers]]


def payments(draws: random.Random, n: int, partitions: int) -> Spread:
    """A mixture of all that can come, over the partitions, with repeats in others and some headers."""
    records = mixture(draws, n)
    given: Spread = []
    for place, (value, timestamp) in enumerate(zip(records.values, records.timestamps, strict=True)):
        headers: Headers = ()
        if place % 7 == 0:
            headers = [("traceparent", b"00-%d" % place), ("other", b"x"), ("correlation_id", b"\xff")]
        if value is not None and place % 5 == 0:
            value = value.replace(b'"EUR"', b'"USD"' if place % 2 else b'"JPY"')  # noqa: PLW2901
        given.append((draws.randrange(partitions), timestamp, value, headers))
    return given


def one_step(path: Path, given: Spread, order: Sequence[tuple[int, int]] | None = None) -> Log:
    """What one engine answers to the same records of the same partitions, in the order in which they came."""
    source, log = Log(1 + max(partition for partition, *_ in given)), Log(1)
    places = []
    for partition, timestamp, value, headers in given:
        places.append((partition, source.end("payments", partition)))
        source.append("payments", partition, timestamp, value, headers)
    with Store.open(path) as store:
        engine = Engine(TOPOLOGY, store, SETTINGS, emit_features=True, rates=RATES)
        for partition, offset in order or places:
            answer = engine.process(source.read("payments", partition, offset, 1))
            for outgoing in (answer.decisions, answer.rejected, answer.features):
                if outgoing is not None:
                    log.send(outgoing)
    return log


def features_of(log: Log) -> dict[str, set[bytes]]:
    """By payment, the distinct features that were sent."""
    found: dict[str, set[bytes]] = {}
    for key, value, _ in log.all("features"):
        found.setdefault((key or b"").decode(), set()).add(value or b"")
    return found


def stored(store: Store) -> dict[int, tuple[object, ...]]:
    """What was decided, by source; fails where a payment was stored twice."""
    found: dict[int, tuple[object, ...]] = {}
    for _, batch in DecidedBatches(store).scan():
        for row, source in enumerate(batch.source.tolist()):
            assert source not in found
            found[source] = (batch.event_time[row], batch.action[row], batch.features[row].tobytes())
    return found


@pytest.mark.parametrize("settings", [SETTINGS, TIGHT], ids=["in memory", "on disk"])
@pytest.mark.parametrize("seed", range(2))
def test_one_shard_answers_as_one_engine(tmp_path: Path, seed: int, settings: Settings) -> None:
    """Keys, values and headers of answers and features, with crashes anywhere and parts of batches sent."""
    draws = random.Random(seed)
    given = payments(draws, 300, 1)
    log = Log(1)
    spread(log, given)
    job = Job(tmp_path / "chain", TOPOLOGY, settings, log, draws, rates=RATES)
    job.run(most=20, crashes=0.1)
    expected = one_step(tmp_path / "engine", given)
    assert job.crashes > 2
    assert log.answers(*ANSWERS) == expected.answers(*ANSWERS)
    assert features_of(log) == features_of(expected)
    assert len(log.answers(*ANSWERS)) == len(given)
    assert len(stored(job.workers[0].store)) == len(features_of(log))
    job.close()


@pytest.mark.parametrize("seed", range(2))
def test_shards_answer_as_one_engine_where_the_order_is_the_same(tmp_path: Path, seed: int) -> None:
    """Three shards, payment after payment: keys and repeats in any partition, crashes in between."""
    draws = random.Random(seed)
    given = payments(draws, 150, 3)
    log = Log(3)
    job = Job(tmp_path / "chain", TOPOLOGY, SETTINGS, log, draws, rates=RATES)
    for one in given:
        spread(log, [one])
        job.run(crashes=0.03)
    expected = one_step(tmp_path / "engine", given)
    assert job.crashes > 2
    assert log.answers(*ANSWERS) == expected.answers(*ANSWERS)
    assert features_of(log) == features_of(expected)
    job.close()


def number_of(name: str) -> tuple[int, int]:
    """Partition and offset of a source."""
    *_, partition, offset = name.split("/")
    return int(partition), int(offset)


def in_order(log: Log, stage: str, entity: Any) -> dict[str, dict[str, float | None]]:
    """Features of an entity by source, naively: payments count in the order in which the stage got them."""
    found: dict[str, dict[str, float | None]] = {}
    for partition in range(log.partitions):
        counted: dict[tuple[object, ...], list[dict[str, Any]]] = {}
        for source in log.order(f"stages.{stage}", partition):
            at, offset = number_of(source)
            _, _, value, _ = log.records["payments", at][offset]
            one = {
                name: given for name, given in msgspec.json.decode(value or b"").items() if given is not None
            }
            key = tuple(one.get(name) for name in entity.keys)
            known = [] if None in key else counted.setdefault(key, [])
            earlier = [other for other in known if other["event_time"] <= one["event_time"]]
            found[source] = {
                feature.name: None
                if None in key
                else Feature.named(feature.name.removeprefix(f"{entity.name}_")).of(one, earlier)
                for feature in entity.features
                if "fraud" not in feature.name
            }
            since = found[source].get("card_since_last")
            if since is not None and since > DAY / 1_000:  # the entity's longest window is a day
                found[source]["card_since_last"] = None
            if one.get("live", True):
                known.append(one)
    return found


@pytest.mark.parametrize("settings", [SETTINGS, TIGHT], ids=["in memory", "on disk"])
@pytest.mark.parametrize("seed", range(2))
def test_features_are_those_of_the_order_in_each_stage(tmp_path: Path, seed: int, settings: Settings) -> None:
    """Four shards in any order, with crashes: every payment has one answer, and counts once for each key."""
    draws = random.Random(seed)
    given = [one for one in payments(draws, 400, 4) if b'"USD"' not in (one[2] or b"")]
    given = [(at, time, (value or b"").replace(b'"JPY"', b'"EUR"'), head) for at, time, value, head in given]
    log = Log(4)
    spread(log, given)
    job = Job(tmp_path, TOPOLOGY, settings, log, draws, rates=RATES)
    job.run(most=12, crashes=0.08)
    assert job.crashes > 5
    answers = log.answers(*ANSWERS)
    assert len(answers) == len(given)
    assert {len(distinct_answers) for distinct_answers in answers.values()} == {1}
    decided = {source: sent for source, ((topic, sent),) in answers.items() if topic == "decisions"}
    assert len(decided) > 150
    expected: dict[str, dict[str, float | None]] = {}
    for stage, entity in (("card", cards), ("merchant", shops), ("pair", pairs)):
        for source, features in in_order(log, stage, entity).items():
            expected.setdefault(f"payments/{source}", {}).update(features)
    assert expected.keys() == decided.keys()
    sent = {name: msgspec.json.decode(value) for name, (value,) in features_of(log).items()}
    for source, features in expected.items():
        found = sent[(decided[source][0] or b"").decode()]["features"]
        assert {name: found[name] for name in features} == features
    assert sum(len(stored(worker.store)) for worker in job.workers) == len(decided)
    job.close()


def test_a_payment_is_decided_once_whatever_partition_repeats_it(tmp_path: Path) -> None:
    """A repeat and a conflict in other partitions name the first one, and show what was received, masked."""
    log = Log(3)
    job = Job(tmp_path, TOPOLOGY, SETTINGS, log, random.Random(1))
    given = [
        payment(1, unknown="4111 1111 1111 1111"),
        payment(1, unknown="4111 1111 1111 1111"),
        payment(1, amount=7, unknown="x" * 5_000),
    ]
    for partition, value in enumerate(given):
        spread(log, [(partition, NOW, msgspec.json.encode(value), ())])
        job.run()
        for worker in job.workers:
            worker.crash()
    answers = log.answers(*ANSWERS)
    assert [[topic for topic, _ in answers[f"payments/{at}/0"]] for at in range(3)] == [
        ["decisions"],
        ["payments.rejected"],
        ["payments.rejected"],
    ]
    expected = one_step(
        tmp_path / "engine", [(at, NOW, msgspec.json.encode(one), ()) for at, one in enumerate(given)]
    )
    assert answers == expected.answers(*ANSWERS)
    ((_, (_, value, _)),) = answers["payments/1/0"]
    assert b"payments/0/0" in (value or b"")
    job.close()


def test_a_state_directory_is_that_of_one_shard(tmp_path: Path) -> None:
    """Another shard's, one of another number of shards, and one that held all partitions are refused."""
    log = Log(2)
    spread(log, [(n % 2, NOW, msgspec.json.encode(payment(n)), ()) for n in range(10)])
    job = Job(tmp_path, TOPOLOGY, SETTINGS, log, random.Random(1))
    job.run()
    job.close()
    with Store.open(tmp_path / "0") as store:
        for number, shards in ((1, 2), (0, 3), (0, 1)):
            wrong = f"holds the state of shard 0 of 2, expected that of shard {number} of {shards}"
            with pytest.raises(StateError, match=wrong):
                Shard(TOPOLOGY, store, SETTINGS, number=number, shards=shards)
        with pytest.raises(StateError, match="holds the state of shard 0 of 2, expected that of all"):
            Engine(TOPOLOGY, store, SETTINGS)
    with Store.open(tmp_path / "engine") as store:
        engine = Engine(TOPOLOGY, store, SETTINGS)
        store.commit(engine.cut())
        with pytest.raises(StateError, match="holds the state of all partitions in one, expected"):
            Shard(TOPOLOGY, store, SETTINGS, number=0, shards=1)


def test_a_topology_without_entities_is_a_chain(tmp_path: Path) -> None:
    """Payments go from being identified to being decided, by what they say themselves."""
    size = payment_value(amount).log1p().named("size")
    model = Model("fraud", inputs=[size], learner=taught())
    topology = Topology("small", models=[model], policy=Policy("small", 1, [review(size > 4.8)]))
    log = Log(2)
    spread(log, [(n % 2, NOW, msgspec.json.encode(payment(n)), ()) for n in range(40)])
    job = Job(tmp_path, topology, SETTINGS, log, random.Random(1))
    job.run(crashes=0.1)
    found = {key: msgspec.json.decode(value or b"")["action"] for key, value, _ in log.all("decisions")}
    assert len(found) == 40
    # ln(1 + x) is above 4.8 from x = 121 on.
    assert {key for key, action in found.items() if action == "review"} == {b"p%d" % n for n in range(21, 40)}
    job.close()


def test_a_shard_is_one_partition(tmp_path: Path) -> None:
    """Records of another partition or topic are refused, and numbers beyond the last."""
    with Store.open(tmp_path / "state") as store:
        shard = Job(tmp_path / "job", TOPOLOGY, SETTINGS, Log(2), random.Random(1)).workers[1].shard
        log = Log(2)
        spread(log, [(0, NOW, b"{", ())])
        with pytest.raises(StreamerError, match="expected records of partition 1 of one of payments, "):
            shard.process(log.read("payments", 0, 0, 1))
        with pytest.raises(StreamerError, match=r"got outcomes/1"):
            shard.process(replace(log.read("payments", 0, 0, 1), topic="outcomes", partition=1))
        spread(log, [(1, NOW, b"{", ())] * 3)
        shard.process(log.read("payments", 1, 0, 2))
        with pytest.raises(StreamerError, match="payments/1 from offset 2 on, got 1: they were taken in"):
            shard.process(log.read("payments", 1, 1, 2))
        assert len(shard.process(log.read("payments", 1, 2, 1)).rejected) == 1
        with pytest.raises(StreamerError, match="from 0 to 1, got 2"):
            Shard(TOPOLOGY, store, SETTINGS, number=2, shards=2)


def known_frauds(job: Job, draws: random.Random) -> None:
    """Take the outcomes in and tell of them, with crashes at every point of it, until all are told."""
    for worker in job.workers:
        for _ in range(draws.randrange(4)):
            match draws.randrange(4):
                case 0:  # a commit that never was
                    worker.join()
                    worker.shard.cut(worker.learning.hand_over())
                case 1:  # stored, not told
                    worker.join()
                    worker.commit(worker.learning.hand_over())
                case 2:  # told in part, and nobody remembers
                    for outgoing in worker.shard.tell():
                        job.log.send(outgoing, draws.randint(0, len(outgoing)))
                case _:  # told, and the commit that knows so is torn
                    worker.tell()
                    worker.shard.cut()
            worker.crash()
        worker.join()
        worker.commit(worker.learning.hand_over())
        worker.tell()


@pytest.mark.parametrize("seed", range(4))
def test_known_frauds_count_once(tmp_path: Path, seed: int) -> None:
    """Whatever is told twice, a payment is one fraud of its card and of its merchant, since it was known."""
    draws = random.Random(seed)
    log = Log(3)
    job = Job(tmp_path, TOPOLOGY, SETTINGS, log, draws)
    paid = [
        payment(n, NOW + n, card=f"c{draws.randrange(4)}", merchant=draws.choice(["m1", "m2", None]))
        for n in range(80)
    ]
    spread(log, [(draws.randrange(3), NOW, msgspec.json.encode(one), ()) for one in paid])
    job.run(crashes=0.02)
    told = dict.fromkeys(draws.sample(range(80), 30))
    for name in ("first", "again"):
        for number in told:
            made = outcome(name, number, at=NOW + HOUR + number)
            out = Outgoing("outcomes")
            out.append(made.payment_id.encode(), msgspec.json.encode(made))
            log.send(out)
        known_frauds(job, draws)
        job.run(crashes=0.05)
    for worker in job.workers:
        worker.tell()
        worker.commit()
        worker.crash()
        assert list(worker.store.scan(UNTOLD)) == []
    job.run()
    half = NOW + HOUR + 40
    probes = [
        payment(1_000 + place, at, card=card, merchant=shop)
        for place, (at, card, shop) in enumerate(
            (at, card, shop)
            for at in (half, NOW + 2 * HOUR)
            for card, shop in [("c0", "m1"), ("c1", "m2"), ("c2", "m1"), ("c3", None)]
        )
    ]
    spread(log, [(draws.randrange(3), NOW + 2 * HOUR, msgspec.json.encode(one), ()) for one in probes])
    job.run()
    sent = {name: msgspec.json.decode(value) for name, (value,) in features_of(log).items()}
    for probe in probes:
        found = sent[str(probe["payment_id"])]["features"]
        since = [paid[n] for n in told if NOW + HOUR + n <= int(str(probe["event_time"]))]
        assert found["card_fraud_fraud_count_30d"] == sum(one["card"] == probe["card"] for one in since)
        if probe["merchant"] is None:
            assert found["merchant_fraud_rate_1d"] is None
            continue
        before = [one for one in paid if one["merchant"] == probe["merchant"]]
        before += [
            one for one in probes if one["merchant"] == probe["merchant"] and counted_before(log, one, probe)
        ]
        frauds = sum(one["merchant"] == probe["merchant"] for one in since)
        assert found["merchant_fraud_rate_1d"] == (frauds + 1) / (len(before) + 4)
    job.close()


def counted_before(log: Log, one: dict[str, object], probe: dict[str, object]) -> bool:
    """Whether the merchants' stage received a payment before another one, and it is not later."""
    if int(str(one["event_time"])) > int(str(probe["event_time"])):
        return False
    for partition in range(log.partitions):
        ids = []
        for source in log.order("stages.merchant", partition):
            at, offset = number_of(source)
            ids.append(msgspec.json.decode(log.records["payments", at][offset][2] or b"")["payment_id"])
        if probe["payment_id"] in ids:
            return one["payment_id"] in ids[: ids.index(probe["payment_id"])]
    raise AssertionError(f"{probe} was never counted")


def test_garbage_between_stages_stops_nothing(tmp_path: Path) -> None:
    """It is said where it is and what was expected; the payments before and after it are decided."""
    log = Log(2)
    job = Job(tmp_path, TOPOLOGY, SETTINGS, log, random.Random(1))
    for turn, garbage in enumerate([b"{}", None, b"streamer\1" + b"x" * 90]):
        for topic in job.workers[0].shard.chain.topics[1:]:
            log.append(topic, turn % 2, NOW, garbage)
        spread(log, [(0, NOW, msgspec.json.encode(payment(turn, NOW + turn)), ())])
        job.run()
    assert len({key for key, _, _ in log.all("decisions")}) == 3
    assert len(job.unreadable) == 15
    assert all(text.startswith("Expected ") and "at `stages." in text for text in job.unreadable)
    job.close()


def test_rows_of_another_topology_stop_the_shard(tmp_path: Path) -> None:
    """They must not be lost: the error says what to do, and nothing of them counts as read."""
    log = Log(1)
    given = [(0, NOW, msgspec.json.encode(payment(number)), ()) for number in range(3)]
    spread(log, given)
    job = Job(tmp_path / "before", TOPOLOGY, SETTINGS, log, random.Random(1))
    (worker,) = job.workers
    for topic in ("payments", "stages.identify", "stages.card"):
        job._send(worker.process(topic, 10))
    job.close()
    wider = Entity("card", features=[count("1h", "7d"), total(amount, "1h"), mean(amount, "1d").before()])
    model = Model("fraud", inputs=[wider], learner=taught())
    other = Topology("tested", models=[model], policy=Policy("tested", 1), entities=[shops])
    later = Job(tmp_path / "after", other, SETTINGS, log, random.Random(1))
    (worker,) = later.workers
    with pytest.raises(StreamerError, match="run that one until its stages have read all their topics"):
        worker.process("stages.merchant", 10)
    assert worker.shard.positions == {}
    later.close()


def test_a_batch_larger_than_a_message_is_split_and_heard_once(tmp_path: Path) -> None:
    """Messages stay below what a log takes; what a crash made be sent again, cut otherwise, adds nothing."""
    log = Log(2)
    long = {f"field{number}": "x" * 200 for number in range(20)}
    given = [
        (number % 2, NOW, msgspec.json.encode(payment(number, **long)), [("tracestate", b"t" * 5_000)])
        for number in range(600)
    ]
    spread(log, given)
    job = Job(tmp_path, TOPOLOGY, ROOMY, log, random.Random(2))
    job.run(most=400, crashes=0.3, commits=0.1)
    assert job.crashes > 3
    topics = job.workers[0].shard.chain.topics
    sizes = [len(value or b"") for topic in topics for _, value, _ in log.all(topic)]
    assert 500_000 < max(sizes) <= 900_000
    answers = log.answers(*ANSWERS)
    assert len(answers) == 600
    assert {len(found) for found in answers.values()} == {1}
    sent = [msgspec.json.decode(value)["features"] for (value,) in features_of(log).values()]
    assert sorted(features["card_count_1m"] for features in sent) == list(range(1, 601))
    job.close()


def test_months_take_no_more_room_than_weeks(tmp_path: Path) -> None:
    """Marks, decided batches and keys go once no payment to come can need them, in every shard."""
    brief = Settings(
        state=State(memory_budget=Size(1 << 20), decided_retention=Duration(10 * DAY)),
        events=Events(allowed_lateness=Duration(DAY), dedup_window=Duration(DAY)),
    )
    model = Model("fraud", inputs=[cards], learner=taught(), good_after="1d")
    topology = Topology("tested", models=[model], policy=Policy("tested", 1))
    log, draws = Log(2), random.Random(3)
    job = Job(tmp_path, topology, brief, log, draws)
    sizes = []
    for day in range(100):
        given = []
        for number in range(60):
            at = NOW + day * DAY + number * 1_000_000
            one = payment(day * 60 + number, at, card=f"c{day}-{number}")
            given.append((number % 2, at, msgspec.json.encode(one), ()))
        spread(log, given)
        job.run(commits=0.5)
        for worker in job.workers:
            while worker.learning.mature(worker.shard.clock):
                worker.learning.learn(1 << 20)
            worker.learning.learn(1 << 20)
            worker.commit(worker.learning.hand_over())
        rooms = {"sighted": SIGHTED, "ids": IDS, "decided": DECIDED, "blocks": BLOCKS}
        sizes.append(
            {
                name: sum(1 for worker in job.workers for _ in worker.store.scan(room))
                for name, room in rooms.items()
            }
        )
    for name in sizes[0]:
        early, late = (max(size[name] for size in sizes[begin : begin + 25]) for begin in (40, 75))
        assert late <= 1.5 * early, name
        assert late < 60 * 50, name
    assert {room for worker in job.workers for room in worker.shard.swept} >= {"ids", "decided", "blocks"}
    job.close()


def test_all_shards_of_a_worker_share_its_memory(tmp_path: Path) -> None:
    """Four of them keep about as many keys in memory as one has room for, of twice as many that there are."""
    held = []
    settings = Settings(state=State(memory_budget=Size(1 << 19)))
    for shards in (1, 4):
        log = Log(shards)
        for number in range(2_000):
            value = msgspec.json.encode(payment(number, card=f"c{number}", merchant=f"m{number % 100}"))
            log.append("payments", number % shards, NOW, value, ())
        job = Job(tmp_path / str(shards), TOPOLOGY, settings, log, random.Random(shards))
        job.run(most=40, commits=1.0)
        assert all(not worker.shard.waiting_rows for worker in job.workers)
        held.append(sum(sum(worker.shard.keys.values()) for worker in job.workers))
        job.close()
    alone, together = held
    assert alone < 2_000, "there is a card and a pair for each payment"
    assert together <= 1.5 * alone
