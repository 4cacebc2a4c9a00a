"""Declarations know their line."""

import inspect

import pytest

from streamer import count
from streamer.errors import TopologyError
from streamer.sites import Site, declared_at, here


def line() -> int:
    """The line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_declaration_knows_who_made_it() -> None:
    """Through as many functions of the package as there are in between; `.before()` stays where it was."""
    aggregate, expected = count("1h"), Site(__file__, line())
    assert aggregate.site == expected
    assert aggregate.before().site == expected


def test_here_is_outside_the_package() -> None:
    """The first line that is not ours."""
    assert here() == Site(__file__, line())


def test_the_closest_site_counts() -> None:
    """What is inside knows better; an error without a site keeps none."""
    with pytest.raises(TopologyError) as refused, declared_at(Site("a", 1)), declared_at(Site("b", 2)):
        raise TopologyError("x")
    assert refused.value.place == ("b", 2)
    with pytest.raises(TopologyError) as refused, declared_at(None):
        raise TopologyError("x")
    assert refused.value.place is None
