"""Fraud by third parties: card testing, account takeover, a compromised merchant, stolen cards."""

from collections.abc import Callable

import numpy as np

from streamer.batch import Float64, Int64
from streamer.simulator import places, rows, trades
from streamer.simulator.draws import pick, salt, stream, unit
from streamer.simulator.everyday import World, charge
from streamer.simulator.people import fresh
from streamer.simulator.rows import DAY, HOUR, PAYMENT, Generator, Rows, fill
from streamer.simulator.shops import ANYWHERE

FASHION = 45 * DAY  # fraudsters change their ways
_TESTING_SIZE, _TAKEOVER_SIZE, _COMPROMISED_SIZE, _STOLEN_SIZE = 20.0, 4.0, 18.0, 3.5
_REFUSED = np.array([rows.DO_NOT_HONOUR, rows.NO_FUNDS, rows.INVALID, rows.SUSPECTED, rows.OVER_LIMIT])
_ABROAD = (b"RO", b"TR", b"VN", b"ID", b"NG", b"UA", b"US", b"BR")
_ORIGINS = np.array([places.NAMES.index(name) for name in _ABROAD])

Attack = Callable[[World, Generator, int], Rows]


def attacks(world: World, begin: int, end: int) -> list[Rows]:
    """Build the payments of all attacks that start in [begin, end); they may go on for days.

    The k-th attack of a kind starts at a random moment of the k-th of equal intervals: attacks neither bunch
    by chance nor depend on what was drawn before.
    """
    built = []
    for name, size, attack in _KINDS:
        share = getattr(world.scenario, name)
        if share == 0:
            continue
        interval = size / (share * world.scenario.payments_per_day)
        first = max(int(world.volume(begin) / interval) - 1, 0)
        numbers = np.arange(first, int(world.volume(end) / interval) + 2)
        moments = numbers + 0.05 + 0.6 * unit(numbers, salt(world.scenario.seed, name))
        starts = world.moments(moments * interval)
        for number, start in zip(numbers.tolist(), starts.tolist(), strict=True):
            if begin <= start < end:
                built.append(attack(world, stream(world.scenario.seed, name, number), start))
    return built


def _card_testing(world: World, rng: Generator, start: int) -> Rows:
    """Try many stolen numbers with small amounts, fast, from few devices and ips, at one careless shop."""
    count = int(rng.integers(10, 31))
    times = start + np.sort(rng.integers(0, int(rng.integers(2, 31)) * 60_000, count))
    payments = _victims(world, rng, world.people.draw(rng, count), times)
    payments["merchant"] = world.shops.lax.pick(np.full(count, rng.random()), np.full(count, ANYWHERE))
    _online(world, rng, payments, int(rng.integers(1, 4)), int(rng.integers(1, 5)))
    payments["who"] = fresh(rng, count)
    payments["contact"] = payments["who"]
    payments["form"] = np.where(rng.random(count) < 0.7, rows.ONLINE, rows.SHIPPED)
    charge(world, rng, payments, np.exp(rng.normal(0.6, 0.6, count)))
    if unit(_fashion(world, start), salt(world.scenario.seed, "probe"))[0] < 0.4:
        payments["usage"], payments["amount"] = rows.VERIFICATION, 0
    payments["response"] = _refused(rng, np.full(count, 0.55))
    payments["scenario"] = rows.TESTING
    return payments


def _account_takeover(world: World, rng: Generator, start: int) -> Rows:
    """Order from a customer's account: a new device, far away, more than they ever spend."""
    count = int(rng.integers(2, 7))
    slot = np.repeat(world.people.draw(rng, 1), count)
    times = start + _spread(rng, count, rng.uniform(1, 48) * HOUR)
    payments = _victims(world, rng, slot, times)
    payments["card"], payments["product"] = payments["card"][0], payments["product"][0]
    home = payments["home"].astype(np.int64)
    payments["merchant"] = world.shops.valuable.pick(rng.random(count), home)
    _online(world, rng, payments, 1, int(rng.integers(1, 3)))
    payments["form"] = rows.SHIPPED
    payments["usage"] = np.where(rng.random(count) < 0.8, rows.STORED, rows.IN_APP)
    if rng.random() < 0.3:
        payments["contact"] = fresh(rng, 1)[0]
    factor = world.people.spending[slot] * rng.uniform(1.2, 4.0, count)
    _spend(world, rng, payments, factor)
    payments["response"] = _refused(rng, 0.10 + 0.07 * np.arange(float(count)))
    payments["scenario"] = rows.TAKEOVER
    return payments


def _compromised_merchant(world: World, rng: Generator, start: int) -> Rows:
    """Use the cards of one shop's customers for days, half of them at that shop, half elsewhere."""
    count = int(rng.integers(12, 25))
    times = start + _spread(rng, count, rng.uniform(3, 15) * DAY)
    shop = world.shops.remote.pick(rng.random(1), np.array([ANYWHERE]))
    payments = _victims(world, rng, _regulars(world, rng, int(shop[0]), start, count), times)
    elsewhere = world.shops.valuable.pick(rng.random(count), np.full(count, ANYWHERE))
    payments["merchant"] = np.where(rng.random(count) < 0.5, shop[0], elsewhere)
    _online(world, rng, payments, int(rng.integers(3, 8)), int(rng.integers(4, 12)))
    payments["who"] = np.where(rng.random(count) < 0.7, fresh(rng, count), payments["who"])
    payments["contact"] = payments["who"]
    payments["form"] = np.where(rng.random(count) < 0.6, rows.SHIPPED, rows.ONLINE)
    _spend(world, rng, payments, rng.uniform(0.8, 3.0, count))
    payments["response"] = _refused(rng, np.full(count, 0.25))
    payments["scenario"] = rows.COMPROMISED
    return payments


