"""Decided batches come back exactly, are found by payment_id, and damage is said."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.batch import Text
from streamer.errors import StateError
from streamer.state.decided import (
    OFFSET_BITS,
    ROW_BITS,
    Decided,
    DecidedBatches,
    payments_of,
    rows_of,
)
from streamer.state.identities import ENTRY, Identities
from streamer.state.store import Progress, Store, WriteSet


def batch_of(rows: int, columns: int = 5, seed: int = 0, models: int = 2) -> Decided:
    """A batch of velocity-like features with everything that is awkward about floats in it."""
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 5, (rows, columns)).astype(float)
    odd = np.array([np.nan, -0.0, np.inf, -np.inf, 5e-324, 1 / 3, 1e300, 2.0**53])
    strange = rng.random(features.shape) < 0.1
    features[strange] = rng.choice(odd, int(strange.sum()))
    texts = [f'{{"payment_id":"p{seed}-{row}"}}' * int(rng.integers(0, 3)) for row in range(rows)]
    return Decided(
        f"topology-{seed}",
        {f"model{number}": number + seed for number in range(models)},
        (np.int64(seed) << OFFSET_BITS) + np.arange(rows) * 3,
        1_700_000_000_000 - rng.integers(0, 10**9, rows),
        rng.integers(0, 4, rows).astype(np.uint8),
        rng.random((rows, models)),
        features,
        Text.pack(texts),
        rng.integers(-1, 10**12, int(rng.integers(0, rows + 1)), endpoint=True),
    )


def assert_same(expected: Decided, got: Decided) -> None:
    """Equal to the bit, types and shapes too."""
    assert (expected.topology, expected.models, len(expected)) == (got.topology, got.models, len(got))
    for name in ("source", "event_time", "action", "scores", "features", "others"):
        one, other = getattr(expected, name), getattr(got, name)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
    assert expected.payment.data.tobytes() == got.payment.data.tobytes()
    assert expected.payment.ends.tolist() == got.payment.ends.tolist()


def commit(store: Store, number: int, decided: Decided, digests: np.ndarray) -> None:
    """Store a batch as the engine does."""
    marks = np.zeros(len(decided), ENTRY)
    marks["high"], marks["low"] = digests[:, 0], digests[:, 1]
    marks["content"], marks["time"], marks["source"] = 7, 8, decided.source
    store.commit(WriteSet(Progress(batches=number + 1), rows_of(number, decided, marks)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 700), st.integers(0, 20), st.integers(0, 50), st.integers(0, 3))
def test_a_batch_comes_back_exactly(rows: int, columns: int, seed: int, models: int) -> None:
    """Every column of it, to the bit."""
    decided = batch_of(rows, columns, seed, models)
    assert_same(decided, Decided.decode(decided.encode()))


def test_features_may_be_a_view() -> None:
    """The engine's matrix need not be contiguous."""
    decided = batch_of(40, 12)
    view = Decided(
        decided.topology,
        decided.models,
        decided.source,
        decided.event_time,
        decided.action,
        decided.scores[:, ::-1],
        decided.features[:, 1:7],
        decided.payment,
    )
    again = Decided.decode(view.encode())
    assert np.ascontiguousarray(view.features).tobytes() == again.features.tobytes()
    assert np.ascontiguousarray(view.scores).tobytes() == again.scores.tobytes()


def test_windows_that_agree_take_little_room() -> None:
    """A batch of 210 features, most windows of which say the same, takes less than a fifth of its floats."""
    rng = np.random.default_rng(3)
    rows = 1000
    amount = rng.integers(100, 100_000, rows).astype(float)
    features = np.empty((rows, 210))
    for entity in range(5):
        count, total = np.ones(rows), amount.copy()
        for window in range(7):
            more = rng.random(rows) < 0.15 * entity / 2
            count = count + more
            total = total + more * rng.integers(100, 100_000, rows)
            at = entity * 42 + window * 6
            mean = total / count
            features[:, at : at + 6] = np.stack([count, total, mean, mean / 3 * more, amount, count], 1)
    decided = batch_of(rows)
    wide = Decided(
        decided.topology,
        decided.models,
        decided.source,
        decided.event_time,
        decided.action,
        decided.scores,
        features,
        Text.pack([None] * rows),
    )
    data = wide.encode()
    assert len(data) < features.nbytes / 5
    assert_same(wide, Decided.decode(data))


