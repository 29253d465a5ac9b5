"""A proxy between a client and an S3 server that breaks what passes, as a test asks for it.

It understands HTTP just enough to know where a request ends. Bytes pass unchanged, `Host` too, so
that signatures stay valid: a client is given `FaultyProxy.endpoint` in place of the server's.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import http.server
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from seaweed import Seaweed

_DELAY_S = 0.3
# Of one connection only; what a proxy must not pass on.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


class Fault(enum.Enum):
    """What happens to one request."""

    RESET = "the connection is reset before the server hears of the request"
    HALF_REQUEST = "the server gets half of the request, then both connections are reset"
    LOST_ANSWER = "the server does what it is asked; the connection is reset before it answers"
    HALF_ANSWER = "the connection ends in the middle of the answer's body"
    RESET_IN_ANSWER = "the connection is reset in the middle of the answer's body"
    FLIPPED_BIT = "one bit of the answer's body is another"
    FLIPPED_REQUEST_BIT = "one bit of the request's body is another"
    SERVER_ERROR = "500 InternalError; the server does not hear of the request"
    SLOW_DOWN = "503 SlowDown; the server does not hear of the request"
    LATE_ERROR = "500 InternalError, although the server has done what it was asked"
    DELAY = f"the answer comes {_DELAY_S} s late"


@dataclass(frozen=True)
class Request:
    """A request that came to the proxy. `fault` is what was done to it."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    fault: Fault | None = None


class FaultyProxy:
    """Passes requests on to `upstream` (`http://host:port`), with faults where asked for.

    Attributes:
        endpoint: to give to the client.
        requests: all that came so far, in their order.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._choose: Callable[[Request], Fault | None] = lambda request: None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def choose(self, fault_for: Callable[[Request], Fault | None]) -> None:
        """From now on ask `fault_for` about each request; one call at a time."""
        with self._lock:
            self._choose = fault_for

    def clear(self) -> None:
        """No faults from now on."""
        self.choose(lambda request: None)

    def next(self, *faults: Fault | None, method: str | None = None, path: str = "") -> None:
        """Give the next requests these faults in turn (None: it passes), then none.

        Args:
            method: only requests of this method count.
            path: only requests with this in their path or query count.
        """
        left = list(faults)

        def in_turn(request: Request) -> Fault | None:
            counts = method in (None, request.method) and path in request.path
            return left.pop(0) if counts and left else None

        self.choose(in_turn)

    def at_random(self, share: float, seed: int, *faults: Fault) -> None:
        """Give this share of all requests one of the faults (of all faults if none is given)."""
        draw, kinds = random.Random(seed), faults or tuple(Fault)
        self.choose(lambda request: draw.choice(kinds) if draw.random() < share else None)

    def _decide(self, request: Request) -> Fault | None:
        with self._lock:
            fault = self._choose(request)
            self.requests.append(Request(request.method, request.path, request.headers, fault))
            return fault


@pytest.fixture
def faulty_proxy(s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the session's S3 server; the settings name it in place of the server."""
    proxy = FaultyProxy(s3_settings.endpoint)
    monkeypatch.setenv("LRF_S3_ENDPOINT", proxy.endpoint)
    yield proxy
    proxy.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultyProxy

    def handle_error(self, *_: object) -> None:
        """Broken connections are what this is for."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        proxy = self.server.proxy
        fault = proxy._decide(Request(self.command, self.path, dict(self.headers.items())))
        if fault is Fault.RESET:
            self._reset()
        elif fault is Fault.FLIPPED_REQUEST_BIT:
            self._pass_on(_flipped(body), None)
        elif fault is Fault.SERVER_ERROR:
            self._fail(500, "InternalError")
        elif fault is Fault.SLOW_DOWN:
            self._fail(503, "SlowDown")
        elif fault is Fault.HALF_REQUEST:
            self._send_half(body)
            self._reset()
        else:
            self._pass_on(body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self, body: bytes, fault: Fault | None) -> None:
        try:
            answer, content = self._asked(body)
        except (OSError, http.client.HTTPException):
            self._reset()  # the server is down, as the client would see it without a proxy
            return
        if fault is Fault.LOST_ANSWER:
            self._reset()
        elif fault is Fault.LATE_ERROR:
            self._fail(500, "InternalError")
        else:
            if fault is Fault.DELAY:
                time.sleep(_DELAY_S)
            self._answer(answer, content, fault)

    def _asked(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """The server's answer and its content, read to the end."""
        upstream = self._connected()
        try:
            self._put_head(upstream)
            upstream.send(body)
            answer = upstream.getresponse()
            return answer, answer.read()
        finally:
            upstream.close()

    def _send_half(self, body: bytes) -> None:
        with contextlib.suppress(OSError):
            upstream = self._connected()
            self._put_head(upstream)
            upstream.send(body[: len(body) // 2])
            _abort(upstream.sock)

    def _connected(self) -> http.client.HTTPConnection:
        address = self.server.proxy.upstream
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        connection.connect()
        return connection

    def _put_head(self, upstream: http.client.HTTPConnection) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP or name.lower() == "content-length":
                upstream.putheader(name, value)
        upstream.endheaders()

    def _answer(
        self, answer: http.client.HTTPResponse, content: bytes, fault: Fault | None
    ) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if fault is Fault.FLIPPED_BIT:
            content = _flipped(content)
        if fault in (Fault.HALF_ANSWER, Fault.RESET_IN_ANSWER):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if fault is Fault.RESET_IN_ANSWER:
                self._reset()
            self.close_connection = True
        else:
            self.wfile.write(content)

    def _fail(self, status: int, code: str) -> None:
        content = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        self.close_connection = True
        _abort(self.connection)


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(byte ^ 1 for byte in content[middle : middle + 1])
        + (content[middle + 1 :])
    )


def _abort(connection: socket.socket) -> None:
    """Close with RST in place of FIN."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    # The handler holds files over the socket, which would keep it open.
    with contextlib.suppress(OSError):
        connection._real_close()  # type: ignore[attr-defined]
