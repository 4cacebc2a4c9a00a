"""Which payment_ids were seen within the deduplication window, compiled and bounded in memory."""

import mmap
import sys
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from streamer.batch import Int64, Text
from streamer.state.identity_kernels import (
    CONTENT,
    SOURCE,
    WIDTH,
    Ring,
    UInt64,
    digest,
    enter,
    evict,
    judge,
    unknown,
)

NEW, DUPLICATE, CONFLICT = 0, 1, 2
"""Verdicts: never seen in the window; seen with the same content; seen with another content."""

ENTRY = np.dtype(
    [("high", "u8"), ("low", "u8"), ("content", "u8"), ("time", "i8"), ("place", "i8"), ("source", "i8")]
)
"""A mark: 128-bit digest of the id, 64-bit digest of the content, log time (ms), and where the first one is:
`place` is decided batch << 24 | row, `source` is partition << 48 | offset."""

_KEPT = np.array([0, 1, 2, 3, 5])
"""Words of an entry that a ring keeps: all but its place, which is known on disk only."""

_FEWEST = 64
_NEVER = np.iinfo(np.int64).min


class Identities:
    """The last mark of each payment_id; the newest in memory, all that were written found through `on_disk`.

    A payment is new unless its id's last mark is at most `window` ms of log time older. `budget` bounds the
    bytes in memory: where it is reached the oldest marks leave, and payments whose window reaches back to
    those are looked up through `on_disk`, which takes 16-byte digests and answers marks of `ENTRY` or `None`.
    `spilled` is the newest log time of a mark that an earlier run left on disk, if any did. Marks that leave
    before they were written, see `cut` and `written`, are kept aside.
    """

    def __init__(
        self,
        window: int,
        budget: int,
        on_disk: Callable[[list[bytes]], list[bytes | None]],
        seed: bytes = b"",
        *,
        spilled: int | None = None,
    ) -> None:
        self.window = window
        self._on_disk = on_disk
        self._seeds = np.frombuffer(blake2b(seed, digest_size=32).digest(), np.uint64).copy()
        marks, slots = _sizes(budget)
        # The ring takes memory as it fills. The index is touched now: its first uses, all over it, would hold
        # up the stream for as long as the system needs to find the pages.
        self._ring = Ring(_in_small_pages(marks), np.empty(slots, np.int64))
        self._ring.slots.fill(0)
        self._next = 0
        self._oldest = 0
        self._cut = 0
        self._written = 0
        self._unwritten: dict[bytes, tuple[int, Int64]] = {}
        self._spilled = _NEVER if spilled is None else spilled
        """Newest log time of a mark that is not in memory."""
        self._compile()

    def digest(self, ids: Text) -> UInt64:
        """Keyed 128-bit digests of ids; shape (n, 2)."""
        out = np.empty((len(ids), 2), np.uint64)
        digest(ids.data, ids.ends, self._seeds, out)
        return out

    def digests(self, ids: Sequence[str]) -> list[bytes]:
        """The same as 16 bytes each, under which marks are found again."""
        raw = self.digest(Text.pack(ids)).tobytes()
        return [raw[at : at + 16] for at in range(0, len(raw), 16)]

    def judge(self, marks: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int8], Int64]:
        """Judge marks of dtype `ENTRY` in order, remembering those that are new.

        Returns the verdicts and, for rows that are not new, the `source` of the first one.
        """
        words = marks.view(np.int64).reshape(len(marks), ENTRY.itemsize // 8).take(_KEPT, axis=1)
        horizon = marks["time"] - self.window
        verdict = np.zeros(len(marks), np.int8)
        source = np.full(len(marks), -1, np.int64)
        step = len(self._ring.marks) // 4
        for start in range(0, len(marks), step):
            rows = slice(start, start + step)
            self._judge(words[rows], horizon[rows], verdict[rows], source[rows])
        return verdict, source

    def cut(self) -> None:
        """Note that a commit takes what was judged up to here."""
        self._cut = self._next

    def written(self) -> None:
        """Note that what was judged before the last `cut` is found through `on_disk` now."""
        self._written = self._cut
        self._unwritten = {
            key: (number, mark) for key, (number, mark) in self._unwritten.items() if number >= self._cut
        }

    def nbytes(self) -> int:
        """Bytes in memory."""
        return min(self._next, len(self._ring.marks)) * WIDTH * 8 + self._ring.slots.nbytes

    def _compile(self) -> None:
        """Compile every kernel now: the first use of one must not hold up the stream."""
        none, nothing = np.empty((0, WIDTH), np.int64), np.empty(0, np.int64)
        judge(self._ring, none, nothing, 0, nothing)
        unknown(self._ring, none, nothing, 0, nothing)
        enter(self._ring, none, 0)
        evict(self._ring, 0, 0, np.empty(0, np.bool_))
        self.digest(Text.pack([]))

    def _judge(self, words: Int64, horizon: Int64, verdict: npt.NDArray[np.int8], source: Int64) -> None:
        ring = self._ring
        self._make_room(2 * len(words))
        if int(horizon.min()) <= self._spilled:
            self._recall(words, horizon)
        first = np.empty(len(words), np.int64)
        self._next = judge(ring, words, horizon, self._next, first)
        again = np.flatnonzero(first >= 0)
        if again.size:
            known = ring.marks[first[again]]
            same = known[:, CONTENT] == words[again, CONTENT]
            verdict[again] = np.where(same, DUPLICATE, CONFLICT)
            source[again] = known[:, SOURCE]

    def _make_room(self, count: int) -> None:
        """Let the oldest marks go until `count` more fit."""
        ring = self._ring
        leaving = self._next + count - len(ring.marks) - self._oldest
        if leaving <= 0:
            return
        live = np.empty(leaving, np.bool_)
        self._spilled = max(self._spilled, evict(ring, self._oldest, leaving, live))
        for number in range(max(self._oldest, self._written), self._oldest + leaving):
            if live[number - self._oldest]:
                mark = ring.marks[number % len(ring.marks)].copy()
                self._unwritten[mark[:2].tobytes()] = number, mark
        self._oldest += leaving

    def _recall(self, words: Int64, horizon: Int64) -> None:
        """Bring back the marks of ids that memory does not know and the window may reach."""
        rows = np.empty(len(words), np.int64)
        rows = rows[: unknown(self._ring, words, horizon, self._spilled, rows)]
        if not rows.size:
            return
        wanted = list(dict.fromkeys(words[row, :2].tobytes() for row in rows.tolist()))
        found = [self._unwritten[key][1] for key in wanted if key in self._unwritten]
        elsewhere = [key for key in wanted if key not in self._unwritten]
        found.extend(
            np.frombuffer(mark, np.int64)[_KEPT] for mark in self._on_disk(elsewhere) if mark is not None
        )
        if found:
            self._next = enter(self._ring, np.stack(found), self._next)


def _in_small_pages(marks: int) -> Int64:
    """Memory for a ring; numpy would ask for huge pages, which take milliseconds each to come."""
    memory = mmap.mmap(-1, marks * WIDTH * 8)
    if sys.platform == "linux":
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.int64).reshape(marks, WIDTH)


def _sizes(budget: int) -> tuple[int, int]:
    """How many marks, and slots of their index, make the most of so many bytes."""
    best = _FEWEST, 2 * _FEWEST
    slots = best[1]
    while 8 * slots < budget:
        marks = min((budget - 8 * slots) // (8 * WIDTH), slots * 7 // 10)
        best = max(best, (marks, slots))
        slots *= 2
    return best
