"""Turns the features of an entity into what the kernels compute: shared edges, lanes, lists and measures."""

import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np

from streamer.batch import Int64
from streamer.errors import TopologyError
from streamer.features.aggregates import Feature
from streamer.features.answers import DIFFERENCE, MEAN, PLAIN, STD, VARIANCE
from streamer.features.blocks import HASHED, NUMBER
from streamer.features.declarations import Entity
from streamer.features.fields import Both, Column, Either, Not, Test, Where
from streamer.features.layout import (
    CHUNK_HEADER,
    CHUNK_ROWS,
    COLUMNS,
    KEEP_ALL,
    KEEP_GREATEST,
    KEEP_LEAST,
    LANE_COUNT,
    LANE_HIGH,
    LANE_LOW,
    LANE_SUM,
    MEASURE_DISTINCT,
    MEASURE_EXTREME,
    MEASURE_FIRST,
    MEASURE_LANE,
    MEASURE_LAST,
    MEASURE_SINCE_FIRST,
    MEASURE_SINCE_LAST,
    NOW,
    TOTALS,
    Plan,
    Shape,
    Work,
)

T = TypeVar("T", bound=Hashable)

MOST_MASKS: Final = 31
"""A row has 31 bits for the conditions it meets."""

Mask = tuple[Where | None, Column | None]
"""Events that meet a condition and have a value in a column."""


@dataclass(frozen=True)
class Compiled:
    """An entity made ready for the kernels: `columns` are kept of an event, `masks` are its bits."""

    entity: Entity
    plan: Plan
    columns: tuple[Column, ...]
    masks: tuple[Mask, ...]
    identity: int
    column_identities: Int64
    column_kinds: Int64

    def work(self) -> Work:
        """Room for the kernels to answer one payment in."""
        plan = self.plan
        sizes = (
            len(plan.edges), len(plan.edges), len(plan.lanes), len(plan.lanes), len(plan.spans),
            len(plan.ranges), len(plan.lists), len(plan.distincts), len(plan.distincts), 2,
            len(plan.measures),
        )  # fmt: skip
        return Work(*(np.zeros(max(size, 1), np.int64) for size in sizes))


def compile_entity(entity: Entity, allowed_lateness: int) -> Compiled:
    """Lay out the memory of an entity and list what is to be computed; events may be late by so many ms."""
    parts = _Parts()
    kept: dict[Column, int] = {}
    for feature in entity.features:
        for column in columns_of(feature):
            kept.setdefault(column, len(kept))
    _check_columns(entity, kept)
    outputs = [_output(parts, feature, kept) for feature in entity.features]
    if len(parts.masks) > MOST_MASKS:
        raise TopologyError(
            f"entity {entity.name!r}: expected at most {MOST_MASKS} different conditions and optional fields,"
            f" got {len(parts.masks)}; split it into two entities with the same keys"
        )
    columns = tuple(kept)
    return Compiled(
        entity=entity,
        plan=_lay_out(
            parts, outputs, [_scale(feature) for feature in entity.features], len(columns), allowed_lateness
        ),
        columns=columns,
        masks=tuple(parts.masks),
        identity=zlib.crc32("/".join((entity.name, *entity.keys)).encode()),
        column_identities=np.array([_identity(column) for column in columns], np.int64),
        column_kinds=np.array([HASHED if column.text else NUMBER for column in columns], np.int64),
    )


def columns_of(feature: Feature) -> tuple[Column, ...]:
    """The fields that are kept of every event for a feature."""
    return (*_columns(feature.where), *((feature.column,) if feature.column else ()))


@dataclass
class _Parts:
    """Everything the features need, each once."""

    masks: dict[Mask, int] = field(default_factory=dict)
    edges: dict[int, int] = field(default_factory=dict)
    lanes: dict[tuple[int, int, int], int] = field(default_factory=dict)
    distincts: dict[tuple[int, int], int] = field(default_factory=dict)
    spans: dict[tuple[int, int, int], int] = field(default_factory=dict)
    lists: dict[tuple[int, int, int, int], int] = field(default_factory=dict)
    ranges: dict[tuple[int, int], int] = field(default_factory=dict)
    measures: dict[tuple[int, int, int, int, int], int] = field(default_factory=dict)


def _place(known: dict[T, int], item: T) -> int:
    return known.setdefault(item, len(known))


_OF_LANES: Final[Mapping[str, tuple[int, tuple[int, ...]]]] = {
    "count": (PLAIN, (LANE_COUNT,)),
    "sum": (PLAIN, (LANE_SUM,)),
    "mean": (MEAN, (LANE_SUM, LANE_COUNT)),
    "variance": (VARIANCE, (LANE_SUM, LANE_COUNT, LANE_HIGH, LANE_LOW)),
    "std": (STD, (LANE_SUM, LANE_COUNT, LANE_HIGH, LANE_LOW)),
}
_OF_LISTS: Final[Mapping[str, tuple[int, int, tuple[int, ...]]]] = {
    "max": (PLAIN, MEASURE_EXTREME, (KEEP_GREATEST,)),
    "min": (PLAIN, MEASURE_EXTREME, (KEEP_LEAST,)),
    "range": (DIFFERENCE, MEASURE_EXTREME, (KEEP_GREATEST, KEEP_LEAST)),
    "first": (PLAIN, MEASURE_FIRST, (KEEP_ALL,)),
    "last": (PLAIN, MEASURE_LAST, (KEEP_ALL,)),
    "since_first": (PLAIN, MEASURE_SINCE_FIRST, (KEEP_ALL,)),
    "since_last": (PLAIN, MEASURE_SINCE_LAST, (KEEP_ALL,)),
}


