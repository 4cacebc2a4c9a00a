"""What a crash left in the outputs is recognised by its source and not sent again."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from streamer.batch import Outgoing, Records
from streamer.published import Published
from streamer.state.store import Position, Progress, nested


def output(topic: str, *sources: str | None, first: int = 0) -> Records:
    """Records of an output that answer these sources, keyed by them; `None` has no such header."""
    headers = [[] if source is None else [("streamer_source", source.encode())] for source in sources]
    keys = [None if source is None else source.encode() for source in sources]
    count = len(sources)
    offsets = list(range(first, first + count))
    return Records(topic, 0, offsets, [0] * count, [*keys], [b"v"] * count, [*headers], 0)


def answers(topic: str, *sources: str) -> Outgoing:
    """Answers to these sources, on their way."""
    outgoing = Outgoing(topic)
    for source in sources:
        outgoing.append(source.encode(), b"v", [("content-type", b"x"), ("streamer_source", source.encode())])
    return outgoing


class Outputs:
    """Topics that can be read back, and from where they were."""

    def __init__(self, *outputs: Records) -> None:
        self.topics = {records.topic: records for records in outputs}
        self.asked: dict[str, Mapping[int, int]] = {}

    async def tail(self, topic: str, starts: Mapping[int, int]) -> AsyncIterator[Records]:
        """What there is of a topic."""
        self.asked[topic] = starts
        yield self.topics[topic]


def recalled(
    *outputs: Records,
    reached: Mapping[Position, int] | None = None,
    ends: Mapping[Position, int] | None = None,
    **options: Any,
) -> Published:
    """What these topics tell, the decisions first."""
    topics = [records.topic for records in outputs]
    progress = Progress(positions=nested(reached or {}))
    inputs = ends or {("payments", 0): 99}
    return asyncio.run(Published.recall(Outputs(*outputs), topics, progress, inputs, **options))


def test_what_was_sent_is_not_sent_again_and_only_once_recognised() -> None:
    """Others pass in their order; a second answer of the same source is no repeat of the first run."""
    published = recalled(output("decisions", "payments/0/7", "payments/0/9"), reached={("payments", 0): 7})
    unsent = published.unsent(answers("decisions", "payments/0/7", "payments/0/8", "payments/0/9"))
    assert unsent.keys == [b"payments/0/8"]
    assert len(published) == 0
    again = answers("decisions", "payments/0/7")
    assert published.unsent(again) is again


def test_each_topic_has_its_own_answers() -> None:
    """Of one payment, the decision may be there and its features not."""
    published = recalled(output("decisions", "payments/0/7"), output("features"))
    assert published.unsent(answers("features", "payments/0/7")).keys == [b"payments/0/7"]
    assert published.unsent(answers("decisions", "payments/0/7")).keys == []


def test_answers_below_the_commit_and_foreign_records_are_not_waited_for() -> None:
    """What the store has passed is never given again; other writers' records may hold anything."""
    sources = ("payments/0/6", None, "garbage", "payments/x/3", "payments/0/-4", "other/0/9", "payments/1/5")
    published = recalled(
        output("decisions", *sources), reached={("payments", 0): 7, ("payments", 1): 5, ("other", 0): 10}
    )
    assert len(published) == 1
    assert published.unsent(answers("decisions", "payments/1/5")).keys == []
    assert not published.is_ahead({})


def test_nothing_else_is_taken_in_until_every_decision_is_made_again() -> None:
    """Rejections, of payments and of outcomes, depend on no model and hold nothing up."""
    published = recalled(
        output("decisions", "payments/0/9", "payments/1/4"),
        output("payments.rejected", "payments/0/12"),
        output("outcomes.rejected", "outcomes/0/99"),
    )
    assert published.is_ahead({("payments", 0): 9})
    published.unsent(answers("decisions", "payments/1/4"))
    assert published.is_ahead({("payments", 0): 9})
    published.unsent(answers("decisions", "payments/0/9"))
    assert not published.is_ahead({("payments", 0): 9})


def test_a_decision_that_is_not_made_again_holds_nothing_up_for_ever() -> None:
    """After a change of settings a payment may be refused that was decided: the end of the input tells."""
    published = recalled(output("decisions", "payments/0/9"), ends={("payments", 0): 12, ("payments", 1): 3})
    assert published.is_ahead({("payments", 0): 12, ("payments", 1): 2})
    assert not published.is_ahead({("payments", 0): 12, ("payments", 1): 3})


def test_others_decisions_hold_nothing_up() -> None:
    """Several shards write to one topic: each waits for its own."""
    published = recalled(
        output("decisions", "payments/0/8", "payments/0/9"), is_mine=lambda key: key == b"payments/0/9"
    )
    published.unsent(answers("decisions", "payments/0/9"))
    assert not published.is_ahead({})


def test_the_tails_are_read_from_where_the_last_commit_saw_them() -> None:
    """Per topic and partition."""
    outputs = Outputs(output("decisions", "payments/0/7", first=3), output("features"))
    progress = Progress(outputs={"decisions": {0: 3, 1: 8}, "features": {0: 2}})
    published = asyncio.run(Published.recall(outputs, ["decisions", "features"], progress, {}))
    assert outputs.asked == {"decisions": {0: 3, 1: 8}, "features": {0: 2}}
    assert len(published) == 1
