"""What becomes of payments: answers at once, captures, refunds, reports, chargebacks, disputes."""

import numpy as np

from streamer.batch import Bool, Float64, Int64
from streamer.simulator import rows, trades
from streamer.simulator.cards import CARDS_PER_COUNTRY
from streamer.simulator.everyday import World
from streamer.simulator.rows import DAY, HOUR, OUTCOME, Generator, Rows, fill

LONGEST = 120 * DAY  # disputes are accepted up to here
_NOTICED = np.array([0.0, 0.6, 0.9, 0.9, 0.9, 1.0])
_REPORTED, _CHARGED_BACK = 0.75, 0.75
_DAYS_TO_REPORT, _DAYS_TO_CHARGEBACK, _DAYS_TO_DENIAL = 5.0, 18.0, 30.0
_PRODUCT, _PROCESSING, _MISTAKEN = 0.0005, 0.0001, 0.00005
_CONTESTED, _WON_FRAUD, _WON_OTHER, _TAKEN_BACK = 0.4, 0.25, 0.45, 0.05


def outcomes(world: World, rng: Generator, payments: Rows, first: int) -> Rows:
    """Build everything that will become of the payments, numbered from `first`; not sorted."""
    numbers = first + np.arange(len(payments))
    approved = payments["response"] == rows.APPROVED
    settled = approved & (payments["amount"] > 0)
    built = [_answers(rng, payments, numbers)]
    settled &= rng.random(len(payments)) >= 0.01
    voided = approved & ~settled & (payments["amount"] > 0)
    built.append(
        _later(payments, numbers, voided, rows.CANCELLED, rng.uniform(0.1, 24, len(payments)) * HOUR)
    )
    built.append(_captures(rng, payments, numbers, settled))
    built.append(_refunds(world, rng, payments, numbers, settled))
    built.extend(_disputes(rng, payments, numbers, settled))
    return _in_turn(world, rng, np.concatenate(built))


def _answers(rng: Generator, payments: Rows, numbers: Int64) -> Rows:
    """Answer for the network, 60 ms to some seconds later."""
    count = len(payments)
    delay = np.minimum(60 + 250 * np.exp(0.7 * rng.standard_normal(count)), 20_000)
    kind = np.where(payments["response"] == rows.APPROVED, rows.AUTHORIZED, rows.DECLINED)
    answers = _later(payments, numbers, np.ones(count, np.bool_), rows.AUTHORIZED, delay)
    answers["kind"], answers["detail"] = kind, payments["response"]
    return answers


def _captures(rng: Generator, payments: Rows, numbers: Int64, settled: Bool) -> Rows:
    """Capture at once at the till, with the parcel online."""
    count = len(payments)
    quick = rng.uniform(2_000, 60_000, count)
    parcel = rng.uniform(0.2, 72, count) * HOUR
    at_once = (payments["form"] == rows.TILL) | (rng.random(count) < 0.7)
    captures = _later(payments, numbers, settled, rows.CAPTURED, 25_000 + np.where(at_once, quick, parcel))
    return _of_amount(captures, payments, settled)


def _refunds(world: World, rng: Generator, payments: Rows, numbers: Int64, settled: Bool) -> Rows:
    """Take goods back; trades differ."""
    count = len(payments)
    genuine = payments["scenario"] == rows.GENUINE
    share = trades.REFUNDS[world.shops.trade[payments["merchant"]]]
    back = settled & genuine & (rng.random(count) < share)
    delay = np.clip(8 * np.exp(0.7 * rng.standard_normal(count)), 3.2, 90) * DAY
    refunds = _of_amount(_later(payments, numbers, back, rows.REFUND, delay), payments, back)
    part = np.where(rng.random(len(refunds)) < 0.3, rng.uniform(0.1, 0.9, len(refunds)), 1.0)
    refunds["amount"] = np.maximum(refunds["amount"] * part, 1)
    return refunds


