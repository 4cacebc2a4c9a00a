"""A stage hears every row once, in the order of its sender, whatever is said again and however it is cut."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Records
from streamer.chain.inbox import Inbox
from streamer.chain.stages import Stage
from streamer.chain.wire import PAYMENTS, Head, encode
from tests.chain.test_wire import rows_of

STAGE = Stage("card", "stages.card", "identify", keys=("card",))
CUTS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6), st.integers(0, 9)), max_size=40)


def records_of(values: Sequence[bytes], start: int) -> Records:
    """Consecutive records of the stage's topic."""
    n = len(values)
    return Records(STAGE.topic, 0, list(range(start, start + n)), [0] * n, [None] * n, [*values], [()] * n, 0)


@given(cuts=CUTS, sizes=st.lists(st.integers(1, 5), min_size=1), starts=st.lists(st.booleans()))
def test_each_row_is_heard_once(
    cuts: list[tuple[int, int, int]], sizes: list[int], starts: list[bool]
) -> None:
    """Three senders send runs of rows; before some of them they go back as a crash would make them."""
    contents = [[b"%d-%d" % (sender, number) for number in range(400)] for sender in range(3)]
    all_rows = [rows_of(one, start=10 * sender) for sender, one in enumerate(contents)]
    sent, reached = [0, 0, 0], [0, 0, 0]
    messages: list[bytes] = []
    for sender, size, back in cuts:
        begin = max(sent[sender] - back, 0)
        sent[sender] = begin + size
        reached[sender] = max(reached[sender], sent[sender])
        head = Head(PAYMENTS, "identify", sender, 100 * sender + begin, STAGE.layout)
        messages += encode(head, all_rows[sender].slice(begin, begin + size))
    inbox, heard, positions, at = Inbox(STAGE, {}), [], [], 0
    for turn in range(len(messages)):
        size = sizes[turn % len(sizes)]
        parts, unreadable = inbox.receive(records_of(messages[at : at + size], at))
        assert unreadable == []
        for part in parts:
            ends, data = part.rows.payment.ends, part.rows.payment.data
            heard += [data[ends[row] : ends[row + 1]].tobytes() for row in range(len(part.rows))]
            positions += part.rows.number("position").tolist()
        at += size
        if turn < len(starts) and starts[turn]:
            inbox = Inbox(STAGE, {name: dict(of) for name, of in inbox.heard.items()})
    for sender in range(3):
        mine = [one for one in heard if one.startswith(b"%d-" % sender)]
        assert mine == contents[sender][: reached[sender]]
    assert (np.diff(positions) > 0).all()
    clocks = [100 * sender for sender in range(3) if reached[sender]]
    assert inbox.clock >= min(clocks, default=0)
