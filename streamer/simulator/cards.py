"""The kinds of card that banks issue: network, funding and invented bins."""

import numpy as np

from streamer.simulator import places
from streamer.simulator.draws import mix

_KINDS = (  # network, funding, first digits; most frequent first
    (b"visa", b"debit", "4"),
    (b"mastercard", b"debit", "5"),
    (b"visa", b"debit", "4"),
    (b"mastercard", b"debit", "5"),
    (b"visa", b"credit", "4"),
    (b"mastercard", b"credit", "5"),
    (b"mastercard", b"credit", "5"),
    (b"visa", b"credit", "4"),
    (b"visa", b"prepaid", "4"),
    (b"amex", b"credit", "37"),
    (b"mastercard", b"prepaid", "5"),
    (b"amex", b"credit", "37"),
)
CARDS_PER_COUNTRY = len(_KINDS)
NETWORKS = [kind[0] for kind in _KINDS]


def product(index: int) -> bytes:
    """Describe one kind of card of one country as a piece of JSON.

    >>> product(0).decode().split(",", 1)[1]
    '"card_network":"visa","funding":"debit","card_country":"DE"'
    """
    country, kind = divmod(index, CARDS_PER_COUNTRY)
    network, funding, lead = _KINDS[kind]
    digits = str(int(mix(np.array([index]), 20_250_106)[0])).zfill(20)
    second = str(1 + int(digits[-1]) % 5) if lead == "5" else ""  # Mastercard: 51 to 55
    number = (lead + second + digits[2:])[: 8 if index % 3 == 0 else 6]
    text = b'"bin":"%b","card_network":"%b","funding":"%b","card_country":"%b"'
    return text % (number.encode(), network, funding, places.NAMES[country])


PRODUCTS = [product(index) for index in range(places.HOMES * CARDS_PER_COUNTRY)]
