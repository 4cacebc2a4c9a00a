"""What users test with: the driver answers as the worker does, and the fake broker fails as it is told to."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from river import linear_model, optim

from streamer import Entity, Model, Policy, Source, Topology, amount, count, review, total
from streamer.batch import Outgoing, Records
from streamer.errors import StreamerError
from streamer.settings import Events, Settings, Size, State
from streamer.testing import START, Clock, FakePublisher, TopologyDriver, confirm, hold, lose, refuse, repeat

MINUTE, DAY = 60_000, 86_400_000

cards = Entity("card", features=[count("1m"), total(amount, "1d")])
fraud = Model(
    "fraud", inputs=[cards], learner=linear_model.LogisticRegression(optim.SGD(0.1)), good_after="1d"
)
TOPOLOGY = Topology(
    "driven", models=[fraud], policy=Policy("tested", 1, [review(cards["count_1m"] > 2, reason="burst")])
)


def paid(number: int, **fields: object) -> dict[str, object]:
    """A payment of 1.00 EUR by card c."""
    return {"payment_id": f"p{number}", "amount": 100, "currency": "EUR", "card": "c"} | fields


@pytest.fixture
def driver() -> Iterator[TopologyDriver]:
    """A driver on an empty state."""
    with TopologyDriver(TOPOLOGY) as made:
        yield made


def test_every_payment_has_its_answer_in_its_place(driver: TopologyDriver) -> None:
    """Mappings, bytes and tombstones; decisions with their features, rejections with their code."""
    good, broken, none, other = driver.decide_many([paid(1), b"{", None, paid(2, amount=50)])
    assert good.decision is not None
    assert (good.action, good.key, good.features) == (
        "allow",
        b"p1",
        {"card_count_1m": 1.0, "card_sum_amount_1d": 100.0},
    )
    assert good.decision.event_time == START
    assert (broken.code, none.code, other.code) == ("invalid_json", "invalid_json", None)
    assert other.features == {"card_count_1m": 2.0, "card_sum_amount_1d": 150.0}
    with pytest.raises(StreamerError, match=r"Expected a decision, got a rejection: invalid_json: "):
        _ = broken.action
    assert driver.decide_many([]) == []


def test_records_are_taken_as_they_are(driver: TopologyDriver) -> None:
    """Offsets with gaps and timestamps of their own; the answer names its source."""
    value = b'{"payment_id":"a","event_time":%d,"amount":1,"currency":"EUR","card":"c"}' % START
    tracing = [("traceparent", b"00-1")]
    records = Records("payments", 0, [4, 9], [START, START], [None, None], [value, b"["], [tracing, ()], 0)
    first, second = driver.decide_many(records)
    assert dict(first.headers)["streamer_source"] == b"payments/0/4"
    assert dict(first.headers)["traceparent"] == b"00-1"
    assert dict(second.headers)["streamer_source"] == b"payments/0/9"
    assert dict(driver.decide_one(paid(1)).headers)["streamer_source"] == b"payments/0/10"


def test_time_moves_by_hand_and_by_payments(driver: TopologyDriver) -> None:
    """A window closes to the millisecond; a payment's own time counts; the future is what the log says."""
    driver.decide_one(paid(1))
    driver.now += MINUTE - 1
    assert driver.decide_one(paid(2)).features["card_count_1m"] == 2.0
    driver.advance("1m")
    assert driver.decide_one(paid(3)).features["card_count_1m"] == 1.0
    assert driver.decide_one(paid(4, event_time=START + DAY)).code is None
    assert driver.now == START + DAY
    assert driver.decide_one(paid(5, event_time=START + 2 * DAY), log_time=START + DAY).code == "future"


