"""Rates from a file, and amounts by them: exact, half to even, as of the day."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.currencies import CODES, EXPONENTS
from streamer.errors import ConfigError
from streamer.events import MAX_AMOUNT, MAX_TIME
from streamer.features.layout import MISSING
from streamer.rates import NO_FILE, RateTable, parse_rates, read_rates

DAY = 86_400_000
HEAD = "date,currency,rate\n"
BASES = ("EUR", "JPY", "KWD", "UYW")
DECIMALS = st.decimals("1e-15", "999999999999999", places=15)
RATES = DECIMALS.map(Fraction)


def at(text: str) -> int:
    """Milliseconds of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def in_base(table: RateTable, *payments: tuple[int, str, int]) -> list[int | None]:
    """Amounts in the base currency, None where missing, of (amount, currency, event time)."""
    amounts, currencies, times = zip(*payments, strict=True)
    got, _ = table.to_base(np.array(amounts), list(currencies), np.array(times))
    return [None if amount == MISSING else amount for amount in got.tolist()]


def by_hand(rates: dict[tuple[str, int], Fraction], base: str, payment: tuple[int, str, int]) -> int | None:
    """What an amount is in the base currency, by fractions, straight from the definition."""
    amount, currency, time = payment
    if currency == base:
        return amount
    begun = [start for code, start in rates if code == currency and start <= time]
    if not begun:
        return None
    major = Fraction(amount, 10 ** EXPONENTS[currency]) * rates[currency, max(begun)]
    minor = round(major * 10 ** EXPONENTS[base])  # of a Fraction: half to even
    return minor if minor <= 10**12 else None


def refusal(text: str) -> str:
    """The message with which a file is refused."""
    with pytest.raises(ConfigError) as refused:
        parse_rates(text, "EUR", "rates.csv")
    return str(refused.value)


def test_minor_units_of_every_size() -> None:
    """12.34 USD, 1,234 JPY and 1.234 KWD, at rates of 0.5, 0.01 and 3 euros, in cents."""
    rates = {("USD", 0): Fraction("0.5"), ("JPY", 0): Fraction("0.01"), ("KWD", 0): Fraction(3)}
    payments = [(1234, "USD", 5), (1234, "JPY", 5), (1234, "KWD", 5), (1234, "EUR", 5)]
    assert in_base(RateTable("EUR", rates), *payments) == [617, 1234, 370, 1234]
    yen = RateTable("JPY", {("EUR", 0): Fraction(100), ("KWD", 0): Fraction(300)})
    assert in_base(yen, (1234, "EUR", 5), (1234, "KWD", 5), (7, "JPY", 5)) == [1234, 370, 7]


def test_halves_go_to_the_even_cent() -> None:
    """0.5, 1.5, 2.5 and 3.5 cents are 0, 2, 2 and 4; a little more than a half goes up."""
    half = RateTable("EUR", {("USD", 0): Fraction("0.5")})
    assert in_base(half, *((amount, "USD", 0) for amount in (1, 3, 5, 7))) == [0, 2, 2, 4]
    more = RateTable("EUR", {("USD", 0): Fraction("0.500000000000001")})
    assert in_base(more, *((amount, "USD", 0) for amount in (1, 3, 5, 7))) == [1, 2, 3, 4]


def test_a_rate_holds_from_midnight_in_utc_until_the_next() -> None:
    """Nothing before the first date; the last millisecond of a day is still the old rate."""
    text = HEAD + "2026-02-01,USD,3\n2026-01-01,USD,2\n2026-01-15,GBP,5\n"
    table = RateTable("EUR", parse_rates(text, "EUR", "rates.csv"))
    times = ["2025-12-31T23:59:59.999", "2026-01-01", "2026-01-31T23:59:59.999", "2026-02-01", "9999-12-31"]
    assert in_base(table, *((10, "USD", at(time)) for time in times)) == [None, 20, 20, 30, 30]
    assert in_base(table, *((10, "GBP", at(time)) for time in times)) == [None, None, 50, 50, 50]


def test_what_has_no_rate_is_told_from_what_is_too_large() -> None:
    """Both are missing, and only the first lacks a rate."""
    table = RateTable("EUR", {("USD", 0): Fraction("1.000000000001")})
    amounts = np.array([10**12, 10**12 - 1, 10**12, 0])
    got, unrated = table.to_base(amounts, ["USD", "USD", "EUR", "GBP"], np.zeros(4, np.int64))
    assert got.tolist() == [MISSING, 10**12, 10**12, MISSING]
    assert unrated.tolist() == [False, False, False, True]


def test_without_rates_only_the_base_currency_has_amounts() -> None:
    """No file is no rate of any other currency."""
    table = read_rates("", "USD")
    assert table.version == NO_FILE
    assert in_base(table, (5, "USD", 0), (5, "EUR", MAX_TIME)) == [5, None]


@given(st.data(), st.sampled_from(BASES))
def test_conversion_is_exact(data: st.DataObject, base: str) -> None:
    """Any amounts by any rates at any time are what fractions say, in 64 bits and beyond."""
    others = [code for code in (*BASES, "USD", "CLF") if code != base]
    keys = st.tuples(st.sampled_from(others), st.integers(0, 40).map(lambda day: day * DAY))
    rates = data.draw(st.dictionaries(keys, RATES, max_size=12))
    times = st.one_of(st.integers(0, 45 * DAY), st.integers(0, 45).map(lambda day: day * DAY))
    amounts = st.one_of(st.integers(0, 1000), st.integers(0, MAX_AMOUNT))
    payments = data.draw(st.lists(st.tuples(amounts, st.sampled_from([*others, base]), times), min_size=1))
    table = RateTable(base, rates)
    assert [by_hand(rates, base, payment) for payment in payments] == in_base(table, *payments)


