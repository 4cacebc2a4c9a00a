"""Keys go where every Kafka client puts them."""

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from streamer.batch import Text
from streamer.partitioning import partitions_of, partitions_of_text

TEXTS = st.text(st.characters(codec="utf-8"), max_size=400)


@given(st.lists(TEXTS, max_size=40), st.integers(1, 64))
def test_columns_of_keys_are_placed_as_kafka_does(keys: list[str], count: int) -> None:
    """Short ones, long ones, of characters of any width, empty ones."""
    expected = [(murmur2(key.encode()) & 0x7FFFFFFF) % count for key in keys]
    assert partitions_of_text(Text.pack(keys), count).tolist() == expected
    assert partitions_of([key.encode() for key in keys], count, 0) == expected
