"""A state directory is rebuilt from the changelog of its shard, on a real broker."""

import asyncio
import random
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import TopicPartition

from streamer.batch import Outgoing, Records
from streamer.engine import Engine
from streamer.errors import Fenced, StateError
from streamer.loading import load_topology
from streamer.restore import RestoreProgress, Restorer
from streamer.settings import Settings
from streamer.state import replica
from streamer.state.changelog_records import PART_BYTES
from streamer.state.store import BLOCKS, DECIDED, MODELS, PROGRESS, Progress, Row, Store, WriteSet
from streamer.transport.changelog_reader import ChangelogReader, ReaderSettings
from streamer.transport.kafka_publisher import KafkaPublisher, PublisherSettings
from streamer.transport.kafka_transactions import KafkaTransactions
from streamer.transport.seam import TopicSpec
from streamer.workloads import velocity
from tests.changelogs import DAY_MS, Shard, content, content_of, some_rows, until

pytestmark = pytest.mark.kafka


@pytest.fixture
def shard(broker: str, topic_prefix: str) -> Iterator[Shard]:
    """A changelog that no other test uses."""
    made = Shard(broker, topic_prefix)
    yield made
    made.close()


def test_a_rebuilt_store_is_the_original_row_by_row(shard: Shard, tmp_path: Path) -> None:
    """After many commits with deletions: rows, progress and secret; and the owner goes on from there."""

    async def scenario() -> None:
        rng = random.Random(1)
        async with shard.owned(tmp_path / "a") as owner:
            for _ in range(20):
                await owner.commit(some_rows(rng))
            original = content(owner.store)
            secret, progress = owner.store.secret, owner.store.progress
        async with shard.owned(tmp_path / "b") as owner:
            assert original == content(owner.store)
            assert (secret, progress, False) == (owner.store.secret, owner.store.progress, owner.store.empty)
            await owner.commit([(BLOCKS + b"new", b"row")])
        await shard.restore(tmp_path / "a")
        assert original.keys() | {BLOCKS + b"new"} == content_of(tmp_path / "a").keys()
        assert content_of(tmp_path / "a") == content_of(tmp_path / "b")

    asyncio.run(scenario())


def test_a_store_that_is_behind_reads_only_what_it_misses(shard: Shard, tmp_path: Path) -> None:
    """Each commit has its rows and its progress; one that misses nothing reads nothing."""

    async def scenario() -> None:
        rng = random.Random(2)
        async with shard.owned(tmp_path / "a") as owner:
            for _ in range(5):
                await owner.commit(some_rows(rng))
            owner.store.sync()
        shutil.copytree(tmp_path / "a", tmp_path / "behind")
        async with shard.owned(tmp_path / "a") as owner:
            assert owner.restored.rows == 0
            for _ in range(3):
                await owner.commit(some_rows(rng, count=70))
        told: list[RestoreProgress] = []
        assert (await shard.restore(tmp_path / "behind", report=told.append)).rows == 3 * (70 + 1)
        missed = told[-1]
        assert (await shard.restore(tmp_path / "behind", report=told.append)).rows == 0
        # A copy is as warm as what it holds, not as what it has just read.
        assert (told[-1].rows, told[-1].reached) == (0, missed.reached)
        assert missed.reached >= 5 * (200 + 1) + 3 * (70 + 1)
        assert content_of(tmp_path / "a") == content_of(tmp_path / "behind")

    asyncio.run(scenario())


def test_a_commit_that_the_store_did_not_get_is_read_back(shard: Shard, tmp_path: Path) -> None:
    """A crash between changelog and store leaves the store one commit behind, for the next start to read."""

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            await owner.changelog.commit(WriteSet(Progress(commits=1), [(BLOCKS + b"k", b"first")]))
            assert owner.store.empty
        async with shard.owned(tmp_path / "a") as owner:
            assert (Progress(commits=1), [b"first"]) == (
                owner.store.progress,
                owner.store.get_many([BLOCKS + b"k"]),
            )
            await owner.changelog.commit(WriteSet(Progress(commits=2), [(BLOCKS + b"k", b"second")]))
        async with shard.owned(tmp_path / "a") as owner:
            assert (owner.restored.rows, owner.store.get_many([BLOCKS + b"k"])) == (2, [b"second"])

    asyncio.run(scenario())


