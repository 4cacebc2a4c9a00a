"""The machine's clock jumps by days, either way: no answer depends on it."""

import time
from pathlib import Path
from random import Random

import pytest

from streamer.batch import Outgoing
from streamer.state.log import Log
from streamer.testing import TopologyDriver
from tests.test_testing import TOPOLOGY, paid

DAY_S = 86_400


def answers() -> list[object]:
    """What a topology answers over commits, a restart and a crash."""
    found: list[object] = []
    with TopologyDriver(TOPOLOGY) as driver:
        for number in range(12):
            found += driver.decide_many([paid(10 * number + at, card=f"c{at % 3}") for at in range(6)])
            driver.advance("20s")
            match number % 4:
                case 1:
                    driver.commit()
                case 2:
                    driver.crash()
                case 3:
                    driver.restart()
    return found


def test_answers_do_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two looks at it the clock jumps by up to a hundred days, forwards or back."""
    wanted = answers()
    draws = Random(4)

    def jumping() -> float:
        return 1_767_225_600.0 + draws.uniform(-100.0, 100.0) * DAY_S

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    assert answers() == wanted


def test_a_log_keeps_its_order_whatever_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets follow the appends; timestamps say what the clock said."""
    hours = [5, -200, 0, 9_000, 1]
    with Log.open(tmp_path) as log:
        log.create_topic("t")
        for number, hour in enumerate(hours):
            moment = (1_000_000 + hour) * 3_600 * 10**9
            monkeypatch.setattr("streamer.state.log.time_ns", lambda moment=moment: moment)
            log.append(Outgoing("t", 0, [None], [b"%d" % number], [()]))
    with Log.open(tmp_path) as log:
        records = log.fetch("t", 0, 0)
    assert records.values == [b"%d" % number for number in range(len(hours))]
    assert records.timestamps == [(1_000_000 + hour) * 3_600_000 for hour in hours]
