"""Opens the RocksDB directory of an embedded log, or says in one line why it cannot be used."""

import re
from pathlib import Path
from typing import cast

from rocksdict import DBCompressionType, Options, Rdict, RdictIter

from streamer.errors import StateError
from streamer.state.disk import trouble_in
from streamer.state.frames import broken_log

MARKER = b"\x00log"
FORMAT = b"streamer embedded log 1"

_OURS = re.compile(
    r"LOCK|LOG(\.old.*)?|IDENTITY|CURRENT|SYNCED|(MANIFEST|OPTIONS)-.*|rocksdict-config\.json"
    r"|.*\.(log|sst|blob|dbtmp)"
)
_DATA = (".log", ".sst", ".blob")
_MIB = 1 << 20


def open_directory(path: Path) -> Rdict:
    """Open the database of the log in `path`, created where the directory is absent or empty.

    Raises `StateError` where another process has it, where it is something else, and where it is damaged.
    """
    _look(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        database = Rdict(str(path), _options())
    except OSError as error:
        raise StateError(f"The log directory {path} cannot be created: {error.strerror or error}") from error
    except Exception as error:  # rocksdict raises nothing narrower
        raise _explained(path, str(error)) from error
    try:
        mark = value_of(database, path, MARKER)
        if mark is None and _is_empty(database, path):
            mark = FORMAT
            database[MARKER] = FORMAT
    except StateError:
        database.close()
        raise
    if mark == FORMAT:
        return database
    database.close()
    found = "a RocksDB database of another kind" if mark is None else f"a log of format {mark!r}"
    raise StateError(f"Expected an embedded log in {path}, got {found}; choose another directory")


def _is_empty(database: Rdict, path: Path) -> bool:
    rows = database.iter()
    rows.seek_to_first()
    check_end(rows, path)
    return not rows.valid()


def _look(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise StateError(f"Expected a directory for the embedded log, got a file: {path}")
    names = sorted(entry.name for entry in path.iterdir())
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    if foreign:
        raise StateError(
            f"Expected an embedded log or an empty directory, got {path} with other files ({foreign[0]}); "
            "choose another directory"
        )
    if "CURRENT" not in names and any(name.endswith(_DATA) for name in names):
        # RocksDB would start an empty database over the data.
        raise damaged(path, "its file CURRENT is missing")
    broken = broken_log(path)
    if broken is not None:
        raise damaged(path, broken)


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create_if_missing=True)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(32 * _MIB)
    # Compaction then moves keys and leaves the chunks where they are.
    options.set_enable_blob_files(val=True)
    options.set_min_blob_size(4096)
    options.set_blob_file_size(64 * _MIB)
    options.set_blob_compression_type(DBCompressionType.lz4())
    options.set_enable_blob_gc(val=True)
    options.set_keep_log_file_num(2)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def value_of(database: Rdict, path: Path, row: bytes) -> bytes | None:
    """Read one row; raises `StateError` where it is damaged."""
    try:
        return cast("bytes | None", database.get(row))
    except Exception as error:  # rocksdict raises nothing narrower
        raise damaged(path, str(error)) from error


def check_end(rows: RdictIter, path: Path) -> None:
    """Tell an end of rows, which is fine, from an error: raises `StateError`."""
    try:
        rows.status()
    except Exception as error:  # rocksdict raises nothing narrower
        raise damaged(path, str(error)) from error


def damaged(path: Path, what: str) -> StateError:
    """Make the error for a log whose files are not whole."""
    return StateError(
        f"The log {path} is damaged: {what}; restore the directory from a copy, or move it away to start anew"
    )


def _explained(path: Path, text: str) -> StateError:
    if "lock hold by current process" in text:
        return StateError(f"The log {path} is already open in this process; share it through Log.open")
    if "lock" in text.lower() and "LOCK" in text:
        return StateError(
            f"The log {path} is in use by {_holder(path)}; stop it, or choose another directory: "
            "an embedded log is for one process at a time"
        )
    if trouble := trouble_in(text):
        return StateError(f"The log directory {path} cannot be written: {trouble}; mend that and start again")
    return damaged(path, text)


def _holder(path: Path) -> str:
    """Who holds the lock, as far as the system tells (Linux)."""
    try:
        inode = (path / "LOCK").stat().st_ino
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return "another process"
    pids = [row[4] for row in rows if len(row) > 5 and row[5].endswith(f":{inode}")]
    return f"process {pids[0]}" if pids else "another process"