def test_a_commit_whose_marks_are_still_to_be_written_is_waited_for(shard: Shard, tmp_path: Path) -> None:
    """A broker answers before: a directory may stand beyond the end that it tells for a moment."""

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            await owner.changelog.commit(WriteSet(Progress(commits=1), [(BLOCKS + b"k", b"first")]))
        # The transaction of somebody else is open below where the directory stands.
        other = KafkaTransactions(PublisherSettings([shard.broker]), shard.topic + "-other")
        await other.start()
        await (await other.send(Outgoing(shard.topic, 0, [b"?"], [b"?"], [()])))
        async with shard.owned(tmp_path / "a") as owner:
            await owner.commit([(BLOCKS + b"k", b"second")])
        async with shard.reader() as reader:
            end = (await reader.bounds())[1]
            assert end < await reader.written()
        with Store.open(tmp_path / "a") as store:
            assert store.place is not None
            assert store.place.offset > end
        restoring = asyncio.ensure_future(shard.restore(tmp_path / "a"))
        await asyncio.sleep(1.5)
        assert not restoring.done()
        await other.commit()
        assert (await restoring).rows == 0
        await other.stop()
        assert content_of(tmp_path / "a")[BLOCKS + b"k"] == b"second"

    asyncio.run(scenario())


def test_compaction_changes_nothing(broker: str, topic_prefix: str, tmp_path: Path) -> None:
    """Read from a compacted topic, a new directory and one that is behind are the original."""
    config = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0", "segment.bytes": "1048576"}
    shard = Shard(broker, topic_prefix, config)

    async def scenario() -> None:
        rng = random.Random(3)
        large = DECIDED + b"\xff" * 8
        async with shard.owned(tmp_path / "a") as owner:
            for size in (3 * PART_BYTES, 2 * PART_BYTES, 10):
                await owner.commit([*some_rows(rng, keys=50), (large, rng.randbytes(size))])
            owner.store.sync()
            shutil.copytree(tmp_path / "a", tmp_path / "behind")
            async with asyncio.timeout(90):
                while True:
                    await owner.commit(some_rows(rng, keys=50))
                    shutil.rmtree(tmp_path / "b", ignore_errors=True)
                    restored = await shard.restore(tmp_path / "b")
                    assert content(owner.store) == content_of(tmp_path / "b")
                    if restored.rows < owner.store.progress.commits * 200 / 2:
                        break
            await shard.restore(tmp_path / "behind")
            assert content(owner.store) == content_of(tmp_path / "behind")

    try:
        asyncio.run(scenario())
    finally:
        shard.close()


def test_a_torn_commit_is_never_seen(shard: Shard, tmp_path: Path) -> None:
    """An owner that dies within a transaction leaves nothing: the next one stands at the commit before."""

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            await owner.commit([(BLOCKS + b"k", b"whole")])
            original = content(owner.store)
            # More than a fetch, so that a reader has to pass over it.
            torn = Outgoing(
                shard.topic, 0, [b"\x01%d" % n for n in range(30_000)], [b"torn"] * 30_000, [()] * 30_000
            )
            await (await owner.transactions.send(torn))
            async with shard.owned(tmp_path / "b") as following:
                assert original == content(following.store)
                await following.commit([(BLOCKS + b"k", b"next")])
            with pytest.raises(Fenced):
                await owner.transactions.commit()
        await shard.restore(tmp_path / "a")
        assert original | {BLOCKS + b"k": b"next"} == content_of(tmp_path / "a") | {
            key: value for key, value in original.items() if key != BLOCKS + b"k"
        }
        assert content_of(tmp_path / "a") == content_of(tmp_path / "b")

    asyncio.run(scenario())


def test_a_stale_owner_changes_nothing(shard: Shard, tmp_path: Path) -> None:
    """Who commits after another took the shard is told so; neither changelog nor store have the rows."""

    async def scenario() -> None:
        async with shard.owned(tmp_path / "old") as old:
            await old.commit([(BLOCKS + b"k", b"old")])
            async with shard.owned(tmp_path / "new") as new:
                with pytest.raises(Fenced, match="another worker owns"):
                    await old.commit([(BLOCKS + b"k", b"stale")])
                assert old.store.get_many([BLOCKS + b"k"]) == [b"old"]
                await new.commit([(BLOCKS + b"other", b"new")])
        await shard.restore(tmp_path / "old")
        assert content_of(tmp_path / "new") == content_of(tmp_path / "old")

    asyncio.run(scenario())


