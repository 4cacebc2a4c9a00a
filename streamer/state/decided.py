"""Payments as they were decided: columnar batches, found again by payment_id while outcomes may come."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import cramjam
import msgspec
import numpy as np
import numpy.typing as npt

from streamer.batch import Bytes, Float64, Int64, Text
from streamer.errors import StateError
from streamer.state.identities import ENTRY
from streamer.state.packing import pack, pack_whole, unpack, unpack_whole
from streamer.state.store import DECIDED, IDS, Row, Store

ROW_BITS = 24
"""A place is batch << ROW_BITS | row."""

OFFSET_BITS = 48
"""A source is partition << OFFSET_BITS | offset."""

DIGEST = 16
"""Bytes of an `ENTRY` that are the key of its row; the value is the rest."""


def name_of(topic: str, source: int) -> str:
    """A source as people and headers name it: topic/partition/offset.

    >>> name_of("payments", (3 << OFFSET_BITS) + 7)
    'payments/3/7'
    """
    return f"{topic}/{source >> OFFSET_BITS}/{source & ((1 << OFFSET_BITS) - 1)}"


@dataclass(frozen=True, slots=True)
class Decided:
    """One decided batch of n payments, in arrival order.

    `source` int64 (n,), see `OFFSET_BITS`; `event_time` int64 (n,) in ms; `action` uint8 (n,), an index into
    `ACTIONS`; `scores` float64 (n, models); `features` float64 (n, features), NaN where absent; `payment` the
    canonical payments; `others` int64 the amounts, in the base currency, of the payments in other ones, -1
    where missing. `models` names the columns of `scores` and gives their versions, `topology` names the
    declarations, whose feature names are in their order.
    """

    topology: str
    models: Mapping[str, int]
    source: Int64
    event_time: Int64
    action: npt.NDArray[np.uint8]
    scores: Float64
    features: Float64
    payment: Text
    others: Int64 = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.source)

    def encode(self) -> bytes:
        """Columns packed to the narrowest exact types; the payments, which repeat themselves, through LZ4."""
        data = self.payment.data
        return msgspec.msgpack.encode(
            _Stored(
                self.topology,
                dict(self.models),
                pack_whole(self.source),
                pack_whole(self.event_time),
                self.action.tobytes(),
                pack(self.scores),
                pack(self.features),
                pack_whole(np.diff(self.payment.ends)),
                len(data),
                bytes(cramjam.lz4.compress_block(data.data, store_size=False)) if len(data) else b"",
                pack_whole(self.others) if len(self.others) else b"",
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`; raises `StateError` for what cannot have come from it."""
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
            decided = cls(
                stored.topology,
                stored.models,
                unpack_whole(stored.source),
                unpack_whole(stored.event_time),
                np.frombuffer(stored.action, np.uint8),
                unpack(stored.scores),
                unpack(stored.features),
                _text(stored),
                _others(stored),
            )
        except (msgspec.MsgspecError, cramjam.DecompressionError, ValueError) as error:
            raise _damaged(str(error)) from error
        n = len(decided)
        columns = (decided.event_time, decided.action, decided.scores, decided.features, decided.payment)
        if any(len(column) != n for column in columns) or decided.scores.shape[1] != len(stored.models):
            raise _damaged(f"its columns do not all have {n} rows")
        return decided


def payments_of(data: bytes) -> tuple[Text, Int64]:
    """The canonical payments of an encoded batch, and `others`; raises `StateError` for what is none."""
    try:
        stored = msgspec.msgpack.decode(data, type=_Stored)
        return _text(stored), _others(stored)
    except (msgspec.MsgspecError, cramjam.DecompressionError, ValueError) as error:
        raise _damaged(str(error)) from error


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    topology: str
    models: dict[str, int]
    source: bytes
    event_time: bytes
    action: bytes
    scores: bytes
    features: bytes
    lengths: bytes
    size: int
    payment: bytes
    others: bytes = b""


def moments_of(data: bytes) -> tuple[Int64, Int64]:
    """`Decided.source` and `Decided.event_time` of an encoded batch; raises `StateError` for what is none."""
    try:
        stored = msgspec.msgpack.decode(data, type=_Stored)
        return unpack_whole(stored.source), unpack_whole(stored.event_time)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _damaged(str(error)) from error


def _others(stored: _Stored) -> Int64:
    return unpack_whole(stored.others) if stored.others else np.empty(0, np.int64)


def _text(stored: _Stored) -> Text:
    lengths = unpack_whole(stored.lengths)
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    # LZ4 takes at most 255 times its input, so that a damaged size asks for no memory.
    if ends[-1] != stored.size or (lengths < 0).any() or stored.size > 255 * len(stored.payment):
        raise ValueError(f"expected payments of {ends[-1]} bytes, got {stored.size}")
    if not stored.size:
        return Text(np.empty(0, np.uint8), ends)
    data: Bytes = np.frombuffer(
        bytes(cramjam.lz4.decompress_block(stored.payment, output_len=stored.size)), np.uint8
    )
    if len(data) != stored.size:
        raise ValueError(f"expected payments of {stored.size} bytes, got {len(data)}")
    return Text(data, ends)