def test_payments_are_found_by_the_digest_of_their_id(tmp_path: Path) -> None:
    """In the order asked, from several batches, with the place and source of each."""
    batches = [batch_of(rows, seed=seed) for seed, rows in enumerate((3, 300, 1))]
    with Store.open(tmp_path) as store:
        identities = Identities(1, 1, DecidedBatches(store).marks, store.secret)
        ids = [[f"p{seed}-{row}" for row in range(len(batch))] for seed, batch in enumerate(batches)]
        digests = [identities.digest(Text.pack(names)) for names in ids]
        for number, batch in enumerate(batches):
            commit(store, number, batch, digests[number])
        wanted = [(1, 299), (0, 0), (1, 7), (2, 0), (0, 2), (1, 7)]
        keys = [digests[number][row].tobytes() for number, row in wanted]
        reader = DecidedBatches(store)
        found = reader.find([*keys, b"x" * 16])
        assert found.pop() is None
        for (number, row), one in zip(wanted, found, strict=True):
            assert one is not None
            batch = batches[number]
            assert number << ROW_BITS | row == one.place
            assert (batch.topology, batch.models) == (one.topology, one.models)
            assert int(batch.source[row]) == one.source
            assert int(batch.event_time[row]) == one.event_time
            assert int(batch.action[row]) == one.action
            assert batch.scores[row].tobytes() == one.scores.tobytes()
            assert batch.features[row].tobytes() == one.features.tobytes()
            assert batch.payment.data[slice(*batch.payment.ends[row : row + 2])].tobytes() == one.payment
        assert reader.find([]) == []
        mark = np.frombuffer(reader.marks(keys[:1])[0] or b"", ENTRY)[0]
        assert (mark["content"], mark["time"], mark["place"]) == (7, 8, 1 << ROW_BITS | 299)
        assert keys[0] == mark.tobytes()[:16]


def test_marks_survive_a_restart_through_the_disk(tmp_path: Path) -> None:
    """A new process knows the payments of an earlier one, and its secret, by looking them up."""
    decided = batch_of(50)
    names = Text.pack([f"p{row}" for row in range(50)])
    with Store.open(tmp_path) as store:
        commit(store, 0, decided, Identities(1, 1, DecidedBatches(store).marks, store.secret).digest(names))
    with Store.open(tmp_path) as store:
        identities = Identities(
            5, 1 << 20, DecidedBatches(store).marks, store.secret, spilled=None if store.empty else 2**62
        )
        marks = np.zeros(51, ENTRY)
        digests = identities.digest(Text.pack([f"p{row}" for row in range(51)]))
        marks["high"], marks["low"], marks["content"] = digests[:, 0], digests[:, 1], 7
        marks["time"] = 9
        marks["content"][3] = 6
        marks["time"][4] = 8 + 6
        verdict, source = identities.judge(marks)
        assert verdict.tolist() == [1, 1, 1, 2, 0] + [1] * 45 + [0]
        assert [*decided.source[:4].tolist(), -1, *decided.source[5:].tolist(), -1] == source.tolist()


def test_batches_are_read_in_order_of_their_number(tmp_path: Path) -> None:
    """Beyond what one byte of a key counts, from any number on, and without those that are gone."""
    with Store.open(tmp_path) as store:
        batches = {number: batch_of(2, seed=number) for number in (0, 1, 255, 256, 65536)}
        for number, batch in batches.items():
            commit(store, number, batch, np.full((2, 2), number, np.uint64))
        reader = DecidedBatches(store)
        assert [number for number, _ in reader.scan(1)] == [1, 255, 256, 65536]
        for number, got in reader.scan():
            assert_same(batches[number], got)
        for number, payments, _ in reader.payments(255):
            expected = batches[number].payment
            assert expected.data.tobytes() == payments.data.tobytes()
            assert expected.ends.tolist() == payments.ends.tolist()
        assert [number for number, *_ in reader.payments(255)] == [255, 256, 65536]
        assert reader.batch(2) is None
        got = reader.batch(256)
        assert got is not None
        assert_same(batches[256], got)


def test_damage_is_a_state_error() -> None:
    """Cut off, grown or changed: an error that says so, or a batch whose columns agree; never a crash."""
    rng = np.random.default_rng(5)
    decided = batch_of(300)
    data = decided.encode()
    for size in range(0, len(data), 211):
        with pytest.raises(StateError, match="damaged"):
            Decided.decode(data[:size])
        with pytest.raises(StateError, match="damaged"):
            payments_of(data[:size])
    with pytest.raises(StateError, match="damaged"):
        Decided.decode(data + b"x")
    for _ in range(1500):
        broken = bytearray(data)
        broken[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        try:
            got = Decided.decode(bytes(broken))
        except StateError as error:
            assert "damaged" in str(error)  # noqa: PT017 - either way is right, a crash is not
        else:
            assert len(got) == len(got.features) == len(got.payment) == len(got.scores) == len(got.action)
