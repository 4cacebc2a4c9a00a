"""Simulated payments as keys and JSON, composed by templates for speed."""

from collections.abc import Callable

import numpy as np

from streamer.batch import Int64
from streamer.simulator import places, rows, trades
from streamer.simulator.cards import PRODUCTS
from streamer.simulator.draws import mix, salt, tokens, unit
from streamer.simulator.encoded import Encoded
from streamer.simulator.everyday import World
from streamer.simulator.rows import Rows

Columns = list[list[object]]


def _usage(text: str) -> bytes:
    """Spell out how it was paid."""
    kind, initiator, channel, method, entry = text.split()
    known = {"type": kind, "initiator": initiator, "channel": channel}
    known |= {"wallet": method} if method.endswith("pay") else {}
    known |= {"payment_method": "wallet" if method.endswith("pay") else "card", "entry_mode": entry}
    return ",".join(f'"{name}":"{value}"' for name, value in known.items()).encode()


USAGES = [
    _usage(text)
    for text in (
        "one_off customer pos card chip",
        "one_off customer pos card contactless",
        "one_off customer pos apple_pay contactless",
        "one_off customer pos google_pay contactless",
        "one_off customer web card credential_on_file",
        "one_off customer web card keyed",
        "one_off customer web apple_pay ecommerce",
        "one_off customer web google_pay ecommerce",
        "one_off customer app card credential_on_file",
        "installment customer web card keyed",
        "verification customer web card keyed",
        "recurring merchant web card credential_on_file",
    )
]
_DOMAINS = (
    b"example.com",
    b"example.net",
    b"example.org",
    b"mail.example",
    b"post.example",
    b"inbox.example",
)
_HEAD = b'{"payment_id":"%b","event_time":%d,"amount":%d,"currency":"%b","card":"%b",%b,"customer":"%b",%b,%b'
_TILL = b',"terminal":"%b","attempt":%d,"lat":%.3f,"lon":%.3f'
_IP = b',"ip":"10.%d.%d.%d","ip_country":"%b"'
_ORDER = b',"order":"%b","attempt":%d,"billing_country":"%b"'
_DEVICE = b',"device":"%b","lat":%.2f,"lon":%.2f'
_EMAIL = b',"email":"%b@%b"'
_PARCEL = b',"phone":"+%d","shipping_country":"%b"'


class PaymentWriter:
    """Writes the payments of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        shops = world.shops
        names = tokens(b"mer_", np.arange(len(shops.trade)), salt(world.scenario.seed, "mer_"))
        columns = zip(names, shops.trade.tolist(), shops.country.tolist(), strict=True)
        self._shops = [
            b'"merchant":"%b","mcc":"%b","acquirer":"acquirer_%d","merchant_country":"%b"'
            % (name, trades.CODES[trade], index % 5, places.NAMES[country])
            for index, (name, trade, country) in enumerate(columns)
        ]

    def write(self, payments: Rows, first: int) -> Encoded:
        """Write payments, numbered from `first`."""
        keys = payment_ids(self._world, first + np.arange(len(payments)))
        named = np.array(keys, object)
        values: list[bytes] = [b""] * len(payments)
        for form, parts in _PARTS.items():
            chosen = np.flatnonzero(payments["form"] == form)
            some = payments[chosen]
            columns = [named[chosen].tolist(), *self._head(some)]
            for _, fill in parts:
                columns += fill(self._world, some)
            template = _HEAD + b"".join(text for text, _ in parts) + b"}"
            for index, row in zip(chosen.tolist(), zip(*columns, strict=True), strict=True):
                values[index] = template % row
        return Encoded(keys, values, payments["time"].tolist(), payments["scenario"].copy())

    def _head(self, some: Rows) -> Columns:
        """Give what every payment has, but for its id."""
        return [
            some["time"].tolist(),
            some["amount"].tolist(),
            [places.CURRENCIES[currency] for currency in some["currency"].tolist()],
            _named(self._world, b"crd_", some["card"]),
            [PRODUCTS[product] for product in some["product"].tolist()],
            _named(self._world, b"cus_", some["who"]),
            [self._shops[shop] for shop in some["merchant"].tolist()],
            [USAGES[usage] for usage in some["usage"].tolist()],
        ]


def payment_ids(world: World, numbers: Int64) -> list[bytes]:
    """Name payments by their numbers in the stream."""
    return tokens(b"pay_", numbers, salt(world.scenario.seed, "pay_"))


def _named(world: World, prefix: bytes, numbers: Int64) -> list[object]:
    return [*tokens(prefix, numbers, salt(world.scenario.seed, prefix.decode()))]


def _till(world: World, some: Rows) -> Columns:
    shop = some["merchant"].astype(np.int64)
    till = shop * 64 + some["order"] % world.shops.tills[shop]
    place = [some["lat"].tolist(), some["lon"].tolist()]
    return [_named(world, b"trm_", till), some["attempt"].tolist(), *place]


def _ip(_: World, some: Rows) -> Columns:
    ip = some["ip"]
    country: list[object] = [places.NAMES[country] for country in some["ip_country"].tolist()]
    return [(ip >> 16).tolist(), (ip >> 8 & 255).tolist(), (ip & 255).tolist(), country]


def _order(world: World, some: Rows) -> Columns:
    home: list[object] = [places.NAMES[country] for country in some["home"].tolist()]
    return [_named(world, b"ord_", some["order"]), some["attempt"].tolist(), home]


def _device(world: World, some: Rows) -> Columns:
    return [_named(world, b"dev_", some["device"]), some["lat"].tolist(), some["lon"].tolist()]


def _email(world: World, some: Rows) -> Columns:
    draw = unit(some["contact"], salt(world.scenario.seed, "domain"))
    domain = (draw**1.5 * len(_DOMAINS)).astype(np.int64)
    return [_named(world, b"", some["contact"]), [_DOMAINS[index] for index in domain.tolist()]]


def _parcel(world: World, some: Rows) -> Columns:
    # Eleven digits: shorter than any card number.
    line = mix(some["contact"], salt(world.scenario.seed, "phone")) % np.uint64(80_000_000_000)
    phone = (line + np.uint64(10_000_000_000)).tolist()
    return [phone, [places.NAMES[country] for country in some["shipping"].tolist()]]


_Part = tuple[bytes, Callable[[World, Rows], Columns]]
_PARTS: dict[int, tuple[_Part, ...]] = {
    rows.TILL: ((_TILL, _till),),
    rows.ONLINE: ((_IP, _ip), (_ORDER, _order), (_DEVICE, _device), (_EMAIL, _email)),
    rows.SHIPPED: ((_IP, _ip), (_ORDER, _order), (_DEVICE, _device), (_EMAIL, _email), (_PARCEL, _parcel)),
    rows.MERCHANT_INITIATED: ((_ORDER, _order), (_EMAIL, _email)),
    rows.BARE: ((_IP, _ip), (_ORDER, _order)),
}
