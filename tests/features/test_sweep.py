"""Keys that no window can see leave store and memory, and no answer ever tells that they did."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.features.aggregates import count, distinct, first, lifetime_count, maximum, std
from streamer.features.declarations import Entity
from streamer.features.fields import amount, card, merchant
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event, Value
from tests.features.starting import started

LATENESS = 60

ENTITIES = [
    Entity("card", features=[count("10ms", "100ms"), std(amount, "50ms"), distinct(merchant, "50ms")]),
    Entity("merchant", features=[maximum(amount, "20ms"), distinct(card, "40ms"), first(amount, "30ms")]),
    Entity("pair", keys=("card", "merchant"), features=[count("20ms", delay="10ms")]),
]

Rows = list[tuple[bytes, bytes | None]]


@dataclass
class Worker:
    """Decides batches, cuts, writes the cuts later, and starts again after a crash, as the engine does."""

    budget: int
    batches: list[Batch]
    blocks: Blocks = field(default_factory=Blocks)
    replay_from: int = 0
    stored: int = 0
    number: int = 0
    pending: tuple[Rows, int, int] | None = None

    def __post_init__(self) -> None:
        self.features = self.open()

    def open(self) -> Features:
        """What a start finds, with the batches counted again that are stored and were not written."""
        again = self.batches[self.replay_from : self.stored]
        limits = {"memory_budget": self.budget, "allowed_lateness": LATENESS}
        return started(ENTITIES, self.blocks, again, self.stored, **limits)

    @property
    def clock(self) -> int:
        """The greatest time counted."""
        counted = [
            event.time for batch in self.batches[: self.number] for event in batch.events if event.live
        ]
        return max(counted, default=0)

    def crash(self) -> None:
        """Lose everything that is not stored."""
        self.number, self.pending = self.stored, None
        self.features = self.open()

    def sweep(self, begin: int, rows: int) -> list[bytes]:
        """Look at so many stored rows of each entity."""
        gone: list[bytes] = []
        for room, (prefix, _) in enumerate(self.features.rooms):
            mine = sorted(item for item in self.blocks.rows.items() if item[0].startswith(prefix))
            gone += self.features.sweep(room, mine[begin : begin + rows], self.clock)
        return gone

    def cut(self, begin: int, rows: int, before: int | None, most: int | None) -> None:
        """Begin a commit: what is swept, then some rows."""
        self.write()
        gone: Rows = [(key, None) for key in self.sweep(begin, rows)]
        self.features.catch_up(most)
        changed = self.features.cut(before if before is None else self.number - before, most)
        self.pending = [*gone, *changed], self.features.oldest_after_cut, self.number

    def write(self) -> None:
        """End it."""
        if self.pending is not None:
            rows, self.replay_from, self.stored = self.pending
            self.blocks.write(rows)
            self.features.written()
            self.pending = None


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Payments of few keys, some as late as may be, some many at once, with pauses longer than any window."""
    now = 1_700_000_000_000
    events = []
    for _ in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from([0, 0, 1, 40, 110, 150, 161]))
        fields: dict[str, Value] = {
            "card": draw(st.sampled_from(["a", "a", "a", "b", "d" * 60, None])),
            "merchant": draw(st.sampled_from(["m", "m", "n", None])),
        }
        late = draw(st.sampled_from([0, 0, 7, LATENESS]))
        live = draw(st.integers(0, 9)) > 0
        # Enough at once for more than one block, now and then.
        events += [Event(now - late, draw(st.integers(0, 99)), live, fields)] * draw(
            st.sampled_from([1, 1, 17])
        )
    return events


limits = st.one_of(st.none(), st.integers(0, 6))
acts: st.SearchStrategy[str | tuple[int, int, int | None, int | None]] = st.one_of(
    st.sampled_from(["", "write", "write", "crash"]),
    st.just((0, 99, None, None)),
    st.tuples(st.integers(0, 4), st.integers(1, 20), limits, limits),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=streams(),
    size=st.integers(1, 12),
    budget=st.sampled_from([0, 6_000, 1 << 20]),
    script=st.lists(acts, min_size=20, max_size=60),
)
def test_a_sweep_changes_no_answer(
    events: list[Event], size: int, budget: int, script: list[str | tuple[int, int, int | None, int | None]]
) -> None:
    """Whatever is swept whenever, between whatever commits and crashes: the bytes of a run without sweeps."""
    batches = [Batch(events[at : at + size]) for at in range(0, len(events), size)]
    whole = Worker(1 << 20, batches).features
    expected = [whole.update(batch, None, number) for number, batch in enumerate(batches)]
    worker = Worker(budget, batches)
    planned = iter(script)
    while worker.number < len(batches):
        got = worker.features.update(batches[worker.number], None, worker.number)
        assert got.tobytes() == expected[worker.number].tobytes()
        worker.number += 1
        match next(planned, ""):
            case "write":
                worker.write()
            case "crash":
                worker.crash()
            case (begin, rows, before, most):
                worker.cut(begin, rows, before, most)


def written(worker: Worker, everything: int = 1_000) -> None:
    """Cut and write all there is, and look at all rows."""
    worker.cut(0, everything, None, None)
    worker.write()


