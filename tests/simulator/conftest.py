"""One simulated stream that several tests look at."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from streamer.simulator import Scenario, Simulator
from streamer.simulator.rows import SCENARIOS


@dataclass(frozen=True, slots=True)
class Stream:
    """Everything of one run, decoded; the truth by payment_id."""

    payments: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    truth: dict[str, str]


@pytest.fixture(scope="session")
def stream() -> Stream:
    """Simulate 120,000 payments over 75 days."""
    payments: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    truth: dict[str, str] = {}
    simulator = Simulator(Scenario.for_payments(120_000, seed=3))
    for chunk in simulator.chunks(120_000):
        payments += map(msgspec.json.decode, chunk.payments.values)
        outcomes += map(msgspec.json.decode, chunk.outcomes.values)
        for key, scenario in zip(chunk.payments.keys, chunk.payments.scenario, strict=True):
            truth[key.decode()] = SCENARIOS[scenario]
    return Stream(payments, outcomes, truth)
