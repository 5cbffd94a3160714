"""The page and the text of an audit: what is said of doubted labels, and answers that a person gives in a browser."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import picture
from tlfeat.images.image_set import content_key
from tlfeat.report.audit import N_SUREST, label_trust, to_html, to_text
from tlfeat.studies.findings import Audit, Finding, Group

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def doubted(path: str, score: float = 0.1, kind: str = "label") -> Finding:
    return Finding(kind, path, 'a "b", c', "train", score, "why", suggestion="<i>d</i>")


def made(findings: list[Finding], agreement: float | None = 0.93, groups: list[Group] | None = None) -> Audit:
    n_by_class = {'a "b", c': 30, "<i>d</i>": 30}
    return Audit(Path("cache/c.h5"), None, "pooled", 60, n_by_class, groups or [], findings, [], agreement)


def test_what_is_said_of_doubted_labels_depends_on_how_well_the_head_does() -> None:
    said = [label_trust(agreement) for agreement in (0.99, 0.9, 0.899, 0.75, 0.4)]
    assert "agrees with 99 % of the labels here" in said[0]
    surest, listed = (
        [int(re.findall(rf"of {what} (\d+) %", text)[0]) for text in said]
        for what in (f"the {N_SUREST} surest", "all listed")
    )
    assert listed[0] == listed[1] > listed[2] > listed[3] == listed[4]
    assert surest[0] == surest[1] >= surest[4] > listed[4]
    text = to_text(made([doubted("x.png")], agreement=0.75))
    assert f"Probably wrong labels: look at each. {said[3]}." in text
    assert "look at each." in to_text(made([doubted("x.png")], agreement=None))


def test_the_page_shows_the_surest_of_the_doubted_labels() -> None:
    page = to_html(made([doubted(f"{i}.png") for i in range(47)]))
    assert page.count("Label is wrong") == N_SUREST
    assert f"The first {N_SUREST} of 47; all are in audit.csv." in page
    assert "Look at each. A head that had not seen them agrees with 93 %" in page


def test_a_group_is_one_line_with_its_images() -> None:
    paths = [f"{i}.png" for i in range(9)]
    group = Group(7, paths, ["cat"] * 5 + ["dog"] * 4, ["test"] * 9, "the same bytes")
    text = to_text(made([doubted(path, kind="duplicate") for path in paths], groups=[group]))
    assert re.search(r"^copies of a picture +9 in 1 group$", text, re.M)
    assert re.search(r"^7 +0.png \(cat, test\) .* 5.png \(dog, test\)  and 3 more +the same bytes$", text, re.M)
    assert "Group 7</strong>: 9 images, the same bytes" in to_html(made([], groups=[group]))


def test_without_doubted_labels_the_page_has_no_script() -> None:
    page = to_html(made([doubted("x.png", kind="outlier")]))
    assert "<script" not in page
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium of the distribution (chromium, google-chrome)")
@pytest.mark.xdist_group("browser")
def test_answers_are_saved_as_a_table(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    nasty = '"><script>alert(1)</script>, "x".png'
    file = tmp_path / "audit.html"
    file.write_text(to_html(made([doubted("one.png"), doubted(nasty), doubted("three.png")])), encoding="utf-8")
    said: list[Any] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(offline=True).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto(file.as_uri())
        assert page.locator("#save").is_disabled()
        wrong, right = page.get_by_text("Label is wrong"), page.get_by_text("Label is right")
        for button in (wrong.nth(1), right.nth(0), right.nth(2), wrong.nth(0), right.nth(2)):  # the last takes it back
            button.click()
        assert page.locator("#save").inner_text() == "Save 2 of 3 answers (CSV)"
        assert [b.get_attribute("aria-pressed") for b in right.all()] == ["false", "false", "false"]
        with page.expect_download() as download:
            page.locator("#save").click()
        saved = tmp_path / "saved.csv"
        download.value.save_as(saved)
        assert download.value.suggested_filename == "answers.csv"
        browser.close()
    doubled = nasty.replace('"', '""')
    assert saved.read_text(encoding="utf-8").splitlines() == [
        "path,label,suggestion,answer",
        '"one.png","a ""b"", c","<i>d</i>","wrong"',
        f'"{doubled}","a ""b"", c","<i>d</i>","wrong"',
    ]
    assert said == []


def test_the_page_shows_a_picture_only_if_it_is_the_one_that_was_embedded(tmp_path: Path) -> None:
    """A stranger's cache may name any picture of the user's, and the page is made to be passed on."""
    picture(1, (40, 30)).save(tmp_path / "of the set.png")
    picture(2, (40, 30)).save(tmp_path / "of the user.png")
    key = content_key((tmp_path / "of the set.png").read_bytes())
    findings = [doubted(name, kind="outlier") for name in ("of the set.png", "of the user.png", "gone.png")]
    found = replace(made(findings), home=tmp_path, key_of={"of the set.png": key, "of the user.png": key})
    assert to_html(found).count("data:image/jpeg;base64,") == 1
    assert to_html(replace(found, key_of={})).count("data:image/jpeg;base64,") == 0
