"""Messages between stages: what goes in comes out, in parts if need be, and garbage is told from them."""

import random
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Float64, Headers, Text
from streamer.chain.wire import (
    MOST_BYTES,
    PAYMENTS,
    ROW_BITS,
    Head,
    Rows,
    UnreadableError,
    by_partition,
    decode,
    encode,
    join,
)

HEAD = Head(PAYMENTS, "card", 3, 1_700_000_000_000, 77)
NUMBERS = ("source", "log_time", "position", "converted")


def rows_of(contents: Sequence[bytes], width: int = 3, start: int = 0, seed: int = 1) -> Rows:
    """Rows of these contents, their other columns drawn; every third has headers, every second its record."""
    n = len(contents)
    draws = np.random.default_rng(seed)
    numbers = {name: draws.integers(-(2**62), 2**62, n) for name in NUMBERS}
    numbers["position"] = start + np.cumsum(draws.integers(1, 5, n))
    ends = np.concatenate(([0], np.cumsum([len(one) for one in contents]))).astype(np.int64)
    headers: dict[int, Headers] = {row: [("traceparent", b"\xff%d" % row)] for row in range(0, n, 3)}
    rows = Rows.of(
        Text(np.frombuffer(b"".join(contents), np.uint8), ends),
        numbers,
        headers,
        [b"record %d" % row if row % 2 else b"" for row in range(n)],
    )
    return rows.counted(drawn(draws, n, 3)).counted(drawn(draws, n, width))


SINGLE = 1.5 * 2.0**-40
WHOLE = [0.0, 1.0, 250.0, 251.0, 65535.0, 65536.0, 2.0**32 - 1, 2.0**32, 2.0**53]
OTHER = [np.nan, -np.nan, -0.0, -1.0, 0.5, SINGLE, 0.1, 1e300, np.inf, -np.inf, 5e-324]


def drawn(draws: np.random.Generator, n: int, width: int) -> Float64:
    """Features of every kind, often the same as the one before."""
    values = draws.choice([*WHOLE, *OTHER], (n, width))
    for column in range(1, width):
        values[:, column] = np.where(draws.random(n) < 0.5, values[:, column - 1], values[:, column])
    return values


def flat(rows: Rows, width: int = 3) -> list[tuple[object, ...]]:
    """Each row with all that it has, floats by their bits."""
    payment, features = rows.payment, rows.features([3, width])
    return [
        (
            payment.data[payment.ends[row] : payment.ends[row + 1]].tobytes(),
            *(int(rows.number(name)[row]) for name in NUMBERS),
            [tuple(header) for header in rows.tracing.get(row, ())],
            rows.received[row],
            features[row].tobytes(),
        )
        for row in range(len(rows))
    ]


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=30), st.integers(0, 5))
def test_what_goes_in_comes_out(contents: list[bytes], width: int) -> None:
    """All columns, every bit of the features, and what is said of the sender."""
    rows = rows_of(contents, width)
    (message,) = encode(HEAD, rows)
    head, found = decode(message)
    assert flat(found, width) == flat(rows, width)
    assert (head.kind, head.stage, head.partition, head.clock, head.layout) == (
        PAYMENTS, "card", 3, 1_700_000_000_000, 77,
    )  # fmt: skip


def test_every_bit_of_a_feature_comes_back() -> None:
    """Whole numbers, singles, doubles, NaN of any kind, what is the same as before, in parts of any width."""
    draws = np.random.default_rng(4)
    rows, parts = rows_of([b"x"] * 500, 9), []
    for width in (1, 7, 8, 9, 64):
        parts.append(drawn(draws, 500, width))
        rows = rows.counted(parts[-1])
    found = decode(encode(HEAD, rows)[0])[1].features([3, 9, 1, 7, 8, 9, 64])
    expected = np.concatenate(parts, axis=1)
    assert found[:, 12:].tobytes() == expected.tobytes()
    for wrong in ([3, 9, 1, 7, 8, 9], [3, 9, 1, 7, 8, 9, 64, 1], [98], [3, 9, 1, 7, 8, 9, 80]):
        with pytest.raises(ValueError, match="has not the features"):
            rows.features(wrong)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_partitions_keep_order_and_lose_nothing(partition: list[int], data: st.DataObject) -> None:
    """Parts by partition, sent, read and joined again are the rows of each partition, in order."""
    rows = rows_of([b"%d" % number for number in range(len(partition))])
    begin = data.draw(st.integers(0, len(partition) - 1))
    expected = flat(rows)[begin:]
    chosen = partition[begin:]
    parts = dict(by_partition(rows.slice(begin, len(rows)), np.array(chosen)))
    assert parts.keys() == set(chosen)
    for number, part in parts.items():
        sent = [decode(message)[1] for message in encode(HEAD, part)]
        mine = [row for row, at in zip(expected, chosen, strict=True) if at == number]
        assert flat(join(sent)) == mine


def test_large_batches_are_split_between_rows() -> None:
    """No message is larger than a batch of the log takes, and a single row is never divided."""
    draws = random.Random(3)
    rows = rows_of([draws.randbytes(draws.choice([10, 30_000, 300_000])) for _ in range(60)])
    messages = encode(HEAD, rows)
    assert len(messages) > 6
    assert max(map(len, messages)) <= MOST_BYTES
    assert flat(join([decode(message)[1] for message in messages])) == flat(rows)
    many = rows_of([b"x"] * ((1 << ROW_BITS) + 10), 0)
    messages = encode(HEAD, many)
    sizes = [len(decode(message)[1]) for message in messages]
    assert sum(sizes) == len(many)
    assert max(sizes) < 1 << ROW_BITS


MESSAGE = encode(HEAD, rows_of([b"one", b"two", b"three"]))[0]


@pytest.mark.parametrize(
    "garbage",
    [None, b"", b"{}", b"streamer", MESSAGE[:9], MESSAGE[:12], MESSAGE[:-1], MESSAGE + b"\0", MESSAGE[1:]],
    ids=lambda garbage: "none" if garbage is None else f"{len(garbage)} bytes",
)
def test_garbage_is_told_from_messages(garbage: bytes | None) -> None:
    """The error says what was expected."""
    with pytest.raises(UnreadableError, match=r"^Expected "):
        decode(garbage)


def test_a_flipped_bit_is_noticed() -> None:
    """Wherever it is."""
    for place in range(len(MESSAGE)):
        broken = bytearray(MESSAGE)
        broken[place] ^= 1 << place % 8
        with pytest.raises(UnreadableError):
            decode(bytes(broken))


def test_forged_messages_harm_nobody() -> None:
    """Damage under a sum that is right raises nothing else, or is read as some message."""
    draws = random.Random(5)
    read = 0
    for _ in range(3_000):
        body = bytearray(MESSAGE[13:])
        for _ in range(draws.randint(1, 4)):
            body[draws.randrange(len(body))] = draws.randrange(256)
        body = body[: draws.choice([len(body), draws.randrange(len(body))])]
        try:
            decode(MESSAGE[:9] + zlib.crc32(body).to_bytes(4, "little") + bytes(body))
        except UnreadableError:
            continue
        read += 1
    assert 0 < read < 3_000


def test_rows_must_come_in_the_order_of_the_sender() -> None:
    """Two rows of one position, or one before the other, are no message."""
    rows = rows_of([b"one", b"two"])
    for positions in ([5, 5], [5, 4]):
        (message,) = encode(HEAD, rows.having(position=np.array(positions)))
        with pytest.raises(UnreadableError, match="out of the order"):
            decode(message)
