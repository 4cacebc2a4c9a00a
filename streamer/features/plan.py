"""Turns the features of an entity into what the kernels compute, with its place in memory."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamer.batch import Int64
from streamer.errors import TopologyError
from streamer.features.aggregates import Feature
from streamer.features.blocks import HASHED, NUMBER
from streamer.features.declarations import Entity
from streamer.features.fields import Column
from streamer.features.layout import (
    CHUNK_HEADER,
    CHUNK_ROWS,
    COLUMNS,
    CURSORS,
    LIFE_WORDS,
    NO_CURSOR,
    TALLY_WORDS,
    TOTALS,
    Plan,
    Shape,
    Work,
)
from streamer.features.needs import OUTPUT, RANGED, Mask, Needs, columns_of

__all__ = ["MOST_MASKS", "Compiled", "Mask", "compile_entity"]

MOST_MASKS: Final = 31
"""A row has 31 bits for the conditions it meets."""


@dataclass(frozen=True)
class Compiled:
    """An entity made ready for the kernels: `columns` are kept of an event, `masks` are its bits.

    `lives` are what its lifetime counters are stored under.
    """

    entity: Entity
    plan: Plan
    columns: tuple[Column, ...]
    masks: tuple[Mask, ...]
    identity: int
    column_identities: Int64
    column_kinds: Int64
    lives: Int64

    def work(self) -> Work:
        """Room for the kernels to answer one payment in."""
        plan = self.plan
        edges, lanes, distincts = len(plan.edges), len(plan.lanes), len(plan.distincts)

        def room(size: int) -> Int64:
            return np.zeros(max(size, 1), np.int64)

        return Work(
            old=room(edges),
            edges=room(edges),
            totals=room(lanes),
            own=room(lanes),
            counts=room(len(plan.spans)),
            bests=room(len(plan.ranges)),
            backs=room(len(plan.lists)),
            sessions=room(len(plan.sessions)),
            before=room(distincts),
            after=room(distincts),
            place=room(2),
            measures=room(len(plan.measures)),
            wide=np.zeros((3, 4), np.uint64),
            caught=room(0),
            ends=room(0),
            cursors=np.tile(np.array(NO_CURSOR), (CURSORS, 1)),
            cursor_edges=np.zeros((CURSORS, max(edges, 1)), np.int64),
            cursor_counts=np.zeros((CURSORS, max(len(plan.spans), 1)), np.int64),
            cursor_owed=np.zeros((CURSORS, max(lanes, 1)), np.int64),
            known=room(edges),
        )


def compile_entity(entity: Entity, allowed_lateness: int) -> Compiled:
    """Lay out the memory of an entity and list what is to be computed; events may be late by so many ms."""
    kept: dict[Column, int] = {}
    for feature in entity.features:
        for column in columns_of(feature):
            kept.setdefault(column, len(kept))
    _check_columns(entity, kept)
    needs = Needs(kept)
    outputs = [needs.add(feature) for feature in entity.features]
    if len(needs.masks) > MOST_MASKS:
        raise TopologyError(
            f"entity {entity.name!r}: expected at most {MOST_MASKS} different conditions and optional fields,"
            f" got {len(needs.masks)}; split it into two entities with the same keys"
        )
    masks = tuple(needs.masks)
    return Compiled(
        entity=entity,
        plan=_lay_out(needs, outputs, [_scale(feature) for feature in entity.features], allowed_lateness),
        columns=tuple(kept),
        masks=masks,
        identity=zlib.crc32("/".join((entity.name, *entity.keys)).encode()),
        column_identities=np.array([_identity(column) for column in kept], np.int64),
        column_kinds=np.array([HASHED if column.text else NUMBER for column in kept], np.int64),
        lives=np.array([_life(masks[mask]) for mask in needs.lives], np.int64),
    )


def _lay_out(needs: Needs, outputs: list[list[int]], scales: list[float], allowed_lateness: int) -> Plan:
    """Give everything its place in rows and headers."""
    gaps = [(of, k) for k, (*_, of) in enumerate(needs.lists) if of >= 0]
    columns = len(needs.kept)
    lanes_at = COLUMNS + columns + len(gaps)
    words = {k: columns + place for place, (_, k) in enumerate(gaps)}
    links = 2 * (lanes_at + len(needs.lanes))
    distincts = []
    for column, mask in needs.distincts:
        distincts.append([column, mask, links, 0])
        links += 3
    lists_at = links
    row = (links + 2 * len(needs.lists) + 1) // 2
    edge_links = 2 * (TOTALS + len(needs.lanes))
    numbers = edge_links + len(needs.edges)
    spans = [(*span, numbers + place) for place, span in enumerate(needs.spans)]
    numbers += len(spans)
    lists: list[tuple[int, ...]] = []
    ranges: list[tuple[int, ...]] = []
    moved: dict[tuple[int, int], int] = {}
    for k, (keep, column, mask, right, of) in enumerate(needs.lists):
        back = numbers
        numbers += 1
        begin = len(ranges)
        for listed, left in needs.ranges:
            if listed == k:
                moved[listed, left] = len(ranges)
                ranges.append((k, left, numbers))
                numbers += 1
        lists.append(
            (keep, words.get(k, column), mask, right, lists_at + 2 * k, back, begin, len(ranges), of)
        )
    by_place = list(needs.ranges)
    sessions = [
        (k, gap, numbers + place, moved[by_place[ranged]])
        for place, (k, gap, ranged) in enumerate(needs.sessions)
    ]
    header = (numbers + len(sessions) + 1) // 2
    for distinct in distincts:
        distinct[3] = header
        header += 1
    tallies = [(*tally, header + TALLY_WORDS * place) for place, tally in enumerate(needs.tallies)]
    header += TALLY_WORDS * len(tallies)
    lives = [(mask, header + LIFE_WORDS * place) for place, mask in enumerate(needs.lives)]
    header += LIFE_WORDS * len(lives)
    measures = [
        (kind, moved[by_place[subject]] if kind in RANGED else subject, *rest)
        for kind, subject, *rest in needs.measures
    ]
    return Plan(
        shape=Shape(
            row=row,
            chunk=CHUNK_HEADER + CHUNK_ROWS * row,
            header=header,
            lanes=lanes_at,
            edge_links=edge_links,
            retention=max(needs.edges, default=0) + allowed_lateness,
        ),
        edges=np.array(list(needs.edges), np.int64),
        lanes=_table(list(needs.lanes), 5),
        distincts=_table([tuple(one) for one in distincts], 4),
        spans=_table(spans, 4),
        lists=_table(lists, 9),
        ranges=_table(ranges, 3),
        gaps=_table([(of, k, words[k]) for of, k in gaps], 3),
        sessions=_table(sessions, 4),
        lives=_table(lives, 2),
        tallies=_table(tallies, 6),
        measures=_table(measures, 7),
        outputs=_table([tuple(output) for output in outputs], OUTPUT),
        scales=np.array(scales),
        collected=_table(list(needs.collected), 5),
    )


def _table(rows: Sequence[tuple[int, ...]], width: int) -> Int64:
    return np.array(rows, np.int64).reshape(len(rows), width)


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


def _life(mask: Mask) -> int:
    """What a lifetime counter is stored under: its condition."""
    return zlib.crc32(repr(mask[0]).encode())


_IN_UNITS: Final = frozenset(
    {"since_last", "since_first", "mean_gap", "min_gap", "session_duration", "lifetime_age"}
)
_UNSCALED: Final = frozenset({"distinct", "skewness", "entropy", "mode_share", "novelty", "custom"})


def _scale(feature: Feature) -> float:
    if feature.kind in _IN_UNITS:
        return float(feature.unit)
    if feature.column is None or feature.column.text or feature.kind in _UNSCALED:
        return 1.0
    return feature.column.scale
