"""What the figures count, how a histogram takes arrays, and that the page is valid."""

import threading
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from streamer.metrics import ACTIONS, LATENCY_S, BatchHistogram, Metrics


def samples(registry: Collector) -> dict[tuple[str, str], float]:
    """Return every sample of a histogram but its creation time."""
    return {
        (one.name, one.labels.get("le", "")): one.value
        for metric in registry.collect()
        for one in metric.samples
        if not one.name.endswith("_created")
    }


@given(arrays.arrays(np.float64, st.integers(0, 50), elements=st.sampled_from([0.0, 1.0, 1.5, 2.0, 9.0])))
def test_a_batch_counts_like_its_values_one_by_one(values: npt.NDArray[np.float64]) -> None:
    """Prometheus' own histogram, given each value, has the same samples, bounds included."""
    one_by_one, batched = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("seconds", "doc", buckets=(1.0, 2.0), registry=one_by_one)
    for value in values:
        reference.observe(value)
    histogram = BatchHistogram("seconds", "doc", (2.0, 1.0), batched)
    for part in np.array_split(values, 3):
        histogram.observe_many(part)
    assert samples(one_by_one) == samples(batched)


def test_a_clock_that_went_back_counts_as_no_time() -> None:
    """A negative latency lands in the first bucket and does not lower the sum."""
    metrics = Metrics()
    metrics.latencies(np.array([-5.0, 0.002]))
    assert metrics.value("streamer_decision_latency_seconds_bucket", le="0.001") == 1
    assert metrics.value("streamer_decision_latency_seconds_sum") == 0.002


def test_quantiles_are_linear_within_a_bucket() -> None:
    """By hand: four values in (1, 2], four in (2, 4], two beyond the last bound."""
    histogram = BatchHistogram("seconds", "doc", (1.0, 2.0, 4.0), CollectorRegistry())
    assert histogram.quantiles((0.5, 0.99)) == [0.0, 0.0]
    histogram.observe_many(np.array([1.5] * 4 + [3.0] * 4 + [50.0] * 2))
    assert histogram.quantiles((0.2, 0.4, 0.6, 0.8, 0.99)) == pytest.approx([1.5, 2.0, 3.0, 4.0, 4.0])


def test_latency_quantiles_are_milliseconds() -> None:
    """All latencies between 5 and 10 ms: the median is estimated halfway."""
    metrics = Metrics()
    metrics.latencies(np.full(100, 0.007))
    assert metrics.latency_quantiles((0.5,)) == [7.5]


def test_a_name_taken_twice_is_refused() -> None:
    """The registry knows the series of a batch histogram."""
    registry = CollectorRegistry()
    BatchHistogram("seconds", "doc", (1.0,), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        BatchHistogram("seconds", "doc", (1.0,), registry)


def test_everything_reported_can_be_read_back() -> None:
    """Each method moves its own series by what it was told."""
    metrics = Metrics()
    metrics.payments(1_000)
    metrics.rejections("payments", {"pan": 2, "future": 1})
    metrics.decisions({"allow": 990, "block": 7})
    metrics.lag("payments", 3, 42)
    metrics.batch(1_000)
    metrics.commit(rows=800, seconds=0.004)
    metrics.stage("decode", 0.5)
    metrics.entities_present({"card": 900, "ip": 0})
    metrics.missing_rates({"USD": 3, "JPY": 1})
    metrics.missing_rates({"USD": 2})
    metrics.outcomes({"chargeback": 4})
    metrics.learned("fraud", 4)
    metrics.model_version("fraud", 17)
    metrics.buffered(12_345)
    metrics.state_keys("card", 55)
    metrics.state_bytes(1 << 30)
    metrics.swept({"blocks": 3, "ids": 0})
    metrics.restore(2, rows=1_000, left=500, seconds_left=0.25)
    expected = {
        ("streamer_payments_total", ""): 1_000,
        ("streamer_commits_total", ""): 1,
        ("streamer_commit_rows_total", ""): 800,
        ("streamer_commit_seconds_count", ""): 1,
        ("streamer_batch_records_sum", ""): 1_000,
        ("streamer_buffer_bytes", ""): 12_345,
        ("streamer_state_bytes", ""): 1 << 30,
    }
    assert expected == {key: metrics.value(key[0]) for key in expected}
    assert metrics.value("streamer_rejections_total", topic="payments", code="pan") == 2
    assert metrics.value("streamer_decisions_total", action="block") == 7
    assert metrics.value("streamer_lag_records", topic="payments", partition="3") == 42
    assert metrics.value("streamer_stage_seconds_total", stage="decode") == 0.5
    assert metrics.value("streamer_entity_present_total", entity="card") == 900
    assert metrics.value("streamer_missing_rate_total", currency="USD") == 5
    assert metrics.value("streamer_missing_rate_total", currency="JPY") == 1
    assert metrics.value("streamer_outcomes_total", kind="chargeback") == 4
    assert metrics.value("streamer_learned_total", model="fraud") == 4
    assert metrics.value("streamer_model_version", model="fraud") == 17
    assert metrics.value("streamer_state_keys", entity="card") == 55
    assert metrics.value("streamer_swept_rows_total", room="blocks") == 3
    assert metrics.value("streamer_restore_rows", shard="2") == 1_000
    assert metrics.value("streamer_restore_left_rows", shard="2") == 500
    assert metrics.value("streamer_restore_left_seconds", shard="2") == 0.25


def test_a_partition_that_left_shows_no_lag() -> None:
    """A revoked partition's lag would alarm for ever; forgetting it twice does no harm."""
    metrics = Metrics()
    metrics.lag("payments", 0, 9)
    metrics.unassigned("payments", 0)
    metrics.unassigned("payments", 0)
    assert b"streamer_lag_records{" not in metrics.exposition()


def test_two_workers_share_nothing() -> None:
    """Each has its own registry."""
    first, second = Metrics(), Metrics()
    first.payments(5)
    assert second.value("streamer_payments_total") == 0


def test_the_page_is_valid_and_lean() -> None:
    """Prometheus' own parser reads it; actions show from the start, creation times never."""
    metrics = Metrics()
    metrics.latencies(np.array([0.003]))
    text = metrics.exposition().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {one.labels["action"] for one in families["streamer_decisions"].samples} == set(ACTIONS)
    counts = [
        one.value
        for one in families["streamer_decision_latency_seconds"].samples
        if one.name.endswith("_bucket")
    ]
    assert len(counts) == len(LATENCY_S) + 1
    assert all(low <= high for low, high in pairwise(counts))
    assert "process_resident_memory_bytes" in families
    assert "_created" not in text


def test_a_scrape_in_another_thread_never_sees_half_a_batch() -> None:
    """Count and sum agree at every moment: each value is 1, so the sum is the count."""
    metrics = Metrics()
    done = threading.Event()

    def work() -> None:
        ones = np.ones(1_000)
        for _ in range(500):
            metrics.latencies(ones)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        seen = {name: value for (name, le), value in samples(metrics.registry).items() if not le}
        name = "streamer_decision_latency_seconds"
        assert seen[f"{name}_count"] == seen[f"{name}_sum"]
    worker.join()
