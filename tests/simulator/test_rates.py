"""What the scenario's docstring states is what the stream shows, within the bounds of chance."""

from collections import Counter
from statistics import median

import pytest

from streamer.simulator import Scenario, Simulator
from streamer.simulator.rows import SCENARIOS

from .conftest import Stream

DAY = 86_400_000


def assert_share(stated: float, count: int, total: int) -> None:
    """Check that a binomial count lies within four standard deviations of what is stated."""
    assert abs(count - stated * total) <= 4 * (stated * (1 - stated) * total) ** 0.5 + 1


@pytest.mark.parametrize(
    "scenario", ["card_testing", "account_takeover", "compromised_merchant", "stolen_card"]
)
def test_each_kind_of_attack_has_its_share(stream: Stream, scenario: str) -> None:
    """Attacks come whole, so a kind may be off by a few of them: a third of its share here."""
    share = Counter(stream.truth.values())[scenario] / len(stream.truth)
    assert share == pytest.approx(getattr(Scenario(), scenario), rel=0.33)


def test_friendly_fraud_has_its_share(stream: Stream) -> None:
    """Few customers do it, again and again, so its count varies more than a binomial one."""
    share = Counter(stream.truth.values())["friendly_fraud"] / len(stream.truth)
    assert share == pytest.approx(0.0004, rel=0.6)


def test_every_kind_occurs_in_a_short_demo() -> None:
    """30,000 payments suffice, whatever the seed."""
    for seed in range(4):
        seen = set()
        for chunk in Simulator(Scenario.for_payments(30_000, seed)).chunks(30_000):
            seen |= set(chunk.payments.scenario.tolist())
        assert seen == set(range(len(SCENARIOS)))


def test_ids_are_unique(stream: Stream) -> None:
    """No payment_id and no outcome_id comes twice."""
    assert len(stream.truth) == len(stream.payments)
    assert len({outcome["outcome_id"] for outcome in stream.outcomes}) == len(stream.outcomes)


def test_genuine_payments_are_declined_as_stated(stream: Stream) -> None:
    """2 % at the till, 6 % online, 9 % when the merchant initiates; first attempts."""
    declined = {event["payment_id"] for event in stream.outcomes if event["kind"] == "declined"}
    totals: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for payment in stream.payments:
        if stream.truth[payment["payment_id"]] == "genuine" and payment["attempt"] == 1:
            where = "merchant" if payment["initiator"] == "merchant" else payment["channel"]
            where = "web" if where == "app" else where
            totals[where] += 1
            refused[where] += payment["payment_id"] in declined
    for where, stated in (("pos", 0.02), ("web", 0.06), ("merchant", 0.09)):
        assert_share(stated, refused[where], totals[where])


def test_every_payment_is_answered_once_and_soon(stream: Stream) -> None:
    """Authorized or declined, within a minute of the payment even where it was late."""
    times = {payment["payment_id"]: payment["event_time"] for payment in stream.payments}
    answers = [event for event in stream.outcomes if event["kind"] in ("authorized", "declined")]
    assert sorted(event["payment_id"] for event in answers) == sorted(times)
    assert all(0 < event["event_time"] - times[event["payment_id"]] <= 50_000 for event in answers)


def test_reports_and_chargebacks_have_their_shares(stream: Stream) -> None:
    """Of approved, settled theft 90 % (tested cards 60 %) is noticed, and 75 % of that charged back."""
    captured = {event["payment_id"] for event in stream.outcomes if event["kind"] == "captured"}
    for kind in ("fraud_reported", "chargeback"):
        known = {event["payment_id"] for event in stream.outcomes if event["kind"] == kind}
        theft = [key for key, truth in stream.truth.items() if truth in SCENARIOS[2:5] and key in captured]
        assert_share(0.9 * 0.75, sum(key in known for key in theft), len(theft))
        tested = [key for key, truth in stream.truth.items() if truth == "card_testing" and key in captured]
        assert_share(0.6 * 0.75, sum(key in known for key in tested), len(tested))
    denied = [key for key, truth in stream.truth.items() if truth == "friendly_fraud"]
    assert all(key in known for key in denied if key in captured)


def test_genuine_payments_are_disputed_rarely(stream: Stream) -> None:
    """0.05 % of online ones for the product, 0.005 % of all are claimed as fraud by mistake."""
    captured = {event["payment_id"] for event in stream.outcomes if event["kind"] == "captured"}
    genuine = {key for key in captured if stream.truth[key] == "genuine"}
    online = {
        payment["payment_id"]
        for payment in stream.payments
        if payment["channel"] != "pos" and payment["initiator"] == "customer"
    }
    claims = Counter(
        event["category"]
        for event in stream.outcomes
        if event["kind"] == "chargeback" and event["payment_id"] in genuine
    )
    assert_share(0.0005, claims["product"], len(genuine & online))
    assert_share(0.0001, claims["processing"], len(genuine))
    assert_share(0.00005, claims["fraud"], len(genuine))


def test_outcomes_take_the_time_they_take(stream: Stream) -> None:
    """Reports in days, chargebacks in weeks and after the report, disputes weeks after that."""
    times = {payment["payment_id"]: payment["event_time"] for payment in stream.payments}
    known: dict[str, dict[str, int]] = {}
    for event in stream.outcomes:
        known.setdefault(event["kind"], {})[event["payment_id"]] = event["event_time"]
    theft = {key for key, truth in stream.truth.items() if truth in SCENARIOS[1:5]}

    def days(kind: str) -> list[float]:
        return [(time - times[key]) / DAY for key, time in known[kind].items() if key in theft]

    assert median(days("fraud_reported")) == pytest.approx(5, rel=0.25)
    assert median(days("chargeback")) == pytest.approx(18, rel=0.25)
    assert min(days("chargeback")) > 1
    assert max((time - times[key]) / DAY for key, time in known["chargeback"].items()) <= 120.01
    for key, time in known["chargeback"].items():
        assert known["fraud_reported"].get(key, 0) < time
    for kind in ("dispute_won", "dispute_lost", "chargeback_reversed"):
        assert all(20 <= (time - known["chargeback"][key]) / DAY <= 70 for key, time in known[kind].items())


def test_only_what_was_captured_moves_money_back(stream: Stream) -> None:
    """Declined and cancelled payments have no refund and no chargeback; no refund exceeds its payment."""
    captured = {event["payment_id"] for event in stream.outcomes if event["kind"] == "captured"}
    amounts = {payment["payment_id"]: payment["amount"] for payment in stream.payments}
    for event in stream.outcomes:
        if event["kind"] in ("refund", "chargeback"):
            assert event["payment_id"] in captured
            assert 0 < event["amount"] <= amounts[event["payment_id"]]


def test_subscriptions_and_currencies_are_there(stream: Stream) -> None:
    """8 % are initiated by the merchant; eight currencies occur, mostly the euro."""
    recurring = sum(payment["type"] == "recurring" for payment in stream.payments)
    assert recurring / len(stream.payments) == pytest.approx(0.08, rel=0.1)
    currencies = Counter(payment["currency"] for payment in stream.payments)
    assert len(currencies) == 8
    assert currencies.most_common(1)[0][0] == "EUR"


def test_the_stream_spans_about_the_days_asked_for(stream: Stream) -> None:
    """75 days, less the growth, by a tenth."""
    span = stream.payments[-1]["event_time"] - stream.payments[0]["event_time"]
    assert span / DAY == pytest.approx(75, rel=0.1)
