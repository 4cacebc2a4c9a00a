"""Keeps transactions on an event loop in a thread of their own: no step of the stream holds them up."""

import asyncio
import threading
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from streamer.batch import Outgoing
from streamer.errors import StreamerError
from streamer.transport.seam import Delivered, Transactions, unasked

Answer = TypeVar("Answer")


class LoopThread:
    """A thread that runs an event loop; one is enough for all shards of a worker."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="streamer-transactions", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, work: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        """Begin work there; what is submitted first takes its first step first."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def call(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Await work there."""
        return await asyncio.wrap_future(self.submit(work))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.submit(_end_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_all() -> None:
    """Let all other work on this loop end."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class ThreadedTransactions:
    """Transactions on `thread`.

    A transaction takes some twenty turns of an event loop. On the stream's own loop each of them waits for a
    batch to be decided: at full load a commit takes a second then, and here as long as the broker does.
    """

    def __init__(self, inner: Transactions, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread

    async def start(self) -> None:
        """As `Transactions.start`."""
        await self._thread.call(self._inner.start())

    async def send(self, outgoing: Outgoing) -> Awaitable[Delivered]:
        """As `Transactions.send`."""
        return unasked(asyncio.wrap_future(await self._thread.call(self._send(outgoing))))

    def seal(self) -> None:
        """As `Transactions.seal`."""
        self._thread.submit(self._seal())

    async def commit(
        self,
        closing: Sequence[Outgoing] = (),
        offsets: Mapping[tuple[str, int], int] | None = None,
        group: str = "",
    ) -> Delivered:
        """As `Transactions.commit`."""
        return await self._thread.call(self._inner.commit(closing, offsets, group))

    async def abort(self) -> None:
        """As `Transactions.abort`."""
        await self._thread.call(self._inner.abort())

    async def stop(self) -> None:
        """As `Transactions.stop`."""
        await self._thread.call(self._inner.stop())

    async def _seal(self) -> None:
        self._inner.seal()

    async def _send(self, outgoing: Outgoing) -> Future[Delivered]:
        delivered = asyncio.ensure_future(await self._inner.send(outgoing))
        told: Future[Delivered] = Future()

        def tell(done: asyncio.Future[Delivered]) -> None:
            if done.cancelled():
                told.set_exception(StreamerError(f"records for topic {outgoing.topic} were given up"))
            elif (error := done.exception()) is not None:
                told.set_exception(error)
            else:
                told.set_result(done.result())

        delivered.add_done_callback(tell)
        return told
