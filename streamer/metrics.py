"""The figures a worker keeps of itself, counted by batch and shown in Prometheus' text format."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

ACTIONS = ("allow", "challenge", "review", "block")
LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COMMIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
BATCH_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class BatchHistogram(Collector):
    """A histogram that takes whole arrays: two numpy calls a batch, whatever its length.

    Counts and sum are replaced together, so that a scrape in another thread never sees half a batch.
    """

    def __init__(self, name: str, doc: str, bounds: Iterable[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._doc = doc
        self._bounds = np.array(sorted(bounds), np.float64)
        self._labels = [*map(str, self._bounds.tolist()), "+Inf"]
        self._seen = np.zeros(len(self._labels), np.int64), 0.0
        registry.register(self)

    def observe_many(self, values: npt.NDArray[np.float64]) -> None:
        """Count values; shape (n,). A bound belongs to the bucket below it; below 0 counts as 0."""
        values = np.maximum(values, 0.0)
        buckets = np.searchsorted(self._bounds, values)
        counts, total = self._seen
        self._seen = counts + np.bincount(buckets, minlength=len(counts)), total + float(values.sum())

    def quantiles(self, levels: Sequence[float]) -> list[float]:
        """Estimate quantiles as Prometheus does: linear in a bucket, the last bound beyond it; 0 of none."""
        counts, _ = self._seen
        reached = np.concatenate(([0], np.cumsum(counts)))
        bounds = np.concatenate(([0.0], self._bounds, self._bounds[-1:]))
        ranks = np.array(levels) * reached[-1]
        upper = np.clip(np.searchsorted(reached, ranks), 1, len(counts))
        inside = (ranks - reached[upper - 1]) / np.maximum(counts[upper - 1], 1)
        values: list[float] = (bounds[upper - 1] + inside * (bounds[upper] - bounds[upper - 1])).tolist()
        return values

    def describe(self) -> Iterator[Metric]:
        """Name the series without counting, for the registry's check for duplicates."""
        yield HistogramMetricFamily(self._name, self._doc)

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram as it stands."""
        counts, total = self._seen
        buckets = list(zip(self._labels, np.cumsum(counts).tolist(), strict=True))
        yield HistogramMetricFamily(self._name, self._doc, buckets=buckets, sum_value=total)


class _Registry(CollectorRegistry):
    """A registry that leaves out the `_created` series, which nobody reads and which doubles the page."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric


