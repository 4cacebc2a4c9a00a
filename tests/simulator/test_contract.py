"""Every simulated record obeys the contract, by a checker of its own."""

import ipaddress
import re
from typing import Annotated, Literal

import msgspec

from streamer.simulator import Scenario, Simulator

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Entity = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Millis = Annotated[int, msgspec.Meta(ge=1_700_000_000_000, le=1_800_000_000_000)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Currency = Literal["EUR", "GBP", "PLN", "SEK", "CHF", "USD", "JPY", "BRL"]
Country = Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$")]


class Payment(msgspec.Struct, forbid_unknown_fields=True):
    """A payment as CONTRACT.md has it."""

    payment_id: Id
    event_time: Millis
    amount: Amount
    currency: Currency
    card: Entity
    customer: Entity
    merchant: Entity
    bin: Annotated[str, msgspec.Meta(pattern="^[0-9]{6}([0-9]{2})?$")]
    card_network: Literal["visa", "mastercard", "amex"]
    funding: Literal["debit", "credit", "prepaid"]
    card_country: Country
    mcc: Annotated[str, msgspec.Meta(pattern="^[0-9]{4}$")]
    acquirer: Entity
    merchant_country: Country
    type: Literal["one_off", "recurring", "installment", "verification"]
    initiator: Literal["customer", "merchant"]
    channel: Entity
    payment_method: Entity
    entry_mode: Entity
    attempt: Annotated[int, msgspec.Meta(ge=1)]
    wallet: Entity | msgspec.UnsetType = msgspec.UNSET
    device: Entity | msgspec.UnsetType = msgspec.UNSET
    ip: Entity | msgspec.UnsetType = msgspec.UNSET
    ip_country: Country | msgspec.UnsetType = msgspec.UNSET
    email: Entity | msgspec.UnsetType = msgspec.UNSET
    phone: Entity | msgspec.UnsetType = msgspec.UNSET
    terminal: Entity | msgspec.UnsetType = msgspec.UNSET
    order: Entity | msgspec.UnsetType = msgspec.UNSET
    billing_country: Country | msgspec.UnsetType = msgspec.UNSET
    shipping_country: Country | msgspec.UnsetType = msgspec.UNSET
    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)] | msgspec.UnsetType = msgspec.UNSET
    lon: Annotated[float, msgspec.Meta(ge=-180, le=180)] | msgspec.UnsetType = msgspec.UNSET


class Outcome(msgspec.Struct, forbid_unknown_fields=True):
    """An outcome as CONTRACT.md has it."""

    outcome_id: Id
    payment_id: Id
    kind: Literal[
        "authorized",
        "declined",
        "captured",
        "cancelled",
        "fraud_reported",
        "chargeback",
        "chargeback_reversed",
        "dispute_won",
        "dispute_lost",
        "refund",
    ]
    event_time: Millis
    occurred_at: Millis | msgspec.UnsetType = msgspec.UNSET
    category: Literal["fraud", "product", "processing"] | msgspec.UnsetType = msgspec.UNSET
    amount: Amount | msgspec.UnsetType = msgspec.UNSET
    currency: Currency | msgspec.UnsetType = msgspec.UNSET
    reason_code: Entity | msgspec.UnsetType = msgspec.UNSET
    response_code: Entity | msgspec.UnsetType = msgspec.UNSET
    dispute_id: Entity | msgspec.UnsetType = msgspec.UNSET
    stage: Entity | msgspec.UnsetType = msgspec.UNSET


def test_records_obey_the_contract_and_are_keyed_by_payment_id() -> None:
    """Field by field, with no unknown field; keys and times repeat what the value says."""
    payment, outcome = msgspec.json.Decoder(Payment), msgspec.json.Decoder(Outcome)
    for chunk in Simulator(Scenario.for_payments(20_000, seed=9)).chunks(20_000):
        for part, decoder in ((chunk.payments, payment), (chunk.outcomes, outcome)):
            events = [decoder.decode(value) for value in part.values]
            assert part.keys == [event.payment_id.encode() for event in events]
            assert part.times == [event.event_time for event in events]


def test_nothing_looks_like_a_card_number_and_ips_are_private() -> None:
    """No run of 13 or more digits but in times, and every ip is in 10.0.0.0/8."""
    private = ipaddress.ip_network("10.0.0.0/8")
    for chunk in Simulator(Scenario.for_payments(5_000, seed=2)).chunks(5_000):
        for value in chunk.payments.values + chunk.outcomes.values:
            event = msgspec.json.decode(value)
            texts = [text for text in event.values() if isinstance(text, str)]
            assert not any(re.search(r"(\d[ -]?){13}", text) for text in texts)
            assert "ip" not in event or ipaddress.ip_address(event["ip"]) in private
