"""What one worker is to run and where: the job, its topics, and whether its surroundings fit."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamer.chain.stages import Chain, check_partitions
from streamer.changelog import topic_spec
from streamer.declared import changes_in
from streamer.errors import ConfigError, StateError
from streamer.metrics import Metrics
from streamer.presence import made_anew
from streamer.rates import RateTable
from streamer.settings import Settings
from streamer.state.store import Progress, Store, positions_of
from streamer.topology import Topology
from streamer.transport.connect import Connection
from streamer.transport.seam import Admin, TopicSpec

log = logging.getLogger(__name__)

Guarantee = Literal["at_least_once", "transactions"]
"""How outputs become visible: as they are sent, or together with the commit that they belong to."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker runs: a topology, on a log, with a state directory, as a member of a group."""

    topology: Topology
    broker: str
    state: Path
    group: str
    settings: Settings
    emit_features: bool = False
    guarantee: Guarantee = "at_least_once"

    @property
    def answer_topics(self) -> list[str]:
        """The topics that answers go to, the decisions first."""
        topics = self.settings.topics.resolved
        named = [topics.decisions, topics.payments_rejected, topics.outcomes_rejected]
        return [*named, topics.features] if self.emit_features else named


@dataclass(frozen=True, slots=True)
class Site:
    """Where a job runs: its open connection, its shards, the partitions of what it reads, its figures."""

    job: Job
    connection: Connection
    partitions: Mapping[str, int]
    """Of payments, outcomes and, where there are several shards, of the topics between their stages."""
    metrics: Metrics
    member: str
    """What its group knows the worker by, with the name of the group."""
    shards: int = 1
    rates: RateTable | None = None

    @property
    def keeps_changelog(self) -> bool:
        """Whether commits go to a changelog too."""
        return not self.connection.embedded and self.job.settings.state.changelog != "off"


def check_guarantee(job: Job, *, embedded: bool) -> None:
    """Refuse a guarantee that cannot be given; raises `ConfigError`."""
    if job.guarantee != "transactions":
        return
    if embedded:
        raise ConfigError(
            f"Expected Kafka with --guarantee transactions, got {job.broker}: leave it out, since on an"
            " embedded log no answer is sent twice anyway"
        )
    if job.settings.state.changelog == "off":
        raise ConfigError(
            'Expected a changelog with --guarantee transactions, got `[state] changelog = "off"`: it is'
            " written in the same transaction; set it to auto"
        )


def prepare_topics(job: Job, admin: Admin, *, embedded: bool) -> Mapping[str, int]:
    """Check the input topics and create the others; answers the partitions of all that are read.

    On Kafka `payments` and `outcomes` have to exist; an embedded log creates them too.
    """
    topics = job.settings.topics.resolved
    inputs = (topics.payments, topics.outcomes)
    known = dict(admin.partitions(inputs))
    missing = [name for name in inputs if name not in known]
    if missing and not embedded:
        absent = " and no topic ".join(missing)
        raise ConfigError(
            f"{job.broker} has no topic {absent}: create what upstream writes to, with as many partitions as"
            f" it needs, or let `streamer generate --broker {job.broker}` create them"
        )
    if missing:
        admin.create([TopicSpec(name) for name in missing])
    count = known.get(topics.payments, 1)
    shards = 1 if embedded else count
    specs = [
        TopicSpec(topics.decisions, count),
        TopicSpec(topics.payments_rejected, count),
        TopicSpec(topics.outcomes_rejected),
        TopicSpec(topics.models, compacted=True),
        TopicSpec(topics.journal, compacted=True),
    ]
    read = list(inputs)
    if shards > 1:
        between = list(Chain.of(job.topology, job.settings.topics).internal)
        specs += [TopicSpec(name, shards) for name in between]
        read += between
    if not embedded and job.settings.state.changelog != "off":
        specs.append(topic_spec(job.settings, shards))
    if job.emit_features:
        specs.append(TopicSpec(topics.features, count))
    present = admin.partitions([spec.name for spec in specs])
    admin.create([spec for spec in specs if spec.name not in present])
    partitions = admin.partitions(read)
    if shards > 1:
        kept = [topics.changelog] if job.settings.state.changelog != "off" else []
        check_partitions([*read, *kept], {**partitions, **admin.partitions(kept)})
    return partitions


def check_topics(progress: Progress, identities: Mapping[str, str]) -> dict[str, str]:
    """Refuse topics that were made anew since they were read; answers what tells them all apart from now on.

    Their offsets may have grown past the positions of the state: nothing else would tell.
    """
    for topic, identity in identities.items():
        before = progress.topics.get(topic, identity)
        if before != identity and progress.positions.get(topic):
            raise made_anew(topic, before, identity)
    return {**progress.topics, **identities}


def tell_changes(job: Job, store: Store) -> None:
    """Say what is not as it was when the state was written; nothing starts empty silently."""
    changes = changes_in(store, job.topology, job.settings.events.allowed_lateness)
    if any(change.kind != "filling" for change in changes):
        for change in changes:
            log.warning("%s", change)


def check_positions(job: Job, committed: Mapping[int, int], store: Store) -> None:
    """Refuse a state that the group has gone beyond: its own is elsewhere, or was lost.

    `committed` are the group's offsets of those partitions of the payments that the state is for.
    """
    stored = positions_of(store.progress)
    topic = job.settings.topics.resolved.payments
    for partition, offset in committed.items():
        if offset > (reached := stored.get((topic, partition), 0)):
            has = f"stands at {reached}" if reached else "has no state for it"
            raise StateError(
                f"group {job.group} stands at offset {offset} of {topic}/{partition}, but {store.path} {has}:"
                " name the group's state directory with --state, or a new group with --group"
            )
