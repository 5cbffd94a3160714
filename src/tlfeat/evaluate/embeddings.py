"""The rows of a cache with all that belongs to each, as one object for a notebook: `load`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.cache.contents import Origin, choose_layers, encoder_name, origin, read_rows
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError
from tlfeat.evaluate.split import TEST_FRACTION, Split, join_groups, make_split
from tlfeat.images.image_set import ImageTable
from tlfeat.images.stores import Store
from tlfeat.images.thumbnails import known_thumbnail
from tlfeat.notebook import html_picture, html_table, import_pandas, spread
from tlfeat.text import aligned, counted
from tlfeat.types import Labels, Rows, StrPath

#: Rows that a notebook shows, and pixels a side of their pictures.
_N_SHOWN, _SIDE = 10, 64

#: Rows that are read at a time when somebody goes through them one by one.
_BLOCK = 1024

Texts = npt.NDArray[Any]


class Embedding(NamedTuple):
    """One image of `Embeddings`."""

    x: npt.NDArray[np.float32]
    y: int
    label: str
    path: str
    split: str


@dataclass(frozen=True, slots=True)
class _Source:
    """Where rows come from."""

    cache: Path
    fingerprint: dict[str, Any]
    layers: list[str]
    widths: list[int]
    backbone: str
    home: Path | Store | None  # of the paths; None where rows were imported


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is known of each image but its row; all of the same length."""

    keys: Texts
    paths: Texts
    labels: Texts
    y: Labels
    split: Texts
    groups: Labels
    domains: Texts

    def at(self, chosen: Any) -> Self:
        return replace(self, **{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


class Embeddings:
    """Embeddings of a cache, one an image, with label, path, split and group of each; made by `load`.

    ``rows[3]`` is one image, ``rows[:100]``, ``rows[mask]`` and ``rows[[5, 2]]`` are `Embeddings` again, and
    ``for x, y, label, path, split in rows`` goes through all without reading them into memory at once.

    Attributes
    ----------
    X : float32 array of shape (n_images, width)
        Read from the file when it is first asked for, and kept.
    y : int array of shape (n_images,)
        Positions in `classes`; -1 for an image without a label, and for one whose class is too small to be tested.
    classes : list of str
        As every model on this cache has them.
    labels : array of str, shape (n_images,)
        "" for none.
    paths : array of str, shape (n_images,)
        Below `root`, as everywhere in tlfeat; `files` are the whole ones.
    split : array of str, shape (n_images,)
        "train", "val" or "test", as the commands have it for this seed; "" for what takes no part.
    groups : int array of shape (n_images,)
        Equal for copies of one picture and for images of one group of the user's: for ``GroupKFold``.
    domains : array of str, shape (n_images,)
        Where each image comes from; "" where nothing is said.
    keys : array of str, shape (n_images,)
        Content keys.
    notes : list of str
        What the user should know of the split.
    """

    def __init__(
        self,
        source: _Source,
        classes: Sequence[str],
        columns: _Columns,
        notes: Sequence[str] = (),
        part_of: tuple[Embeddings, Any] | None = None,
    ) -> None:
        self._source = source
        self._columns = columns
        self._part_of = part_of
        self._rows: Rows | None = None
        self.classes = list(classes)
        self.notes = list(notes)

    @property
    def X(self) -> Rows:
        if self._rows is None:
            whole, chosen = self._part_of or (self, slice(None))
            self._rows = self._read(self._columns.keys) if whole._rows is None else whole._rows[chosen]
        return self._rows

    @property
    def y(self) -> Labels:
        return self._columns.y

    @property
    def labels(self) -> Texts:
        return self._columns.labels

    @property
    def paths(self) -> Texts:
        return self._columns.paths

    @property
    def split(self) -> Texts:
        return self._columns.split

    @property
    def groups(self) -> Labels:
        return self._columns.groups

    @property
    def domains(self) -> Texts:
        return self._columns.domains

    @property
    def keys(self) -> Texts:
        return self._columns.keys

    @property
    def root(self) -> Path | None:
        """The folder that `paths` count from; None where the rows were imported, or the images lie in a store."""
        return self._source.home if isinstance(self._source.home, Path) else None

    @property
    def files(self) -> list[Path]:
        """The whole paths of the images.

        Raises
        ------
        DataError
            The rows were imported, or the images lie in a store: there are no files.
        """
        if self.root is None:
            if (store := self._source.home) is not None and not isinstance(store, Path):
                raise DataError(f"The images of {self._source.cache} are no files: they lie in {store.url}.")
            raise DataError(f"The rows of {self._source.cache} were imported: there are no images.")
        return [self.root / path for path in self.paths]

    @property
    def layers(self) -> list[str]:
        """The layers whose rows stand side by side in `X`."""
        return list(self._source.layers)

    @property
    def feature_names(self) -> list[str]:
        """A name for each column of `X`: its layer and its number."""
        widths = zip(self._source.layers, self._source.widths, strict=True)
        return [f"{layer}_{i}" for layer, width in widths for i in range(width)]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of images and width, without reading a row."""
        return len(self), sum(self._source.widths)

    @property
    def train(self) -> Embeddings:
        """The training images, the validation images among them: what heads are fitted on."""
        return self[np.isin(self.split, ["train", "val"])]

    @property
    def val(self) -> Embeddings:
        """The validation images, which are in `train` too."""
        return self[np.flatnonzero(self.split == "val")]

    @property
    def test(self) -> Embeddings:
        """The test images, leaks included."""
        return self[np.flatnonzero(self.split == "test")]

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, chosen: int | np.integer[Any], /) -> Embedding: ...
    @overload
    def __getitem__(self, chosen: slice | Sequence[int] | npt.NDArray[Any], /) -> Embeddings: ...
    def __getitem__(self, chosen: Any, /) -> Embedding | Embeddings:
        if isinstance(chosen, int | np.integer):
            one = self[[range(len(self))[int(chosen)]]]  # an IndexError beyond the end, which ends a loop
            return next(iter(one))
        chosen = chosen if isinstance(chosen, slice) else _positions(chosen, len(self))
        return Embeddings(self._source, self.classes, self._columns.at(chosen), self.notes, (self, chosen))

    def __iter__(self) -> Iterator[Embedding]:
        for start in range(0, len(self), _BLOCK):
            for i, x in enumerate(self[start : start + _BLOCK].X, start):
                yield Embedding(x, int(self.y[i]), str(self.labels[i]), str(self.paths[i]), str(self.split[i]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Rows:
        return np.array(self.X, dtype=dtype, copy=copy)

    def frame(self, *, has_rows: bool = True) -> Any:
        """Return a pandas DataFrame of one line an image: path, label, y, split, group, key, then the row.

        Where there are domains, the column domain stands before the row.

        Parameters
        ----------
        has_rows : bool, default=True
            Whether the columns of `X` are there, called as in `feature_names`.
        """
        pandas = import_pandas("frame()")
        about = pandas.DataFrame(
            {
                "path": self.paths,
                "label": self.labels,
                "y": self.y,
                "split": self.split,
                "group": self.groups,
                "key": self.keys,
            }
        )
        if any(self.domains):
            about["domain"] = self.domains
        if not has_rows:
            return about
        return pandas.concat([about, pandas.DataFrame(self.X, columns=self.feature_names, copy=False)], axis=1)

    def __repr__(self) -> str:
        table = aligned(("", "path", "label", "split"), self._shown(), n_left=4)
        return "\n".join([*self._summary(), "", table])

    def _repr_html_(self) -> str:
        at = spread(len(self), _N_SHOWN)
        small = [known_thumbnail(self._source.home, self.paths[i], self.keys[i], _SIDE) for i in at]
        pictures = [html_picture(jpeg, str(self.paths[i])) for i, jpeg in zip(at, small, strict=True)]
        rows = [(row[0], picture, *row[1:]) for row, picture in zip(self._shown(), pictures, strict=True)]
        return html_table(("", "image", "path", "label", "split"), rows, above=self._summary())

    def _summary(self) -> list[str]:
        n, width = self.shape
        counts = {name: int(np.sum(self.split == name)) for name in ("train", "val", "test")}
        parts = [f"{count:,} {name}" for name, count in counts.items() if count]
        n_left = n - sum(counts.values())
        parts += [f"{n_left:,} without a part" if parts else "none can be made"] if n_left else []
        return [
            f"{counted(n, 'embedding')} of {width:,} numbers: {', '.join(self.layers)} of {self._source.backbone}, "
            f"{self._source.cache.name}",
            f"{counted(len(self.classes), 'class', 'classes')}; split: {', '.join(parts) or 'nothing'}",
        ]

    def _shown(self) -> list[tuple[int, str, str, str]]:
        at = spread(len(self), _N_SHOWN)
        return [(i, str(self.paths[i]), str(self.labels[i]), str(self.split[i])) for i in at]

    def _read(self, keys: Sequence[str] | Texts) -> Rows:
        with open_cache(self._source.cache, fingerprint=self._source.fingerprint) as cache:
            return read_rows(cache, self._source.layers, list(keys))


def _positions(chosen: Any, n: int) -> npt.NDArray[Any]:
    """Return a mask or positions as an array; an empty list is no mask."""
    if isinstance(chosen, tuple) and len(chosen) == 2 and chosen[1] is Ellipsis:  # scikit-learn's way
        chosen = chosen[0]
    found = np.asarray(chosen)
    if found.dtype == bool and found.shape != (n,):
        raise IndexError(f"The mask has the shape {found.shape}, and there are {n} images.")
    return found if found.size else found.astype(np.int64)


def load(
    cache: StrPath | None = None,
    *,
    layer: str | Sequence[str] | None = None,
    seed: int = 0,
    test_fraction: float = TEST_FRACTION,
    test_split: str | None = None,
) -> Embeddings:
    """Return the embeddings of a cache with labels, paths and the split that the commands use.

    Parameters
    ----------
    cache : str or path, optional
        The newest one under ``cache/`` by default.
    layer : str or sequence of str, optional
        ``avg_pool``, or the only layer, by default; rows of several stand side by side.
    seed, test_fraction, test_split
        Of the split: see `make_split`. Where no split can be made, as nothing is labelled, `split` is "" everywhere.

    Examples
    --------
    >>> from sklearn.linear_model import RidgeClassifier
    >>> rows = load("cache/photos.h5", layer="avg_pool")  # doctest: +SKIP
    >>> RidgeClassifier().fit(rows.train.X, rows.train.y).score(rows.test.X, rows.test.y)  # doctest: +SKIP
    """
    path = workspace.newest_cache() if cache is None else Path(cache)
    with open_cache(path) as opened:
        table = opened.table
        layers = choose_layers(opened, layer)
        source = _Source(
            path.absolute(),
            opened.fingerprint,
            layers,
            [opened.layers[name][1] for name in layers],
            encoder_name(opened),
            None if origin(opened) is Origin.IMPORTED else table.images.home,
        )
    split, notes = _split_of(table, seed, test_fraction, test_split)
    return Embeddings(source, split.classes if split else table.images.classes, _columns(table, split), notes)


def _split_of(
    table: ImageTable, seed: int, test_fraction: float, test_split: str | None
) -> tuple[Split | None, list[str]]:
    """Return the split with its notes; None and why where labels allow none."""
    try:
        split = make_split(table, seed=seed, test_fraction=test_fraction, test_split=test_split)
    except DataError as error:
        if table.count("pending"):
            raise
        return None, [str(error)]
    return split, split.notes


def _columns(table: ImageTable, split: Split | None) -> _Columns:
    images = table.images
    at = [i for i, status in enumerate(table.status) if status == "ok"]
    paths = [images.paths[i] for i in at]
    part = _parts(split) if split else {}
    number = {} if split else {name: c for c, name in enumerate(images.classes)}
    keys = [table.keys[i] for i in at]
    labels = [images.labels[i] for i in at]
    found = [part.get((path, label), (number.get(label, -1), "")) for path, label in zip(paths, labels, strict=True)]
    return _Columns(
        keys=_texts(keys),
        paths=_texts(paths),
        labels=_texts(labels),
        y=np.array([y for y, _ in found], dtype=np.int64),
        split=np.array([role for _, role in found], dtype="<U5"),
        groups=np.array(join_groups(keys, [images.groups[i] for i in at]), dtype=np.int64),
        domains=_texts([images.domains[i] for i in at]),
    )


def _parts(split: Split) -> dict[tuple[str, str], tuple[int, str]]:
    """Return the class and the role of each image of a split, by path and label."""
    roles = zip(split.paths, split.labels.tolist(), split.roles, strict=True)
    return {(path, split.classes[y]): (y, role) for path, y, role in roles}


def _texts(values: Sequence[str]) -> Texts:
    """Return texts as an array of objects: one long path does not make all of them long."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found
