"""Genuine payments: purchases of habit, subscriptions, second attempts."""

from dataclasses import dataclass

import numpy as np

from streamer.batch import Bool, Float64, Int64
from streamer.simulator import places, rows, trades
from streamer.simulator.draws import pick, salt, unit
from streamer.simulator.people import People, fresh
from streamer.simulator.rows import DAY, PAYMENT, Generator, Rows, fill
from streamer.simulator.scenario import Scenario
from streamer.simulator.shops import ANYWHERE, Shops

MONTH = 30 * DAY
SUBSCRIPTIONS = 0.08
RETRIES = 0.0165
_ONLINE_USAGES = np.array([0.44, 0.67, 0.75, 0.79, 0.97, 0.985, 1.0])
_TILL_USAGES = np.array([0.22, 0.74, 0.91, 1.0])
# Answers to those who are declined: do not honour, no funds, expired, limit, unavailable.
_REASONS = np.array([0.30, 0.75, 0.80, 0.93, 1.0])
_REASON_CODES = np.array([rows.DO_NOT_HONOUR, rows.NO_FUNDS, rows.EXPIRED, rows.OVER_LIMIT, rows.UNAVAILABLE])


@dataclass(frozen=True, slots=True)
class World:
    """Who pays and who sells in one scenario."""

    scenario: Scenario
    people: People
    shops: Shops

    def months(self, times: Int64) -> Float64:
        """Months since the start."""
        months: Float64 = (times - self.scenario.start) / MONTH
        return months

    def volume(self, time: int) -> float:
        """Count the days since the start, each as its payments outnumber the first one's."""
        months = (time - self.scenario.start) / MONTH
        growth = np.log1p(self.scenario.growth_per_month)
        return float(30 * (np.expm1(growth * months) / growth if growth else months))

    def moments(self, volumes: Float64) -> Int64:
        """Find when that many such days have passed: the inverse of `volume`."""
        growth = np.log1p(self.scenario.growth_per_month)
        months = np.log1p(volumes / 30 * growth) / growth if growth else volumes / 30
        times: Int64 = self.scenario.start + (months * MONTH).astype(np.int64)
        return times


def everyday(world: World, rng: Generator, begin: int, end: int) -> Rows:
    """Build the genuine payments whose first attempt is in [begin, end), not sorted."""
    first = np.concatenate((_purchases(world, rng, begin, end), _subscriptions(world, rng, begin, end)))
    return np.concatenate((first, _second_attempts(world, rng, first)))


def charge(world: World, rng: Generator, payments: Rows, euros: Float64) -> None:
    """Set amount and currency: the shop's, or across borders often the customer's."""
    shop = payments["merchant"]
    abroad = world.shops.country[shop] != payments["home"]
    theirs = abroad & (payments["form"] != rows.TILL) & (rng.random(len(payments)) < 0.4)
    currency = places.CURRENCY[np.where(theirs, payments["home"], world.shops.country[shop])]
    minor = euros * places.MINOR_PER_EURO[currency]
    round_price = np.where(rng.random(len(payments)) < 0.5, 1.0, 0.0)
    # Web shops like prices that end in 99 (a yen has no hundredths).
    hundred = np.where(currency == 6, 10, 100)
    neat = (payments["form"] != rows.TILL) & (rng.random(len(payments)) < 0.5)
    minor = np.where(neat, np.ceil(minor / hundred) * hundred - round_price, minor)
    payments["currency"] = currency
    payments["amount"] = np.clip(np.rint(minor), 20, 10**9)


def _declined(rng: Generator, share: Float64) -> Int64:
    """Draw the network's answers."""
    reason = _REASON_CODES[pick(_REASONS, rng.random(len(share)))]
    return np.where(rng.random(len(share)) < share, reason, rows.APPROVED)


