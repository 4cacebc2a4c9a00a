"""Opens the RocksDB database of a state directory, or says in one line why it cannot be used."""

import contextlib
import os
import re
import secrets
from pathlib import Path

import msgspec
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    MemtableFactory,
    Options,
    Rdict,
    WriteBatch,
)

from streamer.errors import StateError
from streamer.state.disk import trouble_in
from streamer.state.frames import broken_log

FORMAT = b"streamer state 1"
"""What a state directory is marked with; another one is refused."""

CLAIM = "CLAIM"
"""The file by which a worker holds a directory."""

_OURS = re.compile(
    r"CLAIM|LOCK|LOG(\.old.*)?|IDENTITY|CURRENT|SYNCED|(MANIFEST|OPTIONS)-.*|rocksdict-config\.json"
    r"|.*\.(log|sst|dbtmp)"
)
_CONFIG = "rocksdict-config.json"
_DATA = (".log", ".sst")
_MIB = 1 << 20
_NICE = 5
"""A third of what the stream gets."""

_READS = 10
"""How often a directory is tried to be read that changes meanwhile."""


def open_database(path: Path, room: bytes, *, filled: bool = False) -> tuple[Rdict, bytes]:
    """Open or create the database of `path`; answers it and its secret of 32 random bytes.

    `room` is the prefix of the rows that mark the directory. One that is `filled` takes rows in half the
    time, but is slow to read from until it is opened again. Raises `StateError` with the remedy where another
    process has the directory, where it is something else, and where it is damaged.
    """
    _look(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        db = _database(path, _filled(_options()) if filled else _options())
        mark, secret = db.get(room + b"format"), db.get(room + b"secret")
        if mark is None and next(db.keys(), None) is None:
            mark, secret = FORMAT, secrets.token_bytes(32)
            batch = WriteBatch(raw_mode=True)
            batch.put(room + b"format", mark)
            batch.put(room + b"secret", secret)
            db.write(batch)
    except OSError as error:
        raise StateError(_unusable(path, f"{error.strerror or error}")) from error
    except Exception as error:  # rocksdict raises nothing narrower
        raise explained(path, str(error)) from error
    return db, _secret_of(db, path, mark, secret)


def read_database(path: Path, room: bytes) -> tuple[Rdict, bytes]:
    """Open the database of `path` to read what was committed so far, also while another process writes to it.

    Nothing is created or changed. Raises `StateError` as `open_database` does, and where there is none.
    """
    _look(path)
    if not (path / "CURRENT").exists():
        raise StateError(
            f"There is no state directory {path}; name the --state of a worker, or start one to create it"
        )
    for left in reversed(range(_READS)):
        try:
            db = _database(path, _options(), AccessType.read_only())
            mark, secret = db.get(room + b"format"), db.get(room + b"secret")
        except Exception as error:  # rocksdict raises nothing narrower
            # A worker may remove a file between its being listed and its being opened.
            if left and "No such file" in str(error):
                continue
            raise explained(path, str(error)) from error
        break
    return db, _secret_of(db, path, mark, secret)


def _secret_of(db: Rdict, path: Path, mark: bytes | None, secret: bytes | None) -> bytes:
    """The secret of a directory that is marked as one of ours."""
    if mark == FORMAT and secret is not None:
        return bytes(secret)
    db.close()
    if mark is None:
        raise StateError(_foreign(path, "a RocksDB database of another kind"))
    raise StateError(
        f"Expected a state directory of format {FORMAT!r} in {path}, got {bytes(mark)!r};"
        " name an empty directory with --state and replay, or use the version that wrote this one"
    )


def explained(path: Path, message: str) -> StateError:
    """Make the error for what RocksDB said of the directory."""
    if "lock hold by current process" in message or "While lock file" in message:
        return in_use(path)
    if trouble := trouble_in(message):
        return StateError(_unusable(path, trouble))
    return StateError(
        f"The state directory {path} is damaged: {message};"
        " restore it from a copy, or move it away: a new one is rebuilt by replay"
    )


def in_use(path: Path) -> StateError:
    """Make the error for a directory that another worker holds."""
    return StateError(
        f"The state directory {path} is in use by another worker;"
        " stop that one, or name another directory with --state"
    )


def _look(path: Path) -> None:
    """Refuse what RocksDB would fill with a database of its own beside other files."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(_unusable(path, f"{error.strerror}")) from error
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    if foreign:
        raise StateError(_foreign(path, f"other files ({foreign[0]})"))
    if _CONFIG in names and not _raw(path / _CONFIG):
        raise StateError(_foreign(path, "a RocksDB database of another kind"))
    if "CURRENT" not in names and any(name.endswith(_DATA) for name in names):
        raise explained(path, "its file CURRENT is missing")
    broken = broken_log(path)
    if broken is not None:
        raise explained(path, broken)


def _raw(config: Path) -> bool:
    """Whether rocksdict noted that rows are plain bytes; to open another kind as such would break it."""
    try:
        return msgspec.json.decode(config.read_bytes(), type=_Config).raw_mode
    except msgspec.MsgspecError as error:
        raise explained(config.parent, f"{config.name} is unreadable ({error})") from error


class _Config(msgspec.Struct):
    raw_mode: bool


def _foreign(path: Path, what: str) -> str:
    return f"Expected a state directory in {path}, got {what}; name an empty or a new one with --state"


def _unusable(path: Path, cause: str) -> str:
    return (
        f"The state directory {path} cannot be written: {cause};"
        " mend that and start again, or name another one with --state"
    )


def _database(path: Path, options: Options, access: AccessType | None = None) -> Rdict:
    # Without the second mention rocksdict takes most options from the file that the last process left.
    database = Rdict(str(path), options, {"default": options}, access or AccessType.read_write())
    _let_give_way()
    return database


def _filled(options: Options) -> Options:
    """A table in memory that is sorted when it is full, by another thread, and not at each row."""
    options.set_memtable_factory(MemtableFactory.vector())
    options.set_allow_concurrent_memtable_write(allow=False)
    return options


def _let_give_way() -> None:
    """Have the threads that write and merge tables give way to the stream where they share a core with it.

    They halve its speed for a tenth of a second at each table otherwise. Not RocksDB's own low priority: on a
    busy machine the stream would wait for its tables. Where there is no /proc, nothing changes.
    """
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (thread / "comm").read_text().startswith("rocksdb:"):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICE)


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create_if_missing=True)
    table = BlockBasedOptions()
    table.set_bloom_filter(10, block_based=False)
    table.set_block_cache(Cache(64 * _MIB))
    table.set_cache_index_and_filter_blocks(v=True)
    options.set_block_based_table_factory(table)
    # Small tables in memory stay in the processor's cache: half the time of a write. Many of them are merged
    # at once, so that rows are not rewritten more often, and what is rewritten soon is not compressed.
    options.set_write_buffer_size(16 * _MIB)
    options.set_max_write_buffer_number(8)
    # Most keys that are looked up are new; a table in memory tells in 0.4 us, without this in 2.
    options.set_memtable_prefix_bloom_ratio(0.05)
    options.set_memtable_whole_key_filtering(whole_key_filter=True)
    options.set_level_zero_file_num_compaction_trigger(12)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_compression_per_level([DBCompressionType.none(), *[DBCompressionType.lz4()] * 6])
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(4)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_paranoid_checks(enabled=True)
    return options
