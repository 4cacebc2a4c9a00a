"""The events that cross the wire: inert frozen structs that are at once the schema and the validator.

Lengths of strings are in UTF-8 bytes; the structs can only bound characters, so the codec checks bytes too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

from streamer.currencies import Currency
from streamer.errors import TopologyError

MAX_ID_BYTES: Final = 128
MAX_TEXT_BYTES: Final = 256
MAX_ATTRIBUTES: Final = 32
MAX_AMOUNT: Final = 10**12
MAX_TIME: Final = 253_402_300_799_999  # the last millisecond of the year 9999

Scalar = str | int | float | bool | None
AttributeType = type[str] | type[int] | type[float] | type[bool]
TimeUnit = Literal["s", "ms", "us", "ns"]
Action = Literal["allow", "challenge", "review", "block"]
Kind = Literal[
    "authorized", "declined", "captured", "cancelled", "fraud_reported", "inquiry", "chargeback",
    "chargeback_reversed", "dispute_won", "dispute_lost", "refund", "review_approved", "review_rejected",
    "challenge_passed", "challenge_failed", "confirmed_good", "enforced",
]  # fmt: skip
Code = Literal[
    "invalid_json", "invalid_field", "missing_field", "too_large", "pan", "duplicate", "id_conflict",
    "future", "too_late", "unknown_payment",
]  # fmt: skip

_Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_BYTES)]
_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
_Bin = Annotated[str, Meta(pattern=r"^[0-9]{6,8}(?![\s\S])")]  # `$` alone would let a final newline through
_Mcc = Annotated[str, Meta(min_length=4, max_length=4)]
_Amount = Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
_Time = Annotated[int, Meta(ge=0, le=MAX_TIME)]
_Attempt = Annotated[int, Meta(ge=1, le=2**53)]
_Lat = Annotated[float, Meta(ge=-90, le=90)]
_Lon = Annotated[float, Meta(ge=-180, le=180)]
_Type = Literal["one_off", "recurring", "installment", "verification"]
_Initiator = Literal["customer", "merchant"]
_Category = Literal["fraud", "product", "processing", "authorization", "other"]
_Attributes = Annotated[dict[str, Scalar], Meta(max_length=MAX_ATTRIBUTES)]


def _says(description: str) -> Meta:
    """Describe a field, for the JSON Schema."""
    return Meta(description=description)


class Payment(Struct, frozen=True, gc=False, omit_defaults=True):
    """One authorization attempt, as its producer wrote it to the topic `payments`."""

    payment_id: Annotated[
        _Id, _says("Names one authorization attempt (a retry has its own), 1 to 128 bytes.")
    ]
    event_time: Annotated[
        _Time, _says("When the payment happened; milliseconds since 1970-01-01T00:00:00 UTC.")
    ]
    amount: Annotated[_Amount, _says("Amount in minor units of the currency (cents for EUR), 0 to 10^12.")]
    currency: Annotated[Currency, _says("ISO 4217 code, upper case.")]
    card: Annotated[_Text | None, _says("Token stable per card, never the card number, 1 to 256 bytes.")] = (
        None
    )
    customer: Annotated[_Text | None, _says("The payer's account, 1 to 256 bytes.")] = None
    merchant: Annotated[_Text | None, _says("Who is paid, 1 to 256 bytes.")] = None
    device: Annotated[_Text | None, _says("The payer's device, 1 to 256 bytes.")] = None
    ip: Annotated[_Text | None, _says("The payer's network address, 1 to 256 bytes.")] = None
    email: Annotated[_Text | None, _says("The payer's e-mail address, 1 to 256 bytes.")] = None
    phone: Annotated[_Text | None, _says("The payer's phone number, 1 to 256 bytes.")] = None
    terminal: Annotated[_Text | None, _says("Point of sale, 1 to 256 bytes.")] = None
    order: Annotated[_Text | None, _says("Groups the attempts of one purchase, 1 to 256 bytes.")] = None
    tenant: Annotated[_Text | None, _says("Whose traffic this is, 1 to 256 bytes.")] = None
    type: Annotated[_Type | None, _says("What kind of payment it is.")] = None
    initiator: Annotated[_Initiator | None, _says("Who started the payment.")] = None
    channel: Annotated[_Text | None, _says("Where it was started (web, app, pos), 1 to 256 bytes.")] = None
    payment_method: Annotated[_Text | None, _says("Means of payment (card, transfer), 1 to 256 bytes.")] = (
        None
    )
    wallet: Annotated[_Text | None, _says("Wallet that held the card, 1 to 256 bytes.")] = None
    card_network: Annotated[_Text | None, _says("Scheme of the card, 1 to 256 bytes.")] = None
    bin: Annotated[_Bin | None, _says("First 6 to 8 digits of the card number.")] = None
    funding: Annotated[_Text | None, _says("Credit, debit or prepaid, 1 to 256 bytes.")] = None
    entry_mode: Annotated[_Text | None, _says("How the card was read, 1 to 256 bytes.")] = None
    mcc: Annotated[_Mcc | None, _says("Merchant category code, 4 characters.")] = None
    acquirer: Annotated[_Text | None, _says("The merchant's bank, 1 to 256 bytes.")] = None
    merchant_country: Annotated[_Text | None, _says("Country of the merchant, as sent, 1 to 256 bytes.")] = (
        None
    )
    card_country: Annotated[_Text | None, _says("Country of the card's issuer, as sent, 1 to 256 bytes.")] = (
        None
    )
    billing_country: Annotated[
        _Text | None, _says("Country of the billing address, as sent, 1 to 256 bytes.")
    ] = None
    shipping_country: Annotated[_Text | None, _says("Country of delivery, as sent, 1 to 256 bytes.")] = None
    ip_country: Annotated[_Text | None, _says("Country of the network address, as sent, 1 to 256 bytes.")] = (
        None
    )
    attempt: Annotated[_Attempt | None, _says("Number of this attempt within its order, from 1.")] = None
    lat: Annotated[_Lat | None, _says("Latitude of the payer, degrees north, -90 to 90.")] = None
    lon: Annotated[_Lon | None, _says("Longitude of the payer, degrees east, -180 to 180.")] = None
    live: Annotated[
        bool | None, _says("False for test traffic: answered, never counted. Absent is true.")
    ] = True
    attributes: Annotated[
        _Attributes | None, _says("At most 32 scalars; those that the topology declares are used.")
    ] = None


class Outcome(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What became of a payment, as it became known; topic `outcomes`, keyed by payment_id."""

    outcome_id: Annotated[_Text, _says("Names this outcome, so that repeats are harmless, 1 to 256 bytes.")]
    payment_id: Annotated[_Id, _says("The payment it is about, 1 to 128 bytes.")]
    kind: Annotated[Kind, _says("What happened.")]
    event_time: Annotated[
        _Time, _says("When it became known to us; milliseconds since 1970-01-01T00:00:00 UTC.")
    ]
    occurred_at: Annotated[
        _Time | None, _says("The network's time of it; milliseconds since 1970-01-01T00:00:00 UTC.")
    ] = None
    category: Annotated[
        _Category | None, _says("Ground of a dispute; a chargeback without one counts as fraud.")
    ] = None
    amount: Annotated[
        _Amount | None, _says("Amount in minor units of `currency`, which must come with it, 0 to 10^12.")
    ] = None
    currency: Annotated[Currency | None, _says("ISO 4217 code of `amount`, upper case.")] = None
    reason_code: Annotated[_Text | None, _says("The network's reason, 1 to 256 bytes.")] = None
    response_code: Annotated[_Text | None, _says("The issuer's answer, 1 to 256 bytes.")] = None
    dispute_id: Annotated[_Text | None, _says("Groups the steps of one dispute, 1 to 256 bytes.")] = None
    stage: Annotated[_Text | None, _says("Step of the dispute, 1 to 256 bytes.")] = None
    action: Annotated[
        Action | None, _says("What the caller really did; required for the kind `enforced`.")
    ] = None


