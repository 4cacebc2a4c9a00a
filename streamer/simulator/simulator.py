"""The stream of payments and outcomes in the order in which they arrive, in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streamer.errors import ConfigError
from streamer.simulator.draws import stream
from streamer.simulator.encoded import Encoded
from streamer.simulator.everyday import World, everyday
from streamer.simulator.fraud import attacks
from streamer.simulator.outcome_json import OutcomeWriter
from streamer.simulator.outcomes import outcomes
from streamer.simulator.payment_json import PaymentWriter
from streamer.simulator.people import People
from streamer.simulator.rows import DAY, OUTCOME, PAYMENT, Generator, Rows, fill
from streamer.simulator.scenario import Scenario
from streamer.simulator.shops import Shops

_SLICE_PAYMENTS = 4096
_LONGEST_SLICE = 3 * DAY


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records: what arrives after the previous chunk's `until` (ms), up to its own, included.

    Records are in order of arrival, which for all but the `late` ones is their event time. An outcome never
    comes in an earlier chunk than its payment.
    """

    until: int
    payments: Encoded
    outcomes: Encoded


class Simulator:
    """A seeded world whose first N payments are the same however many are asked for.

    >>> simulator = Simulator(Scenario.for_payments(1_000))
    >>> sum(len(chunk.payments) for chunk in simulator.chunks(1_000))
    1000
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._world = World(scenario, People(scenario), Shops(scenario))
        self._payments = PaymentWriter(self._world)
        self._outcomes = OutcomeWriter(self._world)

    def chunks(self, payments: int, size: int = 2048) -> Iterator[Chunk]:
        """Yield payments and the outcomes known by then, then the remaining outcomes by themselves.

        A chunk has at most `size` payments (more only if they arrive in the same millisecond); the size does
        not change the stream. Each call starts from the beginning. Memory follows payments per day, not
        their number.
        """
        if payments < 0 or size < 1:
            raise ConfigError(f"Expected payments >= 0 and size >= 1, got {payments} and {size}")
        first, until = 0, self.scenario.start
        waiting = fill(OUTCOME, 0)
        for rows, known, end in self._slices(payments):
            waiting = np.concatenate((waiting, known))
            ready = waiting["arrival"] <= end
            due, waiting = _sorted(waiting[ready]), waiting[~ready]
            for part, until in _cuts(rows, size, end):
                now = int(np.searchsorted(due["arrival"], until, side="right"))
                yield Chunk(until, self._payments.write(part, first), self._outcomes.write(due[:now]))
                due, first = due[now:], first + len(part)
        waiting = _sorted(waiting)
        nothing = fill(PAYMENT, 0)
        for begin in range(0, len(waiting), size):
            part = waiting[begin : begin + size]
            until = int(part["arrival"][-1])
            yield Chunk(until, self._payments.write(nothing, first), self._outcomes.write(part))

    def _slices(self, payments: int) -> Iterator[tuple[Rows, Rows, int]]:
        """Yield slices of time: payments by arrival, what will become of them, and the slice's last ms."""
        scenario = self.scenario
        length = min(max(int(_SLICE_PAYMENTS / scenario.payments_per_day * DAY), 1000), _LONGEST_SLICE)
        waiting = fill(PAYMENT, 0)
        number, done = 0, 0
        while done < payments:
            begin = scenario.start + number * length
            end = begin + length
            rng = stream(scenario.seed, "slice", number)
            built = np.concatenate(
                (everyday(self._world, rng, begin, end), *attacks(self._world, begin, end))
            )
            waiting = np.concatenate((waiting, _in_turn(scenario, rng, built)))
            ready = waiting["arrival"] < end
            rows, waiting = _sorted(waiting[ready]), waiting[~ready]
            known = outcomes(self._world, stream(scenario.seed, "outcomes", number), rows, done)
            last = end - 1
            if len(rows) > payments - done:
                rows = rows[: payments - done]
                known = known[known["number"] < payments]
                last = int(rows["arrival"][-1])
            yield rows, known, last
            done += len(rows)
            number += 1


def _sorted(rows: Rows) -> Rows:
    """Sort by arrival; equal ones keep their order."""
    return rows[np.argsort(rows["arrival"], kind="stable")]


def _in_turn(scenario: Scenario, rng: Generator, payments: Rows) -> Rows:
    """Let a share of the payments arrive seconds after their turn."""
    slow = rng.random(len(payments)) < scenario.late
    payments["arrival"] = payments["time"] + np.where(slow, rng.integers(1_000, 30_001, len(payments)), 0)
    return payments


def _cuts(rows: Rows, size: int, end: int) -> Iterator[tuple[Rows, int]]:
    """Cut sorted payments into parts that no two payments of one millisecond are torn between."""
    begin = 0
    while len(rows) - begin > size:
        until = int(rows["arrival"][begin + size - 1])
        stop = int(np.searchsorted(rows["arrival"], until, side="right"))
        yield rows[begin:stop], until
        begin = stop
    yield rows[begin:], end
