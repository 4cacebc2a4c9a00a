"""Sweeping at any moment changes no feature, and takes what no payment to come can see."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.features.aggregates import count, distinct, lifetime_count, std
from streamer.features.declarations import Entity
from streamer.features.fields import amount, merchant
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks, Event

LATENESS = 50
ENTITIES = [
    Entity("card", features=[count("20ms", "100ms"), std(amount, "50ms"), distinct(merchant, "50ms")]),
    Entity("merchant", features=[count("30ms"), lifetime_count()]),
]


def new(blocks: Blocks, budget: int) -> Features:
    """Features on what is stored."""
    return Features(ENTITIES, memory_budget=budget, allowed_lateness=LATENESS, blocks=blocks)


def sweep(features: Features, blocks: Blocks, clock: int) -> list[bytes]:
    """The rows that go, of all that are stored."""
    rows = []
    for room, (prefix, _) in enumerate(features.rooms):
        found = sorted((key, value) for key, value in blocks.rows.items() if key.startswith(prefix))
        rows += features.sweep(room, found, clock)
    return rows


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Payments of few keys with long silences, late by at most the lateness."""
    now, events = 1_700_000_000_000, []
    for _ in range(draw(st.integers(1, 100))):
        now += draw(st.sampled_from([0, 1, 5, 40, 200]))
        fields = {"card": draw(st.sampled_from("abcdef")), "merchant": draw(st.sampled_from("mno"))}
        events.append(
            Event(now - draw(st.sampled_from([0, 0, 0, 7, 50])), draw(st.integers(0, 99)), fields=fields)
        )
    return events


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=streams(),
    size=st.integers(1, 7),
    budget=st.sampled_from([0, 6_000, 1 << 20]),
    acts=st.lists(st.sampled_from(["cut", "sweep", "sweep between", "restart"]), min_size=100, max_size=100),
)
def test_no_feature_changes(events: list[Event], size: int, budget: int, acts: list[str]) -> None:
    """Swept before, after and while rows are written, each answer is that of the unswept run to the byte."""
    whole, blocks = new(Blocks(), 1 << 20), Blocks()
    swept = new(blocks, budget)
    clock = 0
    rows: list[tuple[bytes, bytes | None]] = []
    for at, act in zip(range(0, len(events), size), acts, strict=False):
        batch = Batch(events[at : at + size])
        assert whole.update(batch).tobytes() == swept.update(batch).tobytes()
        blocks.write(rows)
        if rows:
            swept.written()
        clock = max(clock, *(event.time for event in events[at : at + size]))
        rows = swept.cut()
        if act.startswith("sweep"):
            rows += [(key, None) for key in sweep(swept, blocks, clock)]
        if act != "sweep between":
            blocks.write(rows)
            swept.written()
            rows = []
        if act == "restart":
            swept = new(blocks, budget)


def test_only_dead_keys_without_lifetime_go() -> None:
    """Not one millisecond before no payment in time can see their newest event."""
    blocks = Blocks()
    features = new(blocks, 1 << 20)
    features.update(Batch([Event(1_000, fields={"card": "a", "merchant": "m"})]))
    assert sweep(features, blocks, 9_999) == []
    blocks.write(features.cut())
    assert sweep(features, blocks, 9_999) == []  # not known to be stored
    features.written()
    last = 1_000 + 100 + LATENESS
    assert sweep(features, blocks, last - 1) == []
    gone = sweep(features, blocks, last)
    assert [key[4:5] for key in gone] == [b"a"]
    assert features.keys == {"card": 0, "merchant": 1}
