"""The command `scripts/torture`: arguments in, figures and exit status out."""

import argparse
import random
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.end_to_end.logs import EmbeddedPlace, KafkaPlace, Place

from .fleet import EVENTS, FleetPlan, Happened, torture_fleet
from .fleet_report import fleet_report
from .report import Report, report
from .run import TOPICS, Plan, Struck, torture


def main(arguments: Sequence[str]) -> int:
    """Torture a worker; answers 0 where all is as it must be, 1 where it is not."""
    options = _parse(arguments)
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    command = shlex.join(["scripts/torture", *arguments])
    if options.seed is None:
        command += f" --seed {seed}"
    sys.stderr.write(f"seed {seed}: {command}\n")
    directory = Path(tempfile.mkdtemp(prefix="torture-"))
    found = Report({"seed": seed, "command": command}, ["it did not come to an end"])
    try:
        with _place(options, directory) as place:
            found = _judged(options, seed, command, place, directory)
    except AssertionError as error:
        found = Report({"seed": seed, "command": command}, [str(error)])
    finally:
        if found.failures:
            sys.stderr.write(f"state and log are kept in {directory}\n")
        else:
            shutil.rmtree(directory)
    sys.stdout.write(f"{found.line}\n" if options.json else f"{found}\n{found.line}\n")
    return 1 if found.failures else 0


def _judged(options: argparse.Namespace, seed: int, command: str, place: Place, directory: Path) -> Report:
    timeout = options.session_timeout_ms
    if options.partitions > 1 and isinstance(place, KafkaPlace):
        fleet = FleetPlan(
            options.payments,
            options.kills,
            seed,
            options.partitions,
            options.workers,
            options.guarantee,
            options.rate,
            options.standbys,
            tuple(options.events),
            timeout,
        )
        return fleet_report(torture_fleet(fleet, place, directory, _tell), command)
    plan = Plan(options.payments, options.kills, seed, options.points, options.hot, timeout)
    return report(torture(plan, place, directory, _tell), command, options.most_repeats)


def _tell(what: Struck | Happened) -> None:
    how = f"killed at {what}" if isinstance(what, Struck) else what
    sys.stderr.write(f"{how}\n")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/torture", description=__doc__)
    parser.add_argument(
        "--broker", type=_broker, help="kafka://host:port or log://DIR; default an embedded log of its own"
    )
    parser.add_argument("--payments", type=int, default=200_000, help="payment records (default %(default)s)")
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs (default %(default)s)")
    parser.add_argument("--seed", type=int, help="of input and kills; drawn and printed if absent")
    parser.add_argument(
        "--points", choices=("all", "random"), default="all", help="kill at every point in turn, or at any"
    )
    parser.add_argument("--hot", action="store_true", help="half of all payments on one card")
    parser.add_argument(
        "--most-repeats", type=int, help="fail where more answers are sent again; default any number"
    )
    parser.add_argument(
        "--session-timeout-ms", type=int, default=6_000, help="after which Kafka takes a worker for dead"
    )
    parser.add_argument(
        "--partitions", type=int, default=1, help="of payments, on Kafka; with several, a fleet is tortured"
    )
    parser.add_argument("--workers", type=int, default=2, help="of a fleet, more or less (default 2)")
    parser.add_argument(
        "--guarantee", choices=("at_least_once", "transactions"), default="at_least_once", help="of a fleet"
    )
    parser.add_argument("--rate", type=int, default=500, help="payments a second for a fleet (default 500)")
    parser.add_argument("--standbys", type=int, default=0, help="copies of each shard of a fleet (default 0)")
    parser.add_argument(
        "--events", nargs="+", choices=EVENTS, default=EVENTS, help="what happens to a fleet, in turn"
    )
    parser.add_argument("--json", action="store_true", help="print the line of JSON alone")
    options = parser.parse_args(arguments)
    if options.partitions > 1 and not (options.broker or "").startswith("kafka://"):
        parser.error("--partitions needs --broker kafka://host:port: an embedded log has one partition")
    return options


@contextmanager
def _place(options: argparse.Namespace, directory: Path) -> Iterator[Place]:
    kind, _, where = (options.broker or f"log://{directory / 'log'}").partition("://")
    if kind == "kafka":
        place = KafkaPlace(where, f"torture-{uuid4().hex[:12]}-", TOPICS, options.partitions)
        with place.topics():
            yield place
    else:
        yield EmbeddedPlace(Path(where), "")


def _broker(url: str) -> str:
    kind, _, where = url.partition("://")
    if kind not in {"kafka", "log"} or not where:
        raise argparse.ArgumentTypeError(f"expected kafka://host:port or log://DIR, got {url!r}")
    if kind == "log" and Path(where).exists() and any(Path(where).iterdir()):
        raise argparse.ArgumentTypeError(f"expected an empty or new directory, got {url!r}; name another")
    return url
