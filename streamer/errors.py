"""The exceptions of the package: what went wrong, where, and the remedy."""


class StreamerError(Exception):
    """Something failed while running; the command ends with exit status 1."""


class Fenced(StreamerError):  # noqa: N818 - it names a state, as the log does
    """Another worker owns the shard now: this one may neither publish nor commit for it any more."""


class ConfigError(StreamerError):
    """Wrong usage, settings, topology or surroundings; exit status 2, one line, with the remedy."""


class TopologyError(ConfigError):
    """A topology file that cannot be run as it is written."""

    place: tuple[str, int] | None = None
    """File and line of the declaration that is wrong, where that is not the line that found it."""


class StateError(ConfigError):
    """A state directory that cannot be used: held by another process, foreign, or damaged."""
