"""Which worker of the group gets which partition."""

import struct
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment as MemberAssignment
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata as MemberMetadata

# What a member claims: when it was made owner of the sole topics (milliseconds since 1970); 0 is no claim.
_CLAIM = struct.Struct(">q")


def assign(
    partitions: Mapping[str, Collection[int]],
    subscriptions: Mapping[str, Collection[str]],
    claims: Mapping[str, int],
    sole_topics: Collection[str],
) -> tuple[dict[str, dict[str, list[int]]], str | None]:
    """Share out each topic's partitions among the members that subscribe to it, and name the sole owner.

    All partitions of all `sole_topics` go to one member, the one with the greatest claim of those there.
    Partition n of every other topic goes round the members by n, so that topics with equally many partitions
    are partitioned alike.

    >>> assign({"a": [0, 1], "one": [0, 1]}, {"m": ["a", "one"], "n": ["a", "one"]}, {"n": 3}, {"one"})
    ({'m': {'a': [0]}, 'n': {'a': [1], 'one': [0, 1]}}, 'n')
    """
    shares: dict[str, dict[str, list[int]]] = {member: {} for member in sorted(subscriptions)}
    sole = sorted(topic for topic in partitions if topic in sole_topics)
    able = [member for member in shares if any(topic in subscriptions[member] for topic in sole)]
    owner = max(able, key=lambda member: claims.get(member, 0), default=None)
    for topic in sorted(partitions):
        members = [member for member in shares if topic in subscriptions[member]]
        if topic in sole and owner in members:
            members = [owner]
        for partition in sorted(partitions[topic]) if members else ():
            shares[members[partition % len(members)]].setdefault(topic, []).append(partition)
    return shares, owner


class SoleAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """`assign` as aiokafka wants it. Members tell the group's leader what they own: its only memory."""

    name = "streamer"

    def __init__(self, sole_topics: Iterable[str], clock: Callable[[], float] = time.time) -> None:
        self.sole_topics = frozenset(sole_topics)
        self._clock = clock
        self._claim = 0

    def metadata(self, topics: Iterable[str]) -> MemberMetadata:
        """Say what this member subscribes to and whether it owns the sole topics."""
        return MemberMetadata(0, sorted(topics), _CLAIM.pack(self._claim))

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, MemberMetadata]
    ) -> dict[str, MemberAssignment]:
        """Share out as the group's leader."""
        subscriptions = {member: metadata.subscription for member, metadata in members.items()}
        topics = {topic for subscription in subscriptions.values() for topic in subscription}
        claims = {member: _CLAIM.unpack(metadata.user_data)[0] for member, metadata in members.items()}
        known = {topic: cluster.partitions_for_topic(topic) or () for topic in topics}
        shares, owner = assign(known, subscriptions, claims, self.sole_topics)
        # A member that comes back after it was given up claims an older time than who has replaced it.
        grant = max(int(self._clock() * 1000), max(claims.values()) + 1)
        return {
            member: MemberAssignment(0, sorted(share.items()), _CLAIM.pack(grant if member == owner else 0))
            for member, share in shares.items()
        }

    def on_assignment(self, assignment: MemberAssignment) -> None:
        """Remember for the next time whether this member owns the sole topics."""
        (self._claim,) = _CLAIM.unpack(assignment.user_data)
