"""How well scores rank fraud: area under the ROC curve and average precision."""

import numpy as np

from streamer.batch import Bool, Float64


def roc_auc(fraud: Bool, score: Float64) -> float:
    """Probability that a fraud scores above a good payment, ties counting half; NaN without both kinds.

    >>> roc_auc(np.array([False, True, False, True]), np.array([0.1, 0.4, 0.35, 0.8]))
    1.0
    """
    positives, negatives = int(fraud.sum()), int((~fraud).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2.0)[inverse]
    return float((ranks[fraud].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def average_precision(fraud: Bool, score: Float64) -> float:
    """Mean precision over the frauds found, from the highest score down, ties together; NaN without fraud.

    >>> round(average_precision(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])), 4)
    0.8333
    """
    if not fraud.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(fraud[order])
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    precision = found[ends] / (ends + 1)
    gained = np.diff(np.concatenate(([0], found[ends])))
    return float((precision * gained).sum() / fraud.sum())
