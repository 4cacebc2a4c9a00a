"""Notices that a topic is deleted, or made anew, while a worker reads it: it just brings nothing more."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Self

from streamer.errors import StateError
from streamer.transport.seam import Admin

LOOK_S: Final = 3.0
LOOKS: Final = 4
"""So many times in a row a topic has to be absent: a broker that has just started may not know of it yet."""


class Presence:
    """What is known of `topics` that are read, from one look at them to the next."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics
        self._identities: dict[str, str] = {}
        self._absent: Counter[str] = Counter()

    def look(self, admin: Admin) -> StateError | None:
        """Ask once more; answers what ends the worker. Raises `StreamerError` where nobody answers."""
        missing = admin.missing(self._topics)
        return self._judge(missing, admin.identities(self._topics))

    def forget(self) -> None:
        """Nobody has answered: that tells nothing of the topics."""
        self._absent.clear()

    def _judge(self, missing: Collection[str], identities: Mapping[str, str]) -> StateError | None:
        self._absent = Counter({topic: self._absent[topic] + 1 for topic in missing})
        for topic, looks in self._absent.items():
            if looks >= LOOKS:
                return StateError(
                    f"topic {topic} was deleted while it was read; what was read of it is stored. Restore the"
                    " topic with its records and start again, or create it and start with an empty state"
                    " directory and a new --group"
                )
        for topic, identity in identities.items():
            before = self._identities.setdefault(topic, identity)
            if before != identity:
                return made_anew(topic, before, identity)
        return None


def made_anew(topic: str, before: str, identity: str) -> StateError:
    """Say that a topic is not the one that was read, by their ids, and what to do."""
    return StateError(
        f"topic {topic} was deleted and created again (it had id {before}, and has {identity} now):"
        " what the state has read of it is not what is there. Restore it, or start with an empty"
        " state directory and a new --group"
    )


class Watch:
    """Looks at topics from a thread of its own until the block ends; `on_lost` is told there, at most once.

    A daemon: an answer that does not come holds nobody up.
    """

    def __init__(
        self,
        admin: Callable[[], Admin],
        topics: Sequence[str],
        on_lost: Callable[[StateError], None],
        every_s: float = LOOK_S,
    ) -> None:
        self._connect = admin
        self._presence = Presence(topics)
        self._on_lost = on_lost
        self._every_s = every_s
        self._stop = threading.Event()
        self._admin: Admin | None = None

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="streamer-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                lost = self._look()
            except Exception:  # noqa: BLE001 - whatever keeps it from looking tells nothing of the topics
                self._presence.forget()
                self._leave()
                lost = None
            if lost is not None and not self._stop.is_set():
                self._on_lost(lost)
                break
            self._stop.wait(self._every_s)
        self._leave()

    def _look(self) -> StateError | None:
        if self._admin is None:
            self._admin = self._connect()
        return self._presence.look(self._admin)

    def _leave(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            with contextlib.suppress(Exception):  # a connection that is broken already
                admin.close()
