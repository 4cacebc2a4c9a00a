"""What one worker is made of, put together once and handed to those who move it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from streamer.engine import Engine
from streamer.learning import Learning
from streamer.metrics import Metrics
from streamer.published import Published
from streamer.settings import Settings
from streamer.state.store import Store
from streamer.transport.seam import Publisher


@dataclass(frozen=True, slots=True)
class Parts:
    """One engine, its learners, the store of both, the way out, and what they are set to and measured by."""

    engine: Engine
    learning: Learning
    store: Store
    publisher: Publisher
    metrics: Metrics
    settings: Settings
    published: Published = field(default_factory=Published)
    """What a run before this one has sent already."""
    close: Callable[[], None] = lambda: None
    """Let go of the store."""
