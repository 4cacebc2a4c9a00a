"""Payments to be counted again: found by their key, and taken key by key."""

from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Int64
from streamer.features.columns import Prepared
from streamer.features.fields import amount
from streamer.features.redo import Redo
from tests.features.oracle import Batch, Event

streams = st.lists(
    st.lists(
        st.builds(
            lambda time, card, live: Event(time, time % 7, live, {"card": card}),
            st.integers(0, 99),
            st.sampled_from([None, "a", "b", "cc", "d" * 60]),
            st.sampled_from([True, True, False]),
        ),
        max_size=8,
    ),
    max_size=6,
)


def redo_of(batches: list[list[Event]]) -> Redo:
    """The live payments of cards."""
    redo = Redo(("card",), (amount.column,))
    for number, events in enumerate(batches):
        redo.add(Prepared(Batch(events)), number)
    return redo


def counted(batches: list[list[Event]]) -> list[tuple[str, int, int, int]]:
    """Card, number of the batch, time and amount of what is to be counted, in order."""
    return [
        (str(event.value("card")), number, event.time, event.amount)
        for number, events in enumerate(batches)
        for event in events
        if event.live and event.value("card") is not None
    ]


def hashes_of(keys: list[str]) -> Int64:
    """The hashes of these cards."""
    return Prepared(Batch([Event(0, fields={"card": key}) for key in keys])).keys(("card",))[1]


def key_at(redo: Redo, row: int) -> str:
    """The key of a row."""
    return redo.keys.data[slice(*redo.keys.ends[row : row + 2])].tobytes().decode()


@given(streams, st.lists(st.sampled_from(["a", "b", "cc", "d" * 60, "new"]), max_size=5))
def test_all_payments_of_a_key_are_found_in_order(batches: list[list[Event]], wanted: list[str]) -> None:
    """Each wanted key gives its own payments; there are few keys, so no two hashes are equal here."""
    redo = redo_of(batches)
    places, rows = redo.find(hashes_of(wanted))
    expected = [
        (place, *one) for place, key in enumerate(wanted) for one in counted(batches) if one[0] == key
    ]
    found = [
        (place, key_at(redo, row), redo.numbers[row], redo.times[row], redo.values[0, row])
        for place, row in zip(places.tolist(), rows.tolist(), strict=True)
    ]
    assert expected == found


@given(streams, st.lists(st.integers(1, 9), max_size=4))
def test_each_payment_is_taken_once(batches: list[list[Event]], sizes: list[int]) -> None:
    """However many at a time; at the end nothing is left."""
    redo = redo_of(batches)
    taken: list[str] = []
    for most in (*sizes, None):
        text, hashes = redo.take(most)
        spans = zip(text.ends[:-1].tolist(), text.ends[1:].tolist(), strict=True)
        keys = [text.data[start:end].tobytes().decode() for start, end in spans]
        assert len(keys) <= (most or len(redo))
        assert hashes_of(keys).tolist() == hashes.tolist()
        taken += keys
    assert redo.left == 0
    assert len(redo) == len(taken)
    assert sorted(taken) == sorted(one[0] for one in counted(batches))
