"""The whole of ``tlfeat label`` in headless Chromium: keys, undo, a killed program that goes on, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browsers
from conftest import MakePhotos
from tlfeat.labelling.answers import Answer, read_answers

pytestmark = browsers.MARKS

browser = browsers.browser


@contextmanager
def running(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A `tlfeat label` that runs, and its address."""
    command = [sys.executable, "-m", "tlfeat", "label", *words, "--no-browser", "--backbone", "pixels"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert program.stdout is not None and program.stderr is not None
    try:
        yield program, program.stdout.readline().strip()
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
        program.stderr.close()


def answers() -> dict[str, Answer]:
    return read_answers(Path("photos-labels.csv"))[0]


def wait_for_title(page: Any, words: str) -> None:
    """Wait until the title has these words; the page's policy lets no function of another be evaluated in it."""
    deadline_s = time.monotonic() + 20
    while words not in page.title():
        assert time.monotonic() < deadline_s, page.title()
        page.wait_for_timeout(20)


def label_by_keys(page: Any, n: int, first: int = 0) -> None:
    """Press the key of the class that stands in the path, when the picture is shown."""
    for i in range(first, first + n):
        wait_for_title(page, f"({i})")
        page.locator("img#picture").wait_for()
        path = page.locator("#path").inner_text()
        page.keyboard.press("1" if "cat" in path else "2")
    wait_for_title(page, f"({first + n})")


def test_keys_undo_kill_and_go_on(make_photos: MakePhotos, browser: Any) -> None:
    make_photos(12)
    page = browser.new_page()
    with running("photos", "--classes", "cat,dog") as (program, address):
        page.goto(address)
        assert "token" not in page.url
        label_by_keys(page, 7)
        assert len(answers()) == 7
        assert all(answer.label in path for path, answer in answers().items())
        page.keyboard.press("Backspace")
        wait_for_title(page, "(6)")
        assert len(answers()) == 6
        label_by_keys(page, 1, first=6)
        kept = answers()
        program.send_signal(signal.SIGKILL)
        program.wait()
        page.keyboard.press("u")  # it cannot be saved any more, and the page says so
        page.wait_for_selector("#alert:not([hidden])", timeout=10_000)
    with running("photos", "--classes", "cat,dog") as (program, address):
        page.goto(address)
        label_by_keys(page, 3, first=7)
        assert dict(list(answers().items())[:7]) == kept and len(answers()) == 10
        page.close()
        assert program.wait(30) == 0  # with its last window
    assert not list(Path().glob(".photos*"))


def test_strange_requests_are_refused_and_ctrl_c_ends_it(make_photos: MakePhotos) -> None:
    make_photos(3)

    def status(url: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            refused.close()
            return refused.code

    with running("photos") as (program, address):
        root = address.partition("?")[0]
        assert root.startswith("http://127.0.0.1:")
        assert status(f"{root}state") == 403
        assert status(f"{root}?token=guessed") == 403
        assert status(address, Host="evil.example") == 403
        with running("photos", "--json") as (second, said):
            assert said == ""
            assert second.wait(30) == 3
            assert second.stderr is not None
            assert "Another tlfeat label has photos-labels.csv open" in second.stderr.read()
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 0
        assert program.stderr is not None
        assert "0 of 6 pictures have a label, in photos-labels.csv" in program.stderr.read()
