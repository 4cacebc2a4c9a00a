"""Shards are dealt evenly, stay where they are, and go where their state is."""

import itertools
from collections.abc import Mapping

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streamer.transport.assignor import Claim, ShardAssignor, Share, share_out

shard_numbers = st.integers(0, 12)
claims = st.builds(
    Claim,
    st.dictionaries(shard_numbers, st.integers(1, 9)),
    st.dictionaries(shard_numbers, st.integers(0, 9)),
)
groups = st.dictionaries(st.sampled_from("abcdefg"), claims, min_size=1)


@given(st.integers(1, 12), groups, st.integers(0, 3))
def test_every_shard_has_one_owner_and_its_standbys(
    shards: int, members: Mapping[str, Claim], standbys: int
) -> None:
    """Nobody has more than one shard more than another, and nobody stands by for itself."""
    shares = share_out(shards, members, standbys)
    assert shares.keys() == members.keys()
    assert sorted(itertools.chain(*(share.active for share in shares.values()))) == list(range(shards))
    counts = [len(share.active) for share in shares.values()]
    assert max(counts) - min(counts) <= 1
    for shard in range(shards):
        copies = [name for name, share in shares.items() if shard in share.standby]
        assert len(copies) == min(standbys, len(members) - 1)
        assert all(shard not in shares[name].active for name in copies)


def after(shares: Mapping[str, Share], moment: int) -> dict[str, Claim]:
    """What members claim who were given these shares at a moment."""
    return {
        name: Claim(dict.fromkeys(share.active, moment), dict.fromkeys(share.standby, moment))
        for name, share in shares.items()
    }


@given(st.integers(1, 24), st.sets(st.sampled_from("abcdefg"), min_size=1), st.sampled_from("abcdefgh"))
def test_no_more_moves_than_a_newcomer_or_a_leaver_makes_necessary(
    shards: int, names: set[str], other: str
) -> None:
    """Without a change nothing moves; one who comes takes its part; of one who goes, its part is dealt."""
    before = share_out(shards, dict.fromkeys(names, Claim()))
    assert share_out(shards, after(before, 1)) == before
    owner = {shard: name for name, share in before.items() for shard in share.active}
    members = after(before, 1)
    gone = members.pop(other, None)
    if gone is None:
        members[other] = Claim()
    if not members:
        return
    now = {shard: name for name, share in share_out(shards, members).items() for shard in share.active}
    moved = sum(owner[shard] != now[shard] for shard in range(shards))
    if gone is None:
        assert moved == sum(name == other for name in now.values())
    else:
        assert moved == len(gone.owned)


ROUNDS = 4
"""A rebalance, one when the copies are there, and two if they are no longer the right ones by then."""

copying = st.builds(
    Claim,
    st.dictionaries(shard_numbers, st.integers(1, 9)),
    st.dictionaries(shard_numbers, st.integers(0, 9)),
    copies=st.just(value=True),
    ready=st.lists(shard_numbers, unique=True),
)


@given(st.integers(1, 12), st.dictionaries(st.sampled_from("abcdefg"), copying, min_size=1))
def test_a_shard_stays_until_there_is_a_copy_where_it_goes(shards: int, members: Mapping[str, Claim]) -> None:
    """None moves from a member that is there to one without a copy; with all copies they are dealt evenly."""
    latest: dict[int, tuple[int, str]] = {}
    for name, claim in sorted(members.items()):
        for shard, granted in claim.owned.items():
            latest[shard] = max(latest.get(shard, (0, "")), (granted, name))
    shares = share_out(shards, members)
    for name, share in shares.items():
        for shard in share.active:
            assert shard not in latest or latest[shard][1] == name or shard in members[name].ready
        assert set(share.coming) <= set(share.standby)
        assert not set(share.coming) & set(share.active)
    for moment in range(1, ROUNDS):
        if not any(share.coming for share in shares.values()):
            break
        shares = share_out(
            shards,
            {
                name: msgspec.structs.replace(claim, copies=True, ready=shares[name].standby)
                for name, claim in after(shares, moment).items()
            },
        )
    assert not any(share.coming for share in shares.values())
    assert sorted(itertools.chain(*(share.active for share in shares.values()))) == list(range(shards))
    counts = [len(share.active) for share in shares.values()]
    assert max(counts) - min(counts) <= 1


