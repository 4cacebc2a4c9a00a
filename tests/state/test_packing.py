"""Packed numbers come back to the last bit, take the room they should, and damage is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamer.state.packing import pack, pack_whole, unpack, unpack_whole

_INT64 = st.integers(-(2**63), 2**63 - 1)

_CELLS = st.one_of(
    st.integers(0, 3).map(float),
    st.integers(0, 2**32).map(float),
    st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -float("inf"), 254.0, 255.0, 256.0, 65534.0]),
    st.sampled_from([65535.0, 2.0**32 - 2, 2.0**32 - 1, 2.0**52, 2.0**53, 5e-324, 1e308, -1.0, 0.5, 1 / 3]),
    st.floats(width=32),
    st.floats(),
)


@st.composite
def _tables(draw: st.DrawFn) -> np.ndarray:
    """Columns drawn from a few pools, some of them copies of an earlier one with a few rows changed."""
    rows, columns = draw(st.integers(0, 600)), draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    table = np.empty((rows, columns))
    for column in range(columns):
        pool = np.array(draw(st.lists(_CELLS, min_size=1, max_size=5)))
        table[:, column] = rng.choice(pool, rows)
        if column and draw(st.booleans()):
            kept = rng.random(rows) < draw(st.floats(0, 1))
            table[kept, column] = table[kept, draw(st.integers(0, column - 1))]
    return table


@settings(max_examples=150, deadline=None)
@given(_tables())
def test_every_bit_comes_back(table: np.ndarray) -> None:
    """Whatever the columns hold and however they resemble each other."""
    again = unpack(pack(table))
    assert table.shape == again.shape
    assert table.tobytes() == again.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.uint64, st.tuples(st.integers(0, 300), st.integers(0, 4)), elements=st.integers(0, 2**64 - 1)
    )
)
def test_any_bits_come_back(bits: np.ndarray) -> None:
    """Signalling NaN and payloads of NaN too."""
    assert bits.tobytes() == unpack(pack(bits.view(np.float64))).tobytes()


def test_columns_may_lie_apart() -> None:
    """A transposed or sliced matrix packs as its values."""
    table = np.arange(60.0).reshape(6, 10)
    for view in (table.T, table[::2, ::3]):
        assert np.ascontiguousarray(view).tobytes() == unpack(pack(view)).tobytes()


@pytest.mark.parametrize(
    ("values", "width"),
    [
        ([0.0, 254.0, np.nan], 1),
        ([0.0, 65534.0, np.nan], 2),
        ([0.0, 4294967294.0, np.nan], 4),
        ([0.5, -3.0, np.nan], 4),
        ([0.0, -0.0, 1.0], 4),
        ([0.1, 1.0, 2.0], 8),
        ([0.0, 2.0**40 + 1, 1.0], 8),
    ],
)
def test_values_take_the_narrowest_exact_type(values: list[float], width: int) -> None:
    """NaN costs nothing extra; -0.0 and negatives are no whole numbers."""
    few, many = np.resize(values, (128, 1)), np.resize(values, (256, 1))
    assert 128 * width == len(pack(many)) - len(pack(few))


def test_a_column_equal_to_an_earlier_one_takes_four_bytes_a_block() -> None:
    """A long window that always equals a short one is nearly free."""
    column = np.random.default_rng(0).random((256, 1))
    assert len(pack(np.hstack([column, column]))) - len(pack(column)) == 4


def test_damage_is_refused_or_read_without_a_crash() -> None:
    """No changed byte and no end cut off makes the kernel read or write outside its arrays."""
    rng = np.random.default_rng(1)
    table = rng.integers(0, 300, (500, 6)).astype(float)
    table[:, 1] = np.where(rng.random(500) < 0.9, table[:, 0], np.nan)
    table[:, 3] = rng.random(500)
    data = pack(table)
    for size in range(0, len(data), 97):
        with pytest.raises(ValueError, match="expected"):
            unpack(data[:size])
    for _ in range(2000):
        broken = bytearray(data)
        at = (
            int(rng.integers(24, len(data)))
            if rng.random() < 0.3
            else int(rng.integers(len(data) - 700, len(data)))
        )
        broken[at] ^= int(rng.integers(1, 256))
        try:
            assert table.shape == unpack(bytes(broken)).shape
        except ValueError as error:
            assert "contradict" in str(error)  # noqa: PT017 - either way is right, a crash is not


@given(hnp.arrays(np.int64, st.integers(0, 50), elements=st.one_of(_INT64, st.integers(0, 300))))
def test_whole_numbers_come_back(values: np.ndarray) -> None:
    """Over the whole range of 64 bits."""
    assert values.tolist() == unpack_whole(pack_whole(values)).tolist()


@pytest.mark.parametrize(
    "data", [b"", b"x" * 12, pack_whole(np.arange(5))[:-1], pack_whole(np.arange(5)) + b"x"]
)
def test_whole_numbers_refuse_what_is_not_theirs(data: bytes) -> None:
    """A cut or lengthened column is a `ValueError`."""
    with pytest.raises(ValueError, match="expected"):
        unpack_whole(data)
