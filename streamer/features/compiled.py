"""Compiles the kernels, with an on-disk cache that notices a change in any of them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_FINGERPRINT = _fingerprint()


def part(function: F) -> F:
    """Compile a function that only kernels call: as a kernel, without the means to be called from Python."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: F) -> F:
    """Compile a part into whoever calls it: to pass the memory of a table takes longer than most parts."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def kernel(function: F) -> F:
    """Compile a function of arrays and integers, once; a second process takes it from the cache on disk.

    numba stamps a cached kernel with the time and size of its own file alone, so it would keep calling an old
    copy of a kernel or constant of another file. Here the stamp is a hash of all files of this package.
    """
    return _compile(function, no_cfunc_wrapper=True)


def _compile(function: F, **options: bool) -> F:
    given: Any = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False, **options}
    dispatcher = njit(**given)(function)
    dispatcher._cache._cache_file._source_stamp = _FINGERPRINT  # noqa: SLF001 - numba has no public setting
    return cast("F", dispatcher)
