"""Finds and runs a topology file, and says on which line it is wrong."""

import importlib.util
import sys
import traceback
from pathlib import Path

from streamer.errors import StreamerError, TopologyError
from streamer.topology import Topology

DEFAULT = Path("topologies/payments.py")
SHIPPED = (Path(sys.prefix) / "share" / "streamer", Path(__file__).parent.parent)
"""Where the topologies that come with the package are: installed, or in the checkout."""


def locate(path: Path) -> Path:
    """The topology file `path`, or the one of that name that is installed with the package."""
    for found in (path, *(directory / path for directory in SHIPPED)):
        if found.is_file():
            return found
    raise TopologyError(f"there is no topology file {path}; name a Python file that defines a Topology")


def load_topology(path: Path) -> Topology:
    """Run the file and return the one topology it defines; raises `TopologyError` that names the line."""
    found = locate(path)
    spec = importlib.util.spec_from_file_location(f"topology_{found.stem}", found)
    if spec is None or spec.loader is None:
        raise TopologyError(f"{path} is not a Python file; name one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TopologyError(f"{found}:{_line(error, found)}: {_said(error)}") from error
    topologies = [value for value in vars(module).values() if isinstance(value, Topology)]
    if len({id(topology) for topology in topologies}) != 1:
        raise TopologyError(
            f"{found} defines {len(topologies)} topologies; expected one: `topology = Topology(...)`"
        )
    return topologies[0]


def _said(error: BaseException) -> str:
    """One line on an error; of those that are not ours the kind too, since many say little without it."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    kind = "" if isinstance(error, StreamerError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(text.split())}"


def _line(error: BaseException, path: Path) -> int:
    here = str(path.absolute())  # as the import system names it, however the path was given
    if isinstance(error, SyntaxError) and error.filename == here:
        return error.lineno or 0
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == here]
    return lines[-1] if lines and lines[-1] else 0
