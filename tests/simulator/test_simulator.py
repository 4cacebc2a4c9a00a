"""The stream is seeded, ordered, of constant memory, and the same however it is cut."""

import tracemalloc

import pytest

from streamer.errors import ConfigError
from streamer.simulator import Chunk, Scenario, Simulator

WORLD = Scenario.for_payments(20_000, seed=4)


def chunks_of(scenario: Scenario, payments: int, size: int = 2048) -> list[Chunk]:
    """Simulate and keep everything."""
    return list(Simulator(scenario).chunks(payments, size))


def values_of(scenario: Scenario, payments: int, size: int = 2048) -> tuple[list[bytes], list[bytes]]:
    """Simulate and join the chunks."""
    chunks = chunks_of(scenario, payments, size)
    return (
        [value for chunk in chunks for value in chunk.payments.values],
        [value for chunk in chunks for value in chunk.outcomes.values],
    )


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Two simulators of one scenario agree, and one simulator may be read twice."""
    simulator = Simulator(WORLD)
    assert list(map(repr, simulator.chunks(3_000))) == list(map(repr, simulator.chunks(3_000)))
    assert values_of(WORLD, 3_000) == values_of(WORLD, 3_000)


def test_another_seed_gives_another_stream() -> None:
    """No payment of one seed is one of the other."""
    other = Scenario.for_payments(20_000, seed=5)
    assert not set(values_of(WORLD, 3_000)[0]) & set(values_of(other, 3_000)[0])


@pytest.mark.parametrize("size", [1, 100, 777, 10_000])
def test_the_size_of_chunks_does_not_change_the_stream(size: int) -> None:
    """The joined chunks are the same bytes whatever the size."""
    assert values_of(WORLD, 6_000) == values_of(WORLD, 6_000, size)


def test_the_first_payments_are_the_same_however_many_are_asked_for() -> None:
    """A short run is the beginning of a long one, and its outcomes are those of its payments."""
    short, long = values_of(WORLD, 5_000), values_of(WORLD, 9_000)
    assert short[0] == long[0][:5_000]
    assert set(short[1]) <= set(long[1])


def test_exactly_as_many_payments_come_as_are_asked_for() -> None:
    """Also none, and one."""
    assert [len(values_of(WORLD, number)[0]) for number in (0, 1, 4_321)] == [0, 1, 4_321]
    assert chunks_of(WORLD, 0) == []


def test_without_late_ones_everything_is_in_event_time_order_and_in_its_chunk() -> None:
    """Each chunk holds exactly what lies in (previous until, until]."""
    before = WORLD.start - 1
    scenario = Scenario(seed=4, customers=2_000, merchants=200, payments_per_day=500, late=0)
    for chunk in chunks_of(scenario, 10_000, 500):
        for part in (chunk.payments, chunk.outcomes):
            assert part.times == sorted(part.times)
            assert all(before < time <= chunk.until for time in part.times)
        before = chunk.until


def test_late_ones_are_a_hundredth_and_seconds_late() -> None:
    """Those behind the newest before them are less than 30 s behind."""
    scenario = Scenario(seed=4, customers=20_000, merchants=200, payments_per_day=2_000_000, late=0.01)
    newest, behind = 0, []
    for chunk in chunks_of(scenario, 30_000):
        for time in chunk.payments.times:
            behind += [newest - time] if time < newest else []
            newest = max(newest, time)
    # Binomial(30,000; 0.01) within four standard deviations; a few never fall behind anyone.
    assert 0.0077 < len(behind) / 30_000 < 0.0123
    assert max(behind) <= 30_000


def test_outcomes_never_come_before_their_payments() -> None:
    """Each outcome's payment is in the same chunk or an earlier one, and becomes known after it."""
    seen: dict[bytes, int] = {}
    for chunk in chunks_of(WORLD, 10_000, 100):
        seen |= dict(zip(chunk.payments.keys, chunk.payments.times, strict=True))
        for key, time in zip(chunk.outcomes.keys, chunk.outcomes.times, strict=True):
            assert seen[key] < time


def test_after_the_last_payment_only_outcomes_follow() -> None:
    """Once a chunk has no payments, none after it has."""
    empty = [len(chunk.payments) == 0 for chunk in chunks_of(WORLD, 5_000, 500)]
    assert empty == sorted(empty)
    assert empty[-1]


def test_memory_does_not_grow_with_the_number_of_payments() -> None:
    """At the same payments a day, 200,000 peak as 50,000 do."""
    scenario = Scenario(seed=6, payments_per_day=20_000, customers=5_000, merchants=500)

    def peak(payments: int) -> int:
        tracemalloc.start()
        for _ in Simulator(scenario).chunks(payments):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(200_000) < 1.25 * peak(50_000)


def test_a_wrong_scenario_is_refused() -> None:
    """The message names the setting."""
    with pytest.raises(ConfigError, match=r"Scenario\.late"):
        Scenario(late=2)
    with pytest.raises(ConfigError, match="customers"):
        Scenario(customers=0)
    with pytest.raises(ConfigError, match="at least one payment"):
        Scenario.for_payments(0)