@given(events=streams(), budget=st.sampled_from([0, 1 << 20]))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_no_window_sees_is_gone(events: list[Event], budget: int) -> None:
    """The longest window and the lateness after the last payment nothing is left, and not before."""
    last = max(event.time for event in events)
    for after, left in ((100 + LATENESS - 1, True), (100 + LATENESS, False)):
        end = Event(last + after, fields={"card": None, "merchant": None})
        worker = Worker(budget, [Batch(events), Batch([end])])
        for number, batch in enumerate(worker.batches):
            worker.features.update(batch, None, number)
            worker.number += 1
            written(worker)
        written(worker)
        begin = worker.features.rooms[0][0]
        newest = [event for event in events if event.time == last and event.live and event.value("card")]
        if newest:
            assert left == any(key.startswith(begin) for key in worker.blocks.rows)
        if not left:
            assert worker.blocks.rows == {}


def test_a_key_that_waits_to_be_written_stays() -> None:
    """Its stored block is old; what it has in memory is not."""
    old, new = (Event(time, fields={"card": "a"}) for time in (1_000, 9_000))
    worker = Worker(1 << 20, [Batch([old]), Batch([new])])
    worker.features.update(worker.batches[0], None, 0)
    worker.number = 1
    written(worker)
    stored = dict(worker.blocks.rows)
    worker.features.update(worker.batches[1], None, 1)
    worker.number = 2
    assert worker.sweep(0, 10) == []
    assert stored == worker.blocks.rows


def test_a_key_with_many_blocks_goes_whole() -> None:
    """Its newest event may lie in an older block than the newest: then nothing of it goes."""
    late = [Event(1_000 - 20, fields={"card": "a"}) for _ in range(20)]
    events = [Event(1_000, fields={"card": "a"}) for _ in range(20)] + late
    worker = Worker(1 << 20, [Batch(events)])
    worker.features.update(worker.batches[0], None, 0)
    worker.number = 1
    written(worker)
    rows = sorted(worker.blocks.rows)
    assert len(rows) == 3
    stored = sorted(worker.blocks.rows.items())
    assert worker.features.sweep(0, stored, 1_000 - 20 + 100 + LATENESS) == []
    assert worker.features.sweep(0, stored, 1_000 + 100 + LATENESS) == rows
    assert worker.features.keys["card"] == 0


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("between", [True, False])
def test_a_key_that_comes_again_begins_anew(budget: int, between: bool) -> None:  # noqa: FBT001
    """Also when its rows are not deleted yet, and so late that memory would have kept its old events."""
    burst = [Event(1_000, fields={"card": "a"}) for _ in range(20)]
    other = Event(1_000 + 100 + LATENESS, fields={"card": "b"})
    late = Event(other.time - LATENESS, fields={"card": "a"})
    worker = Worker(budget, [Batch(burst), Batch([other]), Batch([late]), Batch([late])])
    whole = Worker(1 << 20, worker.batches).features

    def answer() -> None:
        batch, number = worker.batches[worker.number], worker.number
        expected = whole.update(batch, None, number)
        assert expected.tobytes() == worker.features.update(batch, None, number).tobytes()
        worker.number += 1

    answer()
    written(worker)
    answer()
    worker.cut(0, 99, None, None)
    assert worker.pending is not None
    assert len([key for key, value in worker.pending[0] if value is None]) == 2
    if not between:
        worker.write()
    answer()
    worker.write()
    worker.cut(0, 0, None, None)
    worker.write()
    assert worker.stored == 3
    worker.crash()
    answer()


@pytest.mark.parametrize("damage", ["flipped", "cut", "lost", "foreign"])
def test_damage_is_not_swept_away(damage: str) -> None:
    """A row that cannot be trusted to be old is left for whoever needs it to tell."""
    worker = Worker(0, [Batch([Event(1_000, fields={"card": "a"}) for _ in range(20)])])
    worker.features.update(worker.batches[0], None, 0)
    worker.number = 1
    written(worker)
    rows = worker.blocks.rows
    sealed = min(rows)
    match damage:
        case "flipped":
            rows[sealed] = rows[sealed][:-1] + bytes([rows[sealed][-1] ^ 1])
        case "cut":
            rows[sealed] = rows[sealed][:8]
        case "lost":
            del rows[sealed]
        case _:
            rows[sealed] = rows[sealed][:4] + b"\xff" + rows[sealed][5:]
    assert worker.features.sweep(0, sorted(rows.items()), 1 << 50) == []


def test_only_dead_keys_without_lifetime_go() -> None:
    """Not one millisecond before no payment in time can see their newest event."""
    blocks = Blocks()
    entities = [ENTITIES[0], Entity("merchant", features=[count("30ms"), lifetime_count()])]
    features = Features(entities, memory_budget=1 << 20, allowed_lateness=LATENESS, blocks=blocks)
    features.update(Batch([Event(1_000, fields={"card": "a", "merchant": "m"})]))
    rows = [(key, value) for key, value in features.cut() if value is not None]
    assert [begin for begin, _ in features.rooms] == [rows[0][0][:4]]
    assert features.sweep(0, rows[:1], 9_999) == []  # not known to be stored
    features.written()
    last = 1_000 + 100 + LATENESS
    assert features.sweep(0, rows[:1], last - 1) == []
    assert features.sweep(0, rows[:1], last) == [rows[0][0]]
    assert features.keys == {"card": 0, "merchant": 1}
