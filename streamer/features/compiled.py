"""Compiles the kernels, with an on-disk cache that notices a change in any of them."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import config, njit
from numba.core import caching

F = TypeVar("F", bound=Callable[..., object])


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_FINGERPRINT = _fingerprint()


def _directory() -> Path | None:
    """Where the compiled kernels of this source lie, whoever runs it; `None`: where numba chooses."""
    if cast("Any", config).CACHE_DIR:
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        directory = base / "streamer" / _FINGERPRINT[:16]
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return directory if os.access(directory, os.W_OK) else None


_DIRECTORY = _directory()


def part(function: F) -> F:
    """Compile a function that only kernels call: as a kernel, without the means to be called from Python."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: F) -> F:
    """Compile a part into whoever calls it: to pass the memory of a table takes longer than most parts."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def kernel(function: F) -> F:
    """Compile a function of arrays and integers, once; a second process takes it from the cache on disk.

    numba stamps a cached kernel with the time and size of its own file alone, so it would keep calling an old
    copy of a kernel or constant of another file. Here the stamp is a hash of all files of this package, and
    the copies are kept under it in the user's cache directory (`XDG_CACHE_HOME`), unless NUMBA_CACHE_DIR says
    where: a second environment or checkout of the same source need not compile again.
    """
    return _compile(function, no_cfunc_wrapper=True)


def _compile(function: F, **options: bool) -> F:
    given: Any = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False, **options}
    dispatcher = njit(**given)(function)
    cache = dispatcher._cache  # noqa: SLF001 - numba has no public setting
    if _DIRECTORY is None:
        cache._cache_file._source_stamp = _FINGERPRINT  # noqa: SLF001
    else:
        cache._cache_path = str(_DIRECTORY)  # noqa: SLF001
        name = cache._impl.filename_base  # noqa: SLF001
        files: Any = caching.IndexDataCacheFile
        cache._cache_file = files(str(_DIRECTORY), name, _FINGERPRINT)  # noqa: SLF001
    return cast("F", dispatcher)
