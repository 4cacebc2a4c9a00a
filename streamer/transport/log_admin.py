"""Looks after the topics of the embedded log."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from streamer.state.log import Log
from streamer.transport.seam import TopicSpec


class LogAdmin:
    """`streamer.transport.seam.Admin` on the log in a directory; `StateError` if it cannot be opened."""

    def __init__(self, directory: Path) -> None:
        self._log = Log.open(directory)

    def partitions(self, topics: Sequence[str]) -> Mapping[str, int]:
        """Count the partitions of each topic that exists; absent ones are left out."""
        known = self._log.topics
        return {topic: known[topic].partitions for topic in topics if topic in known}

    def missing(self, topics: Sequence[str]) -> Collection[str]:
        """Those that do not exist."""
        return set(topics) - self._log.topics.keys()

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that do not exist yet."""
        for spec in specs:
            if spec.name not in self._log.topics:
                self._log.create_topic(spec.name, spec.partitions, compacted=spec.compacted)

    def end_offsets(self, topic: str) -> Mapping[int, int]:
        """Return the next offset of each partition."""
        return self._log.end_offsets(topic)

    def identities(self, topics: Sequence[str]) -> Mapping[str, str]:  # noqa: ARG002 - see `Admin`
        """Nothing: topics of an embedded log are not deleted."""
        return {}

    def committed(self, group: str, topic: str) -> Mapping[int, int]:
        """Return the group's committed offsets; partitions without one are left out."""
        return self._log.committed(group, topic)

    def close(self) -> None:
        """Close the log."""
        self._log.close()
