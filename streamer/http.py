"""The worker's /metrics, /healthz and /readyz, served by threads that no payment waits for."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from streamer.errors import ConfigError
from streamer.metrics import CONTENT_TYPE

_TIMEOUT_S = 5.0
_POLL_S = 0.2
_MOST_REQUESTS = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether payments are being decided, and what to tell who asks."""

    ready: bool
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages are made from; both are called in the server's threads, at any time."""

    metrics: Callable[[], bytes]
    readiness: Callable[[], Readiness]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    content_type: str
    body: bytes


class StatusServer:
    """A server of the three pages; port 0 takes any free one, `port` tells which."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Listen at once, so that a port in use is known before anything else starts; raises ConfigError."""
        try:
            self._server = _server_type(host)((host, port), pages)
        except OSError as error:
            raise ConfigError(
                f"Expected a free address, got {host}:{port}: {error.strerror} - at `[web] host, port`; "
                f"see `ss -ltnp 'sport = :{port}'`, or set STREAMER_WEB_PORT to another, 0 (any) or -1 (off)"
            ) from error
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="streamer-web", daemon=True
        )

    @property
    def url(self) -> str:
        """Where the pages are."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port; may be called without `start`, and twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    """A thread per request, at most eight of them, none of which holds up the end of the process."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        self.pages = pages
        self._slots = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away or dawdled is no event."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_S
    server_version = "streamer"
    sys_version = ""

    def do_GET(self) -> None:
        answer = self._answer()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(answer.body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name for it
        """Say nothing: probes come every few seconds."""

    def _answer(self) -> _Answer:
        path = self.path.partition("?")[0]
        try:
            if path == "/healthz":
                return _json(HTTPStatus.OK, {"alive": True})
            if path == "/readyz":
                state = self.server.pages.readiness()
                status = HTTPStatus.OK if state.ready else HTTPStatus.SERVICE_UNAVAILABLE
                return _json(status, {**state.detail, "ready": state.ready})
            if path == "/metrics":
                return _Answer(HTTPStatus.OK, CONTENT_TYPE, self.server.pages.metrics())
        except Exception as error:
            log.exception("%s could not be answered", path)
            return _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": type(error).__name__})
        return _json(HTTPStatus.NOT_FOUND, {"pages": ["/metrics", "/healthz", "/readyz"]})


def _json(status: HTTPStatus, content: Mapping[str, object]) -> _Answer:
    return _Answer(status, "application/json", json.dumps(content, default=str).encode())


def _server_type(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server
