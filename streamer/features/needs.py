"""What features need of the kernels: shared edges, lanes, lists, tallies and measures, each once."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from streamer.features import answers
from streamer.features.aggregates import Feature
from streamer.features.fields import Both, Column, Either, Known, Not, Test, Where, lat, lon
from streamer.features.layout import (
    COUNT_LIMBS,
    KEEP_ALL,
    KEEP_GREATEST,
    KEEP_LEAST,
    LANE_COUNT,
    LANE_CUBE,
    LANE_DECAYED,
    LANE_DECAYED_COUNT,
    LANE_HIGH,
    LANE_LOW,
    LANE_SUM,
    LIMBS,
    MEASURE_AGE,
    MEASURE_DISTINCT,
    MEASURE_EXTREME,
    MEASURE_FIRST,
    MEASURE_IS_MODE,
    MEASURE_LANE,
    MEASURE_LAST,
    MEASURE_LEAST_GAP,
    MEASURE_LIFE,
    MEASURE_MODE,
    MEASURE_MOST,
    MEASURE_NOVEL,
    MEASURE_OWN,
    MEASURE_RANK,
    MEASURE_SESSION_AGE,
    MEASURE_SESSION_LANE,
    MEASURE_SINCE_FIRST,
    MEASURE_SINCE_LAST,
    MEASURE_SINCE_LATEST,
    MEASURE_SPREAD,
    MEASURE_TALLY,
    NOW,
    TALLY_RANKS,
    TALLY_VALUES,
)
from streamer.features.tallies import PARTS

__all__ = ["OUTPUT", "RANGED", "Mask", "Needs", "columns_of", "kept_for"]

T = TypeVar("T", bound=Hashable)

Mask = tuple[Where | None, Column | None]
"""Events that meet a condition and have a value in a column."""

OUTPUT: Final = 3 + LIMBS + COUNT_LIMBS
"""Numbers of an output: kind, parameter, delay, and the most measures that one is made of."""

RANGED: Final = frozenset(
    {
        MEASURE_EXTREME, MEASURE_FIRST, MEASURE_LAST, MEASURE_SINCE_FIRST, MEASURE_SINCE_LAST,
        MEASURE_SINCE_LATEST, MEASURE_LEAST_GAP,
    }
)  # fmt: skip
"""Kinds of measures whose subject is a range."""

_PLACES: Final = (lat.column, lon.column)
_KNOWN_PLACE: Final = Both(Known(lat.column), Known(lon.column))
_GEO: Final = frozenset({"distance_from_last", "geo_velocity"})


def columns_of(feature: Feature) -> Iterator[Column]:
    """The fields that have to be kept of events for a feature."""
    if feature.where is not None:
        yield from _columns(feature.where)
    if feature.column is not None:
        yield feature.column
    if feature.kind in _GEO:
        yield from _PLACES


def kept_for(feature: Feature) -> Iterator[Column]:
    """All that has to be kept for a feature: fields of events, and what comes from no events of windows."""
    yield from columns_of(feature)
    if feature.kind in ("fraud_count", "fraud_rate"):
        yield Column("known frauds", text=False)
    if feature.kind in _LIVES:
        yield Column(f"all ever of {feature.name}", text=False)


@dataclass
class Needs:
    """Everything the features of an entity need; `kept` are the columns with their places."""

    kept: Mapping[Column, int]
    masks: dict[Mask, int] = field(default_factory=dict)
    edges: dict[int, int] = field(default_factory=dict)
    lanes: dict[tuple[int, int, int, int, int], int] = field(default_factory=dict)
    distincts: dict[tuple[int, int], int] = field(default_factory=dict)
    spans: dict[tuple[int, int, int], int] = field(default_factory=dict)
    lists: dict[tuple[int, int, int, int, int], int] = field(default_factory=dict)
    ranges: dict[tuple[int, int], int] = field(default_factory=dict)
    sessions: dict[tuple[int, int, int], int] = field(default_factory=dict)
    lives: dict[int, int] = field(default_factory=dict)
    tallies: dict[tuple[int, int, int, int, int], int] = field(default_factory=dict)
    measures: dict[tuple[int, int, int, int, int, int, int], int] = field(default_factory=dict)
    collected: dict[tuple[int, int, int, int, int], int] = field(default_factory=dict)

    def add(self, feature: Feature) -> list[int]:
        """Take note of what a feature needs; answers its output, as `Plan.outputs` has it."""
        where = feature.where
        if feature.kind in _GEO:
            where = _KNOWN_PLACE if where is None else Both(_KNOWN_PLACE, where)
        window = _Window(
            self,
            feature,
            column=self.kept[feature.column] if feature.column else 0,
            mask=place(self.masks, (where, feature.column)),
            left=-1 if feature.kind in _LIVES else place(self.edges, feature.delay + feature.window),
            right=place(self.edges, feature.delay) if feature.delay else NOW,
        )
        kind, parameter, measures = _KINDS[feature.kind](window)
        output = [kind, parameter, feature.delay, *measures]
        return output + [0] * (OUTPUT - len(output))


def place(known: dict[T, int], item: T) -> int:
    """Where an item stands, at the end if it is new."""
    return known.setdefault(item, len(known))


@dataclass(frozen=True)
class _Window:
    """The events that a feature looks at, and how to ask for measures of them."""

    needs: Needs
    feature: Feature
    column: int
    mask: int
    left: int
    right: int

    def measure(
        self, kind: int, subject: int, parameter: int = 0, column: int = 0, *, before: bool | None = None
    ) -> int:
        without = self.feature.before_payment if before is None else before
        key = (kind, subject, self.left, self.right, int(without), parameter, column)
        return place(self.needs.measures, key)

    def lane(self, kind: int, half_life: int = 0, part: int = 0) -> int:
        counts = kind in (LANE_COUNT, LANE_DECAYED_COUNT)
        key = (kind, 0 if counts else self.column, self.mask, half_life, part)
        return place(self.needs.lanes, key)

    def lanes(self, *kinds: int) -> list[int]:
        return [self.measure(MEASURE_LANE, self.lane(kind)) for kind in kinds]

    def limbs(self, kind: int, count: int, half_life: int = 0) -> list[int]:
        return [self.measure(MEASURE_LANE, self.lane(kind, half_life, part)) for part in range(count)]

    def list_of(self, keep: int) -> int:
        column = 0 if keep == KEEP_ALL else self.column
        return place(self.needs.lists, (keep, column, self.mask, self.right, -1))

    def range_of(self, listed: int) -> int:
        return place(self.needs.ranges, (listed, self.left))

    def extreme(self, keep: int) -> int:
        return self.measure(MEASURE_EXTREME, self.range_of(self.list_of(keep)), column=self.column)

    def of_all(self, kind: int, parameter: int = 0, column: int = 0, *, before: bool | None = None) -> int:
        subject = self.range_of(self.list_of(KEEP_ALL))
        return self.measure(kind, subject, parameter, column, before=before)

    def tally(self, kind: int, measure: int, parameter: int = 0) -> int:
        key = (kind, self.column, self.mask, self.left, self.right)
        return self.measure(measure, place(self.needs.tallies, key), parameter)

    def distinct(self) -> int:
        return place(self.needs.distincts, (self.column, self.mask))


Output = tuple[int, int, list[int]]


def _of_lanes(kind: int, *lanes: int) -> Callable[[_Window], Output]:
    return lambda window: (kind, 0, window.lanes(*lanes))


def _skewness(window: _Window) -> Output:
    lanes = window.lanes(LANE_SUM, LANE_COUNT, LANE_HIGH, LANE_LOW)
    return answers.SKEWNESS, 0, [*lanes, *window.limbs(LANE_CUBE, 3)]


def _of_all(measure: int) -> Callable[[_Window], Output]:
    return lambda window: (answers.PLAIN, 0, [window.of_all(measure)])


def _distinct(window: _Window) -> Output:
    span = place(window.needs.spans, (window.distinct(), window.left, window.right))
    return answers.PLAIN, 0, [window.measure(MEASURE_DISTINCT, span)]


def _first(window: _Window) -> Output:
    return answers.PLAIN, 0, [window.of_all(MEASURE_FIRST, column=window.column)]


def _last(window: _Window) -> Output:
    steps = max(int(window.feature.parameter) - 1, 0)
    return answers.PLAIN, 0, [window.of_all(MEASURE_LAST, steps, window.column)]


def _mean_gap(window: _Window) -> Output:
    ages = [window.of_all(MEASURE_SINCE_FIRST), window.of_all(MEASURE_SINCE_LATEST)]
    return answers.GAP, 0, [*ages, *window.lanes(LANE_COUNT)]


def _min_gap(window: _Window) -> Output:
    whole = window.list_of(KEEP_ALL)
    gaps = place(window.needs.lists, (KEEP_LEAST, 0, window.mask, NOW, whole))
    return answers.PLAIN, 0, [window.measure(MEASURE_LEAST_GAP, window.range_of(gaps))]


def _decayed(window: _Window) -> Output:
    half_life = int(window.feature.parameter)
    counts = window.limbs(LANE_DECAYED_COUNT, COUNT_LIMBS, half_life)
    if window.feature.kind == "decayed_count":
        return answers.DECAYED_COUNT, half_life, counts
    sums = window.limbs(LANE_DECAYED, LIMBS, half_life)
    if window.feature.kind == "decayed_sum":
        return answers.DECAYED, half_life, sums
    return answers.DECAYED_MEAN, half_life, [*sums, *counts]


def _place(window: _Window) -> Output:
    columns = [window.needs.kept[column] for column in _PLACES]
    last = [window.of_all(MEASURE_LAST, column=column, before=True) for column in columns]
    own = [window.measure(MEASURE_OWN, 0, column=column) for column in columns]
    if window.feature.kind == "distance_from_last":
        return answers.DISTANCE, 0, [*last, *own]
    return answers.VELOCITY, 0, [*last, *own, window.of_all(MEASURE_SINCE_LAST)]


def _session(window: _Window) -> Output:
    whole = window.list_of(KEEP_ALL)
    key = (whole, int(window.feature.parameter), window.range_of(whole))
    session = place(window.needs.sessions, key)
    if window.feature.kind == "session_duration":
        return answers.PLAIN, 0, [window.measure(MEASURE_SESSION_AGE, 0, session)]
    lane = window.lane(LANE_COUNT if window.feature.kind == "session_count" else LANE_SUM)
    return answers.PLAIN, 0, [window.measure(MEASURE_SESSION_LANE, lane, session)]


def _of_life(measure: int) -> Callable[[_Window], Output]:
    def output(window: _Window) -> Output:
        return answers.PLAIN, 0, [window.measure(measure, place(window.needs.lives, window.mask))]

    return output


def _mode(window: _Window) -> Output:
    text = window.feature.column is not None and window.feature.column.text
    return answers.PLAIN, 0, [window.tally(TALLY_VALUES, MEASURE_IS_MODE if text else MEASURE_MODE)]


def _of_tally(kind: int, *measures: int) -> Callable[[_Window], Output]:
    return lambda window: (kind, 0, [window.tally(TALLY_VALUES, measure) for measure in measures])


def _quantile(window: _Window) -> Output:
    parts = round(window.feature.parameter * PARTS)
    return answers.RANK, 0, [window.tally(TALLY_RANKS, MEASURE_RANK, parts)]


def _collected(window: _Window) -> Output:
    key = (window.column, window.mask, window.left, window.right, int(window.feature.before_payment))
    return answers.ELSEWHERE, place(window.needs.collected, key), []


_LIVES: Final = frozenset({"lifetime_count", "lifetime_age"})

_KINDS: Final[Mapping[str, Callable[[_Window], Output]]] = MappingProxyType(
    {
        "count": _of_lanes(answers.PLAIN, LANE_COUNT),
        "sum": _of_lanes(answers.PLAIN, LANE_SUM),
        "mean": _of_lanes(answers.MEAN, LANE_SUM, LANE_COUNT),
        "variance": _of_lanes(answers.VARIANCE, LANE_SUM, LANE_COUNT, LANE_HIGH, LANE_LOW),
        "std": _of_lanes(answers.STD, LANE_SUM, LANE_COUNT, LANE_HIGH, LANE_LOW),
        "skewness": _skewness,
        "max": lambda window: (answers.PLAIN, 0, [window.extreme(KEEP_GREATEST)]),
        "min": lambda window: (answers.PLAIN, 0, [window.extreme(KEEP_LEAST)]),
        "range": lambda window: (
            answers.DIFFERENCE, 0, [window.extreme(KEEP_GREATEST), window.extreme(KEEP_LEAST)],
        ),
        "distinct": _distinct,
        "novelty": lambda window: (answers.PLAIN, 0, [window.measure(MEASURE_NOVEL, window.distinct())]),
        "first": _first,
        "last": _last,
        "since_first": _of_all(MEASURE_SINCE_FIRST),
        "since_last": _of_all(MEASURE_SINCE_LAST),
        "mean_gap": _mean_gap,
        "min_gap": _min_gap,
        "decayed_count": _decayed,
        "decayed_sum": _decayed,
        "decayed_mean": _decayed,
        "distance_from_last": _place,
        "geo_velocity": _place,
        "session_count": _session,
        "session_duration": _session,
        "session_sum": _session,
        "lifetime_count": _of_life(MEASURE_LIFE),
        "lifetime_age": _of_life(MEASURE_AGE),
        "mode": _mode,
        "mode_share": _of_tally(answers.SHARE, MEASURE_MOST, MEASURE_TALLY),
        "entropy": _of_tally(answers.ENTROPY, MEASURE_SPREAD, MEASURE_TALLY, MEASURE_MOST),
        "quantile": _quantile,
        "custom": _collected,
    }
)  # fmt: skip


def _columns(where: Where) -> Iterator[Column]:
    match where:
        case Test(column=column) | Known(column=column):
            yield column
        case Both(left, right) | Either(left, right):
            yield from _columns(left)
            yield from _columns(right)
        case Not(condition):
            yield from _columns(condition)
