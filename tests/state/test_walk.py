"""A walk sees every row once in a round, at the pace of event time, however often it starts."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from streamer.state.store import Progress, Store, WriteSet
from streamer.state.walk import LEAST, MOST, Slice, Walk

DAY = 86_400_000
PREFIX = b"\x03"


def fill(store: Store, n: int, room: bytes = PREFIX) -> list[bytes]:
    """So many rows in a room, and some in its neighbours."""
    keys = [room + number.to_bytes(4, "big") for number in range(n)]
    rows = [(key, b"v") for key in (*keys, b"\x02z", b"\x04")]
    store.commit(WriteSet(Progress(), rows))
    return keys


def walk_on(store: Store, walk: Walk, begin: int, end: int, step: int) -> list[Slice]:
    """The slices between two event times, each place stored."""
    slices = []
    for clock in range(begin, end, step):
        part = walk.step(clock)
        if part is not None:
            store.commit(WriteSet(Progress(), [walk.place]))
            slices.append(part)
    return slices


@pytest.mark.parametrize("starts", [1, 7])
def test_every_row_is_seen_once_in_a_round(tmp_path: Path, starts: int) -> None:
    """The slices of a round follow each other without a gap; a start goes on where the last one stopped."""
    slices: list[Slice] = []
    with Store.open(tmp_path) as store:
        keys = fill(store, 1_000)
    span = 10 * DAY // starts
    for start in range(starts):
        with Store.open(tmp_path) as store:
            walk = Walk(store, PREFIX, DAY)
            slices += walk_on(store, walk, start * span, (start + 1) * span, DAY // 50)
    assert slices[0].begin == b""
    for one, other in pairwise(slices):
        assert (one.end or b"") == other.begin
        assert all(one.begin <= key[1:] < (one.end or b"\xff") for key, _ in one.rows)
    ends = [at for at, part in enumerate(slices) if part.end is None]
    assert 8 <= len(ends) <= 11
    rounds = [slices[begin + 1 : end + 1] for begin, end in pairwise([-1, *ends])]
    for parts in rounds:
        assert [key for part in parts for key, _ in part.rows] == keys


def test_it_waits_until_a_step_is_worth_it(tmp_path: Path) -> None:
    """Few rows are due in a short time; after a long pause no more than a step holds."""
    with Store.open(tmp_path) as store:
        fill(store, 5_000)
        walk = Walk(store, PREFIX, 5_000)
        assert walk.step(10**12) is None
        assert walk.step(10**12 + LEAST // 2) is None
        part = walk.step(10**12 + LEAST)
        assert part is not None
        assert len(part.rows) == LEAST
        assert walk.step(10**12 + LEAST - 5) is None
        part = walk.step(10**12 + DAY)
        assert part is not None
        assert len(part.rows) == MOST


def test_it_keeps_up_with_a_room_that_has_grown(tmp_path: Path) -> None:
    """A round that finds twenty times the rows of the last one takes no twenty times as long."""
    with Store.open(tmp_path) as store:
        walk = Walk(store, PREFIX, DAY)
        fill(store, 200)
        walk_on(store, walk, 0, 2 * DAY, DAY // 100)
        fill(store, 4_000)
        seen = Counter(
            key for part in walk_on(store, walk, 2 * DAY, 8 * DAY, DAY // 100) for key, _ in part.rows
        )
        assert len(seen) == 4_000
