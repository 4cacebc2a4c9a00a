"""Reads payments back from their canonical content, only some of their columns: fast, for many of them."""

from collections.abc import Iterable
from typing import get_type_hints

import msgspec
import numpy as np

from streamer.batch import Text
from streamer.events import Payment
from streamer.payments import PaymentBatch

_ALWAYS = ("event_time", "amount", "live", "currency", "email")
"""The columns that every batch has, and what others are made of."""

_ARRAY = b"\xdd"
"""In MessagePack an array follows, its length in four bytes."""


class PaymentReader:
    """Reads the columns `names`, which are fields or declared attributes.

    Of what is read no `rows` are to be used but through these columns.
    """

    def __init__(self, names: Iterable[str]) -> None:
        wanted = {name if name in Payment.__struct_fields__ else "attributes" for name in names}.union(
            _ALWAYS
        )
        # Types without their limits: what was stored has been checked.
        kinds = get_type_hints(Payment)
        fields = [
            (one.name, kinds[one.name], None if one.required else one.default)
            for one in msgspec.structs.fields(Payment)
            if one.name in wanted
        ]
        self._decoder = msgspec.msgpack.Decoder(list[msgspec.defstruct("Read", fields, gc=False)])  # type: ignore[misc]

    def read(self, content: Text) -> PaymentBatch:
        """Read payments back; they have neither index, offsets nor log times."""
        n = len(content)
        data = content.data.data[: int(content.ends[-1])]
        rows = self._decoder.decode(b"".join((_ARRAY, n.to_bytes(4, "big"), data)))
        none = np.zeros(n, np.int64)
        return PaymentBatch.of(rows, none, none, none)
