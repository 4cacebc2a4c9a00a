"""The storm: payments and what became of them, bad, late, future, tied and repeated ones among both."""

import json
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from tests.end_to_end.logs import Sent
from tests.end_to_end.mixture import START, bad_records, encode, good

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SPAN = 10 * DAY
HEAVY_BYTES, MOST_HEAVY = 100_000, 12
FOREIGN = ("USD", "GBP", "JPY", "KWD")

Event = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """An outcome record, and how many payment records are there before it."""

    after: int
    record: Sent


@dataclass(frozen=True)
class Storm:
    """All records: payments in order, and outcomes in order."""

    payments: Sequence[Sent]
    outcomes: Sequence[Told]

    def outcomes_between(self, first: int, last: int) -> list[Sent]:
        """Those that come after more than `first` and at most `last` payments."""
        begin, end = (bisect_right(self.outcomes, at, key=attrgetter("after")) for at in (first, last))
        return [told.record for told in self.outcomes[begin:end]]


def storm(count: int, seed: int, *, hot: bool = False) -> Storm:
    """`count` payment records over ten days and their outcomes; `hot` puts half of them on one card."""
    payments = _Payments(count, random.Random(f"payments {seed}"), hot=hot)
    records = [payments.record(number) for number in range(count)]
    outcomes = _Outcomes(random.Random(f"outcomes {seed}"), [record.timestamp for record in records])
    for event in payments.sent:
        if event["payment_id"] not in payments.twice:  # which of the two would be meant?
            outcomes.tell(event)
    return Storm(records, outcomes.told())


