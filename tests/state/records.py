"""The log of a few rows, as an owner writes it and compaction leaves it."""

from dataclasses import dataclass

from hypothesis import strategies as st

from streamer.state.changelog_records import cut, parts_of


@dataclass(frozen=True)
class Kept:
    """A record as it lies in the log."""

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    offset: int


History = list[tuple[bytes, bytes | None]]


def histories(part: int) -> st.SearchStrategy[History]:
    """Puts and deletions of two rows, of up to three parts of so many bytes."""
    keys = st.sampled_from([b"\x02a", b"\x02b"])
    return st.lists(st.tuples(keys, st.none() | st.binary(max_size=3 * part)), max_size=12)


def written(history: History) -> list[Kept]:
    """The records of these rows; who writes knows what each row was before."""
    records: list[Kept] = []
    before: dict[bytes, int] = {}
    for key, value in history:
        for one, part, headers in cut(key, value, before.get(key, 0)):
            records.append(Kept(one, part, tuple(headers), len(records)))
        before[key] = parts_of(value)
    return records


def compacted(records: list[Kept], data: st.DataObject) -> list[Kept]:
    """Without some that later ones replaced, and without some deletions and all that they deleted."""
    newest = {record.key: record.offset for record in records}
    gone = {
        record.offset
        for record in records
        if record.offset < newest[record.key] and data.draw(st.booleans(), f"{record.offset} gone")
    }
    for record in records:
        if record.offset == newest[record.key] and record.value is None and data.draw(st.booleans()):
            gone |= {other.offset for other in records if other.key == record.key}
    return [record for record in records if record.offset not in gone]
