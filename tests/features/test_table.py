"""The table of keys: batches, memory, disk, damage."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import StateError, StreamerError
from streamer.features.aggregates import count, distinct, maximum, std, total
from streamer.features.declarations import Entity
from streamer.features.fields import amount, merchant
from streamer.features.table import Features, warm_up
from tests.features.oracle import Batch, Blocks, Event, Oracle

CARD = Entity(
    "card", features=[count("1s"), std(amount, "1s"), maximum(amount, "100ms"), distinct(merchant, "1s")]
)
PAIR = Entity("pair", keys=("card", "merchant"), features=[count("1s"), total(amount, "1s")])


def events(n: int, *, cards: int = 5, step: int = 3, seed: int = 1) -> list[Event]:
    """Payments of a few cards."""
    source = random.Random(seed)
    return [
        Event(
            1_000_000 + step * i - (source.randrange(50) if source.random() < 0.1 else 0),
            source.randrange(10_000),
            fields={"card": f"c{source.randrange(cards)}", "merchant": f"m{source.randrange(40)}"},
        )
        for i in range(n)
    ]


def new(blocks: Blocks, budget: int = 1 << 20, *, spilled: bool = True) -> Features:
    """Features of cards and pairs."""
    return Features([CARD, PAIR], memory_budget=budget, allowed_lateness=100, blocks=blocks, spilled=spilled)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_batch_size_changes_nothing(sizes: list[int]) -> None:
    """However a stream is cut into batches, the bytes of its features are the same."""
    stream = events(sum(sizes))
    whole = new(Blocks()).update(Batch(stream))
    features, at, parts = new(Blocks()), 0, []
    for size in sizes:
        parts.append(features.update(Batch(stream[at : at + size])))
        at += size
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_absent_keys_give_absent_features() -> None:
    """Without card there is nothing to say."""
    got = new(Blocks()).update(Batch([Event(5, fields={"merchant": "m"})]))
    assert np.isnan(got[0]).all()


def test_test_traffic_is_answered_and_not_counted() -> None:
    """A payment with `live` false has the features a live one would have, and leaves nothing behind."""
    live, test = (Event(5, live=live, fields={"card": "c", "merchant": "m"}) for live in (True, False))
    features = new(Blocks())
    got = features.update(Batch([test, test, live]))
    assert got[0].tobytes() == got[1].tobytes() == got[2].tobytes()
    assert features.update(Batch([live]))[0, 0] == 2.0


def test_parts_of_composite_keys_do_not_run_together() -> None:
    """(ab, c) and (a, bc) are two pairs."""
    pairs = [("ab", "c"), ("a", "bc")]
    got = new(Blocks()).update(Batch([Event(5, fields={"card": a, "merchant": b}) for a, b in pairs]))
    assert got[:, 4].tolist() == [1.0, 1.0]


def test_memory_stays_within_its_budget() -> None:
    """Keys leave memory once they are written, and many keys take no more than the budget and a batch."""
    blocks = Blocks()
    features = new(blocks, budget=200_000, spilled=False)
    for i in range(200):
        batch = [Event(1_000 * i, fields={"card": f"c{i}-{j}", "merchant": "m"}) for j in range(50)]
        features.update(Batch(batch))
        blocks.write(features.cut())
        features.written()
    assert features.memory < 200_000 + 50 * 2 * 2_000


def test_unwritten_keys_stay_until_memory_ends() -> None:
    """A key that is not in the store never leaves memory; when there is no room at all, the error says so."""
    features = Features([CARD], memory_budget=0, allowed_lateness=100, blocks=Blocks())

    def fill() -> None:
        for i in range(200):
            batch = [Event(i, fields={"card": f"{i}-{j}"}) for j in range(1_000)]
            features.update(Batch(batch))

    with pytest.raises(StreamerError, match="raise the memory budget or commit more often"):
        fill()
    assert features.keys["card"] > 10_000


def test_only_what_changed_is_written() -> None:
    """A key with many blocks writes the newest one or two, and deletes what no window can see."""
    blocks = Blocks()
    features = Features([CARD], memory_budget=1 << 20, allowed_lateness=100, blocks=blocks)
    most = 0
    for i in range(600):
        features.update(Batch([Event(10 * i, fields={"card": "c", "merchant": "m"})]))
        rows = features.cut()
        most = max(most, len(rows))
        blocks.write(rows)
    assert most <= 3
    assert len(blocks.rows) <= 110 // 16 + 3
    assert features.cut() == []


def test_store_is_asked_only_for_what_it_may_have() -> None:
    """Nothing stored before and nothing evicted: no question."""
    blocks = Blocks()
    new(blocks, spilled=False).update(Batch(events(100)))
    assert blocks.asked == 0


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_block_is_found_and_named(data: st.DataObject) -> None:
    """Any changed byte, a truncation or a lost block is an error that names entity and key."""
    blocks = Blocks()
    features = Features([CARD], memory_budget=1 << 20, allowed_lateness=100, blocks=blocks)
    features.update(Batch(events(100, cards=1)))
    blocks.write(features.cut())
    row = data.draw(st.sampled_from(sorted(blocks.rows)))
    value = bytearray(blocks.rows[row])
    match data.draw(st.sampled_from(["flip", "cut", "lose", "swap"])):
        case "flip":
            value[data.draw(st.integers(0, len(value) - 1))] ^= data.draw(st.integers(1, 255))
        case "cut":
            del value[data.draw(st.integers(0, len(value) - 1)) :]
        case "swap":
            value = bytearray(blocks.rows[min(other for other in blocks.rows if other != row)])
        case _:
            value = bytearray()
    blocks.rows[row] = bytes(value)
    again = Features([CARD], memory_budget=1 << 20, allowed_lateness=100, blocks=blocks)
    with pytest.raises(StateError, match=r"entity 'card', key b'c0', .*block"):
        again.update(Batch(events(1, cards=1)))


def test_a_hot_key_is_exact() -> None:
    """Ten thousand events of one key and many values, some late, equal brute force at the end."""
    stream = events(10_000, cards=1, step=1)
    features, oracle = (
        Features([CARD], memory_budget=1 << 20, allowed_lateness=100, blocks=Blocks()),
        Oracle([CARD]),
    )
    got = features.update(Batch(stream))
    oracle.seen = stream[:-1]
    np.testing.assert_allclose(got[-1], oracle.answer(stream[-1]), rtol=1e-12)


def test_a_new_feature_is_right_at_once() -> None:
    """What a new feature needs is in the stored events; a field that was not kept starts empty."""
    blocks = Blocks()
    old = Features(
        [Entity("card", features=[total(amount, "1s")])],
        memory_budget=1 << 20,
        allowed_lateness=100,
        blocks=blocks,
    )
    stream = events(60, cards=2, step=1)
    old.update(Batch(stream[:-1]))
    blocks.write(old.cut())
    entity = Entity("card", features=[std(amount, "500ms"), maximum(amount, "1s"), distinct(merchant, "1s")])
    got = Features([entity], memory_budget=1 << 20, allowed_lateness=100, blocks=blocks).update(
        Batch(stream[-1:])
    )
    oracle = Oracle([entity])
    oracle.seen = stream[:-1]
    np.testing.assert_allclose(got[0, :2], oracle.answer(stream[-1])[:2], rtol=1e-12)
    assert got[0, 2] == 1.0


def test_what_has_no_amount_is_in_no_sum() -> None:
    """Not in the memory, not in blocks, and not where the blocks were written before amounts were kept."""
    counted = Entity("card", features=[count("1s")])
    summed = Entity("card", features=[count("1s"), total(amount, "1s"), maximum(amount, "1s")])
    blocks = Blocks()

    def answer(entity: Entity, *amounts: int | None) -> list[float]:
        features = Features([entity], memory_budget=1 << 20, allowed_lateness=100, blocks=blocks)
        got = features.update(Batch([Event(5, one, fields={"card": "c"}) for one in amounts]))
        blocks.write(features.cut())
        return [float(value) for value in got[-1]]

    assert answer(counted, 7) == [1]
    assert answer(summed, None, 20) == [3, 20, 20]
    assert answer(summed, 3, None) == [5, 23, 20]


def test_keys_beyond_the_limit_are_refused() -> None:
    """A key of 10 KB is an error here: the codec rejects such payments."""
    with pytest.raises(StreamerError, match="at most 4096 bytes"):
        new(Blocks()).update(Batch([Event(1, fields={"card": "c" * 10_000})]))


def test_kernels_warm_up() -> None:
    """All kernels can be compiled before the first payment."""
    warm_up()