@given(st.dictionaries(st.tuples(st.sampled_from(CODES), st.integers(0, 20_000)), DECIMALS, min_size=1))
def test_a_file_is_read_as_it_was_written(written: dict[tuple[str, int], Decimal]) -> None:
    """Every rate of every day comes back, in whatever order its line is."""
    lines = [
        f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d},{code},{rate:f}"
        for (code, day), rate in written.items()
    ]
    expected = {(code, day * DAY): Fraction(rate) for (code, day), rate in written.items()}
    base = next(code for code in CODES if code not in {code for code, _ in written})
    assert expected == parse_rates(HEAD + "\n".join(lines), base, "rates.csv")


def test_spreadsheets_may_write_the_file(tmp_path: Path) -> None:
    """A byte order mark, carriage returns, quotes, blanks, empty lines and a rate of 1 of the base."""
    file = tmp_path / "rates.csv"
    file.write_bytes(
        b'\xef\xbb\xbfdate,currency,rate\r\n"2026-01-01", USD ,"2"\r\n\r\n,,\r\n2026-01-01,EUR,1.00\r\n'
    )
    table = read_rates(str(file), "EUR")
    assert in_base(table, (7, "USD", at("2026-01-01")), (7, "EUR", 0)) == [14, 7]


def test_the_version_is_the_hash_of_the_file(tmp_path: Path) -> None:
    """The same bytes have the same version, others another; `sha256sum` tells it too."""
    file = tmp_path / "rates.csv"
    file.write_bytes(b"date,currency,rate\n2026-01-01,USD,0.9\n")
    # printf 'date,currency,rate\n2026-01-01,USD,0.9\n' | sha256sum | cut -c1-12
    assert read_rates(str(file), "EUR").version == "7ccffbeef050"
    file.write_bytes(b"date,currency,rate\n2026-01-01,USD,0.90\n")
    assert read_rates(str(file), "EUR").version != "7ccffbeef050"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Expected the header `date,currency,rate`, got '' - at `rates.csv: line 1`"),
        ("date;currency;rate\n", "got 'date;currency;rate' - at `rates.csv: line 1`; separate cells by"),
        ("date,rate,currency\n", "got 'date,rate,currency' - at `rates.csv: line 1`"),
        (HEAD, "Expected at least one rate, got none - at `rates.csv`"),
        (
            HEAD + "2026-01-01,USD,1\n\n2026-01-02,USd,1",
            "Expected an ISO 4217 code, got 'USd' - at `rates.csv: line 4`; did you mean USD?",
        ),
        (HEAD + "2026-01-01,dollar,1", "got 'dollar' - at `rates.csv: line 2`; "),
        (HEAD + "2026-01-01,XXX,1", "Expected an ISO 4217 code, got 'XXX'"),
        (
            HEAD + "2026-02-30,USD,1",
            "Expected a date from 1970 on, got '2026-02-30' - at `rates.csv: line 2`; write it as in",
        ),
        (HEAD + "01.02.2026,USD,1", "Expected a date from 1970 on, got '01.02.2026'"),
        (HEAD + "2026-W01-1,USD,1", "got '2026-W01-1'"),
        (HEAD + "20260101,USD,1", "got '20260101'"),
        (HEAD + "1969-12-31,USD,1", "got '1969-12-31'"),
        (
            HEAD + "2026-01-01,USD,0",
            "Expected a rate above 0 of at most 15 digits on either side of the point",
        ),
        (HEAD + "2026-01-01,USD,0.000", "got '0.000' - at `rates.csv: line 2`; write what one unit"),
        (HEAD + "2026-01-01,USD,-1", "got '-1'"),
        (HEAD + "2026-01-01,USD,NaN", "got 'NaN'"),
        (HEAD + "2026-01-01,USD,inf", "got 'inf'"),
        (HEAD + "2026-01-01,USD,1e3", "got '1e3'"),
        (HEAD + "2026-01-01,USD,", "got ''"),
        (HEAD + "2026-01-01,USD,٣", "got '٣'"),
        (HEAD + "2026-01-01,USD,1234567890123456", "got '1234567890123456'"),
        (HEAD + "2026-01-01,USD,0,92", "Expected a date, a currency and a rate, got '2026-01-01,USD,0,92'"),
        (HEAD + "2026-01-01;USD;0.92", "got '2026-01-01;USD;0.92' - at `rates.csv: line 2`; separate three"),
        (
            HEAD + "2026-01-01,USD,1\n2026-01-01,GBP,1\n2026-01-01,USD,1",
            "Expected one rate of USD from 2026-01-01 on, got another in line 2 - at `rates.csv: line 4`",
        ),
        (
            HEAD + "2026-01-01,EUR,1.08",
            "Expected no rate of EUR, the base currency of the topology, got 1.08 - at `rates.csv: line 2`",
        ),
        (HEAD + '2026-01-01,"US"D,1', "Expected CSV, got:"),
    ],
)
def test_a_broken_file_is_refused_with_line_and_remedy(text: str, expected: str) -> None:
    """The message says what was expected, what was found, in which line, and what to do; in one line."""
    message = refusal(text)
    assert expected in message
    assert "; " in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file names the setting, bytes that are no UTF-8 their line."""
    missing = tmp_path / "nowhere.csv"
    with pytest.raises(ConfigError, match=r"got No such file or directory - at `.*`; check `\[rates\] file`"):
        read_rates(str(missing), "EUR")
    missing.write_bytes(b"date,currency,rate\n2026-01-01,USD,1\n2026-01-01,\xff,1\n")
    with pytest.raises(ConfigError, match=r"Expected UTF-8, got byte 0xff - at `.*: line 3`"):
        read_rates(str(missing), "EUR")
