"""Where a declaration stands in the user's own file, so that an error found later can name its line."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from streamer.errors import TopologyError


@dataclass(frozen=True, slots=True)
class Site:
    """A line of a file."""

    path: str
    line: int


def here() -> Site | None:
    """The line outside this package that is being run: of whoever calls what calls this."""
    frame = inspect.currentframe()
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return None if frame is None else Site(frame.f_code.co_filename, frame.f_lineno)


@contextmanager
def declared_at(site: Site | None) -> Iterator[None]:
    """Give errors raised within the site of the declaration they are about, unless they have a closer one."""
    try:
        yield
    except TopologyError as error:
        if site is not None:
            error.place = error.place or (site.path, site.line)
        raise


def _is_ours(module: str) -> bool:
    return module == "streamer" or module.startswith("streamer.")
