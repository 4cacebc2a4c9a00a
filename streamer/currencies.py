"""The ISO 4217 codes that an amount may have, and how many decimal places its minor unit stands for."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, get_args

# Codes in circulation, then those withdrawn since 2018, which backfills still carry. Metals, baskets and test
# codes (XAU, XDR, XTS, XXX, ...) have no minor unit, so an amount in minor units of them means nothing.
Currency = Literal[
    "AED", "AFN", "ALL", "AMD", "AOA", "ARS", "AUD", "AWG", "AZN", "BAM", "BBD", "BDT", "BHD", "BIF",
    "BMD", "BND", "BOB", "BOV", "BRL", "BSD", "BTN", "BWP", "BYN", "BZD", "CAD", "CDF", "CHE", "CHF",
    "CHW", "CLF", "CLP", "CNY", "COP", "COU", "CRC", "CUP", "CVE", "CZK", "DJF", "DKK", "DOP", "DZD",
    "EGP", "ERN", "ETB", "EUR", "FJD", "FKP", "GBP", "GEL", "GHS", "GIP", "GMD", "GNF", "GTQ", "GYD",
    "HKD", "HNL", "HTG", "HUF", "IDR", "ILS", "INR", "IQD", "IRR", "ISK", "JMD", "JOD", "JPY", "KES",
    "KGS", "KHR", "KMF", "KPW", "KRW", "KWD", "KYD", "KZT", "LAK", "LBP", "LKR", "LRD", "LSL", "LYD",
    "MAD", "MDL", "MGA", "MKD", "MMK", "MNT", "MOP", "MRU", "MUR", "MVR", "MWK", "MXN", "MXV", "MYR",
    "MZN", "NAD", "NGN", "NIO", "NOK", "NPR", "NZD", "OMR", "PAB", "PEN", "PGK", "PHP", "PKR", "PLN",
    "PYG", "QAR", "RON", "RSD", "RUB", "RWF", "SAR", "SBD", "SCR", "SDG", "SEK", "SGD", "SHP", "SLE",
    "SOS", "SRD", "SSP", "STN", "SVC", "SYP", "SZL", "THB", "TJS", "TMT", "TND", "TOP", "TRY", "TTD",
    "TWD", "TZS", "UAH", "UGX", "USD", "USN", "UYI", "UYU", "UYW", "UZS", "VED", "VES", "VND", "VUV",
    "WST", "XAD", "XAF", "XCD", "XCG", "XOF", "XPF", "YER", "ZAR", "ZMW", "ZWG",
    "ANG", "BGN", "CUC", "HRK", "MRO", "SLL", "STD", "VEF", "ZWL",
]  # fmt: skip

CODES: Final[tuple[str, ...]] = get_args(Currency)

_UNUSUAL: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

EXPONENTS: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(CODES, 2) | {code: places for places, codes in _UNUSUAL.items() for code in codes.split()}
)
"""Decimal places of the minor unit, per code: 1,234 minor units are 12.34 EUR, 1,234 JPY, 1.234 KWD."""


def minor_units(code: str) -> int:
    """How many minor units make one unit of a currency; `KeyError` for a code that is not known.

    >>> minor_units("EUR"), minor_units("JPY"), minor_units("KWD")
    (100, 1, 1000)
    """
    return int(10 ** EXPONENTS[code])
