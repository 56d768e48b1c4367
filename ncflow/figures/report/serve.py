"""The page of a sweep that is going on, for browsers on this machine alone."""

import time
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

HOST = "127.0.0.1"
_OWN_NAMES = ("127.0.0.1", "localhost")
_REFUSAL = b"this page is for browsers on its own machine\n"
_LEAST_REST = 5.0  # seconds
_SHARE = 5  # of the time, to look and to draw takes at most one part of so many


class PageServer(ThreadingHTTPServer):
    """Serves one page, and under ``/version`` by what one knows whether it is the newest.

    Only requests that name this machine are answered: a site elsewhere whose name was made to lead here is refused.

    Args:
        port: On the loopback interface; 0 takes a free one.

    Raises:
        OSError: If the port is in use.
    """

    daemon_threads = True
    version: str
    page: bytes

    def __init__(self, port: int) -> None:
        self.show("", b"")
        super().__init__((HOST, port), _Handler)

    def show(self, version: str, page: bytes) -> None:
        """Serve another page from now on."""
        self.version, self.page = version, page

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ncflow", ""
    timeout = 60  # seconds in which a browser may say nothing

    def do_GET(self) -> None:
        """Answer with the page or its version."""
        if not self._is_for_this_machine():
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, _REFUSAL, "text/plain")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, self.server.page, "text/html")
        elif self.path == "/version":
            self._answer(HTTPStatus.OK, self.server.version.encode(), "text/plain")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there is one page, at /\n", "text/plain")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of what is asked."""

    def _is_for_this_machine(self) -> bool:
        """Whether the request names this machine, by whatever port it came here."""
        try:
            return urlsplit(f"//{self.headers.get('Host', '')}").hostname in _OWN_NAMES
        except ValueError:
            return False

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def waiting_page(why: str) -> bytes:
    """The page of a sweep that has no run yet; a browser asks for it again by itself.

    Args:
        why: What there is not, in words.
    """
    head = f'<meta charset="utf-8"><meta http-equiv="refresh" content="{_LEAST_REST:g}"><title>No runs yet</title>'
    look = '<meta name="color-scheme" content="light dark"><meta name="viewport" content="width=device-width">'
    words = f"{escape(why)}. This page looks again every {_LEAST_REST:g} seconds, and shows the runs as they come."
    body = f'<body style="font-family: system-ui, sans-serif; margin: 2rem"><h1>No runs yet</h1><p>{words}</p></body>'
    return f'<!doctype html><html lang="en"><head>{head}{look}</head>{body}</html>\n'.encode(errors="replace")


def serve(
    server: PageServer, build: Callable[[str], bytes], state: Callable[[], int], rest: float = _LEAST_REST
) -> None:
    """Show a page and build it anew whenever the state has changed, until the process is interrupted.

    Args:
        server: It is closed at the end.
        build: From a version to the page that bears it. It may raise an OSError later on, and then the page stays.
        state: What the page is of, as a number.
        rest: Seconds between two looks at the least; large sweeps, which take long, are looked at less often.

    Raises:
        OSError: If the first page cannot be built.
    """
    seen = state()
    version = str(time.time_ns())
    server.show(version, build(version))
    Thread(target=server.serve_forever, daemon=True).start()
    print(f"{server.address} shows the runs as they are, and new results as they come; Ctrl-C ends it", flush=True)
    try:
        spent = 0.0
        while True:
            time.sleep(max(rest, _SHARE * spent))
            began = time.monotonic()
            seen = _look(server, build, state, seen)
            spent = time.monotonic() - began
    finally:
        server.shutdown()
        server.server_close()


def _look(server: PageServer, build: Callable[[str], bytes], state: Callable[[], int], seen: int) -> int:
    """Build the page anew if the state is not the one seen before; return the state of which it is."""
    try:
        now = state()
        if now == seen:
            return seen
        version = str(time.time_ns())
        server.show(version, build(version))
        print(f"{time.strftime('%H:%M:%S')} new results", flush=True)
        return now
    except OSError as error:
        print(f"{time.strftime('%H:%M:%S')} the page stays as it was: {error}", flush=True)
        return seen
