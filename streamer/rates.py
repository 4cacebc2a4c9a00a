"""A dated table of exchange rates: read from a CSV file, exact to the minor unit, half to even.

The file has the header `date,currency,rate` and a line for each rate, in any order:

    date,currency,rate
    2026-01-01,USD,0.9217
    2026-01-01,JPY,0.0060975
    2026-02-01,USD,0.9305

A `rate` is what one unit of the currency (one dollar, not one cent) is worth in units of the base currency;
tables that say how much foreign money one euro buys are the other way round. It holds from the first
millisecond of its date, in UTC, until the next date of the same currency, the last one for ever.
"""

import csv
import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from streamer.batch import Bool, Int64
from streamer.currencies import CODES, EXPONENTS, minor_units
from streamer.errors import ConfigError
from streamer.features.layout import LARGEST, MISSING

HEADER: Final = ("date", "currency", "rate")

NO_FILE: Final = "none"
"""The version of no table at all."""

_DAY_MS: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1).toordinal()
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_RATE: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_PLACES: Final = {code: place for place, code in enumerate(CODES)}
_TIME_BITS: Final = 48
"""A currency and a time are one number: the time, which has at most so many bits, below the place."""

_SAFE: Final = 1 << 62
"""Products below it, and twice a remainder, are exact in 64 bits."""

Rates = Mapping[tuple[str, int], Fraction]
"""Units of the base currency for one unit of another, by its code and the time (ms) from which it holds."""


class RateTable:
    """Brings amounts to the currency `base`. `version` is a hash of the file that the rates are from."""

    def __init__(self, base: str, rates: Rates, version: str = NO_FILE) -> None:
        self.base = base
        self.version = version
        ordered = sorted(rates, key=lambda one: _key(*one))
        # The key in front of all others belongs to no currency: what has no rate finds it.
        self._keys = np.array([-1, *(_key(*one) for one in ordered)], np.int64)
        self._factors = [Fraction(0)] + [
            rates[code, start] * minor_units(base) / minor_units(code) for code, start in ordered
        ]
        fits = [max(factor.numerator, factor.denominator) < _SAFE for factor in self._factors]
        safe = [factor if fit else Fraction(1) for factor, fit in zip(self._factors, fits, strict=True)]
        self._numerators = np.array([factor.numerator for factor in safe], np.int64)
        self._denominators = np.array([factor.denominator for factor in safe], np.int64)
        self._limits = np.array(
            [
                (_SAFE - 1) // max(factor.numerator, 1) if fit else -1
                for factor, fit in zip(safe, fits, strict=True)
            ],
            np.int64,
        )

    def to_base(self, amount: Int64, currencies: Sequence[str], event_time: Int64) -> tuple[Int64, Bool]:
        """Minor units of the base currency (n,), `MISSING` where there are none, and who lacked a rate (n,).

        `amount` (n,) is in minor units of `currencies`, 0 to 10^12, `event_time` (n,) in ms. What exceeds
        10^12 is missing, too: sums of it would not be exact.

        >>> table = RateTable("EUR", {("JPY", 0): Fraction("0.0061")})
        >>> two = np.array([1000, 1000])
        >>> amounts, unrated = table.to_base(two, ["EUR", "JPY"], np.array([5, 5]))
        >>> amounts.tolist(), unrated.tolist()
        ([1000, 610], [False, False])
        """
        places = np.fromiter(map(_PLACES.__getitem__, currencies), np.int64, len(amount))
        at = np.searchsorted(self._keys, (places << _TIME_BITS) + event_time, side="right") - 1
        own = places == _PLACES[self.base]
        rated = self._keys[at] >> _TIME_BITS == places
        out = np.where(own, amount, MISSING)
        rows = np.flatnonzero(rated & ~own)
        out[rows] = self._convert(amount[rows], at[rows])
        return out, ~rated & ~own

    def _convert(self, amount: Int64, at: Int64) -> Int64:
        """Amounts by the rates at those places, rounded half to even."""
        denominator = self._denominators[at]
        whole, rest = np.divmod(amount * self._numerators[at], denominator)
        whole += (2 * rest > denominator) | ((2 * rest == denominator) & (whole & 1 == 1))
        for row in np.flatnonzero(amount > self._limits[at]).tolist():  # beyond 64 bits
            exact = round(int(amount[row]) * self._factors[at[row]])
            whole[row] = min(exact, LARGEST + 1)
        return np.where(whole <= LARGEST, whole, MISSING)


