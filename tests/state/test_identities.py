"""Identities answer as a dict of everything would, whatever the budget, the batches and the restarts."""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.batch import Text
from streamer.state.identities import CONFLICT, DUPLICATE, ENTRY, NEW, Identities

WINDOW = 100
ROOMY = 1 << 20
TIGHT = 1
"""A budget that is less than the smallest ring: 64 marks."""

Marks = npt.NDArray[np.void]


def marks_of(rows: list[tuple[int, int, int]], first_source: int = 0) -> Marks:
    """Marks of (id, content, log time); ids of a few bits share their places in the index."""
    marks = np.zeros(len(rows), ENTRY)
    for row, (identity, content, time) in enumerate(rows):
        marks[row]["high"] = identity * 0x9E3779B97F4A7C15 % 2**64
        marks[row]["low"] = identity % 7 | (identity // 7 << 40) % 2**64
        marks[row]["content"] = content
        marks[row]["time"] = time
        marks[row]["source"] = first_source + row
    return marks


@dataclass
class Disk:
    """A dict that takes marks when they are committed and counts what it was asked."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    pending: list[bytes] = field(default_factory=list)
    asked: int = 0

    def get(self, digests: list[bytes]) -> list[bytes | None]:
        """Answer as `Identities` wants it."""
        self.asked += len(digests)
        return [self.rows.get(digest) for digest in digests]

    def note(self, marks: Marks, verdict: npt.NDArray[np.int8]) -> None:
        """New marks wait for the commit."""
        self.pending.extend(mark.tobytes() for mark in marks[verdict == NEW])

    def commit(self) -> None:
        """All that waited is found from now on."""
        self.rows.update((raw[:16], raw) for raw in self.pending)
        self.pending = []


@dataclass
class Model:
    """The last mark of every id, for ever."""

    seen: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)

    def judge(self, marks: Marks) -> tuple[list[int], list[int]]:
        """Verdicts and sources, a row at a time."""
        verdicts, sources = [], []
        for mark in marks:
            key = mark.tobytes()[:16]
            content, time, source = (int(mark[name]) for name in ("content", "time", "source"))
            known = self.seen.get(key)
            if known is not None and known[1] >= time - WINDOW:
                verdicts.append(DUPLICATE if known[0] == content else CONFLICT)
                sources.append(known[2])
            else:
                verdicts.append(NEW)
                sources.append(-1)
                self.seen[key] = content, time, source
        return verdicts, sources


@st.composite
def _streams(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Payments whose ids recur and whose times run on and back by up to twice the window."""
    size = draw(st.integers(1, 900))
    ids, pace = draw(st.sampled_from([5, 60, 400, 10**9])), draw(st.sampled_from([0, 1, 5, 40]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    times = np.arange(size) * pace + rng.integers(-WINDOW, WINDOW + 1, size)
    return list(
        zip(
            (rng.integers(0, ids, size) + 1).tolist(),
            rng.integers(0, 2, size).tolist(),
            times.tolist(),
            strict=True,
        )
    )


@settings(max_examples=120, deadline=None)
@given(
    _streams(),
    st.sampled_from([TIGHT, 6000, ROOMY]),
    st.lists(
        st.tuples(st.integers(1, 300), st.sampled_from(["go on", "cut", "written", "restart"])), min_size=1
    ),
)
def test_verdicts_and_sources_are_those_of_a_dict(
    rows: list[tuple[int, int, int]], budget: int, steps: list[tuple[int, str]]
) -> None:
    """With marks that leave memory before and after they are written, and with restarts between commits."""
    model, disk = Model(), Disk()
    identities = Identities(WINDOW, budget, disk.get)
    marks = marks_of(rows)
    done = step = 0
    cut = 0
    while done < len(marks):
        size, event = steps[step % len(steps)]
        step += 1
        batch = marks[done : done + size]
        done += size
        verdict, source = identities.judge(batch)
        assert model.judge(batch) == (verdict.tolist(), source.tolist())
        disk.note(batch, verdict)
        if event == "cut":
            identities.cut()
            cut = len(disk.pending)
        elif event == "written":
            later = disk.pending[cut:]
            del disk.pending[cut:]
            disk.commit()
            identities.written()
            disk.pending, cut = later, 0
        elif event == "restart":
            disk.commit()
            cut = 0
            identities = Identities(WINDOW, budget, disk.get, spilled=2**62)


@settings(max_examples=40, deadline=None)
@given(_streams(), st.sampled_from([TIGHT, ROOMY]), st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_the_size_of_a_batch_changes_nothing(
    rows: list[tuple[int, int, int]], budget: int, sizes: list[int]
) -> None:
    """All at once or piece by piece."""
    marks = marks_of(rows)
    whole = Identities(WINDOW, budget, Disk().get).judge(marks)
    pieces = Identities(WINDOW, budget, Disk().get)
    done = step = 0
    while done < len(marks):
        part = slice(done, done + sizes[step % len(sizes)])
        done, step = part.stop, step + 1
        verdict, source = pieces.judge(marks[part])
        assert whole[0][part].tolist() == verdict.tolist()
        assert whole[1][part].tolist() == source.tolist()


def test_repeats_within_a_batch_name_the_first() -> None:
    """The same content is a duplicate, another content a conflict."""
    identities = Identities(WINDOW, ROOMY, Disk().get)
    verdict, source = identities.judge(
        marks_of([(1, 5, 0), (2, 5, 0), (1, 5, 1), (2, 6, 1)], first_source=70)
    )
    assert verdict.tolist() == [NEW, NEW, DUPLICATE, CONFLICT]
    assert source.tolist() == [-1, -1, 70, 71]


@pytest.mark.parametrize(
    ("time", "expected"), [(WINDOW, DUPLICATE), (WINDOW + 1, NEW), (-5 * WINDOW, DUPLICATE)]
)
def test_the_window_ends_where_it_says(time: int, expected: int) -> None:
    """A mark exactly as old as the window still counts, and one of a later log time does."""
    identities = Identities(WINDOW, ROOMY, Disk().get)
    identities.judge(marks_of([(1, 0, 0)]))
    assert [expected] == identities.judge(marks_of([(1, 0, time)]))[0].tolist()


def test_an_id_seen_again_after_the_window_counts_anew() -> None:
    """Its old mark hides nothing, neither in memory nor after both have left it."""
    disk = Disk()
    identities = Identities(WINDOW, TIGHT, disk.get)
    for rows in ([(1, 0, 0)], [(1, 1, 150)], [(1, 1, 200)]):
        disk.note(marks_of(rows), identities.judge(marks_of(rows))[0])
    disk.commit()
    identities.cut()
    identities.written()
    identities.judge(marks_of([(100 + number, 0, 200) for number in range(500)]))
    assert identities.judge(marks_of([(1, 1, 249)]))[0].tolist() == [DUPLICATE]


def test_marks_that_leave_memory_before_their_commit_are_still_known() -> None:
    """A commit may take long: until it is written the disk knows nothing of them."""
    identities = Identities(WINDOW, TIGHT, Disk().get)
    identities.judge(marks_of([(number, 0, 0) for number in range(1000)]))
    assert {DUPLICATE} == set(
        identities.judge(marks_of([(number, 0, 1) for number in range(1000)]))[0].tolist()
    )


def test_what_is_written_is_not_kept_aside() -> None:
    """Memory stays bounded over many commits."""
    disk = Disk()
    identities = Identities(WINDOW, TIGHT, disk.get)
    for start in range(0, 5000, 500):
        marks = marks_of([(start + number, 0, start) for number in range(500)])
        disk.note(marks, identities.judge(marks)[0])
        identities.cut()
        disk.commit()
        identities.written()
    assert len(identities._unwritten) == 0
    assert identities.nbytes() < 8000


def test_memory_stays_within_the_budget() -> None:
    """However many payments come."""
    identities = Identities(WINDOW, 100_000, Disk().get)
    for start in range(0, 20_000, 1000):
        identities.judge(marks_of([(start + number, 0, start) for number in range(1000)]))
        identities.cut()
        identities.written()
    assert 50_000 < identities.nbytes() <= 100_000


def test_the_disk_is_asked_only_where_the_window_reaches_what_left() -> None:
    """Marks that expired before they left cost no look-up."""
    disk = Disk()
    identities = Identities(WINDOW, TIGHT, disk.get)
    identities.judge(marks_of([(number, 0, number * WINDOW) for number in range(3000)]))
    assert disk.asked == 0
    Identities(WINDOW, TIGHT, disk.get, spilled=2**62).judge(marks_of([(1, 0, 0)]))
    assert disk.asked == 1


def test_an_empty_batch_is_judged() -> None:
    """Nothing in, nothing out."""
    verdict, source = Identities(WINDOW, ROOMY, Disk().get).judge(marks_of([]))
    assert 0 == len(verdict) == len(source)


def _digest_by_hand(data: bytes, seeds: list[int]) -> tuple[int, int]:
    """Digest bytes in plain Python: two chains of multiply and shift, eight bytes at a time."""

    def mix(value: int) -> int:
        for _ in range(2):
            value = (value ^ value >> 32) * 0xD6E8FEB86659FD93 % 2**64
        return value ^ value >> 32

    first, second = mix(seeds[0] ^ len(data)), mix((seeds[1] + len(data)) % 2**64)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        first = (mix(first ^ word) + seeds[2]) % 2**64
        second = mix((second + word * 0x9E3779B97F4A7C15) % 2**64) ^ seeds[3]
    return mix(first), mix(second)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8),
    st.binary(max_size=40),
)
def test_digests_are_those_worked_out_by_hand(ids: list[str], seed: bytes) -> None:
    """Stored digests have to be found again by every version."""
    seeds = np.frombuffer(blake2b(seed, digest_size=32).digest(), np.uint64).tolist()
    got = Identities(WINDOW, TIGHT, Disk().get, seed).digest(Text.pack(ids)).tolist()
    assert [list(_digest_by_hand(text.encode(), seeds)) for text in ids] == got


def test_digests_differ_by_seed_and_by_padding() -> None:
    """In either half: texts that end in zero bytes, and lengths that could make up for a first word."""
    one, other = Identities(1, 1, Disk().get, b"a"), Identities(1, 1, Disk().get, b"b")
    ids = Text.pack(["a", "a\0", "a\0\0", "b"])
    halves = np.concatenate([one.digest(ids).ravel(), other.digest(ids).ravel()])
    assert len(halves) == len(set(halves.tolist()))
