"""Ranking quality equals its definition: pairs counted one by one, precision at every fraud."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.quality import average_precision, roc_auc

_SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=40)


def _arrays(scored: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    fraud, score = zip(*scored, strict=True)
    return np.array(fraud), np.array(score) / 7.0


@given(_SCORED)
def test_auc_is_the_share_of_pairs_in_order(scored: list[tuple[bool, int]]) -> None:
    """A tie is half a pair."""
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for bad, high in scored
        for worse, low in scored
        if bad and not worse
    ]
    got = roc_auc(*_arrays(scored))
    if pairs:
        assert sum(pairs) / len(pairs) == pytest.approx(got, abs=1e-12)
    else:
        assert np.isnan(got)


@given(_SCORED)
def test_average_precision_is_the_mean_over_the_frauds(scored: list[tuple[bool, int]]) -> None:
    """The precision among all that score at least as much as a fraud, averaged over the frauds."""
    precisions = []
    for bad, score in scored:
        if bad:
            above = [other for other, high in scored if high >= score]
            precisions.append(sum(above) / len(above))
    got = average_precision(*_arrays(scored))
    if precisions:
        assert sum(precisions) / len(precisions) == pytest.approx(got, abs=1e-12)
    else:
        assert np.isnan(got)


def test_a_ranking_worked_out_by_hand() -> None:
    """Frauds at ranks 1 and 3 of 4: three of four pairs in order; precision 1 and 2/3."""
    fraud, score = np.array([False, True, False, True]), np.array([0.1, 0.9, 0.7, 0.5])
    assert roc_auc(fraud, score) == 0.75
    assert pytest.approx(average_precision(fraud, score)) == (1.0 + 2.0 / 3.0) / 2.0


@given(_SCORED, st.randoms())
def test_order_and_scale_change_nothing(scored: list[tuple[bool, int]], random: np.random.Generator) -> None:
    """Only the ranks of the scores count."""
    fraud, score = _arrays(scored)
    shuffled = list(range(len(scored)))
    random.shuffle(shuffled)
    for measure in (roc_auc, average_precision):
        expected, got = measure(fraud, score), measure(fraud[shuffled], np.exp(score[shuffled]) * 10.0)
        assert expected == pytest.approx(got, abs=1e-12, nan_ok=True)


def test_nothing_scored_is_no_figure() -> None:
    """Without payments both are NaN and nothing warns."""
    none, nothing = np.array([], bool), np.array([], float)
    assert np.isnan(roc_auc(none, nothing))
    assert np.isnan(average_precision(none, nothing))
