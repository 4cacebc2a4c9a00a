"""From scores and features to an action and its reasons, by the rules of a policy."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.batch import Bool, Float64
from streamer.events import Reason
from streamer.topology import ACTIONS, Policy, Rule, ScoreCondition

OPERATORS: Mapping[str, Callable[[Float64, float], Bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}

MOST_REASONS = 3
"""How many features explain a score."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a policy says of n payments: `action` uint8 (n,), an index into `ACTIONS`, and their reasons."""

    action: npt.NDArray[np.uint8]
    reasons: list[list[Reason]]


class Judge:
    """A policy made ready to judge batches.

    `models` are the columns of the scores, `columns` the feature columns by name.
    """

    def __init__(self, policy: Policy, models: Sequence[str], columns: Mapping[str, int]) -> None:
        self._rules = [_Compiled.of(rule, models, columns) for rule in policy.rules]

    def judge(
        self,
        scores: Float64,
        features: Float64,
        contributions: Callable[[int, npt.NDArray[np.intp]], list[list[Reason]]],
    ) -> Judged:
        """Judge payments by scores (n, models) and features (n, F).

        `contributions(model, rows)` names, for each of the rows, the features that raised that model's score
        the most; it is only asked for rows that a rule on a score has caught, and once for each of them.
        """
        n = len(scores)
        action = np.zeros(n, np.uint8)
        open_rows = np.ones(n, np.bool_)
        reasons: list[list[Reason]] = [[] for _ in range(n)]
        explained = np.zeros((scores.shape[1], n), np.bool_)
        for rule in self._rules:
            rows = np.flatnonzero(rule.holds(scores, features))
            if not rows.size:
                continue
            deciding = rows[open_rows[rows]]
            action[deciding] = rule.action
            open_rows[deciding] = False
            if not rule.action:  # what speaks for a payment is no reason against it
                continue
            caught = rows[action[rows] > 0]
            if rule.model is None:
                for row in caught.tolist():
                    reason = Reason(rule.reason, rule.feature, float(features[row, rule.column]))
                    if reason not in reasons[row]:
                        reasons[row].append(reason)
                continue
            caught = caught[~explained[rule.model, caught]]
            explained[rule.model, caught] = True
            if caught.size:
                for row, raised in zip(caught.tolist(), contributions(rule.model, caught), strict=True):
                    reasons[row].extend(_under(rule.reason, raised))
        return Judged(action, reasons)


def _under(code: str, raised: Sequence[Reason]) -> list[Reason]:
    """The first of what raised a score, under the code of the rule that it met; never nothing."""
    named = [Reason(code, reason.feature, reason.value) for reason in raised[:MOST_REASONS]]
    return named or [Reason(code)]


@dataclass(frozen=True, slots=True)
class _Compiled:
    action: int
    reason: str
    compare: Callable[[Float64, float], Bool]
    threshold: float
    model: int | None
    column: int
    feature: str

    @classmethod
    def of(cls, rule: Rule, models: Sequence[str], columns: Mapping[str, int]) -> "_Compiled":
        condition = rule.condition
        compare = OPERATORS[condition.operator]
        action = ACTIONS.index(rule.action)
        if isinstance(condition, ScoreCondition):
            model = list(models).index(condition.model)
            return cls(action, rule.reason, compare, condition.threshold, model, -1, condition.model)
        feature = condition.feature
        return cls(action, rule.reason, compare, condition.threshold, None, columns[feature], feature)

    def holds(self, scores: Float64, features: Float64) -> Bool:
        """Which payments meet the condition; an absent feature meets none."""
        if self.model is not None:
            return self.compare(scores[:, self.model], self.threshold)
        return self.compare(features[:, self.column], self.threshold) & ~np.isnan(features[:, self.column])
