"""Made domains: rows that are shifted and scaled, as another camera does it, and a cache of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from made_data import FINGERPRINT, key_of, make_table
from tlfeat.adapt.task import Task
from tlfeat.cache.store import create_cache
from tlfeat.images.image_set import ImageTable
from tlfeat.types import Labels, Rows

CLASSES = ["ash", "birch", "elm"]


def domain_rows(
    n: int,
    *,
    domain: int,
    width: int = 12,
    seed: int = 3,
    far: float = 1.0,
    shares: Sequence[float] = (0.4, 0.3, 0.3),
    strength: float = 1.0,
) -> tuple[Rows, Labels]:
    """Return rows of three classes and the labels; domain 0 is as it is, others are shifted and scaled.

    Parameters
    ----------
    far : float
        How far: 0 makes all domains alike.
    shares : sequence of float
        Of the classes.
    strength : float
        How far the classes are from each other.
    """
    centres = strength * np.random.default_rng([seed, 0]).normal(size=(len(CLASSES), width))
    rng, moved = np.random.default_rng([seed, domain, n]), np.random.default_rng([seed, domain, 1])
    labels = rng.choice(len(CLASSES), n, p=shares).astype(np.int64)
    rows = centres[labels] + rng.normal(size=(n, width))
    if domain:
        rows = rows * np.exp(far * moved.normal(0, 0.8, width)) + far * moved.normal(0, 4, width)
    return rows.astype(np.float32), labels


def made_task(
    n: int = 200,
    n_target: int = 150,
    *,
    far: float = 1.0,
    seed: int = 3,
    shares: Sequence[float] = (0.4, 0.3, 0.3),
    strength: float = 1.0,
) -> tuple[Task, Labels]:
    """Return a task of two sources and a target, and the labels of the target, which no task holds."""
    ones, others = (domain_rows(n // 2, domain=domain, far=far / 4, seed=seed, strength=strength) for domain in (0, 1))
    target, hidden = domain_rows(n_target, domain=2, far=far, seed=seed, shares=shares, strength=strength)
    task = Task(
        source=np.concatenate([ones[0], others[0]]),
        labels=np.concatenate([ones[1], others[1]]),
        domains=np.repeat(["film", "phone"], n // 2),
        target=target,
        target_name="scan",
        classes=CLASSES,
        groups=np.arange(2 * (n // 2)),
        seed=5,
        is_signed=True,
    )
    return task, hidden


DOMAINS = ("film", "phone", "scan")


def domain_table(n: int = 60, *, labels: Sequence[str] | None = None, **columns: Any) -> tuple[Rows, ImageTable]:
    """Return the rows of `n` images of each of three domains, and their table; "scan" is far from the others."""
    found = [domain_rows(n, domain=domain, far=(0.0, 0.25, 1.0)[domain]) for domain in range(3)]
    names = [CLASSES[label] for _, own in found for label in own]
    domains = [name for name in DOMAINS for _ in range(n)]
    rows = np.concatenate([own for own, _ in found])
    return rows, make_table(labels or names, **{"domains": domains, **columns})


def write_cache(path: Path, rows: Rows, table: ImageTable) -> Path:
    """Write a cache of the layer "pooled"."""
    new = dict(zip(table.keys, rows, strict=True))
    with create_cache(path, FINGERPRINT, {}) as cache:
        cache.reserve({"pooled": rows.shape[1]}, len(new))
        cache.append({"pooled": np.stack(list(new.values()))}, list(new))
        cache.write_table(table)
    return path


__all__ = ["CLASSES", "DOMAINS", "domain_rows", "domain_table", "key_of", "made_task", "write_cache"]
