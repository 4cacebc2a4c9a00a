"""The command line: arguments in, exit status out."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console

from streamer import schemas as event_schemas
from streamer.bench import BenchJob
from streamer.bench import bench as run_bench
from streamer.configuration import load
from streamer.declared import changes_in, clock_of
from streamer.demo import Demo, Tally, run_demo
from streamer.description import describe
from streamer.errors import ConfigError, StreamerError
from streamer.generate import Load, generate_files, generate_topics
from streamer.job import Guarantee, Job
from streamer.loading import DEFAULT, load_topology
from streamer.report import Compared, compared_json, show_changes, show_topology, summarize_demo, tick_line
from streamer.settings import Settings
from streamer.simulator.files import Format
from streamer.state.store import Store
from streamer.topology import Topology as Loaded
from streamer.units import parse_size
from streamer.worker import run as run_worker
from streamer.workloads import WORKLOADS

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Exact streaming features, scores and decisions for payments.",
)
out = Console(highlight=False, markup=False, soft_wrap=True)

Topology = Annotated[Path, typer.Argument(help="A Python file that defines one topology.")]
Broker = Annotated[str, typer.Option(help="kafka://host:port[,host:port] or log://DIR.")]
SettingsFile = Annotated[
    Path | None, typer.Option("--settings", help="Settings file; default streamer.toml if there.")
]
Json = Annotated[bool, typer.Option("--json", help="Print figures as one JSON object.")]
Seed = Annotated[int, typer.Option(help="Seed of the simulation.")]


@app.command()
def demo(
    payments: Annotated[int, typer.Option(min=1, help="Payments to simulate.")] = 40_000,
    seed: Seed = 1,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep log and state here; default a temporary one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide simulated payments on an embedded log and show how it goes."""
    with tempfile.TemporaryDirectory(prefix="streamer-demo-") as temporary:
        where = directory or Path(temporary)
        if directory is not None and (directory / "state").exists():
            raise ConfigError(
                f"{directory} holds an earlier demo; remove it or name a new directory with --dir"
            )
        if not as_json:
            out.print(f"{payments:,} simulated payments into log://{where}/log, decided by {DEFAULT}")

        def show(tally: Tally, versions: Mapping[str, int]) -> None:
            if not as_json:
                out.print(tick_line(tally, versions))

        summary = run_demo(Demo(payments, seed, where), show)
    if as_json:
        _print_json(summary)
    else:
        summarize_demo(out, summary)


