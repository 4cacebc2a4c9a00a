"""A state directory belongs to one worker at a time, and that one has a name which outlives it."""

import fcntl
import os
import secrets
from pathlib import Path
from typing import Self

from streamer.state.store_directory import CLAIM, explained, in_use


class Claim:
    """The hold on a state directory, kept until it is closed or the process ends, however that comes.

    `member` is 16 hexadecimal digits, drawn when the directory was first claimed.
    """

    def __init__(self, descriptor: int, member: str) -> None:
        self._descriptor = descriptor
        self.member = member

    @classmethod
    def of(cls, path: Path) -> Self:
        """Claim the directory, made where it is absent; raises `StateError` where another worker has it."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path / CLAIM, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise explained(path, error.strerror or str(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            member = os.read(descriptor, 64).decode("ascii", "replace").strip()
            if len(member) != 16 or not member.isalnum():
                member = secrets.token_hex(8)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, member.encode(), 0)
        except BlockingIOError as error:
            os.close(descriptor)
            raise in_use(path) from error
        except OSError as error:
            os.close(descriptor)
            raise explained(path, error.strerror or str(error)) from error
        return cls(descriptor, member)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
