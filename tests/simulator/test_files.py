"""Files hold what the stream holds, and the truth stays out of the payments."""

from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from streamer.errors import ConfigError
from streamer.simulator import Scenario, Simulator
from streamer.simulator.files import write_files
from streamer.simulator.rows import SCENARIOS

SIMULATOR = Simulator(Scenario.for_payments(20_000, seed=7))


def test_lines_are_the_records(tmp_path: Path) -> None:
    """Each line is one record's bytes, in order."""
    payments, outcomes, truth = write_files(SIMULATOR, 3_000, tmp_path)
    chunks = list(SIMULATOR.chunks(3_000))
    assert payments.read_bytes().splitlines() == [
        value for chunk in chunks for value in chunk.payments.values
    ]
    assert outcomes.read_bytes().splitlines() == [
        value for chunk in chunks for value in chunk.outcomes.values
    ]
    told = [msgspec.json.decode(line) for line in truth.read_bytes().splitlines()]
    expected = [
        {"payment_id": key.decode(), "fraud": scenario > 0, "scenario": SCENARIOS[scenario]}
        for chunk in chunks
        for key, scenario in zip(chunk.payments.keys, chunk.payments.scenario.tolist(), strict=True)
    ]
    assert expected == told


def test_parquet_has_the_same_values_as_the_lines(tmp_path: Path) -> None:
    """Column by column; an absent field is null."""
    lines = write_files(SIMULATOR, 3_000, tmp_path / "lines")
    tables = write_files(SIMULATOR, 3_000, tmp_path / "tables", "parquet")
    for path, table in zip(lines, tables, strict=True):
        expected = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        got = pq.read_table(table).to_pylist()
        assert expected == [{name: value for name, value in row.items() if value is not None} for row in got]


def test_payments_do_not_tell_the_truth(tmp_path: Path) -> None:
    """Neither the files of payments nor those of outcomes have a column for it."""
    payments, outcomes, _ = write_files(SIMULATOR, 100, tmp_path, "parquet")
    names = {*pq.read_schema(payments).names, *pq.read_schema(outcomes).names}
    assert not names & {"fraud", "scenario"}


def test_no_payments_give_empty_files(tmp_path: Path) -> None:
    """Both formats can be read back."""
    assert [path.read_bytes() for path in write_files(SIMULATOR, 0, tmp_path)] == [b"", b"", b""]
    tables = write_files(SIMULATOR, 0, tmp_path, "parquet")
    assert [pq.read_metadata(path).num_rows for path in tables] == [0, 0, 0]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """The message names what is accepted."""
    with pytest.raises(ConfigError, match="ndjson or parquet"):
        write_files(SIMULATOR, 1, tmp_path, "csv")  # type: ignore[arg-type]
