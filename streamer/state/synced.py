"""Notes how far a database was forced onto the disk, so that a start sees when some of that is gone.

RocksDB recovers up to the first broken record of its write-ahead log. After a power cut that is right: what
follows was never promised. A bit that flips in what had been synced looks the same to it.
"""

import os
from pathlib import Path
from struct import Struct
from typing import Final
from zlib import crc32

NAME: Final = "SYNCED"
"""The file, beside those of RocksDB. Without it nothing is checked."""

_NUMBER: Final = Struct(">Q")
_CHECK: Final = Struct(">I")


def note(path: Path, reached: int) -> None:
    """What the caller counts, up to `reached`, is on the disk; raises `OSError` where that cannot be noted.

    The note itself is not forced: lost, it only promises less.
    """
    number = _NUMBER.pack(reached)
    file = os.open(path / NAME, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.pwrite(file, number + _CHECK.pack(crc32(number)), 0)
    finally:
        os.close(file)


def noted(path: Path) -> int:
    """The number noted last; 0 where there is none, or where it is not whole."""
    try:
        content = (path / NAME).read_bytes()
    except OSError:
        return 0
    number, check = content[: _NUMBER.size], content[_NUMBER.size :]
    whole = len(number) == _NUMBER.size and check == _CHECK.pack(crc32(number))
    return int(_NUMBER.unpack(number)[0]) if whole else 0
