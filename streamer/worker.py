"""One worker: checks its surroundings, opens the state, runs the agents until it is told to stop."""

import asyncio
import gc
import hashlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from streamer import faults
from streamer.agents import Agents
from streamer.declared import changes_in
from streamer.engine import Engine, warm_up
from streamer.errors import ConfigError, StateError
from streamer.http import Pages, Readiness, StatusServer
from streamer.learning import Learning
from streamer.metrics import Metrics
from streamer.parts import Parts
from streamer.published import Published
from streamer.rates import RateTable, read_rates
from streamer.settings import Settings
from streamer.state.store import Position, Store, WriteSet, positions_of
from streamer.topology import Topology
from streamer.transport.connect import Connection, connect
from streamer.transport.seam import Admin, Publisher, TopicSpec

log = logging.getLogger(__name__)

COLLECT_AFTER = (100_000, 20, 20)
"""Objects of many batches: what a batch leaves is freed without the collector, which need not look at it."""

PATIENCE_S = 3.0
"""Kernels from the cache are ready before; whoever waits longer is told why."""

NOISY = ("faust", "mode", "aiokafka", "kafka", "asyncio")


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker runs: a topology, on a log, with a state directory, as a member of a group."""

    topology: Topology
    broker: str
    state: Path
    group: str
    settings: Settings
    emit_features: bool = False


def prepare_topics(job: Job, admin: Admin, *, embedded: bool) -> Mapping[str, int]:
    """Check the input topics and create the output topics; answers the partitions of each.

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
    outputs = [
        TopicSpec(topics.decisions, known.get(topics.payments, 1)),
        TopicSpec(topics.payments_rejected, known.get(topics.payments, 1)),
        TopicSpec(topics.outcomes_rejected),
        TopicSpec(topics.models, compacted=True),
        TopicSpec(topics.journal, compacted=True),
    ]
    if job.emit_features:
        outputs.append(TopicSpec(topics.features, known.get(topics.payments, 1)))
    present = admin.partitions([spec.name for spec in outputs])
    admin.create([spec for spec in outputs if spec.name not in present])
    return admin.partitions(inputs)


def check_positions(job: Job, committed: Mapping[int, int], store: Store) -> None:
    """Refuse a state that the group has gone beyond: its own is elsewhere, or was lost."""
    stored = positions_of(store.progress)
    topic = job.settings.topics.resolved.payments
    for partition, offset in committed.items():
        if offset > (reached := stored.get((topic, partition), 0)):
            has = f"stands at {reached}" if reached else "has no state for it"
            raise StateError(
                f"group {job.group} stands at offset {offset} of {topic}/{partition}, but {job.state} {has}:"
                " name the group's state directory with --state, or a new group with --group"
            )


def tell_changes(job: Job, store: Store) -> None:
    """Say what is not as it was when the state was written; nothing starts empty silently."""
    changes = changes_in(store, job.topology, job.settings.events.allowed_lateness)
    if any(change.kind != "filling" for change in changes):
        for change in changes:
            log.warning("%s", change)


