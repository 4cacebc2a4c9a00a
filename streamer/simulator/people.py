"""Customers: where they live, when and how they pay, with which cards, devices and ips."""

import numpy as np

from streamer.batch import Float64, Int64
from streamer.simulator import places
from streamer.simulator.cards import CARDS_PER_COUNTRY
from streamer.simulator.draws import cumulate, mix, pick, salt, stream, unit
from streamer.simulator.rows import DAY, HOUR, Generator
from streamer.simulator.scenario import Scenario

_HOURS = (  # payments by local hour: at work, at night, all day
    (1, 1, 1, 1, 1, 2, 8, 22, 34, 32, 34, 44, 58, 48, 40, 42, 54, 70, 72, 60, 44, 28, 14, 5),
    (20, 12, 8, 4, 3, 2, 3, 6, 12, 18, 24, 30, 40, 40, 38, 40, 44, 52, 60, 64, 66, 62, 52, 36),
    (3, 2, 2, 2, 3, 5, 12, 24, 40, 56, 62, 60, 52, 50, 54, 56, 54, 50, 42, 30, 20, 14, 8, 5),
)
_WEEKDAYS = (0.95, 0.94, 0.96, 1.02, 1.15, 1.17, 0.81)
_LIVES, _RENEWS_DEVICE, _RENEWS_CARD, _RENEWS_IP, _WEEK = 700, 500, 1000, 14, 7


def _rhythm() -> Float64:
    """Relative rate by kind of person and local hour of the week, mean 1; shape (3, 168)."""
    hours = np.array(_HOURS, np.float64)
    weeks = (np.array(_WEEKDAYS)[None, :, None] * hours[:, None, :]).reshape(3, 168)
    rhythm: Float64 = weeks / weeks.mean(axis=1, keepdims=True)
    return rhythm


class People:
    """Everyone who pays. Slots stay, the person in a slot (`who`) is replaced now and then."""

    def __init__(self, scenario: Scenario) -> None:
        rng = stream(scenario.seed, "people", 0)
        size = scenario.customers
        self._size, self._seed, self._start = size, scenario.seed, scenario.start
        self.country = pick(places.PEOPLE, rng.random(size)).astype(np.uint8)
        spread = places.SPREAD[self.country]
        self.lat = (places.LATITUDE[self.country] + spread * rng.standard_normal(size)).astype(np.float32)
        self.lon = (places.LONGITUDE[self.country] + spread * rng.standard_normal(size)).astype(np.float32)
        self.spending = np.exp(0.4 * rng.standard_normal(size))
        self._activity = cumulate(np.exp(0.8 * rng.standard_normal(size)))
        self._kind = pick(np.array([0.6, 0.8, 1.0]), rng.random(size))
        self._utc_hours = places.UTC_HOURS[self.country]
        self._rhythm = _rhythm()
        self._friendly = salt(scenario.seed, "friendly")

    def draw(self, rng: Generator, count: int) -> Int64:
        """Draw customers (slots) by how active they are."""
        return pick(self._activity, rng.random(count))

    def busy(self, rng: Generator, begin: int, end: int, expected: float) -> tuple[Int64, Int64]:
        """Draw slots and times of a Poisson process that follows everyone's hours; sorted by time."""
        peak = float(self._rhythm.max())
        count = int(rng.poisson(expected * peak))
        slots = self.draw(rng, count)
        times = np.sort(rng.integers(begin, end, count))
        hour = (times - self._start) // HOUR + self._utc_hours[slots]
        keep = rng.random(count) * peak < self._rhythm[self._kind[slots], hour % 168]
        return slots[keep], times[keep]

    def _age(self, numbers: Int64, times: Int64, days: int, purpose: str) -> Int64:
        """How often something has been renewed; everyone at a moment of their own."""
        phase = unit(numbers, salt(self._seed, purpose)) * days * DAY
        ages: Int64 = (times - self._start + phase.astype(np.int64)) // (days * DAY)
        return ages

    def who(self, slots: Int64, times: Int64) -> Int64:
        """Name the person in a slot at a time."""
        return slots + self._size * self._age(slots, times, _LIVES, "life")

    def cards(self, rng: Generator, who: Int64, slots: Int64, times: Int64) -> tuple[Int64, Int64]:
        """Pick one of each person's cards: its number and its kind."""
        second = unit(who, salt(self._seed, "cards")) < 0.3
        wallet = who * 4 + (second & (rng.random(len(who)) < 0.3))
        age = self._age(wallet, times, _RENEWS_CARD, "card")
        luck = unit(wallet, salt(self._seed, "product"))
        kind = np.minimum((luck**1.5 * CARDS_PER_COUNTRY).astype(np.int64), CARDS_PER_COUNTRY - 1)
        return wallet * 64 + age, self.country[slots].astype(np.int64) * CARDS_PER_COUNTRY + kind

    def devices(self, rng: Generator, who: Int64, times: Int64) -> Int64:
        """Pick one of each person's devices; two in a hundred payments come from a borrowed one."""
        several = unit(who, salt(self._seed, "devices")) * 3
        slot = (several * rng.random(len(who)) ** 2).astype(np.int64)
        own = who * 4 + slot
        own = own * 64 + self._age(own, times, _RENEWS_DEVICE, "device")
        return np.where(rng.random(len(who)) < 0.02, fresh(rng, len(who)), own)

    def away(self, who: Int64, country: Int64, times: Int64) -> Int64:
        """Find the country each person is in: home but for the weeks abroad."""
        week = who * 4096 + (times - self._start) // (_WEEK * DAY)
        there = pick(places.PEOPLE, unit(week, salt(self._seed, "abroad")))
        return np.where(unit(week, salt(self._seed, "travel")) < 0.03, there, country)

    def ips(self, rng: Generator, who: Int64, where: Int64, times: Int64) -> Int64:
        """Pick the ip at home, or one that a mobile carrier's or hotel's customers share; 24 bits."""
        count = len(who)
        age = self._age(who, times, _RENEWS_IP, "ip")
        home = mix(who * 4096 + age, salt(self._seed, "home"))
        pool = max(self._size // 60, 16)
        shared = mix(where * 1_000_003 + rng.integers(0, pool, count), salt(self._seed, "carrier"))
        at_home = rng.random(count) < 0.65
        return (np.where(at_home, home, shared) & np.uint64(0xFFFFFF)).astype(np.int64)

    def disputes_own(self, rng: Generator, who: Int64, share: float) -> Int64:
        """Mark (1) purchases that their own buyers will deny; three customers in a hundred ever do."""
        willing = unit(who, self._friendly) < 0.03
        return (willing & (rng.random(len(who)) < share / 0.03)).astype(np.int64)


def fresh(rng: Generator, count: int) -> Int64:
    """Draw numbers of things never seen before (62 bits, far above those of customers)."""
    return rng.integers(1 << 61, 1 << 62, count)
