"""The JSON Schema of each event, written to files and compared with them."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from streamer.events import Decision, Outcome, Payment, Rejection

EVENTS: Final[Mapping[str, type[msgspec.Struct]]] = MappingProxyType(
    {"payment": Payment, "outcome": Outcome, "decision": Decision, "rejection": Rejection}
)
"""File name without its extension to event."""

_OUTCOME_RULES: Final = [
    {
        "if": {"properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
        "then": {"properties": {"currency": {"type": "string"}}, "required": ["currency"]},
    },
    {
        "if": {"properties": {"kind": {"const": "enforced"}}, "required": ["kind"]},
        "then": {"properties": {"action": {"type": "string"}}, "required": ["action"]},
    },
]


def schema(name: str) -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of an event; unknown fields are allowed.

    >>> schema("payment")["required"]
    ['payment_id', 'event_time', 'amount', 'currency']
    """
    kind = EVENTS[name]
    (_,), parts = msgspec.json.schema_components([kind])
    main = parts.pop(kind.__name__)
    if kind is Outcome:
        main["allOf"] = _OUTCOME_RULES
    if parts:
        main["$defs"] = parts
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **main}


def write(directory: Path) -> list[Path]:
    """Write the schema of every event; answers the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name in EVENTS:
        file = directory / f"{name}.json"
        file.write_text(_text(name), encoding="utf-8")
        files.append(file)
    return files


def check(directory: Path) -> list[str]:
    """Tell what differs between the schemas in a directory and the events; nothing where they agree."""
    differences = []
    for name in EVENTS:
        file = directory / f"{name}.json"
        if not file.exists():
            differences.append(f"{file} is missing; run `streamer schemas`")
        elif file.read_text(encoding="utf-8", errors="replace") != _text(name):
            differences.append(f"{file} differs from the event {name!r}; run `streamer schemas`")
    known = {f"{name}.json" for name in EVENTS}
    strangers = [file for file in sorted(directory.glob("*.json")) if file.name not in known]
    return differences + [f"{file} belongs to no event; delete it" for file in strangers]


def _text(name: str) -> str:
    return json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n"