class Laps:
    """Adds the processor time since the last lap to the stage that has ended."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last = time.thread_time()

    def __call__(self, stage: str) -> None:
        """`stage` has ended."""
        now = time.thread_time()
        self._metrics.stage(stage, now - self._last)
        self._last = now


@dataclass(frozen=True, slots=True)
class Site:
    """Where a job runs: its open connection and store, the partitions of its inputs, its figures."""

    job: Job
    connection: Connection
    store: Store
    partitions: Mapping[str, int]
    metrics: Metrics
    rates: RateTable | None = None


async def serve(site: Site, stop: asyncio.Event, on_agents: Callable[[Agents], None]) -> None:
    """Run the agents, which `on_agents` is given, until `stop` is set; raises what made them fail."""
    job = site.job
    telling = threading.Timer(
        PATIENCE_S, log.warning, ("compiling kernels, once on this machine: half a minute",)
    )
    telling.start()
    warm_up()
    telling.cancel()
    publisher = site.connection.publisher()
    await publisher.start()
    try:
        agents = Agents(
            lambda _: open_parts(site, publisher),
            job.settings,
            site.metrics,
            site.connection.faust_url,
            job.group,
            site.partitions,
            member=f"{job.group}-{hashlib.sha256(site.store.secret).hexdigest()[:16]}",
        )
        on_agents(agents)
        await agents.run(stop)
    finally:
        await publisher.stop()


async def open_parts(site: Site, publisher: Publisher) -> Parts:
    """Put the engine and its learners together as the store has them, and see what was sent beyond that."""
    job, store = site.job, site.store
    ends = await asyncio.to_thread(_check, site)
    engine = Engine(
        job.topology,
        store,
        job.settings,
        lap=Laps(site.metrics),
        emit_features=job.emit_features,
        rates=site.rates,
    )
    learning = Learning(job.topology, store, job.settings, engine.identify)
    for snapshot in learning.snapshots():
        engine.restore_scorer(snapshot.model, snapshot.version, snapshot.scorer())
    outputs = answer_topics(job)
    published = await Published.recall(site.connection, outputs, store.progress, ends)
    if len(published):
        log.warning("%s answers were sent but not committed; they are not sent again", len(published))
    faults.reach("start.recalled")
    # What is here now stays. The collector need not look at it again: that took 0.2 s each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    return Parts(engine, learning, store, publisher, site.metrics, job.settings, published)


def _check(site: Site) -> Mapping[Position, int]:
    """Refuse a state that is not the group's; note where outputs end that this state has not written to.

    Answers the ends of the payments.
    """
    job, store = site.job, site.store
    payments = job.settings.topics.resolved.payments
    with closing(site.connection.admin()) as admin:
        inputs = {(payments, partition): end for partition, end in admin.end_offsets(payments).items()}
        check_positions(job, admin.committed(job.group, payments), store)
        known = store.progress.outputs
        ends = {topic: dict(admin.end_offsets(topic)) for topic in answer_topics(job) if topic not in known}
    if ends:
        store.commit(WriteSet(msgspec.structs.replace(store.progress, outputs=known | ends)))
    return inputs


def answer_topics(job: Job) -> list[str]:
    """The topics that answers go to."""
    topics = job.settings.topics.resolved
    named = [topics.decisions, topics.payments_rejected, topics.outcomes_rejected]
    return [*named, topics.features] if job.emit_features else named


async def _until_signal(site: Site) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running: list[Agents] = []
    web = site.job.settings.web
    pages = Pages(site.metrics.exposition, lambda: Readiness(any(agents.ready for agents in running)))
    server = StatusServer(web.host, web.port, pages) if web.port >= 0 else None
    if server is not None:
        server.start()
        log.warning("metrics and health at %s", server.url)
    try:
        await serve(site, stop, running.append)
    finally:
        if server is not None:
            server.stop()


def run(job: Job) -> None:
    """Check the surroundings, then work until SIGTERM or SIGINT; raises `StreamerError` on failure."""
    quiet()
    faults.arm(job.settings.testing.faults)
    rates = read_rates(job.settings.rates.file, job.topology.base_currency)
    with connect(job.broker, job.settings) as connection:
        with closing(connection.admin()) as admin:
            partitions = prepare_topics(job, admin, embedded=connection.embedded)
        with Store.open(job.state) as store:
            faults.reach("start.opened")
            log.warning(
                "topology %s (%s), rates %s, on %s, group %s, state in %s",
                job.topology.name,
                job.topology.fingerprint,
                rates.version,
                job.broker,
                job.group,
                job.state,
            )
            tell_changes(job, store)
            asyncio.run(_until_signal(Site(job, connection, store, partitions, Metrics(), rates)))


def quiet() -> None:
    """Keep the frameworks below from logging what is not a user's concern."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