def _stolen_card(world: World, rng: Generator, start: int) -> Rows:
    """Spend a stolen card at high-value shops within hours, at tills near its owner or online."""
    count = int(rng.integers(2, 6))
    slot = np.repeat(world.people.draw(rng, 1), count)
    times = start + _spread(rng, count, rng.uniform(0.5, 10) * HOUR)
    payments = _victims(world, rng, slot, times)
    payments["card"], payments["product"] = payments["card"][0], payments["product"][0]
    payments["merchant"] = world.shops.valuable.pick(rng.random(count), payments["home"].astype(np.int64))
    payments["lat"], payments["lon"] = world.people.lat[slot], world.people.lon[slot]
    at_till = rng.random() < 0.5
    if at_till:
        payments["lat"] += rng.normal(0, 0.3)
        payments["lon"] += rng.normal(0, 0.3)
        payments["form"], payments["usage"] = rows.TILL, rows.CONTACTLESS
        payments["usage"][rng.random(count) < 0.5] = rows.CHIP
    else:
        _online(world, rng, payments, 1, 1)
        payments["who"] = fresh(rng, 1)[0]
        payments["contact"] = payments["who"]
        payments["form"] = rows.SHIPPED
    _spend(world, rng, payments, rng.uniform(1.0, 3.5, count))
    payments["response"] = _refused(rng, 0.05 + 0.12 * np.arange(float(count)))
    payments["scenario"] = rows.STOLEN
    return payments


_KINDS: tuple[tuple[str, float, Attack], ...] = (
    ("card_testing", _TESTING_SIZE, _card_testing),
    ("account_takeover", _TAKEOVER_SIZE, _account_takeover),
    ("compromised_merchant", _COMPROMISED_SIZE, _compromised_merchant),
    ("stolen_card", _STOLEN_SIZE, _stolen_card),
)


def _fashion(world: World, time: int) -> Int64:
    """Count the periods of fraudsters' habits."""
    return np.array([(time - world.scenario.start) // FASHION], np.int64)


def _victims(world: World, rng: Generator, slots: Int64, times: Int64) -> Rows:
    """Start payments with the cards of customers."""
    who = world.people.who(slots, times)
    home = world.people.country[slots]
    payments = fill(PAYMENT, len(slots), time=times, who=who, contact=who, home=home, attempt=1)
    payments["shipping"] = home
    payments["card"], payments["product"] = world.people.cards(rng, who, slots, times)
    payments["order"] = fresh(rng, len(slots))
    return payments


def _online(world: World, rng: Generator, payments: Rows, devices: int, ips: int) -> None:
    """Pay from a gang's own devices and ips, abroad or behind a proxy in the victim's country."""
    count = len(payments)
    payments["device"] = fresh(rng, devices)[rng.integers(0, devices, count)]
    which = rng.integers(0, ips, count)
    fashion = _fashion(world, int(payments["time"][0]))
    favoured = unit(fashion, salt(world.scenario.seed, "origin")) * len(_ORIGINS)
    origin = int(_ORIGINS[int(favoured[0]) if rng.random() < 0.4 else rng.integers(len(_ORIGINS))])
    hidden = rng.random() < 0.55
    country = payments["home"][0] if hidden else origin
    payments["ip"] = rng.integers(0, 1 << 24, ips)[which]
    payments["ip_country"] = country
    payments["lat"] = places.LATITUDE[country] + rng.normal(0, 1) + rng.normal(0, 0.05, count)
    payments["lon"] = places.LONGITUDE[country] + rng.normal(0, 1) + rng.normal(0, 0.05, count)
    payments["usage"] = np.where(rng.random(count) < 0.85, rows.TYPED, rows.IN_APP)
    parcel = pick(places.PEOPLE, rng.random(1))[0]
    payments["shipping"] = np.where(rng.random(count) < 0.5, parcel, payments["home"])


def _spend(world: World, rng: Generator, payments: Rows, factor: Float64) -> None:
    """Set amounts a factor above what the shop usually sells for."""
    shop = payments["merchant"]
    sigma = 0.6 * trades.SIGMA[world.shops.trade[shop]]
    spread = np.exp(sigma * rng.standard_normal(len(shop)))
    charge(world, rng, payments, world.shops.median[shop] * factor * spread)


def _refused(rng: Generator, share: Float64) -> Int64:
    """Draw the network's answers to fraud."""
    reason = _REFUSED[rng.integers(0, len(_REFUSED), len(share))]
    return np.where(rng.random(len(share)) < share, reason, rows.APPROVED)


def _spread(rng: Generator, count: int, span: float) -> Int64:
    """Spread payments over a span, the first at its beginning."""
    offsets = np.sort(rng.random(count)) * span
    moments: Int64 = (offsets - offsets[0]).astype(np.int64)
    return moments


def _regulars(world: World, rng: Generator, shop: int, time: int, count: int) -> Int64:
    """Find customers who like a shop among some thousands, or else people of its country."""
    people = world.people
    slots = people.draw(rng, 4000)
    times = np.full(len(slots), time)
    who = people.who(slots, times)
    liked, far = world.shops.favourite(who, times, rng.random(len(slots)))
    local = world.shops.local.pick(liked, people.country[slots].astype(np.int64))
    remote = world.shops.remote.pick(liked, np.full(len(slots), ANYWHERE))
    fans = np.unique(slots[np.where(far < 0.10, remote, local) == shop])
    others = slots[people.country[slots] == world.shops.country[shop]]
    candidates = np.concatenate((rng.permutation(fans), others, slots))
    return candidates[:count]
