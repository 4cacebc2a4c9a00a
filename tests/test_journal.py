"""Journal entries: keys that survive compaction, bytes that repeat, foreign records refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import StreamerError
from streamer.journal import JournalEntry, position_name, split_position

ENTRY = JournalEntry(3, {"payments/0": 120}, {"outcomes/0": 7, "outcomes/1": 0}, {"fraud": 2})

topics = st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True)
offsets = st.integers(0, 2**63 - 1)
positions = st.dictionaries(st.builds(position_name, topics, st.integers(0, 10_000)), offsets, max_size=4)
entries = st.builds(
    JournalEntry, offsets, positions, positions, st.dictionaries(st.text(max_size=5), offsets, max_size=3)
)


@given(entries)
def test_an_entry_comes_back_as_it_was(entry: JournalEntry) -> None:
    """Every field survives the wire."""
    assert JournalEntry.decode(entry.key, entry.encode()) == entry


@given(positions, positions)
def test_a_key_stands_for_one_position(one: dict[str, int], other: dict[str, int]) -> None:
    """Two entries share a key, and so one survives compaction, only at the same payments position."""
    assert (JournalEntry(1, one, {}, {}).key == JournalEntry(2, other, {}, {}).key) == (one == other)


def test_bytes_do_not_depend_on_the_order_of_a_dict() -> None:
    """The same entry put together in another order has the same key and value."""
    other = JournalEntry(3, dict(ENTRY.payments), {"outcomes/1": 0, "outcomes/0": 7}, dict(ENTRY.models))
    assert other.encode() == ENTRY.encode()
    assert other.key == ENTRY.key == b"payments/0:120"


def test_partitions_are_in_the_order_of_their_numbers() -> None:
    """Ten comes after two."""
    assert JournalEntry(1, {"p/10": 1, "p/2": 5}, {}, {}).key == b"p/2:5,p/10:1"


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        (b"payments/0:120", b"not json", "JSON is malformed"),
        (b"payments/0:120", b"{}", "missing required field"),
        (b"payments/0:120", ENTRY.encode().replace(b"120", b"-1"), ">= 0"),
        (b"payments/0:120", ENTRY.encode().replace(b"payments/0", b"payments"), "topic/partition"),
        (b"payments/0:121", ENTRY.encode(), "expected the key b'payments/0:120', got b'payments/0:121'"),
        (None, ENTRY.encode(), "got None"),
    ],
)
def test_foreign_records_are_refused(key: bytes | None, value: bytes, found: str) -> None:
    """What is no entry of this journal is an error that says what and where."""
    with pytest.raises(StreamerError) as refused:
        JournalEntry.decode(key, value)
    assert found in str(refused.value)


@pytest.mark.parametrize("name", ["payments", "/1", "payments/", "payments/x", "payments/-1"])
def test_what_names_no_partition_is_refused(name: str) -> None:
    """A name is a topic, a slash and a number."""
    with pytest.raises(ValueError, match="topic/partition"):
        split_position(name)
