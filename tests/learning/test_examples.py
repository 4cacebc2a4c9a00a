"""Examples on their way to the school: every bit arrives, in parts that fit, and garbage is told."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streamer.chain.wire import MOST_BYTES, UnreadableError, seal
from streamer.learning.examples import Examples, Message, aligned, decode, encode, join, split
from streamer.state.packing import pack


def examples_of(inputs: Any, until: int = 7, model: str = "fraud") -> Examples:
    """Examples with these inputs, labels and weights by their place."""
    n = len(inputs)
    return Examples(model, inputs, np.arange(n) % 3 == 0, np.arange(n) / 7.0, until)


def flat(examples: Examples) -> tuple[object, ...]:
    """All there is of examples, numbers by their bits."""
    return (
        examples.model,
        examples.inputs.shape,
        examples.inputs.tobytes(),
        examples.fraud.tolist(),
        examples.weight.tobytes(),
        examples.until,
    )


SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)


@given(arrays.arrays(np.uint64, SHAPES), st.integers(-(2**63), 2**63 - 1), st.text(max_size=9))
def test_what_goes_in_comes_out(bits: Any, until: int, model: str) -> None:
    """Inputs bit by bit, whatever they are, with labels, weights and all that is said of the sender."""
    given_ = examples_of(bits.view(np.float64), until, model)
    names = tuple(f"input{column}" for column in range(bits.shape[1]))
    found = decode(encode(Message(3, 2**63 - 1, names, given_)))
    assert (found.sender, found.number, found.names) == (3, 2**63 - 1, names)
    assert flat(found.examples) == flat(given_)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (20_000, 3), (3_000, 210), (40, 5_000)])
def test_parts_fit_into_messages(n: int, k: int) -> None:
    """Numbers that no packing makes smaller: each message is below what a log takes, and none is lost."""
    inputs = np.random.default_rng(1).integers(0, 2**62, (n, k)).view(np.float64)
    whole = examples_of(inputs)
    names = tuple(f"entity_aggregate_field_{column}_30d" for column in range(k))
    parts = list(split(whole))
    assert all(len(encode(Message(1, 0, names, part))) <= MOST_BYTES for part in parts)
    assert flat(join(parts)) == flat(whole)


def test_good_payments_take_little() -> None:
    """A thousand examples of 40 counts take less than three bytes a number."""
    inputs = np.random.default_rng(1).integers(0, 300, (1_000, 40)).astype(np.float64)
    names = tuple(f"card_count_{column}h" for column in range(40))
    assert len(encode(Message(1, 0, names, examples_of(inputs)))) < 3 * 40_000


def test_the_newest_of_all_parts_counts() -> None:
    """Joined examples keep their order, and the event time of the newest."""
    parts = [examples_of(np.full((2, 1), float(number)), until) for number, until in enumerate((5, 9, 7))]
    joined = join(parts)
    assert joined.inputs[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert joined.until == 9


def test_inputs_are_found_by_name() -> None:
    """In the order that is wanted; what is not there is absent, what is not wanted is left."""
    found = aligned(np.array([[1.0, 2.0, 3.0]]), ("a", "b", "c"), ("c", "d", "a"))
    assert np.array_equal(found, [[3.0, np.nan, 1.0]], equal_nan=True)
    assert aligned(np.empty((2, 0)), (), ("a",)).shape == (2, 1)


def forged(**changes: object) -> bytes:
    """A sealed message of one example, with fields changed."""
    fields: dict[str, object] = {
        "sender": 1, "number": 0, "model": "fraud", "names": ["a"], "until": 7, "fraud": b"\1",
        "weight": pack(np.ones((1, 1))), "inputs": pack(np.ones((1, 1))),
    }  # fmt: skip
    return seal(b"streamer\x02", msgspec.msgpack.encode(list((fields | changes).values())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sender": -1}, "Expected `int` >= 0"),
        ({"number": 2**63}, "Expected `int` <="),
        ({"until": "7"}, "Expected `int`, got `str`"),
        ({"names": "a"}, "Expected `array`, got `str`"),
        ({"names": ["a", "b"]}, "1 labels, weights and rows of 2 inputs"),
        ({"fraud": b""}, "0 labels"),
        ({"fraud": b"\1\0"}, "2 labels"),
        ({"fraud": b"\2"}, "1 labels"),
        ({"weight": b""}, "expected packed numbers, got 0 bytes"),
        ({"weight": pack(np.full((1, 1), np.nan))}, "finite weights"),
        ({"weight": pack(np.full((1, 1), -1.0))}, "finite weights"),
        ({"weight": pack(np.ones((2, 1)))}, "got shapes"),
        ({"inputs": pack(np.ones((1, 1)))[:-1]}, "bytes of packed numbers"),
        ({"inputs": b"\xff" * 60}, "bytes of packed numbers"),
        ({"model": [[]]}, "Expected `str`"),
    ],
)
def test_what_cannot_be_learned_is_unreadable(changes: dict[str, object], message: str) -> None:
    """A whole seal proves nothing: shapes, labels and weights are checked before anybody learns from them."""
    assert len(decode(forged()).examples) == 1
    with pytest.raises(UnreadableError, match=message):
        decode(forged(**changes))


def test_nested_garbage_is_unreadable() -> None:
    """Neither does depth stop anything."""
    with pytest.raises(UnreadableError):
        decode(seal(b"streamer\x02", b"\x91" * 100_000))
    whole = msgspec.msgpack.encode([1, 0, "fraud", ["a"], 7, b"\1", b"", b""])
    with pytest.raises(UnreadableError):
        decode(seal(b"streamer\x02", b"\x99" + whole[1:] + b"\x91" * 100_000))


def test_any_damage_is_told() -> None:
    """Bits flipped and bytes lost anywhere raise nothing but `UnreadableError`."""
    draws = random.Random(1)
    whole = encode(Message(1, 5, ("a", "b"), examples_of(np.ones((20, 2)))))
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draws.randrange(len(damaged))] ^= 1 << draws.randrange(8)
        with pytest.raises(UnreadableError):
            decode(bytes(damaged))
        with pytest.raises(UnreadableError):
            decode(whole[: draws.randrange(len(whole))])
    with pytest.raises(UnreadableError, match="no value"):
        decode(None)
