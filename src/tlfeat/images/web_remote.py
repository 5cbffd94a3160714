"""Images of a web server: the links of its index pages, or whatever a table names."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from urllib.parse import urljoin

from tlfeat.errors import BadImage, DataError
from tlfeat.images.seen import Entry, stamp_of
from tlfeat.images.urls import below, web_name, web_path
from tlfeat.images.web import Answer, Passing, Unreached, Web

#: Of one index page; of a whole listing: folders that link to each other under ever new names have no end.
_MAX_PAGE_BYTES, _MAX_FOLDERS = 256 << 20, 100_000

#: A time of a file is in whole seconds, and one that was changed this shortly before may change again within it.
_SETTLED_S = 3


class WebRemote:
    """The `seen.Remote` of an http or https URL."""

    lists_stamps = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._web = Web()

    def entries(self) -> Iterator[Entry]:
        """List what the index pages link to, below the URL; sizes and stamps are asked for later, of images only."""
        top = below(self._url)
        waiting, known = deque([top]), {top}
        while waiting:
            here = waiting.popleft()
            for link in _links(self._page(here), here):
                if not link.startswith(top) or link in known:
                    continue
                known.add(link)
                if link.endswith("/"):
                    if len(known) > _MAX_FOLDERS and here != top:
                        raise DataError(f"{self._url}: more than {_MAX_FOLDERS:,} links. Name a table of the images.")
                    waiting.append(link)
                yield web_name(link[len(top) :]), -1, 0

    def entry(self, path: str) -> Entry:
        """Ask for the headers of one image."""
        answer = self._web.get(self._address(path), max_bytes=1 << 20, method="HEAD")
        length = answer.headers.get("content-length", "")
        return path, int(length) if length.isdecimal() else -1, _stamp(answer.headers)

    def fetch(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        """Read one image."""
        answer = self._web.get(self._address(path), max_bytes=max_bytes)
        return answer.body, _stamp(answer.headers)

    def _address(self, path: str) -> str:
        return below(self._url, web_path(path))

    def _page(self, url: str) -> str:
        for i in range(4):
            try:
                answer = self._web.get(url, max_bytes=_MAX_PAGE_BYTES)
            except Passing as passing:
                if i == 3 or (i == 1 and isinstance(passing, Unreached)):
                    raise DataError(f"{url} cannot be listed: {passing}.") from passing
            except BadImage as bad:
                raise DataError(f"{url} cannot be listed: {bad}.") from bad
            else:
                return _text(answer, url)
        raise AssertionError


def _text(answer: Answer, url: str) -> str:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/html", "application/xhtml+xml"):
        raise DataError(
            f"{url} is no index page (it is {kind or 'of no stated type'}). Name a server that lists its folders, or a "
            f"table with a column of URLs."
        )
    return answer.body.decode("utf-8", "surrogateescape")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _links(page: str, url: str) -> Iterator[str]:
    """Give the links of a page without those that only sort it (``?C=N``) or stay on it (``#top``)."""
    parser = _Links()
    parser.feed(page)
    for link in parser.found:
        if "?" not in link and "#" not in link:
            try:
                target = urljoin(url, link.strip())
            except ValueError:
                continue
            yield target


def _stamp(headers: Mapping[str, str]) -> int:
    """Return the stamp of an image by what a server says of it: its ETag, else size and time where that is settled.

    Both times are of the server's own clock.
    """
    length = headers.get("content-length", "")
    if etag := headers.get("etag", "").removeprefix("W/"):
        return stamp_of("etag", etag)
    try:
        changed = parsedate_to_datetime(headers.get("last-modified", ""))
        age_s = (parsedate_to_datetime(headers.get("date", "")) - changed).total_seconds()
    except (TypeError, ValueError):
        return 0
    return stamp_of("time", changed.timestamp(), length) if length and age_s > _SETTLED_S else 0
