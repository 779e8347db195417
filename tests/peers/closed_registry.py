"""A registry of images that has nothing, and lets nobody see what it has: plain HTTP, here."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ERRORS = {
    401: b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}',
    404: b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unheard of"}]}',
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.headers.get("Authorization") is None and "secret" in self.path:
            self._answer(401)
        elif self.path == "/v2/":
            self._answer(200)
        else:
            self._answer(401 if "secret" in self.path else 404)

    do_HEAD = do_GET  # noqa: N815 - the library's word

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        content = _ERRORS.get(status, b"{}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Its address. `ADDRESS/secret` is for nobody, all else is unheard of."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], name="registry")
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
