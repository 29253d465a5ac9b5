"""A JSON API on loopback: what it answers is a function of what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


@dataclass(frozen=True)
class Asked:
    """A request. `body` is None if it has none."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: Any


@contextmanager
def json_api(answer: Callable[[Asked], tuple[int, Any]]) -> Iterator[str]:
    """Serve over HTTP; yields the address.

    Args:
        answer: the status and the content, called in a thread of each connection.
    """

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # head and body at once, or each answer takes another 40 ms
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            where = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(content) if content else None
            asked = Asked(self.command, where.path, parse_qs(where.query), self.headers, body)
            status, answered = answer(asked)
            said = json.dumps(answered).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # Connections that clients keep open end with the process.
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def kubeconfig(address: str, namespace: str | None = None, token: str | None = None) -> str:
    """The content of a KUBECONFIG that leads to an API."""
    context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "here", "context": context}],
        }
    )
