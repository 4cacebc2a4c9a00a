"""One worker: checks its surroundings, then runs the agents until it is told to stop."""

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import closing

from streamer import faults
from streamer.agents import Agents
from streamer.chain.stages import Chain
from streamer.drain import Drain
from streamer.engine import warm_up
from streamer.errors import StateError, StreamerError
from streamer.http import Pages, Readiness, StatusServer
from streamer.job import Job, Site, check_guarantee, prepare_topics
from streamer.metrics import Metrics
from streamer.opening import Opener
from streamer.presence import Watch
from streamer.rates import read_rates
from streamer.state.claim import Claim
from streamer.state.store import Store
from streamer.transport.connect import connect
from streamer.transport.threaded import LoopThread

log = logging.getLogger(__name__)

PATIENCE_S = 3.0
"""Kernels from the cache are ready before; whoever waits longer is told why."""

NOISY = ("faust", "mode", "aiokafka", "kafka", "asyncio")
TOLD_BY_US = ("aiokafka.producer.sender", "kafka.net")
"""What these call unexpected is raised to us and told in one line, but for connections that we close."""


async def serve(site: Site, stop: asyncio.Event, on_agents: Callable[[Agents], None]) -> None:
    """Run the agents, which `on_agents` is given, until `stop` is set; raises what made them fail."""
    job = site.job
    telling = threading.Timer(
        PATIENCE_S, log.warning, ("compiling kernels, once on this machine: half a minute",)
    )
    telling.start()
    try:
        warm_up()
    except OSError as error:
        raise StreamerError(
            f"Compiled kernels cannot be kept: {error}; make room in the user's cache directory, or name"
            " another one with NUMBA_CACHE_DIR"
        ) from error
    finally:
        telling.cancel()
    gc.freeze()  # all that was imported stays: to look through it takes the collector 0.2 s
    topics = job.settings.topics.resolved
    learning, upstream = [topics.outcomes], None
    if site.shards > 1:
        chain = Chain.of(job.topology, job.settings.topics)
        learning += [chain.learn, chain.models]
        upstream = Drain(site.connection, job.group, chain.topics)
    publisher = site.connection.publisher()
    await publisher.start()
    with LoopThread() as thread:
        opener = Opener(site, publisher, thread)
        try:
            agents = Agents(
                opener,
                job.settings,
                site.metrics,
                site.connection.faust_url,
                job.group,
                site.partitions,
                member=f"{job.group}-{site.member}",
                learning=learning,
                shards=site.shards,
                upstream=upstream,
            )
            on_agents(agents)
            await _run(site, agents, stop)
        finally:
            await opener.stop()
            await publisher.stop()


async def _run(site: Site, agents: Agents, stop: asyncio.Event) -> None:
    """Run the agents; where a topic that they read is lost they stop in good order, and that is raised."""
    if site.connection.embedded:  # its topics stay
        await agents.run(stop)
        return
    loop = asyncio.get_running_loop()
    lost: list[StateError] = []

    def on_lost(error: StateError) -> None:
        lost.append(error)
        loop.call_soon_threadsafe(stop.set)

    try:
        with Watch(site.connection.admin, list(site.partitions), on_lost):
            await agents.run(stop)
    except StreamerError as error:
        if lost:
            raise lost[0] from error
        raise
    if lost:
        raise lost[0]


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
        check_guarantee(job, embedded=connection.embedded)
        with closing(connection.admin()) as admin:
            partitions = prepare_topics(job, admin, embedded=connection.embedded)
        shards = 1 if connection.embedded else partitions[job.settings.topics.resolved.payments]
        with Claim.of(job.state) as claim:
            site = Site(job, connection, partitions, Metrics(), claim.member, shards, rates)
            if not site.keeps_changelog and shards == 1:
                Store.open(job.state).close()  # what is wrong with it is said first
            log.warning(
                "topology %s (%s), rates %s, on %s, group %s, state in %s",
                job.topology.name,
                job.topology.fingerprint,
                rates.version,
                job.broker,
                job.group,
                job.state,
            )
            asyncio.run(_until_signal(site))


def quiet() -> None:
    """Keep the frameworks below from logging what is not a user's concern."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in TOLD_BY_US:
        logging.getLogger(name).setLevel(logging.CRITICAL)
