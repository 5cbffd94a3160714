"""The page in a browser: it answers when pointed at, by mouse and by keyboard, and runs nothing of a stranger's.

Headless Chromium of the distribution; nothing is downloaded. Without it, or without the package `playwright`, these
tests are skipped and say so.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import browsers
from made_results import keep_network
from tlfeat import workspace
from tlfeat.evaluate.data import open_data
from tlfeat.extract.plan import plan_extraction
from tlfeat.report.page import write_reports
from tlfeat.studies.compare import compare_candidates, known_comparison

pytestmark = browsers.MARKS

browser = browsers.browser

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><b onmouseover=alert(1)>',
    "javascript:alert(1)",
]
MARKED = [name.replace("/", "∕") for name in HOSTILE]  # a file's name has no slash


def write_page(folder: Path, labels: list[str], *, n: int = 30, is_hostile: bool = False) -> Path:
    """A page with a head that is often wrong, another one, and a network; the pictures tell a little."""
    rng = np.random.default_rng(0)
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "domain"])
        for c, label in enumerate(labels):
            for i in range(n):
                name = f"{MARKED[i % 4]}{c}-{i}.png" if is_hostile else f"{c}-{i}.png"
                pixels = rng.integers(0, 256, (24, 32, 3)) // 2 + (60 if i % 3 else 0) * np.eye(3)[c % 3]
                Image.fromarray(pixels.astype(np.uint8)).resize((64, 48)).save(folder / name)
                writer.writerow([name, label, HOSTILE[i % 4] if is_hostile else ("north", "south", "")[i % 4 % 3]])
    cache = plan_extraction(folder / "t.csv", backbone="pixels").run().cache
    with open_data(cache, seed=0) as data:
        found = compare_candidates(data, heads=("knn", "lda"), keras_modes=(), has_pixels=False)
        keep_network(workspace.models_dir(data.cache.path), found.lines[-1].result)
        return write_reports(known_comparison(data), data, folder / "out")["html"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("plain")
        patch.chdir(folder)
        yield write_page(folder, ["cat", "dog", "newt"])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("hostile")
        patch.chdir(folder)
        yield write_page(folder, HOSTILE, is_hostile=True)


@dataclass
class Visit:
    """A page that is open, and what it did that it should not."""

    page: Any
    said: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def is_visible(self, selector: str) -> bool:
        return bool(self.page.locator(selector).is_visible())


class Opener:
    """Opens pages in contexts of their own; at the end none may have complained, fetched or run anything."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.visits: list[Visit] = []

    def __call__(self, file: Path, *, width: int = 1100, **options: Any) -> Visit:
        context = self.browser.new_context(viewport={"width": width, "height": 800}, **options)
        visit = Visit(context.new_page())
        page = visit.page
        page.on("console", lambda message: visit.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: visit.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (visit.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda r: visit.said.append(r.url) if r.url != file.as_uri() and r.url[:5] != "data:" else 0)
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective))"
        )
        page.goto(file.as_uri())
        self.visits.append(visit)
        return visit


@pytest.fixture
def visit(browser: Any) -> Iterator[Opener]:
    opener = Opener(browser)
    yield opener
    said = [text for visit in opener.visits for text in visit.said]
    for opened in opener.visits:
        opened.page.context.close()
    assert said == []


