"""Card numbers (PANs): told from tokens, refused or hashed in payments, masked in what is passed on."""

import hmac
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final

import msgspec

from streamer.errors import ConfigError
from streamer.events import Payment
from streamer.settings import Pan

SHORTEST: Final = 13
LONGEST: Final = 19
MASK: Final = b"*"

_CANDIDATE = re.compile(r"[ -]*[0-9](?:[ -]*[0-9]){12,18}[ -]*").fullmatch
# Digits and separators count in their JSON escapes too, and a zero byte or the UTF-8 no-break space between
# digits (as in UTF-16, or text copied from a page) separates like a space.
_DIGIT: Final = rb"(?:[0-9]|\\u003[0-9])"
_GAP: Final = rb"(?:[ \x00-]|\xc2\xa0|\\u0020|\\u00[aA]0|\\u002[dD])"
_RUN = re.compile(_DIGIT + rb"(?:" + _GAP + rb"{0,3}" + _DIGIT + rb"){12,}")
_ONE_DIGIT = re.compile(_DIGIT)
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def passes_luhn(digits: str) -> bool:
    """Whether the last of some ASCII digits is the check digit of the others (ISO/IEC 7812-1, annex B).

    >>> passes_luhn("4111111111111111"), passes_luhn("4111111111111112")
    (True, False)
    """
    backwards = [int(digit) for digit in reversed(digits)]
    return (sum(backwards[::2]) + sum(_DOUBLED[digit] for digit in backwards[1::2])) % 10 == 0


def looks_like_pan(value: str) -> bool:
    """Whether a value is 13 to 19 digits passing Luhn, spaces and dashes aside.

    >>> looks_like_pan("4111 1111 1111 1111"), looks_like_pan("card4111111111111111")
    (True, False)
    """
    return _CANDIDATE(value) is not None and passes_luhn(_digits(value))


def mask(data: bytes, limit: int) -> bytes:
    """Cut bytes to `limit` with all that may be a PAN starred out, even where the cut goes through it.

    Runs of more than 19 digits may hold a PAN anywhere and are masked whole.

    >>> mask(b'{"card":"4111-1111-1111-1111","amount":12}', 100)
    b'{"card":"****-****-****-****","amount":12}'
    """
    # A PAN that begins within the limit ends within 19 digits of at most 6 bytes and 3 gaps of as many.
    return _RUN.sub(_mask_run, data[: limit + LONGEST * 24])[:limit]


class PanGuard:
    """Applies the PAN policy of each field to payments; raises ConfigError for `hash` without a key.

    A hashed value is the HMAC-SHA256 of its digits in hex, so that spelling makes no second card of one.
    """

    def __init__(self, policy: Mapping[str, Pan], key: bytes = b"") -> None:
        if "hash" in policy.values() and not key:
            raise ConfigError("Expected a key for the PAN policy `hash`, got none; set `[events] pan_key`")
        self._policy = {name: chosen for name, chosen in policy.items() if chosen != "accept"}
        self._key = key

    def apply(self, payments: Sequence[Payment]) -> list[tuple[int, str]]:
        """Hash where the policy says so; answers the positions to be refused, each with its field."""
        refused = []
        for name, chosen in self._policy.items():
            for position, value in self._suspects(payments, name):
                if not looks_like_pan(value):
                    continue
                if chosen == "reject":
                    refused.append((position, name))
                else:
                    digest = hmac.digest(self._key, _digits(value).encode(), "sha256").hex()
                    msgspec.structs.force_setattr(payments[position], name, digest)
        return refused

    @staticmethod
    def _suspects(payments: Sequence[Payment], name: str) -> list[tuple[int, str]]:
        """Find the values worth a closer look: tokens with letters mostly stop here, cheaply."""
        values: list[str | None] = list(map(attrgetter(name), payments))
        return [
            (position, value)
            for position, value in enumerate(values)
            if value and value[0] <= "9" >= value[-1] and (value.isdecimal() or not value.isalnum())
        ]


def _digits(value: str) -> str:
    return value.replace(" ", "").replace("-", "")


def _mask_run(found: re.Match[bytes]) -> bytes:
    run = found[0]
    places = [digit.span() for digit in _ONE_DIGIT.finditer(run)]
    masked = _pan_places("".join(chr(run[end - 1]) for _, end in places))
    pieces, done = [], 0
    for place in masked:
        start, end = places[place]
        pieces += [run[done:start], MASK]
        done = end
    return b"".join(pieces) + run[done:]


def _pan_places(digits: str) -> Sequence[int]:
    if len(digits) > LONGEST:
        return range(len(digits))
    covered: set[int] = set()
    for end in range(SHORTEST, len(digits) + 1):
        total = 0
        for length, digit in enumerate(map(int, reversed(digits[:end])), 1):
            total += digit if length % 2 else _DOUBLED[digit]
            if length >= SHORTEST and total % 10 == 0:
                covered.update(range(end - length, end))
    return sorted(covered)
