"""A model at one version as it travels through the topic `models`: signed, and scored without unpickling."""

import hashlib
import hmac
from typing import Annotated, Self

import msgspec

from streamer.errors import ConfigError
from streamer.models.compiled import Compiled
from streamer.models.scorer import Scorer

MAGIC = b"streamer-snapshot-1\n"
SIGNATURE_BYTES = 32
SHORTEST_KEY = 16

Count = Annotated[int, msgspec.Meta(ge=0)]


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """A model at one version.

    `version` grows by every snapshot of a model. `topology` is the fingerprint of the declarations it was
    learned under, `examples` how many were learned from, `trained_until` the event time of the newest one
    (milliseconds since 1970 UTC). `learner` is the pickled River pipeline, which only `Learner.restore`
    opens; `river` is the version of River that wrote it.
    """

    model: str
    version: Count
    topology: str
    inputs: tuple[str, ...]
    examples: Count
    trained_until: int
    compiled: Compiled
    river: str
    learner: bytes | None = None

    def __post_init__(self) -> None:
        if len(self.compiled.weights) != len(self.inputs):
            raise ValueError(f"expected {len(self.inputs)} weights, got {len(self.compiled.weights)}")

    def scorer(self) -> Scorer:
        """Build the scorer of this version."""
        return Scorer(self.inputs, self.compiled)

    def encode(self, key: bytes) -> bytes:
        """Serialize and sign: HMAC-SHA256 over header and payload, with a key of at least 16 bytes."""
        payload = msgspec.msgpack.encode(self)
        return MAGIC + _sign(payload, key) + payload

    @classmethod
    def decode(cls, data: bytes, key: bytes) -> Self:
        """Verify the signature, then read. Nothing of unverified data is interpreted.

        Raises ConfigError if it is no snapshot, was signed with another key, or changed since. Whether it is
        the model that was asked for, and newer than the version in use, is the caller's to check.
        """
        if not data.startswith(MAGIC):
            raise ConfigError(
                f"Snapshot refused: expected it to begin with {MAGIC!r}, got {data[: len(MAGIC)]!r}. Was it"
                " written by another release, or is this another topic? Let a learner publish anew"
            )
        start = len(MAGIC) + SIGNATURE_BYTES
        signature, payload = data[len(MAGIC) : start], data[start:]
        if not hmac.compare_digest(signature, _sign(payload, key)):
            raise ConfigError(
                f"Snapshot refused: its signature does not fit its {len(payload)} bytes and the snapshot key."
                " Was it signed with another key, or changed by somebody? Set `[models] snapshot_key` to"
                " the key it was signed with, or let a learner publish anew"
            )
        try:
            return msgspec.msgpack.decode(payload, type=cls)
        except msgspec.MsgspecError as error:
            raise ConfigError(
                f"Snapshot refused: {error}. It is signed, but of another release; let a learner publish anew"
            ) from error


def _sign(payload: bytes, key: bytes) -> bytes:
    if len(key) < SHORTEST_KEY:
        raise ConfigError(
            f"Expected a snapshot key of at least {SHORTEST_KEY} bytes, got {len(key)} - at `[models]"
            " snapshot_key`; `openssl rand -hex 32` makes one"
        )
    return hmac.digest(key, MAGIC + payload, hashlib.sha256)
