"""Random numbers that depend only on what they are for, and ids that look random but never repeat."""

import numpy as np
import numpy.typing as npt

from streamer.batch import Float64, Int64

_MULTIPLY = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT = (np.uint64(30), np.uint64(27), np.uint64(31))
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_PAIRS = np.frombuffer(
    b"".join(bytes((97 + value // 16, 97 + value % 16)) for value in range(256)), np.uint16
)


def mix(numbers: Int64, salt: int) -> npt.NDArray[np.uint64]:
    """Scramble integers one to one (the finaliser of splitmix64, Steele and others 2014)."""
    x = numbers.astype(np.uint64) ^ np.uint64(salt)
    x = (x ^ (x >> _SHIFT[0])) * _MULTIPLY[0]
    x = (x ^ (x >> _SHIFT[1])) * _MULTIPLY[1]
    mixed: npt.NDArray[np.uint64] = x ^ (x >> _SHIFT[2])
    return mixed


def salt(seed: int, purpose: str) -> int:
    """Derive the number that keeps the draws of one purpose apart from all others."""
    value = (seed * _GOLDEN) & _MASK
    for byte in purpose.encode():
        value = ((value ^ byte) * 0x100000001B3) & _MASK
        value ^= value >> 29
    return value


def unit(numbers: Int64, salted: int) -> Float64:
    """Hash integers to [0, 1): the same number always gets the same draw."""
    draws: Float64 = (mix(numbers, salted) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return draws


def stream(seed: int, purpose: str, index: int) -> np.random.Generator:
    """Open the random stream of one slice of time or one attack, whatever was drawn before."""
    key = np.array([salt(seed, purpose), index & _MASK], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def tokens(prefix: bytes, numbers: Int64, salted: int) -> list[bytes]:
    """Name integers, different ones differently, by a prefix and 16 letters.

    Letters only: a run of digits could be taken for a card number.

    >>> tokens(b"crd_", np.array([1, 2]), salt(1, "card"))[0][:4]
    b'crd_'
    """
    width = len(prefix)
    text = np.empty((len(numbers), width + 16), np.uint8)
    text[:, :width] = np.frombuffer(prefix, np.uint8)
    text[:, width:] = _PAIRS[mix(numbers, salted).view(np.uint8)].view(np.uint8).reshape(-1, 16)
    names: list[bytes] = text.view(f"S{width + 16}").ravel().tolist()
    return names


def pick(cumulative: Float64, draws: Float64) -> Int64:
    """Choose by cumulative shares that end at 1."""
    return np.minimum(np.searchsorted(cumulative, draws, side="right"), len(cumulative) - 1)


def cumulate(weights: Float64) -> Float64:
    """Cumulative shares of weights."""
    total = np.cumsum(weights, dtype=np.float64)
    shares: Float64 = total / total[-1]
    return shares
