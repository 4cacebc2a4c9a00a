"""What counts as a pause of a partition: nothing is decided, and something waits."""

from .pauses import Decided, Silence, longest, silences


def test_a_partition_without_payments_is_not_silent() -> None:
    """A payment every ten seconds, decided at once: nobody waits between."""
    payments = [Decided(0, sent=at, seen=at + 0.5) for at in (0.0, 10.0, 20.0)]
    assert silences(payments) == [Silence(at, at + 0.5) for at in (0.0, 10.0, 20.0)]


def test_what_has_piled_up_is_no_pause_while_it_is_worked_off() -> None:
    """Ten payments wait from 0 on; after a pause of 5 s one is decided each second, the last after 14 s."""
    payments = [Decided(0, sent=0.0, seen=5.0 + number) for number in range(10)]
    assert [each.end - each.begin for each in silences(payments)] == [5.0] + [1.0] * 9


def test_a_partition_of_its_own_is_silent_though_others_decide() -> None:
    """Payments 0.1 s apart: partition 1 decides nothing for 6 s, partition 0 always."""
    busy = [Decided(0, sent=number / 10, seen=number / 10 + 0.05) for number in range(100)]
    quiet = [Decided(1, sent=number / 10, seen=max(number / 10, 8.0) + 0.05) for number in range(20, 100)]
    assert longest(silences(busy + quiet), 0.0, 10.0) == 6.05


def test_a_pause_belongs_to_what_happened_last_before_its_middle() -> None:
    """One from 2.9 to 7: an event at 3 has all of it, those at 1 and at 6 nothing."""
    assert [longest([Silence(2.9, 7.0)], *at) for at in ((1.0, 3.0), (3.0, 6.0), (6.0, 9.0))] == [0, 4.1, 0]


def test_what_is_seen_at_once_is_one_answer() -> None:
    """Five payments that were seen in one look, the oldest of which waited for 2 s."""
    payments = [Decided(0, sent=1.0 + number / 10, seen=3.0) for number in range(5)]
    assert silences(payments) == [Silence(1.0, 3.0)]