def test_a_source_of_another_shape_is_driven_alike() -> None:
    """Seconds and other names: the driver fills in and reads the time as the source does."""
    source = Source(rename={"at": "event_time", "pan_token": "card"}, time_unit="s")
    topology = Topology("other", models=[fraud], policy=Policy("tested", 1), source=source)
    with TopologyDriver(topology) as driver:
        value = {"payment_id": "a", "amount": 1, "currency": "EUR", "pan_token": "c"}
        driver.decide_one(value)
        late = driver.decide_one({**value, "payment_id": "b", "at": START // 1000 + 30})
        assert (late.features["card_count_1m"], driver.now) == (2.0, START + 30_000)


@pytest.mark.parametrize("again", ["restart", "crash"])
def test_a_start_in_between_changes_no_answer(driver: TopologyDriver, again: str) -> None:
    """After it, payments are answered as without it, and those of before are duplicates."""
    batches = [[paid(10 * batch + number) for number in range(3)] for batch in range(4)]
    with TopologyDriver(TOPOLOGY) as undisturbed:
        wanted = [undisturbed.decide_many(batch) for batch in batches]
    found = []
    for batch in batches:
        found.append(driver.decide_many(batch))
        getattr(driver, again)()
    assert wanted == found
    assert driver.decide_one(batches[0][0]).code == "duplicate"


def test_a_crash_repeats_what_was_not_committed(driver: TopologyDriver) -> None:
    """The same answers, byte for byte, and none of those before the commit."""
    driver.decide_many([paid(1), paid(2)])
    driver.commit()
    later = [driver.decide_one(paid(3)), *driver.decide_many([paid(4), b"{", paid(3)])]
    assert driver.crash() == later
    assert [answer.code for answer in later] == [None, None, "invalid_json", "duplicate"]
    assert driver.crash() == later
    driver.commit()
    assert driver.crash() == []


def test_outcomes_teach_from_a_commit_on(driver: TopologyDriver) -> None:
    """A fraud and the goods of a day later make a model; it survives a restart and a crash."""
    driver.decide_many([paid(number, card=f"c{number}") for number in range(20)])
    driver.advance("2d")
    driver.decide_one(paid(100))
    driver.commit()
    assert driver.versions == {"fraud": 1}
    chargeback = {"outcome_id": "o1", "payment_id": "p3", "kind": "chargeback"}
    assert driver.report_one(chargeback) is None
    assert driver.versions == {"fraud": 1}
    before = driver.decide_one(paid(101)).score
    driver.commit()
    assert driver.versions == {"fraud": 2}
    after = driver.decide_one(paid(102, card="d"))
    assert before is not None
    assert after.score is not None
    assert after.score > before
    assert driver.report_many([chargeback]) == []  # a repeat
    driver.commit()
    driver.restart()
    driver.crash()
    assert driver.versions == {"fraud": 2}
    assert driver.decide_one(paid(103, card="e")).score == after.score


def test_outcomes_that_are_none_are_rejected(driver: TopologyDriver) -> None:
    """With the code that stands in outcomes.rejected."""
    driver.decide_one(paid(1))
    stranger = {"outcome_id": "o", "payment_id": "nobody", "kind": "chargeback"}
    rejected = driver.report_many([b"{", stranger, {**stranger, "payment_id": "p1"}])
    assert [(each.code, each.payment_id) for each in rejected] == [
        ("invalid_json", None),
        ("unknown_payment", "nobody"),
    ]


def test_settings_hold(driver: TopologyDriver) -> None:
    """Those given, and no other test's state."""
    settings = Settings(state=State(memory_budget=Size(1 << 24)), events=Events(max_record_bytes=Size(100)))
    with TopologyDriver(TOPOLOGY, settings) as strict:
        assert strict.decide_one(paid(1, merchant="m" * 100)).code == "too_large"
    assert driver.decide_one(paid(1, merchant="m" * 100)).code is None


def batch(*values: bytes, topic: str = "t") -> Outgoing:
    """Records without keys."""
    outgoing = Outgoing(topic)
    for value in values:
        outgoing.append(None, value)
    return outgoing


def run(scenario: Callable[[], Any]) -> None:
    """Run a coroutine, at most ten seconds."""
    asyncio.run(asyncio.wait_for(scenario(), 10.0))


@pytest.mark.parametrize(
    ("behaviour", "stored", "error"),
    [
        (confirm, [b"1", b"2"], None),
        (repeat, [b"1", b"2", b"1", b"2"], None),
        (refuse, [], ConnectionError),
        (lose, [b"1", b"2"], TimeoutError),
    ],
)
def test_what_becomes_of_a_delivery(behaviour: Any, stored: list[bytes], error: Any) -> None:
    """What is in the topic, and what the sender is told, are two things."""

    async def scenario() -> None:
        publisher = FakePublisher(behaviour)
        await publisher.start()
        delivery = await publisher.send(batch(b"1", b"2"))
        if error is None:
            assert await delivery == {("t", 0): len(stored)}
        else:
            with pytest.raises(error):
                await delivery
        await publisher.stop()
        assert publisher.values("t") == stored

    run(scenario)


def test_held_deliveries_are_closed_by_hand_and_once() -> None:
    """In any order; what has been closed stays as it is."""

    async def scenario() -> None:
        publisher = FakePublisher(hold)
        acknowledged = [await publisher.send(batch(b"%d" % number)) for number in range(3)]
        publisher.deliveries[1].refuse(OSError("full"))
        publisher.confirm(2)
        publisher.confirm()
        publisher.confirm()
        publisher.deliveries[0].lose()
        assert publisher.values("t") == [b"2", b"0"]
        assert [await acknowledged[2], await acknowledged[0]] == [{("t", 0): 1}, {("t", 0): 2}]
        with pytest.raises(OSError, match="full"):
            await acknowledged[1]

    run(scenario)


def test_a_full_buffer_holds_senders_up_in_order() -> None:
    """As many deliveries as there is room for; the next sends wait, none overtakes."""

    async def scenario() -> None:
        publisher = FakePublisher(hold, room=2)
        senders = [asyncio.ensure_future(publisher.send(batch(b"%d" % number))) for number in range(4)]
        for closed in range(3):
            for _ in range(20):
                await asyncio.sleep(0)
            sent = min(2 + closed, 4)
            assert [outgoing.values for outgoing in publisher.sent] == [[b"%d" % at] for at in range(sent)]
            assert [sender.done() for sender in senders] == [True] * sent + [False] * (4 - sent)
            publisher.confirm(closed)
        publisher.confirm()
        await asyncio.gather(*senders)
        await publisher.stop()

    run(scenario)


def test_what_a_broker_would_not_take_is_refused_at_once() -> None:
    """A record too large takes its batch with it; a broker that is gone takes nothing."""

    async def scenario() -> None:
        publisher = FakePublisher(max_record_bytes=3)
        with pytest.raises(StreamerError, match="topic t takes 4 bytes, more than 3"):
            await publisher.send(batch(b"123", b"1234"))
        publisher.unreachable = ConnectionError("gone")
        with pytest.raises(ConnectionError, match="gone"):
            await publisher.send(batch(b"1"))
        publisher.unreachable = None
        await publisher.send(batch(b"1"))
        assert publisher.values("t") == [b"1"]

    run(scenario)


def test_the_clock_is_set_by_hand() -> None:
    """Forwards and back."""
    clock = Clock(10.0)
    clock.advance(2.5)
    clock.advance(-12.5)
    assert clock() == clock.now == 0.0
