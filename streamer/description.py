"""A topology as plain data: what `streamer check` shows."""

from collections.abc import Mapping

from streamer.features.aggregates import Feature
from streamer.features.declarations import Entity
from streamer.features.footprint import footprint_of
from streamer.features.meaning import formula, meaning_of
from streamer.topology import Topology
from streamer.units import format_duration


def describe(topology: Topology, allowed_lateness: int) -> dict[str, object]:
    """Everything a topology declares, and what it takes where payments may be late by so many ms.

    Sizes are in bytes; `retention` is how long an event is kept behind the newest of its key.
    """
    return {
        "topology": topology.name,
        "fingerprint": topology.fingerprint,
        "entities": {
            entity.name: {
                "keys": list(entity.keys),
                "features": [feature.name for feature in entity.features],
            }
            | _taken(entity, allowed_lateness)
            for entity in topology.all_entities
        },
        "features": [
            *(
                _feature(feature, entity.name)
                for entity in topology.all_entities
                for feature in entity.features
            ),
            *(
                {"name": one.name, "entity": None, "meaning": formula(one.expression), "dtype": "float64"}
                for one in topology.derived
            ),
        ],
        "derived": [derived.name for derived in topology.derived],
        "models": {
            model.name: {"inputs": len(model.features), "good_after": model.good_after}
            for model in topology.models
        },
        "policy": {
            "name": topology.policy.label,
            "rules": [{"action": rule.action, "reason": rule.reason} for rule in topology.policy.rules],
        },
    }


def _taken(entity: Entity, allowed_lateness: int) -> dict[str, object]:
    taken = footprint_of(entity, allowed_lateness)
    return {
        "key_bytes": taken.key_bytes,
        "event_bytes": taken.event_bytes,
        "chunk_events": taken.chunk_events,
        "kept": [column.name for column in taken.kept],
        "retention": format_duration(taken.retention),
    }


def _feature(feature: Feature, entity: str) -> Mapping[str, object]:
    return {
        "name": feature.name,
        "entity": entity,
        "meaning": meaning_of(feature),
        "dtype": "float64",
        "window": format_duration(feature.window),
    }
