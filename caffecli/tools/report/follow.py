"""``caffecli report --follow``: the page on this machine's own address, made anew as the run goes on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from caffecli.errors import CaffeError
from caffecli.tools.report.material import ReportOptions

#: only programs of this machine reach it
ADDRESS = "127.0.0.1"


class Followed:
    """The page and its version, which changes with the size and the time of the inputs' files."""

    def __init__(self, options: ReportOptions, make: Callable[[str], str]) -> None:
        self._inputs = options.inputs
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[str, str] = ("", "")

    def version(self) -> str:
        """That of the files as they are now. Raises OSError where one is gone."""
        states = [(path.stat().st_mtime_ns, path.stat().st_size) for path in self._inputs]
        return hashlib.sha256(repr(states).encode()).hexdigest()[:16]

    def page(self) -> str:
        """The page of the files as they are now. Raises CaffeError and OSError for what cannot be read."""
        with self._lock:
            version = self.version()
            if self._made[0] != version:
                self._made = version, self._make(version)
            return self._made[1]


class Server(ThreadingHTTPServer):
    """Serves a page at ``/`` and its version at ``/version``."""

    daemon_threads = True

    def __init__(self, port: int, followed: Followed) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.followed = followed

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in (ADDRESS, "localhost"):  # a name of somebody else's that leads here
            self._say(HTTPStatus.FORBIDDEN, f"ask for {self.server.url}")
            return
        try:
            if self.path == "/":
                self._say(HTTPStatus.OK, self.server.followed.page(), "text/html")
            elif self.path == "/version":
                self._say(HTTPStatus.OK, self.server.followed.version())
            else:
                self._say(HTTPStatus.NOT_FOUND, f"there is only {self.server.url}")
        except (CaffeError, OSError) as error:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, f"the page cannot be made now: {error}")

    def _say(self, status: HTTPStatus, said: str, kind: str = "text/plain") -> None:
        body = said.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are of no interest."""
