"""The state directory: whole commits or none, whatever happens to the process, the files and the disk."""

import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import StateError, StreamerError
from streamer.state.store import (
    BLOCKS,
    IDS,
    OUTCOMES,
    Progress,
    Row,
    Store,
    WriteSet,
    nested,
    positions_of,
    prefixed,
)

COMMITTER = """
    import sys, os
    from pathlib import Path
    from streamer.state.store import BLOCKS, Progress, Store, WriteSet

    store = Store.open(Path(sys.argv[1]))
    number = store.progress.commits
    while True:
        number += 1
        mark = number.to_bytes(8, "big")
        rows = [(BLOCKS + key.to_bytes(2, "big"), mark * 40) for key in range(60)]
        store.commit(WriteSet(Progress(commits=number, positions={"payments": {0: number * 60}}), rows))
        os.write(1, b"%d\\n" % number)
        if number % 50 == 0:
            store.sync()
"""
"""Overwrites the same sixty rows in every commit and reports each once it returned."""


def python(code: str, *args: object) -> list[str]:
    """The command that runs a piece of Python in a process of its own."""
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]


def whole_commit(store: Store) -> int:
    """The number of the last commit, of which progress and all sixty rows have to be."""
    number = store.progress.commits
    assert {"payments": {0: number * 60}} == store.progress.positions
    rows = list(store.scan(BLOCKS))
    assert [BLOCKS + key.to_bytes(2, "big") for key in range(60)] == [key for key, _ in rows]
    assert {number.to_bytes(8, "big") * 40} == {value for _, value in rows}
    return number