def settle(page: Any) -> None:
    """Let the browser finish scrolling, which hides what was said of another place."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def on_the_map(page: Any, kind: str = "path") -> tuple[float, float]:
    """Where a point of the map lies on the screen; the last one, which no other covers."""
    page.locator("#map").scroll_into_view_if_needed()
    settle(page)
    box = page.locator(f"#points {kind}").last.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def colours(page: Any) -> set[str]:
    return set(page.eval_on_selector_all("#points path", "paths => paths.map((p) => getComputedStyle(p).fill)"))


def test_what_would_be_complained_of_is_noticed(browser: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    bad.write_text(f"{policy}<script>alert(1)</script><img src='http://127.0.0.1:9/x.png'>")
    opener = Opener(browser)
    opened = opener(bad)
    opened.page.evaluate("console.warn('w')")
    assert any("script-src" in text for text in opened.said) and any("img-src" in text for text in opened.said)
    opened.page.context.close()


def test_pointing_at_the_map_shows_the_picture_and_a_click_opens_it(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    assert page.locator("#points path").count() == 90
    assert not opened.is_visible("#tip")
    page.mouse.move(*on_the_map(page))
    assert opened.is_visible("#tip .picture")
    style = page.eval_on_selector("#tip .picture", "e => getComputedStyle(e).backgroundImage")
    assert style.startswith('url("data:image/jpeg;base64,')
    path = page.locator("#tip .picture").get_attribute("aria-label")
    assert path.endswith(".png") and path in opened.text("#tip")
    page.mouse.click(*on_the_map(page))
    assert opened.is_visible("#panel") and opened.text("#panel-title") == path
    page.keyboard.press("Escape")
    assert not opened.is_visible("#panel")
    page.mouse.move(5, 5)
    assert not opened.is_visible("#tip")


def test_the_map_can_be_walked_by_keyboard(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    first = opened.text("#tip")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    second = opened.text("#tip")
    assert first != second and second.splitlines()[-3] in page.locator("#said").text_content()
    page.keyboard.press("Enter")
    assert opened.text("#panel-title") == second.splitlines()[-3]
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "map"


def test_colours_of_the_map_follow_the_choice(visit: Opener, plain: Path) -> None:
    page = visit(plain).page
    by_class = colours(page)
    assert len(by_class) == 3 and page.locator("#key button").count() == 3
    page.get_by_label("domain", exact=True).check()
    assert page.locator("#key button").all_inner_texts() == ["(no domain) (21)", "north (45)", "south (24)"]
    fills = page.eval_on_selector_all("#points path", "paths => paths.map((p) => getComputedStyle(p).fill)")
    assert sorted(map(fills.count, set(fills))) == [21, 24, 45]
    assert page.locator("#domains ~ .scroll th").all_inner_texts()[1].startswith("(no domain)")
    page.get_by_label("split", exact=True).check()
    assert len(colours(page)) == 3 and colours(page) != by_class
    assert page.locator("#key").inner_text().count("test (18)") == 1
    page.get_by_role("radio", name="mistakes of").check()
    assert "wrong (" in page.locator("#key").inner_text()
    shapes = page.eval_on_selector_all("#points path", "paths => new Set(paths.map((p) => p.getAttribute('d'))).size")
    assert shapes == 3  # colour is not the only sign
    page.locator("#key button", has_text="wrong").click()
    assert page.locator("#points path.dim").count() > 80
    assert page.evaluate("document.activeElement.textContent").startswith("wrong")


def view_of(page: Any) -> list[float]:
    return [float(part) for part in page.locator("#map").get_attribute("viewBox").split()]


def test_the_map_is_zoomed_by_buttons_keys_and_the_wheel_and_dragged(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    whole = view_of(page)
    assert page.locator("#zoom-out").is_disabled() and page.locator("#zoom-all").is_disabled()
    page.locator("#zoom-in").click()
    by_button = view_of(page)
    assert by_button[2] < whole[2] and by_button[2] == by_button[3]
    assert page.locator("#points path").first.get_attribute("transform").endswith(f"scale({by_button[2] / whole[2]:g})")
    x, y = on_the_map(page)
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    for _ in range(100):
        settle(page)
        if view_of(page)[2] < by_button[2]:
            break
    assert on_the_map(page) == pytest.approx((x, y), abs=1)  # what is pointed at stays there
    before = view_of(page)
    box = page.locator("#map").bounding_box()
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*centre)
    page.mouse.down()
    page.mouse.move(centre[0] + 10, centre[1])
    page.mouse.move(centre[0] + 30, centre[1] + 20)
    page.mouse.up()
    after = view_of(page)
    assert after[2] == before[2] and after[0] < before[0] and after[1] < before[1]
    assert not opened.is_visible("#panel")  # a drag is no click
    page.mouse.dblclick(*centre)
    assert view_of(page) == whole and not opened.is_visible("#panel")
    page.locator("#map").focus()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert view_of(page)[2] < by_button[2]
    page.keyboard.press("-")
    assert view_of(page)[2] == pytest.approx(by_button[2])
    for _ in range(12):  # walking to the edge takes the view along
        page.keyboard.press("ArrowRight")
    ring = page.evaluate(
        "[document.getElementById('ring').cx.baseVal.value, map.viewBox.baseVal.x, map.viewBox.baseVal.width]"
    )
    assert ring[1] <= ring[0] <= ring[1] + ring[2]


def test_two_fingers_zoom_the_map(visit: Opener, plain: Path) -> None:
    page = visit(plain, width=390, has_touch=True, is_mobile=True).page
    page.locator("#map").scroll_into_view_if_needed()
    settle(page)
    box = page.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    for kind, reach in (("touchStart", 30), ("touchMove", 60), ("touchMove", 90)):
        points = [{"x": x - reach, "y": y, "id": 0}, {"x": x + reach, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert view_of(page)[2] == pytest.approx(360, rel=0.05)


def test_a_picture_is_shown_larger_with_what_every_candidate_says(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    small = page.locator("#first .picture").first
    path, width = small.get_attribute("aria-label"), small.bounding_box()["width"]
    page.get_by_role("button", name=f"Show {path} larger").first.press("Enter")
    assert opened.text("#panel-title") == path
    shown = page.locator("#panel .picture")
    assert shown.bounding_box()["width"] > 1.9 * width
    assert shown.evaluate("e => parseFloat(getComputedStyle(e).backgroundSize)") > 10 * 1.9 * width
    assert page.locator("#panel tbody tr").count() == 3 and "True class: " in opened.text("#panel-body")
    page.keyboard.press("Escape")
    page.locator("#wrong button.look").first.click()
    assert opened.is_visible("#panel .picture")


def test_words_are_explained_by_keyboard_and_touch(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    page.locator("th .term", has_text="macro F1").focus()
    page.keyboard.press("Enter")
    assert opened.text(".word:popover-open").startswith("macro F1: mean of the F1 scores")
    page.keyboard.press("Escape")
    assert page.locator(".word:popover-open").count() == 0
    targets = page.eval_on_selector_all(".term", "all => all.map((e) => e.popoverTargetElement !== null)")
    assert len(targets) > 8 and all(targets)
    small = visit(plain, width=390, has_touch=True, is_mobile=True).page
    small.locator(".verdict .term").first.tap()
    box = small.locator(".word:popover-open").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_another_map_moves_the_points(visit: Opener, plain: Path) -> None:
    page = visit(plain).page
    place = page.locator("#points path").first.get_attribute("transform")
    page.get_by_label("t-SNE").check()
    assert page.locator("#points path").first.get_attribute("transform") != place


def test_a_cell_opens_its_pictures_and_escape_gives_the_focus_back(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    cell = page.locator("#matrix button.false").first
    n = int(cell.inner_text())
    assert re.fullmatch(rf"{n} of class \w+ predicted as \w+", cell.get_attribute("aria-label"))
    cell.click()
    assert opened.is_visible("#panel") and page.locator("#panel li .picture").count() == n
    assert "%" in page.locator("#panel li").first.inner_text() and ".png" in opened.text("#panel-body")
    page.keyboard.press("Escape")
    assert not opened.is_visible("#panel")
    assert page.evaluate("document.activeElement.className") == "false"


def test_cells_work_by_keyboard_alone(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    page.locator("#candidate").focus()
    for _ in range(3):  # the frame that scrolls, then the first cell
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.row") is not None:
            break
    where = "[Number(document.activeElement.dataset.row), Number(document.activeElement.dataset.column)]"
    assert page.evaluate(where) == [0, 0]
    while page.evaluate("document.activeElement.className") != "false":
        page.keyboard.press("Tab")
    row, column = page.evaluate(where)
    page.keyboard.press("ArrowRight" if column < row else "ArrowLeft")
    after = page.evaluate(where)
    assert after[0] == row and abs(after[1] - row) < abs(column - row)
    page.keyboard.press("Enter")
    assert opened.is_visible("#panel")
    page.keyboard.press("Tab")
    assert page.evaluate(
        "document.activeElement.closest('dialog') !== null || document.activeElement === document.body"
    )
    page.keyboard.press("Escape")
    assert page.evaluate(where) == after


def test_another_candidate_has_another_matrix_and_other_mistakes(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    names = [option.split(",")[0] for option in page.locator("#candidate option").all_inner_texts()]
    before, wrong, title = opened.text("#matrix"), opened.text("#wrong"), opened.text("h2#mistakes")
    reliability = page.locator("#reliability ~ .detail:visible").inner_text()
    other = next(i for i, name in enumerate(names) if name == ("knn" if names[0] == "lda" else "lda"))
    page.select_option("#candidate", index=other)
    assert opened.text("#matrix") != before and opened.text("#wrong") != wrong and opened.text("h2#mistakes") != title
    assert page.locator("#reliability ~ .detail:visible").inner_text() != reliability
    assert names[other] in page.locator("#said").text_content()
    assert page.locator("#wrong li").count() == sum(map(int, page.locator("#matrix button.false").all_inner_texts()))


def test_charts_answer_mouse_and_keyboard(visit: Opener, plain: Path) -> None:
    opened = visit(plain)
    page = opened.page
    mark = page.locator("figure.cost:visible .mark").first
    mark.scroll_into_view_if_needed()
    settle(page)
    box = mark.locator(".reach").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert opened.text("#tip") == mark.get_attribute("data-says")
    page.get_by_role("radio", name="the last fit alone").check()
    shown = page.locator("figure.cost:visible")
    assert shown.count() == 1 and "the last fit alone" in shown.locator("svg:visible").get_attribute("aria-label")
    column = page.locator(".column").first
    column.scroll_into_view_if_needed()
    settle(page)
    column.hover()
    assert opened.text("#tip").startswith("Epoch 1: loss 0.9, validation loss 0.8")
    column.focus()
    page.keyboard.press("ArrowRight")
    assert opened.text("#tip").startswith("Epoch 2 (chosen)") and "learning rate 0.001" in opened.text("#tip")
    page.keyboard.press("Escape")
    assert not opened.is_visible("#tip")


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2, of "rgb(r, g, b)"."""
    parts = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]])
    parts = parts if colour.startswith("color(srgb") else parts / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_legible(visit: Opener, plain: Path, scheme: str) -> None:
    page = visit(plain, color_scheme=scheme).page
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.1) == (scheme == "dark")
    style = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    for selector in ("#matrix button.true", "#matrix button.false", "#key button", "select", ".pictures li"):
        ink, paper = page.locator(selector).first.evaluate(style)
        assert contrast(ink, paper) > 4.5, selector
    assert contrast(page.locator("nav a").first.evaluate(style)[0], ground) > 4.5
    for colour in colours(page) | {page.locator(".mark").first.evaluate("e => getComputedStyle(e).color")}:
        assert contrast(colour, ground) > 3


