"""What all columns have in common (`columns`): lines in blocks, which several columns may share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import Any, Generic, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt

#: Lines in one block.
BLOCK_LINES = 8192

T = TypeVar("T", str, int)


class Column(Sequence[T], ABC, Generic[T]):
    """A sequence in blocks of `BLOCK_LINES` lines; the last may be shorter. Equal to any sequence of equal values."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, blocks: Iterable[Any] = (), n: int = 0) -> None:
        self._blocks = list(blocks)
        self._n = n
        self._own: set[int] = set()  # blocks that no other column has

    @abstractmethod
    def _pack(self, values: Sequence[T]) -> Any:
        """Return a block."""

    @abstractmethod
    def _values(self, block: Any) -> list[T]:
        """Return what is in a block."""

    @abstractmethod
    def _one(self, block: Any, at: int) -> T:
        """Return one value of a block."""

    def _empty(self) -> Self:
        """Return a column without lines that packs as this one does."""
        return type(self)()

    def extend(self, values: Sequence[T]) -> None:
        """Add lines at the end: all that there are so far fill their blocks."""
        if self._n % BLOCK_LINES:
            raise ValueError(f"{self._n} lines do not end with a block of {BLOCK_LINES}")
        for start in range(0, len(values), BLOCK_LINES):
            self._blocks.append(self._pack(values[start : start + BLOCK_LINES]))
        self._n += len(values)

    def extend_block(self, other: Self, number: int) -> None:
        """Add block `number` of another column of this kind at the end, without copying it."""
        if self._n % BLOCK_LINES:
            raise ValueError(f"{self._n} lines do not end with a block of {BLOCK_LINES}")
        self._blocks.append(other._blocks[number])
        self._n += min(BLOCK_LINES, other._n - number * BLOCK_LINES)
        other._own.discard(number)

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return len(self._blocks)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            start, stop, step = at.indices(self._n)
            if step != 1:
                return [self[i] for i in range(start, stop, step)]
            return self._stretch(start, stop)
        block, inside = divmod(self._place(at), BLOCK_LINES)
        return self._one(self._blocks[block], inside)

    def _place(self, at: int) -> int:
        place = at + self._n if at < 0 else at
        if not 0 <= place < self._n:
            raise IndexError(f"line {at} of {self._n}")
        return int(place)

    def _stretch(self, start: int, stop: int) -> list[T]:
        first = start // BLOCK_LINES
        found: list[T] = []
        for number in range(first, -(-stop // BLOCK_LINES)):
            found += self._values(self._blocks[number])
        above = first * BLOCK_LINES
        return found if (start, stop) == (above, above + len(found)) else found[start - above : stop - above]

    def __iter__(self) -> Iterator[T]:
        for block in self._blocks:
            yield from self._values(block)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(other) == self._n and all(self.has_block(other, b) for b in range(len(self._blocks)))

    def has_block(self, other: Sequence[T], number: int) -> bool:
        """Whether the lines of block `number` are those of another column."""
        if isinstance(other, Column) and type(other) is type(self) and number < len(other._blocks):
            if other._blocks[number] is self._blocks[number]:
                return True
            if (is_equal := self._is_equal(self._blocks[number], other, other._blocks[number])) is not None:
                return is_equal
        start = number * BLOCK_LINES
        return self._values(self._blocks[number]) == list(other[start : start + BLOCK_LINES])

    def _is_equal(self, block: Any, other: Any, of_other: Any) -> bool | None:
        """Return whether a block is equal to one of another column of this type; None where that has to be read."""
        return None

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, islice(self, 4)))
        return f"<{type(self).__name__}, {self._n:,} lines: {shown}{', ...' if self._n > 4 else ''}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(list(self), dtype)

    def at(self, places: Iterable[int]) -> Self:
        """Return the lines at these places, in this order."""
        new, left = self._empty(), iter(places)
        while some := list(islice(left, BLOCK_LINES)):
            new.extend([self[i] for i in some])
        return new

    def _parts(self, places: npt.NDArray[np.int64]) -> Iterator[tuple[Any, Any, Any]]:
        """Give every block in which some of these lines are, where they are in it, and which of them they are."""
        numbers = places // BLOCK_LINES
        order = np.argsort(numbers, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else ():
            number = int(numbers[some[0]])
            yield self._blocks[number], places[some] - number * BLOCK_LINES, some

    def copy(self) -> Self:
        """Return a column that shares its blocks with this one until either is changed."""
        new = self._empty()
        new._blocks, new._n = list(self._blocks), self._n
        self._own.clear()
        return new

    def share(self, other: object) -> None:
        """Give up blocks of which `other` has an equal one at the same place for those of `other`."""
        if type(other) is not type(self):
            return
        for number in range(min(len(self._blocks), len(other._blocks))):
            if self._blocks[number] is not other._blocks[number] and self.has_block(other, number):
                self._blocks[number] = other._blocks[number]
                self._own.discard(number)
                other._own.discard(number)


class Chained(Sequence[T], Generic[T]):
    """The lines of several columns of one kind, one after the other, without a copy; they cannot be changed."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, parts: Sequence[Column[T]]) -> None:
        self._parts: list[Column[T]] = list(parts)
        self._starts: list[int] = [0, *accumulate(map(len, self._parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        n = len(self)
        if isinstance(at, slice):
            start, stop, step = at.indices(n)
            return self._stretch(start, stop) if step == 1 else [self[i] for i in range(start, stop, step)]
        place = at + n if at < 0 else at
        if not 0 <= place < n:
            raise IndexError(f"line {at} of {n}")
        number = bisect_right(self._starts, place) - 1  # of columns without lines the last
        return self._parts[number][int(place) - self._starts[number]]

    def _stretch(self, start: int, stop: int) -> list[T]:
        found: list[T] = []
        if start < stop:
            first, last = bisect_right(self._starts, start) - 1, bisect_right(self._starts, stop - 1) - 1
            for number in range(first, last + 1):
                above = self._starts[number]
                found += self._parts[number][max(start - above, 0) : stop - above]
        return found

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._parts)

    def __contains__(self, value: object) -> bool:
        return any(value in part for part in self._parts)

    def count(self, value: object) -> int:
        """How many lines are `value`."""
        return sum(part.count(value) for part in self._parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(other) == len(self) and all(
            part[i : i + BLOCK_LINES] == list(other[start + i : start + min(i + BLOCK_LINES, len(part))])
            for start, part in zip(self._starts, self._parts, strict=False)
            for i in range(0, len(part), BLOCK_LINES)
        )

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:4]))
        return f"<{len(self):,} lines of {len(self._parts)} columns: {shown}{', ...' if len(self) > 4 else ''}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(list(self), dtype)

    def at(self, places: Iterable[int]) -> Column[T]:
        """Return the lines at these places, in this order, as one column."""
        new, left = self._parts[0]._empty(), iter(places)
        while some := list(islice(left, BLOCK_LINES)):
            new.extend([self[i] for i in some])
        return new

    def copy(self) -> Self:
        """Return what has the same lines, which cannot be changed either."""
        return self
