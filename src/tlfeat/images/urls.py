"""URLs of images: which schemes there are, how a URL is taken apart, and which ones may not be written down.

tlfeat records where images lie, in caches, pages and messages. A URL that holds a password, a key or a signature is
refused before anything is done with it, and the message does not repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tlfeat.errors import UsageError

#: Scheme to the one it is read as.
SCHEMES: Mapping[str, str] = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "abfs",
    "abfss": "abfs",
    "http": "http",
    "https": "https",
    "memory": "memory",
}

WEB_SCHEMES = frozenset({"http", "https"})

#: Two letters at least: "c://" is a drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

#: Names of parameters that grant access, in any case. "sig", "se", "sp", "sv" are those of Azure.
_SECRET_NAME = re.compile(
    r"^(x-amz-.*|x-goog-.*|.*(signature|token|secret|passw|credential|api-?_?key|access-?_?key|auth|session|jwt).*"
    r"|sig|sign|key|pwd|policy|expires|hmac|se|sp|sv|sr|skoid|code)$",
    re.IGNORECASE,
)

#: A value this long is no size or number of a page; it may be a key under any name.
_MAX_VALUE = 24


def is_url(text: str) -> bool:
    """Whether this is a URL and no path: letters, then ``://``."""
    return _URL.match(text) is not None


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


def checked_url(url: str) -> str:
    """Return a URL as it is written down: its scheme in small letters, no slash at its end.

    Raises
    ------
    UsageError
        An unknown scheme; or it holds what grants access, which is not repeated.
    """
    found = _URL.match(url)
    scheme = found.group(1).lower() if found else ""
    if scheme not in SCHEMES:
        raise UsageError(f"No scheme '{scheme}://'. Images are read from {', '.join(f'{s}://' for s in SCHEMES)}.")
    rest = url[len(scheme) + 3 :]
    host = re.split(r"[/?#]" if scheme in WEB_SCHEMES else "/", rest, maxsplit=1)[0]
    is_account = SCHEMES[scheme] == "abfs" and host.count("@") == 1 and ":" not in host  # container@account
    if "@" in host and not is_account:
        raise UsageError(f"A {scheme}:// URL with a user or a password in it is not taken: {_WHY}")
    if holds_secret(rest):
        raise UsageError(f"A {scheme}:// URL with a key or a signature in it is not taken: {_WHY}")
    if any(ord(c) < 32 or c == "\x7f" for c in rest) or "::" in host:
        raise UsageError(f"A {scheme}:// URL with control characters or chained by '::' is not taken.")
    if scheme in WEB_SCHEMES and "#" in rest:
        raise UsageError(f"A {scheme}:// URL of an image or a table has no '#'.")
    return f"{SCHEMES[scheme]}://{rest.rstrip('/')}"


_WHY = (
    "tlfeat writes URLs into caches and pages. Credentials come from the usual places: the environment, ~/.aws, the "
    "role of the machine (docs/remote.md)."
)


def holds_secret(url: str) -> bool:
    """Whether the part after ``?`` grants access, as far as its names and the length of its values tell."""
    _, mark, query = url.partition("?")
    pairs = parse_qsl(query.replace(";", "&"), keep_blank_values=True) if mark else []
    return any(_SECRET_NAME.match(name.strip()) or len(value) > _MAX_VALUE for name, value in pairs)


def split_web(url: str) -> tuple[str, str]:
    """Return "https://host:port" and the path of a web URL, as it is sent."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def url_name(url: str) -> str:
    """Return a short name for files: of a table its own, of a folder that and the bucket."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    host, *names = [part for part in rest.split("/") if part] or [scheme]
    last = names[-1] if names else ""
    if last.lower().endswith((".csv", ".tsv")):
        return last[:-4]
    return f"{host}-{last}" if last else host


def below(url: str, path: str = "") -> str:
    """Return a path below a URL, which may be no more than "https://"."""
    return f"{url}{path}" if url.endswith("://") else f"{url}/{path}"


def web_name(path: str) -> str:
    """Return the name that the path of a web URL has in an `ImageSet`, without quotes where that can be undone."""
    name = unquote(path, errors="surrogateescape")
    return path if any(c in name for c in "%?#") or name.count("/") != path.count("/") else name


def web_path(name: str) -> str:
    """Return what is sent for such a name, or for what a table says, which is quoted where a mark says so."""
    return quote(
        name, safe="/~!$&'()*+,;=:@-._" + ("%?" if "%" in name or "?" in name else ""), errors="surrogateescape"
    )
