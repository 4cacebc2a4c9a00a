"""A disk of a few MiB of its own: full, with room again, and read-only."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamer.batch import Outgoing
from streamer.errors import StateError, StreamerError
from streamer.state.log import Log
from streamer.state.store import BLOCKS, Progress, Store, WriteSet

MOUNT = shutil.which("mount") or "mount"
SIZE = 8 << 20
PIECE = os.urandom(100_000)


def _mount(*arguments: str) -> bool:
    done = subprocess.run([MOUNT, *arguments], capture_output=True, check=False)  # noqa: S603 - our own
    return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    if sys.platform != "linux" or not _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)):
        pytest.skip("mounting a small disk needs Linux and the rights of root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)  # noqa: S603, S607 - what was mounted


def commit_to(path: Path, most: int) -> int:
    """Commit pieces to a store, which stands at the number of the last one."""
    with Store.open(path) as store:
        for number in range(store.progress.commits + 1, most + 1):
            writes = WriteSet(Progress(commits=number), [(BLOCKS + number.to_bytes(2, "big"), PIECE)])
            store.commit(writes)
        return store.progress.commits


def append_to(path: Path, most: int) -> int:
    """Append pieces to a log, which ends with the last one."""
    with Log.open(path) as log:
        if "t" not in log.topics:
            log.create_topic("t")
        for _ in range(log.end_offset("t", 0), most):
            log.append(Outgoing("t", 0, [None], [PIECE], [()]))
        return log.end_offset("t", 0)


def commits_in(path: Path) -> int:
    """How many pieces a store has, all of them whole."""
    with Store.open(path) as store:
        rows = [
            (BLOCKS + number.to_bytes(2, "big"), PIECE) for number in range(1, store.progress.commits + 1)
        ]
        assert rows == list(store.scan(BLOCKS))
        return store.progress.commits


def appends_in(path: Path) -> int:
    """How many pieces a log has, all of them whole."""
    with Log.open(path) as log:
        values = log.fetch("t", 0, 0, max_bytes=1 << 30).values
        assert set(values) == {PIECE}
        return len(values)


@pytest.mark.parametrize(
    ("write", "read", "says"),
    [(commit_to, commits_in, "The state directory"), (append_to, appends_in, "The log")],
    ids=["state", "log"],
)
def test_a_full_disk_stops_and_loses_nothing(
    disk: Path, write: Callable[[Path, int], int], read: Callable[[Path], int], says: str
) -> None:
    """The error names the disk; what was written before is there once there is room, and it goes on."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(SIZE // 2))
    path = disk / "here"
    assert write(path, 5) == 5
    with pytest.raises(StreamerError, match=rf"{says} .*No space left on device"):
        write(path, 200)
    ballast.unlink()
    kept = read(path)
    assert 5 < kept < 200
    assert write(path, kept + 5) == kept + 5
    assert read(path) == kept + 5


@pytest.mark.parametrize("write", [commit_to, append_to], ids=["state", "log"])
def test_a_read_only_disk_is_said_and_is_no_damage(disk: Path, write: Callable[[Path, int], int]) -> None:
    """At the start, with the cause; nothing has to be restored."""
    assert write(disk / "here", 3) == 3
    assert _mount("-o", "remount,ro", str(disk))
    for path in (disk / "here", disk / "new"):
        with pytest.raises(StateError, match=r"cannot be (written|created): Read-only file system"):
            write(path, 4)
    assert _mount("-o", "remount,rw", str(disk))
    assert write(disk / "here", 4) == 4
