"""A broker in memory behind a publisher whose deliveries come through, wait or fail as a test says."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from streamer.batch import Headers, Outgoing
from streamer.errors import StreamerError
from streamer.transport.seam import Delivered

Stored = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers of a record in a topic."""


class Delivery:
    """A batch on its way. What becomes of it is said once, by one of the methods; until then it is open."""

    def __init__(self, outgoing: Outgoing, topics: dict[tuple[str, int], list[Stored]]) -> None:
        self.outgoing = outgoing
        self.place = outgoing.topic, outgoing.partition or 0
        self.acknowledged: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        self._records = topics[self.place]

    @property
    def open(self) -> bool:
        """Whether nothing has become of it yet."""
        return not self.acknowledged.done()

    def confirm(self) -> None:
        """The records are in their topic, and the sender is told."""
        self._close(1)

    def repeat(self) -> None:
        """The records are in their topic twice, as a retry without idempotence leaves them."""
        self._close(2)

    def refuse(self, error: Exception | None = None) -> None:
        """The broker takes nothing of it, and the sender is told."""
        self._close(0, error or ConnectionError("refused"))

    def lose(self, error: Exception | None = None) -> None:
        """The records are in their topic, but the acknowledgement is lost: the sender's patience ends."""
        self._close(1, error or TimeoutError("no acknowledgement"))

    def _close(self, times: int, error: Exception | None = None) -> None:
        if not self.open:
            return
        rows = self.outgoing
        for _ in range(times):
            self._records.extend(zip(rows.keys, rows.values, rows.headers, strict=True))
        if error is None:
            self.acknowledged.set_result({self.place: len(self._records)})
        else:
            self.acknowledged.set_exception(error)


Behaviour = Callable[[Delivery], None]
"""What becomes of a delivery as soon as it is sent."""


class FakePublisher:
    """A `streamer.transport.seam.Publisher` into memory.

    `behaviour` decides at once what becomes of each batch; with `hold` it stays in `deliveries`, open, until
    the test says. `room` open deliveries fill the buffer: a further send waits until one is closed. A record
    of more than `max_record_bytes` (key and value) is refused, and with it its batch. While `unreachable` is
    an error every send raises it. A topic has one partition unless the sender names others.

    >>> async def answer():
    ...     publisher = FakePublisher()
    ...     return await (await publisher.send(Outgoing("decisions", 0, [b"p1"], [b"{}"], [()])))
    >>> asyncio.run(answer())
    {('decisions', 0): 1}
    """

    def __init__(
        self,
        behaviour: Behaviour = Delivery.confirm,
        *,
        room: int | None = None,
        max_record_bytes: int = 1_000_000,
    ) -> None:
        self.behaviour = behaviour
        self.deliveries: list[Delivery] = []
        self.topics: dict[tuple[str, int], list[Stored]] = defaultdict(list)
        self.unreachable: Exception | None = None
        self._room = room
        self._max_bytes = max_record_bytes
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """There is nothing to connect."""

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """Take a batch; waits while the buffer is full, raises for what a broker would not take."""
        if self.unreachable is not None:
            raise self.unreachable
        for key, value in zip(outgoing.keys, outgoing.values, strict=True):
            size = len(key or b"") + len(value or b"")
            if size > self._max_bytes:
                raise StreamerError(
                    f"a record for topic {outgoing.topic} takes {size} bytes, more than {self._max_bytes}"
                )
        async with self._turn:  # no later send overtakes
            while self._room is not None and len(waiting := self._open()) >= self._room:
                await asyncio.wait([one.acknowledged for one in waiting], return_when=asyncio.FIRST_COMPLETED)
            delivery = Delivery(outgoing, self.topics)
            self.deliveries.append(delivery)
            self.behaviour(delivery)
        return delivery.acknowledged

    async def stop(self) -> None:
        """Wait for what is open, as a producer does; a test closes it, or does not stop."""
        waiting = [one.acknowledged for one in self._open()]
        if waiting:
            await asyncio.wait(waiting)

    def confirm(self, *numbers: int) -> None:
        """Confirm these deliveries, by default all that are open, in the order in which they were sent."""
        for delivery in [self.deliveries[number] for number in numbers] or self._open():
            delivery.confirm()

    @property
    def sent(self) -> list[Outgoing]:
        """Every batch that was handed over, whatever became of it."""
        return [delivery.outgoing for delivery in self.deliveries]

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        """The values that are in a partition of a topic."""
        return [value for _, value, _ in self.topics[topic, partition]]

    def _open(self) -> list[Delivery]:
        return [delivery for delivery in self.deliveries if delivery.open]


confirm: Behaviour = Delivery.confirm
repeat: Behaviour = Delivery.repeat
refuse: Behaviour = Delivery.refuse
lose: Behaviour = Delivery.lose


def hold(_: Delivery) -> None:
    """Leave a delivery open: the test closes it, or nothing ever does."""
