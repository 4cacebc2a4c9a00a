"""What reached the outputs and was not committed: it is decided again after a crash, and not sent again."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Protocol, Self

from streamer.batch import Headers, Outgoing, Records
from streamer.journal import split_position
from streamer.state.store import Position

SOURCE = "streamer_source"


class Readable(Protocol):
    """Where outputs can be read back."""

    def tail(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Records]:
        """Read a topic's partitions from these offsets, others from their first, to their present ends."""


class Published:
    """The sources whose answers stand in the outputs beyond the last commit.

    Decisions are a function of input and journal, so what is decided again has the bytes that were sent.
    """

    def __init__(self) -> None:
        self._sources: dict[str, set[bytes]] = {}
        self._last: dict[Position, int] = {}

    @classmethod
    async def recall(
        cls,
        log: Readable,
        topics: Iterable[str],
        outputs: Mapping[Position, int],
        reached: Mapping[Position, int],
    ) -> Self:
        """Read the output `topics` from where the last commit saw them end, `outputs`, to their present ends.

        Kept are answers to records that lie beyond `reached`, the positions of the inputs in the store.
        """
        published = cls()
        for topic in topics:
            starts = {partition: offset for (name, partition), offset in outputs.items() if name == topic}
            async for records in log.tail(topic, starts):
                published.note(records, reached)
        return published

    def __len__(self) -> int:
        """Answers that wait to be given again."""
        return sum(map(len, self._sources.values()))

    def note(self, records: Records, reached: Mapping[Position, int]) -> None:
        """Take in records of an output."""
        for headers in records.headers:
            source = source_of(headers)
            place, offset = _split(source)
            if source is not None and offset >= reached.get(place, 0):
                self._sources.setdefault(records.topic, set()).add(source)
                self._last[place] = max(offset, self._last.get(place, 0))

    def unsent(self, outgoing: Outgoing) -> Outgoing:
        """The records of `outgoing` that are not in its topic yet; each is recognised once."""
        there = self._sources.get(outgoing.topic)
        if not there:
            return outgoing
        rest = Outgoing(outgoing.topic, outgoing.partition)
        for key, value, headers in zip(outgoing.keys, outgoing.values, outgoing.headers, strict=True):
            source = source_of(headers)
            if source in there:
                there.discard(source)
            else:
                rest.append(key, value, headers)
        return rest

    def is_ahead(self, topic: str, positions: Mapping[Position, int]) -> bool:
        """Whether a record of `topic` at or beyond `positions` was answered before.

        Until it is answered again nothing else may be taken in: what was published was decided without it.
        """
        for place in [place for place, last in self._last.items() if positions.get(place, 0) > last]:
            del self._last[place]
        return any(name == topic for name, _ in self._last)


def source_of(headers: Headers) -> bytes | None:
    """The record that an answer with these headers is for, as topic/partition/offset."""
    return next((value for name, value in headers if name == SOURCE), None)


def _split(source: bytes | None) -> tuple[Position, int]:
    """Topic, partition and offset of a source; an offset of -1 for what is none."""
    name, _, offset = (source or b"").decode("utf-8", "replace").rpartition("/")
    try:
        return split_position(name), int(offset)
    except ValueError:
        return ("", 0), -1
