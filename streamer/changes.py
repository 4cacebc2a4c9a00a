"""What changed declarations mean for a state directory that was written under others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

import msgspec

from streamer.errors import StateError
from streamer.features.aggregate import LIFETIME, Feature
from streamer.features.declarations import Entity, FeatureRef
from streamer.features.fields import Column
from streamer.features.footprint import footprint_of
from streamer.features.meaning import formula, meaning_of
from streamer.features.needs import kept_for
from streamer.topology import Topology
from streamer.units import format_duration

Kind = Literal["new", "changed", "removed", "filling"]


class Kept(msgspec.Struct, frozen=True):
    """What there is of an entity: times in ms, of events; 0 is "from the first payment on".

    Every event after `since` is there for `retention` behind the newest of its key, and every event after
    `columns[c]` has field `c`. `features` gives the meaning of each.
    """

    keys: tuple[str, ...]
    retention: int
    since: int
    columns: dict[str, int]
    features: dict[str, str]


class Declared(msgspec.Struct, frozen=True):
    """What a state directory was written under; stored in it. `models` gives each one's inputs."""

    entities: dict[str, Kept] = {}
    derived: dict[str, str] = {}
    models: dict[str, tuple[str, ...]] = {}

    def encode(self) -> bytes:
        """To be stored."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The inverse of `encode`."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise StateError(
                f"what the state directory was written under is unreadable ({error});"
                " restore it from a copy, or move it away: a new one is rebuilt by replay"
            ) from error


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was, and what that means.

    `ready_from` is the event time in ms from which payments are answered as if it had always been declared;
    None: at once, or there is nothing to wait for. What is `filling` has not changed, but waits still.
    """

    subject: str
    kind: Kind
    effect: str
    ready_from: int | None = None

    def __str__(self) -> str:
        return f"{self.subject}: {self.effect}"


def declare(topology: Topology, allowed_lateness: int, before: Declared | None, clock: int) -> Declared:
    """What a directory holds once the topology takes over at `clock` (greatest event time so far, ms).

    `before` is what it was written under so far; None: nothing was written.
    """
    earlier = {} if before is None else before.entities
    begin = 0 if before is None else clock
    return Declared(
        {
            entity.name: _kept(entity, allowed_lateness, earlier.get(entity.name), begin)
            for entity in topology.all_entities
        },
        {one.name: formula(one.expression) for one in topology.derived},
        {model.name: model.features for model in topology.models},
    )


def compare(topology: Topology, allowed_lateness: int, before: Declared, clock: int) -> list[Change]:
    """Everything that changes where the topology takes over at `clock` (greatest event time so far, ms)."""
    now = declare(topology, allowed_lateness, before, clock)
    return [
        *_of_entities(topology, before, now, _Moment(clock, allowed_lateness)),
        *_of_derived(topology, before, now, _Moment(clock, allowed_lateness)),
        *_of_models(topology, before),
    ]


@dataclass(frozen=True, slots=True)
class _Moment:
    """When declarations change, in event time (ms), and how late payments may be then."""

    clock: int
    allowed_lateness: int

    def waits(self, ready: int) -> bool:
        """Whether payments may still come that are older than that."""
        return ready > self.clock - self.allowed_lateness

    def until(self, ready: int) -> str:
        """From when on a feature is right."""
        left = ready - self.clock
        within = f" (in {_about(left)})" if left > 0 else ""
        return f"right for payments from {time_of(ready)} on{within}"


def _kept(entity: Entity, allowed_lateness: int, earlier: Kept | None, clock: int) -> Kept:
    taken = footprint_of(entity, allowed_lateness)
    if earlier is not None and earlier.keys != entity.keys:
        earlier = None
    since = clock if earlier is None else earlier.since
    if earlier is not None and taken.retention > earlier.retention:
        since = max(since, clock - earlier.retention)
    columns = {} if earlier is None else earlier.columns
    return Kept(
        entity.keys,
        taken.retention,
        since,
        {_label(column): columns.get(_label(column), clock) for column in taken.kept},
        {feature.name: meaning_of(feature) for feature in entity.features},
    )


def _of_entities(topology: Topology, before: Declared, now: Declared, moment: _Moment) -> Iterable[Change]:
    gone = {name: kept for name, kept in before.entities.items() if name not in now.entities}
    for entity in topology.all_entities:
        kept, earlier = now.entities[entity.name], before.entities.get(entity.name)
        subject = f"entity {entity.name}"
        if earlier is None:
            former = [name for name, other in gone.items() if other.keys == entity.keys]
            hint = (
                f"; if it is {former[0]} renamed, give it that name back to keep its events" if former else ""
            )
            yield Change(subject, "new", f"new, starts empty{hint}")
        elif earlier.keys != entity.keys:
            keys = ", ".join(earlier.keys)
            effect = f"its keys were {keys}: starts empty; what was stored by those stays on disk, unused"
            yield Change(subject, "changed", effect)
            earlier = None
        else:
            yield from _of_storage(entity, earlier, kept)
        yield from _of_features(entity, earlier, kept, moment)
    for name in gone:
        effect = "removed; its events stay on disk, unused: declared again it lacks the payments in between"
        yield Change(f"entity {name}", "removed", effect)


