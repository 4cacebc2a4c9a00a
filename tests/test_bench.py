"""The benchmark with several workers: all payments are counted once, and the figures say what was run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.kafka
def test_two_workers_answer_all_payments_of_two_partitions(broker: str) -> None:
    """Of 3,000 payments a tenth warms up and the rest is counted; the worker's settings reach its JSON."""
    arguments = [
        "--broker",
        f"kafka://{broker}",
        "--payments",
        "3000",
        "--seconds",
        "0",
        "--changelog",
        "off",
    ]
    ended = subprocess.run(  # noqa: S603 - our own command
        [
            sys.executable,
            "-m",
            "streamer",
            "bench",
            "payments",
            *arguments,
            "--partitions",
            "2",
            "--workers",
            "2",
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["counted"] == 2_700
    assert found["payments_per_second"] > 0
    assert found["cores"] == [number % (os.cpu_count() or 1) for number in range(2)]
    assert (found["partitions"], found["workers"], found["changelog"]) == (2, 2, "off")
