"""Watches from outside when each payment is answered, as a reader of finished transactions sees it."""

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer

from tests.end_to_end.logs import KafkaPlace

ANSWERS = ("decisions", "payments.rejected")
POLL_MS = 100


class Watch:
    """`seen` is when the answer to each source was seen first, Unix seconds; `records` counts all answers."""

    def __init__(self, place: KafkaPlace) -> None:
        self._place = place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()), daemon=True)
        self.seen: dict[str, float] = {}
        self.records = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    async def _watch(self) -> None:
        consumer = AIOKafkaConsumer(
            *(f"{self._place.prefix}{name}" for name in ANSWERS),
            bootstrap_servers=self._place.server,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=20,
            metadata_max_age_ms=1_000,
        )
        await consumer.start()
        try:
            while not self._stop.is_set():
                found = await consumer.getmany(timeout_ms=POLL_MS)
                now = time.time()
                for records in found.values():
                    self.records += len(records)
                    for record in records:
                        self.seen.setdefault(dict(record.headers)["streamer_source"].decode(), now)
        finally:
            await consumer.stop()
