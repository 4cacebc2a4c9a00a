"""What one worker is made of, put together once and handed to those who move it."""

from dataclasses import dataclass, field

from streamer.chain.shard import Shard
from streamer.changelog import Changelog
from streamer.engine import Engine
from streamer.learning.learning import Learning
from streamer.metrics import Metrics
from streamer.published import Published
from streamer.settings import Settings
from streamer.state.store import Store
from streamer.transport.seam import Publisher, Transactions


@dataclass(frozen=True, slots=True)
class Parts:
    """One engine, its learners, the store of both, the way out, and what they are set to and measured by."""

    engine: Engine | Shard
    learning: Learning
    store: Store
    publisher: Publisher
    metrics: Metrics
    settings: Settings
    published: Published = field(default_factory=Published)
    """What a run before this one has sent already."""
    changelog: Changelog | None = None
    """Where commits go before they are stored."""
    transactions: Transactions | None = None
    """What the changelog is written through."""
    unguarded: bool = False
    """Whether another worker could go on with the partitions and nothing would tell."""
    group: str = ""
    """The consumer group whose offsets are committed with the outputs, where these go in transactions too."""
    shards: int = 1
    """Those of the job, this one among them."""

    @property
    def in_transactions(self) -> bool:
        """Whether outputs become visible with the commit that they belong to."""
        return bool(self.group)

    async def close(self) -> None:
        """Let go of the state."""
        try:
            self.store.close()
        finally:
            if self.transactions is not None:
                await self.transactions.stop()
