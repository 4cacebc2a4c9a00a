"""Tells a disk that takes nothing from files that are damaged, by what RocksDB says of either."""

from typing import Final

_TROUBLES: Final = (
    "Permission denied",
    "Read-only file system",
    "No space left on device",
    "File too large",
    "Too many open",
)


def trouble_in(message: str) -> str | None:
    """What keeps a disk from being written to, where an error says so: nothing has to be restored then.

    >>> trouble_in("IO error: No space left on device: While appending to file: /state/000004.log")
    'No space left on device'
    """
    return next((trouble for trouble in _TROUBLES if trouble in message), None)
