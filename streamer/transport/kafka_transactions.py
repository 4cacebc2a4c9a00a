"""Publishes to Kafka in transactions: all that is sent up to a seal becomes visible together, or never."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import TopicPartition, errors

from streamer.batch import Outgoing
from streamer.errors import ConfigError, Fenced, StreamerError
from streamer.transport.kafka_publisher import KafkaPublisher, PublisherSettings
from streamer.transport.seam import Delivered, unasked

TIMEOUT_MS = 60_000
"""After so long the broker aborts an open transaction, and fences its producer."""

LOOK_S = 1.0
"""Offsets that the broker has not taken after so long may be of a topic that is gone."""

HELD = 64
"""Sends that are held back while a transaction ends; the next one waits."""

# aiokafka asserts that its transaction is in the state for a call.
_REFUSALS = (errors.KafkaError, TimeoutError, AssertionError)


@dataclass(slots=True)
class _Send:
    outgoing: Outgoing
    delivered: asyncio.Future[Delivered]
    handed: asyncio.Event = field(default_factory=asyncio.Event)


class KafkaTransactions(KafkaPublisher):
    """A publisher that holds a transactional id; readers with `read_committed` see whole transactions only.

    `start` takes the id over: what an earlier holder left open is aborted, and that holder is `Fenced` from
    then on, whatever it tries. `send` begins a transaction where none is open. `seal` draws the line: what is
    sent later belongs to the next one and is held back, in order, until `commit` has ended this one; so
    nothing that is decided after a cut becomes visible with it, and the stream does not stand still
    meanwhile.

    After any failure every call raises it again: stop, and start anew. What was open then never becomes
    visible, unless the failure was that no answer to the commit itself arrived: a reader of the topics can
    tell.
    """

    def __init__(
        self, settings: PublisherSettings, transactional_id: str, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        super().__init__(settings)
        self.transactional_id = transactional_id
        self._timeout_ms = timeout_ms
        self._queue: deque[_Send | None] = deque()
        """What is to be handed over, in order; `None` is a seal."""
        self._pump: asyncio.Task[None] | None = None
        self._room = asyncio.Semaphore(HELD)
        self._open = False
        self._sent: list[asyncio.Future[Delivered]] = []
        """Deliveries of the open transaction."""

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """Hand records over, in order, within the transaction; see `KafkaPublisher.send`.

        What is returned ends when the broker has them, which is before they are visible. Behind a seal it
        waits only while too many are held back already.
        """
        if self._failure is not None:
            raise self._failure
        held = None in self._queue or self._room.locked()
        one = _Send(outgoing, unasked(asyncio.get_running_loop().create_future()))
        if held:
            await self._room.acquire()
            one.delivered.add_done_callback(lambda _: self._room.release())
        self._queue.append(one)
        self._run()
        if not held:
            await one.handed.wait()
            if one.delivered.done():
                one.delivered.result()
        return one.delivered

    def seal(self) -> None:
        """Let what was sent so far be the transaction that the next `commit` ends; later sends are held."""
        self._queue.append(None)

    async def commit(
        self,
        closing: Sequence[Outgoing] = (),
        offsets: Mapping[tuple[str, int], int] | None = None,
        group: str = "",
    ) -> Delivered:
        """Make the sealed transaction visible, with `closing` as its last records and a group's offsets.

        Seals now where that was not done. Answers where its records ended. `offsets` are the next to read by
        topic and partition: they need no membership of the group, the transactional id is what fences; those
        of topics that have been deleted are left out, as the broker would refuse them for ever. Raises
        `Fenced` where another worker has taken the id over, or the broker gave the transaction up for its
        age.
        """
        await self._sealed()
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_s):
                for outgoing in closing:
                    await self._hand_over(outgoing)
                ends: dict[tuple[str, int], int] = {}
                # A batch that failed would not keep aiokafka from committing the others.
                for delivered in await asyncio.gather(*self._sent):
                    for place, end in delivered.items():
                        ends[place] = max(end, ends.get(place, 0))
                if offsets:
                    await self._begin()
                    await self._add_offsets(offsets, group)
                if self._open:
                    await self._producer.commit_transaction()
        except _REFUSALS as error:
            raise self._failed(f"the transaction of {self.transactional_id}", error) from error
        self._next()
        return ends

    async def abort(self) -> None:
        """Let nothing of the sealed transaction ever be visible, or of the open one where none is sealed."""
        await self._sealed()
        try:
            async with asyncio.timeout(self._settings.delivery_timeout_s):
                await asyncio.gather(*self._sent)
                if self._open:
                    await self._producer.abort_transaction()
        except _REFUSALS as error:
            raise self._failed(f"the transaction of {self.transactional_id}", error) from error
        self._next()

    async def stop(self) -> None:
        """Abort what is open, then disconnect."""
        if self._producer is not None and self._failure is None:
            while self._failure is None and (self._open or self._queue or self._sent):
                try:
                    await self.abort()
                except StreamerError:  # kept, and the transaction dies of its age
                    break
        await super().stop()
        ended = self._producer and self._producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - no public way
        if ended is not None and ended.done() and not ended.cancelled():
            ended.exception()  # asked for once, or the loop complains of it

    async def _sealed(self) -> None:
        """Seal where that was not done, and wait until all before the seal is handed over."""
        if None not in self._queue:
            self.seal()
        if self._pump is not None:
            await self._pump
        if self._failure is not None:
            raise self._failure

    def _next(self) -> None:
        """Go on with what was held back."""
        self._open = False
        self._sent.clear()
        self._queue.popleft()
        self._run()

    def _run(self) -> None:
        if self._pump is None and self._queue and self._queue[0] is not None:
            self._pump = asyncio.get_running_loop().create_task(self._hand_over_queue())

    async def _hand_over_queue(self) -> None:
        """Hand over up to the next seal; a failure is told to each who waits."""
        while self._queue and (one := self._queue[0]) is not None:
            try:
                _tell(await self._hand_over(one.outgoing), one.delivered)
            except StreamerError as error:
                one.delivered.set_exception(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits has to know
                one.delivered.set_exception(self._failed(f"records for topic {one.outgoing.topic}", error))
            one.handed.set()
            self._queue.popleft()
        self._pump = None

    async def _hand_over(self, outgoing: Outgoing) -> asyncio.Future[Delivered]:
        await self._begin()
        sent = asyncio.ensure_future(await super().send(outgoing))
        self._sent.append(sent)
        return sent

    async def _add_offsets(self, offsets: Mapping[tuple[str, int], int], group: str) -> None:
        """Let the transaction have the group's offsets, but for those of topics that are gone."""
        added = asyncio.ensure_future(
            self._producer.send_offsets_to_transaction(
                {TopicPartition(*place): offset for place, offset in offsets.items()}, group
            )
        )
        try:
            absent: set[str] = set()
            while not (await asyncio.wait([added], timeout=LOOK_S))[0]:
                # Twice in a row: a broker that has just started may not know of a topic yet.
                before, absent = absent, await self._absent({topic for topic, _ in offsets})
                self._leave_out(absent & before)
            added.result()
        finally:
            added.cancel()

    async def _absent(self, topics: set[str]) -> set[str]:
        try:
            cluster = await self._producer.client.fetch_all_metadata()
        except errors.KafkaError:  # nobody answers: that tells nothing of the topics
            return set()
        return topics.difference(cluster.topics())

    def _leave_out(self, topics: set[str]) -> None:
        """Ask no more that the broker takes offsets of these: aiokafka would, for ever."""
        manager = self._producer._txn_manager  # noqa: SLF001 - no public way
        for group, offsets, _ in list(manager._pending_txn_offsets):  # noqa: SLF001
            for place in [place for place in offsets if place.topic in topics]:
                manager.offset_committed(place, offsets[place].offset, group)

    async def _begin(self) -> None:
        if not self._open:
            self._open = True
            await self._producer.begin_transaction()

    def _identity(self) -> dict[str, object]:
        return {"transactional_id": self.transactional_id, "transaction_timeout_ms": self._timeout_ms}

    def _no_start(self, error: Exception) -> StreamerError:
        if isinstance(error, errors.InvalidTransactionTimeout):
            return ConfigError(
                f"the broker refuses transactions of {self._timeout_ms} ms;"
                " lower the setting, or raise its transaction.max.timeout.ms"
            )
        if isinstance(error, errors.TransactionalIdAuthorizationFailed):
            return ConfigError(
                f"the user may not write as transactional id {self.transactional_id}; give it that right"
            )
        return super()._no_start(error)

    def _explained(self, what: str, error: Exception) -> StreamerError:
        # What ended aiokafka's sender says more than what it told the batches.
        sender = self._producer._sender.sender_task  # noqa: SLF001 - no public way
        ended = sender.exception() if sender.done() and not sender.cancelled() else None
        cause = (ended and ended.__cause__) or ended or error
        if isinstance(cause, errors.ProducerFenced):
            return Fenced(
                f"another worker owns {self.transactional_id} now, or its transaction was open for more than"
                f" {self._timeout_ms} ms: {what} will never be seen. Stop here; the owner goes on from the"
                " last commit"
            )
        if isinstance(cause, errors.InvalidProducerIdMapping):
            return StreamerError(
                f"the broker no longer knows {self.transactional_id}, which has written nothing for more than"
                f" its transactional.id.expiration.ms: {what} will never be seen. Start again; it goes on"
                " from the last commit"
            )
        return super()._explained(what, cause if isinstance(cause, Exception) else error)


def _tell(delivered: asyncio.Future[Delivered], waiter: asyncio.Future[Delivered]) -> None:
    """Let `waiter` end as `delivered` does."""

    def tell(done: asyncio.Future[Delivered]) -> None:
        error = done.exception()
        if waiter.done():
            return
        if error is None:
            waiter.set_result(done.result())
        else:
            waiter.set_exception(error)

    delivered.add_done_callback(tell)
