"""The bytes of a text become a string, or a reason why they cannot; a string becomes a snippet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlfeat.errors import BadImage
from tlfeat.images.decode import read_file
from tlfeat.images.image_set import content_key

#: A text beyond this is a data set, not a text: the bytes of a thousand pages.
MAX_TEXT_BYTES = 16 << 20

#: Characters of a text that stand where an image has its picture.
SNIPPET = 120


def read_text(data: bytes) -> str:
    """Return the text in the bytes of a file, or of a line of a table.

    Raises
    ------
    BadImage
        It is empty, or not UTF-8, or too long.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise BadImage(f"too long: {len(data) / 1e6:.1f} MB, the limit is {MAX_TEXT_BYTES / 1e6:.1f} MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadImage(f"not UTF-8 text: byte {error.start:,} is 0x{data[error.start]:02x}") from error
    if not text.strip():
        raise BadImage("empty text")
    return text


@dataclass(frozen=True, slots=True)
class TableText:
    """A text of a table, as what `predict` and `embed` take in place of a file: called, it gives its bytes."""

    name: str
    text: str

    def __call__(self) -> bytes:
        return self.text.encode("utf-8", "surrogateescape")


def keyed_text(content: Path | Callable[[], bytes]) -> tuple[str, str] | None:
    """Return content key and text of a file, or of what gives the bytes of a text; None where there is none."""
    try:
        data = content() if callable(content) else read_file(content)
        return content_key(data), read_text(data)
    except BadImage:
        return None


def snippet(text: str, n: int = SNIPPET) -> str:
    """Return the beginning of a text in one line."""
    flat = " ".join(text[: 8 * n].split())
    return flat if len(flat) <= n else f"{flat[: n - 1].rstrip()}…"
