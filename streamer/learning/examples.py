"""Examples to learn from, and the messages in which shards send theirs to the school.

A message is sealed like those between stages. It names the inputs, so that a school under later declarations
takes what it knows; columns are packed like decided batches, exact to the bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import numpy as np

from streamer.batch import Bool, Float64
from streamer.chain.wire import MOST_BYTES, UnreadableError, seal, unseal
from streamer.state.packing import pack, unpack

_MAGIC: Final = b"streamer\x02"
_CELL: Final = 9
"""Bytes that a number takes at most, packed."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Moment = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Examples:
    """Payments for a model: inputs (n, k), labels (n,), weights (n,), event time of the newest in ms."""

    model: str
    inputs: Float64
    fraud: Bool
    weight: Float64
    until: int

    def __len__(self) -> int:
        return len(self.fraud)

    def slice(self, begin: int, end: int | None = None) -> "Examples":
        """The examples from `begin` up to `end`."""
        rows = slice(begin, end)
        return Examples(self.model, self.inputs[rows], self.fraud[rows], self.weight[rows], self.until)


def join(parts: Sequence[Examples]) -> Examples:
    """All examples of one model, one after the other; at least one part."""
    if len(parts) == 1:
        return parts[0]
    return Examples(
        parts[0].model,
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.fraud for part in parts]),
        np.concatenate([part.weight for part in parts]),
        max(part.until for part in parts),
    )


def aligned(values: Float64, names: Sequence[str], wanted: Sequence[str]) -> Float64:
    """Columns called `names` brought to those `wanted`; what there is none of is NaN.

    >>> aligned(np.array([[1.0, 2.0]]), ["a", "b"], ["b", "c"]).tolist()
    [[2.0, nan]]
    """
    places = {name: column for column, name in enumerate(names)}
    out = np.full((len(values), len(wanted)), np.nan)
    known = [(column, places[name]) for column, name in enumerate(wanted) if name in places]
    out[:, [column for column, _ in known]] = values[:, [place for _, place in known]]
    return out


@dataclass(frozen=True, slots=True)
class Message:
    """Examples under a number of their sender, which counts its messages; `names` are those of the inputs."""

    sender: int
    number: int
    names: tuple[str, ...]
    examples: Examples


def split(examples: Examples) -> Iterator[Examples]:
    """The examples in parts that fit into a message each."""
    most = max(1, MOST_BYTES // 2 // (_CELL * (examples.inputs.shape[1] + 1)))
    for begin in range(0, len(examples), most):
        yield examples.slice(begin, begin + most)


def encode(message: Message) -> bytes:
    """Serialize."""
    examples = message.examples
    packed = _Packed(
        message.sender,
        message.number,
        examples.model,
        message.names,
        examples.until,
        examples.fraud.tobytes(),
        pack(examples.weight[:, np.newaxis]),
        pack(examples.inputs),
    )
    return seal(_MAGIC, msgspec.msgpack.encode(packed))


def decode(value: bytes | None) -> Message:
    """The inverse of `encode`; raises nothing but `UnreadableError` for what is none or cannot be learned."""
    body = unseal(_MAGIC, value)
    try:
        packed = msgspec.msgpack.decode(body, type=_Packed)
        n, k = len(packed.fraud), len(packed.names)
        given = np.frombuffer(packed.fraud, np.uint8)
        weight, inputs = unpack(packed.weight), unpack(packed.inputs)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableError(f"Expected examples to learn from, got: {error}") from error
    if not n or weight.shape != (n, 1) or inputs.shape != (n, k) or (given > 1).any():
        raise UnreadableError(
            f"Expected {n} labels, weights and rows of {k} inputs, at least one, got shapes {weight.shape}"
            f" and {inputs.shape}"
        )
    if not (np.isfinite(weight).all() and (weight >= 0.0).all()):
        raise UnreadableError("Expected finite weights of at least 0")
    examples = Examples(packed.model, inputs, given.view(np.bool_), weight[:, 0].copy(), packed.until)
    return Message(packed.sender, packed.number, packed.names, examples)


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    sender: Count
    number: Count
    model: str
    names: tuple[str, ...]
    until: Moment
    fraud: bytes
    weight: bytes
    inputs: bytes