def _output(parts: _Parts, feature: Feature, kept: dict[Column, int]) -> list[int]:
    """The kind of a feature's output and the measures it is made of."""
    column = kept[feature.column] if feature.column else 0
    always = feature.column is None or feature.column.name == "amount"
    mask = _place(parts.masks, (feature.where, None if always else feature.column))
    left = _place(parts.edges, feature.delay + feature.window)
    right = _place(parts.edges, feature.delay) if feature.delay else NOW

    def measure(kind: int, subject: int) -> int:
        return _place(parts.measures, (kind, subject, left, right, int(feature.before_payment)))

    if feature.kind == "distinct":
        d = _place(parts.distincts, (column, mask))
        output = PLAIN
        measures = [measure(MEASURE_DISTINCT, _place(parts.spans, (d, left, right)))]
    elif feature.kind in _OF_LANES:
        output, kinds = _OF_LANES[feature.kind]
        lanes = [_place(parts.lanes, (kind, 0 if kind == LANE_COUNT else column, mask)) for kind in kinds]
        measures = [measure(MEASURE_LANE, lane) for lane in lanes]
    else:
        output, kind, keeps = _OF_LISTS[feature.kind]
        lists = [_place(parts.lists, (keep, column, mask, right)) for keep in keeps]
        measures = [measure(kind, _place(parts.ranges, (k, left))) for k in lists]
    return [output, *measures, *[0] * (4 - len(measures))]


def _lay_out(
    parts: _Parts, outputs: list[list[int]], scales: list[float], columns: int, allowed_lateness: int
) -> Plan:
    """Give everything its place in rows and headers."""
    lanes_at = COLUMNS + columns
    links = 2 * (lanes_at + len(parts.lanes))
    distincts = []
    for column, mask in parts.distincts:
        distincts.append([column, mask, links, 0])
        links += 3
    lists_at = links
    row = (links + 2 * len(parts.lists) + 1) // 2
    edge_links = 2 * (TOTALS + len(parts.lanes))
    numbers = edge_links + len(parts.edges)
    spans = [(*span, numbers + place) for place, span in enumerate(parts.spans)]
    numbers += len(spans)
    lists: list[tuple[int, ...]] = []
    ranges: list[tuple[int, ...]] = []
    moved: dict[tuple[int, int], int] = {}
    for k, (keep, column, mask, right) in enumerate(parts.lists):
        back = numbers
        numbers += 1
        begin = len(ranges)
        for of, left in parts.ranges:
            if of == k:
                moved[of, left] = len(ranges)
                ranges.append((k, left, numbers))
                numbers += 1
        lists.append((keep, column, mask, right, lists_at + 2 * k, back, begin, len(ranges)))
    words = (numbers + 1) // 2
    for distinct in distincts:
        distinct[3] = words
        words += 1
    by_place = list(parts.ranges)
    measures = [
        (kind, moved[by_place[subject]] if kind >= MEASURE_EXTREME else subject, left, right, before)
        for kind, subject, left, right, before in parts.measures
    ]
    return Plan(
        shape=Shape(
            row=row,
            chunk=CHUNK_HEADER + CHUNK_ROWS * row,
            header=words,
            lanes=lanes_at,
            edge_links=edge_links,
            retention=max(parts.edges) + allowed_lateness,
        ),
        edges=np.array(list(parts.edges), np.int64),
        lanes=_table(list(parts.lanes), 3),
        distincts=_table([tuple(one) for one in distincts], 4),
        spans=_table(spans, 4),
        lists=_table(lists, 8),
        ranges=_table(ranges, 3),
        measures=_table(measures, 5),
        outputs=np.array(outputs, np.int64),
        scales=np.array(scales),
    )


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Int64:
    return np.array(rows, np.int64).reshape(len(rows), width)


def _columns(where: Where | None) -> tuple[Column, ...]:
    match where:
        case Test(column=column):
            return (column,)
        case Both(left, right) | Either(left, right):
            return (*_columns(left), *_columns(right))
        case Not(condition):
            return _columns(condition)
    return ()


def _check_columns(entity: Entity, columns: dict[Column, int]) -> None:
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise TopologyError(
                f"entity {entity.name!r} uses field {name!r} with two types or numbers of decimals;"
                " declare it once and use that"
            )


def _identity(column: Column) -> int:
    return zlib.crc32(f"{column.name}/{'text' if column.text else column.decimals}".encode())


def _scale(feature: Feature) -> float:
    if feature.kind in ("since_last", "since_first"):
        return float(feature.unit)
    return feature.column.scale if feature.column and feature.kind != "distinct" else 1.0
