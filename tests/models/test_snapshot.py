"""Snapshots on the wire: signed, refused when in doubt, and scored without River's objects."""

import hashlib
import hmac
import pickle

import msgspec
import numpy as np
import pytest

from streamer.errors import ConfigError
from streamer.models.compiled import Compiled
from streamer.models.snapshot import MAGIC, Snapshot

KEY = b"0123456789abcdef"

SNAPSHOT = Snapshot(
    model="fraud",
    version=7,
    topology="f00d",
    inputs=("a", "b"),
    examples=1000,
    trained_until=1_700_000_000_000,
    compiled=Compiled((1.0, 0.1), (2.0, 0.0), (0.3, -1e-300), -4.5, log1p=True),
    river="0.26.1",
)


class Explosive:
    """Unpickling it would show."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Raise when loaded."""
        return exec, ("raise SystemExit('unpickled')",)


def signed(payload: bytes) -> bytes:
    """Sign any payload as a holder of the key could."""
    return MAGIC + hmac.digest(KEY, MAGIC + payload, hashlib.sha256) + payload


def test_a_snapshot_comes_back_as_it_was() -> None:
    """Every field survives, floats bit for bit."""
    assert Snapshot.decode(SNAPSHOT.encode(KEY), KEY) == SNAPSHOT


def test_scoring_never_unpickles() -> None:
    """Reading and scoring leave the learner's bytes alone, whatever they are."""
    loaded = msgspec.structs.replace(SNAPSHOT, learner=pickle.dumps(Explosive()))
    scorer = Snapshot.decode(loaded.encode(KEY), KEY).scorer()
    assert scorer.score_many(np.full((1, 2), np.nan)).round(4).tolist() == [0.011]


def test_another_key_is_refused() -> None:
    """A snapshot signed with another key names the setting to look at."""
    with pytest.raises(ConfigError, match=r"signature does not fit .* `\[models\] snapshot_key`"):
        Snapshot.decode(SNAPSHOT.encode(KEY), b"another key of 16+")


@pytest.mark.parametrize("cut", [0, 5, len(MAGIC), len(MAGIC) + 31, len(MAGIC) + 32, -1])
def test_a_cut_snapshot_is_refused(cut: int) -> None:
    """Whatever is missing at the end, it is refused."""
    with pytest.raises(ConfigError, match="Snapshot refused"):
        Snapshot.decode(SNAPSHOT.encode(KEY)[:cut], KEY)


def test_a_foreign_record_is_refused() -> None:
    """What is no snapshot at all is told apart from one with a wrong signature."""
    with pytest.raises(ConfigError, match="expected it to begin with"):
        Snapshot.decode(b'{"model": "fraud"}', KEY)


@pytest.mark.parametrize("key", [b"", b"fifteen bytes.."])
def test_a_short_key_is_refused(key: bytes) -> None:
    """A key that could be guessed neither signs nor verifies."""
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        SNAPSHOT.encode(key)
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        Snapshot.decode(SNAPSHOT.encode(KEY), key)


def test_signed_but_inconsistent_is_refused() -> None:
    """Arrays that do not fit the inputs, or another layout, are refused although the signature is right."""
    plain = msgspec.to_builtins(SNAPSHOT)
    for broken in ({**plain, "inputs": ["a"]}, {**plain, "version": -1}, {"model": "fraud"}):
        with pytest.raises(ConfigError, match="signed, but of another release"):
            Snapshot.decode(signed(msgspec.msgpack.encode(broken)), KEY)


def test_later_fields_are_ignored() -> None:
    """A newer release may add a field without breaking older readers."""
    newer = {**msgspec.to_builtins(SNAPSHOT), "later": 1}
    assert Snapshot.decode(signed(msgspec.msgpack.encode(newer)), KEY) == SNAPSHOT
