"""The embedded log against a plain model, across reopening, kills, and directories that are not its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from streamer.batch import Outgoing, Records
from streamer.errors import ConfigError, StateError, StreamerError
from streamer.state.log import Log
from streamer.state.log_chunks import CHUNK_BYTES, CHUNK_RECORDS

APPENDER = """
    import os, sys
    from pathlib import Path
    from streamer.batch import Outgoing
    from streamer.state.log import Log

    log = Log.open(Path(sys.argv[1]))
    if "t" not in log.topics:
        log.create_topic("t")
    end, size = log.end_offset("t", 0), 0
    while True:
        size = size % 40 + 1
        batch = Outgoing("t")
        for offset in range(end, end + size):
            batch.append(None, b"%d" % offset * 50)
        log.append(batch)
        end += size
        os.write(1, b"%d\\n" % end)
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """An empty log with topics `t` (one partition) and `u` (three)."""
    with Log.open(tmp_path / "log") as opened:
        opened.create_topic("t")
        opened.create_topic("u", 3, compacted=True)
        yield opened


def batch_of(*values: bytes | None, topic: str = "t", partition: int | None = None) -> Outgoing:
    """Records without keys and headers."""
    outgoing = Outgoing(topic, partition)
    for value in values:
        outgoing.append(None, value)
    return outgoing


def run(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Another Python process with a pipe from its output."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own script


def test_records_come_back_as_they_were(log: Log) -> None:
    """Tombstones, empty values, absent and empty keys, headers and timestamps are all kept apart."""
    sent = Outgoing("t")
    sent.append(None, None)
    sent.append(b"", b"", [("a", b""), ("a", b"2"), ("\u00e9", b"\xff")])
    sent.append(b"k", b"v")

    first = log.append(sent, [5, 7, 7])

    assert first == 0
    assert log.fetch("t", 0, 0) == Records(
        "t",
        0,
        [0, 1, 2],
        [5, 7, 7],
        [None, b"", b"k"],
        [None, b"", b"v"],
        [(), (("a", b""), ("a", b"2"), ("\u00e9", b"\xff")), ()],
        log.fetch("t", 0, 0).nbytes,
    )


def test_timestamps_are_those_of_the_append(log: Log) -> None:
    """Without timestamps of their own, records get the time of the append in milliseconds."""
    before = time.time_ns() // 1_000_000
    log.append(batch_of(b"1"))
    log.append_many([batch_of(b"2")])
    after = time.time_ns() // 1_000_000

    assert all(before <= stamp <= after for stamp in log.fetch("t", 0, 0).timestamps)


record = st.tuples(
    st.none() | st.binary(max_size=8),
    st.none() | st.binary(max_size=40),
    st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=2),
    st.integers(0, 2**40),
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(record, max_size=30)),
        st.tuples(st.just("fetch"), st.integers(0, 200), st.integers(1, 50), st.integers(0, 500)),
        st.tuples(st.just("truncate"), st.integers(0, 60)),
        st.tuples(st.just("reopen")),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_equals_a_list(script: list[tuple]) -> None:  # type: ignore[type-arg]
    """Whatever is appended, read, truncated and reopened, the log answers as a Python list does."""
    directory = Path(tempfile.mkdtemp())
    model: list[tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...], int]] = []
    first = 0
    log = Log.open(directory / "log")
    try:
        log.create_topic("t")
        for action, *arguments in script:
            if action == "append":
                outgoing = Outgoing("t")
                for key, value, headers, _ in arguments[0]:
                    outgoing.append(key, value, headers)
                assert log.append(outgoing, [stamp for *_, stamp in arguments[0]]) == len(model)
                model += [(key, value, tuple(headers), stamp) for key, value, headers, stamp in arguments[0]]
            elif action == "truncate":
                first = min(len(model), first + arguments[0])
                log.truncate("t", 0, first)
            elif action == "reopen":
                log.close()
                log = Log.open(directory / "log")
            else:
                check_fetch(log, model, first, arguments)
        assert (log.first_offset("t", 0), log.end_offset("t", 0)) == (first, len(model))
        check_fetch(log, model, first, [first, len(model) + 1, 1 << 30])
    finally:
        log.close()
        shutil.rmtree(directory)


def check_fetch(log: Log, model: list[tuple], first: int, arguments: list[int]) -> None:  # type: ignore[type-arg]
    """A fetch gives the model's records from there on, as many as the limits allow and at least one."""
    offset, count, nbytes = arguments
    if not first <= offset <= len(model):
        with pytest.raises(StateError, match=f"Expected an offset from {first} to {len(model)}"):
            log.fetch("t", 0, offset)
        return
    got = log.fetch("t", 0, offset, count, nbytes)
    rows = list(zip(got.keys, got.values, got.headers, got.timestamps, strict=True))
    assert got.offsets == list(range(offset, offset + len(rows)))
    assert rows == model[offset : offset + len(rows)]
    assert len(rows) <= count
    assert (len(rows) > 0) == (offset < len(model))
    payload = sum(len(key or b"") + len(value or b"") for key, value, _, _ in rows)
    assert len(rows) <= 1 or payload <= nbytes
    if nbytes == 1 << 30:
        assert len(rows) == min(count, len(model) - offset)


