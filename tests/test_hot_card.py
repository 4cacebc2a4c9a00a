"""Half of all traffic on one card: answers as by counting, and commits that do not grow with the card."""

from pathlib import Path
from random import Random

import msgspec
import pytest

from streamer import Entity, Model, Policy, Topology, amount, count, distinct, merchant, total
from streamer.engine import Engine
from streamer.features.blocks import EVENTS
from streamer.settings import Commit, Settings, Size, State
from streamer.state.store import BLOCKS, Store
from tests.test_engine import NOW, fraud, records_of

BATCHES, SIZE = 50, 200
HOUR = 3_600_000
cards = Entity("card", features=[count("1h", "1d"), total(amount, "1h"), distinct(merchant, "1d")])
TOPOLOGY = Topology("hot", [Model("fraud", [cards], fraud.learner)], Policy("tested", 1), entities=[cards])


def traffic() -> list[dict[str, object]]:
    """Half of the payments by `hot`, the others by as many cards; an hour is a thirtieth of it all."""
    draws = Random(8)
    return [
        {
            "payment_id": f"p{number}",
            "event_time": NOW + number * 30 * HOUR // (BATCHES * SIZE),
            "amount": draws.randrange(1, 10_000),
            "currency": "EUR",
            "card": "hot" if draws.random() < 0.5 else f"c{draws.randrange(SIZE)}",
            "merchant": f"m{draws.randrange(500)}",
        }
        for number in range(BATCHES * SIZE)
    ]


def counted(payments: list[dict[str, object]], number: int) -> dict[str, float]:
    """The features of one payment, by looking at all before it."""
    mine = payments[number]
    now = int(str(mine["event_time"]))
    known = [one for one in payments[: number + 1] if one["card"] == mine["card"]]

    def within(window: int) -> list[dict[str, object]]:
        return [one for one in known if int(str(one["event_time"])) > now - window]

    return {
        "card_count_1h": len(within(HOUR)),
        "card_count_1d": len(within(24 * HOUR)),
        "card_sum_amount_1h": sum(int(str(one["amount"])) for one in within(HOUR)),
        "card_distinct_merchant_1d": len({one["merchant"] for one in within(24 * HOUR)}),
    }


@pytest.mark.parametrize("redo", [0, 1_000_000])
def test_a_hot_card_is_exact_and_costs_what_is_new(tmp_path: Path, redo: int) -> None:
    """Rows of the card in a commit: the blocks of its new events and one more, however many it has."""
    chosen = Settings(state=State(memory_budget=Size(1 << 24)), commit=Commit(redo_payments=redo))
    payments = traffic()
    rows: list[int] = []
    answers: list[dict[str, float]] = []
    with Store.open(tmp_path / "state") as store:
        engine = Engine(TOPOLOGY, store, chosen, emit_features=True)
        for start in range(0, len(payments), SIZE):
            answer = engine.process(records_of(payments[start : start + SIZE], start))
            assert answer.features is not None
            answers.extend(msgspec.json.decode(value or b"")["features"] for value in answer.features.values)
            writes = engine.cut()
            rows.append(sum(key.startswith(BLOCKS) and b"hot" in key for key, _ in writes.rows))
            store.commit(writes)
            engine.written()
    for number in [*range(0, len(payments), 97), len(payments) - 1]:
        assert counted(payments, number) == answers[number], number
    if redo:
        assert sum(rows) == 0  # all of it is in the decided batches, from which a start counts again
    else:
        assert 0 < max(rows) <= SIZE // EVENTS + 2
