"""What a commit took in beside payments: an entry of the compacted topic `journal`, by which replay swaps."""

from collections.abc import Mapping
from typing import Annotated, Self

import msgspec

from streamer.errors import StreamerError

Offset = Annotated[int, msgspec.Meta(ge=0)]

_encoder = msgspec.json.Encoder(order="deterministic")


class JournalEntry(msgspec.Struct, frozen=True):
    """One commit that took outcomes or a snapshot in.

    `payments` and `outcomes` map "topic/partition" to the next offset to read, `models` the models in force
    from there on to their versions, the unchanged ones too. `sequence` counts the entries of an engine.
    """

    sequence: Offset
    payments: Mapping[str, Offset]
    outcomes: Mapping[str, Offset]
    models: Mapping[str, Offset]

    @property
    def key(self) -> bytes:
        """The payments position: entries of different positions survive compaction side by side.

        Of two commits at one position the later remains, and holds all that the earlier one held. A commit
        repeated after a crash replaces itself.

        >>> JournalEntry(1, {"payments/1": 7, "payments/0": 9}, {}, {}).key
        b'payments/0:9,payments/1:7'
        """
        parts = sorted((*split_position(name), offset) for name, offset in self.payments.items())
        return ",".join(f"{topic}/{partition}:{offset}" for topic, partition, offset in parts).encode()

    def encode(self) -> bytes:
        """Serialize as JSON; the same entry has the same bytes.

        >>> JournalEntry(1, {"payments/0": 9}, {"outcomes/0": 4}, {"fraud": 2}).encode()
        b'{"sequence":1,"payments":{"payments/0":9},"outcomes":{"outcomes/0":4},"models":{"fraud":2}}'
        """
        return _encoder.encode(self)

    @classmethod
    def decode(cls, key: bytes | None, value: bytes) -> Self:
        """Read a record of the journal; raises StreamerError if it is none, or another one's."""
        remedy = "Replay cannot follow this journal; does something else write to the topic?"
        try:
            entry = msgspec.json.decode(value, type=cls)
            expected = entry.key
        except (msgspec.DecodeError, ValueError) as error:
            raise StreamerError(f"Journal entry {_shown(key)}: {error}. {remedy}") from error
        if key != expected:
            raise StreamerError(
                f"Journal entry: expected the key {_shown(expected)}, got {_shown(key)}. {remedy}"
            )
        return entry


def position_name(topic: str, partition: int) -> str:
    """How an entry names a partition.

    >>> position_name("payments", 3)
    'payments/3'
    """
    return f"{topic}/{partition}"


def split_position(name: str) -> tuple[str, int]:
    """Split the name of a partition into its topic and number.

    >>> split_position("payments/3")
    ('payments', 3)
    """
    topic, _, partition = name.rpartition("/")
    if not topic or not (partition.isascii() and partition.isdigit()):
        raise ValueError(f'expected "topic/partition", got {name!r}')
    return topic, int(partition)


def _shown(key: bytes | None) -> str:
    return repr(key[:200] if key else key)
