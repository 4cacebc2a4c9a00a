"""Simulated outcomes as keys and JSON."""

import numpy as np

from streamer.simulator import places, rows
from streamer.simulator.cards import NETWORKS
from streamer.simulator.draws import salt, tokens
from streamer.simulator.encoded import Encoded
from streamer.simulator.everyday import World
from streamer.simulator.payment_json import payment_ids
from streamer.simulator.rows import Rows

_OUTCOME = b'{"outcome_id":"%b","payment_id":"%b","kind":"%b","event_time":%d%b}'
_RESPONSES = [b',"response_code":"%b"' % code for code in rows.RESPONSES]
_AMOUNT = b',"amount":%d,"currency":"%b"'
_CLAIM = b',"occurred_at":%d,"category":"%b","amount":%d,"currency":"%b","reason_code":"%b"'
_CASE = b',"dispute_id":"%b","stage":"%b"'
_REASONS = {
    rows.FRAUD: {b"visa": b"10.4", b"mastercard": b"4837", b"amex": b"F29"},
    rows.PRODUCT: {b"visa": b"13.1", b"mastercard": b"4853", b"amex": b"C08"},
    rows.PROCESSING: {b"visa": b"12.6.1", b"mastercard": b"4834", b"amex": b"P08"},
}
_STAGES = {rows.DISPUTE_WON: b"representment", rows.DISPUTE_LOST: b"representment"}


class OutcomeWriter:
    """Writes the outcomes of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def write(self, outcomes: Rows) -> Encoded:
        """Write outcomes, keyed by their payments."""
        keys = payment_ids(self._world, outcomes["number"])
        # A payment has at most one outcome of each kind.
        names = tokens(
            b"out_", outcomes["number"] * 16 + outcomes["kind"], salt(self._world.scenario.seed, "out_")
        )
        kinds = [rows.KINDS[kind] for kind in outcomes["kind"].tolist()]
        times = outcomes["time"].tolist()
        values = [
            _OUTCOME % row for row in zip(names, keys, kinds, times, self._tails(outcomes), strict=True)
        ]
        return Encoded(keys, values, times)

    def _tails(self, outcomes: Rows) -> list[bytes]:
        """Say what an outcome has beside its kind."""
        kinds = outcomes["kind"]
        tails = [b""] * len(outcomes)
        answers = np.flatnonzero(kinds <= rows.DECLINED)
        for index, code in zip(answers.tolist(), outcomes["detail"][answers].tolist(), strict=True):
            tails[index] = _RESPONSES[code]
        moved = np.flatnonzero((kinds == rows.CAPTURED) | (kinds == rows.REFUND))
        amounts, currencies = outcomes["amount"][moved].tolist(), outcomes["currency"][moved].tolist()
        for index, amount, currency in zip(moved.tolist(), amounts, currencies, strict=True):
            tails[index] = _AMOUNT % (amount, places.CURRENCIES[currency])
        claims = np.flatnonzero(outcomes["category"] != rows.NO_CATEGORY)
        cases = tokens(b"dsp_", outcomes["number"][claims], salt(self._world.scenario.seed, "dsp_"))
        for index, case in zip(claims.tolist(), cases, strict=True):
            tails[index] = _claim(outcomes[index], case)
        return tails


def _claim(outcome: np.void, case: bytes) -> bytes:
    """Describe a report, a chargeback or its end."""
    category, kind = int(outcome["category"]), int(outcome["kind"])
    claim = _CLAIM % (
        int(outcome["occurred"]),
        rows.CATEGORIES[category],
        int(outcome["amount"]),
        places.CURRENCIES[int(outcome["currency"])],
        _REASONS[category][NETWORKS[int(outcome["detail"])]],
    )
    if kind == rows.FRAUD_REPORTED:
        return claim
    return claim + _CASE % (case, _STAGES.get(kind, b"chargeback"))
