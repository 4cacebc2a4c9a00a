"""The command line: what it prints, how it ends, and one line on stderr for whatever the user got wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamer import cli
from streamer.changes import declare
from streamer.configuration import describe as settings_described
from streamer.declared import DECLARED
from streamer.loading import load_topology
from streamer.state.store import Progress, Store, WriteSet

COMMANDS = ["demo", "run", "generate", "check", "schemas", "bench"]
GOOD = """from river import linear_model
from streamer import *

cards = Entity("card", features=[count("1h"), distinct(merchant, "1d")])
fraud = Model("fraud", [cards], linear_model.LogisticRegression())
policy = Policy("mine", 3, [block(fraud > 0.5), review(cards["count_1h"] > 9, reason="burst")])
topology = Topology("small", [fraud], policy)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Streamer = Callable[..., Ended]


@pytest.fixture
def streamer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Streamer:
    """The command, run in an empty directory, without settings of the surroundings."""
    monkeypatch.chdir(tmp_path)
    for setting in settings_described():
        monkeypatch.delenv(setting.env, raising=False)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["streamer", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


def as_process(*arguments: str, cwd: Path, **variables: str) -> Ended:
    """The command in a process of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "streamer", *arguments],
        cwd=cwd,
        env=environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,  # the first process of a machine compiles the kernels
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def assert_one_line(ended: Ended, status: int, message: str) -> None:
    """Nothing but one line on stderr, with this in it."""
    assert (ended.status, ended.err.count("\n")) == (status, 1), ended.err
    assert ended.err.startswith("streamer: ")
    assert message in ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(streamer: Streamer, command: str) -> None:
    """Status 0, on stdout, with what it does and its options."""
    ended = streamer(command, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert f"streamer {command}" in ended.out or f"{command} [OPTIONS]" in ended.out
    assert "--help" in ended.out


def test_the_help_names_every_command(streamer: Streamer) -> None:
    """Nothing is hidden."""
    ended = streamer("--help")
    assert ended.status == 0
    assert all(command in ended.out for command in COMMANDS)


WRONG: dict[str, tuple[list[str], str]] = {
    "option": (["check", "--colour"], "No such option: --colour"),
    "command": (["chekc"], "No such command 'chekc'"),
    "missing option": (["run"], "Missing option '--broker'"),
    "URL of run": (["run", "good.py", "--broker", "localhost:9092"], "Expected kafka://host:port"),
    "URL of generate": (["generate", "--payments", "1", "--broker", "kafka:x"], "Expected kafka://host:port"),
    "URL of bench": (["bench", "--broker", "kafka:x"], "Expected kafka://host:port"),
    "no broker there": (["run", "good.py", "--broker", "kafka://localhost:1"], "no Kafka broker answers"),
    "transactions on a log": (
        ["run", "good.py", "--broker", "log://log", "--guarantee", "transactions"],
        "Expected Kafka with --guarantee transactions, got log://log",
    ),
    "another guarantee": (["run", "good.py", "--broker", "log://log", "--guarantee", "never"], "--guarantee"),
    "no topology": (["run", "none.py", "--broker", "log://log"], "there is no topology file none.py"),
    "no topology to check": (["check", "none.py"], "there is no topology file none.py"),
    "wrong topology": (["check", "bad.py"], "bad.py:3: NameError: name 'blok' is not defined"),
    "no state to check": (
        ["check", "good.py", "--state", "none"],
        "There is no state directory none; name the --state of a worker",
    ),
    "state to check that is something else": (
        ["check", "good.py", "--state", "other"],
        "Expected a state directory in other",
    ),
    "wrong topology to run": (["run", "bad.py", "--broker", "log://log"], "bad.py:3: NameError"),
    "no target": (
        ["generate", "--payments", "1"],
        "name either --broker URL, to send to topics, or --out DIR",
    ),
    "two targets": (
        ["generate", "--payments", "1", "--out", "x", "--broker", "log://log"],
        "name either --broker URL, to send to topics, or --out DIR",
    ),
    "no payments": (["generate", "--payments", "0", "--out", "x"], "Invalid value for '--payments'"),
    "number": (["demo", "--payments", "many"], "Invalid value for '--payments'"),
    "format": (["generate", "--payments", "1", "--out", "x", "--format", "csv"], "'ndjson', 'parquet'"),
    "endless rate": (["generate", "--payments", "1", "--broker", "log://log", "--rate", "inf"], "rate"),
    "out below a file": (["generate", "--payments", "1", "--out", "file/x"], "file/x"),
    "demo below a file": (["demo", "--payments", "1", "--dir", "file"], "file/log"),
    "demo again": (["demo", "--payments", "1", "--dir", "done"], "done holds an earlier demo; remove it"),
    "schemas below a file": (["schemas", "--dir", "file/x"], "file/x"),
    "log that is something else": (["run", "good.py", "--broker", "log://other"], "an embedded log"),
    "state that is something else": (
        ["run", "good.py", "--broker", "log://log", "--state", "other"],
        "Expected a state directory in other",
    ),
    "no settings file": (
        ["run", "good.py", "--broker", "log://log", "--settings", "none.toml"],
        "`none.toml`; check --settings",
    ),
    "workload": (["bench", "everything"], "expected one of"),
    "partitions of a bench": (
        ["bench", "--broker", "log://log", "--partitions", "2"],
        "only Kafka shares work",
    ),
    "workers of a bench": (
        ["bench", "--broker", "kafka://localhost:1", "--partitions", "2", "--workers", "3"],
        "at most as many workers as partitions",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_usage_is_one_line_and_status_2(streamer: Streamer, tmp_path: Path, wrong: str) -> None:
    """Whatever the user got wrong: no traceback, the place and the remedy, nothing on stdout is lost."""
    (tmp_path / "topologies").mkdir()
    (tmp_path / "topologies" / "payments.py").write_text(GOOD)
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text("from streamer import *\n\nblok\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    (tmp_path / "done" / "state").mkdir(parents=True)
    arguments, message = WRONG[wrong]
    assert_one_line(streamer(*arguments), 2, message)


def test_a_wrong_setting_is_named(
    streamer: Streamer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable, a misspelt one and a file: each is named with what it may be."""
    (tmp_path / "good.py").write_text(GOOD)
    run = ("run", "good.py", "--broker", "log://log")
    monkeypatch.setenv("STREAMER_WEB_PORT", "abc")
    assert_one_line(
        streamer(*run), 2, "an integer from -1 to 65535, or \"none\", got 'abc' - at `STREAMER_WEB_PORT`"
    )
    monkeypatch.setenv("STREAMER_WEB_PORT", "none")
    monkeypatch.setenv("STREAMER_COMMIT_INTERVAL", "5")
    assert_one_line(streamer(*run), 2, "did you mean `STREAMER_COMMIT_INTERVAL_MS`?")
    monkeypatch.delenv("STREAMER_COMMIT_INTERVAL")
    (tmp_path / "streamer.toml").write_text("[comit]\ninterval_ms = 5\n")
    assert_one_line(streamer(*run), 2, "did you mean `commit`?")
    (tmp_path / "streamer.toml").write_text('[rates]\nfile = "rates.csv"\n')
    assert_one_line(streamer(*run), 2, "at `rates.csv`; check `[rates] file`")
    (tmp_path / "rates.csv").write_text("date,currency,rate\n2026-01-01,USD,0\n")
    assert_one_line(streamer(*run), 2, "got '0' - at `rates.csv: line 2`; write what one unit")


def test_a_state_in_use_is_told(streamer: Streamer, tmp_path: Path) -> None:
    """A second worker on one log learns who has it."""
    (tmp_path / "good.py").write_text(GOOD)
    program = (
        "import sys; from pathlib import Path; from streamer.state.log import Log; Log.open(Path('log'));"
    )
    holder = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program + "print('open', flush=True); sys.stdin.read()"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        ended = streamer("run", "good.py", "--broker", "log://log")
    finally:
        holder.communicate(b"", timeout=10)
    assert_one_line(ended, 2, f"is in use by process {holder.pid}")


def test_check_lists_what_a_topology_declares(streamer: Streamer, tmp_path: Path) -> None:
    """Entities, features, models and rules, each by its name."""
    (tmp_path / "good.py").write_text(GOOD)
    ended = streamer("check", "good.py")
    assert (ended.status, ended.err) == (0, "")
    for part in (
        "topology small",
        "entity card by card",
        "card_count_1h",
        "card_distinct_merchant_1d  float64  number of different values of merchant over (t - 1d, t]",
        "kept of an event: event_time, merchant",
        "bytes of memory per hot key",
        "events are kept for 8d",
        "model fraud: 2 inputs",
        "policy mine@3",
        "1. block for fraud_score",
        "2. review for burst",
    ):
        assert part in ended.out


def test_check_prints_json(streamer: Streamer, tmp_path: Path) -> None:
    """One object with the same content, and nothing else on stdout."""
    (tmp_path / "good.py").write_text(GOOD)
    ended = streamer("check", "good.py", "--json")
    described = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    assert described["topology"] == "small"
    assert described["entities"]["card"]["features"] == ["card_count_1h", "card_distinct_merchant_1d"]
    assert described["policy"] == {
        "name": "mine@3",
        "rules": [{"action": "block", "reason": "fraud_score"}, {"action": "review", "reason": "burst"}],
    }


CHANGED = GOOD.replace('count("1h"), ', 'count("1h", "30d"), ')


def test_check_says_what_changes_for_a_state(streamer: Streamer, tmp_path: Path) -> None:
    """Also while a worker has the directory, as text and as JSON; nothing is written."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "changed.py").write_text(CHANGED)
    noted = declare(load_topology(tmp_path / "good.py"), 7 * 86_400_000, None, 0)
    progress = Progress(greatest={0: 1_704_067_200_000})
    with Store.open(tmp_path / "state") as store:
        store.commit(WriteSet(progress, [(DECLARED, noted.encode())]))
        same = streamer("check", "good.py", "--state", "state")
        changed = streamer("check", "changed.py", "--state", "state")
        described = json.loads(streamer("check", "changed.py", "--state", "state", "--json").out)
    assert same.out.endswith("state state, up to 2024-01-01T00:00:00Z: nothing changes\n")
    assert (changed.status, changed.err) == (0, "")
    said = (
        "new, lacks what was dropped, since events were kept for 8d only;"
        " right for payments from 2024-01-23T00:00:00Z on (in 22d)"
    )
    assert f"up to 2024-01-01T00:00:00Z: these change\n  feature card_count_30d: {said}\n" in changed.out
    assert described["state"]["changes"][0] == {
        "subject": "feature card_count_30d",
        "kind": "new",
        "effect": said,
        "ready_from": 1_704_067_200_000 + 22 * 86_400_000,
    }


def test_schemas_are_written_and_compared(streamer: Streamer, tmp_path: Path) -> None:
    """What was written agrees; what was changed or taken away is named, with status 1."""
    assert streamer("schemas").status == 0
    assert streamer("schemas", "--check") == Ended(0, "schemas agrees with the code\n", "")
    (tmp_path / "schemas" / "payment.json").write_text("{}")
    (tmp_path / "schemas" / "outcome.json").unlink()
    ended = streamer("schemas", "--check")
    assert_one_line(ended, 1, "schemas does not agree with the code; run `streamer schemas`")
    assert "payment.json differs" in ended.out
    assert "outcome.json is missing" in ended.out


@pytest.mark.parametrize("file_format", ["ndjson", "parquet"])
def test_generate_writes_files(streamer: Streamer, tmp_path: Path, file_format: str) -> None:
    """Payments and outcomes by extension, and the figures as one JSON object."""
    ended = streamer("generate", "--payments", "50", "--out", "x", "--format", file_format, "--json")
    figures = json.loads(ended.out)
    assert (ended.status, figures["payments"], figures["to"]) == (0, 50, "x")
    names = {file.name for file in (tmp_path / "x").iterdir()}
    assert names >= {f"payments.{file_format}", f"outcomes.{file_format}"}


def strictly(constant: str) -> float:
    """Refuse what is no JSON: NaN and Infinity."""
    raise ValueError(constant)


def test_a_demo_ends_with_a_summary(tmp_path: Path) -> None:
    """Every payment is decided; the figures are JSON that any reader takes, also without a fraud."""
    topologies = tmp_path / "topologies"
    topologies.mkdir()
    (topologies / "payments.py").write_text(GOOD)
    ended = as_process("demo", "--payments", "60", "--dir", "here", "--json", cwd=tmp_path)
    assert ended.status == 0, ended.err
    summary = json.loads(ended.out, parse_constant=strictly)
    assert (summary["payments"], summary["decisions"], summary["rejected"]) == (60, 60, 0)
    assert sum(summary["actions"].values()) == 60
    again = as_process("demo", "--payments", "60", "--dir", "here", cwd=tmp_path)
    assert_one_line(again, 2, "here holds an earlier demo; remove it or name a new directory with --dir")


def test_a_process_ends_with_the_status(tmp_path: Path) -> None:
    """`python -m streamer` is the command, and so are its errors."""
    (tmp_path / "bad.py").write_text("topology = (\n")
    wrong = as_process("check", "bad.py", cwd=tmp_path)
    assert_one_line(wrong, 2, "bad.py:1: SyntaxError: '(' was never closed")
    assert wrong.out == ""


def test_without_a_command_there_is_help(streamer: Streamer) -> None:
    """What can be typed, and the status of wrong usage."""
    ended = streamer()
    assert ended.status == 2
    assert all(command in ended.out + ended.err for command in COMMANDS)
    assert "Traceback" not in ended.err
