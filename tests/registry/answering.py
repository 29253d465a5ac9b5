"""Servers that answer every request alike: login pages, refusals, errors."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

Answer = Callable[[Request], Response]


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log(self, *_: Any) -> None:
        """Quiet."""


def serving(app: Any, tls: ssl.SSLContext | None = None) -> Any:
    """A server on a free port of loopback, not started yet."""
    return make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet, ssl_context=tls)


@contextmanager
def started(served: Any) -> Iterator[str]:
    """The server's address; it is stopped at the end."""
    thread = threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    scheme = "https" if served.ssl_context else "http"
    try:
        yield f"{scheme}://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


@contextmanager
def answering(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server that gives this answer to whatever it is asked."""

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        return answer(Request(environ))(environ, start)

    with started(serving(app, tls)) as address:
        yield address


def html(request: Request) -> Response:
    return Response("<html>Log in to Dex</html>", content_type="text/html")


def status(code: int, message: str = "") -> Answer:
    return lambda request: Response(message, code, content_type="text/plain")


def json(content: str) -> Answer:
    return lambda request: Response(content, content_type="application/json")
