"""Faults armed for a test: where they strike, how often, and what is refused."""

import signal
import subprocess
import sys

import pytest

from streamer import faults
from streamer.errors import ConfigError, StreamerError


@pytest.fixture(autouse=True)
def disarmed() -> None:
    """No test leaves a fault behind."""
    faults.arm("")


def test_a_fault_strikes_at_the_nth_visit_and_once() -> None:
    """The two before and all after pass."""
    faults.arm("commit.cut:3:fail")
    faults.reach("commit.cut")
    faults.reach("commit.written")
    faults.reach("commit.cut")
    with pytest.raises(StreamerError, match=r"commit\.cut"):
        faults.reach("commit.cut")
    faults.reach("commit.cut")
    faults.arm("")


def test_any_point_counts_for_a_star() -> None:
    """`*:2` strikes at the second point passed, whichever it is."""
    faults.arm("*:2:fail")
    faults.reach("commit.cut")
    with pytest.raises(StreamerError, match=r"commit\.group"):
        faults.reach("commit.group")


@pytest.mark.parametrize("plan", ["commit.cut", "commit.cut:2", "*:1:kill", "commit.cut:2:kill,start.opened"])
def test_a_kill_is_a_sigkill(plan: str) -> None:
    """The process is gone without a word, at its own hand."""
    program = f"from streamer import faults as f; f.arm({plan!r}); [f.reach('commit.cut') for _ in '12']"
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)  # noqa: S603 - our own
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("plan", ["commit.nothing", "commit.cut:x", "commit.cut:1:explode", ":", "*:kill:1"])
def test_what_is_no_fault_is_refused(plan: str) -> None:
    """The line says what was expected and names the points."""
    with pytest.raises(ConfigError, match=r"Expected faults as point.*commit\.written"):
        faults.arm(plan)