def _purchases(world: World, rng: Generator, begin: int, end: int) -> Rows:
    scenario, people = world.scenario, world.people
    attacks = sum(
        (
            scenario.card_testing,
            scenario.account_takeover,
            scenario.compromised_merchant,
            scenario.stolen_card,
        )
    )
    month = (begin - scenario.start) / MONTH
    season = 1 + 0.08 * np.cos(2 * np.pi * (month - 11.5) / 12.17)  # busiest in the middle of December
    growth = (1 + scenario.growth_per_month) ** month
    share = (1 - SUBSCRIPTIONS - attacks) / (1 + RETRIES)
    expected = scenario.payments_per_day * share * season * growth * (end - begin) / DAY
    slots, times = people.busy(rng, begin, end, float(expected))
    count = len(slots)
    who = people.who(slots, times)
    home = people.country[slots].astype(np.int64)
    where = people.away(who, home, times)
    payments = fill(PAYMENT, count, time=times, who=who, home=home, attempt=1, contact=who)
    online = _shop(world, rng, payments, where)
    shop = payments["merchant"]
    payments["card"], payments["product"] = people.cards(rng, who, slots, times)
    _place(world, rng, payments, slots, where)
    _manner(world, rng, payments, online)
    sigma = trades.SIGMA[world.shops.trade[shop]]
    euros = world.shops.median[shop] * people.spending[slots] * np.exp(sigma * rng.standard_normal(count))
    charge(world, rng, payments, euros * 1.002 ** world.months(times))
    payments["amount"][payments["usage"] == rows.VERIFICATION] = 0
    payments["response"] = _declined(rng, np.where(online, 0.06, 0.02))
    denied = people.disputes_own(rng, who, scenario.friendly_fraud / 0.38)
    denied &= online & (payments["response"] == rows.APPROVED) & (payments["amount"] > 0)
    payments["scenario"] = denied * rows.FRIENDLY
    return payments


def _shop(world: World, rng: Generator, payments: Rows, where: Int64) -> Bool:
    """Choose shops, mostly favourites, and tell which purchases are online."""
    count = len(payments)
    liked, far = world.shops.favourite(payments["who"], payments["time"], rng.random(count))
    explore = (where != payments["home"]) | (rng.random(count) < 0.25)
    draw = np.where(explore, rng.random(count), liked)
    remote = np.where(explore, rng.random(count), far) < 0.10
    shop = world.shops.local.pick(draw, where)
    shop[remote] = world.shops.remote.pick(draw[remote], np.full(int(remote.sum()), ANYWHERE))
    payments["merchant"] = shop
    return remote | (rng.random(count) < trades.ONLINE[world.shops.trade[shop]])


