"""Who may ask the page of a labelling, and when it ends."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from conftest import MakePhotos
from made_labelling import InOrder
from tlfeat.errors import UsageError
from tlfeat.images.load import load_images
from tlfeat.labelling import server as module
from tlfeat.labelling.answers import open_answers, read_answers
from tlfeat.labelling.pictures import Pictures
from tlfeat.labelling.server import Server
from tlfeat.labelling.session import Session


@dataclass
class Browser:
    """Asks the server as a browser does; headers can be other ones."""

    server: Server
    cookie: str = ""
    token: str = ""

    def ask(self, method: str, path: str, body: str = "", **headers: str | None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        usual: dict[str, str | None] = {"Host": f"127.0.0.1:{self.server.port}", "Cookie": self.cookie}
        if method == "POST":
            usual |= {"Origin": f"http://127.0.0.1:{self.server.port}", "X-Token": self.token}
        usual |= {"Content-Length": str(len(body.encode()))}
        given = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
        with closing(connection):
            connection.putrequest(method, path, skip_host=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body.encode())
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def get(self, path: str, **headers: str | None) -> Any:
        status, _, content = self.ask("GET", path, **headers)
        assert status == HTTPStatus.OK, (status, content)
        return json.loads(content)

    def post(self, path: str, said: Any) -> tuple[int, Any]:
        status, _, content = self.ask("POST", path, json.dumps(said))
        return status, json.loads(content)

    def enter(self) -> None:
        address = urlsplit(self.server.address)
        status, headers, _ = self.ask("GET", f"/?{address.query}", Cookie=None)
        assert (status, headers["Location"]) == (303, "/")
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        _, _, page = self.ask("GET", "/")
        self.token = re.search(rb'name="token" content="([^"]+)"', page)[1].decode()  # type: ignore[index]


@pytest.fixture
def browser(make_photos: MakePhotos, tmp_path: Path) -> Iterator[Browser]:
    folder = make_photos(3)
    (folder / "dog" / "2.png").write_bytes(b"no picture")
    pictures = Pictures(load_images(folder), tmp_path / "labels.csv")
    with open_answers(pictures.csv) as file:
        server = Server(Session(pictures, file, InOrder(6)), lambda: {"lines": ["fitted"]}, "Label <photos>")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield Browser(server)
        server.shutdown()
        server.server_close()
        serving.join()


def test_pictures_are_labelled(browser: Browser) -> None:
    browser.enter()
    question = browser.get("/question")["question"]
    status, headers, content = browser.ask("GET", f"/picture/{question['number']}")
    assert (status, headers["Content-Type"], content[:2]) == (200, "image/jpeg", b"\xff\xd8")
    status, reply = browser.post(
        "/answer", {"id": question["id"], "number": question["number"], "kind": "label", "label": "cat"}
    )
    assert status == HTTPStatus.OK and reply["state"]["n_labelled"] == 1
    assert browser.get(f"/question?after={reply['question']['id']}")["question"]["number"] == 2
    assert browser.get("/question?number=0")["question"]["label"] == "cat"
    assert browser.get("/answered") == {"numbers": [0]}
    assert browser.post("/answers", {"label": "dog", "numbers": [3, 4]})[1]["state"]["n_labelled"] == 3
    assert browser.post("/undo", {})[1]["state"]["n_labelled"] == 1
    assert browser.post("/class", {"name": "newt"})[1]["classes"][-1]["name"] == "newt"
    assert browser.get("/grid?label=cat")["items"][0]["number"] == 3
    assert browser.post("/done", {})[1] == {"lines": ["fitted"]}
    assert list(read_answers(browser.server.session.pictures.csv)[0]) == ["photos/cat/0.png"]


def test_a_picture_that_cannot_be_shown_says_why(browser: Browser) -> None:
    browser.enter()
    status, headers, content = browser.ask("GET", "/small/5")
    assert (status, headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
    assert b"cannot be shown: not an image" in content
    assert browser.ask("GET", "/picture/6")[0] == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    "path", ["/picture/../../etc/passwd", "/picture/-1", "/picture/1e0", "/picture/", "/templates/label.html", "/x"]
)
def test_nothing_is_served_by_path(browser: Browser, path: str) -> None:
    browser.enter()
    assert browser.ask("GET", path)[0] == HTTPStatus.NOT_FOUND


PAGES = ["/", "/state", "/question", "/picture/0", "/small/0", "/label.js", "/map", "/alive", "/answered"]


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_answered_without_the_cookie(browser: Browser, path: str) -> None:
    browser.enter()
    for cookie in (None, "", "tlfeat-1=x", f"{browser.server.cookie_name}=wrong", "a=b; =;;", browser.server.token):
        status, _, content = browser.ask("GET", path, Cookie=cookie)
        assert status == HTTPStatus.FORBIDDEN
        assert b"with its token" in content
    assert browser.ask("GET", path)[0] == HTTPStatus.OK


def test_the_token_is_needed_once_and_another_is_refused(browser: Browser) -> None:
    for token in ("", "wrong", browser.server.token[:-1], browser.server.cookie):
        status, headers, _ = browser.ask("GET", f"/?token={token}", Cookie=None)
        assert status == HTTPStatus.FORBIDDEN and "Set-Cookie" not in headers
    status, headers, _ = browser.ask("GET", f"/?token={browser.server.token}", Cookie=None)
    assert "; HttpOnly; SameSite=Strict; Path=/" in headers["Set-Cookie"]
    assert browser.server.token not in headers["Set-Cookie"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.:1", "", None]
)
def test_another_host_is_refused(browser: Browser, host: str | None) -> None:
    browser.enter()
    for path in ("/state", f"/?token={browser.server.token}"):
        status, headers, _ = browser.ask("GET", path, Host=host)
        assert status == HTTPStatus.FORBIDDEN and "Set-Cookie" not in headers


def test_a_forwarded_port_is_this_machine_too(browser: Browser) -> None:
    browser.enter()
    assert browser.ask("GET", "/state", Host="localhost:4711")[0] == HTTPStatus.OK
    status, _, _ = browser.ask("POST", "/undo", "{}", Host="localhost:4711", Origin="http://localhost:4711")
    assert status == HTTPStatus.OK


@pytest.mark.parametrize("origin", [None, "", "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_a_post_of_another_page_is_refused(browser: Browser, origin: str | None) -> None:
    browser.enter()
    assert browser.ask("POST", "/class", '{"name": "x"}', Origin=origin)[0] == HTTPStatus.FORBIDDEN
    assert not browser.server.session.classes


@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_a_post_needs_the_token_of_the_page(browser: Browser, token: str | None) -> None:
    browser.enter()
    assert browser.ask("POST", "/class", '{"name": "x"}', X_Token=token)[0] == HTTPStatus.FORBIDDEN
    assert not browser.server.session.classes


def test_every_answer_keeps_the_page_to_itself(browser: Browser) -> None:
    browser.enter()
    for path in (*PAGES, "/nothing"):
        _, headers, _ = browser.ask("GET", path)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not any(name.lower().startswith("access-control") for name in headers)
    _, _, page = browser.ask("GET", "/")
    assert b"Label &lt;photos&gt;" in page
    assert not re.search(rb"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page)


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "{}", '{"id": "x", "number": 0, "kind": "bad"}'])
def test_what_is_no_request_is_said(browser: Browser, body: str) -> None:
    browser.enter()
    status, _, content = browser.ask("POST", "/answer", body)
    assert (status, json.loads(content)) == (400, {"error": "The request is not understood."})


def test_errors_are_sentences(browser: Browser) -> None:
    browser.enter()
    status, said = browser.post("/answer", {"id": 77, "number": 0, "kind": "bad"})
    assert status == HTTPStatus.CONFLICT and "open no more" in said["error"]
    status, said = browser.post("/class", {"name": ""})
    assert status == HTTPStatus.BAD_REQUEST and said["error"] == "A class needs a name."
    for n_bytes in (-1, (1 << 20) + 1):
        status, _, _ = browser.ask("POST", "/class", Content_Length=str(n_bytes))
        assert status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    status, _, content = browser.ask("POST", "/class", json.dumps({"name": "x" * ((1 << 20) - 13)}))
    assert status == HTTPStatus.BAD_REQUEST and b"name" in content, (status, content[:200])  # as much as is taken
    assert browser.post("/nothing", {})[0] == HTTPStatus.NOT_FOUND


def test_a_port_that_is_taken(browser: Browser) -> None:
    with pytest.raises(UsageError, match="--port"):
        Server(browser.server.session, dict, "", port=browser.server.port)


def test_it_ends_when_the_last_window_has_closed(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0.05)
    windows = browser.server.windows

    def goes(is_gone: bool) -> None:
        time.sleep(0.1)
        assert windows.are_gone is is_gone

    goes(False)  # none was open yet
    browser.enter()
    browser.ask("GET", "/")  # a second one
    assert browser.ask("POST", "/bye", "wrong", X_Token=None)[0] == HTTPStatus.FORBIDDEN
    assert browser.ask("POST", "/bye", browser.token, X_Token=None)[0] == HTTPStatus.OK
    goes(False)
    browser.ask("POST", "/bye", browser.token, X_Token=None)
    goes(True)
    browser.ask("GET", "/alive")  # it is back
    goes(False)
    browser.ask("POST", "/bye", browser.token, X_Token=None)
    browser.ask("GET", "/")  # it was loaded again
    goes(False)


def test_serving_ends_with_the_last_window(
    make_photos: MakePhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0.0)
    pictures = Pictures(load_images(make_photos(3)), tmp_path / "labels.csv")
    with open_answers(pictures.csv) as file:
        server = Server(Session(pictures, file, InOrder(6)), dict, "Label")
        serving = threading.Thread(target=server.serve_until_closed)
        serving.start()
        browser = Browser(server)
        browser.enter()
        browser.ask("POST", "/bye", browser.token, X_Token=None)
        serving.join(10)
        assert not serving.is_alive()
        with pytest.raises(ConnectionError):
            browser.ask("GET", "/")
