"""The ledger of the storm's oracle counts as going through all payments one by one does."""

import math
import random
from typing import Any

from tests.end_to_end.reading import Payment
from tests.end_to_end.windows import Feature as Brute

from .ledger import EVERYTHING, Feature, Ledger

HOUR = 3_600_000
NAMES = [
    f"{aggregate}_{window}{before}"
    for aggregate in ("count", "sum_amount", "mean_amount", "std_amount", "max_amount", "min_amount",
                      "distinct_merchant")
    for window in ("1m", "1h", "1d")
    for before in ("", "_before")
]  # fmt: skip


def payments(draws: random.Random) -> list[Payment]:
    """Payments of one key, tied, late and without amounts, some of them test traffic."""
    made: list[Payment] = []
    now = 0
    for _ in range(150):
        now += draws.choice((0, 1, 60_000, HOUR, 24 * HOUR))
        one: dict[str, Any] = {"event_time": now - draws.choice((0, 0, 0, 1, 60_000, HOUR))}
        if draws.random() < 0.8:
            one["amount"] = draws.choice((0, 1, 1, 10**12, draws.randrange(10**6)))
        if draws.random() < 0.8:
            one["merchant"] = draws.choice("abc")
        if draws.random() < 0.1:
            one["live"] = False
        made.append(one)
    return made


def test_equals_brute_force() -> None:
    """Counts, sums, extremes and distinct values over windows, of whatever stream."""
    features = [Feature.declared(name, 24 * HOUR, (0, 0)) for name in NAMES]
    for seed in range(6):
        ledger = Ledger(
            {
                EVERYTHING: lambda _: 1,
                "amount": lambda one: one.get("amount"),
                "merchant": lambda one: ord(one["merchant"]) if "merchant" in one else None,
            }
        )
        earlier: list[Payment] = []
        for one in payments(random.Random(seed)):
            known = [other for other in earlier if other["event_time"] <= one["event_time"]]
            found = ledger.features(one, features)
            for name, value in zip(NAMES, found, strict=True):
                wanted = Brute.named(name).of(one, known)
                if wanted is None or value is None:
                    assert wanted is value, (seed, name, one)
                else:
                    assert math.isclose(wanted, value, rel_tol=1e-12), (seed, name, one)
            if one.get("live", True):
                earlier.append(one)


def test_what_has_no_brute_force() -> None:
    """By hand: frauds by the time they became known, novelty, delays, what looks back without a window."""
    names = ["fraud_count_1h", "fraud_rate_1h", "novelty_merchant_1h", "count_1h_delay_1m", "since_last",
             "lifetime_count"]  # fmt: skip
    features = [Feature.declared(name, HOUR, (1, 4)) for name in names]
    ledger = Ledger(
        {EVERYTHING: lambda _: 1, "merchant": lambda one: ord(one["merchant"]) if "merchant" in one else None}
    )

    def pay(moment: int, merchant: str = "a") -> list[float | None]:
        return ledger.features({"event_time": moment, "merchant": merchant}, features)

    assert pay(0) == [0, 1 / 4, 1, 0, None, 1]
    assert pay(1_000) == [0, 1 / 5, 0, 0, 1.0, 2]
    ledger.blame(2_000)
    assert pay(2_000, "b") == [1, 2 / 6, 1, 0, 1.0, 3]
    assert pay(1_999) == [0, 1 / 6, 0, 0, 0.999, 4]  # late: the fraud and b are later
    assert pay(61_000) == [1, 2 / 8, 0, 2, 59.0, 5]
    assert pay(61_000 + HOUR) == [0, 1 / 4, 1, 3, None, 6]  # an hour ago to the millisecond is too long