def _damaged(what: str) -> StateError:
    return StateError(f"a decided batch is damaged: {what}; restore the state directory or replay")


def rows_of(number: int, decided: Decided, marks: npt.NDArray[np.void]) -> list[Row]:
    """The rows that store batch `number` and find its payments again; sets `place` of `marks` (`ENTRY`)."""
    marks["place"] = (number << ROW_BITS) + np.arange(len(marks))
    rows = mark_rows(IDS, marks)
    rows.append((batch_key(number), decided.encode()))
    return rows


def mark_rows(room: bytes, marks: npt.NDArray[np.void]) -> list[Row]:
    """The rows of marks (`ENTRY`) in a room of one byte."""
    raw = marks.view(np.uint8).reshape(len(marks), ENTRY.itemsize)
    keys = np.empty((len(marks), 1 + DIGEST), np.uint8)
    keys[:, 0] = room[0]
    keys[:, 1:] = raw[:, :DIGEST]
    return list(zip(_each(keys), _each(raw[:, DIGEST:]), strict=True))


def marks_in(store: Store, room: bytes, digests: Sequence[bytes]) -> list[bytes | None]:
    """The mark of each 16-byte digest of a payment_id in that room, as bytes of `ENTRY`."""
    values = store.get_many([room + digest for digest in digests])
    return [None if value is None else digest + value for digest, value in zip(digests, values, strict=True)]


@dataclass(frozen=True, slots=True)
class Found:
    """One decided payment, found again; arrays as in `Decided`, of this row."""

    place: int
    topology: str
    models: Mapping[str, int]
    source: int
    event_time: int
    action: int
    scores: Float64
    features: Float64
    payment: bytes


class DecidedBatches:
    """Reads the decided batches of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: tuple[int, Decided] | None = None
        # Compiled now: the first batch must not hold up the stream.
        unpack(pack(np.zeros((1, 1))))

    def marks(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """The mark of each 16-byte digest of a payment_id, as bytes of `ENTRY`."""
        return marks_in(self._store, IDS, digests)

    def find(self, digests: Sequence[bytes]) -> list[Found | None]:
        """The decided payments of 16-byte digests of their ids, in order; `None` where there is none."""
        found: list[Found | None] = [None] * len(digests)
        places = [
            (int(np.frombuffer(value, ENTRY)[0]["place"]), at)
            for at, value in enumerate(self.marks(digests))
            if value is not None
        ]
        # By place, so that each batch is read once.
        for place, at in sorted(places):
            batch = self.batch(place >> ROW_BITS)
            if batch is not None:
                found[at] = _row(batch, place)
        return found

    def batch(self, number: int) -> Decided | None:
        """One batch; `None` once its retention has passed."""
        if self._last is None or self._last[0] != number:
            value = self._store.get_many([batch_key(number)])[0]
            if value is None:
                return None
            self._last = number, Decided.decode(value)
        return self._last[1]

    @property
    def first(self) -> int:
        """Number of the first batch that is there, or of the first one to come."""
        key = self._store.first(DECIDED)
        return self._store.progress.batches if key is None else int.from_bytes(key[1:], "big")

    def scan(self, start: int = 0) -> Iterator[tuple[int, Decided]]:
        """All batches from number `start` on, in order."""
        for number, value in self._values(start):
            yield number, Decided.decode(value)

    def payments(self, start: int = 0) -> Iterator[tuple[int, Text, Int64]]:
        """The canonical payments, and `Decided.others`, of all batches from number `start` on, in order."""
        for number, value in self._values(start):
            yield number, *payments_of(value)

    def _values(self, start: int) -> Iterator[tuple[int, bytes]]:
        for key, value in self._store.scan(DECIDED, start.to_bytes(8, "big")):
            yield int.from_bytes(key[1:], "big"), value


def batch_key(number: int) -> bytes:
    """The row of a decided batch."""
    return DECIDED + number.to_bytes(8, "big")


def _each(rows: Bytes) -> list[bytes]:
    """Each row of a table of bytes."""
    width = rows.shape[1]
    out: list[bytes] = np.ascontiguousarray(rows).view(np.dtype((np.void, width)))[:, 0].tolist()
    return out


def _row(batch: Decided, place: int) -> Found:
    row = place & ((1 << ROW_BITS) - 1)
    start, end = batch.payment.ends[row : row + 2]
    return Found(
        place,
        batch.topology,
        batch.models,
        int(batch.source[row]),
        int(batch.event_time[row]),
        int(batch.action[row]),
        batch.scores[row],
        batch.features[row],
        batch.payment.data[start:end].tobytes(),
    )
