"""Broken files of a state directory or of an embedded log: said with the remedy, or without consequence."""

import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from streamer.batch import Outgoing
from streamer.errors import StateError
from streamer.state import synced
from streamer.state.frames import broken_log
from streamer.state.log import Log
from streamer.state.store import BLOCKS, Progress, Row, Store, WriteSet

STEPS, SYNCED = 30, 20
POSITIONS = 6
PAD = b"0123456789abcdef" * 40


class Kept(Protocol):
    """A directory under test: steps are written one after the other, and counted when it is read whole."""

    def write(self, path: Path, end: str) -> None:
        """Write all steps, the first ones synced; `killed` leaves the files as a kill would, else close."""

    def read(self, path: Path) -> int:
        """How many steps are there, each whole and none left out; raises for anything else."""


class State:
    """Commits of a store."""

    def write(self, path: Path, end: str) -> None:
        """A commit a step: a row of its own, and one that all overwrite."""
        store = Store.open(path / "live")
        for step in range(1, STEPS + 1):
            rows: list[Row] = [(BLOCKS + bytes([step]), b"%d" % step + PAD), (BLOCKS, b"%d" % step)]
            store.commit(WriteSet(Progress(commits=step), rows))
            if step == SYNCED:
                store.sync()
        _left(path, store.close, end)

    def read(self, path: Path) -> int:
        """By its progress, by a scan and by look-ups."""
        with Store.open(path) as store:
            step = store.progress.commits
            rows = [(BLOCKS + bytes([each]), b"%d" % each + PAD) for each in range(1, step + 1)]
            newest = [(BLOCKS, b"%d" % step)] if step else []
            assert newest + rows == list(store.scan(BLOCKS))
            assert [value for _, value in rows] == store.get_many([key for key, _ in rows])
            return step


class Topics:
    """Appends to a log; small ones, which are rows, and large ones, which have files of their own."""

    def write(self, path: Path, end: str) -> None:
        """An append to two topics a step."""
        log = Log.open(path / "live")
        log.create_topic("small")
        log.create_topic("large")
        for step in range(1, STEPS + 1):
            small = Outgoing("small", 0, [b"%d" % step], [b"%d" % step], [()])
            log.append_many([small, Outgoing("large", 0, [None], [(b"%d" % step + PAD) * 10], [()])])
            if step == SYNCED:
                log.flush()
        _left(path, log.close, end)

    def read(self, path: Path) -> int:
        """Both topics from their beginning."""
        with Log.open(path) as log:
            if not log.topics:
                return 0
            small, large = (log.fetch(name, 0, 0, max_bytes=1 << 30) for name in ("small", "large"))
            steps = len(small)
            wanted = [b"%d" % step for step in range(1, steps + 1)]
            assert (wanted, wanted) == (small.keys, small.values)
            assert [(step + PAD) * 10 for step in wanted] == large.values
            return steps


def _left(path: Path, close: Callable[[], None], end: str) -> None:
    """Leave the directory in `path / "left"`, as it is now or once it is closed."""
    if end == "closed":
        close()
    shutil.copytree(path / "live", path / "left")
    if end == "killed":
        close()


def broken(data: bytes, draws: random.Random) -> Iterator[bytes]:
    """A file with a bit flipped, and cut short, at many places, its ends among them."""
    for at in {0, len(data) - 1, *(draws.randrange(len(data)) for _ in range(POSITIONS))}:
        yield data[:at] + bytes([data[at] ^ (1 << draws.randrange(8))]) + data[at + 1 :]
        yield data[:at]


@pytest.mark.parametrize("end", ["killed", "closed"])
@pytest.mark.parametrize("kept", [State(), Topics()], ids=["state", "log"])
@pytest.mark.parametrize("seed", [1])
def test_every_broken_file_is_said_or_harmless(tmp_path: Path, kept: Kept, end: str, seed: int) -> None:
    """Whatever file, whatever byte: a `StateError` with the remedy, or all that was synced is there."""
    kept.write(tmp_path, end)
    promised = STEPS if end == "closed" else SYNCED
    refused: set[str] = set()
    for name in sorted(file.name for file in (tmp_path / "left").iterdir()):
        data = (tmp_path / "left" / name).read_bytes()
        for content in broken(data, random.Random(seed)) if data else ():
            copy = tmp_path / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(tmp_path / "left", copy)
            (copy / name).write_bytes(content)
            try:
                steps = kept.read(copy)
            except StateError as error:
                refused.add(name.rstrip("0123456789") if "-" in name else Path(name).suffix or name)
                assert f"{copy} is damaged: " in str(error)  # noqa: PT017 - either way is right
                assert "restore" in str(error)  # noqa: PT017
            else:
                assert promised <= steps <= STEPS, (name, steps)
    assert refused >= {"CURRENT", "MANIFEST-", ".log" if end == "killed" else ".sst"}


