"""Settings from the file and the environment, their documentation and their errors; durations and sizes."""

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer import units
from streamer.configuration import describe, load
from streamer.errors import ConfigError
from streamer.settings import Commit, Kafka, Secret, Settings, Topics


def write(directory: Path, text: str) -> Path:
    """Write a settings file."""
    file = directory / "streamer.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refusal(path: Path | None, environ: dict[str, str]) -> str:
    """Return the message with which these settings are refused."""
    with pytest.raises(ConfigError) as refused:
        load(path, environ)
    return str(refused.value)


def test_without_anything_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file and no variable give the documented defaults."""
    monkeypatch.chdir(tmp_path)
    assert Settings() == load(None, {"PATH": "/bin"})


def test_the_working_directory_s_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`streamer.toml` needs no naming where the command is run."""
    write(tmp_path, "[commit]\ninterval_ms = 20\n")
    monkeypatch.chdir(tmp_path)
    assert Settings(commit=Commit(interval_ms=20)) == load(None, {})


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    """Texts, numbers, choices, durations, sizes and ports arrive in their units."""
    file = write(
        tmp_path,
        """
        [topics]
        prefix = "eu-"
        [state]
        memory_budget = "2GiB"
        [events]
        allowed_lateness = "36h"
        max_record_bytes = 5000
        future_reference = "none"
        [pan_policy]
        card = "accept"
        [rates]
        file = "finance/rates.csv"
        [web]
        port = "none"
        """,
    )
    settings = load(file, {})
    assert settings.topics.resolved.payments_rejected == "eu-payments.rejected"
    assert settings.topics.resolved == settings.topics.resolved.resolved
    assert settings.state.memory_budget == 2 * 2**30
    assert settings.events.allowed_lateness == 36 * 3_600_000
    assert settings.events.max_record_bytes == 5_000
    assert settings.events.future_reference == "none"
    assert settings.pan_policy.by_field()["card"] == "accept"
    assert settings.rates.file == "finance/rates.csv"
    assert settings.web.port == -1


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    """A variable replaces the file's value and leaves the others of its table alone."""
    file = write(tmp_path, "[commit]\ninterval_ms = 20\nmax_dirty_rows = 7\n")
    settings = load(file, {"STREAMER_COMMIT_INTERVAL_MS": "30", "STREAMER_WEB_PORT": "0"})
    assert Commit(interval_ms=30, max_dirty_rows=7) == settings.commit
    assert settings.web.port == 0


def test_every_default_can_be_written_back(tmp_path: Path) -> None:
    """What `describe` documents is valid, in the file and in the environment, and changes nothing."""
    lines: dict[str, list[str]] = {}
    for setting in describe():
        lines.setdefault(setting.table, []).append(f"{setting.name} = {setting.default}")
    text = "".join(f"[{table}]\n" + "\n".join(rows) + "\n" for table, rows in lines.items())
    assert Settings() == load(write(tmp_path, text), {})
    assert Settings() == load(write(tmp_path, ""), {one.env: one.default.strip('"') for one in describe()})


def test_every_setting_is_documented() -> None:
    """Each setting has a meaning, and numbers and durations have a unit."""
    for setting in describe():
        assert setting.note.doc, setting.name
        if setting.name.endswith("_ms"):
            assert setting.note.unit == "ms", setting.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[commit]\ninterval_ms = 0",
            "Expected an integer of at least 1, got 0 - at `{}: [commit] interval_ms`",
        ),
        ("[commit]\ninterval_ms = '50'", "got '50' - at `{}: [commit] interval_ms`"),
        ("[commit]\ninterval_ms = true", "got True - at `{}: [commit] interval_ms`"),
        ("[commit]\ninterval_ms = 1.5", "got 1.5 - at `{}: [commit] interval_ms`"),
        ("[events]\ndedup_window = 5", "Expected a duration"),
        ("[events]\ndedup_window = '0d'", "got '0d' - at `{}: [events] dedup_window`"),
        ("[state]\nmemory_budget = '1 GiB'", "Expected a size"),
        ("[state]\nmemory_budget = 0", "Expected a size"),
        ("[web]\nport = 70000", 'Expected an integer from -1 to 65535, or "none", got 70000'),
        ("[pan_policy]\ncard = 'mask'", 'Expected one of "reject", "hash", "accept", got \'mask\''),
        ("[kafka]\nssl_cafile = 1", "Expected a string, got 1"),
        ("[comit]\ninterval_ms = 1", "got `comit` - at `{}`; did you mean `commit`?"),
        ("[commit]\nintervall_ms = 1", "at `{}: [commit] intervall_ms`; did you mean `interval_ms`?"),
        ("[web]\nxyzzy = 1", "known: host, port"),
        ("commit = 5", "Expected a table, got 5 - at `{}: commit`"),
        ("[commit", "Expected TOML in UTF-8"),
        ("[topics]\npayments = 'a b'", "got 'a b' - at `[topics] payments`"),
        ("[topics]\npayments = 'x'\noutcomes = 'x'", "Expected topics of different names"),
        ("[kafka]\nsecurity_protocol = 'SASL_SSL'", "set `sasl_username` and STREAMER_KAFKA_SASL_PASSWORD"),
        ("[pan_policy]\nip = 'hash'", "STREAMER_EVENTS_PAN_KEY"),
        (
            "[models]\nsnapshot_key = 'short'",
            "Expected at least 16 bytes, got 5 - at `[models] snapshot_key`",
        ),
    ],
)
def test_wrong_settings_are_refused_with_place_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    """The message names what was expected, what was found and where, in one line."""
    file = write(tmp_path, text)
    message = refusal(file, {})
    assert expected.replace("{}", str(file)) in message
    assert "\n" not in message


