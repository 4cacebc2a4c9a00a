"""Transactions on a real broker: seen whole or never, by one holder at a time."""

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable, Iterator

import pytest

from streamer.batch import Outgoing
from streamer.errors import ConfigError, Fenced, StreamerError
from streamer.transport.changelog_reader import ChangelogReader, ReaderSettings
from streamer.transport.kafka_admin import KafkaAdmin
from streamer.transport.kafka_publisher import PublisherSettings
from streamer.transport.kafka_transactions import HELD, KafkaTransactions
from streamer.transport.seam import TopicSpec, Transactions
from streamer.transport.threaded import LoopThread, ThreadedTransactions

pytestmark = pytest.mark.kafka

DEADLINE_S = 60.0


class Place:
    """A topic of its own, and holders of one transactional id."""

    def __init__(self, broker: str, prefix: str, thread: LoopThread | None) -> None:
        self._thread = thread
        self.broker = broker
        self.topic = prefix + "out"
        self.group = prefix + "group"
        self.admin = KafkaAdmin([broker])
        self.admin.create([TopicSpec(self.topic, 2)])

    def holder(self, timeout_ms: int = 60_000) -> Transactions:
        """One who publishes under the id, not started."""
        holder = KafkaTransactions(PublisherSettings([self.broker]), self.group + "-0", timeout_ms)
        return ThreadedTransactions(holder, self._thread) if self._thread else holder

    def out(self, *values: str, partition: int = 0) -> Outgoing:
        """These values for a partition."""
        outgoing = Outgoing(self.topic, partition)
        for value in values:
            outgoing.append(None, value.encode())
        return outgoing

    async def seen(self, partition: int = 0) -> list[str]:
        """What a reader with `read_committed` sees."""
        async with ChangelogReader(ReaderSettings([self.broker], self.topic, partition)) as reader:
            first, end = await reader.bounds()
            values = []
            while first < end:
                fetched = await reader.fetch(first)
                values += [record.value.decode() for batch in fetched.batches for record in batch]
                first = fetched.next
        return values

    async def shows(self, *values: str) -> None:
        """Wait until such a reader sees these: a commit has ended before its mark is written everywhere."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.seen() != list(values):  # noqa: ASYNC110 - only the broker knows
                await asyncio.sleep(0.01)

    def committed(self) -> dict[int, int]:
        """The group's offsets."""
        return dict(self.admin.committed(self.group, self.topic))

    async def reaches(self, offsets: dict[int, int]) -> None:
        """Wait until the group has these: the broker shows them a moment after it has ended a transaction."""
        async with asyncio.timeout(30.0):
            while self.committed() != offsets:  # noqa: ASYNC110 - the broker has no event for it
                await asyncio.sleep(0.02)