def test_rows_larger_than_a_batch(shard: Shard, tmp_path: Path) -> None:
    """They grow, shrink and go, and are there as they are; also where a commit changes one twice."""

    async def scenario() -> None:
        rng = random.Random(4)
        batch, model = DECIDED + bytes(8), MODELS + b"fraud"
        async with shard.owned(tmp_path / "a") as owner:
            for number, sizes in enumerate(
                [(PART_BYTES,), (PART_BYTES + 1, 5_000_000), (3_700_000,), (7,), (None,)]
            ):
                rows: list[Row] = [(batch, None if size is None else rng.randbytes(size)) for size in sizes]
                await owner.commit([*rows, (model, rng.randbytes(1_500_000))])
                await shard.restore(tmp_path / "b")
                await shard.restore(tmp_path / f"from nothing {number}")
                assert content(owner.store) == content_of(tmp_path / "b")
                assert content(owner.store) == content_of(tmp_path / f"from nothing {number}")

    asyncio.run(scenario())


def test_a_store_older_than_its_changelog_fills_it(shard: Shard, tmp_path: Path) -> None:
    """Where changelogs are new, the state that is there already becomes the first transaction."""

    async def scenario() -> None:
        rng = random.Random(5)
        with Store.open(tmp_path / "a") as store:
            store.commit(WriteSet(Progress(commits=1, batches=3), some_rows(rng, count=50_000, keys=100_000)))
            original = content(store)
        async with shard.owned(tmp_path / "a") as owner:
            await owner.commit([(BLOCKS + b"new", b"row")])
        await shard.restore(tmp_path / "b")
        restored = content_of(tmp_path / "b")
        assert restored == content_of(tmp_path / "a")
        assert original.keys() | {BLOCKS + b"new"} == restored.keys()

    asyncio.run(scenario())


def test_a_fill_that_was_torn_begins_again(shard: Shard, tmp_path: Path) -> None:
    """A worker killed while it fills the changelog does it again; another one finds nothing."""

    async def scenario() -> None:
        with Store.open(tmp_path / "a") as store:
            store.commit(WriteSet(Progress(commits=1), [(BLOCKS + b"%d" % n, b"row") for n in range(1000)]))
            original = content(store)
            torn = shard.transactions()
            await torn.start()
            await (await torn.send(Outgoing(shard.topic, 0, [BLOCKS + b"torn"], [b"row"], [()])))
        async with shard.owned(tmp_path / "empty") as owner:
            assert owner.store.empty
        async with shard.owned(tmp_path / "a") as owner:
            assert original == content(owner.store)
        await shard.restore(tmp_path / "b")
        assert original == content_of(tmp_path / "b")
        with pytest.raises(Fenced):
            await torn.commit()
        await torn.stop()

    asyncio.run(scenario())


KILLED = """
import asyncio, os, signal, sys, time
from pathlib import Path
from tests.changelogs import DAY_MS, ChangelogReader, ReaderSettings, Restorer

async def restore(broker, topic, path):
    def report(progress):
        # Once one file of it is whole on the disk, since there is a second or it grows no more; and not all.
        if progress.left < progress.rows:
            time.sleep(0.05)
            if len(list(path.glob("*.sst"))) > 1:
                os.kill(os.getpid(), signal.SIGKILL)
        if progress.left and progress.left * 10 < progress.rows:
            before, size = -1, 0
            while not size or before != size:
                time.sleep(0.5)
                before, size = size, sum(file.stat().st_size for file in path.glob("*.sst"))
            os.kill(os.getpid(), signal.SIGKILL)
    async with ChangelogReader(ReaderSettings([broker], topic, 0, fetch_bytes=1 << 20)) as reader:
        await Restorer(reader, path, DAY_MS, report).restore()

asyncio.run(restore(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
"""