class _Payments:
    """A stream of payments over cards, customers, merchants, devices and addresses, some of them busy."""

    def __init__(self, count: int, draws: random.Random, *, hot: bool) -> None:
        self._draws = draws
        self._hot = hot
        self._step = SPAN / count
        self._cards = max(8, count // 20)
        self._merchants = max(4, count // 400)
        bad = bad_records()
        self._bad = [value for value in bad if len(value or b"") < HEAVY_BYTES]
        self._heavy = [value for value in bad if len(value or b"") >= HEAVY_BYTES]
        self._heavy_left = MOST_HEAVY
        self.sent: list[Event] = []
        self.twice: set[str] = set()
        self._times: list[int] = []
        self.now = START

    def record(self, number: int) -> Sent:
        """The next record; time goes on, or stands still."""
        draws = self._draws
        if draws.random() < 0.7:
            self.now += round(draws.random() * 2 * self._step / 0.7)
        kind = draws.random()
        if kind < 0.007:
            value = self._broken()
            return Sent(self.now, b"%d" % number if value is None or number % 2 else None, value)
        if kind < 0.01 and self.sent:
            event = self._again()
        elif kind < 0.0105 and self._times and self._times[0] < self.now - 2 * DAY:
            event = self._once_more(number)
        else:
            event = self._new(number)
            self.sent.append(event)
            self._times.append(self.now)
        headers = (("traceparent", b"00-%032x-%016x-01" % (number, number)),) if number % 10 == 0 else ()
        return Sent(self.now, event["payment_id"].encode(), encode(event), headers)

    def _broken(self) -> bytes | None:
        draws = self._draws
        value = draws.choice(self._bad)
        if self._heavy_left and draws.random() < 0.1:
            value = self._heavy[self._heavy_left % len(self._heavy)]
            self._heavy_left -= 1
        return None if value is None else value.replace(b"%d" % START, b"%d" % self.now)

    def _again(self) -> Event:
        """One of the last half hour: the same content in another order, or with another amount."""
        first = min(bisect_left(self._times, self.now - HOUR // 2), len(self.sent) - 1)
        event = self.sent[self._draws.randrange(first, len(self.sent))]
        if self._draws.random() < 0.5:
            return dict(reversed(event.items())) | {"newer_field": "as later versions add"}
        return event | {"amount": (event["amount"] + 1) % 10**12}

    def _once_more(self, number: int) -> Event:
        """A payment_id of more than a day ago, which is new again."""
        old = self.sent[self._draws.randrange(bisect_left(self._times, self.now - 2 * DAY))]
        self.twice.add(old["payment_id"])
        return self._new(number) | {"payment_id": old["payment_id"]}

    def _new(self, number: int) -> Event:
        draws = self._draws
        event = good(f"p{number:07}é", self._time(), amount=self._amount())
        card = int(self._cards * draws.random() ** 2)
        if self._hot and draws.random() < 0.5:
            card = 0
        entities = {
            "card": f"card-{card}",
            "customer": f"customer-{card // 2}",
            "merchant": f"merchant-{int(self._merchants * draws.random() ** 3)}",
            "device": f"device-{card // 2}-{draws.randrange(3)}",
            "ip": f"10.0.{draws.randrange(8)}.{int(self._cards * draws.random() ** 2)}",
        }
        for name, value in entities.items():
            chance = draws.random()
            if chance < 0.95:
                event[name] = value
            elif chance < 0.96:
                event[name] = None
        if draws.random() < 0.15:
            event["currency"] = draws.choice(FOREIGN)
        if draws.random() < 0.02:
            event["live"] = False
        if draws.random() < 0.05:
            event |= {"unknown": [1, {"a": None}], "lat": 48.1, "type": "recurring", "attributes": {"x": 1}}
        return event

    def _time(self) -> int:
        draws = self._draws
        chance = draws.random()
        if chance < 0.01:
            return self.now - draws.choice((1, MINUTE, draws.randint(1, HOUR), draws.randint(1, HOUR)))
        if chance < 0.011:
            return self.now + 600_001 + draws.randint(0, DAY)
        return self.now + draws.randint(1, 600_000) if chance < 0.0115 else self.now

    def _amount(self) -> int:
        draws = self._draws
        huge = draws.random()
        return 10**12 if huge < 0.002 else 0 if huge < 0.01 else int(draws.lognormvariate(8.0, 1.5))


class _Outcomes:
    """What became of payments: frauds above all of dear ones, disputes of other kinds, silence of most."""

    def __init__(self, draws: random.Random, times: Sequence[int]) -> None:
        self._draws = draws
        self._times = times
        self._made: list[tuple[int, int, bytes | None]] = []
        self._bad = _bad_outcomes()

    def tell(self, event: Event) -> None:
        """Say what became of a payment, if anything did."""
        draws = self._draws
        moment = event["event_time"]
        if draws.random() < (0.06 if event["amount"] > 10_000 else 0.01):
            self._fraud(event["payment_id"], moment)
        elif draws.random() < 0.02:
            self._complaint(event["payment_id"], moment)
        elif draws.random() < 0.2:
            kind = draws.choice(("authorized", "captured", "refund", "challenge_passed", "declined"))
            self._add(event["payment_id"], kind, moment + draws.randint(1, HOUR))
        if draws.random() < 0.001:
            self._add(f"nobody-{moment}", "chargeback", moment + HOUR)
        if draws.random() < 0.004:
            self._made.append((moment + HOUR, moment + HOUR, draws.choice(self._bad)))

    def told(self) -> list[Told]:
        """All of them in the order in which they arrive."""
        told = []
        for known, _, value in sorted(self._made, key=lambda made: made[:2]):
            after = bisect_right(self._times, known)
            if after < len(self._times):  # what becomes known after the last payment is not told
                # A client of Kafka refuses a record that has neither key nor value.
                told.append(Told(after, Sent(known, b"none" if value is None else None, value)))
        return told

    def _fraud(self, payment_id: str, moment: int) -> None:
        draws = self._draws
        known = moment + int(draws.expovariate(1 / (6 * HOUR))) + 1
        first = draws.choice(("chargeback", "chargeback", "fraud_reported"))
        number = self._add(payment_id, first, known)
        if draws.random() < 0.1:  # the same outcome again, perhaps changed
            self._add(payment_id, draws.choice((first, "refund")), known + HOUR, number=number)
        if draws.random() < 0.2:
            self._add(payment_id, draws.choice(("chargeback", "dispute_won", "dispute_lost")), known + DAY)

    def _complaint(self, payment_id: str, moment: int) -> None:
        draws = self._draws
        known = moment + draws.randint(1, 2 * DAY)
        category = draws.choice(("product", "processing", "fraud"))
        self._add(payment_id, "chargeback", known, category=category)
        if draws.random() < 0.5:
            kind = draws.choice(("dispute_lost", "dispute_won", "chargeback_reversed", "confirmed_good"))
            self._add(payment_id, kind, known + draws.randint(1, DAY))

    def _add(self, payment_id: str, kind: str, known: int, *, number: int = 0, **more: object) -> int:
        number = number or len(self._made) + 1
        event = {
            "outcome_id": f"o{number}",
            "payment_id": payment_id,
            "kind": kind,
            "event_time": known,
            **more,
        }
        # One in a hundred bears another time than that of its arrival.
        known += HOUR if self._draws.random() < 0.01 else 0
        self._made.append((known, len(self._made), encode(event)))
        return number


def _bad_outcomes() -> list[bytes | None]:
    whole: Event = {"outcome_id": "bad", "payment_id": "p0000001é", "kind": "chargeback", "event_time": START}
    wrong: dict[str, list[Any]] = {
        "outcome_id": [None, 7, "", "o" * 257],
        "payment_id": [None, 7, "", "x" * 129],
        "kind": [None, "stolen", 7],
        "event_time": [None, -1, "now", 1.5, 10**400],
        "category": ["theft"],
        "amount": [-1, 5, 10**12 + 1, "5"],
        "currency": ["eur"],
    }
    text = json.dumps(whole).encode()
    bad: list[bytes | None] = [
        None,
        b"",
        b"{",
        b"[]",
        b"null",
        text[:-1],
        text.replace(b"p0000001", b"p\xff"),
    ]
    bad += [text.replace(b'"chargeback"', b"NaN"), text[:-1] + b', "x": ' + b"[" * 50_000 + b"}"]
    bad += [json.dumps(whole | {name: value}).encode() for name, values in wrong.items() for value in values]
    bad += [json.dumps({k: v for k, v in whole.items() if k != name}).encode() for name in whole]
    bad.append(json.dumps(whole | {"kind": "enforced"}).encode())
    return bad
