"""Streaming features, scores and decisions for payments: what a topology file is written with."""

from streamer.events import Source
from streamer.features.aggregates import (
    count,
    distinct,
    first,
    last,
    maximum,
    mean,
    minimum,
    since_first,
    since_last,
    spread,
    std,
    total,
    variance,
)
from streamer.features.declarations import Entity
from streamer.features.fields import (
    acquirer,
    amount,
    attempt,
    billing_country,
    bin_,
    card,
    card_country,
    card_network,
    channel,
    currency,
    customer,
    device,
    email,
    entry_mode,
    funding,
    initiator,
    ip,
    ip_country,
    lat,
    lon,
    mcc,
    merchant,
    merchant_country,
    number,
    order,
    payment_method,
    payment_type,
    phone,
    shipping_country,
    tenant,
    terminal,
    text,
    wallet,
)
from streamer.features.frauds import fraud_count, fraud_rate
from streamer.topology import Model, Policy, Topology, allow, block, challenge, review

__all__ = [
    "Entity", "Model", "Policy", "Source", "Topology",
    "acquirer", "allow", "amount", "attempt", "billing_country", "bin_", "block", "card", "card_country",
    "card_network", "challenge", "channel", "count", "currency", "customer", "device", "distinct", "email",
    "entry_mode", "first", "fraud_count", "fraud_rate", "funding", "initiator", "ip",
    "ip_country", "last", "lat", "lon", "maximum", "mcc",
    "mean", "merchant", "merchant_country", "minimum", "number", "order", "payment_method", "payment_type",
    "phone", "review", "shipping_country", "since_first", "since_last", "spread", "std", "tenant", "terminal",
    "text", "total", "variance", "wallet",
]  # fmt: skip
