"""Which pictures to label next: the choice of ``tlfeat label`` as a function, for those who label elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tlfeat.cache.contents import Origin, choose_layers, holds_texts, origin
from tlfeat.cache.reader import Cache
from tlfeat.errors import UsageError
from tlfeat.heads.spreading import Graph, fit_spread
from tlfeat.images.urls import below
from tlfeat.labelling.answers import Answer, answers_in
from tlfeat.labelling.choose import ASKED, choose, codes_of
from tlfeat.labelling.order import POOL, in_turns, is_random_turn, pool_and_reserve, random_order
from tlfeat.labelling.pictures import from_folder
from tlfeat.text import counted, one_line
from tlfeat.types import Labels, Rows, StrPath

#: Paths that a note names.
_N_NAMED = 3


@dataclass(frozen=True, slots=True)
class NextPicture:
    """A picture to label.

    Attributes
    ----------
    number : int
        Its place in the table of the cache.
    path : str
        As the cache has it.
    why : str
        "typical", "unsure" or "random".
    suggestion : str
        The most probable label. "" before there are two classes, and for a random picture: its label is a test, and a
        suggestion would only be agreed to.
    probability : float, optional
        Of the suggestion.
    """

    number: int
    path: str
    why: str
    suggestion: str = ""
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class NextPictures:
    """What to label next.

    Attributes
    ----------
    pictures : list of NextPicture
        In the order in which they help most.
    classes : list of str
        Of the labels so far, sorted.
    n_labelled : int
        Pictures of the cache with a label.
    notes : list of str
        What the user should know.
    """

    pictures: list[NextPicture]
    classes: list[str]
    n_labelled: int
    notes: list[str] = field(default_factory=list)


def next_pictures(
    cache: Cache,
    labels: Mapping[str, str] | StrPath | None = None,
    n: int = 20,
    *,
    layer: str | None = None,
    seed: int = 0,
) -> NextPictures:
    """Choose the pictures whose labels help most.

    Parameters
    ----------
    cache : Cache
        Of all pictures, labelled or not.
    labels : mapping of path to label, or path of a CSV, optional
        The labels so far; "" in a mapping is a picture that has none for good. A CSV has the columns path and label.
        Paths are those of the cache, or lead to the pictures from the folder of the CSV. A file that is not there has
        no labels yet. Labels of the cache itself count where some of its pictures have none.
    n : int, default=20
        How many, at most.
    layer : str, optional
        ``avg_pool``, or the only one, by default.
    seed : int, default=0
        Of the order in which pictures are drawn.

    Notes
    -----
    Every fifth is drawn at random from a fifth of the pictures, which is kept for that: their labels are a fair test.
    The others are typical of clusters at first, and then those that a head is unsure of. That head has not learned from
    random pictures, and the one that suggests has learned from all.
    """
    if n < 1:
        raise UsageError(f"At least one picture is to be chosen; received {n}.")
    answers = _answers(cache, labels)
    pool = _pool(cache, layer, answers, seed)
    classes = sorted(set(answers.labels.values()) - {""})
    code_of = {"": ASKED} | {name: code for code, name in enumerate(classes)}
    coded = {number: code_of[label] for number, label in answers.labels.items()}
    known, unheard = codes_of(pool.numbers, pool.keys, coded, pool.kept)
    graph = Graph(pool.rows)
    chances = _chances(graph, known, len(classes))
    turns = _turns(n, pool.n_asked, pool.n_random)
    n_chosen = n - min(sum(turns), len(pool.reserve))
    chosen = choose(
        pool.rows,
        unheard,
        _chances(graph, unheard, len(classes)),
        n_chosen,
        n_classes=max(len(classes), 2),
        seed=seed,
    )
    paths = cache.table.images.paths
    drawn = [NextPicture(i, paths[i], "random") for i in pool.reserve[:n]]
    found = [NextPicture(pool.numbers[each.place], paths[pool.numbers[each.place]], each.why) for each in chosen]
    if chances is not None and len(classes) > 1:
        found = [_suggested(one, chances[each.place], classes) for one, each in zip(found, chosen, strict=True)]
    pictures = _interleaved(turns, drawn, found)
    return NextPictures(
        pictures,
        classes,
        sum(bool(label) for label in answers.labels.values()),
        [*answers.notes, *pool.notes, *(_notes_on_classes(classes) if pictures else ["every picture has an answer"])],
    )


def _suggested(picture: NextPicture, chances: Rows, classes: Sequence[str]) -> NextPicture:
    best = int(chances.argmax())
    return replace(picture, suggestion=classes[best], probability=round(float(chances[best]), 4))


def _notes_on_classes(classes: Sequence[str]) -> list[str]:
    if len(classes) > 1:
        return []
    found = f"the only label so far is '{one_line(classes[0])}'" if classes else "there is no label yet"
    return [f"{found}: nothing is suggested before there are two classes"]


# --- the labels so far ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answers:
    """What is known of pictures, by number.

    Attributes
    ----------
    labels : dict of int to str
        "" for a picture that has none for good.
    given : set of int
        Those that had their label before anything was asked.
    """

    labels: dict[int, str]
    given: set[int]
    notes: list[str]


def _answers(cache: Cache, labels: Mapping[str, str] | StrPath | None) -> _Answers:
    images, notes = cache.table.images, []
    said, place_of = {}, {}
    if isinstance(labels, Mapping):
        said = {path: Answer(path, label) for path, label in labels.items()}
    elif labels is not None:
        file = Path(labels)
        said = read_labels(file)
        notes += [] if file.exists() else [f"{file} is not there yet"]
        place_of = {name: i for i, name in enumerate(names_in(cache, file.parent))}
    place_of |= {path: i for i, path in enumerate(images.paths)}
    found = {place_of[path]: answer for path, answer in said.items() if path in place_of}
    notes += _notes_on_gone([path for path in said if path not in place_of])
    given = {i for i, answer in found.items() if answer.source == "folder"}
    own = {i: label for i, label in enumerate(images.labels) if label and i not in found}
    if own and "" not in images.labels:
        notes.append("the labels of the cache do not count: every picture has one, and nothing would be left to ask")
        own = {}
    elif own:
        notes.append(f"{counted(len(own), 'picture')} of the cache have a label from there")
    return _Answers({**own, **{i: answer.label for i, answer in found.items()}}, {*given, *own}, notes)


def _notes_on_gone(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    named = ", ".join(map(one_line, paths[:_N_NAMED])) + (", ..." if len(paths) > _N_NAMED else "")
    return [f"{counted(len(paths), 'label')} of pictures that the cache does not have: {named}"]


def read_labels(file: Path) -> dict[str, Answer]:
    """Return the answers of a CSV by path; where a picture stands twice the last line counts.

    Lines without a label that do not say why are left out. There are none where there is no file.
    """
    return {answer.path: answer for answer in answers_in(file) if answer.is_answer} if file.exists() else {}


def names_in(cache: Cache, folder: Path) -> list[str]:
    """Return what a table in `folder` calls the pictures of a cache.

    Files have paths from there, images of a bucket or a server their URLs; all else is called as in the cache.
    """
    images = cache.table.images
    if holds_texts(cache) or origin(cache) is Origin.IMPORTED:
        return list(images.paths)
    if images.store is None:
        prefix = from_folder(images.root, folder.resolve())
        return [prefix + path for path in images.paths]
    is_far = images.store.url and not images.store.url.startswith("file:")
    return [below(images.store.url, path) if is_far else path for path in images.paths]


# --- the pictures that are chosen among -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pool:
    """The pictures with a row, of a random sample and of those with an answer, in random order.

    Attributes
    ----------
    numbers : list of int
    keys : list of str
        Content keys.
    rows : float32 array of shape (n, width)
        In random order.
    reserve : list of int
        Numbers of pictures that are still to be drawn at random, in this order.
    kept : set of int
        Of all that measure, answered or not.
    n_asked, n_random : int
        How many pictures have an answer because they were asked about, and how many of them at random.
    """

    numbers: list[int]
    keys: list[str]
    rows: Rows
    reserve: list[int]
    kept: set[int]
    n_asked: int
    n_random: int
    notes: list[str]


def _pool(cache: Cache, layer: str | None, answers: _Answers, seed: int) -> _Pool:
    name, table, labels = choose_layers(cache, layer)[0], cache.table, answers.labels
    index, keys = cache.known(name), table.keys
    order = random_order(table.images.paths, seed=seed)
    choosable, reserve = pool_and_reserve(order[[i not in answers.given for i in order]])
    asked = in_turns(choosable, reserve).tolist()
    in_pool = set(asked)
    others = [i for i in labels if i not in in_pool][:POOL]
    numbers = [i for i in (*asked, *others) if table.status[i] == "ok" and keys[i] in index]
    has_row, keys_of = set(numbers), [keys[i] for i in numbers]
    n_without = len(keys) - table.count("ok")
    n_random = sum(i in labels for i in reserve.tolist())
    return _Pool(
        numbers,
        keys_of,
        cache.read(name, keys_of),
        [i for i in reserve.tolist() if i not in labels and i in has_row],
        set(reserve.tolist()),
        n_random + sum(i in labels for i in choosable.tolist()),
        n_random,
        [f"{counted(n_without, 'picture')} without a row cannot be chosen"] if n_without else [],
    )


def _chances(graph: Graph, codes: Labels, n_classes: int) -> Rows | None:
    """Return probabilities of all rows, (n, n_classes), by a head of those with a label; None without one."""
    known = np.flatnonzero(codes >= 0)
    if not len(known):
        return None
    return fit_spread(graph, known, codes[known], n_classes).probabilities(graph.rows)


def _turns(n: int, n_asked: int, n_random: int) -> list[bool]:
    """Return which of the next n questions are drawn at random, so that every fifth of all is."""
    turns = []
    for _ in range(n):
        turns.append(is_random_turn(n_random, n_asked))
        n_asked, n_random = n_asked + 1, n_random + turns[-1]
    return turns


def _interleaved(
    turns: Sequence[bool], drawn: Sequence[NextPicture], chosen: Sequence[NextPicture]
) -> list[NextPicture]:
    """Return what is drawn at its turns and what is chosen at the others, as long as there is either."""
    waiting = {True: list(drawn), False: list(chosen)}
    queue = []
    for turn in turns:
        if line := waiting[turn] or waiting[not turn]:
            queue.append(line.pop(0))
    return queue
