"""Where everything stands in the memory of a table: rows of events, headers of keys, the plan of an entity.

Memory is words of 64 bits. Many of them hold two 32-bit numbers (links between rows, counters), which a
second array shows: word `w` is numbers `2 * w` and `2 * w + 1`. The address of a row is its
first word; 0 is no row.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streamer.batch import Float64, Int64

Int32 = npt.NDArray[np.int32]

UInt64 = npt.NDArray[np.uint64]

UInt32 = npt.NDArray[np.uint32]
"""Places; numba would look at each signed one whether it counts from the end."""

MISSING: Final = -(2**63)
"""A number that an event does not have."""

EMPTY: Final = -(2**61)
"""The clock of a key without events."""

UNUSED: Final = 3
"""Stands in place of "recently used" where there is no key."""

PINNED: Final = 2
"""Stands in place of "recently used" in keys of the batch that is answered."""

LOADING: Final = 2**31 - 2
"""Stands in place of the last cut in keys whose stored events are being read."""

QUEUED: Final = 2**31 - 1
"""Stands in place of the last cut in keys that wait for the next."""

FOREVER: Final = 2**62
"""Later than any event; its negative is earlier than any."""

NOW: Final = -1
"""The right edge of a window that ends at the payment itself."""

LARGEST: Final = 10**12
"""The greatest magnitude of a number in its smallest unit; sums of 8 million of them are exact."""

CHUNK_ROWS: Final = 4
"""Rows that are allocated together, in order of arrival."""

BLOCK_CHUNKS: Final = 4
"""Chunks in one stored block."""

# A chunk: two words of numbers, the greatest event time in it, then its rows.
CHUNK_NEXT: Final = 0
CHUNK_SLOT: Final = 1
CHUNK_ORDINAL: Final = 2
CHUNK_FILL: Final = 3
CHUNK_LATEST: Final = 2
CHUNK_HEADER: Final = 3

# A row: its time, two words of numbers, then kept columns, lanes and the links of lists, as the plan says.
NEXT: Final = 2
PREVIOUS: Final = 3
BITS: Final = 4
SLOT: Final = 5
COLUMNS: Final = 3

# A header: its clock, six words of numbers, the first batch it lacks, then totals of lanes, edges, lists and
# counters, as planned.
CLOCK: Final = 0
FIRST_CHUNK: Final = 2
LAST_CHUNK: Final = 3
OLDEST: Final = 4
NEWEST: Final = 5
COUNT: Final = 6
MAPPED: Final = 7
CUT: Final = 8
RECENT: Final = 9
CHANGED_FROM: Final = 10
STORED_FROM: Final = 11
HEAD_CHUNK: Final = 12
BEGIN: Final = 13
AS_OF: Final = 7
TOTALS: Final = 8

# Counters of a table.
BUMP: Final = 0
FREE: Final = 1
CHUNKS: Final = 2
EPOCH: Final = 3
DIRTY: Final = 4
HAND: Final = 5
DIRTY_FROM: Final = 6
DIRTY_WORDS: Final = 7
BATCH: Final = 8
COUNTERS: Final = 9
COUNTER_TOP: Final = 10
COUNTER_FREE: Final = 11
COUNTER_BUCKETS: Final = 12
COUNTER_SPAN: Final = 13
HORIZON: Final = 14
META: Final = 15

# Per distinct column: number of buckets, the power of two at or above it, entries.
MAP_BUCKETS: Final = 0
MAP_SPAN: Final = 1
MAP_ENTRIES: Final = 2

# Kinds of lanes, lists, tallies and measures.
LANE_COUNT, LANE_SUM, LANE_HIGH, LANE_LOW, LANE_CUBE, LANE_DECAYED, LANE_DECAYED_COUNT = 0, 1, 2, 3, 4, 5, 6
KEEP_GREATEST, KEEP_LEAST, KEEP_ALL = 1, -1, 0
TALLY_VALUES, TALLY_RANKS = 0, 1
MEASURE_LANE, MEASURE_DISTINCT, MEASURE_EXTREME = 0, 1, 2
MEASURE_FIRST, MEASURE_LAST, MEASURE_SINCE_FIRST, MEASURE_SINCE_LAST, MEASURE_SINCE_LATEST = 3, 4, 5, 6, 7
MEASURE_NOVEL, MEASURE_OWN, MEASURE_LEAST_GAP = 8, 9, 10
MEASURE_SESSION_LANE, MEASURE_SESSION_AGE, MEASURE_LIFE, MEASURE_AGE = 11, 12, 13, 14
MEASURE_TALLY, MEASURE_MOST, MEASURE_SPREAD, MEASURE_MODE, MEASURE_IS_MODE, MEASURE_RANK = (
    15,
    16,
    17,
    18,
    19,
    20,
)
FIRST_TALLY_MEASURE: Final = MEASURE_TALLY

LIMBS: Final = 5
"""Lanes of a decayed sum: numbers of 32 bits, each in its place in a ring of 160 bits."""

COUNT_LIMBS: Final = 4
"""Lanes of a decayed count, in a ring of 128 bits."""

TALLY_WORDS: Final = 3
"""Words of a tally in the header: events, the count of the most frequent value, the sum for the entropy."""


LIFE_WORDS: Final = 2
"""Words of a lifetime counter in the header: events, and the least time of one."""


class Shape(NamedTuple):
    """Sizes and places of an entity, in words; `links` and `edge_links` count numbers."""

    row: int
    chunk: int
    header: int
    lanes: int
    edge_links: int
    retention: int


class Plan(NamedTuple):
    """What the kernels compute for an entity.

    `edges` are offsets in ms before the payment. Rows of the others:
    `lanes` (kind, column, mask, half-life in ms, part); `distincts` (column, mask, links in the row, marks in
    the header); `spans` (distinct, left edge, right edge, counter in the header); `lists` (kind, column,
    mask, right edge, links in the row, back in the header, first range, end of ranges); `ranges` (list, left
    edge, first row in the header); `gaps` (list of all, list of gaps, word of the row); `sessions` (list of
    all, gap in ms, start in the header, range); `lives` (mask, words of the header); `tallies`
    (kind, column, mask, left edge, right edge, words of the header); `measures` (kind, subject, left edge,
    right edge, 1 without the payment, parameter, column); `outputs` (kind, parameter, up to eight measures),
    of which `scales` is the smallest unit, as a divisor; `collected` (column, mask, left edge, right edge, 1
    without the payment) are windows whose events are handed over as they are.
    A mask is a bit of the event; -1 stands for no column, and as the right edge for the payment itself.
    """

    shape: Shape
    edges: Int64
    lanes: Int64
    distincts: Int64
    spans: Int64
    lists: Int64
    ranges: Int64
    gaps: Int64
    sessions: Int64
    lives: Int64
    tallies: Int64
    measures: Int64
    outputs: Int64
    scales: Float64
    collected: Int64


class State(NamedTuple):
    """The memory of a table; `links` shows `rows` and `numbers` shows `headers` as 32-bit numbers.

    `dirty` is a ring of the keys that changed since they were cut, first changed first, and `since` holds the
    numbers of the batches that changed them; `counters` (see tallies) and their `chains` count values;
    `meta` counts.
    """

    rows: Int64
    links: UInt32
    headers: Int64
    numbers: UInt32
    meta: Int64
    maps: Int64
    buckets: UInt32
    dirty: UInt32
    since: Int64
    counters: Int64
    chains: UInt32


CURSORS: Final = 64
"""Of one table; a key has that of its slot modulo so many."""

CURSOR_SLOT, CURSOR_CLOCK, CURSOR_AT, CURSOR_OWES = range(4)
NO_CURSOR: Final = (-1, 0, 0, 0)


class Work(NamedTuple):
    """What is known of one payment while it is answered, before it is counted itself.

    `old` and `edges` are the first rows after each edge before and after the clock moved on, `totals` and
    `own` the lanes up to the payment and its own part in them, `counts` the spans, `bests` the ranges' values
    (or first rows), `backs` the lists' last rows, `sessions` the sessions' first rows, `before` and `after`
    the nearest rows of the same value, `place` the rows on either side, `measures` exact integers, of which
    features are made, `wide` numbers of 256 bits. Of collected windows `caught` holds times and values one
    after the other, `ends` (payments * windows) where each ends.

    `cursors` say where late payments of some keys were last, see `late`: slot, time and last row of each,
    with edges and spans at that time, and what the lanes of all rows behind it still lack; `known` are the
    edges that a recall begins from.
    """

    old: Int64
    edges: Int64
    totals: Int64
    own: Int64
    counts: Int64
    bests: Int64
    backs: Int64
    sessions: Int64
    before: Int64
    after: Int64
    place: Int64
    measures: Int64
    wide: UInt64
    caught: Int64
    ends: Int64
    cursors: Int64
    cursor_edges: Int64
    cursor_counts: Int64
    cursor_owed: Int64
    known: Int64
