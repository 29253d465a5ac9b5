"""/healthz, /readyz and /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from lrf_core.errors import SpecError

# Why not; None if all is well.
Problem = Callable[[], str | None]


@contextmanager
def serving(
    address: tuple[str, int], health: Problem, readiness: Problem, registry: CollectorRegistry
) -> Iterator[int]:
    """Serve meanwhile; yields the port, which is chosen where it is 0.

    Raises:
        SpecError: the address cannot be listened at.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/healthz":
                self.judge(health())
            elif path == "/readyz":
                self.judge(readiness())
            elif path == "/metrics":
                encoder, kind = choose_encoder(self.headers.get("Accept", ""))
                self.answer(200, kind, encoder(registry))
            else:
                self.answer(404, "text/plain", b"/healthz, /readyz or /metrics\n")

        def judge(self, problem: str | None) -> None:
            status = 200 if problem is None else 503
            self.answer(status, "text/plain", f"{problem or 'ok'}\n".encode())

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Probes come every few seconds."""

    try:
        server = ThreadingHTTPServer(address, Handler)
    except (OSError, OverflowError) as error:
        raise SpecError(
            f"cannot listen at {address[0]}:{address[1]} ({error}); correct `listen`"
        ) from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="http", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
