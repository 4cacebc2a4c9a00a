"""Which payment records of a partition are decided, naively: one by one, in order."""

from dataclasses import dataclass

from .reading import Payment, Unread, read

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Limits:
    """The settings that decide what is taken in; milliseconds and bytes."""

    allowed_lateness: int = 7 * DAY_MS
    dedup_window: int = DAY_MS
    future_tolerance: int = 600_000
    max_record_bytes: int = 1 << 20


USUAL = Limits()
"""The settings' defaults."""


@dataclass(frozen=True)
class Refused:
    """A rejection: its code, the id where it could be read, the offset of the payment that it repeats."""

    code: str
    payment_id: str | None
    first: int | None = None


class Acceptance:
    """Remembers what came before in its partition."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen: dict[str, tuple[int, int, Payment]] = {}
        self._greatest: int | None = None

    def judge(self, offset: int, timestamp: int, value: bytes | None) -> Payment | Refused:
        """The payment that is to be decided, or why none is."""
        payment = read(value, self._limits.max_record_bytes)
        if isinstance(payment, Unread):
            return Refused(payment.code, payment.payment_id)
        payment_id = payment["payment_id"]
        event_time, greatest = payment["event_time"], self._greatest
        if event_time > timestamp + self._limits.future_tolerance:
            return Refused("future", payment_id)
        if payment.get("live", True):
            self._greatest = event_time if greatest is None else max(greatest, event_time)
        if greatest is not None and event_time < greatest - self._limits.allowed_lateness:
            return Refused("too_late", payment_id)
        if payment_id in self._seen:
            first, seen_at, content = self._seen[payment_id]
            if timestamp - seen_at <= self._limits.dedup_window:
                return Refused("duplicate" if content == payment else "id_conflict", payment_id, first)
        self._seen[payment_id] = (offset, timestamp, payment)
        return payment
