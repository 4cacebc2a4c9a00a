"""The tables of an entity that has features fed by labels: one of its payments, one of its frauds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.batch import Float64, Int64
from streamer.features.aggregates import Feature
from streamer.features.columns import Prepared
from streamer.features.declarations import Entity
from streamer.features.frauds import FraudFeature
from streamer.features.keyed import EntityTable
from streamer.features.layout import FOREVER


@dataclass(frozen=True, slots=True)
class Split:
    """An entity with label-fed features as two groups of events of the same keys.

    `payments` has the other features, then for each rate how many payments there were; `None` where nothing
    is asked of payments. `frauds` has a count for each label-fed feature, over events that are payments at
    the time when they became known as fraud.
    """

    payments: Entity | None
    frauds: Entity
    plain_at: Int64
    """Columns of the features of payments."""
    fed: tuple[tuple[int, FraudFeature], ...]
    """Columns of the label-fed features, and those themselves."""

    def compose(self, payments: Float64, frauds: Float64, out: Float64) -> None:
        """Fill the columns of the entity from those of both groups; all (n, features)."""
        plain = len(self.plain_at)
        out[:, self.plain_at] = payments[:, :plain]
        rates = plain
        for place, (column, feature) in enumerate(self.fed):
            known = frauds[:, place]
            if feature.prior is None:
                out[:, column] = known
                continue
            below = payments[:, rates] + feature.prior[1]
            rates += 1
            out[:, column] = np.nan
            np.divide(known + feature.prior[0], below, out=out[:, column], where=below != 0.0)


def split(entity: Entity) -> Split | None:
    """The groups of an entity that has label-fed features; `None` of one that has none."""
    fed = [(at, one) for at, one in enumerate(entity.features) if isinstance(one, FraudFeature)]
    if not fed:
        return None
    plain = [at for at, one in enumerate(entity.features) if not isinstance(one, FraudFeature)]
    payments = [entity.features[at] for at in plain]
    payments += [_counted(one) for _, one in fed if one.prior is not None]
    return Split(
        # The same name and keys, so that declaring the first rate of an entity keeps its payments.
        entity.group(entity.name, payments) if payments else None,
        # '#' is in no entity's name. Renaming this one forgets what was known of frauds.
        entity.group(f"{entity.name}#fraud", [_counted(one) for _, one in fed]),
        np.array(plain, np.int64),
        tuple(fed),
    )


def tables_of(entity: Entity) -> tuple[Entity, ...]:
    """The entity as it is kept: alone, or as its payments, if anything is asked of them, and its frauds."""
    parts = split(entity)
    if parts is None:
        return (entity,)
    return (parts.frauds,) if parts.payments is None else (parts.payments, parts.frauds)


def _counted(feature: FraudFeature) -> Feature:
    """How many events its window has, without the payment that asks."""
    return Feature(
        name=feature.name, kind="count", column=None, window=feature.window, delay=feature.delay,
        where=None, before_payment=True, unit=1,
    )  # fmt: skip


class LabelledTables:
    """Answers for one entity from a table of its payments and a table of its frauds."""

    def __init__(self, parts: Split, new_table: Callable[[Entity, int], EntityTable]) -> None:
        self._parts = parts
        self._payments = None if parts.payments is None else new_table(parts.payments, FOREVER)
        # A fraud may become known long after the newest payment of its key: no reason to give up those before
        # it, which the next payments may still ask for. What counts them says how far payments have come.
        self.frauds = new_table(parts.frauds, -FOREVER)
        self.width = len(parts.plain_at) + len(parts.fed)

    @property
    def payments(self) -> Sequence[EntityTable]:
        """The table of its payments, if it has one."""
        return () if self._payments is None else (self._payments,)

    def update(self, prepared: Prepared, number: int, out: Float64, column: int) -> None:
        """Answer a batch into `out[:, column:column + width]`, and count it among the payments."""
        n = len(out)
        paid = np.empty((n, 0 if self._payments is None else self._payments.width))
        if self._payments is not None:
            self._payments.update(prepared, number, paid, 0)
        frauds = np.empty((n, self.frauds.width))
        self.frauds.answer(prepared, frauds, 0)
        self._parts.compose(paid, frauds, out[:, column : column + self.width])
