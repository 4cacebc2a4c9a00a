"""Which worker of the group gets which shard: the partitions of all topics that share one state."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment as MemberAssignment
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata as MemberMetadata


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """What a member tells of itself when the group is shared out."""

    owned: dict[int, int] = {}
    """Shard to when it was given to this member, in milliseconds since 1970."""
    warm: dict[int, int] = {}
    """Shard to how far this member's copy of its state has come; only to be compared."""
    copies: bool = False
    """Whether it makes a copy of a shard's state before it takes the shard over from another member."""
    ready: list[int] = []
    """The shards of which it has a copy that misses next to nothing."""


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What a member is given. `granted` is when, in milliseconds since 1970."""

    active: list[int] = []
    standby: list[int] = []
    granted: int = 0
    coming: list[int] = []
    """Those of `standby` that are this member's as soon as it has a copy of them."""


@dataclass(slots=True)
class _Hand:
    """What a member has been dealt so far, of at most `room` shards."""

    claim: Claim
    room: int = 0
    active: list[int] = field(default_factory=list)
    standby: list[int] = field(default_factory=list)
    coming: list[int] = field(default_factory=list)

    @property
    def dealt(self) -> int:
        """How many it has, or will have."""
        return len(self.active) + len(self.coming)

    @property
    def copied(self) -> set[int]:
        """The shards of others that it has a copy of."""
        return set(self.claim.ready) - self.claim.owned.keys()

    def may_take(self, shard: int) -> bool:
        """Whether it need not make a copy first."""
        return not self.claim.copies or shard in self.claim.ready


def share_out(shards: int, claims: Mapping[str, Claim], standbys: int = 0) -> dict[str, Share]:
    """Deal `shards` to the members: evenly, and so that as little state as possible has to move.

    A shard stays with its owner, the member with the latest grant, while that has no more than its part; else
    it goes to the member whose copy of its state has come farthest and that has room. One that has still to
    make a copy is given the shard when it asks again and has it: its owner goes on with it meanwhile. Each
    shard gets `standbys` members beside its owner that keep a copy, as far as there are so many.

    >>> shares = share_out(3, {"old": Claim({0: 5, 1: 5, 2: 5}), "new": Claim()}, standbys=1)
    >>> {name: (share.active, share.standby) for name, share in shares.items()}
    {'new': ([2], [0, 1]), 'old': ([0, 1], [2])}
    >>> shares = share_out(3, {"old": Claim({0: 5, 1: 5, 2: 5}), "new": Claim(copies=True)})
    >>> {name: (share.active, share.coming) for name, share in shares.items()}
    {'new': ([], [2]), 'old': ([0, 1, 2], [])}
    """
    hands = {name: _Hand(claims[name]) for name in sorted(claims)}
    owners: dict[int, tuple[int, str]] = {}
    for name, hand in hands.items():
        for shard, granted in hand.claim.owned.items():
            if shard < shards:
                owners[shard] = max(owners.get(shard, (0, "")), (granted, name))
    held = {name: sum(owner == name for _, owner in owners.values()) for name in hands}
    copied = {name: held[name] + len(hand.copied) for name, hand in hands.items()}
    least = shards // len(hands)
    # Who holds more, then who has made most copies, gets what does not divide: so the fewest have to move.
    order = sorted(hands, key=lambda name: (-max(held[name], least), -copied[name], name))
    for rank, name in enumerate(order):
        hands[name].room = least + (rank < shards % len(hands))
    for shard, (_, name) in sorted(owners.items()):
        if len(hands[name].active) < hands[name].room:
            hands[name].active.append(shard)
    dealt = {shard for hand in hands.values() for shard in hand.active}
    for shard in sorted(set(range(shards)) - dealt):
        able = [hand for hand in hands.values() if hand.dealt < hand.room]
        best = max(able, key=lambda hand: (_warmth(hand, shard), -hand.dealt))
        owner = hands[owners[shard][1]] if shard in owners else None
        if owner is None or best.may_take(shard):
            best.active.append(shard)
        else:
            best.coming.append(shard)
            owner.active.append(shard)
    _let_copy(hands, shards, standbys)
    return {
        name: Share(sorted(hand.active), sorted({*hand.standby, *hand.coming}), coming=sorted(hand.coming))
        for name, hand in hands.items()
    }


