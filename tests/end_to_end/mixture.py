"""A stream of payments as unkind as the world: bad, late, future, repeated, tied and huge records."""

import json
import random
from collections.abc import Iterator
from typing import Any

from .logs import Sent

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_700_000_000_000
PAN = "4111111111111111"

Event = dict[str, Any]


def mixture(count: int, seed: int) -> list[Sent]:
    """`count` records over about forty days: nine in ten are payments, the others everything else."""
    draws = random.Random(seed)
    made = _Stream(draws)
    bad = bad_records()
    draws.shuffle(bad)
    places = set(draws.sample(range(count), len(bad)))
    records: list[Sent] = []
    for place in range(count):
        made.advance()
        if place in places:
            value = bad.pop()
            if value is not None:
                value = value.replace(b"%d" % START, b"%d" % made.now)
            records.append(Sent(made.now, b"%d" % place if value is None or place % 2 else None, value))
        else:
            event = made.event()
            trace = (
                ("traceparent", b"00-%032x-%016x-01" % (place, place)),
                ("correlation_id", b"\xff%d" % place),
            )
            headers = (*trace, ("other", b"stays behind")) if place % 10 == 0 else ()
            records.append(Sent(made.now, event["payment_id"].encode(), encode(event), headers))
    return records


def bad_records() -> list[bytes | None]:
    """Records that are no payments, and a few that only look bad; those with a time have START."""
    return [*_bad_bytes(), *_bad_fields()]


def encode(event: Event) -> bytes:
    """The event as UTF-8 JSON."""
    return json.dumps(event, ensure_ascii=False).encode()


def good(payment_id: str, event_time: int, **fields: object) -> Event:
    """A payment with all that is required."""
    return {"payment_id": payment_id, "event_time": event_time, "amount": 100, "currency": "EUR"} | fields


class _Stream:
    """Payments of a few cards, customers and merchants, in bursts, so that windows fill and empty."""

    def __init__(self, draws: random.Random) -> None:
        self._draws = draws
        self._sent: list[Event] = []
        self.now = START

    def advance(self) -> None:
        """Let time pass: mostly seconds, at times hours, nothing at all, or a window's length."""
        draws = self._draws
        steps = (draws.randint(0, 20_000), draws.randint(0, 3 * HOUR), 0, MINUTE, HOUR)
        self.now += draws.choices(steps, (60, 22, 8, 6, 4))[0]

    def event(self) -> Event:
        """The next payment, or an earlier one again."""
        draws = self._draws
        if self._sent and draws.random() < 0.04:
            return self._again(draws.choice(self._sent[-200:]))
        event = good(f"p{len(self._sent):06}é", self._time(), amount=self._amount())
        for name, kinds in (("card", 12), ("customer", 6), ("merchant", 4)):
            if draws.random() < 0.94:
                event[name] = f"{name}-{min(draws.randrange(kinds), draws.randrange(kinds))}"
        if draws.random() < 0.02:
            event["live"] = False
        if draws.random() < 0.1:
            event |= {
                "unknown": [1, {"a": None}],
                "lat": 48.1,
                "lon": 11,
                "type": "recurring",
                "attributes": {"x": 1},
            }
        self._sent.append(event)
        return event

    def _again(self, event: Event) -> Event:
        """The same content with its keys in another order, or with another amount."""
        if self._draws.random() < 0.5:
            return dict(reversed(event.items())) | {"newer_field": "as later versions add"}
        return event | {"amount": event["amount"] + 1}

    def _time(self) -> int:
        late = self._draws.random()
        if late < 0.05:
            return self.now - self._draws.choice((1, 1_000, MINUTE, HOUR, self._draws.randint(1, 6 * DAY)))
        if late < 0.06:
            return self.now - self._draws.randint(8 * DAY, 40 * DAY)
        if late < 0.07:
            return self.now + 600_001 + self._draws.randint(0, DAY)
        return self.now + self._draws.choice((0, 0, 0, 600_000)) if late < 0.075 else self.now

    def _amount(self) -> int:
        draws = self._draws
        huge = draws.random()
        return 10**12 if huge < 0.005 else 0 if huge < 0.02 else int(draws.lognormvariate(8.0, 1.5))


def _bad_bytes() -> Iterator[bytes | None]:
    """Records that are no JSON, or none that may be read."""
    whole = encode(good("broken", START))
    yield from (
        None,
        b"",
        b" ",
        b"null",
        b"7",
        b"[]",
        b'"text"',
        b"{",
        b"{}",
        b"}{",
        whole[:-1],
        whole + b"}",
    )
    yield from (
        whole.replace(b"100", number) for number in (b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b"1.")
    )
    yield whole.replace(b"broken", b"bro\xffken")
    yield whole.replace(b"broken", b"bro\x00ken")
    yield whole.replace(b"broken", b"\\ud800")
    yield whole[:-1] + b', "card": "\\udc00x"}'
    yield b"\x00" * 40
    yield b"\xef\xbb\xbf" + whole
    yield whole.decode().encode("utf-16")
    yield whole + b"," + whole
    yield b"[" + whole + b"]"
    yield b"[" * 200_000
    yield whole[:-1] + b', "unknown": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    yield whole[:-1] + b', "unknown": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"
    yield whole[:-1] + b', "unknown": "' + b"x" * 10_000_000 + b'"}'


def _bad_fields() -> Iterator[bytes]:
    """Objects that are no payments, and a few that only look bad."""
    wrong: dict[str, list[Any]] = {
        "amount": [-1, 10**12 + 1, 10**400, -(10**400), 10.5, "100", True, None, [], {}],
        "event_time": [-1, 10**400, 2**64, 1.5, "now", False, None],
        "payment_id": [7, "", "x" * 129, "é" * 65, None, ["x"]],
        "currency": [7, "", "EURO", "eur", None],
        "card": [7, "", "x" * 257, "k" * 10_000, ["x"], PAN, "5500000000000004", "4111111111111112"],
        "merchant": ["es\x00caped", "snow ☃ 𝄞"],
        "live": ["false", 0],
        "attempt": [0, 1.5],
        "lat": ["48", True],
        "mcc": ["54111"],
        "bin": ["12345", "12345x"],
        "type": ["gift"],
        "initiator": ["bank"],
        "attributes": [[], {str(each): each for each in range(33)}, {"a": [1]}],
    }
    for name, contents in wrong.items():
        for number, content in enumerate(contents):
            yield json.dumps(good(f"{name}{number}", START) | {name: content}).encode()
    yield encode(good("huge", START)).replace(b"100", b"1e400")
    yield encode(good("huge2", START, lat=12345.5)).replace(b"12345.5", b"1e400")
    for name in ("payment_id", "event_time", "amount", "currency"):
        event = good("lacking", START)
        del event[name]
        yield encode(event)