def test_an_unknown_variable_is_refused_with_a_suggestion() -> None:
    """A misspelt variable does not pass silently."""
    message = refusal(None, {"STREAMER_COMMIT_INTERVALL_MS": "5"})
    assert "did you mean `STREAMER_COMMIT_INTERVAL_MS`?" in message


def test_a_wrong_variable_is_named() -> None:
    """The place of a wrong variable is its name."""
    message = refusal(None, {"STREAMER_COMMIT_INTERVAL_MS": "fast"})
    assert "Expected an integer of at least 1, got 'fast' - at `STREAMER_COMMIT_INTERVAL_MS`" in message


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A wrong --settings is no reason to run with the defaults."""
    assert "check --settings" in refusal(tmp_path / "nowhere.toml", {})


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text get one line, too."""
    file = tmp_path / "streamer.toml"
    file.write_bytes(b"\xff\xfe")
    assert "Expected TOML in UTF-8" in refusal(file, {})


def test_secrets_do_not_show(tmp_path: Path) -> None:
    """Neither `repr` nor an error shows a secret, yet its text can be used."""
    settings = load(None, {"STREAMER_EVENTS_PAN_KEY": "0123456789abcdef-secret"})
    assert "0123456789abcdef-secret" not in repr(settings)
    assert settings.events.pan_key.encode() == b"0123456789abcdef-secret"
    assert "918273" not in refusal(write(tmp_path, "[events]\npan_key = 918273"), {})


def test_security_is_in_aiokafka_s_names() -> None:
    """Each protocol carries what it needs and nothing else."""
    assert Kafka().security() == {"security_protocol": "PLAINTEXT"}
    kafka = Kafka(security_protocol="SASL_SSL", sasl_username="me", sasl_password=Secret("pass"))
    options = kafka.security()
    assert isinstance(options.pop("ssl_context"), ssl.SSLContext)
    assert options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password": "pass",
    }


def test_missing_certificates_are_a_configuration_error(tmp_path: Path) -> None:
    """A wrong path to the authorities is told with its place."""
    kafka = Kafka(security_protocol="SSL", ssl_cafile=str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="Expected readable PEM files"):
        kafka.security()


def test_an_empty_prefix_changes_no_topic() -> None:
    """Without a prefix the names are as declared."""
    assert Topics() == Topics().resolved


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1ms", 1), ("250ms", 250), ("10m", 600_000), ("7d", 604_800_000), ("2w", 1_209_600_000)],
)
def test_durations_are_milliseconds(text: str, expected: int) -> None:
    """Each unit has its length."""
    assert expected == units.parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "5", "d", "0d", "-1d", "1.5h", "1 d", "1D", "1min", "01d", "٣d", "1d ", "99999w"]
)
def test_other_durations_are_refused(text: str) -> None:
    """Whatever is not a positive integer and a unit is refused, the text shown."""
    with pytest.raises(ConfigError, match="Expected a duration") as refused:
        units.parse_duration(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize("text", ["", "5", "0B", "1gib", "1.5GiB", "1 GiB", "2000TiB"])
def test_other_sizes_are_refused(text: str) -> None:
    """Whatever is not a positive integer and a unit is refused."""
    with pytest.raises(ConfigError, match="Expected a size"):
        units.parse_size(text)


@given(st.integers(1, 36_500 * 86_400_000))
def test_a_duration_survives_writing_and_reading(ms: int) -> None:
    """Formatting loses nothing."""
    assert ms == units.parse_duration(units.format_duration(ms))


@given(st.integers(1, 2**50))
def test_a_size_survives_writing_and_reading(nbytes: int) -> None:
    """Formatting loses nothing."""
    assert nbytes == units.parse_size(units.format_size(nbytes))


def test_nothing_and_less_cannot_be_formatted() -> None:
    """Zero is neither a duration nor a size."""
    with pytest.raises(ConfigError):
        units.format_duration(0)
    with pytest.raises(ConfigError):
        units.format_size(-1)
