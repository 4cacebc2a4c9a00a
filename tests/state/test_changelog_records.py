"""Rows as records of a changelog, large ones in parts, and back, whatever compaction has removed between."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.state import changelog_records
from streamer.state.changelog_records import Joiner, Mark, cut, mark_of, parts_of

PART = 4


@dataclass(frozen=True)
class Kept:
    """A record as it lies in the log."""

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    offset: int


def written(history: list[tuple[bytes, bytes | None]]) -> list[Kept]:
    """The log of these rows, as an owner writes it who knows what each row was before."""
    records: list[Kept] = []
    before: dict[bytes, int] = {}
    for key, value in history:
        for one, part, headers in cut(key, value, before.get(key, 0)):
            records.append(Kept(one, part, tuple(headers), len(records)))
        before[key] = parts_of(value)
    return records


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


rows = st.lists(
    st.tuples(st.sampled_from([b"\x02a", b"\x02b"]), st.none() | st.binary(max_size=3 * PART)), max_size=12
)


@given(rows, st.data())
def test_rows_come_back_after_any_compaction(
    history: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    """Whichever superseded records are gone, and deletions with all before them, the last rows are there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changelog_records, "PART_BYTES", PART)
        records = written(history)
        newest = {record.key: record.offset for record in records}
        gone = {
            record.offset
            for record in records
            if record.offset < newest[record.key] and data.draw(st.booleans(), f"{record.offset} gone")
        }
        for record in records:
            if record.offset == newest[record.key] and record.value is None and data.draw(st.booleans()):
                gone |= {other.offset for other in records if other.key == record.key}
        kept, joiner = read([record for record in records if record.offset not in gone])
    last = dict(history)
    assert {key: value for key, value in last.items() if value is not None} == kept
    assert joiner.missing == set()


def test_no_part_outlives_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a large row shrinks or goes, its parts are deleted, so that compaction leaves nothing of it."""
    monkeypatch.setattr(changelog_records, "PART_BYTES", PART)
    left = {
        record.key: record.value
        for record in written([(b"\x02a", b"0123456789"), (b"\x02a", b"0123"), (b"\x02a", None)])
    }
    assert {None} == set(left.values())


def test_a_lost_part_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row without all of its parts is not made up; the reader knows of it at the end."""
    monkeypatch.setattr(changelog_records, "PART_BYTES", PART)
    records = written([(b"\x02a", b"0123456789")])
    for lost in range(3):
        kept, joiner = read([record for record in records if record.offset != lost])
        assert ({}, {b"\x02a"}) == (kept, joiner.missing)


def test_a_mark_is_read_back() -> None:
    """The mark of a changelog is in the headers of the record that ends a commit, and of no other."""
    mark = Mark(b"0123456789abcdef", 7)
    assert mark == mark_of(Kept(b"k", b"v", tuple(mark.headers), 0))
    assert mark_of(Kept(b"k", b"v", (("other", b""),), 0)) is None
