"""How long a partition gave no decision although payments waited for one."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decided:
    """A payment: of which partition, when it was sent, and when its decision was seen, Unix seconds."""

    partition: int
    sent: float
    seen: float


@dataclass(frozen=True)
class Silence:
    """From one decision of a partition, or the first payment that waits after it, to the next decision."""

    begin: float
    end: float


def silences(payments: Iterable[Decided]) -> list[Silence]:
    """The silences of all partitions; one that works off what has piled up decides, and is not silent.

    >>> silences([Decided(0, sent=1.0, seen=2.0), Decided(0, sent=1.5, seen=7.0), Decided(1, 3.0, 3.5)])
    [Silence(begin=1.0, end=2.0), Silence(begin=2.0, end=7.0), Silence(begin=3.0, end=3.5)]
    """
    partitions: dict[int, list[Decided]] = defaultdict(list)
    for payment in payments:
        partitions[payment.partition].append(payment)
    found: list[Silence] = []
    for _, decided in sorted(partitions.items()):
        decided.sort(key=lambda payment: payment.seen)
        waiting = [float("inf")]
        for payment in reversed(decided):
            waiting.append(min(waiting[-1], payment.sent))
        before = 0.0
        for payment, oldest in zip(decided, reversed(waiting[1:]), strict=True):
            if payment.seen > before:
                found.append(Silence(max(before, oldest), payment.seen))
            before = payment.seen
    return found


def longest(found: Sequence[Silence], begin: float, end: float) -> float:
    """The longest silence that has its middle between `begin` and `end`: decisions are never without gaps."""
    lengths = (each.end - each.begin for each in found if begin <= (each.begin + each.end) / 2 < end)
    return round(max(lengths, default=0.0), 2)
