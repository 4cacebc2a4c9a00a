"""JSON records to structs, one by one, so that what is wrong with a record is never its neighbours' affair.

Joining records to one array was measured: with these structs it is no faster (0.67 us a payment either way),
it can be forged unless guarded, and one bad record in a hundred makes it slower.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Generic, TypeVar, cast

import msgspec
import numpy as np
from msgspec import Meta, Struct

from streamer.batch import Bool, Int64
from streamer.events import MAX_ID_BYTES
from streamer.rejections import Rejected, quotable

MAX_DEPTH: Final = 64
"""Arrays and objects within each other in one record; far below the interpreter's own, varying limit."""

TOO_DEEP: Final = f"Expected at most {MAX_DEPTH} levels of arrays and objects, got more"

# Records looked at in one go: few enough that their arrays reuse memory instead of faulting pages in, and
# that flat records, one bracket each, need no counting one by one.
_TOGETHER: Final = MAX_DEPTH
_BRACKET: Final = 0x5B
_BRACE_TO_BRACKET: Final = 0xDF  # clears the one bit in which `{` and `[` differ
_BACKSLASH: Final = 0x5C
_LAST_ASCII: Final = 0x7F
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_STEP: Final = np.zeros(256, np.int8)
_STEP[list(b"[{")] = 1
_STEP[list(b"]}")] = -1

T = TypeVar("T", bound=Struct)


_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]


class _Named(Struct):
    """A record of which only the payment_id is read."""

    payment_id: _Id


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """The structs of a batch in order, `index` their places in it, and the records that were refused.

    `wide` are the positions in `rows` whose strings may have more bytes than characters.
    """

    rows: list[T]
    index: list[int]
    rejected: list[Rejected]
    wide: list[int]


class RecordDecoder(Generic[T]):
    """Reads records of one kind; `id_name` is the name under which they carry the payment_id."""

    def __init__(self, kind: type[T], max_record_bytes: int, id_name: str = "payment_id") -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._max_bytes = max_record_bytes
        named = msgspec.defstruct("Named", [("payment_id", _Id)], rename={"payment_id": id_name})
        self._named = msgspec.json.Decoder(cast("type[_Named]", named))

    def decode(self, values: Sequence[bytes | None]) -> Read[T]:
        """Each value becomes a struct or a rejection; nothing is raised, whatever the bytes."""
        refused, wide = self._screen(values)
        rows: list[T] = []
        add, decode = rows.append, self._decode
        for index, value in enumerate(values):
            if refused and index in refused:
                continue
            try:
                add(decode(value))  # type: ignore[arg-type]  # screened: no `None` is left
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                refused[index] = self._refuse(index, value or b"", *_explain(error))
        if not refused:
            return Read(rows, list(range(len(values))), [], wide)
        index_of = [index for index in range(len(values)) if index not in refused]
        marked = set(wide)
        return Read(
            rows,
            index_of,
            [refused[index] for index in sorted(refused)],
            [position for position, index in enumerate(index_of) if index in marked],
        )

    def _screen(self, values: Sequence[bytes | None]) -> tuple[dict[int, Rejected], list[int]]:
        """Refuse what must not reach the parser, and find the records with more bytes than characters."""
        refused: dict[int, Rejected] = {}
        for index, value in enumerate(values):
            if not value or len(value) > self._max_bytes:
                refused[index] = self._refuse(index, value or b"", *self._unfit(value))
        sound = [b"" if index in refused else value or b"" for index, value in enumerate(values)]
        wide: list[int] = []
        for start in range(0, len(sound), _TOGETHER):
            deep, strange = _unusual(sound[start : start + _TOGETHER])
            for index in (start + place for place in deep):
                if depth(sound[index]) > MAX_DEPTH:
                    refused[index] = Rejected(index, "invalid_json", TOO_DEEP)
            for index in (start + place for place in strange):
                if index in refused:
                    continue
                if flaw := _not_utf8(sound[index]):
                    refused[index] = self._refuse(index, sound[index], "invalid_json", flaw)
                else:
                    wide.append(index)
        return refused, wide

    def _unfit(self, value: bytes | None) -> tuple[str, str]:
        if value:
            return "too_large", f"Expected at most {self._max_bytes} bytes, got {len(value)}"
        found = "no value (a tombstone)" if value is None else "an empty value"
        return "invalid_json", f"Expected a JSON object, got {found}"

    def _refuse(self, index: int, value: bytes, code: str, error: str) -> Rejected:
        return Rejected(index, code, error, self._payment_id(value))

    def _payment_id(self, value: bytes) -> str | None:
        brackets = value.count(b"[") + value.count(b"{")
        if brackets > MAX_DEPTH and depth(value) > MAX_DEPTH:
            return None
        try:
            name = self._named.decode(value).payment_id
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return name if len(name.encode()) <= MAX_ID_BYTES else None


def incoming_names(kind: type[Struct], rename: Mapping[str, str]) -> dict[str, str]:
    """Our field names to those that a producer uses; `rename` is the other way round.

    A name that was given to another field cannot also mean its own: it is moved out of reach.
    """
    theirs = {ours: incoming for incoming, ours in rename.items()}
    return {
        name: theirs.get(name, f"(no incoming name for {name})" if name in rename else name)
        for name in kind.__struct_fields__
    }


def _explain(error: Exception) -> tuple[str, str]:
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        if text.startswith("Object missing required field"):
            return "missing_field", text
        if text.startswith("Expected `object`") and " - at " not in text:
            return "invalid_json", text
        return "invalid_field", quotable(text)
    if isinstance(error, RecursionError):
        return "invalid_json", TOO_DEEP
    return "invalid_json", quotable(text)


def depth(value: bytes) -> int:
    """Tell how deep brackets outside strings are nested; exact for JSON, any number for what is none.

    >>> depth(b'{"a":[[1],"[[["]}')
    3
    """
    brackets = np.frombuffer(_STRING.sub(b"", value), np.uint8)
    return int(np.cumsum(_STEP[brackets], dtype=np.int64).max(initial=0))


def _unusual(values: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Find the values with many opening brackets, and those with a backslash or a byte beyond ASCII."""
    blob = b"".join(values)
    data = np.frombuffer(blob, np.uint8)
    opens = (data & _BRACE_TO_BRACKET) == _BRACKET
    deep, strange = [], []
    if np.count_nonzero(opens) > MAX_DEPTH:
        deep = np.flatnonzero(_count(opens, values) > MAX_DEPTH).tolist()
    if not blob.isascii() or b"\\" in blob:
        strange = np.flatnonzero(_count((data > _LAST_ASCII) | (data == _BACKSLASH), values)).tolist()
    return deep, strange


def _count(marks: Bool, values: Sequence[bytes]) -> Int64:
    """Count the marked bytes of each value, all values being laid end to end."""
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    return np.bincount(np.searchsorted(ends, np.flatnonzero(marks), side="right"), minlength=len(values))


def _not_utf8(value: bytes) -> str:
    if value.isascii():
        return ""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"Expected UTF-8, got byte 0x{value[error.start]:02x} (byte {error.start})"
    return ""
