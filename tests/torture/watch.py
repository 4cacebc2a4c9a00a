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
    """When answers were seen first, by source, in Unix seconds: all of them, and those `decided`."""

    def __init__(self, place: KafkaPlace) -> None:
        self._place = place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()), daemon=True)
        self.seen: dict[str, float] = {}
        self.decided: dict[str, float] = {}

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
                for partition, records in found.items():
                    decisions = partition.topic == f"{self._place.prefix}{ANSWERS[0]}"
                    for record in records:
                        source = dict(record.headers)["streamer_source"].decode()
                        self.seen.setdefault(source, now)
                        if decisions:
                            self.decided.setdefault(source, now)
        finally:
            await consumer.stop()