@app.command()
def run(
    topology: Topology = DEFAULT,
    broker: Broker = ...,  # type: ignore[assignment]
    state: Annotated[Path | None, typer.Option(help="State directory; default streamer-state/GROUP.")] = None,
    group: Annotated[str | None, typer.Option(help="Consumer group; default streamer-TOPOLOGY.")] = None,
    emit_features: Annotated[
        bool, typer.Option("--emit-features", help="Also send features to the topic features.")
    ] = False,
    guarantee: Annotated[
        Guarantee,
        typer.Option(
            help="at_least_once: outputs are visible as they are sent; after a crash none is sent twice but"
            " by a worker that was replaced. transactions: visible with their commit, to readers with"
            " read_committed, exactly once; needs Kafka."
        ),
    ] = "at_least_once",
    settings: SettingsFile = None,
) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Needs the topics payments and outcomes; creates decisions, payments.rejected, outcomes.rejected, models
    and journal (and features with --emit-features) where they are missing. On log:// it creates all of them.
    """
    loaded = load_topology(topology)
    group = group or f"streamer-{loaded.name}"
    directory = state or Path("streamer-state") / group
    job = Job(loaded, broker, directory, group, _settings(settings), emit_features, guarantee)
    run_worker(job)


@app.command()
def generate(
    payments: Annotated[int, typer.Option(min=1, help="Payments to simulate.")],
    seed: Seed = 1,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=1e6, help="Payments per second; default as fast as it goes."),
    ] = None,
    days: Annotated[
        float, typer.Option(min=0.01, max=36_500, help="Days of event time that the payments span.")
    ] = 75.0,
    broker: Annotated[
        str | None, typer.Option(help="Send to the topics of this log; creates payments and outcomes.")
    ] = None,
    directory: Annotated[Path | None, typer.Option("--out", help="Write files into this directory.")] = None,
    file_format: Annotated[Format, typer.Option("--format", help="Of the files.")] = "parquet",
    settings: SettingsFile = None,
    as_json: Json = False,
) -> None:
    """Write a realistic stream of payments and outcomes to topics or to files."""
    load_ = Load(payments, seed, days, rate)
    if (broker is None) == (directory is None):
        raise ConfigError("name either --broker URL, to send to topics, or --out DIR, to write files")
    if broker is not None:
        figures = generate_topics(load_, broker, _settings(settings))
    else:
        assert directory is not None  # noqa: S101 - exactly one of the two is given
        with _writing(directory):
            figures = generate_files(load_, directory, file_format)
    _show_figures(figures, as_json=as_json)


@app.command()
def check(
    topology: Topology = DEFAULT,
    state: Annotated[
        Path | None, typer.Option(help="Say what changes for this state directory; it is only read.")
    ] = None,
    settings: SettingsFile = None,
    as_json: Json = False,
) -> None:
    """Validate a topology and list what it declares, what it keeps, and what that changes."""
    loaded = load_topology(topology)
    lateness = _settings(settings).events.allowed_lateness
    described = describe(loaded, lateness)
    compared = None if state is None else _compared(state, loaded, lateness)
    if as_json:
        _print_json(described if compared is None else described | {"state": compared_json(compared)})
        return
    show_topology(out, described)
    if compared is not None:
        show_changes(out, compared)


@app.command()
def schemas(
    check_only: Annotated[bool, typer.Option("--check", help="Only compare.")] = False,
    directory: Annotated[Path, typer.Option("--dir", help="Where the schemas are.")] = Path("schemas"),
) -> None:
    """Write the JSON Schema of each event, or check that the files agree with the code."""
    if not check_only:
        with _writing(directory):
            event_schemas.write(directory)
        return
    differences = event_schemas.check(directory)
    for difference in differences:
        out.print(difference)
    if differences:
        raise StreamerError(f"{directory} does not agree with the code; run `streamer schemas`")
    out.print(f"{directory} agrees with the code")


@app.command()
def bench(
    workload: Annotated[str, typer.Argument(help=f"One of {', '.join(WORKLOADS)}.")] = "payments",
    broker: Broker = "kafka://localhost:9092",
    payments: Annotated[int, typer.Option(min=1000, help="Payments for the throughput figure.")] = 300_000,
    rate: Annotated[float, typer.Option(min=1, help="Payments per second for the latency figure.")] = 2_000.0,
    seconds: Annotated[
        float, typer.Option(min=0, help="How long to hold that rate; 0: measure throughput alone.")
    ] = 20.0,
    memory: Annotated[str | None, typer.Option(help="Memory budget, such as 256MiB.")] = None,
    bad: Annotated[float, typer.Option(min=0, max=1, help="Share of broken payments.")] = 0.0,
    plain_faust: Annotated[
        int, typer.Option(min=0, help="Payments for the plain Faust job in scripts/bench; 0: leave it out.")
    ] = 0,
    partitions: Annotated[int, typer.Option(min=1, help="Of payments and outcomes; on Kafka.")] = 1,
    workers: Annotated[
        int,
        typer.Option(min=1, help="That share them, each on a core of its own while there are."),
    ] = 1,
    guarantee: Annotated[Guarantee, typer.Option(help="As of run.")] = "at_least_once",
    changelog: Annotated[
        Literal["auto", "off"] | None,
        typer.Option(help="Whether commits go to a changelog too; default as in the settings."),
    ] = None,
    settings: SettingsFile = None,
) -> None:
    """Measure a workload; the last line is one JSON object."""
    if workload not in WORKLOADS:
        raise ConfigError(f"expected one of {', '.join(WORKLOADS)}, got {workload!r}")
    if memory is not None:
        parse_size(memory)
    command = " ".join(["streamer", *sys.argv[1:]])
    read = _settings(settings)
    if changelog is not None:
        read = msgspec.structs.replace(read, state=msgspec.structs.replace(read.state, changelog=changelog))
    job = BenchJob(
        broker,
        payments,
        rate,
        seconds,
        memory,
        bad,
        plain_faust,
        read,
        command,
        partitions,
        workers,
        guarantee,
    )
    _print_json(run_bench(job, WORKLOADS[workload], out.print))


def main() -> None:
    """Run the command line; errors are one line on stderr and exit status 1 or 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        status = app(standalone_mode=False)
    except StreamerError as error:
        _die(str(error), 2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        _die("interrupted", 130)
    except BrokenPipeError:
        os._exit(141)
    except typer.Exit as leaving:
        sys.exit(leaving.exit_code)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):
            _die(error.format_message(), error.exit_code)
        raise
    sys.exit(status if isinstance(status, int) else 0)


def _compared(state: Path, topology: Loaded, allowed_lateness: int) -> Compared:
    with Store.read(state) as store:
        return Compared(state, clock_of(store), changes_in(store, topology, allowed_lateness))


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """A directory that cannot be written to is wrong usage."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written to: {error.strerror}; name another") from error


def _die(message: str, status: int) -> None:
    print(f"streamer: {message}", file=sys.stderr)  # noqa: T201 - errors go to stderr, plain
    sys.exit(status)


def _settings(path: Path | None) -> Settings:
    return load(path, os.environ)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _show_figures(figures: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        _print_json(figures)
        return
    for name, value in figures.items():
        out.print(
            f"{name.replace('_', ' ')}: {value:,}"
            if isinstance(value, int)
            else f"{name.replace('_', ' ')}: {value}"
        )