def test_every_reported_commit_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL at moments of their own, again and again on one directory."""
    reported = 0
    for _ in range(3):
        worker = subprocess.Popen(python(COMMITTER, tmp_path), stdout=subprocess.PIPE)  # noqa: S603 - our own code
        assert worker.stdout is not None
        for _ in range(25):
            worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
        rest = worker.stdout.read().split(b"\n")
        worker.stdout.close()
        assert worker.wait() == -signal.SIGKILL
        with Store.open(tmp_path) as store:
            stored = whole_commit(store)
        whole = [int(line) for line in rest[:-1]]
        assert stored in {*range(max([reported + 25, *whole]), max([reported + 25, *whole]) + 2)}
        reported = stored


def filled(path: Path, commits: int = 5) -> None:
    """A directory whose rows lie in a table file."""
    with Store.open(path) as store:
        for number in range(1, commits + 1):
            store.commit(committed(number))


def committed(number: int) -> WriteSet:
    """What `COMMITTER` writes as commit `number`."""
    rows: list[Row] = [(BLOCKS + key.to_bytes(2, "big"), number.to_bytes(8, "big") * 40) for key in range(60)]
    return WriteSet(Progress(commits=number, positions={"payments": {0: number * 60}}), rows)


@contextmanager
def changed(path: Path, at: int) -> Iterator[None]:
    """Make one byte of a file another one."""
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
    try:
        yield
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT", "*.log"])
def test_a_changed_byte_is_said_or_harmless(tmp_path: Path, pattern: str) -> None:
    """Never a wrong row: a `StateError`, or a whole commit; a damaged log may take the latest back."""
    origin, copy = tmp_path / "origin", tmp_path / "copy"
    filled(origin)
    if pattern == "*.log":
        kept = Store.open(origin)
        for number in range(6, 10):
            kept.commit(committed(number))
        shutil.copytree(origin, copy)  # as a kill leaves it: the log is not yet in a table
        kept.close()
    else:
        shutil.copytree(origin, copy)
    name = max(copy.glob(pattern), key=lambda path: path.stat().st_size).name
    size = (copy / name).stat().st_size
    refused = 0
    for at in {*np.linspace(0, size - 1, 16).astype(int).tolist()}:
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        shutil.copytree(copy, tmp_path / "broken")
        try:
            with changed(tmp_path / "broken" / name, at), Store.open(tmp_path / "broken") as store:
                number = whole_commit(store)
                values = store.get_many([BLOCKS + key.to_bytes(2, "big") for key in range(60)])
                assert [number.to_bytes(8, "big") * 40] * 60 == values
                assert number == 5 or pattern == "*.log"
        except StateError as error:
            refused += 1
            assert f"{tmp_path}/broken is damaged" in str(error)  # noqa: PT017 - either way is right
    assert refused or pattern == "*.log"


def test_a_damaged_table_is_not_a_short_answer(tmp_path: Path) -> None:
    """A scan that meets a broken block fails, and does not end early."""
    with Store.open(tmp_path) as store:
        values = np.random.default_rng(0).bytes(200 * 3000)
        rows: list[Row] = [
            (BLOCKS + bytes([key]), values[key * 3000 : key * 3000 + 3000]) for key in range(200)
        ]
        store.commit(WriteSet(Progress(commits=1), rows))
    table = max(tmp_path.glob("*.sst"), key=lambda path: path.stat().st_size)
    with changed(table, 300_000), Store.open(tmp_path) as store:
        with pytest.raises(StateError, match=r"damaged.*checksum"):
            list(store.scan(BLOCKS))
        with pytest.raises(StateError, match=r"damaged.*checksum"):
            store.get_many([key for key, _ in rows])


def test_a_damaged_index_is_not_called_a_lock(tmp_path: Path) -> None:
    """RocksDB speaks of a `block checksum` there: nobody must look for another process."""
    filled(tmp_path)
    table = max(tmp_path.glob("*.sst"), key=lambda path: path.stat().st_size)
    for back in range(60, 900, 60):
        with changed(table, max(0, table.stat().st_size - back)):
            try:
                Store.open(tmp_path).close()
            except StateError as error:
                assert "in use" not in str(error)  # noqa: PT017 - either way is right


def test_progress_comes_back(tmp_path: Path) -> None:
    """All of it, with the rows, and the same secret."""
    progress = Progress(
        positions={"payments": {0: 7, 3: 9}, "outcomes": {1: 2}},
        greatest={0: 1_700_000_000_000},
        batches=3,
        models={"fraud": 12},
        commits=4,
        topology="abc",
    )
    with Store.open(tmp_path) as store:
        secret = store.secret
        assert store.empty
        assert Progress() == store.progress
        store.commit(WriteSet(progress, [(BLOCKS + b"k", b"v")]))
        assert not store.empty
    with Store.open(tmp_path) as store:
        assert not store.empty
        assert progress == store.progress
        assert secret == store.secret
        assert len(secret) == 32
        assert store.get_many([BLOCKS + b"k"]) == [b"v"]


_ROOM = st.sampled_from([BLOCKS, IDS, OUTCOMES])
_WRITES = st.lists(
    st.lists(
        st.tuples(_ROOM, st.binary(max_size=2), st.one_of(st.none(), st.binary(max_size=3))), max_size=12
    ),
    max_size=6,
)


@settings(max_examples=15, deadline=None)
@given(_WRITES, _ROOM, st.binary(max_size=2), st.binary(max_size=2))
def test_rows_are_those_of_a_dict(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[list[tuple[bytes, bytes, bytes | None]]],
    room: bytes,
    start: bytes,
    below: bytes,
) -> None:
    """Puts, deletions, look-ups, and scans from a start to a bound, over several commits."""
    model: dict[bytes, bytes] = {}
    with Store.open(tmp_path_factory.mktemp("state")) as store:
        for number, writes in enumerate(commits):
            rows: list[Row] = [(prefix + key, value) for prefix, key, value in writes]
            store.commit(WriteSet(Progress(commits=number), rows))
            for key, value in rows:
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
        kept = sorted((key, value) for key, value in model.items() if key.startswith(room))
        assert kept == list(store.scan(room))
        assert [row for row in kept if row[0] >= room + start] == list(store.scan(room, start))
        bounded = [row for row in kept if room + start <= row[0] < room + below]
        assert bounded == list(store.scan(room, start, room + below))
        keys = [room + bytes([byte]) for byte in range(256)]
        assert [model.get(key) for key in keys] == store.get_many(keys)


def test_a_scan_stays_in_its_room(tmp_path: Path) -> None:
    """A bound beyond the prefix does not let rows of the next room in, nor does a prefix that ends in 255."""
    with Store.open(tmp_path) as store:
        rows: list[Row] = [(BLOCKS + b"\xff", b"1"), (BLOCKS + b"\xff\xff", b"2"), (IDS, b"3")]
        store.commit(WriteSet(Progress(), rows))
        assert rows[:2] == list(store.scan(BLOCKS, end=OUTCOMES))
        assert rows[:2] == list(store.scan(BLOCKS + b"\xff"))
        assert rows[1:2] == list(store.scan(BLOCKS + b"\xff\xff"))


def test_a_full_disk_refuses_the_commit_and_loses_nothing(tmp_path: Path) -> None:
    """The limit of a file's size stands in for the disk: what was committed before stays whole."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        from streamer.errors import StreamerError
        from streamer.state.store import Store
        from tests.state.test_store import committed

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = Store.open(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        number = 0
        try:
            while number < 1000:
                store.commit(committed(number + 1))
                number += 1
        except StreamerError as error:
            print(number, store.progress.commits, error)
        try:
            store.commit(committed(number + 1))
        except StreamerError:
            print("still")
    """
    worker = subprocess.run(  # noqa: S603 - our own code
        python(code, tmp_path), capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    first, second = worker.stdout.splitlines()
    number, progress, error = first.split(" ", 2)
    assert 0 < int(number) < 1000
    assert number == progress
    assert f"The state directory {tmp_path} refused a commit: " in error
    assert "what was committed before is kept: make room or mend the disk and start again" in error
    assert second == "still"
    with Store.open(tmp_path) as store:
        assert int(number) == whole_commit(store)
        store.commit(committed(int(number) + 1))


def test_a_closed_store_refuses_everything(tmp_path: Path) -> None:
    """Closing twice is fine."""
    store = Store.open(tmp_path)
    store.close()
    store.close()
    for use in (lambda: store.get_many([b"k"]), lambda: store.commit(WriteSet(Progress())), store.sync):
        with pytest.raises(StreamerError, match="closed"):
            use()


def test_size_counts_what_is_on_disk(tmp_path: Path) -> None:
    """Once the rows have left the memory tables."""
    filled(tmp_path)
    with Store.open(tmp_path) as store:
        tables = sum(path.stat().st_size for path in tmp_path.glob("*.sst"))
        assert 0 < tables == store.size_bytes()


def test_positions_nest_and_unnest() -> None:
    """Both ways, and rows move into a room."""
    flat = {("payments", 0): 3, ("payments", 2): 5, ("outcomes", 0): 1}
    assert nested(flat) == {"payments": {0: 3, 2: 5}, "outcomes": {0: 1}}
    assert flat == positions_of(Progress(positions=nested(flat)))
    assert prefixed(BLOCKS, [(b"k", b"v"), (b"d", None)]) == [(BLOCKS + b"k", b"v"), (BLOCKS + b"d", None)]
