"""Writing late and counting again: however little was written before a crash, no later answer changes."""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.features.aggregates import (
    count,
    decayed_total,
    distinct,
    entropy,
    first,
    last_values,
    lifetime_age,
    lifetime_count,
    maximum,
    min_gap,
    mode_share,
    quantile,
    session_count,
    skewness,
    std,
)
from streamer.features.declarations import Entity
from streamer.features.fields import amount, card, merchant
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event, Value
from tests.features.starting import started

ENTITIES = [
    Entity(
        "card",
        features=[
            count("10ms", "100ms"),
            std(amount, "50ms"),
            maximum(amount, "20ms"),
            distinct(merchant, "50ms"),
        ],
    ),
    Entity("merchant", features=[count("50ms"), distinct(card, "20ms", "100ms"), first(amount, "50ms")]),
    Entity("pair", keys=("card", "merchant"), features=[count("20ms", delay="10ms")]),
    Entity(
        "habit",
        keys=("card",),
        features=[
            lifetime_count(),
            lifetime_age(unit="ms", where=amount > 50, name="age"),
            decayed_total(amount, "5ms"),
            entropy(merchant, "50ms"),
            mode_share(amount, "20ms", delay="10ms"),
            quantile(amount, 0.5, "100ms"),
            session_count("10ms"),
            min_gap("50ms"),
            skewness(amount, "50ms"),
            last_values(amount, 2, "50ms"),
        ],
    ),
]


@dataclass
class Worker:
    """Decides batches, commits, and starts again after a crash, as the engine does."""

    budget: int
    batches: list[Batch]
    blocks: Blocks = field(default_factory=Blocks)
    replay_from: int = 0
    stored: int = 0
    number: int = 0
    entities: list[Entity] = field(default_factory=lambda: ENTITIES)

    def __post_init__(self) -> None:
        self.features = self.open()

    def open(self) -> Features:
        """What a start finds, with the batches counted again that are stored and were not written."""
        again = self.batches[self.replay_from : self.stored]
        limits = {"memory_budget": self.budget, "allowed_lateness": 200}
        return started(self.entities, self.blocks, again, self.stored, **limits)

    def crash(self) -> None:
        """Lose everything that is not stored."""
        self.number = self.stored
        self.features = self.open()

    def commit(self, before: int | None, most: int | None) -> None:
        """Store some rows, together with the batches decided and where to begin again."""
        self.features.catch_up(most)
        dirty = self.features.dirty
        rows = self.features.cut(before, most)
        if most is not None:
            assert dirty - self.features.dirty <= most
        after = self.features.oldest_after_cut
        assert self.features.oldest <= after
        self.blocks.write(rows)
        self.features.written()
        assert self.features.oldest == after
        self.replay_from, self.stored = after, self.number


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Payments of few keys: ties, late ones, absent keys, test payments."""
    now = 1_700_000_000_000
    events = []
    for _ in range(draw(st.integers(1, 120))):
        now += draw(st.sampled_from([0, 0, 1, 5, 40]))
        fields: dict[str, Value] = {
            "card": draw(st.sampled_from([None, "a", "a", "b", "c", "d", "e" * 60])),
            "merchant": draw(st.sampled_from([None, "m", "n", "o"])),
        }
        late = draw(st.sampled_from([0, 0, 0, 7, 90]))
        events.append(Event(now - late, draw(st.integers(0, 99)), draw(st.integers(0, 9)) > 0, fields))
    return events


Act = str | tuple[int | None, int | None]

acts: st.SearchStrategy[Act] = st.one_of(
    st.sampled_from(["", "crash", "lose", "all"]),
    st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.one_of(st.none(), st.integers(0, 6))),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=streams(),
    size=st.integers(1, 12),
    budget=st.sampled_from([0, 6_000, 1 << 20]),
    script=st.lists(acts, max_size=60),
)
def test_a_crash_changes_no_answer(events: list[Event], size: int, budget: int, script: list[Act]) -> None:
    """Any partial cuts, lost cuts and crashes: each answer is that of the uninterrupted run to the byte."""
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
            case "crash":
                worker.crash()
            case "lose":
                worker.features.cut(None, 2)
                worker.crash()
            case "all":
                worker.commit(None, None)
                assert worker.replay_from == worker.number
                assert worker.features.dirty_bytes == 0
            case (before, most):
                worker.commit(before if before is None else worker.number - before, most)


def test_a_key_waits_once_however_often_it_changes() -> None:
    """Oldest first, at most so many, and what changed before a batch: the rows of a cut."""
    worker = Worker(1 << 20, [], entities=ENTITIES[:1])
    for number, name in enumerate(["a", "b", "a", "c"]):
        worker.features.update(Batch([Event(number, fields={"card": name})]), None, number)
    assert (worker.features.dirty, worker.features.oldest) == (3, 0)
    assert worker.features.dirty_bytes == worker.features.memory
    keys = [
        [row[4:5] for row, _ in worker.features.cut(before, most)] for before, most in [(2, 1), (3, None)]
    ]
    assert keys == [[b"a"], [b"b"]]
    assert (worker.features.oldest, worker.features.oldest_after_cut) == (0, 3)
    worker.features.written()
    assert worker.features.oldest == 3
    worker.features.update(Batch([Event(9, fields={"card": "a"})]), None, 4)
    assert [row[4:5] for row, _ in worker.features.cut()] == [b"c", b"a"]
    assert worker.features.oldest_after_cut == 5