@pytest.fixture(params=["on the loop", "in a thread"])
def place(broker: str, topic_prefix: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A topic that no other test uses, and the two ways to hold its id."""
    with contextlib.ExitStack() as stack:
        thread = stack.enter_context(LoopThread()) if request.param == "in a thread" else None
        made = Place(broker, topic_prefix, thread)
        yield made
        made.admin._client.delete_topics([made.topic])
        made.admin.close()


def test_a_transaction_is_seen_whole_with_its_offsets(place: Place) -> None:
    """Nothing sent is seen before the commit; then all partitions, closing records and offsets are."""

    async def scenario() -> None:
        holder = place.holder()
        await holder.start()
        for number in range(2):
            await (await holder.send(place.out("a", "b", partition=number)))
        assert await place.seen() == []
        ends = await holder.commit([place.out("c")], {(place.topic, 1): 5}, place.group)
        assert (await place.seen(0), await place.seen(1)) == (["a", "b", "c"], ["a", "b"])
        assert ends == {(place.topic, 0): 3, (place.topic, 1): 2}
        await place.reaches({1: 5})
        assert await holder.commit() == {}
        await holder.commit([], {(place.topic, 1): 6}, place.group)
        await place.reaches({1: 6})
        await holder.stop()

    asyncio.run(scenario())


def test_what_is_sent_behind_a_seal_comes_with_the_next_commit(place: Place) -> None:
    """Sends after the cut wait without holding up the sender, keep their order, and come with the next."""

    async def scenario() -> None:
        holder = place.holder()
        await holder.start()
        await holder.send(place.out("1"))
        holder.seal()
        later = [await holder.send(place.out(f"2.{number}")) for number in range(3)]
        holder.seal()
        last = await holder.send(place.out("3"))
        assert [one for one in (*later, last) if one.done()] == []
        await holder.commit([place.out("1 closing")])
        await place.shows("1", "1 closing")
        await holder.commit()
        await place.shows("1", "1 closing", "2.0", "2.1", "2.2")
        await holder.commit()
        await place.shows("1", "1 closing", "2.0", "2.1", "2.2", "3")
        await asyncio.gather(*later, last)
        await holder.stop()

    asyncio.run(scenario())


def test_what_is_held_is_bounded(place: Place) -> None:
    """Behind a seal so many sends are held; the next one waits until the transaction has ended."""

    async def scenario() -> None:
        holder = place.holder()
        await holder.start()
        holder.seal()
        held = [await holder.send(place.out(str(number))) for number in range(HELD)]
        one_more = asyncio.create_task(holder.send(place.out(str(HELD))))
        await asyncio.sleep(0)
        assert not one_more.done()
        await holder.commit()
        await asyncio.gather(*held, await one_more)
        await holder.commit()
        await place.shows(*(str(number) for number in range(HELD + 1)))
        await holder.stop()

    asyncio.run(scenario())


def test_an_abort_is_never_seen(place: Place) -> None:
    """What was aborted, by hand or by stopping, is gone; what was held back behind it comes."""

    async def scenario() -> None:
        holder = place.holder()
        await holder.start()
        await holder.send(place.out("aborted"))
        holder.seal()
        await holder.send(place.out("held"))
        await holder.abort()
        await holder.commit([], {(place.topic, 0): 1}, place.group)
        await holder.send(place.out("left open"))
        await holder.stop()
        # Another holder: it waits until what the first one left has ended.
        other = place.holder()
        await other.start()
        await other.commit([place.out("after")])
        await place.shows("held", "after")
        assert place.committed() == {0: 1}
        await other.stop()

    asyncio.run(scenario())


Attempt = Callable[[Transactions, Place], Awaitable[object]]


async def _commit(holder: Transactions, place: Place) -> None:
    await holder.commit([place.out("stale")])


async def _open_commit(holder: Transactions, _place: Place) -> None:
    await holder.commit()


async def _offsets(holder: Transactions, place: Place) -> None:
    await holder.commit([], {(place.topic, 0): 99}, place.group)


async def _send(holder: Transactions, place: Place) -> None:
    await (await holder.send(place.out("stale", partition=1)))


@pytest.mark.parametrize("attempt", [_commit, _open_commit, _offsets, _send])
def test_a_stale_holder_is_fenced(place: Place, attempt: Attempt, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an old holder tries once there is a new one, it is told so each time and changes nothing.

    Deliveries that nobody waits for any more are not complained of.
    """

    async def scenario() -> None:
        old, new = place.holder(), place.holder()
        await old.start()
        await old.commit([place.out("old")], {(place.topic, 0): 1}, place.group)
        await old.send(place.out("open"))
        await new.start()
        for _ in range(2):
            with pytest.raises(Fenced, match=f"another worker owns {place.group}-0 now"):
                await attempt(old, place)
        with pytest.raises(Fenced):
            await old.send(place.out("stale"))
        with pytest.raises(Fenced):
            await old.abort()
        await new.commit([place.out("new")])
        await place.shows("old", "new")
        assert (await place.seen(1), place.committed()) == ([], {0: 1})
        await old.stop()
        await new.stop()
        gc.collect()

    gc.collect()
    caplog.clear()  # of what other tests have left behind
    asyncio.run(scenario())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_record_that_is_too_large_is_refused_alone(place: Place) -> None:
    """It raises before anything of its send is handed over; the transaction goes on."""

    async def scenario() -> None:
        holder = place.holder()
        await holder.start()
        await holder.send(place.out("before"))
        with pytest.raises(StreamerError, match="takes 2000000 bytes"):
            await holder.send(place.out("with it", "x" * 2_000_000))
        await holder.send(place.out("after"))
        await holder.commit()
        await place.shows("before", "after")
        await holder.stop()

    asyncio.run(scenario())


def test_a_batch_that_the_broker_refuses_takes_its_transaction_along(place: Place) -> None:
    """Where a topic takes only smaller batches than ours, nothing of the transaction is committed."""
    small = place.topic + ".small"
    place.admin.create([TopicSpec(small, config={"max.message.bytes": "1000"})])

    async def scenario() -> None:
        holder = place.holder()
        await holder.start()
        await holder.send(place.out("other topic"))
        refused = Outgoing(small, 0, [None], [os.urandom(5_000)], [()])
        with pytest.raises(StreamerError, match="MessageSizeTooLarge"):
            await holder.commit([refused])
        with pytest.raises(StreamerError, match="MessageSizeTooLarge"):
            await holder.commit()
        await holder.stop()
        other = place.holder()
        await other.start()
        assert await place.seen() == []
        await other.stop()

    try:
        asyncio.run(scenario())
    finally:
        place.admin._client.delete_topics([small])


def test_offsets_of_a_topic_that_is_gone_hold_nothing_up(place: Place) -> None:
    """The broker refuses them for as long as it is asked; the records and the other offsets are committed."""
    gone = place.topic + ".gone"

    async def scenario() -> None:
        holder = place.holder()
        await holder.start()
        await holder.send(place.out("with"))
        await holder.commit(offsets={(place.topic, 1): 7, (gone, 0): 9, (gone, 1): 9}, group=place.group)
        await place.shows("with")
        await place.reaches({1: 7})
        await holder.commit([place.out("after")], offsets={(place.topic, 1): 8}, group=place.group)
        await place.shows("with", "after")
        await place.reaches({1: 8})
        await holder.stop()
        assert set(place.admin.missing([gone])) == {gone}

    asyncio.run(scenario())


def test_a_timeout_that_the_broker_refuses_is_a_wrong_setting(place: Place) -> None:
    """A broker takes 15 minutes at most unless told otherwise."""

    async def scenario() -> None:
        with pytest.raises(ConfigError, match=r"transaction\.max\.timeout\.ms"):
            await place.holder(timeout_ms=3_600_000).start()

    asyncio.run(scenario())


def test_an_old_transaction_is_given_up(place: Place) -> None:
    """The broker aborts what stays open too long; its holder is told, and a new one publishes again."""

    async def scenario() -> None:
        holder = place.holder(timeout_ms=1_000)
        await holder.start()
        await holder.send(place.out("too old"))
        async with ChangelogReader(ReaderSettings([place.broker], place.topic, 0)) as reader:
            while (await reader.bounds())[1] < 2:  # the record and the mark of its abortion
                await reader.fetch(0, wait_ms=500)
        with pytest.raises(Fenced, match="open for more than 1000 ms"):
            await holder.commit()
        await holder.stop()
        other = place.holder()
        await other.start()
        await other.commit([place.out("new")])
        await place.shows("new")
        await other.stop()

    asyncio.run(scenario())
