"""What kernels do with memory beyond indexing: fetch it early, and move eight bytes at once.

Nothing here checks a bound or counts a negative index from the end.
"""

# ruff: noqa: ANN001, ANN202, ARG001 - numba gives builders their types, and calls them by its own rules
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from collections.abc import Callable
from typing import Any, Final, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_Read = Callable[[object, int], Any]
_Write = Callable[[object, int, int], None]

_FLAG: Final = cgutils.int32_t
_READ, _KEEP, _DATA = _FLAG(0), _FLAG(3), _FLAG(1)
_WORD: Final = ir.IntType(64).as_pointer()


def _prefetch(typing, array, index):
    def build(context, builder, signature, arguments):
        line = _place(context, builder, signature, arguments, cgutils.voidptr_t)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _FLAG, _FLAG, _FLAG])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [line, _READ, _KEEP, _DATA])
        return context.get_dummy_value()

    return types.void(array, types.int64), build


def _get_word(typing, array, index):
    def build(context, builder, signature, arguments):
        return builder.load(_place(context, builder, signature, arguments, _WORD), align=1)

    return types.uint64(array, types.int64), build


def _put_word(typing, array, index, value):
    def build(context, builder, signature, arguments):
        builder.store(arguments[2], _place(context, builder, signature, arguments, _WORD), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), build


def _place(context, builder, signature, arguments, pointer):
    view = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(view.data, [arguments[1]]), pointer)


prefetch = cast("_Read", intrinsic(_prefetch))
"""prefetch(array, index) has a cache line on its way: one that is not in a cache is 200 ns away."""

get_word = cast("_Read", intrinsic(_get_word))
"""get_word(array, index) is eight bytes from there on, as a little-endian unsigned number."""

put_word = cast("_Write", intrinsic(_put_word))
"""put_word(array, index, value) writes eight bytes there, little-endian."""
