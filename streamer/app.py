"""The Faust app of a worker: a group's member, with agents and without tables, storage or a web server."""

import logging
from typing import Any

import faust
from faust.tables import TableManager

HEARTBEATS = 12
"""In one session. With a heartbeat a member hears that others come and go, and until all have heard nobody
goes on."""


class _NoTables(TableManager):
    """Does not give the application a second to declare tables: there are none."""

    async def on_start(self) -> None:
        """Start what tells of the end of a rebalance."""
        await self._update_channels()
        await self.recovery.start()


class _App(faust.App):
    """A Faust app that keeps nothing of its own on disk."""

    logger = logging.getLogger("faust.app")

    def _create_directories(self) -> None:
        """No directories: state is the store's."""


def new_app(url: Any, group: str, member: str, session_timeout_s: float) -> Any:
    """Make an app that is the `member` of a group, known by that name over starts."""
    return _App(
        group,
        # Known by its state: started again after a kill it need not wait until the group gives itself up.
        consumer_group_instance_id=member,
        broker=url,
        store="memory://",
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=session_timeout_s / HEARTBEATS,
        stream_buffer_maxsize=1 << 20,
        stream_recovery_delay=0.0,
        worker_redirect_stdouts=False,
        TableManager=_NoTables,
    )