def test_a_telephone_needs_no_sideways_scrolling(visit: Opener, plain: Path, hostile: Path) -> None:
    for file in (plain, hostile):
        page = visit(file, width=360, has_touch=True, is_mobile=True).page
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.locator("#matrix button.true").first.tap()
        assert page.locator("#panel").bounding_box()["width"] <= 360
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_telephone_keeps_letters_and_a_screen_its_whole_width(visit: Opener, plain: Path) -> None:
    small = visit(plain, width=390, has_touch=True, is_mobile=True).page
    letters = "all => all.filter((e) => e.checkVisibility()).map((e) => 12 * e.getScreenCTM().a)"
    sizes = small.eval_on_selector_all("svg.chart text", letters)
    assert len(sizes) > 20 and min(sizes) > 10.5
    cells = small.locator("table.stack td:visible")
    assert cells.evaluate_all("all => Math.max(...all.map((e) => e.getBoundingClientRect().right))") <= 390
    assert cells.first.evaluate("e => getComputedStyle(e, '::before').content") == '"accuracy"'
    wide = visit(plain, width=1400).page
    box = wide.locator("table.stack").bounding_box()
    assert box["width"] > 1250 and box["x"] + box["width"] <= 1400


def test_names_of_a_stranger_are_shown_and_run_nothing(visit: Opener, hostile: Path) -> None:
    opened = visit(hostile)
    page = opened.page
    shown = opened.text("body")
    assert all(name in shown for name in (*HOSTILE, *MARKED))
    assert page.locator("img, b, iframe, body > script:not([id]) ~ script").count() == 0
    for i in range(page.locator("#candidate option").count()):
        page.select_option("#candidate", index=i)
        for cell in page.locator("#matrix button").all()[:6]:
            cell.click()
            page.keyboard.press("Escape")
    for colour in ("class", "domain", "split", "mistake"):
        page.locator(f'input[name="colour"][value="{colour}"]').check()
        page.mouse.move(*on_the_map(page))
        assert opened.is_visible("#tip .picture")
    for key in page.locator("#key button").all():
        key.hover()
    assert page.evaluate("[...document.scripts].length") == 2
    assert page.evaluate("[...document.querySelectorAll('a')].every((a) => a.getAttribute('href').startsWith('#'))")


