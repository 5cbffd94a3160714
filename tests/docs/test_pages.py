"""What the pages promise: they stay short, links lead somewhere, the Python on them runs, the licence is whole."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from conftest import ROOT, MakePhotos

DOCS = ROOT / "docs"

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "cache" / "README.md"])

#: Words of our own for what has a name in the field, and the name.
OWN_WORDS = {
    r"learn(ed)? from": "training images",
    r"taken for what": "confusion matrix",
    r"cho(o)?se nothing": "take no part in any choice",
    r"as it should be": "with the backbone's own preprocessing",
    r"\bstrangers?\b": "images of other sets; someone else",
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "n_words"), [("README.md", 900), ("docs/architecture.md", 1_000)])
def test_a_page_that_everyone_reads_is_short(page: str, n_words: int) -> None:
    assert len(text_of(ROOT / page).split()) <= n_words


def test_the_glossary_has_at_most_25_words_in_alphabetical_order() -> None:
    words = re.findall(r"^\| (?!word|---)([^|]+?) \|", text_of(DOCS / "glossary.md"), flags=re.MULTILINE)
    assert 10 <= len(words) <= 25
    assert words == sorted(words, key=str.lower)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown hosts make them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text_of(page)):
        assert not target.startswith("http"), "no page names a host that may go away"
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "commands.md"], ids=lambda page: page.name)
def test_pages_use_the_terms_of_the_field(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for own, term in OWN_WORDS.items():
        assert not re.search(own, prose, flags=re.IGNORECASE), f"{own}: say {term}"


def test_every_page_in_docs_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in seen:
            seen.add(page)
            links = re.findall(r"\]\(([^)#\s]+\.md)", text_of(page))
            todo += [(page.parent / link).resolve() for link in links]
    assert seen >= set(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_are_small(page: Path) -> None:
    for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(page)):
        assert (page.parent / target).stat().st_size < 300_000


def test_the_files_that_a_contributor_is_sent_to_are_there() -> None:
    paths = re.findall(r"`((?:src|tests|tools|docs|benchmarks)/[\w./-]+)`", text_of(ROOT / "CONTRIBUTING.md"))
    assert len(paths) >= 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_blocks_of_the_python_page_run_one_after_another(make_photos: MakePhotos) -> None:
    make_photos(n=20)
    blocks = re.findall(r"```python\n(.*?)```", text_of(DOCS / "python.md"), flags=re.DOTALL)
    assert len(blocks) == 9
    names: dict[str, object] = {"__name__": "python_page"}
    for block in blocks:
        exec(block.replace("mobilenet_v2", "pixels"), names)  # no download, no TensorFlow
    assert names["colours"].n_embedded == 40  # type: ignore[attr-defined]


def test_the_licence_is_the_whole_of_apache_2_and_goes_into_the_package() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert f"\nversion: {project['version']}\n" in text_of(ROOT / "CITATION.cff")
