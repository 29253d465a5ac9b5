"""A proxy that cuts a server off at a chosen request, before or after the server handles it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class CuttingProxy(ThreadingHTTPServer):
    """Forwards to `target`. From request number `cut` on (from 1) nothing is answered any more.

    With `lost_answer`, the server still gets that first request and only its answer is lost.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = urlsplit(target).netloc
        self.address = f"http://127.0.0.1:{self.server_port}"
        self._lock = threading.Lock()
        self.heal()

    def cut_at(self, request: int, *, lost_answer: bool) -> None:
        self.heal()
        self.cut, self.lost_answer = request, lost_answer

    def heal(self) -> None:
        self.seen, self.cut, self.lost_answer = 0, None, False

    def count(self) -> int:
        with self._lock:
            self.seen += 1
            return self.seen

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what these tests are about."""


class _Forward(BaseHTTPRequestHandler):
    server: CuttingProxy

    def do_GET(self) -> None:
        number, cut = self.server.count(), self.server.cut
        if cut and (number > cut or (number == cut and not self.server.lost_answer)):
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(self.server.target, timeout=60)
        headers = {**self.headers, "Host": self.server.target, "Connection": "close"}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if cut == number:
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def proxy_of(target: str) -> Iterator[CuttingProxy]:
    """A running proxy; it is stopped at the end."""
    proxy = CuttingProxy(target)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
