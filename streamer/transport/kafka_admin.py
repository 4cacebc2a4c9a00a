"""Asks a Kafka cluster about its topics and creates them."""

import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition, errors
from kafka.admin import OffsetSpec

from streamer.errors import ConfigError, StreamerError
from streamer.transport.seam import TopicSpec

_PROBE_TIMEOUT_S = 2.0
_START_TIMEOUT_MS = 4_000
_RETRY_FIRST_S = 0.05
_RETRY_MOST_S = 1.0
_REMEDY = "Start one with `scripts/kafka start`, or name another with --broker"

_NO_ID = "00000000-0000-0000-0000-000000000000"

Answer = TypeVar("Answer")


class KafkaAdmin:
    """`streamer.transport.seam.Admin` on kafka-python.

    Raises `ConfigError` where no broker answers. `security` has aiokafka's names, which kafka-python shares.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        replication_factor: int = -1,
        request_timeout_ms: int = 30_000,
        security: Mapping[str, object] | None = None,
    ) -> None:
        self._servers = ",".join(servers)
        self._replication_factor = replication_factor
        self._patience_s = request_timeout_ms / 1000
        _probe(servers)
        try:
            self._client = KafkaAdminClient(
                bootstrap_servers=list(servers),
                bootstrap_timeout_ms=_START_TIMEOUT_MS,
                request_timeout_ms=request_timeout_ms,
                **security or {},
            )
        except errors.KafkaError as error:
            raise ConfigError(
                f"{self._servers} takes connections but does not answer as a Kafka broker ({error!r}). "
                f"Check security_protocol, user and certificates in [kafka] of streamer.toml"
            ) from error

    def partitions(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Partitions of each topic that exists; absent ones are left out."""
        described = self._ask(lambda: self._client.describe_topics(list(topics)))
        return {topic["name"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}

    def missing(self, topics: Sequence[str]) -> Collection[str]:
        """Those of which a broker says that they do not exist; not, say, that they have no leader."""
        described = self._ask(lambda: self._client.describe_topics(list(topics)))
        unknown = errors.UnknownTopicOrPartitionError.errno
        return {topic["name"] for topic in described if topic["error_code"] == unknown}

    def identities(self, topics: Sequence[str]) -> Mapping[str, str]:
        """The topic ids, of brokers that have them (since 2.8)."""
        described = self._ask(lambda: self._client.describe_topics(list(topics)))
        found = {topic["name"]: str(topic.get("topic_id") or _NO_ID) for topic in described}
        return {name: identity for name, identity in found.items() if identity != _NO_ID}

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that do not exist yet, and wait until they can be used."""
        known = self.partitions([spec.name for spec in specs])
        missing = {
            spec.name: {
                "num_partitions": spec.partitions,
                "replication_factor": self._replication_factor,
                "configs": {**({"cleanup.policy": "compact"} if spec.compacted else {}), **spec.config},
            }
            for spec in specs
            if spec.name not in known
        }
        if not missing:
            return
        try:
            patiently(lambda: self._client.create_topics(missing, wait_for_metadata=True), self._patience_s)
        except errors.TopicAlreadyExistsError:
            # Another worker was faster with one of them; it may have left others.
            if len(missing) > 1:
                self.create(specs)
        except errors.KafkaError as error:
            raise ConfigError(
                f"topics {', '.join(missing)} could not be created on {self._servers}: {error!r}. "
                f"Check replication_factor in [kafka] of streamer.toml and the user's rights"
            ) from error

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        """The next offset of each partition."""
        return self._offsets(topic, OffsetSpec.LATEST)

    def begin_offsets(self, topic: str) -> Mapping[int, int]:
        """The first offset still there of each partition."""
        return self._offsets(topic, OffsetSpec.EARLIEST)

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """The group's committed offsets; partitions without one are left out."""
        wanted = {group: self._partitions_of(topic)}
        answer = self._ask(lambda: self._client.list_group_offsets(wanted))[group]
        return {tp.partition: found.offset for tp, found in answer.items() if found.offset >= 0}

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def _partitions_of(self, topic: str) -> list[Any]:
        return [TopicPartition(topic, number) for number in range(self.partitions([topic]).get(topic, 0))]

    def _offsets(self, topic: str, spec: Any) -> Mapping[int, int]:
        wanted = dict.fromkeys(self._partitions_of(topic), spec)
        answer = self._ask(lambda: self._client.list_partition_offsets(wanted))
        return {tp.partition: found.offset for tp, found in answer.items()}

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        try:
            return patiently(question, self._patience_s)
        except errors.KafkaError as error:
            raise StreamerError(f"the Kafka broker at {self._servers} did not answer: {error!r}") from error


def patiently(question: Callable[[], Answer], seconds: float) -> Answer:
    """Ask again for so long while the error says that it will pass; then raises the last one.

    A broker that has just started, or lost its leader, has no group coordinator for a moment.
    """
    deadline = time.monotonic() + seconds
    wait = _RETRY_FIRST_S
    while True:
        try:
            return question()
        except errors.KafkaError as error:
            if not error.retriable or time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
        wait = min(wait * 2, _RETRY_MOST_S)


def _probe(servers: Iterable[str]) -> None:
    """Find out within seconds, and in the system's words, why no broker can be reached."""
    refusals = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT_S):
                return
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            refusals.append(f"{server} ({reason.lower()})")
    raise ConfigError(f"no Kafka broker answers at {', '.join(refusals)}. {_REMEDY}")