def _of_storage(entity: Entity, earlier: Kept, kept: Kept) -> Iterable[Change]:
    """What is kept for less time, or no longer."""
    for label in (label for label in earlier.columns if label not in kept.columns):
        effect = "no longer kept; what needs it again later starts without it"
        yield Change(f"field {label.partition('/')[0]} of entity {entity.name}", "removed", effect)
    if kept.retention < earlier.retention:
        effect = (
            f"events are kept for {format_duration(kept.retention)}, no longer for"
            f" {format_duration(earlier.retention)}; older ones are dropped"
        )
        yield Change(f"entity {entity.name}", "changed", effect)


def _of_features(entity: Entity, earlier: Kept | None, kept: Kept, moment: _Moment) -> Iterable[Change]:
    known: Mapping[str, str] = {} if earlier is None else earlier.features
    for feature in entity.features:
        subject = f"feature {feature.name}"
        meaning, former = kept.features[feature.name], known.get(feature.name)
        ready = _ready(feature, kept)
        state = _state_of(feature, entity, earlier, kept, moment)
        until = ready if moment.waits(ready) else None
        if former is None:
            yield Change(subject, "new", f"new, {state}", until)
        elif former != meaning:
            yield Change(subject, "changed", f"changed from {former!r} to {meaning!r}, {state}", until)
        elif until is not None:
            yield Change(subject, "filling", state, until)
    for name in known:
        if name not in kept.features:
            yield Change(f"feature {name}", "removed", "removed")


def _state_of(feature: Feature, entity: Entity, earlier: Kept | None, kept: Kept, moment: _Moment) -> str:
    """Whether a feature is right at once, and if not, why and until when."""
    ready = _ready(feature, kept)
    if not moment.waits(ready):
        return "right at once: all that it needs has been kept"
    if feature.kind in LIFETIME and earlier is not None:
        since = time_of(_since(feature, kept))
        return f"begins with the events that are kept; what else was before {since} is not known"
    late = [column for column in kept_for(feature) if kept.columns[_label(column)] > kept.since]
    if earlier is None:
        why = "starts empty"
    elif late:
        names = " and ".join(dict.fromkeys(column.name for column in late))
        since = time_of(_since(feature, kept))
        why = f"starts without {names}, which entity {entity.name} keeps from {since} on"
    elif kept.since > earlier.since:
        why = f"lacks what was dropped, since events were kept for {format_duration(earlier.retention)} only"
    else:
        why = f"lacks what was before {time_of(kept.since)}"
    return f"{why}; {moment.until(ready)}"


def _of_derived(topology: Topology, before: Declared, now: Declared, moment: _Moment) -> Iterable[Change]:
    ready_of = {
        feature.name: _ready(feature, now.entities[entity.name])
        for entity in topology.all_entities
        for feature in entity.features
    }
    for one in topology.derived:
        subject, former = f"derived feature {one.name}", before.derived.get(one.name)
        meaning = now.derived[one.name]
        used = [part.name for part in one.walk() if isinstance(part, FeatureRef)]
        ready = max((ready_of[name] for name in used), default=0)
        until = ready if moment.waits(ready) else None
        state = "right at once" if until is None else f"as its parts {moment.until(ready)}"
        if former is None:
            yield Change(subject, "new", f"new, {state}", until)
        elif former != meaning:
            yield Change(subject, "changed", f"changed from {former!r} to {meaning!r}, {state}", until)
    for name in before.derived:
        if name not in now.derived:
            yield Change(f"derived feature {name}", "removed", "removed")


def _of_models(topology: Topology, before: Declared) -> Iterable[Change]:
    for model in topology.models:
        former = before.models.get(model.name)
        if former is None:
            yield Change(f"model {model.name}", "new", "new, has learned nothing yet")
        elif former != model.features:
            effect = "its inputs changed: forgets what it has learned"
            yield Change(f"model {model.name}", "changed", effect)
    today = {model.name for model in topology.models}
    for name in before.models:
        if name not in today:
            yield Change(f"model {name}", "removed", "removed; no longer scores or learns")


def _since(feature: Feature, kept: Kept) -> int:
    """The event time from which everything that a feature needs is there; 0: from the first payment on."""
    return max([kept.since, *(kept.columns[_label(column)] for column in kept_for(feature))])


def _ready(feature: Feature, kept: Kept) -> int:
    """The event time from which a feature sees all of its window; 0: from the first payment on."""
    since = _since(feature, kept)
    return since + feature.window + feature.delay if since else 0


def _label(column: Column) -> str:
    """A column as it is stored: with other decimals it is another."""
    return f"{column.name}/{'text' if column.text else column.decimals}"


def time_of(ms: int) -> str:
    """An event time in ms as people write it, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _about(ms: int) -> str:
    """A duration rounded up to what a person wants to know."""
    for unit in (86_400_000, 3_600_000, 60_000, 1_000):
        if ms >= 2 * unit or unit == 1_000:
            return format_duration(-(-ms // unit) * unit)
    return format_duration(ms)