def test_a_lost_shard_goes_to_the_warmest_copy() -> None:
    """The one that has come farthest, if it has room."""
    members = {"a": Claim({0: 1}), "b": Claim({1: 1}, {2: 70}), "c": Claim({}, {2: 900, 3: 5}), "d": Claim()}
    shares = share_out(4, members)
    assert {name: share.active for name, share in shares.items()} == {"a": [0], "b": [1], "c": [2], "d": [3]}


def test_the_latest_grant_is_the_owner() -> None:
    """One that slept through its replacement does not get back what it remembers."""
    shares = share_out(2, {"new": Claim({0: 8}), "slept": Claim({0: 3, 1: 3})})
    assert {name: share.active for name, share in shares.items()} == {"new": [0], "slept": [1]}


class Cluster:
    """Topics of two partitions each."""

    def partitions_for_topic(self, _topic: str) -> set[int]:
        """Both."""
        return {0, 1}


def rebalance(members: dict[str, ShardAssignor]) -> dict[str, list[tuple[str, list[int]]]]:
    """Share out under the first as leader, everything sent as bytes; answers partitions by member."""
    leader = next(iter(members.values()))
    metadata = {name: member.metadata(["payments", "outcomes"]) for name, member in members.items()}
    decoded = {name: type(item).decode(item.encode()) for name, item in metadata.items()}
    given_to = {}
    for name, share in leader.assign(Cluster(), decoded).items():
        members[name].on_assignment(type(share).decode(share.encode()))
        given_to[name] = list(share.assignment)
    return given_to


def test_a_leader_learns_from_the_members_who_owns_what() -> None:
    """The sole shard stays with its owner until that leaves, and has every partition of every topic."""
    seconds = itertools.count()
    a, b, c = (ShardAssignor(1, clock=lambda: next(seconds)) for _ in "abc")
    whole = [("outcomes", [0, 1]), ("payments", [0, 1])]
    assert rebalance({"b": b}) == {"b": whole}
    assert rebalance({"a": a, "b": b, "c": c}) == {"a": [], "b": whole, "c": []}
    assert rebalance({"a": a, "c": c}) == {"a": whole, "c": []}
    assert rebalance({"c": c, "a": a, "b": b}) == {"a": whole, "b": [], "c": []}


def test_a_member_says_of_which_shards_it_has_a_copy() -> None:
    """Two shards: the second is told to come, and does once its copy is there."""
    ready: set[int] = set()
    a, b = ShardAssignor(2, ready=set), ShardAssignor(2, ready=lambda: ready)
    both, second = ([(topic, part) for topic in ("outcomes", "payments")] for part in ([0, 1], [1]))
    assert rebalance({"a": a}) == {"a": both}
    assert rebalance({"a": a, "b": b}) == {"a": both, "b": []}
    assert (b.share.standby, b.share.coming) == ([1], [1])
    ready.add(1)
    assert rebalance({"a": a, "b": b})["b"] == second
    assert (b.share.standby, b.share.coming) == ([], [])


def test_equal_partitions_of_all_topics_stay_together() -> None:
    """With a shard per partition each worker has the same numbers of every topic, and knows its standbys."""
    a, b = (ShardAssignor(2, standbys=1) for _ in "ab")
    assert rebalance({"a": a, "b": b}) == {
        "a": [("outcomes", [0]), ("payments", [0])],
        "b": [("outcomes", [1]), ("payments", [1])],
    }
    assert (a.share.standby, b.share.standby) == ([1], [0])


def test_a_member_of_another_version_has_no_claim() -> None:
    """Its bytes are not understood, and it is given its part all the same."""
    assignor = ShardAssignor(2)
    old = assignor.metadata(["payments"])
    foreign = type(old)(0, ["payments"], b"\xff\xff\xff")
    shares = assignor.assign(Cluster(), {"a": foreign, "b": old})
    assert {name: list(share.assignment) for name, share in shares.items()} == {
        "a": [("payments", [0])],
        "b": [("payments", [1])],
    }