def _place(world: World, rng: Generator, payments: Rows, slots: Int64, where: Int64) -> None:
    """Set where the payer is: around home, or somewhere in the country they are in; ips, devices."""
    people, count = world.people, len(payments)
    noise = rng.standard_normal((2, count)) * 0.04
    abroad = where != payments["home"]
    stay = (
        unit(payments["who"] * 4096 + payments["time"] // (7 * DAY), salt(world.scenario.seed, "stay")) - 0.5
    )
    lat = places.LATITUDE[where] + places.SPREAD[where] * stay
    lon = places.LONGITUDE[where] + places.SPREAD[where] * stay
    payments["lat"] = np.where(abroad, lat, people.lat[slots]) + noise[0]
    payments["lon"] = np.where(abroad, lon, people.lon[slots]) + noise[1]
    payments["device"] = people.devices(rng, payments["who"], payments["time"])
    payments["ip"] = people.ips(rng, payments["who"], where, payments["time"])
    # A fortieth surfs through a proxy somewhere.
    proxy = rng.integers(0, len(places.NAMES), count)
    payments["ip_country"] = np.where(rng.random(count) < 0.025, proxy, where)
    payments["order"] = fresh(rng, count)


def _manner(world: World, rng: Generator, payments: Rows, online: Bool) -> None:
    """Set how it is paid and which fields the shop sends; wallets spread with time."""
    count = len(payments)
    wallets = np.minimum(0.01 * np.maximum(world.months(payments["time"]), 0), 0.3)
    draw = rng.random(count)
    till = pick(_TILL_USAGES, draw)
    web = rows.STORED + pick(_ONLINE_USAGES, draw)
    convert = rng.random(count) < wallets
    till = np.where(convert, rows.APPLE_TILL, till)
    web = np.where(convert & (web < rows.IN_APP), rows.APPLE_ONLINE, web)
    kind = rng.random(count)
    form = np.where(kind < 0.55, rows.SHIPPED, np.where(kind < 0.96, rows.ONLINE, rows.BARE))
    payments["usage"] = np.where(online, web, till)
    payments["form"] = np.where(online, form, rows.TILL)
    # One parcel in thirty is a present to another country.
    other = pick(places.PEOPLE, rng.random(count))
    payments["shipping"] = np.where(rng.random(count) < 0.033, other, payments["home"])
    guest = online & (rng.random(count) < 0.06)
    new = fresh(rng, count)
    payments["who"] = np.where(guest, new, payments["who"])


def _subscriptions(world: World, rng: Generator, begin: int, end: int) -> Rows:
    """Charge each subscription once in 30 days, at its own moment; nothing is remembered."""
    scenario, people = world.scenario, world.people
    total = max(round(SUBSCRIPTIONS * scenario.payments_per_day * 30), 1)
    step = MONTH / total
    first = int((begin - scenario.start) / step) - 1
    turns = np.arange(first, int((end - scenario.start) / step) + 2)
    number = turns % total
    times = scenario.start + ((turns + unit(number, salt(scenario.seed, "due"))) * step).astype(np.int64)
    due = (times >= begin) & (times < end)
    times, number, cycle = times[due], number[due], turns[due] // total
    contract = number + total * ((cycle + number % 18) // 18)  # replaced after a year and a half
    slots = (unit(contract, salt(scenario.seed, "subscriber")) * scenario.customers).astype(np.int64)
    who = people.who(slots, times)
    home = people.country[slots].astype(np.int64)
    shop = world.shops.recurring.pick(unit(contract, salt(scenario.seed, "subscribed")), home)
    payments = fill(
        PAYMENT, len(times), time=times, who=who, merchant=shop, home=home, attempt=1, contact=who
    )
    payments["card"], payments["product"] = people.cards(rng, who, slots, times)
    payments["form"], payments["usage"] = rows.MERCHANT_INITIATED, rows.RECURRING
    payments["order"] = fresh(rng, len(times))
    payments["currency"] = places.CURRENCY[home]
    fee = world.shops.median[shop] * np.exp(0.5 * (unit(contract, salt(scenario.seed, "fee")) - 0.5))
    minor = fee * places.MINOR_PER_EURO[payments["currency"]]
    payments["amount"] = np.where(payments["currency"] == 6, np.ceil(minor), np.ceil(minor / 100) * 100 - 1)
    payments["response"] = _declined(rng, np.full(len(times), 0.09))
    return payments


def _second_attempts(world: World, rng: Generator, first: Rows) -> Rows:
    """Try two in five of the declined purchases again within minutes, some with their other card."""
    wanted = (first["response"] != rows.APPROVED) & (rng.random(len(first)) < 0.4)
    again: Rows = first[wanted].copy()
    again["time"] += rng.integers(4_000, 120_000, len(again))
    again["attempt"] += 1
    own = again["who"] < 1 << 61
    slots = np.where(own, again["who"] % world.scenario.customers, 0)
    card, product = world.people.cards(rng, again["who"], slots, again["time"])
    change = own & (again["form"] != rows.MERCHANT_INITIATED)
    again["card"] = np.where(change, card, again["card"])
    again["product"] = np.where(change, product, again["product"])
    again["response"] = _declined(rng, np.full(len(again), 0.45))
    return again
