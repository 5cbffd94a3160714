"""The page of one person on this machine: a few routes around a `Session`, and who may ask.

Bound to the loopback address. Whoever opens the printed address gets a cookie; without it nothing is answered but that.
As in Jupyter's server a request with another Host is refused (DNS rebinding), and a POST needs the own Origin and a
token that stands in the page (cross-site requests). Pictures are asked for by number, never by path.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files as package_files
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tlfeat.errors import DataError, TlfeatError, UsageError
from tlfeat.images.decode import n_cores
from tlfeat.labelling.pictures import LARGE, SMALL
from tlfeat.labelling.session import Conflict, Session
from tlfeat.text import page

T = TypeVar("T")

_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})

_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

#: Names of the page's own files, the package that has them, and their type.
_FILES = {
    "/label.css": ("tlfeat.labelling", "text/css"),
    "/label.js": ("tlfeat.labelling", "text/javascript"),
    "/label_server.js": ("tlfeat.labelling", "text/javascript"),
    "/label_views.js": ("tlfeat.labelling", "text/javascript"),
    "/colours.css": ("tlfeat.report", "text/css"),
}

_MAX_BODY_BYTES = 1 << 20

#: After the last window has closed: it may only be loading again.
_LINGER_S = 5.0

#: A connection that says nothing for this long is closed; the page opens another.
_IDLE_S = 120.0


@dataclass(slots=True)
class Windows:
    """How many windows are open, as far as they say so."""

    n: int = 0
    since_s: float = field(default_factory=time.monotonic)
    was_open: bool = False

    def opened(self) -> None:
        """A window has loaded the page."""
        self.n, self.was_open = self.n + 1, True

    def alive(self) -> None:
        """A window is there: one that had closed is back."""
        self.n, self.was_open = max(self.n, 1), True

    def closed(self) -> None:
        """A window says that it closes."""
        self.n, self.since_s = max(self.n - 1, 0), time.monotonic()

    @property
    def are_gone(self) -> bool:
        """Whether the last of them closed a while ago."""
        return self.was_open and not self.n and time.monotonic() - self.since_s > _LINGER_S


class Server(ThreadingHTTPServer):
    """Serves a session until the last window closes.

    Parameters
    ----------
    session : Session
    finish : callable
        What "Done" does; returns JSON values.
    title : str
    port : int, default=0
        0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, session: Session, finish: Callable[[], dict[str, Any]], title: str, *, port: int = 0) -> None:
        self.session, self.finish, self.title = session, finish, title
        self.token, self.cookie, self.page_token = (secrets.token_urlsafe(32) for _ in range(3))
        self.windows, self.has_shown = Windows(), threading.Event()
        self.decoding = threading.Semaphore(n_cores())
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise UsageError(f"Port {port} cannot be taken: {error.strerror or error}. Name another --port.") from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    @property
    def cookie_name(self) -> str:
        """Cookies are of a host, whatever the port: each server has its own."""
        return f"tlfeat-{self.port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that closed a connection."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def warm_up(self) -> None:
        """Render the page and the first picture once while the browser opens: what they import is there by then."""
        with suppress(TlfeatError):
            page("tlfeat.labelling", "label.html", token="", title=self.title)
            question = self.session.question()["question"]
            if question is not None:
                self.session.pictures.jpeg(question["number"], LARGE)

    def serve_until_closed(self) -> None:
        """Serve until the last window has closed; Ctrl-C is raised here."""
        serving = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        serving.start()
        try:
            self.warm_up()
            while not self.windows.are_gone:
                time.sleep(0.2)
        finally:
            self.shutdown()
            self.server_close()
            serving.join()


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tlfeat", ""
    timeout = _IDLE_S
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Nothing is printed of requests."""

    def do_GET(self) -> None:
        """Answer what changes nothing."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer what changes something."""
        self._answer(self._post)

    def _answer(self, route: Callable[[str, bytes], None]) -> None:
        try:
            body = self._body()  # before any refusal: a connection closed on unread bytes can lose the reply
            self._check_host()
            route(urlsplit(self.path).path, body)
        except _Refused as refused:
            self.close_connection = True  # a body that was too large is no next request
            self._json({"error": str(refused)}, refused.status)
        except Conflict as error:
            self._json({"error": str(error)}, 409)
        except TlfeatError as error:
            self._json({"error": str(error)}, 400)
        except (BrokenPipeError, ConnectionError):
            self.close_connection = True

    def _body(self) -> bytes:
        n_bytes = self._understood(lambda: int(self.headers.get("Content-Length", "0")))
        if not 0 <= n_bytes <= _MAX_BODY_BYTES:
            raise _Refused(413, "That is too much at once.")
        return self.rfile.read(n_bytes)

    # --- who may ask ------------------------------------------------------------------------------------

    def _check_host(self) -> None:
        host = self.headers.get("Host", "").lower()
        if re.sub(r":\d{1,5}$", "", host) not in _HOSTS:
            raise _Refused(403, "This page is for this machine alone.")

    def _check_cookie(self) -> None:
        cookies: SimpleCookie = SimpleCookie()
        with suppress(CookieError):
            cookies.load(self.headers.get("Cookie", ""))
        held = cookies[self.server.cookie_name].value if self.server.cookie_name in cookies else ""
        if not _is_same(held, self.server.cookie):
            raise _Refused(403, "Open the address that tlfeat label printed, with its token.")

    def _check_origin(self) -> None:
        if self.headers.get("Origin", "").lower() != f"http://{self.headers.get('Host', '').lower()}":
            raise _Refused(403, "Another page may not ask this.")

    # --- what is asked ----------------------------------------------------------------------------------

    @cached_property
    def _gets(self) -> dict[str, Callable[[dict[str, str]], dict[str, Any]]]:
        session = self.server.session
        return {
            "/state": lambda _: session.state(),
            "/question": self._question,
            "/answered": lambda _: session.history(),
            "/grid": session.grid,
            "/map": lambda _: session.map(),
        }

    @cached_property
    def _posts(self) -> dict[str, Callable[[dict[str, Any]], Callable[[], dict[str, Any]]]]:
        session = self.server.session
        return {
            "/answer": lambda said: partial(
                session.answer, int(said["id"]), int(said["number"]), str(said["kind"]), str(said.get("label", ""))
            ),
            "/answers": lambda said: partial(session.answer_all, str(said["label"]), [int(n) for n in said["numbers"]]),
            "/undo": lambda _: session.undo,
            "/class": lambda said: partial(session.add_class, str(said["name"])),
            "/done": lambda _: self.server.finish,
        }

    def _get(self, path: str, _body: bytes) -> None:
        query = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if path == "/" and "token" in query:
            self._enter(query["token"])
            return
        self._check_cookie()
        kind, _, number = path[1:].partition("/")
        if path == "/":
            self.server.windows.opened()
            html = page("tlfeat.labelling", "label.html", token=self.server.page_token, title=self.server.title)
            self._send(html.encode(), "text/html; charset=utf-8")
        elif path in _FILES:
            package, file_type = _FILES[path]
            content = package_files(package).joinpath("templates", path[1:]).read_bytes()
            self._send(content, f"{file_type}; charset=utf-8")
        elif path == "/favicon.ico":
            self._send(b"", "image/x-icon")
        elif path == "/alive":
            self.server.windows.alive()
            self._json({})
        elif path in self._gets:
            self._json(self._gets[path](query))
        elif kind in ("picture", "small") and number.isascii() and number.isdigit():
            self._picture(int(number), LARGE if kind == "picture" else SMALL)
        else:
            raise _Refused(404, "There is nothing here.")

    def _post(self, path: str, body: bytes) -> None:
        self._check_cookie()
        self._check_origin()
        if path == "/bye":  # a page that closes can send no header of its own
            self._check_page(body.decode("ascii", "replace"))
            self.server.windows.closed()
            self._json({})
            return
        self._check_page(self.headers.get("X-Token", ""))
        if path not in self._posts:
            raise _Refused(404, "There is nothing here.")
        self._json(self._understood(lambda: self._posts[path](json.loads(body)))())

    def _check_page(self, token: str) -> None:
        if not _is_same(token, self.server.page_token):
            raise _Refused(403, "This page belongs to a program that has ended. Open the new address.")

    def _enter(self, token: str) -> None:
        """Exchange the token of the printed address for a cookie, and lead to the address without it."""
        if not _is_same(token, self.server.token):
            raise _Refused(403, "That token is of another run. Open the address that tlfeat label printed last.")
        cookie = f"{self.server.cookie_name}={self.server.cookie}; HttpOnly; SameSite=Strict; Path=/"
        self._send(b"", "text/plain", 303, {"Location": "/", "Set-Cookie": cookie})

    def _question(self, query: dict[str, str]) -> dict[str, Any]:
        asked = self._understood(lambda: {name: int(query[name]) for name in ("number", "after") if name in query})
        if "number" in asked:
            return self.server.session.question_of(asked["number"])
        return self.server.session.question(asked.get("after"))

    def _understood(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (KeyError, ValueError, TypeError):
            raise _Refused(400, "The request is not understood.") from None

    def _picture(self, number: int, side: int) -> None:
        if number >= len(self.server.session.pictures):
            raise _Refused(404, "There is no such picture.")
        try:
            with self.server.decoding:
                content = self.server.session.pictures.jpeg(number, side)
        except DataError as error:
            self._send(f"This picture cannot be shown: {error}".encode(), "text/plain; charset=utf-8", 404)
            return
        self._send(content, "image/jpeg", extra={"Cache-Control": "private, max-age=3600"})
        self.server.has_shown.set()

    # --- the answer -------------------------------------------------------------------------------------

    def _json(self, values: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(values).encode(), "application/json", status)

    def _send(self, content: bytes, content_type: str, status: int = 200, extra: dict[str, str] | None = None) -> None:
        self.send_response(status)
        named = {"Content-Type": content_type, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
        for name, value in {**_SECURITY, **named, **(extra or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())
