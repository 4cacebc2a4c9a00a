"""Simulated payments, outcomes and the ground truth as files, written as they come."""

import io
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from streamer.errors import ConfigError
from streamer.simulator.encoded import Encoded
from streamer.simulator.rows import SCENARIOS
from streamer.simulator.simulator import Chunk, Simulator

Format = Literal["ndjson", "parquet"]
_GROUP = 65_536  # rows of a Parquet row group
_TEXT = (
    *("card", "bin", "card_network", "funding", "card_country", "customer", "merchant", "mcc", "acquirer"),
    *(
        "merchant_country",
        "type",
        "initiator",
        "channel",
        "wallet",
        "payment_method",
        "entry_mode",
        "terminal",
    ),
    *("device", "ip", "ip_country", "order", "billing_country", "email", "phone", "shipping_country"),
)


def _schema(text: Iterable[str], integers: Iterable[str], numbers: Iterable[str] = ()) -> pa.Schema:
    types = ((text, pa.string()), (integers, pa.int64()), (numbers, pa.float64()))
    return pa.schema([(name, kind) for names, kind in types for name in names])


PAYMENTS = _schema(("payment_id", "currency", *_TEXT), ("event_time", "amount", "attempt"), ("lat", "lon"))
OUTCOMES = _schema(
    (
        *("outcome_id", "payment_id", "kind", "category", "currency"),
        *("reason_code", "response_code", "dispute_id", "stage"),
    ),
    ("event_time", "occurred_at", "amount"),
)
TRUTH = pa.schema([("payment_id", pa.string()), ("fraud", pa.bool_()), ("scenario", pa.string())])


class _Sink(Protocol):
    def write(self, values: list[bytes]) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """Appends one JSON object a line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, values: list[bytes]) -> None:
        if values:
            self._file.write(b"\n".join(values) + b"\n")

    def close(self) -> None:
        self._file.close()


class _Table:
    """Gathers JSON objects to row groups of a Parquet file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema, self._held = schema, list[bytes]()
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, values: list[bytes]) -> None:
        self._held += values
        if len(self._held) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        lines = io.BytesIO(b"\n".join(self._held))
        options = pj.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="error")
        self._writer.write_table(pj.read_json(lines, parse_options=options))
        self._held.clear()

    def close(self) -> None:
        self._flush()
        self._writer.close()


def write_files(
    simulator: Simulator,
    payments: int,
    out_dir: Path,
    file_format: Format = "ndjson",
    progress: Callable[[Chunk], None] | None = None,
) -> list[Path]:
    """Write `payments`, `outcomes` and `truth` files into a directory, in constant memory.

    The truth has payment_id, fraud and scenario, and is a file of its own, so that nothing learns from it by
    accident. Records are in order of arrival; columns are the contract's names. Existing files are replaced.
    `progress` is called after each chunk.
    """
    if file_format not in ("ndjson", "parquet"):
        raise ConfigError(f"Expected the format ndjson or parquet, got {file_format!r}")
    out_dir.mkdir(parents=True, exist_ok=True)
    schemas = {"payments": PAYMENTS, "outcomes": OUTCOMES, "truth": TRUTH}
    paths = [out_dir / f"{name}.{file_format}" for name in schemas]
    with ExitStack() as stack:
        sinks = []
        for path, schema in zip(paths, schemas.values(), strict=True):
            sinks.append(_open(path, schema, file_format))
            stack.callback(sinks[-1].close)
        for chunk in simulator.chunks(payments):
            sinks[0].write(chunk.payments.values)
            sinks[1].write(chunk.outcomes.values)
            sinks[2].write(_truth(chunk.payments))
            if progress is not None:
                progress(chunk)
    return paths


def _open(path: Path, schema: pa.Schema, file_format: Format) -> _Sink:
    if file_format == "parquet":
        return _Table(path, schema)
    return _Lines(path.open("wb"))


def _truth(payments: Encoded) -> list[bytes]:
    tails = [
        b'","fraud":%b,"scenario":"%b"}' % (b"true" if index else b"false", name.encode())
        for index, name in enumerate(SCENARIOS)
    ]
    codes = payments.scenario.tolist()
    return [b'{"payment_id":"' + key + tails[code] for key, code in zip(payments.keys, codes, strict=True)]
