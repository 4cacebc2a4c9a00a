"""The chain of stages that a topology becomes when its payments have several partitions.

Each payment passes them in this order: `identify` by its payment_id, the groups of entities with the same
keys by these, `score` by its payment_id again. Before the first stands the entry, which reads the payments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self
from zlib import crc32

from streamer.errors import ConfigError, TopologyError
from streamer.features.declarations import Entity
from streamer.features.labelled import split
from streamer.settings import Topics
from streamer.topology import Topology

ENTRY: Final = "entry"
IDENTIFY: Final = "identify"
SCORE: Final = "score"
LEARN: Final = "learn"
MODELS: Final = "models"
"""Ends of the topics, beside those of stages, by which examples reach the school and its models come back."""
FRAUDS: Final = "frauds"
"""Whom counting stages hear of known frauds: the learners beside `score`, which number what they tell."""


@dataclass(frozen=True)
class Stage:
    """One step of the chain: its name, the topic it reads, and the entities that it counts by `keys`.

    `before` is the stage that sends it payments. `columns` are the features that these bring along, in order,
    and `widths` how many of them are of each stage.
    """

    name: str
    topic: str
    before: str
    entities: tuple[Entity, ...] = ()
    keys: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()

    @cached_property
    def learns(self) -> bool:
        """Whether it counts known frauds."""
        return any(split(entity) is not None for entity in self.entities)

    @cached_property
    def layout(self) -> int:
        """A number that changes with what the payments bring along."""
        return crc32("/".join((self.name, *self.columns)).encode())


@dataclass(frozen=True)
class Chain:
    """All stages after the entry, in order; `payments` is the topic that the entry reads.

    Shard 0 hears of examples to learn from on its partition of `learn`, the others of what was learned from
    all of them on theirs of `models`.
    """

    payments: str
    stages: tuple[Stage, ...]
    learn: str
    models: str

    @classmethod
    def of(cls, topology: Topology, topics: Topics) -> Self:
        """The chain of a topology; raises `TopologyError` for an entity named like one of its ends."""
        names = topics.resolved
        groups: dict[tuple[str, ...], list[Entity]] = {}
        # In an order of their own: that of their mention changes with the inputs of a model.
        for entity in sorted(topology.all_entities, key=lambda one: one.name):
            groups.setdefault(entity.keys, []).append(entity)
        stages = [Stage(IDENTIFY, f"{names.stages}.{IDENTIFY}", ENTRY)]
        columns: tuple[str, ...] = ()
        widths: tuple[int, ...] = ()
        for keys, entities in groups.items():
            name = entities[0].name
            if name in {IDENTIFY, SCORE, LEARN, MODELS}:
                raise TopologyError(
                    f"entity {name!r}: expected another name than that of a stage, since its topic would be"
                    f" {names.stages}.{name}; rename it, or use one partition"
                )
            stages.append(
                Stage(name, f"{names.stages}.{name}", stages[-1].name, tuple(entities), keys, columns, widths)
            )
            own = tuple(feature.name for entity in entities for feature in entity.features)
            columns, widths = columns + own, (*widths, len(own))
        stages.append(
            Stage(SCORE, f"{names.stages}.{SCORE}", stages[-1].name, columns=columns, widths=widths)
        )
        return cls(names.payments, tuple(stages), f"{names.stages}.{LEARN}", f"{names.stages}.{MODELS}")

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that its stages read, the payments first."""
        return (self.payments, *(stage.topic for stage in self.stages))

    @property
    def internal(self) -> tuple[str, ...]:
        """The topics between shards, which have to exist with as many partitions as the payments have."""
        return (*(stage.topic for stage in self.stages), self.learn, self.models)

    @property
    def counting(self) -> tuple[Stage, ...]:
        """The stages of entities."""
        return self.stages[1:-1]


def check_partitions(topics: Sequence[str], counts: Mapping[str, int]) -> int:
    """How many partitions all of these topics have; raises `ConfigError` unless it is the same number.

    `counts` gives the partitions of the topics that exist.

    >>> check_partitions(["payments", "outcomes"], {"payments": 8, "outcomes": 8, "other": 1})
    8
    """
    found = {topic: counts.get(topic, 0) for topic in topics}
    if len(set(found.values())) == 1 and (count := found[topics[0]]):
        return count
    wanted = found[topics[0]] or max(found.values()) or "as many"
    listed = ", ".join(f"{topic} {count or '(missing)'}" for topic, count in found.items())
    wrong = ", ".join(topic for topic, count in found.items() if count != wanted)
    raise ConfigError(
        f"Expected as many partitions of every topic, since a shard owns one of each, got {listed};"
        f" create {wrong} with {wanted} partitions. Do not add any to one that holds records:"
        " where a key belongs depends on their number, so move them to a new topic and start on new state"
    )
