"""A state directory filled from records: marked until it is whole, and then the rows that were written."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import StateError
from streamer.state import changelog_records, replica
from streamer.state.replica import Replica
from streamer.state.store import BLOCKS, DECIDED, PROGRESS, SECRET, Place, Progress, Store, WriteSet
from tests.state.records import History, Kept, compacted, histories, written

PART = 4
PLACE = Place(
    changelog=b"0123456789abcdef", begin=0, topic="changelog", shard=3, offset=7, last=6, at=1, whole=True
)
HALF = msgspec.structs.replace(PLACE, whole=False)


def plain(*rows: tuple[bytes, bytes | None]) -> list[Kept]:
    """Records without headers."""
    return [Kept(key, value, (), offset) for offset, (key, value) in enumerate(rows)]


@settings(max_examples=40)
@given(histories(PART), st.data(), st.integers(1, 5))
def test_rows_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, history: History, data: st.DataObject, size: int
) -> None:
    """Whatever compaction has removed, and wherever batches end."""
    path = tmp_path_factory.mktemp("state") / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changelog_records, "PART_BYTES", PART)
        patch.setattr(replica, "BATCH_BYTES", 1)
        records = compacted(written(history), data)
        with Replica.open(path) as filled:
            for start in range(0, len(records), size):
                part = records[start : start + size]
                assert len(part) == filled.add(part, 0)
                filled.advance(msgspec.structs.replace(HALF, offset=part[-1].offset + 1))
            filled.reach(PLACE)
    with Store.open(path) as store:
        left = {key: value for key, value in dict(history).items() if value is not None}
        assert left == dict(store.scan(DECIDED))
        assert store.place == PLACE


def test_a_directory_is_not_opened_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to work on nor to read; the error names the shard whose worker completes it."""
    monkeypatch.setattr(replica, "BATCH_BYTES", 1)
    with Replica.open(tmp_path) as filled:
        filled.add(plain((BLOCKS + b"k", b"v")), 0)
        filled.advance(HALF)
    for attempt in (Store.open, Store.read):
        with pytest.raises(StateError, match="half restored from partition 3 of topic changelog"):
            attempt(tmp_path)
    with Replica.open(tmp_path) as filled:
        assert filled.place == HALF
        filled.reach(PLACE)
    with Store.open(tmp_path) as store:
        assert store.get_many([BLOCKS + b"k"]) == [b"v"]


def test_what_was_not_written_is_not_there(tmp_path: Path) -> None:
    """Rows that were added and reached no commit are gone when the replica is closed."""
    with Replica.open(tmp_path) as filled:
        filled.add(plain((BLOCKS + b"k", b"v")), 0)
        filled.advance(HALF)  # not much: it waits
    with Store.open(tmp_path) as store:
        assert (store.empty, store.place, list(store.scan(BLOCKS))) == (True, None, [])


def test_records_before_the_start_are_not_taken(tmp_path: Path) -> None:
    """A batch may begin before the offset that was asked for."""
    with Replica.open(tmp_path) as filled:
        rows = plain((BLOCKS + b"a", b"1"), (BLOCKS + b"b", b"2"), (BLOCKS + b"c", b"3"))
        assert filled.add(rows, 2) == 1
        filled.reach(PLACE)
    with Store.open(tmp_path) as store:
        assert list(store.scan(BLOCKS)) == [(BLOCKS + b"c", b"3")]


def test_the_secret_is_the_original_s(tmp_path: Path) -> None:
    """Digests of ids are made under it: that of the new directory is replaced."""
    with Replica.open(tmp_path) as filled:
        filled.add(plain((SECRET, bytes(32)), (PROGRESS, msgspec.msgpack.encode(Progress(commits=9)))), 0)
        filled.reach(PLACE)
    with Store.open(tmp_path) as store:
        assert (store.secret, store.progress.commits, store.empty) == (bytes(32), 9, False)


def test_a_wiped_directory_has_nothing_and_is_ours(tmp_path: Path) -> None:
    """It begins from nothing, is marked so, and can be filled again."""
    with Store.open(tmp_path) as store:
        store.commit(WriteSet(Progress(commits=1), [(BLOCKS + bytes([n]), b"v") for n in range(256)]))
    with Replica.open(tmp_path) as filled:
        filled.wipe(HALF)
    with pytest.raises(StateError, match="half restored"):
        Store.open(tmp_path)
    with Replica.open(tmp_path) as filled:
        filled.add(plain((BLOCKS + b"new", b"row")), 0)
        filled.reach(PLACE)
    with Store.open(tmp_path) as store:
        assert list(store.scan(BLOCKS)) == [(BLOCKS + b"new", b"row")]
        assert store.empty


@pytest.mark.parametrize("newer", [b"01", None, b"9876543210"])
def test_missing_parts_of_what_was_replaced_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: bytes | None
) -> None:
    """Compaction may leave a row and take its parts, where a smaller, a larger or no row came later."""
    monkeypatch.setattr(changelog_records, "PART_BYTES", PART)
    with Replica.open(tmp_path) as filled:
        filled.add(written([(b"\x02a", b"0123456789"), (b"\x02a", newer)])[1:], 0)
        filled.reach(PLACE)
    with Store.open(tmp_path) as store:
        assert [newer] == store.get_many([b"\x02a"])


def test_missing_parts_at_the_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changelog that lost them is damaged: the directory stays marked."""
    monkeypatch.setattr(changelog_records, "PART_BYTES", PART)
    with Replica.open(tmp_path) as filled:
        filled.add(written([(b"\x02a", b"0123456789")])[1:], 0)
        with pytest.raises(StateError, match="parts of 1 rows are missing"):
            filled.reach(PLACE)


@pytest.mark.parametrize(
    "record",
    [
        Kept(b"k", b"v", (("streamer_changelog", b"\xff"),), 0),
        Kept(b"k", b"v", (("streamer_parts", b""),), 0),
        Kept(None, b"v", (), 0),  # type: ignore[arg-type]  # what is not ours may have no key
    ],
)
def test_a_record_that_no_owner_wrote_is_refused(tmp_path: Path, record: Kept) -> None:
    """The error says that the changelog is damaged."""
    with (
        Replica.open(tmp_path) as filled,
        pytest.raises(StateError, match="a record of the changelog is damaged"),
    ):
        filled.add([record], 0)