class Reason(Struct, frozen=True, gc=False):
    """Why a decision was taken, in one stable code."""

    code: Annotated[str, _says("Stable code of the reason.")]
    feature: Annotated[str | None, _says("Name of the feature behind it; null where there is none.")] = None
    value: Annotated[float | None, _says("That feature's value, in the feature's unit; null if absent.")] = (
        None
    )


class Decision(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The answer to one payment; topic `decisions`, keyed by payment_id."""

    payment_id: Annotated[_Id, _says("The payment that is answered, 1 to 128 bytes.")]
    event_time: Annotated[_Time, _says("The payment's time; milliseconds since 1970-01-01T00:00:00 UTC.")]
    action: Annotated[Action, _says("What to do with the payment.")]
    score: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        _says("The deciding model's probability of fraud, 0 to 1; null where no model decides."),
    ]
    scores: Annotated[dict[str, float | None], _says("Probability of fraud, 0 to 1, by model.")]
    models: Annotated[dict[str, str | int], _says("Version of the snapshot that scored, by model.")]
    reasons: Annotated[list[Reason], _says("Why, the most important first.")]
    policy: Annotated[str, _says("Policy that decided, as name@version.")]
    topology: Annotated[str, _says("Fingerprint of the declarations that were running.")]
    missing: Annotated[list[str], _says("Entities that the payment lacked.")]
    propensity: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        _says("Probability with which an exploring policy takes this action; absent without exploration."),
    ] = None


class Rejection(Struct, frozen=True, gc=False, kw_only=True):
    """Why a record got no decision; topics `payments.rejected` and `outcomes.rejected`."""

    payment_id: Annotated[_Id | None, _says("The payment that is answered; null if it could not be read.")]
    code: Annotated[
        str,
        Meta(examples=list(get_args(Code))),
        _says("Stable code of the reason; further ones may be added."),
    ]
    error: Annotated[str, _says("What was expected, what was found, and where.")]
    received: Annotated[
        str, _says("The record's first 4 KiB in base64; digit runs that look like card numbers are masked.")
    ]


REQUIRED: Final = ("payment_id", "event_time", "amount", "currency")

MADE: Final = ("email_domain",)
"""Names of what is made from a payment's fields, beside them."""


@dataclass(frozen=True, slots=True)
class Source:
    """How a producer's payments differ from ours: other field names, another unit of time, own attributes.

    `rename` maps an incoming name to our name; a name of ours that is given away in this way is no longer
    read under its own meaning. `time_unit` is the unit of the incoming `event_time`; fractions of a
    millisecond are cut off. `attributes` declares the attributes to keep: name and type, which is `str`,
    `int` (64 bits), `float` or `bool`.

    >>> Source(rename={"merchant_id": "merchant"}, time_unit="ns", attributes={"basket_size": int}).time_unit
    'ns'
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = "ms"
    attributes: Mapping[str, AttributeType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        known = Payment.__struct_fields__
        ours = list(self.rename.values())
        for incoming, name in self.rename.items():
            if not incoming.isprintable() or {'"', "\\"} & set(incoming):
                raise TopologyError(
                    f"Expected a name without quotes, backslashes or control characters, got {incoming!r}"
                    " - at Source.rename"
                )
            if name not in known:
                raise TopologyError(
                    f"Expected a field of a payment, got {name!r} - at Source.rename[{incoming!r}]"
                )
            if ours.count(name) > 1:
                raise TopologyError(
                    f"Expected one incoming name for {name!r}, got several - at Source.rename; keep one"
                )
        for name in REQUIRED:
            if name in self.rename and name not in ours:
                raise TopologyError(
                    f"{name!r} is required but Source.rename gives its incoming name to"
                    f" {self.rename[name]!r}; say which incoming name {name!r} is read from"
                )
        if self.time_unit not in get_args(TimeUnit):
            raise TopologyError(
                f"Expected one of s, ms, us, ns, got {self.time_unit!r} - at Source.time_unit"
            )
        self._check_attributes(known)

    def _check_attributes(self, known: tuple[str, ...]) -> None:
        if len(self.attributes) > MAX_ATTRIBUTES:
            raise TopologyError(
                f"Expected at most {MAX_ATTRIBUTES} attributes, got {len(self.attributes)}"
                " - at Source.attributes"
            )
        for name, kind in self.attributes.items():
            where = f"at Source.attributes[{name!r}]"
            if name in known or name in MADE:
                raise TopologyError(
                    f"Expected a name of its own, got that of a payment's field - {where}; rename it"
                )
            if kind not in (str, int, float, bool):
                raise TopologyError(f"Expected str, int, float or bool, got {kind!r} - {where}")
