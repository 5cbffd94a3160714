"""Networks beside the methods on cached rows: BatchNorm statistics of each domain, and fine-tuning on the sources."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tlfeat.adapt.circular import circular_accuracy
from tlfeat.adapt.methods import Adapted, Fitter, Method
from tlfeat.cache.contents import choose_layers, read_rows
from tlfeat.cache.reader import Cache
from tlfeat.errors import CacheError, DataError, UsageError, WeightsError, nearest
from tlfeat.evaluate.data import Data
from tlfeat.evaluate.domain_split import DomainSplit
from tlfeat.evaluate.split import VAL_FRACTION, Split, draw_groups, draw_per_class
from tlfeat.extract.adapted import open_adapted
from tlfeat.finetune.settings import TrainSettings
from tlfeat.heads.table import Head, find_head
from tlfeat.memory import available_memory
from tlfeat.models.adapted_rows import Prepared, task_of
from tlfeat.models.fit_keras import fit_keras
from tlfeat.types import Bools, Labels, OnProgress, Rows, silent

#: What ``--keras`` takes.
MODES = ("adabn", "finetuned")

#: Of the linear head alone, before layers are unfrozen.
HEAD_EPOCHS = 5

#: Labelled images of the target a class, in the row that has some.
N_LABELLED = 5

_LI = "Li, Wang, Shi, Liu and Hou 2016, Revisiting batch normalization for practical domain adaptation"
_LP_FT = "linear probe, then fine-tuning: Kumar, Raghunathan, Jones, Ma and Liang 2022, ICLR"

ADABN = Method("adabn", what="the head on rows of networks with each domain's own BatchNorm statistics", source=_LI)

ADABN_SELF = Method(
    "adabn+self", quota="equal", what="and trained on its own surest answers, as many of each class", source=_LI
)

FINETUNED = Method(
    "finetuned", is_choosable=False, what="the last layers trained on images of the sources", source=_LP_FT
)

FINETUNED_FEW = Method(
    f"finetuned+{N_LABELLED}",
    is_choosable=False,
    n_labelled=N_LABELLED,
    what=f"and on {N_LABELLED} images a class of the target, WITH their labels",
    source=_LP_FT,
)

TRAINED = (FINETUNED, FINETUNED_FEW)

NETWORKS = (ADABN, ADABN_SELF, *TRAINED)


@dataclass(frozen=True, slots=True)
class Tried:
    """A row before it is compared.

    Attributes
    ----------
    method : Method
    right : bool array of shape (n_scored,)
    circular : float or None
        None where there is no way back.
    spent_s : float
    adapted : Adapted, optional
        What can be saved where it is chosen, and what it was fitted on.
    prepared : Prepared, optional
    rows : Path, optional
        The cache of the target's rows, where another network than that of the cache made them.
    """

    method: Method
    right: Bools
    circular: float | None
    spent_s: float
    adapted: Adapted | None = None
    prepared: Prepared | None = None
    rows: Path | None = None


@dataclass(frozen=True, slots=True)
class Networks:
    """Which rows of networks are asked for, and how those that train do.

    Attributes
    ----------
    modes : sequence of str
        Of `MODES`.
    epochs, head_epochs, unfreeze_last
        As in `TrainSettings`.
    """

    modes: Sequence[str]
    epochs: int = 0
    head_epochs: int = HEAD_EPOCHS
    unfreeze_last: int | None = None

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise UsageError(f"No network '{mode}' for --keras. {nearest(mode, list(MODES), of='networks')}")

    def settings(self, seed: int) -> TrainSettings:
        """Return how a network is trained: a linear head first, then the layers below it, too."""
        return TrainSettings(
            mode="finetuned",
            dense=(),
            unfreeze_last=self.unfreeze_last,
            epochs=self.epochs,
            head_epochs=self.head_epochs,
            seed=seed,
        )


def try_networks(
    networks: Networks,
    cache: Cache,
    found: DomainSplit,
    prepared: Prepared,
    *,
    head: str = "logreg",
    layers: Sequence[str] | None = None,
    on_progress: OnProgress = silent,
) -> tuple[list[Tried], list[tuple[str, str]]]:
    """Return the rows of networks, tested on the same images as all others, and what was not run with its reason.

    Parameters
    ----------
    networks : Networks
    cache : Cache
    found : DomainSplit
    prepared : Prepared
        Which test images count.
    head : str, default="logreg"
        On rows of AdaBN.
    layers : sequence of str, optional
        As of the cached rows.
    """
    tried: list[Tried] = []
    skipped: list[tuple[str, str]] = []
    runs: list[tuple[Method, Callable[[], Iterator[Tried]]]] = []
    if "adabn" in networks.modes:
        names = choose_layers(cache, layers)
        runs.append((ADABN, partial(_adabn, cache, found, prepared, find_head(head), names, on_progress)))
    if "finetuned" in networks.modes:
        runs += [
            (method, partial(_finetuned, networks, cache, found, prepared, method, on_progress)) for method in TRAINED
        ]
    for method, run in runs:
        try:
            tried += run()
        except (DataError, WeightsError, CacheError) as error:
            skipped.append((method.name, str(error)))
    return tried, skipped


def _adabn(
    cache: Cache,
    found: DomainSplit,
    prepared: Prepared,
    head: Head,
    layers: Sequence[str],
    on_progress: OnProgress,
) -> Iterator[Tried]:
    """Rows of every domain come from a network of its own, there and on the way back."""
    started_s = time.perf_counter()
    source, target, test, path = _adapted_rows(cache, found, layers, on_progress)
    rows_s = time.perf_counter() - started_s
    task = task_of(found, found.split.where("train"), source, target)
    new = replace(prepared, task=task, test=test, adapt_at=np.arange(len(target)))
    fitter = Fitter(task, head)
    for method in (ADABN, ADABN_SELF):
        on_progress(f"adapting {method.name}", 0, 0)
        started_s = time.perf_counter()
        adapted = fitter.fit(method)
        score = circular_accuracy(fitter, adapted)
        right = new.right(new.answers(adapted))
        yield Tried(method, right, score, rows_s + time.perf_counter() - started_s, adapted, new, path)


def _adapted_rows(
    cache: Cache, found: DomainSplit, layers: Sequence[str], on_progress: OnProgress
) -> tuple[Rows, Rows, Rows, Path]:
    """Return rows of the sources, of the target's images that are adapted to, and of its test images, in their order.

    And the cache of those of the target.

    The statistics of the target are those of the images that are adapted to alone.
    """
    split, images = found.split, cache.table.images
    line = {path: i for i, path in enumerate(images.paths)}
    width = sum(cache.layers[layer][1] for layer in layers)
    needed, free = (len(split.keys) + len(found.adapt.keys)) * width * 4 * 3, available_memory()
    if needed > free:
        raise DataError(
            f"rows of several networks are held in memory: about {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB "
            f"free"
        )
    train_at, test_at = split.where("train"), split.where("test")
    domains = np.array([split.domains[i] for i in train_at])
    at_of = {domain: np.flatnonzero(domains == domain) for domain in np.unique(domains).tolist()}

    def embedded(domain: str, keys: list[str], paths: list[str], n_measured: int) -> tuple[Rows, Path]:
        at = [line[path] for path in paths]
        with open_adapted(cache, at[:n_measured], at, layers=layers, domain=domain, on_progress=on_progress) as adapted:
            return read_rows(adapted, layers, keys), adapted.path

    n_adapt = len(found.adapt.keys)
    new = [split.keys[i] for i in test_at], [split.paths[i] for i in test_at]
    target, path = embedded(found.target, [*found.adapt.keys, *new[0]], [*found.adapt.paths, *new[1]], n_adapt)
    source = np.empty((len(train_at), width), np.float32)
    for domain, at in sorted(at_of.items(), key=lambda pair: len(pair[1])):  # too few images are told early
        source[at], _ = embedded(
            domain, [split.keys[i] for i in train_at[at]], [split.paths[i] for i in train_at[at]], len(at)
        )
    return source, target[:n_adapt], target[n_adapt:], path


def _finetuned(
    networks: Networks,
    cache: Cache,
    found: DomainSplit,
    prepared: Prepared,
    method: Method,
    on_progress: OnProgress,
) -> Iterator[Tried]:
    seed = found.split.info.seed
    split = training_split(found, method.n_labelled, seed=seed)
    result = fit_keras(Data(cache, split, seed), networks.settings(seed), on_progress=on_progress).result
    spent_s = (result.timing.extract_s or 0.0) + (result.timing.fit_s or 0.0)
    right = np.array(result.predicted) == np.array(result.true)
    yield Tried(method, np.asarray(right[prepared.is_scored]), None, spent_s)


def training_split(found: DomainSplit, n_labelled: int = 0, *, seed: int = 0) -> Split:
    """Return the split of an adaptation for a network: some images of the sources validate, the target's test.

    Parameters
    ----------
    found : DomainSplit
    n_labelled : int, default=0
        So many images a class of those that are adapted to train, with their labels; the same ones for one seed.
    seed : int, default=0

    Raises
    ------
    DataError
        None of the images that are adapted to has a label.
    """
    split = found.split
    train_at = split.where("train").tolist()
    names = [split.classes[label] for label in split.labels]
    roles = list(split.roles)
    for i in draw_groups(train_at, names, split.groups.tolist(), VAL_FRACTION, np.random.default_rng(seed)):
        roles[i] = "val"
    keys, paths, domains = list(split.keys), list(split.paths), list(split.domains)
    labels, groups = split.labels, split.groups
    if n_labelled:
        drawn = _labelled(found, n_labelled, seed)
        keys += [found.adapt.keys[i] for i in drawn]
        paths += [found.adapt.paths[i] for i in drawn]
        domains += [found.target] * len(drawn)
        roles += ["train"] * len(drawn)
        labels = np.concatenate([labels, found.adapt.hidden[drawn]])
        groups = np.concatenate([groups, found.adapt.groups[drawn]])
    lines = [f"{key} {label} {role}" for key, label, role in zip(keys, labels, roles, strict=True)]
    digest = hashlib.sha256("\n".join([split.info.digest, *lines]).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    info = replace(split.info, digest=digest, n_train=roles.count("train"), n_val=roles.count("val"))
    return replace(split, keys=keys, paths=paths, labels=labels, groups=groups, roles=roles, info=info, domains=domains)


def _labelled(found: DomainSplit, n_labelled: int, seed: int) -> Labels:
    """Return positions of `n_labelled` images a class in `DomainSplit.adapt`, drawn at random in whole groups."""
    adapt = found.adapt
    known = np.flatnonzero(adapt.hidden >= 0)
    if not len(known):
        raise DataError(f"no image of {found.target} that is adapted to has a label of the sources' classes")
    as_split = Split(
        found.split.classes, adapt.keys, adapt.paths, adapt.hidden, adapt.groups, ["train"] * len(adapt.keys),
        found.split.info,
    )  # fmt: skip
    return draw_per_class(as_split, known, n_labelled, seed=seed, draw=0)
