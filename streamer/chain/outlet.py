"""Sends a stage's rows on to the partitions of the next one, which keys choose."""

from collections.abc import Sequence

import numpy as np

from streamer.batch import Bool, Int64, Outgoing
from streamer.chain.stages import FRAUDS as TELLERS
from streamer.chain.stages import Stage
from streamer.chain.wire import FRAUDS, PAYMENTS, Head, Rows, by_partition, encode
from streamer.encoding import canonical
from streamer.features.columns import Prepared
from streamer.partitioning import partitions_of_text
from streamer.payments import KnownFraud, PaymentBatch


class Outlet:
    """The way from partition `number` of the stage `sender` to the partitions of `to`, one for each shard."""

    def __init__(self, sender: str, number: int, to: Stage, shards: int) -> None:
        self._sender = sender
        self._number = number
        self._to = to
        self._shards = shards

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of payments that choose a partition."""
        return ("payment_id", *self._to.keys)

    def send(self, rows: Rows, payments: PaymentBatch, clock: int, pace: int) -> list[Outgoing]:
        """The messages of these rows, which are those `payments`; `clock` and `pace` as in `wire.Head`."""
        partition, keyed = self._partition(payments)
        if not keyed.all():
            partition = np.where(keyed, partition, partitions_of_text(payments.payment_id, self._shards))
        head = Head(PAYMENTS, self._sender, self._number, clock, self._to.layout, pace)
        return self._messages(head, rows, partition)

    def tell(self, frauds: Sequence[KnownFraud], first: int) -> list[Outgoing]:
        """The messages of frauds that are numbered from `first` on; none of those that lack its keys."""
        payments = PaymentBatch.stored([one.payment for one in frauds])
        partition, keyed = self._partition(payments)
        numbers = {
            "log_time": np.array([one.known for one in frauds], np.int64),
            "position": first + np.arange(len(frauds), dtype=np.int64),
        }
        rows = Rows.of(canonical(payments.rows), numbers).take(np.flatnonzero(keyed))
        return self._messages(Head(FRAUDS, TELLERS, self._number, 0, 0), rows, partition[keyed])

    def _messages(self, head: Head, rows: Rows, partition: Int64) -> list[Outgoing]:
        out = []
        for number, part in by_partition(rows, partition):
            outgoing = Outgoing(self._to.topic, number, patient=head.pace > 0)
            for message in encode(head, part):
                outgoing.append(None, message)
            out.append(outgoing)
        return out

    def _partition(self, payments: PaymentBatch) -> tuple[Int64, Bool]:
        """The partition of each payment by its keys, and whether it has them all."""
        text, _ = Prepared(payments).keys(self._to.keys or ("payment_id",))
        return partitions_of_text(text, self._shards), text.present
