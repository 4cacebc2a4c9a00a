"""Countries and their money: where people live, shops sell and ips are."""

import numpy as np

from streamer.batch import Float64, Int64
from streamer.currencies import minor_units
from streamer.simulator.draws import cumulate

# name, currency, latitude, longitude, degrees of spread, hours from UTC, share of people, price level
_HOMES = (
    (b"DE", 0, 51.0, 9.8, 1.6, 1, 0.21, 1.0),
    (b"FR", 0, 47.0, 2.5, 1.8, 1, 0.15, 1.0),
    (b"GB", 1, 52.6, -1.4, 1.2, 0, 0.15, 1.05),
    (b"IT", 0, 43.5, 11.8, 1.5, 1, 0.10, 0.9),
    (b"ES", 0, 40.2, -3.6, 1.8, 1, 0.09, 0.85),
    (b"NL", 0, 52.2, 5.2, 0.5, 1, 0.07, 1.05),
    (b"PL", 2, 52.0, 19.3, 1.5, 1, 0.07, 0.7),
    (b"SE", 3, 59.3, 16.0, 1.5, 1, 0.04, 1.1),
    (b"CH", 4, 47.1, 8.0, 0.5, 1, 0.03, 1.4),
    (b"AT", 0, 47.8, 14.5, 0.8, 1, 0.03, 1.05),
    (b"US", 5, 39.5, -88.0, 5.0, -6, 0.05, 1.1),
    (b"JP", 6, 35.6, 138.0, 1.2, 9, 0.005, 0.95),
    (b"BR", 7, -21.5, -46.0, 2.5, -3, 0.005, 0.6),
)
# Shops of these are not simulated; ips, rarely of travellers and proxies, more often of fraudsters, are.
_FAR = (
    (b"RO", 45.2, 25.5),
    (b"TR", 40.0, 32.0),
    (b"VN", 15.5, 107.5),
    (b"ID", -6.5, 108.0),
    (b"IN", 22.0, 78.0),
    (b"NG", 7.5, 5.5),
    (b"UA", 49.5, 31.0),
    (b"MX", 20.5, -100.0),
)
CURRENCIES = (b"EUR", b"GBP", b"PLN", b"SEK", b"CHF", b"USD", b"JPY", b"BRL")
MINOR_PER_EURO = np.array([100, 85, 431, 1143, 95, 108, 164, 583], np.float64)

HOMES = len(_HOMES)
NAMES = [home[0] for home in _HOMES] + [far[0] for far in _FAR]
CURRENCY = np.array([home[1] for home in _HOMES], np.uint8)
LATITUDE: Float64 = np.array([home[2] for home in _HOMES] + [far[1] for far in _FAR])
LONGITUDE: Float64 = np.array([home[3] for home in _HOMES] + [far[2] for far in _FAR])
SPREAD: Float64 = np.array([home[4] for home in _HOMES] + [2.0] * len(_FAR))
UTC_HOURS: Int64 = np.array([home[5] for home in _HOMES], np.int64)
SHARE: Float64 = np.array([home[6] for home in _HOMES])
PRICES: Float64 = np.array([home[7] for home in _HOMES])
PEOPLE = cumulate(SHARE)


def rates_csv() -> str:
    """What the simulated money is worth in euros, as a file of rates.

    >>> print(rates_csv()[:44])
    date,currency,rate
    1970-01-01,GBP,1.17647059
    """
    lines = ["date,currency,rate"]
    for code, minor in zip(CURRENCIES[1:], MINOR_PER_EURO[1:].tolist(), strict=True):
        lines.append(f"1970-01-01,{code.decode()},{minor_units(code.decode()) / minor:.8f}")
    return "\n".join(lines) + "\n"
