"""Starts features as an engine does: from written blocks, and the batches since then counted again."""

from collections.abc import Sequence
from typing import Any

from streamer.features.declarations import Entity
from streamer.features.table import Features
from tests.features.oracle import Batch, Blocks


def started(
    entities: Sequence[Entity], blocks: Blocks, again: Sequence[Batch], number: int, **limits: Any
) -> Features:
    """What a start finds; `again` are the stored batches, up to `number`, that were not written."""
    features = Features(entities, blocks=blocks, next_number=number, **limits)
    for place, batch in enumerate(again, number - len(again)):
        features.replay(batch, place)
    return features
