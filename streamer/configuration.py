"""Reads the settings from `streamer.toml` and `STREAMER_*` variables, and says what is wrong with them."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from streamer import units
from streamer.errors import ConfigError
from streamer.settings import Duration, Note, Port, Secret, Settings, Size

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as the loader and the documentation need it; `note` has its meaning and unit."""

    table: str
    name: str
    kind: Any
    note: Note
    value: object

    @property
    def env(self) -> str:
        """Name of its environment variable."""
        return f"STREAMER_{self.table}_{self.name}".upper()

    @property
    def default(self) -> str:
        """Its default, as written in TOML."""
        match self.value:
            case int(ms) if self.kind is Duration:
                return f'"{units.format_duration(ms)}"'
            case int(nbytes) if self.kind is Size:
                return f'"{units.format_size(nbytes)}"'
            case int(number):
                return str(number)
            case _:
                return f'"{self.value}"'

    @property
    def expected(self) -> str:
        """What it may be set to, for error messages."""
        if get_origin(self.kind) is Literal:
            return "one of " + ", ".join(f'"{choice}"' for choice in get_args(self.kind))
        if self.kind is int:
            return f"an integer of at least {self.note.low}"
        return {
            Duration: units.DURATION,
            Size: f"{units.SIZE}, or an integer of bytes",
            Port: 'an integer from -1 to 65535, or "none"',
        }.get(self.kind, "a string")


def describe() -> tuple[Setting, ...]:
    """Every setting in the order of `streamer.toml`."""
    return tuple(
        Setting(table.name, field.name, kind, note, field.default)
        for table in msgspec.structs.fields(Settings)
        for field in msgspec.structs.fields(table.type)
        for kind, note in [get_args(field.type)]
    )


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file, `streamer.toml` of the working directory if none is named; variables win.

    Raises ConfigError for a missing named file, an unknown name, a wrong value and values that do not agree.
    """
    known = describe()
    chosen: dict[str, dict[str, object]] = {setting.table: {} for setting in known}
    for one, raw, where in _from_file(path, known):
        chosen[one.table][one.name] = _value(one, raw, where, strict=True)
    for one, raw in _from_environ(environ, known):
        chosen[one.table][one.name] = _value(one, raw, one.env, strict=False)
    settings = Settings(
        **{table.name: table.type(**chosen[table.name]) for table in msgspec.structs.fields(Settings)}
    )
    _agree(settings)
    return settings


def _from_file(path: Path | None, known: tuple[Setting, ...]) -> Iterator[tuple[Setting, object, str]]:
    file = path or Path("streamer.toml")
    if path is None and not file.exists():
        return
    tables = sorted({one.table for one in known})
    for table, content in _toml(file).items():
        if table not in tables:
            raise _unknown(table, tables, "a table", str(file))
        if not isinstance(content, dict):
            raise ConfigError(f"Expected a table, got {content!r} - at `{file}: {table}`; write `[{table}]`")
        names = {one.name: one for one in known if one.table == table}
        for name, raw in content.items():
            where = f"{file}: [{table}] {name}"
            if name not in names:
                raise _unknown(name, list(names), f"a setting of [{table}]", where)
            yield names[name], raw, where


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"Expected a readable file, got {error.strerror} - at `{file}`; check --settings"
        ) from error
    except ValueError as error:  # both what is no TOML and what is no UTF-8
        raise ConfigError(f"Expected TOML in UTF-8, got: {error} - at `{file}`; mend the file") from error


def _from_environ(environ: Mapping[str, str], known: tuple[Setting, ...]) -> Iterator[tuple[Setting, str]]:
    names = {one.env: one for one in known}
    for variable, raw in environ.items():
        if variable in names:
            yield names[variable], raw
        elif variable.startswith("STREAMER_"):
            raise _unknown(variable, list(names), "a variable that names a setting", "environment")


def _unknown(name: str, known: list[str], what: str, where: str) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
    return ConfigError(f"Expected {what}, got `{name}` - at `{where}`; {remedy}")


def _value(one: Setting, raw: object, where: str, *, strict: bool) -> object:
    try:
        return _read(one, raw, strict=strict)
    except (ConfigError, ValueError) as error:
        got = "something else" if one.kind is Secret else repr(raw)[:80]
        raise ConfigError(
            f"Expected {one.expected}, got {got} - at `{where}`; "
            f"the default is `{one.name} = {one.default}` ({one.note.doc})"
        ) from error


def _read(one: Setting, raw: object, *, strict: bool) -> object:
    if one.kind is Secret:
        return Secret(msgspec.convert(raw, str))
    if one.kind is Duration:
        return units.parse_duration(msgspec.convert(raw, str))
    if one.kind is Size and isinstance(raw, str) and not raw.isdecimal():
        return units.parse_size(raw)
    if one.kind is Port and raw == "none":
        return -1
    if one.kind not in {int, Size, Port}:
        return msgspec.convert(raw, one.kind)
    low, high = {int: (one.note.low, 2**53), Size: (1, 2**50), Port: (-1, 65_535)}[one.kind]
    number = msgspec.convert(raw, int, strict=strict)
    if not low <= number <= high:
        raise ValueError(number)
    return number


def _agree(settings: Settings) -> None:
    topics = msgspec.structs.asdict(settings.topics.resolved)
    del topics["prefix"]
    for name, topic in topics.items():
        if not _TOPIC.fullmatch(topic):
            raise ConfigError(
                f"Expected 1 to 249 letters, digits, `.`, `_` or `-`, got {topic!r} - at `[topics] {name}`; "
                f"mend the name or `prefix`"
            )
    if len(set(topics.values())) < len(topics):
        raise ConfigError(f"Expected topics of different names, got {topics} - at `[topics]`; rename one")
    kafka = settings.kafka
    if kafka.security_protocol.startswith("SASL") and not (kafka.sasl_username and kafka.sasl_password):
        raise ConfigError(
            f"Expected a user name and a password with {kafka.security_protocol}, got none - at `[kafka]`; "
            "set `sasl_username` and STREAMER_KAFKA_SASL_PASSWORD"
        )
    if "hash" in settings.pan_policy.by_field().values() and not settings.events.pan_key:
        raise ConfigError(
            "Expected a key for the policy `hash`, got none - at `[pan_policy]`; set "
            "STREAMER_EVENTS_PAN_KEY, for instance to the output of `openssl rand -hex 32`"
        )
    for where, secret in (
        ("[events] pan_key", settings.events.pan_key),
        ("[models] snapshot_key", settings.models.snapshot_key),
    ):
        if secret and len(secret.encode()) < 16:
            raise ConfigError(
                f"Expected at least 16 bytes, got {len(secret.encode())} - at `{where}`; "
                "take the output of `openssl rand -hex 32`"
            )
