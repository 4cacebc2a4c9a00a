"""What all tests share: the marker `kafka` and a broker's address."""

import os
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and kernels compile in the first example: an example's time says nothing about the code.
settings.register_profile("streamer", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("streamer")

BROKER = os.environ.get("KAFKA_BROKER", "")


def pytest_configure(config: pytest.Config) -> None:
    """Let kafka-python 3.0 be imported, which reads its files with a deprecated function."""
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `kafka` where no broker is named; keep those together that share long runs."""
    for item in items:
        if "end_to_end" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("end_to_end"))
    if BROKER:
        return
    skip = pytest.mark.skip(reason="set KAFKA_BROKER=localhost:9092 (see scripts/kafka) to run this test")
    for item in items:
        if item.get_closest_marker("kafka"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def broker() -> str:
    """Address of the broker, host:port."""
    return BROKER


@pytest.fixture
def topic_prefix() -> str:
    """Start of names of topics and groups that no other test uses."""
    return f"test-{uuid4().hex[:12]}-"
