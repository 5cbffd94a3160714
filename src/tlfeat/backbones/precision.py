"""The number type that a network computes in; other rows, and on some processors half or a quarter of the time.

A precision is written ``float32``, ``bfloat16`` or ``int8:DIGEST``, and stands like that in the fingerprint of a cache,
where float32 is left out. The digest is that of the pictures that an int8 network was calibrated on
(`int8.calibration_digest`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tlfeat.backbones.frameworks import import_openvino
from tlfeat.errors import UsageError, nearest
from tlfeat.types import Rows

FLOAT32, BFLOAT16, INT8 = KINDS = ("float32", "bfloat16", "int8")

#: What ``--precision`` takes: "auto" is the fastest of `KINDS` whose rows are as good on these images.
PRECISIONS = (*KINDS, "auto")

#: Median cosine to the rows of float32, on a probe of the user's pictures, below which a network is refused.
LEAST_COSINE = 0.97


def check_precision(wanted: str) -> None:
    """Raise `UsageError` unless `wanted` is one of `PRECISIONS`."""
    if wanted not in PRECISIONS:
        raise UsageError(f"No precision '{wanted}'. {nearest(wanted, list(PRECISIONS), of='precisions')}")


def check_written(precision: str) -> None:
    """Raise `UsageError` unless an encoder can compute at it: int8 needs pictures, whose digest it names."""
    kind, _, digest = precision.partition(":")
    if kind not in KINDS:
        raise UsageError(f"No precision '{kind}'. {nearest(kind, list(KINDS), of='precisions')}")
    if (kind == INT8) != bool(digest):
        raise UsageError("An int8 network is made for a set of pictures: plan_extraction(DATA, precision='int8').")


def kind_of(precision: str) -> str:
    """Return the one of `KINDS` that a written precision has."""
    return precision.partition(":")[0]


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor (AMX, AVX512); elsewhere it would silently not."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cosines(rows: Rows, reference: Rows) -> npt.NDArray[np.float64]:
    """Return the cosine of each row to its reference, both of shape (n, width): (n,).

    Rows of zeros alone have a cosine of 1 to each other, and of 0 to any other.
    """
    lengths = np.linalg.norm(rows, axis=1), np.linalg.norm(reference, axis=1)
    product = np.einsum("ij,ij->i", rows, reference, dtype=np.float64)
    both = np.multiply(*lengths, dtype=np.float64)
    found = np.divide(product, both, out=np.zeros(len(rows)), where=both > 0)
    return np.asarray(np.where((lengths[0] == 0) & (lengths[1] == 0), 1.0, found))
