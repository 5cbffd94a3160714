"""Columns of millions of lines in little memory: they read as lists of texts or numbers do.

A list of a million paths takes 100 MB and one of content keys 120 MB; here they take 10 and 32. A column is blocks of
`BLOCK_LINES` lines, as the path table is on the disk. Columns that were copied from one another share blocks until one
of them is changed, so that a table of the previous run and one of this run take the memory of one.

=========  ==============================================================================  =============
column     what a block is                                                                 bytes a line
=========  ==============================================================================  =============
`Paths`    UTF-8, of each text what it does not share with the one before, every 16th whole     about 10
`Codes`    numbers of texts; of one text throughout nothing                                 0, 1, 2 or 4
`Keys`     the 32 bytes of a sha256                                                                   32
`Numbers`  what each is above the least                                                     0, 1, 2, 4, 8
=========  ==============================================================================  =============

Reading changes nothing, so several threads may. Only `Codes` and `Keys` can be changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.blocks import BLOCK_LINES, Chained, Column
from tlfeat.front_coding import WHOLE_EVERY, front_coded, narrow, wide

#: Different texts that `pack` numbers: these, and one for so many lines.
_MAX_DISTINCT, _DISTINCT_SHARE = 1024, 8


class Paths(Column[str]):
    """Texts that mostly begin as the one before does; they cannot be changed."""

    def _pack(self, values: Sequence[str]) -> Any:
        encoded = [value.encode("utf-8", "surrogateescape") for value in values]
        endings, shared, lengths = front_coded(encoded)
        starts = np.concatenate([[0], np.cumsum(lengths)])[:-1:WHOLE_EVERY]
        return endings, narrow(shared), narrow(lengths), narrow(starts)

    @property
    def most_bytes(self) -> int:
        """The bytes of the longest text."""
        return max((int((wide(shared) + wide(ends)).max()) for _, shared, ends, _ in self._blocks), default=0)

    def _values(self, block: Any) -> list[str]:
        endings, shared, lengths, _ = block
        found, text, at = [], b"", 0
        for n_shared, length in zip(shared, lengths, strict=True):
            text = text[:n_shared] + endings[at : at + length]
            at += length
            found.append(text.decode("utf-8", "surrogateescape"))
        return found

    def _one(self, block: Any, at: int) -> str:
        endings, shared, lengths, starts = block
        first = at - at % WHOLE_EVERY
        start, text = starts[first // WHOLE_EVERY], b""
        for i in range(first, at + 1):
            text = text[: shared[i]] + endings[start : start + lengths[i]]
            start += lengths[i]
        return str(text, "utf-8", "surrogateescape")

    def _is_equal(self, block: Any, other: Any, of_other: Any) -> bool | None:
        return bool(block == of_other)  # one text is packed in one way


class Codes(Column[str]):
    """Texts of which few differ (labels, splits, status, errors), as numbers; they can be changed."""

    def __init__(self, blocks: Iterable[Any] = (), n: int = 0, like: Codes | None = None) -> None:
        super().__init__(blocks, n)
        self._texts: list[str] = [] if like is None else like._texts  # only ever appended to
        self._codes: dict[str, int] = {} if like is None else like._codes

    @classmethod
    def filled(cls, text: str, n: int) -> Codes:
        """Return a column of one text."""
        new = cls()
        code = new._code(text)
        new._blocks = [_constant(code, min(BLOCK_LINES, n - start)) for start in range(0, n, BLOCK_LINES)]
        new._n = n
        return new

    def _empty(self) -> Codes:
        return Codes(like=self)

    def _code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._texts)
            self._texts.append(text)
        return code

    @property
    def distinct(self) -> set[str]:
        """The different texts."""
        codes = set().union(*(np.unique(block).tolist() for block in self._blocks))
        return {self._texts[code] for code in codes}

    @property
    def n_distinct(self) -> int:
        """How many different texts there have been."""
        return len(self._texts)

    def _pack(self, values: Sequence[str]) -> Any:
        if values[0] == values[-1] and list(values).count(values[0]) == len(values):
            return _constant(self._code(values[0]), len(values))
        known = self._codes
        found = [known[value] if value in known else self._code(value) for value in values]
        return _compact(np.array(found, np.int64))

    def _values(self, block: Any) -> list[str]:
        if block.strides == (0,):
            return [self._texts[int(block[0])]] * len(block)
        return list(map(self._texts.__getitem__, block.tolist()))

    def _one(self, block: Any, at: int) -> str:
        return self._texts[int(block[at])]

    def __setitem__(self, at: int, text: str) -> None:
        number, inside = divmod(self._place(at), BLOCK_LINES)
        code, block = self._code(text), self._blocks[number]
        if code > np.iinfo(block.dtype).max:
            block = self._blocks[number] = block.astype(np.min_scalar_type(code))
            self._own.add(number)
        elif number not in self._own:
            block = self._blocks[number] = block.copy()
            self._own.add(number)
        block[inside] = code

    def is_text(self, number: int, text: str) -> npt.NDArray[np.bool_]:
        """Return which lines of a block are `text`."""
        block = self._blocks[number]
        code = self._codes.get(text)
        return np.zeros(len(block), np.bool_) if code is None else np.asarray(block == code)

    def coded(self, number: int) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Return the different texts of a block, and which of them each line is."""
        codes, at = np.unique(self._blocks[number], return_inverse=True)
        return [self._texts[code] for code in codes.tolist()], at

    def set_some(self, number: int, is_set: npt.NDArray[np.bool_], text: str) -> None:
        """Set lines of a block to `text`."""
        for at in np.flatnonzero(is_set & ~self.is_text(number, text)).tolist():
            self[number * BLOCK_LINES + at] = text

    def where(self, text: str) -> Iterator[int]:
        """Give the places of one text."""
        for number in range(self.n_blocks):
            yield from (np.flatnonzero(self.is_text(number, text)) + number * BLOCK_LINES).tolist()

    def where_not(self, text: str) -> Iterator[int]:
        """Give the places of all other texts."""
        for number in range(self.n_blocks):
            yield from (np.flatnonzero(~self.is_text(number, text)) + number * BLOCK_LINES).tolist()

    def are(self, text: str, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of these lines are `text`."""
        found, code = np.zeros(len(places), np.bool_), self._codes.get(text, -1)
        for block, inside, some in self._parts(places):
            found[some] = block[inside] == code
        return found

    def count(self, text: object) -> int:
        """How many lines are `text`."""
        code = self._codes.get(text) if isinstance(text, str) else None
        return 0 if code is None else sum(int((block == code).sum()) for block in self._blocks)

    def __contains__(self, text: object) -> bool:
        code = self._codes.get(text) if isinstance(text, str) else None
        return code is not None and any((block == code).any() for block in self._blocks)

    def _is_equal(self, block: Any, other: Any, of_other: Any) -> bool | None:
        return np.array_equal(block, of_other) if other._texts is self._texts else None

    def share(self, other: object) -> None:
        """Share blocks as `Column.share` says, where texts are numbered alike."""
        if isinstance(other, Codes) and self._texts == other._texts:
            self._texts, self._codes = other._texts, other._codes
            super().share(other)


class Keys(Column[str]):
    """Content keys, "" where there is none; they can be changed."""

    @classmethod
    def none(cls, n: int) -> Keys:
        """Return a column without a key."""
        sizes = [min(BLOCK_LINES, n - start) for start in range(0, n, BLOCK_LINES)]
        return cls(((np.broadcast_to(np.uint8(0), (m, 32)), _constant(False, m)) for m in sizes), n)

    def _pack(self, values: Sequence[str]) -> Any:
        digests = np.frombuffer(bytes.fromhex("".join(value or "00" * 32 for value in values)), np.uint8)
        return _keys_block(digests.reshape(-1, 32), np.array([value != "" for value in values]))

    def _values(self, block: Any) -> list[str]:
        digests, is_there = block
        digits = digests.tobytes().hex()
        found = [digits[at : at + 64] for at in range(0, len(digits), 64)]
        return found if is_there.all() else [key if there else "" for key, there in zip(found, is_there, strict=True)]

    def _one(self, block: Any, at: int) -> str:
        digests, is_there = block
        return digests[at].tobytes().hex() if is_there[at] else ""

    def __setitem__(self, at: int, key: str) -> None:
        number, inside = divmod(self._place(at), BLOCK_LINES)
        if number not in self._own:
            self._blocks[number] = tuple(part.copy() for part in self._blocks[number])
            self._own.add(number)
        digests, is_there = self._blocks[number]
        digests[inside] = np.frombuffer(bytes.fromhex(key) or bytes(32), np.uint8)
        is_there[inside] = key != ""

    @property
    def has_any(self) -> bool:
        """Whether there is a key in any line."""
        return any(is_there.any() for _, is_there in self._blocks)

    def extend_packed(self, digests: npt.NDArray[np.uint8], is_there: npt.NDArray[np.bool_]) -> None:
        """Add lines at the end as `extend` does.

        Parameters
        ----------
        digests : uint8 array of shape (n, 32)
            Zeros where there is no key.
        is_there : bool array of shape (n,)
        """
        for start in range(0, len(digests), BLOCK_LINES):
            stop = start + BLOCK_LINES
            self._blocks.append(_keys_block(digests[start:stop], is_there[start:stop]))
        self._n += len(digests)

    def digests(self, number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Return the keys of a block as bytes, (n, 32), and which lines have one."""
        found: tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]] = self._blocks[number]
        return found

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the keys of these lines as bytes, (n, 32); zeros where there is none."""
        found = np.empty((len(places), 32), np.uint8)
        for (digests, _), inside, some in self._parts(places):
            found[some] = digests[inside]
        return found

    def _is_equal(self, block: Any, other: Any, of_other: Any) -> bool | None:
        return all(np.array_equal(one, two) for one, two in zip(block, of_other, strict=True))


def _keys_block(digests: npt.NDArray[np.uint8], is_there: npt.NDArray[np.bool_]) -> Any:
    if not is_there.any():
        return np.broadcast_to(np.uint8(0), digests.shape), _constant(False, len(is_there))
    return digests, (_constant(True, len(is_there)) if is_there.all() else is_there)


class Numbers(Column[int]):
    """Whole numbers of 64 bits; they cannot be changed."""

    def _pack(self, values: Sequence[int]) -> Any:
        found = np.asarray(values, np.int64)
        least = found.min()
        return int(least), _compact(found.astype(np.uint64) - least.astype(np.uint64))

    def _values(self, block: Any) -> list[int]:
        found: list[int] = self.of_block(block).tolist()
        return found

    def _one(self, block: Any, at: int) -> int:
        return int(block[0]) + int(block[1][at])

    def extend_array(self, values: npt.NDArray[np.int64]) -> None:
        """Add lines at the end as `extend` does."""
        self.extend(values)  # type: ignore[arg-type]

    def numbers(self, number: int) -> npt.NDArray[np.int64]:
        """Return the lines of a block."""
        return self.of_block(self._blocks[number])

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return these lines."""
        found = np.empty(len(places), np.int64)
        for block, inside, some in self._parts(places):
            found[some] = self.of_block(block)[inside]
        return found

    @staticmethod
    def of_block(block: Any) -> npt.NDArray[np.int64]:
        """Return what is in a block."""
        least, above = block
        found: npt.NDArray[np.int64] = (above.astype(np.uint64) + np.int64(least).astype(np.uint64)).astype(np.int64)
        return found

    def _is_equal(self, block: Any, other: Any, of_other: Any) -> bool | None:
        return bool(block[0] == of_other[0]) and np.array_equal(block[1], of_other[1])


