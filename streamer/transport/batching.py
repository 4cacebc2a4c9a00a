"""What our Faust consumers share: whole batches as messages, room in bytes, no acknowledgements."""

import abc
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, cast

from faust.transport import base, conductor, consumer
from faust.types import TP, ConsumerMessage

from streamer.batch import Records
from streamer.errors import StreamerError
from streamer.transport.seam import Rim

_CREATE_TIME = 0


def rim_of(app: Any) -> Rim:
    """Return the `Rim` that the Faust app carries as its attribute `rim`."""
    rim = getattr(app, "rim", None)
    if not isinstance(rim, Rim):
        raise TypeError(
            f"expected a Rim as attribute `rim` of the Faust app, got {rim!r}: set it before start"
        )
    return rim


def batch_message(tp: TP, records: Records, generation: int) -> ConsumerMessage:
    """Wrap a batch as one message; without the generation the stream would drop it silently."""
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        records.offsets[-1],
        records.timestamps[-1] / 1000.0,
        _CREATE_TIME,
        [],
        None,
        cast("Any", records),
        None,
        0,
        records.nbytes,
        tp,
        generation_id=generation,
    )


class BatchConsumer(consumer.Consumer):
    """Delivers one message per partition and batch, while the partition's share of the buffer has room.

    The store knows the position, so Faust's own ledger of acknowledged offsets and gaps stays empty: commits,
    from Faust's timer or its shutdown, are the rim's.
    """

    app: Any

    @property
    def standby(self) -> Collection[int]:
        """The shards of others that this worker is to keep a copy of."""
        return ()

    @property
    def coming(self) -> Collection[int]:
        """Those of `standby` that this worker is given once it has a copy of them and asks to `rejoin`."""
        return ()

    def rejoin(self) -> None:
        """Have the shards of the group dealt anew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rim = rim_of(self.app)
        self._full: frozenset[TP] = frozenset()
        self._wakes = 0
        self._rim.buffer.on_room(self._on_room)

    async def take_up(self, positions: Mapping[tuple[str, int], int | None]) -> None:
        """Read these as well, which `start_positions` did not know after the rebalance; `None`: all."""

    @abc.abstractmethod
    async def fetch(self, partitions: frozenset[TP], wakes: int, seconds: float) -> Mapping[TP, Records]:
        """Wait for records of these partitions, for at most so many seconds.

        Takes none once `wakes` is outdated: after a seek they would be taken for an answer nobody waits for.
        """

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Let a waiting `fetch` look at `wakes` again; called on the worker's event loop."""

    def wake(self) -> None:
        """End a waiting fetch early: which partitions may be fetched has changed."""
        self._wakes += 1
        self.interrupt()

    def _on_room(self) -> None:
        if any(self._may_fetch(tp) for tp in self._full):
            self._full = frozenset()
            self.wake()

    def _may_fetch(self, tp: TP) -> bool:
        place = tp.topic, tp.partition
        return self._rim.buffer.has_room(*place) and self._rim.may_read(*place)

    def stop_flow(self) -> None:
        """Deliver nothing more until `resume_flow`."""
        super().stop_flow()
        self.wake()

    async def perform_seek(self) -> None:
        """Seek with the flow stopped, as it is not yet if nothing was assigned before.

        Faust clears its queues between this and `resume_flow`: a batch delivered earlier would be lost.
        """
        self.stop_flow()
        try:
            await super().perform_seek()
        except StreamerError as error:
            # Faust would log it and stand still.
            self._rim.fail(error)

    async def getmany(
        self,
        timeout: float,  # noqa: ASYNC109 - Faust's signature
    ) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield the batches that are there, waiting for the first."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        if self.should_stop:
            return
        generation = self.app.consumer_generation_id
        wakes = self._wakes
        active = frozenset(self._get_active_partitions())
        self._full = frozenset(tp for tp in active if not self._may_fetch(tp))
        try:
            batches = await self.fetch(active - self._full, wakes, timeout)
        except StreamerError as error:
            # Faust would crash, with tracebacks of all that it consists of.
            self.stop_flow()
            self._rim.fail(error)
            return
        for tp, records in batches.items():
            # What is dropped here is read again: whatever stops the flow ends in a seek or in the end.
            if not self.flow_active or self.should_stop or self.app.consumer_generation_id != generation:
                return
            self._rim.buffer.take(tp.topic, tp.partition, records.nbytes)
            yield tp, batch_message(tp, records, generation)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - Faust's signature
        """Commit through the rim: Faust alone would commit offsets without the store."""
        return await self._rim.commit()

    async def commit_and_end_transactions(self) -> None:
        """Nothing: at shutdown the application has committed in `on_before_shutdown`."""

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: Faust counts messages, the rim's buffer bytes."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Nothing, as `on_buffer_full`."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust would warn that its own, unused commits stand still."""


class BatchConductor(conductor.Conductor):
    """Tells Faust's streams to acknowledge nothing; compiled, they write the consumer's ledger themselves."""

    def acks_enabled_for(self, topic: str) -> bool:  # noqa: ARG002 - Faust's signature
        """Return `False`: nothing is noted when a batch has been worked off."""
        return False

    async def _update_indices(self) -> Iterable[str]:
        topics = await super()._update_indices()
        self._acking_topics.clear()
        return topics


class NoProducer(base.Producer):
    """Stands where Faust wants a producer, and connects to nothing: ours is a `Publisher`."""

    async def flush(self) -> None:
        """Nothing is ever held back."""
