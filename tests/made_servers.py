"""Servers on loopback that tests ask for images: one that fails as it is told to."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: What a rule does with a request: it answers, and returns True, or leaves it to the server.
Rule = Callable[[BaseHTTPRequestHandler, int], bool]


@dataclass
class Site:
    """Files by path, rules by path, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    etags: dict[str, str] = field(default_factory=dict)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    n_at_once: int = 0
    most_at_once: int = 0
    delay_s: float = 0.0
    url: str = ""

    def n_asked(self, method: str = "GET") -> int:
        """How often images were asked for."""
        return sum(n for what, n in self.asked.items() if what.startswith(method) and not what.endswith("/"))


def status(code: int, *, times: int = 10**9, **headers: str) -> Rule:
    """Answer the first requests with a status."""

    def rule(handler: BaseHTTPRequestHandler, n: int) -> bool:
        if n > times:
            return False
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return rule


def cut(times: int, *, body: bytes, with_length: bool = True) -> Rule:
    """Hang up after half a body."""

    def rule(handler: BaseHTTPRequestHandler, n: int) -> bool:
        if n > times or handler.command == "HEAD":
            return False
        handler.send_response(200)
        if with_length:
            handler.send_header("Content-Length", str(len(body)))
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.close_connection = True
        return True

    return rule


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Site]:
    """Run a web server that lists its folders, on loopback."""
    site = Site(dict(files))
    lock = threading.Lock()
    open_now: set[socket.socket] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                what = f"{self.command} {self.path}"
                site.asked[what] += 1
                n = site.asked[what]
                site.headers.append(dict(self.headers))
                site.n_at_once += 1
                site.most_at_once = max(site.most_at_once, site.n_at_once)
            try:
                time.sleep(site.delay_s)
                if (rule := site.rules.get(self.path)) is None or not rule(self, n):
                    self.answer()
            finally:
                with lock:
                    site.n_at_once -= 1

        do_HEAD = do_GET

        def setup(self) -> None:
            super().setup()
            with lock:
                open_now.add(self.connection)

        def finish(self) -> None:
            super().finish()
            with lock:
                open_now.discard(self.connection)

        def answer(self) -> None:
            if self.path in site.files:
                self.give(site.files[self.path], "application/octet-stream", site.etags.get(self.path, ""))
            elif self.path.endswith("/") and any(path.startswith(self.path) for path in site.files):
                inside = {path[len(self.path) :] for path in site.files if path.startswith(self.path)}
                names = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in inside})
                links = "".join(f'<a href="{name}">{name}</a>' for name in ["../", "?C=N;O=D", *names, "#top"])
                self.give(f"<html>{links}<a href='http://elsewhere.example/x.png'>x</a></html>".encode(), "text/html")
            else:
                self.send_error(404)

        def give(self, body: bytes, kind: str, etag: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if etag:
                self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that hung up

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        with lock, suppress(OSError):
            for connection in open_now:
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()  # waits for the threads of connections
        thread.join()
