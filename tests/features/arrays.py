"""Long streams as whole arrays, sent through the features a batch at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.batch import Bool, Float64, Int64, Text
from streamer.features.declarations import Entity
from streamer.features.table import Features
from tests.features.oracle import Blocks

DIGITS = 6


@dataclass(frozen=True)
class Stream:
    """Payments in order of arrival; texts are numbers from 0 that name them, -1 where one is absent."""

    event_time: Int64
    amount: Int64
    live: Bool
    texts: Mapping[str, Int64] = field(default_factory=dict)

    def text(self, name: str) -> Text:
        """A column of text: `merchant` 7 is written `merchant000007`."""
        numbers = self.texts[name]
        here = numbers[numbers >= 0]
        data = np.empty((len(here), len(name) + DIGITS), np.uint8)
        data[:, : len(name)] = np.frombuffer(name.encode(), np.uint8)
        data[:, len(name) :] = here[:, np.newaxis] // 10 ** np.arange(DIGITS)[::-1] % 10 + ord("0")
        ends = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.where(numbers >= 0, data.shape[1], 0), out=ends[1:])
        return Text(data.ravel(), ends)

    def number(self, name: str) -> Float64:
        """No numbers but the amount."""
        raise KeyError(name)

    def __len__(self) -> int:
        return len(self.event_time)

    def batches(self, size: int) -> Iterator["Stream"]:
        """The same, in parts."""
        for at in range(0, len(self), size):
            part = slice(at, at + size)
            texts = {name: numbers[part] for name, numbers in self.texts.items()}
            yield Stream(self.event_time[part], self.amount[part], self.live[part], texts)


def answers(
    stream: Stream, entities: list[Entity], *, size: int, allowed_lateness: int, memory_budget: int
) -> npt.NDArray[np.float64]:
    """The features of all payments (n, F); keys are written now and then, so that they can leave memory."""
    blocks = Blocks()
    features = Features(
        entities,
        memory_budget=memory_budget,
        allowed_lateness=allowed_lateness,
        blocks=blocks,
        spilled=False,
    )
    got = np.empty((len(stream), len(features.names)))
    for number, batch in enumerate(stream.batches(size)):
        features.update(batch, got[number * size : number * size + len(batch)], number)
        if number % 64 == 63:
            blocks.write(features.cut())
            features.written()
    return got
