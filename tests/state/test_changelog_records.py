"""Rows as records of a changelog, large ones in parts, and back, whatever compaction has removed between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.state import changelog_records
from streamer.state.changelog_records import Joiner, Mark, mark_of
from tests.state.records import History, Kept, compacted, histories, written

PART = 4


def read(records: list[Kept]) -> tuple[dict[bytes, bytes], Joiner]:
    """What a reader holds after these records."""
    rows: dict[bytes, bytes] = {}
    joiner = Joiner()
    for record in records:
        row = joiner.row(record)
        if row is not None and row[1] is not None:
            rows[row[0]] = row[1]
        elif row is not None:
            rows.pop(row[0], None)
    return rows, joiner


@given(histories(PART), st.data())
def test_rows_come_back_after_any_compaction(history: History, data: st.DataObject) -> None:
    """Whichever superseded records are gone, and deletions with all before them, the last rows are there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changelog_records, "PART_BYTES", PART)
        kept, joiner = read(compacted(written(history), data))
    assert {key: value for key, value in dict(history).items() if value is not None} == kept
    assert joiner.missing == set()


def test_no_part_outlives_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a large row shrinks or goes, its parts are deleted, so that compaction leaves nothing of it."""
    monkeypatch.setattr(changelog_records, "PART_BYTES", PART)
    records = written([(b"\x02a", b"0123456789"), (b"\x02a", b"0123"), (b"\x02a", None)])
    assert {record.key: None for record in records} == {record.key: record.value for record in records}


def test_a_lost_part_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row without all of its parts is not made up; the reader knows of it at the end."""
    monkeypatch.setattr(changelog_records, "PART_BYTES", PART)
    records = written([(b"\x02a", b"0123456789")])
    for lost in range(3):
        kept, joiner = read([record for record in records if record.offset != lost])
        assert (kept, joiner.missing) == ({}, {b"\x02a"})


def test_a_mark_is_read_back() -> None:
    """The mark of a changelog is in the headers of the record that ends a commit, and of no other."""
    mark = Mark(b"0123456789abcdef", 7)
    assert mark == mark_of(Kept(b"k", b"v", tuple(mark.headers), 0))
    assert mark_of(Kept(b"k", b"v", (("other", b""),), 0)) is None
