"""The three pages, what else is asked of them, and a port that is taken."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from streamer.errors import ConfigError
from streamer.http import Pages, Readiness, StatusServer
from streamer.metrics import Metrics


def ready() -> Readiness:
    """Return a worker that decides."""
    return Readiness(ready=True, detail={"partitions": 3})


@contextmanager
def serving(pages: Pages) -> Iterator[StatusServer]:
    """Serve pages on a free port."""
    server = StatusServer("127.0.0.1", 0, pages)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(server: StatusServer, path: str, method: str = "GET") -> tuple[int, bytes, str]:
    """Return status, body and content type of a page."""
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=10)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(), response.headers["Content-Type"]


def test_the_three_pages() -> None:
    """Metrics are text, the others JSON; a query string changes nothing."""
    metrics = Metrics()
    metrics.payments(7)
    with serving(Pages(metrics.exposition, ready)) as server:
        status, body, kind = ask(server, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"streamer_payments_total 7.0" in body
        assert ask(server, "/healthz?verbose=1") == (200, b'{"alive": true}', "application/json")
        status, body, _ = ask(server, "/readyz")
        assert (status, json.loads(body)) == (200, {"ready": True, "partitions": 3})
        assert server.url == f"http://127.0.0.1:{server.port}"


def test_not_ready_is_503_with_the_reason() -> None:
    """A load balancer looks at the status, a person at the body."""
    pages = Pages(lambda: b"", lambda: Readiness(ready=False, detail={"waiting_for": "partitions"}))
    with serving(pages) as server:
        status, body, _ = ask(server, "/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False, "waiting_for": "partitions"})
        assert ask(server, "/healthz")[0] == 200


@pytest.mark.parametrize(("path", "expected"), [("/", 404), ("/../etc/passwd", 404), ("/healthz/", 404)])
def test_other_pages_are_not_there(path: str, expected: int) -> None:
    """Only three paths exist."""
    with serving(Pages(lambda: b"", ready)) as server:
        assert ask(server, path)[0] == expected


def test_head_has_no_body_and_other_methods_are_refused() -> None:
    """Reading is all that can be done."""
    with serving(Pages(lambda: b"1234", ready)) as server:
        assert ask(server, "/metrics", "HEAD")[:2] == (200, b"")
        assert [ask(server, "/metrics", method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3


def test_a_page_that_fails_is_500_and_the_server_lives(caplog: pytest.LogCaptureFixture) -> None:
    """What breaks while a page is made is logged, named in the answer and forgotten."""

    def broken() -> Readiness:
        raise RuntimeError("state is closed")

    with serving(Pages(lambda: b"", broken)) as server:
        assert ask(server, "/readyz")[:2] == (500, b'{"error": "RuntimeError"}')
        assert ask(server, "/healthz")[0] == 200
    assert "/readyz could not be answered" in caplog.text


def test_requests_that_never_end_hold_nobody_up() -> None:
    """Silent connections, rubbish and a client that leaves do not stop the next request."""
    with serving(Pages(lambda: b"", ready)) as server:
        address = (server.host, server.port)
        silent = [socket.create_connection(address) for _ in range(4)]
        with socket.create_connection(address) as rubbish:
            rubbish.sendall(b"\x00\xff\r\n\r\n")
        assert ask(server, "/healthz")[0] == 200
        for connection in silent:
            connection.close()


def test_a_port_in_use_is_told_with_the_remedy() -> None:
    """The second worker on a machine learns what to set."""
    with serving(Pages(lambda: b"", ready)) as server:
        with pytest.raises(ConfigError) as refused:
            StatusServer("127.0.0.1", server.port, Pages(lambda: b"", ready))
        assert f"127.0.0.1:{server.port}" in str(refused.value)
        assert "STREAMER_WEB_PORT" in str(refused.value)


def test_a_wrong_host_is_told_too() -> None:
    """An address that is not this machine's is a setting to mend."""
    with pytest.raises(ConfigError, match="Expected a free address"):
        StatusServer("192.0.2.1", 0, Pages(lambda: b"", ready))


def test_stopping_frees_the_port() -> None:
    """A stopped server's port can be taken at once; stopping twice or before the start is harmless."""
    idle = StatusServer("127.0.0.1", 0, Pages(lambda: b"", ready))
    idle.stop()
    with serving(Pages(lambda: b"", ready)) as server:
        port = server.port
    server.stop()
    again = StatusServer("127.0.0.1", port, Pages(lambda: b"", ready))
    again.stop()