def test_without_scripts_the_tables_and_charts_are_there(visit: Opener, plain: Path) -> None:
    opened = visit(plain, java_script_enabled=False)
    page = opened.page
    assert "Scripts are off" in opened.text("body")
    assert page.locator("#matrix table").is_visible() and page.locator("#wrong table").is_visible()
    assert page.locator("svg.chart:visible").count() == 4  # accuracy, loss and accuracy by epoch, reliability
    assert page.locator("#first .picture").first.evaluate("e => getComputedStyle(e).backgroundImage").startswith("url(")
    page.locator("th .term", has_text="macro F1").click()
    assert "mean of the F1 scores" in opened.text(".word:popover-open")
    assert page.locator("#candidate").is_hidden() and page.locator("#map").is_hidden()


@pytest.mark.soak
def test_a_hundred_classes_stay_usable(visit: Opener, tmp_path: Path) -> None:
    opened = visit(write_page(tmp_path, [f"class number {c:03}" for c in range(100)], n=5))
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 1100
    assert page.locator("#matrix").evaluate("e => e.scrollWidth > e.clientWidth && e.clientHeight < 900")
    assert page.locator("#matrix button").count() < 400  # cells that hold nothing are no buttons
    pair = page.locator("#pairs button").first
    words = pair.inner_text()
    pair.click()
    assert opened.text("#panel-title").startswith(words)


def test_every_control_and_region_has_a_name(visit: Opener, plain: Path) -> None:
    page = visit(plain).page
    tree = page.locator("body").aria_snapshot()
    for part in ("main", "navigation \"Sections\"", "heading \"Map of the embeddings\" [level=2]",
                 "region \"Confusion matrix\"",
                 "combobox \"Confusion matrix, mistakes and reliability of\""):  # fmt: skip
        assert part in tree
    assert not re.search(r"- (button|combobox|radio|application)(:|$)", tree, flags=re.MULTILINE)
    assert page.locator("table:visible caption, table:visible[aria-labelledby]").count() >= 2
    assert page.locator("th:not([scope])").count() == 0