def _disputes(rng: Generator, payments: Rows, numbers: Int64, settled: Bool) -> list[Rows]:
    """Build the issuer's reports, the chargebacks and how these end."""
    count = len(payments)
    scenario = payments["scenario"]
    friendly = scenario == rows.FRIENDLY
    genuine = scenario == rows.GENUINE
    noticed = settled & (rng.random(count) < _NOTICED[scenario])
    online = (payments["form"] != rows.TILL) & (payments["form"] != rows.MERCHANT_INITIATED)
    luck = rng.random(count)
    product = settled & genuine & online & (luck < _PRODUCT)
    processing = settled & genuine & (luck > 1 - _PROCESSING)
    mistaken = settled & genuine & (rng.random(count) < _MISTAKEN) & ~product & ~processing
    reported = ((noticed & ~friendly) | mistaken) & (rng.random(count) < _REPORTED)
    charged = (noticed & (friendly | (rng.random(count) < _CHARGED_BACK))) | mistaken | product | processing
    report_delay = _days(rng, count, _DAYS_TO_REPORT, 0.6, 0.1)
    median = np.where(friendly | product, _DAYS_TO_DENIAL, _DAYS_TO_CHARGEBACK)
    # The chargeback follows the report, where there is one.
    delay = np.minimum(np.maximum(_days(rng, count, median, 0.5, 2.0), report_delay + DAY), LONGEST)
    reports = _of_amount(
        _later(payments, numbers, reported, rows.FRAUD_REPORTED, report_delay), payments, reported
    )
    reports["category"] = rows.FRAUD
    chargebacks = _of_amount(_later(payments, numbers, charged, rows.CHARGEBACK, delay), payments, charged)
    chargebacks["category"] = np.select(
        [product[charged], processing[charged]], [rows.PRODUCT, rows.PROCESSING], rows.FRAUD
    )
    for claims in (reports, chargebacks):
        claims["occurred"] = claims["time"] - rng.integers(HOUR // 2, 20 * HOUR, len(claims)) // 10
    theft = (noticed & ~friendly)[charged]
    return [reports, chargebacks, _endings(rng, chargebacks, theft)]


def _endings(rng: Generator, chargebacks: Rows, theft: Bool) -> Rows:
    """Win or lose contested chargebacks, take back some of the others; most simply stand."""
    count = len(chargebacks)
    contested = rng.random(count) < _CONTESTED
    won = rng.random(count) < np.where(theft, _WON_FRAUD, _WON_OTHER)
    taken_back = ~contested & (rng.random(count) < _TAKEN_BACK)
    ended = contested | taken_back
    endings = chargebacks[ended].copy()
    endings["kind"] = np.where(
        taken_back, rows.CHARGEBACK_REVERSED, np.where(won, rows.DISPUTE_WON, rows.DISPUTE_LOST)
    )[ended]
    endings["time"] += (rng.uniform(20, 70, len(endings)) * DAY).astype(np.int64)
    endings["occurred"] = endings["time"] - rng.integers(0, 2 * HOUR, len(endings))
    return endings


def _days(rng: Generator, count: int, median: Float64 | float, sigma: float, least: float) -> Float64:
    """Draw lognormal delays, in ms."""
    days: Float64 = np.maximum(median * np.exp(sigma * rng.standard_normal(count)), least)
    return days * DAY


def _later(payments: Rows, numbers: Int64, chosen: Bool, kind: int, delay: Float64) -> Rows:
    """Let an outcome of the chosen payments become known after delays in ms.

    `detail` is the kind of card, which tells the network; answers put their code there instead.
    """
    after = payments[chosen]
    time = after["arrival"] + delay[chosen].astype(np.int64)
    return fill(
        OUTCOME,
        len(after),
        time=time,
        number=numbers[chosen],
        kind=kind,
        detail=after["product"] % CARDS_PER_COUNTRY,
        amount=-1,
    )


def _of_amount(later: Rows, payments: Rows, chosen: Bool) -> Rows:
    """Add the payment's amount and currency."""
    later["amount"], later["currency"] = payments["amount"][chosen], payments["currency"][chosen]
    return later


def _in_turn(world: World, rng: Generator, built: Rows) -> Rows:
    """Let a share of the outcomes arrive seconds after their turn."""
    slow = rng.random(len(built)) < world.scenario.late
    built["arrival"] = built["time"] + np.where(slow, rng.integers(1_000, 30_001, len(built)), 0)
    return built
