"""A clock that stands still until it is told to go on."""


class Clock:
    """Seconds, as `time.monotonic` counts them; for everything that takes a `clock`.

    >>> clock = Clock(100.0)
    >>> clock.advance(0.5)
    >>> clock()
    100.5
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The present, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass; a negative time sets it back, as no monotonic clock would."""
        self.now += seconds
