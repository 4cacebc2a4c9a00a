"""The workers of a measurement: processes of their own, held to cores, watched through their metrics."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streamer.errors import ConfigError, StreamerError

WARM_SHARE = 0.1
"""The first part of the payments, not counted: caches and kernels warm up."""

FULL_SHARE, DRY_SHARE = 0.2, 0.95
"""Of a chain of stages, the parts answered when all have work, and taken in when first partitions are dry."""

_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_S = 0.25
_LISTENS = "0A"
"""The state of a socket in /proc/net/tcp."""


@dataclass(slots=True)
class BenchWorker:
    """A running `streamer run`."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str] = field(default_factory=list)

    def sample(self) -> dict[str, float]:
        """The values of all series, added up over their labels; those of the stages by stage."""
        if self.process.poll() is not None:
            raise StreamerError("the worker ended early: " + " ".join(self.lines[-5:]))
        with urllib.request.urlopen(self.url + "/metrics", timeout=30) as page:  # noqa: S310 - our own loopback URL
            text = page.read().decode()
        found: dict[str, float] = {}
        for name, labels, value in re.findall(r"^(\w+)(\{.*\})? (\S+)$", text, re.MULTILINE):
            stage = re.fullmatch(r'{stage="(\w+)"}', labels)
            key = name + (stage[1] if stage else "")
            found[key] = found.get(key, 0.0) + float(value)
        return found

    def ready(self) -> bool:
        """Whether it has been given partitions."""
        self.sample()
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=30):  # noqa: S310 - our own loopback URL
                return True
        except urllib.error.HTTPError:
            return False

    def peak_rss_mb(self) -> int:
        """The most memory it ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) // 1024 if found else 0


def core_of(number: int) -> int:
    """The core that worker `number` is held to: one of its own while there are enough."""
    return number % (os.cpu_count() or 1)


def pinned(core: int) -> list[str]:
    """What to put before a command to hold it to a core; nothing where the system has no way."""
    return ["taskset", "-c", str(core)] if shutil.which("taskset") else []


@contextmanager
def running(
    arguments: Sequence[str], environment: Mapping[str, str], state: Path, workers: int
) -> Iterator[list[BenchWorker]]:
    """Run `streamer run ARGUMENTS` so many times at once, with a directory in `state` for each."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                _process([*arguments, "--state", str(state / str(number))], environment, number)
            )
            for number in range(workers)
        ]
        yield [_ready(process) for process in started]