def _let_copy(hands: Mapping[str, _Hand], shards: int, standbys: int) -> None:
    """Give each shard so many members beside its owner that keep a copy."""
    for shard in range(shards):
        others = [hand for hand in hands.values() if shard not in hand.active]
        others.sort(key=lambda hand: (len(hand.standby), -_warmth(hand, shard)))
        for hand in others[:standbys]:
            hand.standby.append(shard)


def _warmth(hand: _Hand, shard: int) -> int:
    return hand.claim.warm.get(shard, -1)


def partitions_in(
    active: Collection[int], shards: int, partitions: Mapping[str, Collection[int]]
) -> dict[str, list[int]]:
    """The partitions of each topic that belong to the active shards: partition n to shard n modulo `shards`.

    >>> partitions_in([1], 2, {"payments": [0, 1, 2, 3], "one": [0]})
    {'payments': [1, 3]}
    """
    owned = {
        topic: [number for number in sorted(numbers) if number % shards in active]
        for topic, numbers in sorted(partitions.items())
    }
    return {topic: numbers for topic, numbers in owned.items() if numbers}


class ShardAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """`share_out` as aiokafka wants it. Members tell the group's leader what they own: its only memory.

    `warm` is asked how far the copies of shards that this member keeps have come, and `ready` which of them
    miss next to nothing; `None`: it makes none.
    """

    name = "streamer"

    def __init__(
        self,
        shards: int,
        standbys: int = 0,
        warm: Callable[[], Mapping[int, int]] = dict,
        ready: Callable[[], Collection[int] | None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.share = Share()
        """What this member was given last."""
        self._shards = shards
        self._standbys = standbys
        self._warm = warm
        self._ready = ready
        self._clock = clock
        self._owned: dict[int, int] = {}

    def metadata(self, topics: Iterable[str]) -> MemberMetadata:
        """Say what this member subscribes to, what it owns and of what it keeps a copy."""
        ready = self._ready()
        claim = Claim(self._owned, dict(self._warm()), ready is not None, sorted(ready or ()))
        return MemberMetadata(0, sorted(topics), msgspec.msgpack.encode(claim))

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, MemberMetadata]
    ) -> dict[str, MemberAssignment]:
        """Share out as the group's leader."""
        claims = {name: _read(metadata.user_data) for name, metadata in members.items()}
        # A member that comes back after it was given up claims an older time than who has replaced it.
        latest = max((time for claim in claims.values() for time in claim.owned.values()), default=0)
        granted = max(int(self._clock() * 1000), latest + 1)
        assigned = {}
        for name, share in share_out(self._shards, claims, self._standbys).items():
            topics = {
                topic: cluster.partitions_for_topic(topic) or () for topic in members[name].subscription
            }
            owned = partitions_in(share.active, self._shards, topics)
            told = msgspec.msgpack.encode(msgspec.structs.replace(share, granted=granted))
            assigned[name] = MemberAssignment(0, sorted(owned.items()), told)
        return assigned

    def on_assignment(self, assignment: MemberAssignment) -> None:
        """Remember what this member was given, and since when it has owned each shard."""
        self.share = msgspec.msgpack.decode(assignment.user_data, type=Share)
        self._owned = dict.fromkeys(self.share.active, self.share.granted)


def _read(user_data: bytes | None) -> Claim:
    """The claim of a member; of one that runs another version, none."""
    try:
        return msgspec.msgpack.decode(user_data or b"", type=Claim)
    except msgspec.DecodeError:
        return Claim()
