"""The fields of a payment that features are computed from, and the conditions on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NoReturn

from streamer.errors import TopologyError
from streamer.events import MADE, Payment
from streamer.sites import Site, here

Scalar = str | int | float
Operator = Literal["==", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Column:
    """A field as the tables keep it: text as a hash, a number as an integer of `decimals` decimal places.

    Renaming it, or changing its decimals, loses what is stored of it.
    """

    name: str
    text: bool
    decimals: int = 0
    site: Site | None = field(default_factory=here, kw_only=True, repr=False, compare=False)

    @property
    def scale(self) -> float:
        """How many of its smallest units are one."""
        return float(10**self.decimals)


class Where:
    """A condition on the payment itself; a missing value meets no comparison. Combine with `&`, `|`, `~`."""

    def __and__(self, other: "Where") -> "Where":
        return Both(self, _condition(other))

    def __or__(self, other: "Where") -> "Where":
        return Either(self, _condition(other))

    def __invert__(self) -> "Where":
        return Not(self)

    def __bool__(self) -> bool:
        raise TopologyError(
            f"{self!r} is a condition on payments, neither true nor false here;"
            " combine conditions with & | ~, each in parentheses, not with `and`, `or`, `not` or `a < x < b`"
        )


@dataclass(frozen=True, slots=True)
class Test(Where):
    """A field compares so with one of the values."""

    column: Column
    operator: Operator
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Known(Where):
    """A field has a value."""

    column: Column


@dataclass(frozen=True, slots=True)
class Both(Where):
    """Two conditions hold."""

    left: Where
    right: Where


@dataclass(frozen=True, slots=True)
class Either(Where):
    """At least one of two conditions holds."""

    left: Where
    right: Where


@dataclass(frozen=True, slots=True)
class Not(Where):
    """A condition does not hold."""

    condition: Where


class Field:
    """A field of a payment; comparing it gives a condition."""

    def __init__(self, column: Column) -> None:
        self.column = column

    @property
    def name(self) -> str:
        """As it is called in a payment."""
        return self.column.name

    def isin(self, values: Iterable[Scalar]) -> Where:
        """The field is one of the values."""
        return Test(self.column, "==", tuple(sorted({self._checked(value) for value in values}, key=repr)))

    def known(self) -> Where:
        """The payment has a value in the field."""
        return Known(self.column)

    def __eq__(self, other: object) -> Where:  # type: ignore[override]
        return Test(self.column, "==", (self._checked(other),))

    def __ne__(self, other: object) -> Where:  # type: ignore[override]
        return Test(self.column, "!=", (self._checked(other),))

    def __hash__(self) -> int:
        return hash(self.column)

    def __repr__(self) -> str:
        return self.name

    def _checked(self, value: object) -> Scalar:
        if self.column.text and isinstance(value, str) and value:
            return value
        if not self.column.text and isinstance(value, int | float) and value == value:  # noqa: PLR0124 - NaN
            return value
        expected = "a text that is not empty" if self.column.text else "a number"
        raise TopologyError(f"field {self.name!r}: expected {expected} to compare with, got {value!r}")


class TextField(Field):
    """A field of text; it has no order."""

    def __lt__(self, other: object) -> NoReturn:
        self._refuse("<", other)

    def __le__(self, other: object) -> NoReturn:
        self._refuse("<=", other)

    def __gt__(self, other: object) -> NoReturn:
        self._refuse(">", other)

    def __ge__(self, other: object) -> NoReturn:
        self._refuse(">=", other)

    def _refuse(self, operator: str, other: object) -> NoReturn:
        raise TopologyError(
            f"field {self.name!r}: expected a field of numbers before {operator} {other!r}, got one of text;"
            f" compare it with == or !=, or write {self.name}.isin([...])"
        )


class NumberField(Field):
    """A field of numbers."""

    def __lt__(self, other: float) -> Where:
        return Test(self.column, "<", (self._checked(other),))

    def __le__(self, other: float) -> Where:
        return Test(self.column, "<=", (self._checked(other),))

    def __gt__(self, other: float) -> Where:
        return Test(self.column, ">", (self._checked(other),))

    def __ge__(self, other: float) -> Where:
        return Test(self.column, ">=", (self._checked(other),))


def _condition(given: object) -> Where:
    if isinstance(given, Where):
        return given
    raise TopologyError(f"expected a condition such as `attempt > 1`, got {given!r}; put each in parentheses")


NUMBERS: Final = frozenset({"amount", "attempt", "lat", "lon", "live"})
"""The fields of a payment that are no text."""


def text(name: str) -> TextField:
    """A declared attribute of text."""
    if name in NUMBERS:
        raise TopologyError(
            f"text({name!r}): expected a name of text, got the payment's field {name!r}, which is a number;"
            f" write number({name!r})"
        )
    return TextField(Column(name, text=True))


def number(name: str, decimals: int = 6) -> NumberField:
    """A declared attribute of numbers, rounded to so many decimal places, so that sums are exact.

    What then exceeds 10^12 of the smallest unit in size counts as missing.
    """
    if not 0 <= decimals <= 9:
        raise TopologyError(f"number {name!r}: expected 0 to 9 decimals, got {decimals}")
    if name not in NUMBERS and name in (*Payment.__struct_fields__, *MADE):
        raise TopologyError(
            f"number({name!r}): expected a name of numbers, got the payment's field {name!r}, which is text;"
            f" write text({name!r})"
        )
    return NumberField(Column(name, text=False, decimals=decimals))


amount = number("amount", 0)
attempt = number("attempt", 0)
lat, lon = number("lat"), number("lon")
acquirer, bin_, channel, currency = text("acquirer"), text("bin"), text("channel"), text("currency")
card, customer, merchant, device, ip = (
    text("card"),
    text("customer"),
    text("merchant"),
    text("device"),
    text("ip"),
)
email, phone, terminal, order, tenant = (
    text("email"),
    text("phone"),
    text("terminal"),
    text("order"),
    text("tenant"),
)
email_domain = text("email_domain")
"""What follows the last @ of `email`, in lower case; absent where there is no @ or nothing after it."""
payment_type, initiator, payment_method, wallet = (
    text("type"),
    text("initiator"),
    text("payment_method"),
    text("wallet"),
)
card_network, funding, entry_mode, mcc = (
    text("card_network"),
    text("funding"),
    text("entry_mode"),
    text("mcc"),
)
merchant_country, card_country = text("merchant_country"), text("card_country")
billing_country, shipping_country, ip_country = (
    text("billing_country"),
    text("shipping_country"),
    text("ip_country"),
)

FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        field.name: field
        for field in (
            amount, attempt, lat, lon, acquirer, bin_, channel, currency, card, customer, merchant, device,
            ip, email, phone, terminal, order, tenant, payment_type, initiator, payment_method, wallet,
            card_network, funding, entry_mode, mcc, merchant_country, card_country, billing_country,
            shipping_country, ip_country, email_domain,
        )
    }
)  # fmt: skip
"""The fields of every payment; declared attributes come beside them."""