def test_a_long_append_is_read_from_any_offset(log: Log) -> None:
    """One append of several chunks is one run of offsets, wherever reading starts."""
    values = [b"%d" % number for number in range(CHUNK_RECORDS * 2 + 300)]
    log.append(batch_of(*values))

    got = log.fetch("t", 0, CHUNK_RECORDS - 2, 1000)
    again = log.fetch("t", 0, got.offsets[-1] + 1, 5000)

    assert got.values + again.values == values[CHUNK_RECORDS - 2 :]


def test_a_record_of_64_mib(log: Log) -> None:
    """A record beyond every limit is stored, and delivered alone."""
    huge = os.urandom(1 << 20) * 64
    log.append(batch_of(b"before", huge, b"after"))

    assert log.fetch("t", 0, 0, max_bytes=CHUNK_BYTES).values == [b"before"]
    assert log.fetch("t", 0, 1, max_bytes=CHUNK_BYTES).values == [huge]
    assert log.fetch("t", 0, 2, max_bytes=CHUNK_BYTES).values == [b"after"]


def test_many_topics_in_one_append(log: Log) -> None:
    """An append over topics and partitions continues each of them, the same one twice included."""
    log.append_many([batch_of(b"1"), batch_of(b"2", topic="u", partition=2), batch_of(b"3")])

    assert log.fetch("t", 0, 0).values == [b"1", b"3"]
    assert log.fetch("u", 2, 0).values == [b"2"]
    assert log.end_offsets("u") == {0: 0, 1: 0, 2: 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            Outgoing("t", 0, [None], ["text"], [()]),
            "Expected keys and values as bytes or None for t/0, got str",
        ),  # type: ignore[list-item]
        (
            Outgoing("t", 0, [None], [b""], [[("a", None)]]),
            r"Expected headers as \(str, bytes\) for t/0, got Non",
        ),  # type: ignore[list-item]
        (
            Outgoing("t", 0, [None, None], [b""], [()]),
            "Expected lists of one length for t/0, got 1 timestamps, 2",
        ),
        (Outgoing("t", 1, [None], [b""], [()]), "Expected a partition of t from 0 to 0, got 1"),
        (Outgoing("x", 0, [None], [b""], [()]), "Topic x does not exist in the log .*; there are: t, u"),
        (Outgoing("u", None, [None], [b""], [()]), "Expected a partition of u, got None"),
    ],
)
def test_an_append_is_all_or_nothing(log: Log, wrong: Outgoing, message: str) -> None:
    """A batch that cannot be stored is refused with its place, and what came with it is not stored either."""
    with pytest.raises(StreamerError, match=message):
        log.append_many([batch_of(b"good"), wrong])

    assert log.end_offset("t", 0) == 0


def test_topics_outlive_the_process(tmp_path: Path) -> None:
    """Topics, partitions, flags and positions are there after reopening."""
    with Log.open(tmp_path) as log:
        log.create_topic("payments", 4)
        log.create_topic("models", compacted=True)
        log.commit("group", {("payments", 3): 7, ("models", 0): 1})

    with Log.open(tmp_path) as log:
        assert {name: (topic.partitions, topic.compacted) for name, topic in log.topics.items()} == {
            "payments": (4, False),
            "models": (1, True),
        }
        assert log.committed("group", "payments") == {3: 7}
        assert log.committed("group", "models") == {0: 1}
        assert log.committed("grou", "payments") == {}


@pytest.mark.parametrize(
    ("name", "partitions", "message"),
    [
        ("t", 1, "Topic t exists already"),
        ("a/b", 1, "Expected a topic name of letters"),
        ("..", 1, "Expected a topic name of letters"),
        ("x", 0, "Expected at least one partition for topic x, got 0"),
    ],
)
def test_topics_that_cannot_be(log: Log, name: str, partitions: int, message: str) -> None:
    """A topic that exists, is misnamed or has no partition is refused."""
    with pytest.raises(ConfigError, match=message):
        log.create_topic(name, partitions)


def test_truncation_frees_the_disk(tmp_path: Path) -> None:
    """A log that is truncated as it grows keeps its disk bounded, and the rest stays readable."""
    with Log.open(tmp_path) as log:
        log.create_topic("t")
        for number in range(240):
            log.append(batch_of(os.urandom(1 << 20)))
            log.truncate("t", 0, max(0, number - 10))
        assert log.fetch("t", 0, 229, 2).offsets == [229, 230]
        with pytest.raises(ConfigError, match="Expected an offset from 229 to 240 to truncate t/0, got 5"):
            log.truncate("t", 0, 5)
        deadline = time.monotonic() + 30
        while sum(file.stat().st_size for file in tmp_path.glob("*.blob")) > 160 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with Log.open(tmp_path) as log:
        assert (log.first_offset("t", 0), log.end_offset("t", 0)) == (229, 240)


