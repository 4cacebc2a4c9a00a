"""What shops sell: category codes, shares of payments, amounts, how much is online and comes back."""

import numpy as np

from streamer.batch import Bool, Float64

# category code, share of payments, median in EUR, sigma of its logarithm, share online, refunds, marks
# marks: r = subscriptions, h = high value and easily resold, t = where stolen cards are tried out
_TRADES = (
    (b"5411", 0.235, 23.0, 0.80, 0.06, 0.003, ""),
    (b"5812", 0.105, 21.0, 0.65, 0.15, 0.003, ""),
    (b"5814", 0.080, 9.0, 0.50, 0.20, 0.003, ""),
    (b"5541", 0.050, 46.0, 0.45, 0.00, 0.003, ""),
    (b"4111", 0.065, 5.0, 0.80, 0.45, 0.010, ""),
    (b"4121", 0.030, 13.0, 0.50, 0.70, 0.005, ""),
    (b"5651", 0.070, 45.0, 0.75, 0.55, 0.150, ""),
    (b"5732", 0.030, 95.0, 1.00, 0.60, 0.070, "h"),
    (b"5999", 0.110, 26.0, 0.90, 0.90, 0.070, ""),
    (b"5816", 0.045, 9.0, 0.80, 1.00, 0.015, "rt"),
    (b"4722", 0.012, 210.0, 0.80, 0.95, 0.060, "h"),
    (b"7011", 0.020, 115.0, 0.70, 0.60, 0.060, ""),
    (b"5912", 0.045, 16.0, 0.65, 0.15, 0.010, ""),
    (b"5712", 0.018, 85.0, 1.00, 0.45, 0.060, ""),
    (b"5944", 0.006, 190.0, 1.00, 0.35, 0.060, "h"),
    (b"5947", 0.012, 40.0, 0.70, 0.60, 0.010, "ht"),
    (b"4899", 0.022, 11.0, 0.40, 1.00, 0.005, "rt"),
    (b"4814", 0.020, 24.0, 0.50, 0.80, 0.003, "r"),
    (b"8398", 0.010, 20.0, 0.80, 0.80, 0.003, "rt"),
    (b"6300", 0.015, 48.0, 0.60, 0.90, 0.005, "r"),
)
CODES = [trade[0] for trade in _TRADES]
WEIGHT: Float64 = np.array([trade[1] for trade in _TRADES])
MEDIAN: Float64 = np.array([trade[2] for trade in _TRADES])
SIGMA: Float64 = np.array([trade[3] for trade in _TRADES])
ONLINE: Float64 = np.array([trade[4] for trade in _TRADES])
REFUNDS: Float64 = np.array([trade[5] for trade in _TRADES])


def marked(mark: str) -> Bool:
    """Which trades carry a mark."""
    return np.array([mark in trade[6] for trade in _TRADES])