@contextmanager
def _process(
    arguments: Sequence[str], environment: Mapping[str, str], core: int
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [*pinned(core), sys.executable, "-m", "streamer", "run", *arguments],
        env={**environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _ready(process: subprocess.Popen[str]) -> BenchWorker:
    """The worker, once it says where its metrics are; the rest of what it says is read beside."""
    lines: list[str] = []
    assert process.stderr is not None  # noqa: S101 - asked for above
    for line in process.stderr:
        lines.append(line.strip())
        found = re.search(r"http://\S+", line)
        if found:
            threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True).start()
            return BenchWorker(process, found[0], lines)
    raise StreamerError("the worker did not start: " + " ".join(lines))


@dataclass(frozen=True, slots=True)
class _Look:
    """All workers at one moment."""

    seconds: float
    series: Mapping[str, float]
    """Added up over the workers."""
    broker: float | None
    """Processor seconds of the broker."""

    @property
    def taken(self) -> float:
        return self.series["streamer_payments_total"]

    @property
    def answered(self) -> float:
        return self.series["streamer_decisions_total"] + self.series.get("streamer_rejections_total", 0.0)


def throughput(workers: Sequence[BenchWorker], payments: int, broker: str) -> dict[str, object]:
    """Watch until so many payments, which are there already, have been answered: decided or rejected.

    Counted are those that come in once caches are warm.
    """
    watched = _broker_process(broker)
    looks = [_look(workers, watched)]
    while looks[-1].answered < payments:
        time.sleep(_LOOK_S)
        looks.append(_look(workers, watched))
    start = next(one for one in looks if one.taken >= payments * WARM_SHARE)
    return {"payments": payments, **_between(start, looks[-1], round(payments - start.taken))}


def throughput_of_all(
    workers: Sequence[BenchWorker], payments: int, broker: str, fill: Callable[[int], None]
) -> dict[str, object]:
    """The same of workers that share partitions, to which `fill` sends so many more payments.

    They stand still while all but the first are sent: sending costs them no time, and none is ahead of the
    others before these have their share. It has to be over before the group gives them up. Counted is what is
    answered while all stages have work: from when some have passed them all until partitions run dry. Where
    that never is, for there are too few, it is all that was sent meanwhile.
    """
    watched = _broker_process(broker)
    while not all(worker.ready() for worker in workers):
        time.sleep(_LOOK_S)
    warm = int(payments * WARM_SHARE)
    fill(warm)
    while _look(workers, watched).answered < warm:
        time.sleep(_LOOK_S)
    _signal(workers, signal.SIGSTOP)
    try:
        fill(payments - warm)
    finally:
        _signal(workers, signal.SIGCONT)
    looks = [_look(workers, watched)]
    while looks[-1].answered < payments:
        time.sleep(_LOOK_S)
        looks.append(_look(workers, watched))
    start = next(one for one in looks if one.answered >= payments * FULL_SHARE)
    end = next((one for one in reversed(looks) if one.taken <= payments * DRY_SHARE), looks[0])
    if end.answered <= start.answered:
        start, end = looks[0], looks[-1]
    return {"payments": payments, **_between(start, end, round(end.answered - start.answered))}


def _signal(workers: Sequence[BenchWorker], number: signal.Signals) -> None:
    for worker in workers:
        worker.process.send_signal(number)


def _between(start: _Look, end: _Look, n: int) -> dict[str, object]:
    """The figures of n payments that were worked on between two moments."""
    if n <= 0:
        raise ConfigError("too few payments for a figure: all came in between two looks; raise --payments")

    def each(name: str) -> float:
        return round((end.series[name] - start.series.get(name, 0.0)) / n * 1e6, 2)

    prefix, batches = "streamer_stage_seconds_total", "streamer_batch_records_count"
    seconds = end.seconds - start.seconds
    figures: dict[str, object] = {
        "counted": n,
        "payments_per_second": round(n / seconds),
        "cpu_us_per_payment": each("process_cpu_seconds_total"),
        "stage_us_per_payment": {
            name.removeprefix(prefix): each(name) for name in end.series if name.startswith(prefix)
        },
        "payments_per_batch": round(n / max(1.0, end.series[batches] - start.series.get(batches, 0.0)), 1),
        "commits_per_second": round(
            (end.series["streamer_commits_total"] - start.series["streamer_commits_total"]) / seconds
        ),
        "load_average": round(os.getloadavg()[0], 2),
    }
    if start.broker is not None and end.broker is not None:
        spent = end.broker - start.broker
        figures["broker_cpu_us_per_payment"] = round(spent / n * 1e6, 2)
        figures["broker_cores"] = round(spent / seconds, 2)
    return figures


def _look(workers: Sequence[BenchWorker], watched: int | None) -> _Look:
    samples = [worker.sample() for worker in workers]
    series: dict[str, float] = {}
    for sample in samples:
        for name, value in sample.items():
            series[name] = series.get(name, 0.0) + value
    return _Look(
        time.perf_counter(),
        series,
        None if watched is None else _cpu_seconds(watched),
    )


def _cpu_seconds(process: int) -> float:
    """What a process has had of processors, by the system and for itself."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _broker_process(broker: str) -> int | None:
    """The process on this machine that listens at the port of the first server of `broker`, if one does."""
    found = re.match(r"kafka://[^,]*:(\d+)", broker)
    if not found:
        return None
    wanted = f":{int(found[1]):04X}"
    sockets = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, *rest = line.split()
            if local.endswith(wanted) and state == _LISTENS:
                sockets.add(f"socket:[{rest[5]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in sockets:
                return int(link.parts[2])
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return None