def test_a_restore_that_was_killed_goes_on(shard: Shard, tmp_path: Path) -> None:
    """The directory is refused as it is; the next restore reads less than everything and completes it."""

    async def scenario() -> None:
        rng = random.Random(6)
        async with shard.owned(tmp_path / "a") as owner:
            for number in range(80):
                rows = [(BLOCKS + b"%d/%d" % (number, n), rng.randbytes(100_000)) for n in range(10)]
                await owner.commit([*rows, (BLOCKS + b"each", b"%d" % number)])
            original = content(owner.store)
        arguments = [shard.broker, shard.topic, str(tmp_path / "b")]
        killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, *arguments)
        assert await killed.wait() == -signal.SIGKILL
        with pytest.raises(StateError, match=f"half restored from partition 0 of topic {shard.topic}"):
            Store.open(tmp_path / "b")
        with pytest.raises(StateError, match="half restored"):
            Store.read(tmp_path / "b")
        restored = await shard.restore(tmp_path / "b")
        assert 0 < restored.rows < 80 * 12
        assert original == content_of(tmp_path / "b")

    asyncio.run(scenario())


class Interrupted(Exception):  # noqa: N818 - not an error
    """Somebody stops a restore."""


@pytest.mark.parametrize("large", [0, 1])
def test_a_restore_stopped_anywhere_goes_on_there(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    """However often it is stopped between fetches, within commits too, it is right; parts come again."""
    monkeypatch.setattr(replica, "BATCH_BYTES", 1)
    rng = random.Random(9)

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            written = 1
            for number in range(6):
                # More than a batch of the publisher.
                rows = [(BLOCKS + rng.randbytes(1), rng.randbytes(30_000)) for _ in range(60)]
                parts = [(DECIDED + bytes([number % 3]), rng.randbytes(2 * PART_BYTES))] * large
                await owner.commit(rows + parts)
                written += len(rows) + 3 * large + 1
            original = content(owner.store)
        read = stops = 0
        done = False
        while not done:
            seen = 0

            def report(progress: RestoreProgress) -> None:
                nonlocal seen
                seen = progress.rows
                if rng.random() < 0.5 and progress.left:
                    raise Interrupted

            try:
                await shard.restore(tmp_path / "b", report=report)
                done = True
            except Interrupted:
                stops += 1
                with pytest.raises(StateError, match="half restored"):
                    Store.open(tmp_path / "b")
            read += seen
        assert stops > 0
        assert read >= written if large else read == written
        assert original == content_of(tmp_path / "b")

    asyncio.run(scenario())


def test_a_store_behind_the_life_of_deletions_is_rebuilt(shard: Shard, tmp_path: Path) -> None:
    """What was deleted in the changelog may have left it: such a directory begins from nothing."""

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            await owner.commit([(BLOCKS + b"k", b"row"), (BLOCKS + b"gone", b"row")])
            owner.store.sync()
        shutil.copytree(tmp_path / "a", tmp_path / "behind")
        shutil.copytree(tmp_path / "a", tmp_path / "up to date")

        def later() -> int:
            assert owner.store.place is not None
            return owner.store.place.at + DAY_MS

        assert (await shard.restore(tmp_path / "up to date", clock=later)).rows == 0
        async with shard.owned(tmp_path / "a") as following:
            await following.commit([(BLOCKS + b"k", b"newer")])
        with Store.open(tmp_path / "behind") as store:
            # As if its deletion had been in the changelog, and left it.
            store.commit(WriteSet(store.progress, [(BLOCKS + b"left over", b"row")]))
        assert (await shard.restore(tmp_path / "behind", clock=later)).rows == 3 + 1 + 1 + 1
        assert content_of(tmp_path / "a") == content_of(tmp_path / "behind")

    asyncio.run(scenario())


Change = Callable[[Shard, Path], Awaitable[None]]


async def _recreated(shard: Shard, _path: Path) -> None:
    shard.delete()
    shard.create()


async def _recreated_and_longer(shard: Shard, path: Path) -> None:
    shard.delete()
    shard.create()
    async with shard.owned(path.with_name("stranger")) as owner:
        for _ in range(20):
            await owner.commit([(BLOCKS + b"%d" % n, b"other") for n in range(100)])


async def _never_in_it(_shard: Shard, path: Path) -> None:
    with Store.open(path) as store:
        rows = content(store)
    shutil.rmtree(path)
    with Store.open(path) as store:
        store.commit(WriteSet(Progress(commits=1), list(rows.items())))


async def _lost_by_the_broker(_shard: Shard, path: Path) -> None:
    # As if the last commit had been another, which the topic lost and wrote anew.
    with Store.open(path) as store:
        store.commit(
            WriteSet(msgspec.structs.replace(store.progress, log_time=1), [(BLOCKS + b"k", b"lost")])
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_recreated, "stands at offset .*, which ends at 0"),
        (_recreated_and_longer, "stands in another changelog"),
        (_lost_by_the_broker, "the last commit of the directory was lost there"),
        (_never_in_it, "a state of its own that stands in no changelog"),
    ],
)
def test_a_directory_of_another_changelog_is_refused(
    shard: Shard, tmp_path: Path, change: Change, said: str
) -> None:
    """It is left as it is, and the error says what to do."""

    async def scenario() -> None:
        path = tmp_path / "a"
        async with shard.owned(path) as owner:
            for _ in range(3):
                await owner.commit(some_rows(random.Random(7)))
        await change(shard, path)
        before = content_of(path)
        with pytest.raises(StateError, match=said) as refused:
            await shard.restore(path)
        assert "move the directory away" in str(refused.value)
        assert before == content_of(path)

    asyncio.run(scenario())


