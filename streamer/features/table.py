"""The features of a topology: one table of keys per entity, within one memory budget."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from streamer.batch import Float64, Text
from streamer.features.aggregates import count
from streamer.features.blocks import EVENTS
from streamer.features.changed import ChangedKeys
from streamer.features.columns import Columns, Prepared
from streamer.features.declarations import Entity
from streamer.features.keyed import EntityTable
from streamer.features.labelled import LabelledTables, split
from streamer.features.layout import FOREVER
from streamer.features.loading import BlockStore
from streamer.features.plan import compile_entity

__all__ = ["BlockStore", "Columns", "Features", "warm_up"]


NEVER: Final = 1 << 62
"""Later than any batch."""


class Features:
    """Exact features of payments, and the state they come from.

    `memory_budget` (bytes) bounds the keys in memory, and may be lowered later; those not used for long come
    back from `blocks` on their next payment; `spilled` says that it may hold some from before.
    `allowed_lateness` (ms) is how much older than the newest event one may be; events that are older still
    must be rejected before.

    Batches are numbered, `next_number` is that of the batch to come. What they changed need not be written at
    once, as long as they are kept: after a crash `replay` is given them again from `oldest` on, and each is
    counted for the keys that lack it: when a key comes into memory, or by `catch_up`.
    """

    def __init__(  # noqa: PLR0913 - all but the first are named where they are given
        self,
        entities: Sequence[Entity],
        *,
        memory_budget: int,
        allowed_lateness: int,
        blocks: BlockStore,
        spilled: bool = True,
        next_number: int = 0,
    ) -> None:

        def table_of(entity: Entity, horizon: int = FOREVER) -> EntityTable:
            compiled = compile_entity(entity, allowed_lateness)
            return EntityTable(compiled, memory_budget, blocks, next_number, spilled=spilled, horizon=horizon)

        self._answering: list[EntityTable | LabelledTables] = []
        self._tables: list[EntityTable] = []
        self._frauds: list[EntityTable] = []
        for entity in entities:
            parts = split(entity)
            if parts is None:
                table = table_of(entity)
                self._tables.append(table)
                self._answering.append(table)
            else:
                pair = LabelledTables(parts, table_of)
                self._tables.extend(pair.payments)
                self._frauds.append(pair.frauds)
                self._answering.append(pair)
        self._next = next_number
        self._redone_from = self._redone_at = NEVER
        self.memory_budget = memory_budget
        self.names: tuple[str, ...] = tuple(
            feature.name for entity in entities for feature in entity.features
        )

    @property
    def fields(self) -> frozenset[str]:
        """The fields and declared attributes of payments that are keys or kept."""
        return frozenset[str]().union(*(table.fields for table in self._tables))

    @property
    def dirty(self) -> int:
        """Keys changed since they were cut: about as many rows as a cut of all would give."""
        return sum(table.changed.dirty for table in self._tables)

    @property
    def dirty_bytes(self) -> int:
        """Bytes that these keys take; they cannot leave memory."""
        return sum(table.changed.dirty_bytes for table in self._tables)

    @property
    def oldest(self) -> int:
        """Number of the first batch that holds something not known to be in the store."""
        return self._with_redo(table.changed.unwritten_since for table in self._tables)

    @property
    def oldest_after_cut(self) -> int:
        """What `oldest` will be when the last cut is written; it may be stored together with its rows."""
        return self._with_redo(table.changed.since for table in self._tables)

    def _with_redo(self, since: Iterable[int | None]) -> int:
        """The first of these batches; of those counted again, while a key may wait that they changed."""
        first = min((one for one in since if one is not None), default=self._next)
        return first if first >= self._redone_at else min(first, self._redone_from)

    @property
    def keys(self) -> dict[str, int]:
        """Keys in memory, per entity."""
        return {table.name: table.hot.keys for table in (*self._tables, *self._frauds)}

    @property
    def memory(self) -> int:
        """Bytes that the keys in memory take."""
        return sum(table.hot.memory for table in (*self._tables, *self._frauds))

    def update(self, batch: Columns, out: Float64 | None = None, number: int = 0) -> Float64:
        """Answer payments in order of arrival and count the live ones; features (n, F), NaN where absent.

        Numbers of batches grow; between two parts of a batch there may be no cut.
        """
        if out is None:
            out = np.empty((len(batch), len(self.names)))
        self._begin(number)
        prepared = Prepared(batch)
        column = 0
        for table in self._answering:
            table.update(prepared, number, out, column)
            column += table.width
        return out

    def keep(self, horizon: int) -> None:
        """From now on no payment comes that is older than `horizon` (ms) by more than the allowed lateness.

        Without it, none comes that is so much older than the newest of its keys.
        """
        for table in self._tables:
            table.keep(horizon)

    def know(self, batch: Columns, horizon: int) -> None:
        """Count payments as frauds of their keys, at event times that are when each became known as one.

        What changed is in the next cut, whole: frauds are not counted again after a crash. A payment of these
        keys at or after `horizon` (ms) has been counted: how far back frauds are kept is judged from there.
        """
        prepared = Prepared(batch)
        for table in self._frauds:
            table.count(prepared, horizon)

    def replay(self, batch: Columns, number: int) -> None:
        """Count a batch again for every key that was stored without it, in order of numbers.

        All of them come before the first `update`.
        """
        self._redone_from, self._redone_at = min(self._redone_from, number), NEVER
        prepared = Prepared(batch)
        for table in self._tables:
            table.replay(prepared, number)

    def catch_up(self, payments: int | None) -> None:
        """Count payments again of keys not seen since a crash, of each entity so many, or all."""
        if self._redone_from < NEVER and self._redone_at == NEVER:
            left = [table.catch_up(payments) for table in self._tables]
            if not any(left):
                self._redone_at = self._next
                for table in self._tables:
                    table.forget_redo()

    def _begin(self, number: int) -> None:
        self._next = max(self._next, number + 1)
        memory = self.memory
        excess = memory - self.memory_budget
        if excess > 0:
            for table in (*self._tables, *self._frauds):
                table.hot.evict(excess * table.hot.memory // memory + 1)

    def cut(self, before: int | None = None, most: int | None = None) -> list[tuple[bytes, bytes | None]]:
        """Rows of changed keys, copied; `None` deletes a row.

        Of keys that changed first in a batch before `before`, and of at most `most` keys, those that changed
        first. A key that changes again is in a later cut again. Of frauds, all that changed.
        """
        rows = [row for table in self._frauds for row in table.changed.cut(table.changed.dirty)]
        changed = [table.changed for table in self._tables]
        end = self._next if before is None else min(before, self._next)
        begin = min((one for keys in changed if (one := keys.since) is not None), default=self._next)
        if most is None:
            return rows + [row for keys in changed for row in keys.cut(keys.older(end))]
        numbers = range(begin, end)
        last = begin + bisect_right(numbers, most, key=lambda number: self._older(number + 1))
        left = most - self._older(last)
        for keys in changed:
            surely = keys.older(last)
            more = min(left, keys.older(min(last + 1, end)) - surely)
            left -= more
            rows += keys.cut(surely + more)
        return rows

    def _older(self, number: int) -> int:
        return sum(table.changed.older(number) for table in self._tables)

    @property
    def rooms(self) -> tuple[tuple[bytes, int], ...]:
        """Of each table to be swept, what row keys of its blocks begin with, and how long events are kept."""
        return tuple((keys.prefix, keys.retention) for keys in self._mortal)

    def sweep(self, room: int, rows: Sequence[tuple[bytes, bytes]], clock: int) -> list[bytes]:
        """Row keys to delete in the next commit, of keys in that table that no payment to come can see."""
        return self._mortal[room].sweep(rows, clock)

    @property
    def _mortal(self) -> list[ChangedKeys]:
        every = (table.changed for table in (*self._tables, *self._frauds))
        return [keys for keys in every if not keys.lasts]

    def written(self) -> None:
        """The rows of all cuts are in the store: keys unchanged since may leave memory."""
        for table in (*self._tables, *self._frauds):
            table.changed.written()


class _Memory:
    """A store in memory."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]


class _One:
    """A batch of one payment that has every field."""

    event_time = np.zeros(1, np.int64)
    amount = np.ones(1, np.int64)
    live = np.ones(1, np.bool_)

    def text(self, name: str) -> Text:
        return Text.pack([name])

    def number(self, name: str) -> Float64:
        del name
        return np.ones(1)

    def __len__(self) -> int:
        return 1


def warm_up() -> None:
    """Compile every kernel, or take it from the cache on disk, so that the first payment need not wait."""
    blocks = _Memory()
    entity = Entity("pair", keys=("card", "merchant"), features=[count("1h")])

    def start(number: int) -> Features:
        return Features([entity], memory_budget=0, allowed_lateness=0, blocks=blocks, next_number=number)

    features = start(0)
    for number in range(EVENTS + 1):  # the events of more than one block
        features.update(_One(), None, number)
        blocks.rows.update(features.cut())
        features.written()
    features = start(EVENTS + 2)
    features.replay(_One(), EVENTS + 1)
    features.catch_up(1)
    features.update(_One(), None, EVENTS + 2)