def _constant(value: Any, n: int) -> npt.NDArray[Any]:
    """Return an array of one value that takes no memory; it cannot be written to."""
    return np.broadcast_to(np.array(value, np.min_scalar_type(value)), (n,))


def _compact(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numbers from 0 in as few bytes as the largest needs, and in none where all are one."""
    most = values.max()
    if (values == most).all():
        return _constant(int(most), len(values))
    return values.astype(np.min_scalar_type(int(most)))


class Collected:
    """Texts that are collected line by line, packed as they come.

    Those of which few differ become `Codes`, and others `Paths`.
    """

    def __init__(self, *, is_path: bool = False) -> None:
        self._column: Paths | Codes = Paths() if is_path else Codes()
        self._waiting: list[str] = []

    def __len__(self) -> int:
        return len(self._column) + len(self._waiting)

    def append(self, text: str) -> None:
        """Add a line."""
        self._waiting.append(text)
        if len(self._waiting) == BLOCK_LINES:
            self._flush()

    def extend(self, texts: Iterable[str]) -> None:
        """Add lines."""
        left = iter(texts)
        while some := list(islice(left, BLOCK_LINES - len(self._waiting))):
            self._waiting += some
            if len(self._waiting) == BLOCK_LINES:
                self._flush()

    def _flush(self) -> None:
        column, self._waiting = self._waiting, []
        self._column.extend(column)
        held = self._column
        if isinstance(held, Codes) and held.n_distinct > _MAX_DISTINCT + len(held) // _DISTINCT_SHARE:
            self._column = Paths()
            for start in range(0, len(held), BLOCK_LINES):
                self._column.extend(held[start : start + BLOCK_LINES])

    def column(self) -> Paths | Codes:
        """Return all lines; nothing can be added after it."""
        if self._waiting:
            self._flush()
        return self._column


#: A column of texts that can be changed.
Editable = list[str] | Codes | Keys


def pack(texts: Iterable[str], *, is_path: bool = False) -> Paths | Codes:
    """Return texts as a column; it is `texts` itself where that is one."""
    if isinstance(texts, (Paths, Codes)):
        return texts
    found = Collected(is_path=is_path)
    found.extend(texts)
    return found.column()


def as_codes(texts: Sequence[str]) -> Codes:
    """Return texts as a column that can be changed, however many of them differ; `texts` itself where that is one."""
    if isinstance(texts, Codes):
        return texts
    new = Codes()
    for start in range(0, len(texts), BLOCK_LINES):
        new.extend(texts[start : start + BLOCK_LINES])
    return new


def pack_keys(keys: Sequence[str]) -> Keys:
    """Return content keys as a column; it is `keys` itself where that is one."""
    if isinstance(keys, Keys):
        return keys
    new = Keys()
    new.extend(keys)
    return new


def pack_numbers(values: Sequence[int]) -> Numbers:
    """Return whole numbers as a column; it is `values` itself where that is one."""
    if isinstance(values, Numbers):
        return values
    new = Numbers()
    new.extend(values)
    return new


def at(column: Sequence[Any], places: Sequence[int]) -> Any:
    """Return the lines of a column or list at these places, in this order, of the same kind."""
    return column.at(places) if isinstance(column, (Column, Chained)) else [column[i] for i in places]