class Metrics:
    """Counts of one worker, in a registry of its own; every method is for once per batch."""

    def __init__(self) -> None:
        self.registry = registry = _Registry()
        self._payments = Counter("streamer_payments_total", "Payment records taken in.", registry=registry)
        self._rejections = Counter(
            "streamer_rejections_total",
            "Records answered by a rejection.",
            ["topic", "code"],
            registry=registry,
        )
        self._decisions = Counter(
            "streamer_decisions_total", "Decisions made.", ["action"], registry=registry
        )
        self._latency = BatchHistogram(
            "streamer_decision_latency_seconds",
            "From the payment's record timestamp to its decision's confirmed delivery.",
            LATENCY_S,
            registry,
        )
        self._lag = Gauge(
            "streamer_lag_records", "Records not yet processed.", ["topic", "partition"], registry=registry
        )
        self._batch = Histogram(
            "streamer_batch_records", "Records per batch.", buckets=BATCH_RECORDS, registry=registry
        )
        self._commits = Counter("streamer_commits_total", "Commits of state and position.", registry=registry)
        self._commit_seconds = Histogram(
            "streamer_commit_seconds", "Time a commit took.", buckets=COMMIT_S, registry=registry
        )
        self._commit_rows = Counter("streamer_commit_rows_total", "Rows written.", registry=registry)
        self._stages = Counter(
            "streamer_stage_seconds_total", "Processor time by stage.", ["stage"], registry=registry
        )
        self._present = Counter(
            "streamer_entity_present_total", "Payments that carry the entity.", ["entity"], registry=registry
        )
        self._unrated = Counter(
            "streamer_missing_rate_total",
            "Payments decided without their amount: no rate of their currency.",
            ["currency"],
            registry=registry,
        )
        self._outcomes = Counter("streamer_outcomes_total", "Outcomes taken in.", ["kind"], registry=registry)
        self._learned = Counter(
            "streamer_learned_total", "Labelled payments learned from.", ["model"], registry=registry
        )
        self._version = Gauge(
            "streamer_model_version", "Version a model scores with.", ["model"], registry=registry
        )
        self._buffered = Gauge("streamer_buffer_bytes", "Bytes fetched and not processed.", registry=registry)
        self._swept = Counter(
            "streamer_swept_rows_total",
            "Stored rows deleted that nothing can ask for.",
            ["room"],
            registry=registry,
        )
        self._state_bytes = Gauge("streamer_state_bytes", "Bytes of state on disk.", registry=registry)
        self._restored = Gauge(
            "streamer_restore_rows",
            "Rows read from the changelog since the start.",
            ["shard"],
            registry=registry,
        )
        self._restore_left = Gauge(
            "streamer_restore_left_rows",
            "Rows of the changelog still to be read.",
            ["shard"],
            registry=registry,
        )
        self._restore_seconds = Gauge(
            "streamer_restore_left_seconds", "Time until they are read.", ["shard"], registry=registry
        )
        self._keys = Gauge("streamer_state_keys", "Keys in memory.", ["entity"], registry=registry)
        ProcessCollector(registry=registry)
        for action in ACTIONS:  # a series that exists from the start can be alerted on
            self._decisions.labels(action)

    def payments(self, count: int) -> None:
        """Count payment records taken in, good and bad."""
        self._payments.inc(count)

    def rejections(self, topic: str, counts: Mapping[str, int]) -> None:
        """Count rejections of one topic by code."""
        for code, count in counts.items():
            self._rejections.labels(topic, code).inc(count)

    def decisions(self, counts: Mapping[str, int]) -> None:
        """Count decisions by action."""
        for action, count in counts.items():
            self._decisions.labels(action).inc(count)

    def latencies(self, seconds: npt.NDArray[np.float64]) -> None:
        """Record the decisions' latencies; shape (n,), seconds."""
        self._latency.observe_many(seconds)

    def latency_quantiles(self, levels: Sequence[float]) -> list[float]:
        """Estimate quantiles of the latencies so far, in milliseconds, as fine as the buckets are."""
        return [round(1_000 * value, 3) for value in self._latency.quantiles(levels)]

    def lag(self, topic: str, partition: int, records: int) -> None:
        """Set how many records of a partition are still to come."""
        self._lag.labels(topic, str(partition)).set(records)

    def unassigned(self, topic: str, partition: int) -> None:
        """Forget a partition that another worker has now."""
        self._lag.remove_by_labels({"topic": topic, "partition": str(partition)})

    def batch(self, records: int) -> None:
        """Record the size of a batch."""
        self._batch.observe(records)

    def commit(self, rows: int, seconds: float) -> None:
        """Count a commit, its rows and its time."""
        self._commits.inc()
        self._commit_rows.inc(rows)
        self._commit_seconds.observe(seconds)

    def stage(self, stage: str, seconds: float) -> None:
        """Add processor time to a stage."""
        self._stages.labels(stage).inc(seconds)

    def entities_present(self, counts: Mapping[str, int]) -> None:
        """Count the payments that carry each entity; name those with 0 as well, so that they show."""
        for entity, count in counts.items():
            self._present.labels(entity).inc(count)

    def missing_rates(self, counts: Mapping[str, int]) -> None:
        """Count payments whose amount has no rate, by currency."""
        for currency, count in counts.items():
            self._unrated.labels(currency).inc(count)

    def outcomes(self, counts: Mapping[str, int]) -> None:
        """Count outcomes by kind."""
        for kind, count in counts.items():
            self._outcomes.labels(kind).inc(count)

    def learned(self, model: str, count: int) -> None:
        """Count the labelled payments that a model learned from."""
        self._learned.labels(model).inc(count)

    def model_version(self, model: str, version: int) -> None:
        """Set the version that scores."""
        self._version.labels(model).set(version)

    def buffered(self, nbytes: int) -> None:
        """Set the bytes fetched and not yet processed."""
        self._buffered.set(nbytes)

    def state_keys(self, entity: str, keys: int) -> None:
        """Set the number of an entity's keys in memory."""
        self._keys.labels(entity).set(keys)

    def swept(self, counts: Mapping[str, int]) -> None:
        """Count rows deleted because nothing to come can ask for them, by room of the store."""
        for room, count in counts.items():
            self._swept.labels(room).inc(count)

    def state_bytes(self, nbytes: int) -> None:
        """Set the bytes of state on disk."""
        self._state_bytes.set(nbytes)

    def restore(self, shard: int, rows: int, left: int, seconds_left: float) -> None:
        """Set how far a shard's restore is: rows read, rows to be read at most, and the time they take."""
        self._restored.labels(str(shard)).set(rows)
        self._restore_left.labels(str(shard)).set(left)
        self._restore_seconds.labels(str(shard)).set(seconds_left)

    def value(self, series: str, **labels: str) -> float:
        """One series' value, 0 where nothing was counted yet; for summaries and tests."""
        return self.registry.get_sample_value(series, labels) or 0.0

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format, of type CONTENT_TYPE."""
        return generate_latest(self.registry)
