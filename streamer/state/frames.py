"""Looks through the headers of RocksDB's logs before RocksDB does, which reads some broken ones for ever.

A log (write-ahead or MANIFEST) is a row of frames in blocks of 32 KiB: checksum, length, kind, then content.
Kinds of recycled logs, which are never written here, make RocksDB turn in circles at the open.
Source of the format: https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format.
"""

import os
from pathlib import Path
from struct import Struct
from typing import Final

_HEADER: Final = Struct("<IHB")
_BLOCK: Final = 1 << 15
_RECYCLED: Final = frozenset((5, 6, 7, 8, 11, 131))


def broken_log(path: Path) -> str | None:
    """What is wrong with a log in the directory `path`, if RocksDB must not be shown it; raises `OSError`.

    Checksums are RocksDB's own affair.
    """
    for file in sorted([*path.glob("*.log"), *path.glob("MANIFEST-*")]):
        try:
            at = _recycled_at(file)
        except FileNotFoundError:  # another process has done with it
            continue
        if at is not None:
            return f"{file.name} has a frame of an unknown kind at byte {at}"
    return None


def _recycled_at(file: Path) -> int | None:
    """The first frame that looks recycled; frames are followed up to the first that cannot be one."""
    opened = os.open(file, os.O_RDONLY)
    try:
        at, size = 0, os.fstat(opened).st_size
        while at + _HEADER.size <= size:
            left = _BLOCK - at % _BLOCK
            if left < _HEADER.size:
                at += left
                continue
            _, length, kind = _HEADER.unpack(os.pread(opened, _HEADER.size, at))
            if kind in _RECYCLED:
                return at
            if kind == 0 or length > left - _HEADER.size:
                return None
            at += _HEADER.size + length
    finally:
        os.close(opened)
    return None
