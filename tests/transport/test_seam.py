"""What is fetched and not worked off is bounded: by partition, and in number."""

from streamer.transport.seam import Buffer


def test_a_partition_has_room_for_bytes_and_batches() -> None:
    """The others are not its concern; what is given back counts no more."""
    buffer = Buffer(100, 2)
    buffer.take("in", 0, 60)
    assert buffer.has_room("in", 0)
    buffer.take("in", 0, 60)
    assert not buffer.has_room("in", 0)
    assert buffer.has_room("in", 1)
    buffer.give_back("in", 0, 60)
    assert buffer.has_room("in", 0)
    assert buffer.held == 60


def test_no_partition_has_room_while_many_batches_wait() -> None:
    """But for those of topics that may have to wait for the others."""
    buffer = Buffer(100, 1, waiting=1, apart=["outcomes"])
    for partition in range(3):
        buffer.take("outcomes", partition, 1)
    buffer.take("in", 0, 1)
    assert buffer.has_room("in", 2)
    buffer.take("in", 1, 1)
    assert not buffer.has_room("in", 2)
    buffer.give_back("outcomes", 0, 1)
    assert not buffer.has_room("in", 2)
    buffer.give_back("in", 0, 1)
    assert buffer.has_room("in", 2)


def test_what_is_given_back_after_a_reset_is_not_taken_twice() -> None:
    """A batch of before a rebalance may be worked off after it."""
    buffer = Buffer(100, 1, waiting=0)
    buffer.take("in", 0, 1)
    buffer.reset()
    buffer.give_back("in", 0, 1)
    buffer.take("in", 1, 1)
    assert not buffer.has_room("in", 0)
    buffer.give_back("in", 1, 1)
    assert buffer.has_room("in", 0)
