"""Durations and sizes as people write them ("30d", "1GiB"), to and from milliseconds and bytes."""

import re

from streamer.errors import ConfigError

_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_AMOUNT = re.compile(r"([1-9][0-9]{0,15})([A-Za-z]+)")
_LONGEST_MS = 36_500 * _MS["d"]
_LARGEST = 2**50

DURATION = 'a duration: a positive integer and ms, s, m, h, d or w, such as "250ms" or "30d"'
SIZE = 'a size: a positive integer and B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as "8MiB"'


def parse_duration(text: str) -> int:
    """Milliseconds of a duration: a positive integer directly followed by its unit, at most 100 years.

    Raises ConfigError.

    >>> parse_duration("30d")
    2592000000
    """
    parsed = _parse(text, _MS)
    if parsed is None:
        raise ConfigError(f'Expected {DURATION}, got {text!r}; write for instance "30d"')
    if parsed > _LONGEST_MS:
        raise ConfigError(f'Expected a duration of at most "36500d", got {text!r}; shorten it')
    return parsed


def format_duration(ms: int) -> str:
    """Shortest way to write a positive number of milliseconds, in days at most, so that "7d" stays "7d".

    >>> format_duration(604_800_000), format_duration(90_000), format_duration(250)
    ('7d', '90s', '250ms')
    """
    if ms <= 0:
        raise ConfigError(f"Expected a positive number of milliseconds, got {ms}; a duration is at least 1ms")
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if ms % _MS[unit] == 0)
    return f"{ms // _MS[unit]}{unit}"


def parse_size(text: str) -> int:
    """Bytes of a size: a positive integer directly followed by its unit, at most 1024TiB.

    Raises ConfigError.

    >>> parse_size("8MiB"), parse_size("2KB")
    (8388608, 2000)
    """
    parsed = _parse(text, _BYTES)
    if parsed is None:
        raise ConfigError(f'Expected {SIZE}, got {text!r}; write for instance "8MiB"')
    if parsed > _LARGEST:
        raise ConfigError(f'Expected a size of at most "1024TiB", got {text!r}; lower it')
    return parsed


def format_size(nbytes: int) -> str:
    """Shortest exact way to write a positive number of bytes, in powers of 1024.

    >>> format_size(2**30), format_size(2000)
    ('1GiB', '2000B')
    """
    if nbytes <= 0:
        raise ConfigError(f"Expected a positive number of bytes, got {nbytes}; a size is at least 1B")
    unit = next(unit for unit in ("TiB", "GiB", "MiB", "KiB", "B") if nbytes % _BYTES[unit] == 0)
    return f"{nbytes // _BYTES[unit]}{unit}"


def _parse(text: str, units: dict[str, int]) -> int | None:
    match = _AMOUNT.fullmatch(text)
    factor = units.get(match[2]) if match else None
    return int(match[1]) * factor if match and factor else None
