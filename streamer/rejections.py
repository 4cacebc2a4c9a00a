"""Why a record gets no decision, and how the topics of rejections say so."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from streamer.batch import SOURCE, Headers, Outgoing, Records
from streamer.events import Rejection
from streamer.pan import LONGEST, mask

MAX_RECEIVED: Final = 4096
MAX_ERROR: Final = 500

RECEIVED_READ: Final = MAX_RECEIVED + LONGEST * 24
"""Bytes of a record on which its rejection depends; see `mask`."""

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is refused: its index in the batch, one of `events.Code`, what was expected and found.

    `error` must not quote what was received, unless through `quotable`.
    """

    index: int
    code: str
    error: str
    payment_id: str | None = None


def quotable(error: str) -> str:
    """Make an error text that quotes what was received fit to be passed on: no card numbers, no end.

    >>> quotable("Invalid enum value '4111111111111111' - at `$.type`")
    "Invalid enum value '****************' - at `$.type`"
    """
    if len(error) > MAX_ERROR:
        error = f"{error[: MAX_ERROR // 2]} ... {error[-MAX_ERROR // 4 :]}"
    return mask(error.encode("utf-8", "replace"), 4 * MAX_ERROR).decode("utf-8", "replace")


def encode_rejection(records: Records, rejected: Rejected) -> tuple[bytes | None, bytes, Headers]:
    """Key, value and headers for the topic of rejections; the key is `None` where no payment_id was read."""
    source = f"{records.topic}/{records.partition}/{records.offsets[rejected.index]}"
    return rejection_of(rejected, records.values[rejected.index] or b"", source.encode())


def rejection_of(rejected: Rejected, received: bytes, source: bytes) -> tuple[bytes | None, bytes, Headers]:
    """The same where the record is gone; `source` is topic/partition/offset of what was `received`."""
    value = Rejection(
        payment_id=rejected.payment_id,
        code=rejected.code,
        error=rejected.error,
        received=base64.b64encode(mask(received, MAX_RECEIVED)).decode(),
    )
    key = None if rejected.payment_id is None else rejected.payment_id.encode()
    return key, _encoder.encode(value), [(SOURCE, source)]


def add_rejections(out: Outgoing, records: Records, rejected: Iterable[Rejected]) -> None:
    """Add the answers to records that are refused, in order."""
    for item in rejected:
        out.append(*encode_rejection(records, item))