@pytest.mark.parametrize("kept", [State(), Topics()], ids=["state", "log"])
def test_what_was_synced_and_is_gone_is_missed(tmp_path: Path, kept: Kept) -> None:
    """Also a whole file, again at each start; and whoever takes the note away goes on with what is left."""
    kept.write(tmp_path, "killed")
    left = tmp_path / "left"
    (log,) = left.glob("*.log")
    log.unlink()
    for _ in range(2):
        with pytest.raises(StateError, match=rf"had been forced onto the disk.*remove {left}/SYNCED to go"):
            kept.read(left)
    (left / synced.NAME).unlink()
    assert kept.read(left) == 0


@pytest.mark.parametrize("kept", [State(), Topics()], ids=["state", "log"])
def test_a_torn_end_is_no_damage(tmp_path: Path, kept: Kept) -> None:
    """A power cut leaves pages that were never written, as zeros or not at all, behind what was synced."""
    kept.write(tmp_path, "killed")
    (log,) = (tmp_path / "left").glob("*.log")
    data = log.read_bytes()
    begin = data.index(b"%d" % (SYNCED + 1) + PAD)
    draws = random.Random(3)
    for at in [begin, *(draws.randrange(begin, len(data)) for _ in range(20))]:
        for tail in (b"", bytes(len(data) - at), bytes(100) + data[at + 100 :]):
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
            shutil.copytree(tmp_path / "left", tmp_path / "copy")
            (tmp_path / "copy" / log.name).write_bytes(data[:at] + tail)
            assert SYNCED <= kept.read(tmp_path / "copy") <= STEPS


def frames(data: bytes) -> Iterator[int]:
    """Where the frames of a log of RocksDB begin, none of them cut by the end of a block of 32 KiB."""
    at = 0
    while at + 7 <= len(data):
        yield at
        at += 7 + int(struct.unpack_from("<H", data, at + 4)[0])


@pytest.mark.parametrize("pattern", ["*.log", "MANIFEST-*"])
def test_frames_on_which_rocksdb_turns_in_circles_are_said(tmp_path: Path, pattern: str) -> None:
    """One flipped bit makes a kind of frame that an open never gets past."""
    with Store.open(tmp_path / "live") as store:
        for step in range(3):
            store.commit(WriteSet(Progress(commits=step), [(BLOCKS, PAD)]))
        shutil.copytree(tmp_path / "live", tmp_path / "left")
    (file,) = (tmp_path / "left").glob(pattern)
    data = file.read_bytes()
    places = list(frames(data))
    assert len(places) > 1
    assert broken_log(tmp_path / "left") is None
    for at in places:
        file.write_bytes(data[: at + 6] + bytes([data[at + 6] ^ 4]) + data[at + 7 :])
        with pytest.raises(
            StateError, match=rf"{file.name} has a frame of an unknown kind at byte {at}; rest"
        ):
            Store.open(tmp_path / "left")
    file.write_bytes(data)
    Store.open(tmp_path / "left").close()


def test_a_note_is_read_back_or_not_at_all(tmp_path: Path) -> None:
    """Without one, and with one that is not whole, nothing is promised."""
    assert synced.noted(tmp_path) == 0
    for number in (0, 7, 2**40):
        synced.note(tmp_path, number)
        assert synced.noted(tmp_path) == number
    whole = (tmp_path / synced.NAME).read_bytes()
    pieces: list[Any] = [whole[:-1], whole[:8], b"", whole + b"0", b"\x01" + whole[1:]]
    for content in pieces:
        (tmp_path / synced.NAME).write_bytes(content)
        assert synced.noted(tmp_path) == 0
