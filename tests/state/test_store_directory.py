"""A state directory opens, or one line says why it cannot be used and what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from rocksdict import Options, Rdict

from streamer.errors import StateError, StreamerError
from streamer.state.store import META, Store
from tests.state.test_store import committed, filled, python, whole_commit


def test_two_directories_have_two_secrets(tmp_path: Path) -> None:
    """Whoever knows one cannot forge digests of the other."""
    with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        assert one.secret != two.secret


def test_a_second_process_is_told_so(tmp_path: Path) -> None:
    """One line, with the remedy, and the first one goes on."""
    code = """
        import sys
        from pathlib import Path
        from streamer.state.store import Store
        Store.open(Path(sys.argv[1]))
    """
    with Store.open(tmp_path) as store:
        with pytest.raises(StateError, match=r"in use by another worker; stop that one.*--state"):
            Store.open(tmp_path)
        second = subprocess.run(  # noqa: S603 - our own code
            python(code, tmp_path), capture_output=True, text=True, check=False
        )
        assert second.returncode != 0
        assert "StateError: The state directory" in second.stderr
        assert "in use by another worker" in second.stderr
        store.commit(committed(1))
    with Store.open(tmp_path) as store:
        assert whole_commit(store) == 1


def _notes(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def _database(path: Path) -> None:
    db = Rdict(str(path), Options(raw_mode=True))
    db[b"k"] = b"v"
    db.close()


def _pickled_database(path: Path) -> None:
    db = Rdict(str(path))
    db["k"] = 1
    db.close()


@pytest.mark.parametrize("make", [_notes, _database, _pickled_database])
def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Other files, and RocksDB databases of somebody else."""
    path = tmp_path / "theirs"
    make(path)
    before = {
        name: (path / name).read_bytes()
        for name in ("notes.txt", "rocksdict-config.json")
        if (path / name).exists()
    }
    for _ in range(2):
        with pytest.raises(StateError, match=r"Expected a state directory in .* name an empty or a new one"):
            Store.open(path)
    assert before == {name: (path / name).read_bytes() for name in before}


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Nor is a path through one."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(StateError, match=r"cannot be written: Not a directory"):
            Store.open(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    """With what is there, what is read, and what to do."""
    Store.open(tmp_path).close()
    db = Rdict(str(tmp_path), Options(raw_mode=True))
    db[META + b"format"] = b"streamer state 999"
    db.close()
    with pytest.raises(
        StateError, match=r"format b'streamer state 1' .* got b'streamer state 999'; .*replay"
    ):
        Store.open(tmp_path)


@pytest.mark.parametrize("value", [b"", b"\xc1", msgspec.msgpack.encode(["positions"])])
def test_an_unreadable_progress_is_damage(tmp_path: Path, value: bytes) -> None:
    """And lets go of the directory."""
    filled(tmp_path)
    db = Rdict(str(tmp_path), Options(raw_mode=True))
    db[META + b"progress"] = value
    db.close()
    for _ in range(2):
        with pytest.raises(StateError, match="damaged: its progress is unreadable"):
            Store.open(tmp_path)


def test_a_lost_current_is_damage_and_not_a_new_directory(tmp_path: Path) -> None:
    """RocksDB would begin an empty database over the rows."""
    filled(tmp_path)
    (tmp_path / "CURRENT").unlink()
    with pytest.raises(StateError, match="damaged: its file CURRENT is missing"):
        Store.open(tmp_path)


def test_a_creation_cut_short_is_begun_again(tmp_path: Path) -> None:
    """A kill before the database stood leaves files without content."""
    for name in ("LOCK", "LOG", "IDENTITY", "MANIFEST-000001", "000001.dbtmp"):
        (tmp_path / name).touch()
    filled(tmp_path)
    with Store.open(tmp_path) as store:
        assert whole_commit(store) == 5


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of the superuser, whom no directory is closed to."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="effective users and their rights as Linux has them")
@pytest.mark.parametrize("exists", ["yes", ""])
def test_a_directory_that_cannot_be_written_is_refused(exists: str) -> None:
    """With the cause; one that would have to be made too."""
    root = Path("/tmp") / f"streamer-closed-{os.getpid()}-{exists or 'no'}"  # noqa: S108 - others' users reach it
    state = root / "state"
    (state if exists else root).mkdir(parents=True)
    for path in (state, root):
        if path.exists():
            path.chmod(0o555)
    try:
        with nobody(), pytest.raises(StateError, match="cannot be written: Permission denied"):
            Store.open(state)
    finally:
        root.chmod(0o755)
        shutil.rmtree(root)


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a directory."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_directory_is_read_beside_its_worker(tmp_path: Path) -> None:
    """What was committed so far, without a change to any file; and the worker goes on."""
    with Store.open(tmp_path) as store:
        store.commit(committed(3))
        before = contents(tmp_path)
        with Store.read(tmp_path) as beside:
            assert whole_commit(beside) == 3
            assert beside.secret == store.secret
            with pytest.raises(StreamerError, match="refused a commit"):
                beside.commit(committed(4))
        assert contents(tmp_path) == before
        store.commit(committed(5))
    with Store.read(tmp_path) as beside:
        assert whole_commit(beside) == 5


def test_reading_creates_nothing(tmp_path: Path) -> None:
    """Neither where there is nothing, nor in an empty directory."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(StateError, match="There is no state directory"):
            Store.read(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [_notes, _database, _pickled_database])
def test_a_foreign_directory_is_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """As it would not be opened."""
    make(tmp_path / "theirs")
    with pytest.raises(StateError, match="Expected a state directory in"):
        Store.read(tmp_path / "theirs")
