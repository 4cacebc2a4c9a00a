"""Finds and runs a topology file, and says on which line it is wrong."""

import builtins
import difflib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

import streamer
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
        said = f"{_said(error)}{_remedy(error, vars(module))}"
        raise TopologyError(f"{found}:{_line(error, found)}: {said}") from error
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


def _remedy(error: BaseException, known: Iterable[str]) -> str:
    """What to write instead of a name that is not there."""
    if isinstance(error, NameError) and error.name:
        if error.name in streamer.__all__:
            return f"; import it: from streamer import {error.name}"
        return _likely(error.name, (*known, *streamer.__all__, *dir(builtins)))
    missing = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    if isinstance(error, ImportError) and missing and missing[2] in sys.modules:
        return _likely(missing[1], vars(sys.modules[missing[2]]))
    return ""


def _likely(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _line(error: BaseException, path: Path) -> int:
    here = str(path.absolute())  # as the import system names it, however the path was given
    if isinstance(error, TopologyError) and error.place is not None and error.place[0] == here:
        return error.place[1]
    if isinstance(error, SyntaxError) and error.filename == here:
        return error.lineno or 0
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == here]
    return lines[-1] if lines and lines[-1] else 0
