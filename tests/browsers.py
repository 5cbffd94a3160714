"""Headless Chromium of the distribution for the tests of pages; nothing is downloaded.

Without it, or without the package `playwright`, a file that imports this is skipped and says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

#: What a file of such tests has as its `pytestmark`.
MARKS = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium of the distribution (chromium, google-chrome)"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a browser that fetches nothing of its own accord."""
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield opened
        opened.close()
