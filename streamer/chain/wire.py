"""Payments on their way from one stage to the next: columns in Arrow's IPC format.

A message is a checksum, a head and a record batch. Columns travel uncompressed, since the log's own codec
takes a whole batch of messages at once: with 1,000 rows of 224 bytes a row costs 0.03 us to write and to read
and snappy makes 75 bytes of it for 0.25 us; lz4 of the buffers makes 68 for 0.39 us, with 125 rows 77 for
0.95 us. Their schema is known and left out. Features are packed row by row, so that stages in between hand
them on unread: a row with 210 of them costs 0.4 us to write and to read, packed as a matrix 2.5 us.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self
from zlib import crc32

import msgspec
import numpy as np
import pyarrow as pa

from streamer.batch import Float64, Headers, Int64, Text
from streamer.errors import StreamerError
from streamer.state.row_kernels import append_part, read_parts

PAYMENTS, FRAUDS = range(2)
"""Kinds of messages: payments to count, and payments that became known as fraud, at `log_time`."""

ROW_BITS: Final = 16
"""A position is offset << ROW_BITS | row of the message there."""

MOST_BYTES: Final = 900_000
"""Of a message: with its own overhead it has to fit into a batch of the log, 1,000,000 bytes."""

_MAGIC: Final = b"streamer\x01"
_SUM: Final = 4
_ALIGN: Final = 8
_SCHEMA: Final = pa.schema(
    [
        pa.field("payment", pa.binary(), nullable=False),
        pa.field("source", pa.int64(), nullable=False),
        pa.field("log_time", pa.int64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("converted", pa.int64(), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
        pa.field("tracing", pa.binary()),
        pa.field("received", pa.binary()),
    ]
)
_REQUIRED: Final = 6
"""So many columns have a value in every row."""


class UnreadableError(StreamerError):
    """A message that no stage can have sent, or that was damaged."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What all rows of a message share.

    `stage` and `partition` sent it. No payment to come from there is older than `clock` (ms) by more than the
    allowed lateness; 0: nothing is known. `layout` names the features. `pace` is what an entry that has more
    to read says of how far it has come (event time, ms), see `Pace`.
    """

    kind: int
    stage: str
    partition: int
    clock: int
    layout: int
    pace: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """n payments with what later stages need, as the columns of `table`.

    `payment` is canonical; `source` as in `Decided`; `log_time` in ms; `position` says where the sender read
    it; `converted` as in `conversion.as_column`; `features` has a part from each stage that counted it;
    `tracing` are the headers to copy; `received` is as much of the record as its rejection may need.
    """

    table: Any

    @classmethod
    def of(
        cls,
        payment: Text,
        numbers: Mapping[str, Int64],
        tracing: Mapping[int, Headers] | None = None,
        received: Sequence[bytes] | None = None,
    ) -> Self:
        """Rows without features; `numbers` are the columns of numbers by name, those left out are 0."""
        n = len(payment)
        return cls(
            pa.RecordBatch.from_arrays(
                [
                    _binary(payment),
                    *(_whole(numbers.get(name, np.zeros(n, np.int64))) for name in _SCHEMA.names[1:5]),
                    _binary(Text(np.empty(0, np.uint8), np.zeros(n + 1, np.int64))),
                    pa.nulls(n, pa.binary()) if not tracing else _tracing(tracing, n),
                    pa.nulls(n, pa.binary()) if received is None else pa.array(received, pa.binary()),
                ],
                schema=_SCHEMA,
            )
        )

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def number(self, name: str) -> Int64:
        """A column of numbers."""
        return _numbers(self.table.column(name))

    @property
    def payment(self) -> Text:
        """The canonical payments."""
        return _text(self.table.column("payment"))

    @property
    def tracing(self) -> dict[int, Headers]:
        """The headers to be copied, of the rows that have any."""
        column = self.table.column("tracing")
        if column.null_count == len(column):
            return {}
        return {
            row: _headers.decode(packed)
            for row, packed in enumerate(column.to_pylist())
            if packed is not None
        }

    @property
    def received(self) -> list[bytes]:
        """The first bytes of the records."""
        return [value or b"" for value in self.table.column("received").to_pylist()]

    def having(self, **columns: Int64) -> "Rows":
        """The same with other numbers in these columns."""
        return self._having({name: _whole(values) for name, values in columns.items()})

    def without_received(self) -> "Rows":
        """The same without the bytes that came in."""
        return self._having({"received": pa.nulls(len(self), pa.binary())})

    def counted(self, features: Float64) -> "Rows":
        """The same with the features (n, columns) of one more stage."""
        before = _text(self.table.column("features"))
        return self._having({"features": _binary(Text(*append_part(before.data, before.ends, features)))})

    def features(self, widths: Sequence[int]) -> Float64:
        """The features of stages that added so many columns each; raises `ValueError` where they did not."""
        packed = _text(self.table.column("features"))
        return read_parts(packed.data, packed.ends, np.array(widths, np.int64))

    def take(self, rows: Int64) -> "Rows":
        """These rows, in this order."""
        return Rows(self.table.take(pa.array(rows)))

    def slice(self, begin: int, end: int) -> "Rows":
        """The rows from `begin` up to `end`."""
        return Rows(self.table.slice(begin, end - begin))

    def _having(self, columns: Mapping[str, Any]) -> "Rows":
        given = [
            columns.get(name, column) for name, column in zip(_SCHEMA.names, self.table.columns, strict=True)
        ]
        return Rows(pa.RecordBatch.from_arrays(given, schema=_SCHEMA))


def join(parts: Sequence[Rows]) -> Rows:
    """All rows, one after the other; at least one part, all with the same features."""
    if len(parts) == 1:
        return parts[0]
    return Rows(pa.concat_batches([part.table for part in parts]))


def by_partition(rows: Rows, partition: Int64) -> Iterator[tuple[int, Rows]]:
    """The rows of each partition, in their order."""
    order = np.argsort(partition, kind="stable")
    ordered = partition[order]
    bounds = np.flatnonzero(np.diff(ordered)) + 1
    edges = [0, *bounds.tolist(), len(order)]
    if len(edges) == 2:
        if len(order):
            yield int(partition[0]), rows
        return
    taken = rows.take(order)
    for begin, end in pairwise(edges):
        yield int(ordered[begin]), taken.slice(begin, end)


def encode(head: Head, rows: Rows) -> list[bytes]:
    """Messages of at most `MOST_BYTES` that hold the rows in order."""
    if len(rows) < 1 << ROW_BITS:
        message = _encode(head, rows)
        if len(message) <= MOST_BYTES or len(rows) == 1:
            return [message]
    half = len(rows) // 2
    return encode(head, rows.slice(0, half)) + encode(head, rows.slice(half, len(rows)))


def decode(message: bytes | None) -> tuple[Head, Rows]:
    """The inverse of `encode` for one message; raises nothing but `UnreadableError` for what is none."""
    body = unseal(_MAGIC, message)
    try:
        return _read(body)
    except (msgspec.MsgspecError, pa.ArrowException, ValueError, OSError, EOFError) as error:
        raise UnreadableError(f"Expected a message between stages, got: {error}") from error


def seal(magic: bytes, body: bytes) -> bytes:
    """A message of this body, told by `magic` and its checksum."""
    return b"".join((magic, crc32(body).to_bytes(_SUM, "little"), body))


def unseal(magic: bytes, message: bytes | None) -> memoryview:
    """The inverse of `seal`; raises `UnreadableError` for what is none, or was damaged."""
    if message is None or not message.startswith(magic):
        found = "no value" if message is None else f"{len(message)} bytes that begin otherwise"
        raise UnreadableError(f"Expected a message between stages, which begins with {magic!r}, got {found}")
    body = memoryview(message)[len(magic) + _SUM :]
    given = int.from_bytes(message[len(magic) : len(magic) + _SUM], "little")
    if (found_sum := crc32(body)) != given:
        raise UnreadableError(
            f"Expected the checksum {given:08x}, got {found_sum:08x}: the message is damaged"
        )
    return body


def _encode(head: Head, rows: Rows) -> bytes:
    packed = _heads.encode(head)
    length = len(packed).to_bytes(4, "little")
    # Numbers are read in place, so the record batch begins where they may lie.
    pad = bytes(-(len(_MAGIC) + _SUM + len(length) + len(packed)) % _ALIGN)
    return seal(_MAGIC, b"".join((length, packed, pad, rows.table.serialize().to_pybytes())))


def _read(body: memoryview) -> tuple[Head, Rows]:
    end = 4 + int.from_bytes(body[:4], "little")
    head = _head_decoder.decode(body[4:end])
    begin = end + -(len(_MAGIC) + _SUM + end) % _ALIGN
    table = pa.ipc.read_record_batch(pa.py_buffer(body[begin:]), _SCHEMA)
    table.validate(full=True)
    if not 0 < table.num_rows < 1 << ROW_BITS:
        raise ValueError(f"{table.num_rows} rows")
    if any(column.null_count for column in table.columns[:_REQUIRED]):
        raise ValueError("nothing where something is required")
    rows = Rows(table)
    positions = rows.number("position")
    if (positions[1:] <= positions[:-1]).any():
        raise ValueError("rows out of the order in which the sender read them")
    return head, rows


def warm_up() -> None:
    """Compile the kernels, or load them, so that the first rows need not wait."""
    one = Rows.of(Text(np.zeros(1, np.uint8), np.arange(2)), {})
    one.counted(np.zeros((1, 1))).features([1])


_heads: Final = msgspec.msgpack.Encoder()
_head_decoder: Final = msgspec.msgpack.Decoder(Head)
_headers: Final = msgspec.msgpack.Decoder(list[tuple[str, bytes]])


def _numbers(column: Any) -> Int64:
    return np.frombuffer(column.buffers()[1], np.int64, len(column), 8 * column.offset)


def _text(column: Any) -> Text:
    _, ends, data = column.buffers()
    places = np.frombuffer(ends, np.int32, len(column) + 1, 4 * column.offset).astype(np.int64)
    first, last = int(places[0]), int(places[-1])
    if first == last:
        return Text(np.empty(0, np.uint8), places - first)
    return Text(np.frombuffer(data, np.uint8, last - first, first), places - first)


def _whole(values: Int64) -> Any:
    given = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(given), [None, pa.py_buffer(given)])


def _binary(column: Text) -> Any:
    ends = column.ends.astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(column), [None, pa.py_buffer(ends), pa.py_buffer(column.data)]
    )


def _tracing(headers: Mapping[int, Headers], n: int) -> Any:
    packed: list[bytes | None] = [None] * n
    for row, given in headers.items():
        packed[row] = _heads.encode(list(given))
    return pa.array(packed, pa.binary())