def test_a_directory_of_another_shard_is_refused(shard: Shard, tmp_path: Path) -> None:
    """A directory belongs to one partition."""

    async def scenario() -> None:
        for number in range(2):
            async with shard.owned(tmp_path / str(number), number) as owner:
                await owner.commit([(BLOCKS + b"%d" % number, b"row")])
        with pytest.raises(StateError, match="the directory stands in partition 1"):
            await shard.restore(tmp_path / "1", 0)
        assert content_of(tmp_path / "1")[BLOCKS + b"1"] == b"row"

    asyncio.run(scenario())


def test_a_changelog_whose_beginning_was_deleted_is_refused(
    broker: str, topic_prefix: str, tmp_path: Path
) -> None:
    """A topic that deletes by age or size loses rows that nothing replaces."""
    shard = Shard(broker, topic_prefix, {"cleanup.policy": "compact,delete"})

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            for _ in range(3):
                await owner.commit([(BLOCKS + b"k", b"row")])
        shard.admin._client.delete_records({TopicPartition(shard.topic, 0): 4})
        for path in (tmp_path / "a", tmp_path / "b"):
            with pytest.raises(StateError, match="begins at offset 4, its first commit was at 0"):
                await shard.restore(path)

    try:
        asyncio.run(scenario())
    finally:
        shard.close()


def test_a_standby_follows_until_told_to_stop(shard: Shard, tmp_path: Path) -> None:
    """It waits for a changelog that is empty, takes each commit as a whole, and then is what its owner is."""

    async def scenario() -> None:
        rng = random.Random(8)
        stop = asyncio.Event()
        seen: list[int] = []
        async with shard.reader() as reader:
            standby = Restorer(reader, tmp_path / "b", DAY_MS, lambda progress: seen.append(progress.rows))
            following = asyncio.create_task(standby.follow(stop))
            await until(lambda: seen)
            async with shard.owned(tmp_path / "a") as owner:
                await owner.commit(some_rows(rng, count=10))
                await until(lambda: seen[-1] == 12)
                for _ in range(5):
                    await owner.commit(some_rows(rng))
                await until(lambda: seen[-1] == 12 + 5 * 201)
                original = content(owner.store)
            stop.set()
            assert (await following).rows == 12 + 5 * 201
        assert original == content_of(tmp_path / "b")
        async with shard.owned(tmp_path / "b") as owner:
            assert (0, original) == (owner.restored.rows, content(owner.store))

    asyncio.run(scenario())


def test_a_standby_and_a_store_do_not_share_a_directory(shard: Shard, tmp_path: Path) -> None:
    """Whoever comes second is told that the directory is in use."""

    async def scenario() -> None:
        with Store.open(tmp_path / "a"), pytest.raises(StateError, match="in use by another worker"):
            await shard.restore(tmp_path / "a")

    asyncio.run(scenario())