def test_one_process_shares_one_log(tmp_path: Path) -> None:
    """Whoever opens the directory in this process gets the same log, until the last one closes it."""
    first = Log.open(tmp_path / "log")
    (tmp_path / "link").symlink_to(tmp_path / "log")
    second = Log.open(tmp_path / "link", sync=True)
    first.create_topic("t")
    first.close()

    assert second is first
    assert second.append(batch_of(b"1")) == 0
    second.flush()
    second.close()
    with Log.open(tmp_path / "log") as third:
        assert third is not first
        assert third.end_offset("t", 0) == 1


def test_waiting_readers_are_woken(log: Log) -> None:
    """Every append calls those who wait, until they say that they no longer do."""
    calls = []
    stop = log.on_append(lambda: calls.append(log.end_offset("t", 0)))
    log.append(batch_of(b"1", b"2"))
    stop()
    log.append(batch_of(b"3"))

    assert calls == [2]


def test_a_second_process_is_refused(log: Log) -> None:
    """Another process gets one line that names the directory, the holder and the remedy."""
    script = """
        import sys
        from pathlib import Path
        from streamer.errors import StateError
        from streamer.state.log import Log
        try:
            Log.open(Path(sys.argv[1]))
        except StateError as error:
            print(error)
    """
    with run(script, log.path) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode()

    assert said.startswith(f"The log {log.path} is in use by ")
    assert said.endswith(
        "; stop it, or choose another directory: an embedded log is for one process at a time\n"
    )
    if sys.platform == "linux":
        assert f"process {os.getpid()};" in said
    assert log.append(batch_of(b"unharmed")) == 0


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    """A directory with other files, a file, and another database are left alone."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    (tmp_path / "file").write_text("")
    other = Rdict(str(tmp_path / "other"), Options(raw_mode=True))
    other[b"key"] = b"value"
    other.close()

    with pytest.raises(StateError, match=r"or an empty directory, got .*/letters with other files \(a.txt\)"):
        Log.open(tmp_path / "letters")
    with pytest.raises(StateError, match=r"Expected a directory for the embedded log, got a file: .*/file"):
        Log.open(tmp_path / "file")
    with pytest.raises(
        StateError, match=r"Expected an embedded log in .*, got a RocksDB database of another kind"
    ):
        Log.open(tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "letters").iterdir()) == ["a.txt"]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A closed log whose records have reached their own files."""
    with Log.open(tmp_path / "log") as log:
        log.create_topic("t")
        for number in range(40):
            log.append(batch_of(os.urandom(1 << 20), b"%d" % number))
    return tmp_path / "log"


@pytest.mark.parametrize("lost", ["CURRENT", "MANIFEST-*", "*.sst", "*.blob"])
def test_a_lost_file_is_noticed(filled: Path, lost: str) -> None:
    """A log that misses a file is called damaged, when opened or when read; it never starts anew."""
    victims = sorted(filled.glob(lost))
    assert victims
    victims[0].unlink()

    with pytest.raises(
        StateError, match=f"The log {filled} is damaged: .*; restore the directory from a copy"
    ):
        read_all(filled)


def test_a_changed_byte_is_noticed(filled: Path) -> None:
    """A flipped bit in stored records is found when they are read."""
    victim = min(filled.glob("*.blob"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)

    with pytest.raises(StateError, match=f"The log {filled} is damaged: "):
        read_all(filled)


def read_all(directory: Path) -> None:
    """Open a log and read topic `t` to its end."""
    with Log.open(directory) as log:
        at = 0
        while at < log.end_offset("t", 0):
            at = log.fetch("t", 0, at).offsets[-1] + 1


def test_survives_kill_9(tmp_path: Path) -> None:
    """After kills at any moment every append that was reported is there, and offsets have no gap."""
    reported = 0
    for delay in (0.0, 0.02, 0.15, 0.3):
        with run(APPENDER, tmp_path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().split(b"\n")
        reported = max(reported, *(int(line) for line in lines[:-1] or [b"0"]))
        with Log.open(tmp_path) as log:
            end = log.end_offset("t", 0)
            assert end >= reported
            values = log.fetch("t", 0, 0, end, 1 << 30).values
        assert values == [b"%d" % offset * 50 for offset in range(end)]
    assert reported > 0


def test_survives_kill_9_while_it_is_created(tmp_path: Path) -> None:
    """A directory that a kill has left half made can be opened, or was never touched."""
    for number in range(6):
        directory = tmp_path / str(number)
        with run(APPENDER, directory) as process:
            while not directory.exists():
                assert process.poll() is None
            time.sleep(number * 0.002)
            process.send_signal(signal.SIGKILL)
        with Log.open(directory) as log:
            assert set(log.topics) <= {"t"}
