"""What reached the outputs and was not committed: it is decided again after a crash, and not sent again."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol, Self

from streamer.batch import SOURCE, Headers, Outgoing, Records
from streamer.journal import split_position
from streamer.state.store import Position, Progress, positions_of


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
        self._decided: set[bytes] = set()
        self._ends: Mapping[Position, int] = {}

    @classmethod
    async def recall(
        cls,
        log: Readable,
        topics: Sequence[str],
        progress: Progress,
        ends: Mapping[Position, int],
        is_mine: Callable[[bytes | None], bool] = lambda _: True,
    ) -> Self:
        """Read the output `topics` from where the last commit, `progress`, saw them end to where they do now.

        Kept are answers to records that lie beyond its positions. The first topic is that of the decisions:
        those that `is_mine` accepts, by key, were made from records below `ends`, the present ends of what
        decisions are made from.
        """
        published = cls()
        published._ends = ends
        reached = positions_of(progress)
        for topic in topics:
            async for records in log.tail(topic, progress.outputs.get(topic, {})):
                published._note(records, reached, is_mine if topic == topics[0] else _nobody)
        return published

    def __len__(self) -> int:
        """Answers that wait to be given again."""
        return sum(map(len, self._sources.values()))

    @property
    def waits(self) -> int:
        """Decisions of its own among them."""
        return len(self._decided)

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
                self._decided.discard(source)
            else:
                rest.append(key, value, headers)
        return rest

    def is_ahead(self, positions: Mapping[Position, int]) -> bool:
        """Whether a decision was published that is not made again yet at these positions.

        Until then nothing but payments may be taken in: what was published was decided without it.
        """
        if self._decided and all(positions.get(place, 0) >= end for place, end in self._ends.items()):
            self._decided.clear()  # another topology, or other settings, decide otherwise now
        return bool(self._decided)

    def _note(
        self, records: Records, reached: Mapping[Position, int], is_mine: Callable[[bytes | None], bool]
    ) -> None:
        for key, headers in zip(records.keys, records.headers, strict=True):
            source = source_of(headers)
            place, offset = _split(source)
            if source is not None and offset >= reached.get(place, 0):
                self._sources.setdefault(records.topic, set()).add(source)
                if is_mine(key):
                    self._decided.add(source)


def _nobody(_: bytes | None) -> bool:
    return False


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