def read_rates(file: str, base: str) -> RateTable:
    """The table in a file, or one without rates where `file` is empty; raises ConfigError naming the line."""
    if not file:
        return RateTable(base, {})
    try:
        data = Path(file).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"Expected a readable file, got {error.strerror} - at `{file}`; check `[rates] file`"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Expected UTF-8, got byte 0x{data[error.start]:02x} - at `{file}: line"
            f" {data[: error.start].count(10) + 1}`; save it as CSV in UTF-8"
        ) from error
    return RateTable(base, parse_rates(text, base, file), hashlib.sha256(data).hexdigest()[:12])


def parse_rates(text: str, base: str, file: str) -> Rates:
    r"""The rates in a CSV text; raises ConfigError that names the line of `file`.

    >>> parse_rates("date,currency,rate\n1970-01-02,USD,0.5", "EUR", "rates.csv")
    {('USD', 86400000): Fraction(1, 2)}
    """
    rates: dict[tuple[str, int], Fraction] = {}
    lines: dict[tuple[str, int], int] = {}
    for number, cells in _lines(text, file):
        where = f"`{file}: line {number}`"
        if len(cells) != len(HEADER):
            raise ConfigError(
                f"Expected a date, a currency and a rate, got {','.join(cells)[:80]!r} - at {where};"
                " separate three cells by commas and write rates with a point, as in 2026-01-01,USD,0.9217"
            )
        key = _currency(cells[1], where), _start(cells[0], where)
        rate = _rate(cells[2], where)
        if key[0] == base:
            if rate != 1:
                raise ConfigError(
                    f"Expected no rate of {base}, the base currency of the topology, got {cells[2]} - at"
                    f" {where}; is the table one of another base currency?"
                )
            continue
        if key in rates:
            raise ConfigError(
                f"Expected one rate of {key[0]} from {cells[0]} on, got another in line {lines[key]} - at"
                f" {where}; remove one"
            )
        rates[key], lines[key] = rate, number
    if not rates:
        raise ConfigError(f"Expected at least one rate, got none - at `{file}`; add one, or set no file")
    return rates


def _lines(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that is not blank, after the header, and its number."""
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        head = [cell.strip() for cell in next(reader, [])]
        if tuple(head) != HEADER:
            raise ConfigError(
                f"Expected the header `{','.join(HEADER)}`, got {','.join(head)[:80]!r} - at"
                f" `{file}: line 1`; separate cells by commas and name them so, in this order"
            )
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield reader.line_num, stripped
    except csv.Error as error:
        raise ConfigError(
            f"Expected CSV, got: {error} - at `{file}: line {reader.line_num}`; mend the line"
        ) from error


def _currency(text: str, where: str) -> str:
    if text in EXPONENTS:
        return text
    near = difflib.get_close_matches(text.upper(), CODES, 1)
    remedy = f"did you mean {near[0]}?" if near else "write it as in payments, such as USD"
    raise ConfigError(f"Expected an ISO 4217 code, got {text[:40]!r} - at {where}; {remedy}")


def _start(text: str, where: str) -> int:
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None or day.toordinal() < _EPOCH:
        raise ConfigError(
            f"Expected a date from 1970 on, got {text[:40]!r} - at {where}; write it as in 2026-01-31"
        )
    return (day.toordinal() - _EPOCH) * _DAY_MS


def _rate(text: str, where: str) -> Fraction:
    rate = Fraction(text) if _RATE.fullmatch(text) else Fraction(0)
    if rate == 0:
        raise ConfigError(
            f"Expected a rate above 0 of at most 15 digits on either side of the point, got {text[:40]!r}"
            f" - at {where}; write what one unit of the currency is worth in the base currency, as 0.9217"
        )
    return rate


def _key(code: str, start: int) -> int:
    return (_PLACES[code] << _TIME_BITS) + start