def test_outputs_rows_and_offsets_become_visible_together(shard: Shard, tmp_path: Path) -> None:
    """With one transaction for all, a stale owner's outputs are not seen; what is after the cut waits."""
    topic, group = shard.topic + ".out", shard.topic + ".group"
    shard.admin.create([TopicSpec(topic)])

    def output(value: bytes) -> Outgoing:
        return Outgoing(topic, 0, [b"k"], [value], [()])

    async def seen() -> list[bytes]:
        async with ChangelogReader(ReaderSettings([shard.broker], topic, 0)) as reader:
            batches = (await reader.fetch(0)).batches
            return [record.value for batch in batches for record in batch]

    async def scenario() -> None:
        async with shard.owned(tmp_path / "old") as old:
            await old.transactions.send(output(b"decided"))
            old.transactions.seal()
            await old.transactions.send(output(b"decided after the cut"))
            assert await seen() == []
            writes = WriteSet(Progress(commits=1), [(BLOCKS + b"k", b"row")])
            await old.changelog.commit(writes, {(topic, 0): 5}, group)
            old.store.commit(writes)
            assert (await seen(), shard.admin.committed(group, topic)) == ([b"decided"], {0: 5})
            async with shard.owned(tmp_path / "new") as new:
                assert content(old.store) == content(new.store)
                with pytest.raises(Fenced):
                    await old.changelog.commit(WriteSet(Progress(commits=2), []), {(topic, 0): 9}, group)
                await new.transactions.send(output(b"decided again"))
                await new.commit([])
        assert (
            await seen(),
            shard.admin.committed(group, topic),
        ) == ([b"decided", b"decided again"], {0: 5})

    try:
        asyncio.run(scenario())
    finally:
        shard.admin._client.delete_topics([topic])


class Flipping(ChangelogReader):
    """A reader over a bad line: one bit of each batch's records is not what the broker sent."""

    async def _ask(self, request: Any) -> Any:
        *answer, data = await super()._ask(request)
        if isinstance(data, bytes) and len(data) > 100:
            data = data[:90] + bytes([data[90] ^ 1]) + data[91:]
        return [*answer, data]


def test_a_flipped_bit_is_detected(shard: Shard, tmp_path: Path) -> None:
    """The restore ends with an error, and leaves nothing that could be used."""

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            await owner.commit(some_rows(random.Random(11)))
        async with Flipping(ReaderSettings([shard.broker], shard.topic, 0)) as reader:
            with pytest.raises(StateError, match="is damaged at offset 0: its checksum does not hold"):
                await Restorer(reader, tmp_path / "b", DAY_MS).restore()
        with Store.open(tmp_path / "b") as store:
            assert store.empty

    asyncio.run(scenario())


def test_records_of_strangers_are_passed_over(shard: Shard, tmp_path: Path) -> None:
    """What somebody sends to the topic outside of a transaction is no part of any state."""

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            await owner.commit([(BLOCKS + b"k", b"row")])
            stranger = KafkaPublisher(PublisherSettings([shard.broker]))
            await stranger.start()
            outgoing = Outgoing(shard.topic, 0, [BLOCKS + b"k", PROGRESS], [b"garbage", b"garbage"], [(), ()])
            await (await stranger.send(outgoing))
            await stranger.stop()
            await owner.commit([(BLOCKS + b"other", b"row")])
        await shard.restore(tmp_path / "b")
        assert content_of(tmp_path / "a") == content_of(tmp_path / "b")

    asyncio.run(scenario())


def test_an_engine_goes_on_from_a_rebuilt_store(shard: Shard, tmp_path: Path) -> None:
    """Payments decided elsewhere after a restore get the very bytes that they would have got here."""
    topology = load_topology(Path("topologies/payments.py"))
    (chunk,) = velocity(1_500)
    records = [
        Records(
            "payments",
            0,
            list(range(start, start + 500)),
            list(chunk.times[start : start + 500]),
            list(chunk.keys[start : start + 500]),
            list(chunk.values[start : start + 500]),
            [()] * 500,
            sum(map(len, chunk.values[start : start + 500])),
        )
        for start in (0, 500, 1_000)
    ]
    # Some again: their ids are known, by digests under the store's secret.
    again = replace(records[0], offsets=list(range(2_000, 2_500)))
    first, then = records[:-1], [records[-1], again]

    async def scenario() -> None:
        async with shard.owned(tmp_path / "a") as owner:
            engine = Engine(topology, owner.store, Settings())
            for batch in first:
                engine.process(batch)
                writes = engine.cut()
                await owner.changelog.commit(writes)
                owner.store.commit(writes)
                engine.written()
            await shard.restore(tmp_path / "b")
            with Store.open(tmp_path / "b") as store:
                other = Engine(topology, store, Settings())
                for batch in then:
                    here, there = engine.process(batch), other.process(batch)
                    assert (here.decisions, here.rejected) == (there.decisions, there.rejected)
                assert len(there.rejected) == len(again)

    asyncio.run(scenario())
