"""What a crash left in the outputs is recognised by its source and not sent again."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from streamer.batch import Outgoing, Records
from streamer.published import Published


def output(topic: str, *sources: str | None, first: int = 0) -> Records:
    """Records of an output that answer these sources; `None` has no such header."""
    headers = [[] if source is None else [("streamer_source", source.encode())] for source in sources]
    count = len(sources)
    offsets = list(range(first, first + count))
    return Records(topic, 0, offsets, [0] * count, [None] * count, [b"v"] * count, [*headers], 0)


def answers(topic: str, *sources: str) -> Outgoing:
    """Answers to these sources, on their way."""
    outgoing = Outgoing(topic)
    for source in sources:
        outgoing.append(source.encode(), b"v", [("content-type", b"x"), ("streamer_source", source.encode())])
    return outgoing


class Outputs:
    """Topics that can be read back, and from where they were."""

    def __init__(self, **topics: Records) -> None:
        self.topics = topics
        self.asked: dict[str, Mapping[int, int]] = {}

    async def tail(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Records]:
        """What there is of a topic."""
        self.asked[topic] = starts
        yield self.topics[topic]


def test_what_was_sent_is_not_sent_again_and_only_once_recognised() -> None:
    """Others pass in their order; a second answer of the same source is no repeat of the first run."""
    published = Published()
    published.note(output("decisions", "payments/0/7", "payments/0/9"), {("payments", 0): 7})
    unsent = published.unsent(answers("decisions", "payments/0/7", "payments/0/8", "payments/0/9"))
    assert unsent.keys == [b"payments/0/8"]
    assert len(published) == 0
    again = answers("decisions", "payments/0/7")
    assert published.unsent(again) is again


def test_each_topic_has_its_own_answers() -> None:
    """Of one payment, the decision may be there and its features not."""
    published = Published()
    published.note(output("decisions", "payments/0/7"), {})
    assert published.unsent(answers("features", "payments/0/7")).keys == [b"payments/0/7"]
    assert published.unsent(answers("decisions", "payments/0/7")).keys == []


def test_answers_below_the_commit_and_foreign_records_are_not_waited_for() -> None:
    """What the store has passed is never given again; other writers' records may hold anything."""
    published = Published()
    sources = ("payments/0/6", None, "garbage", "payments/x/3", "payments/0/-4", "other/0/9", "payments/1/5")
    published.note(output("decisions", *sources), {("payments", 0): 7, ("payments", 1): 5, ("other", 0): 10})
    assert len(published) == 1
    assert published.is_ahead("payments", {("payments", 0): 7, ("payments", 1): 5})
    assert not published.is_ahead("payments", {("payments", 0): 7, ("payments", 1): 6})


def test_nothing_else_is_taken_in_until_all_is_answered_again() -> None:
    """Of each partition the last one counts; answers to outcomes hold nothing up."""
    published = Published()
    published.note(output("decisions", "payments/0/9", "payments/1/4"), {})
    published.note(output("payments.rejected", "payments/0/12", first=5), {})
    published.note(output("outcomes.rejected", "outcomes/0/99"), {})
    assert published.is_ahead("payments", {("payments", 0): 12, ("payments", 1): 4})
    assert published.is_ahead("payments", {("payments", 0): 13, ("payments", 1): 4})
    assert not published.is_ahead("payments", {("payments", 0): 13, ("payments", 1): 5})


def test_the_tails_are_read_from_where_the_last_commit_saw_them() -> None:
    """Per topic and partition."""
    outputs = Outputs(decisions=output("decisions", "payments/0/7", first=3), features=output("features"))
    ends = {("decisions", 0): 3, ("decisions", 1): 8, ("features", 0): 2}
    published = asyncio.run(Published.recall(outputs, ["decisions", "features"], ends, {}))
    assert outputs.asked == {"decisions": {0: 3, 1: 8}, "features": {0: 2}}
    assert len(published) == 1
