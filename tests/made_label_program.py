"""A stand-in for the program behind the page of `tlfeat label`: what it is asked and told, on loopback."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from tlfeat.text import page as rendered

TOKEN = "f00"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><b onmouseover=alert(1)>',
    "a&amp;b",
]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
KINDS = {"js": "text/javascript", "css": "text/css"}
KEYS = "123456789abcdefijklopqrstvwyz"


@dataclass
class Refusal(Exception):
    status: int
    error: str


@dataclass
class Program:
    """What the page sees of `tlfeat label`: the questions in the order of the pictures, and answers kept in memory."""

    classes: list[str] = field(default_factory=lambda: ["cat", "dog", "newt"])
    n_pictures: int = 40
    pictures: Callable[[int], bytes] = lambda number: picture(number)
    paths: Callable[[int], str] = lambda number: f"photos/{number}.jpg"
    suggests: bool = True
    more: dict[str, Any] = field(default_factory=dict)  # of the state
    extra: dict[int, dict[str, Any]] = field(default_factory=dict)  # of the question of a picture
    answers: dict[int, str] = field(default_factory=dict)  # newest last
    undone: list[list[int]] = field(default_factory=list)  # what each POST answered, newest last
    posts: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)  # of the next answers
    gate: threading.Event = field(default_factory=threading.Event)  # POSTs wait for it
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.gate.set()

    def state(self) -> dict[str, Any]:
        said = list(self.answers.values())
        classes = [{"name": c, "key": KEYS[i : i + 1], "n": said.count(c)} for i, c in enumerate(self.classes)]
        n_labelled = sum(said.count(c) for c in self.classes)
        state = {
            "mode": "label", "folder": "photos", "csv": "photos.labels.csv", "classes": classes,
            "n_pictures": self.n_pictures, "n_embedded": self.n_pictures, "n_labelled": n_labelled,
            "n_unknown": said.count("unknown"), "n_bad": said.count("bad"), "n_skipped": 0, "extracting": "",
            "can_undo": bool(self.undone), "notes": [], "until": None, "is_until_reached": False, "n_left": None,
            "estimate": None,
        }  # fmt: skip
        return state | self.more

    def question(self, number: int) -> dict[str, Any]:
        suggestion = self.classes[number % 2] if self.suggests and len(self.classes) > 1 else ""
        top = [[suggestion, 0.93], [self.classes[-1], 0.05]] if suggestion else []
        question = {
            "id": 100 + number, "number": number, "path": self.paths(number), "suggestion": suggestion,
            "why": "random" if number % 5 == 4 else "unsure", "probability": 0.93 if suggestion else None, "top": top,
            "label": self.answers.get(number, ""), "text": "", "choices": [], "others": [],
        }  # fmt: skip
        return question | self.extra.get(number, {})

    def next(self, *, after: int = -1) -> dict[str, Any] | None:
        """The first picture that is neither answered nor the one on the screen."""
        left = (n for n in range(self.n_pictures) if n not in self.answers and n != after)
        number = next(left, None)
        return None if number is None else self.question(number)

    def get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        with self.lock:
            if path == "/question":
                if "number" in query:
                    return self.question(int(query["number"]))
                return self.next(after=int(query.get("after", 0)) - 100) or {
                    "question": None,
                    "why": "All are labelled.",
                }
            if path == "/grid":
                left = [n for n in range(self.n_pictures) if n not in self.answers][:24]
                items = [{"number": n, "probability": 0.99 - n / 100, "path": self.paths(n)} for n in left]
                return {"label": query.get("label", ""), "items": items}
            if path == "/map":
                return {"points": [self.point(n) for n in range(self.n_pictures)], "note": "40 pictures (t-SNE)."}
            return {"/state": self.state, "/answered": lambda: {"numbers": list(self.answers)}, "/alive": dict}[path]()

    def point(self, number: int) -> dict[str, Any]:
        label = self.answers.get(number, "")
        x, y = number % 7 / 7, number // 7 / 7
        supposed = "" if label else self.classes[number % len(self.classes)]
        return {"number": number, "path": self.paths(number), "x": x, "y": y, "label": label, "supposed": supposed,
                "probability": 0.7}  # fmt: skip

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.gate.wait(20)
        with self.lock:
            self.posts.append((path, body))
            if path in ("/answer", "/answers") and self.refusals:
                raise self.refusals.pop(0)
            if path == "/class":
                self.classes.append(body["name"])
                return self.state()
            if path == "/undo":
                for number in (taken := self.undone.pop()):
                    del self.answers[number]
                return {"state": self.state(), "question": self.question(taken[0])}
            if path == "/done":
                return self.end()
            numbers = body.get("numbers") or [body["number"]]
            for number in numbers:
                self.answers.pop(number, None)
                self.answers[number] = body.get("label") or body["kind"]
            self.undone.append(numbers)
            return {"state": self.state(), "question": self.next()}

    def end(self) -> dict[str, Any]:
        return {
            "lines": ["40 labels in photos.labels.csv", HOSTILE[0]], "accuracy": 0.93, "interval": [0.88, 0.97],
            "error": "", "details": ["true \\ predicted  cat  dog", HOSTILE[1]],
            "commands": ["tlfeat predict photos.model new/"], "confused": [["cat", "dog", 3]],
        }  # fmt: skip


def picture(number: int, size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 120)).save(out, "JPEG")
    return out.getvalue()


class Answering(BaseHTTPRequestHandler):
    """HTTP before a `Program`: headers as those of the true one."""

    program: Program

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, body: bytes, kind: str = "application/json", status: int = 200) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        with suppress(ConnectionError):  # a page that was closed meanwhile
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.program.asked.append(self.path)
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        templates = files("tlfeat.labelling").joinpath("templates")
        if path == "/":
            html = rendered("tlfeat.labelling", "label.html", token=TOKEN, title="photos")
            self.answer(html.encode(), "text/html; charset=utf-8")
        elif path == "/favicon.ico":
            self.answer(b"", "image/x-icon")
        elif path == "/colours.css":
            self.answer(files("tlfeat.report").joinpath("templates/colours.css").read_bytes(), "text/css")
        elif path.endswith((".js", ".css")):
            self.answer(templates.joinpath(path[1:]).read_bytes(), KINDS[path.rpartition(".")[2]])
        elif found := re.fullmatch(r"/(picture|small)/(\d+)", path):
            self.answer_picture(int(found[2]))
        else:
            self.answer(json.dumps(self.program.get(path, {k: v[0] for k, v in query.items()})).encode())

    def answer_picture(self, number: int) -> None:
        try:
            self.answer(self.program.pictures(number), "image/jpeg")
        except Refusal as refusal:
            self.answer(refusal.error.encode(), "text/plain; charset=utf-8", refusal.status)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/bye":
            self.program.posts.append(("/bye", body.decode()))
            return self.answer(b"{}")
        assert self.headers["X-Token"] == TOKEN
        try:
            self.answer(json.dumps(self.program.post(self.path, json.loads(body))).encode())
        except Refusal as refusal:
            self.answer(json.dumps({"error": refusal.error}).encode(), status=refusal.status)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, program: Program, port: int = 0) -> None:
        self.program = program
        super().__init__(("127.0.0.1", port), type("Handler", (Answering,), {"program": program}))
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()
