"""A fitted head as a file, and back."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from tlfeat.errors import ModelError, UsageError, nearest
from tlfeat.files import check_saved
from tlfeat.heads.earlier import EarlierHead
from tlfeat.heads.pipelines import check_pipeline
from tlfeat.heads.words import check_words, takes_words

#: What heads are made of beyond skops' own list; nothing in them runs a caller's code.
SCIKIT_LEARN_TYPES = ("sklearn.calibration._CalibratedClassifier", "sklearn.calibration._TemperatureScaling")

_TRUSTED = (
    *SCIKIT_LEARN_TYPES,
    "sklearn.calibration._SigmoidCalibration",  # in pipelines that earlier versions saved
    "tlfeat.heads.linear.LinearHead",  # heads that earlier versions saved, and their addresses before 0.2
    "tlfeat.heads.neighbours.NeighbourHead",
    "tlfeat.heads.kernel.KernelHead",
    "tlfeat.linear_heads.LinearHead",
    "tlfeat.neighbour_heads.NeighbourHead",
    "tlfeat.kernel_heads.KernelHead",
)

FORMATS = ("skops", "joblib")


def check_format(file_format: str) -> None:
    """Raise `UsageError` unless heads can be saved as `file_format`."""
    if file_format not in FORMATS:
        raise UsageError(f"No format '{file_format}'. {nearest(file_format, FORMATS, of='formats')}")


class _Left(MetaPathFinder):
    """Finds nothing of the packages that only a walk through all of scikit-learn would import."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Refuse them; all else is for others to find."""
        if fullname.partition(".")[0] in ("torch", "cupy", "dask"):
            raise ModuleNotFoundError(f"{fullname} is not needed here", name=fullname)


@cache
def import_skops() -> Any:
    """Return ``skops.io``, imported without PyTorch where that is not there already.

    skops asks scikit-learn for all estimators, which walks through its copy of array-api-compat and so imports PyTorch
    where it is installed: four seconds for a fit of one.
    """
    left = _Left()
    sys.meta_path.insert(0, left)
    try:
        import skops.io
    finally:
        sys.meta_path.remove(left)
    return skops.io


def untrusted_types(head: Any) -> list[str] | None:
    """Return the types in a head that `load_head` takes with trust only; None where skops cannot save and load it."""
    skops_io = import_skops()
    try:
        data = skops_io.dumps(head)
        found = skops_io.get_untrusted_types(data=data)
        skops_io.loads(data, trusted=found)
    except Exception:  # of the packages of anybody's classifier
        return None
    return sorted(set(found) - set(_TRUSTED))


def save_head(head: Any, folder: Path, *, file_format: str = "skops") -> Path:
    """Write the fitted head as ``head.skops`` or ``head.joblib`` into `folder` and return the file."""
    check_format(file_format)
    if file_format == "joblib":
        import joblib

        path = folder / "head.joblib"
        joblib.dump(head, path, compress=3)
        return path
    path = folder / "head.skops"
    import_skops().dump(head, path)
    return path


def load_head(folder: Path, *, is_trusted: bool = False) -> Any:
    """Load a head from its folder; a ``head.skops`` of a stranger runs no code of theirs.

    Parameters
    ----------
    folder : Path
    is_trusted : bool, default=False
        Also load ``head.joblib``, which can run any code that its maker put in, and types of any package.

    Raises
    ------
    ModelError
        No head there, damaged, types outside the trusted list, or a joblib file without trust.
    """
    skops_file, joblib_file = folder / "head.skops", folder / "head.joblib"
    if os.path.lexists(skops_file):
        check_saved(skops_file)
        skops_io = import_skops()
        try:
            untrusted = sorted(set(skops_io.get_untrusted_types(file=skops_file)) - set(_TRUSTED))
            if untrusted and not is_trusted:
                raise ModelError(
                    f"{skops_file} holds types that no head of tlfeat has: {', '.join(untrusted)}. It was not "
                    f"loaded and none of its code ran. If you made it yourself, add --trust."
                )
            loaded = skops_io.load(skops_file, trusted=[*_TRUSTED, *untrusted])
            if takes_words(loaded):
                check_words(loaded)
            else:
                loaded.check() if isinstance(loaded, EarlierHead) else check_pipeline(loaded)
            return loaded
        except ModelError:
            raise
        except Exception as error:  # a damaged archive fails anywhere: zipfile, json, numpy, skops
            raise ModelError(f"{skops_file} is damaged: {type(error).__name__}: {error}") from error
    if os.path.lexists(joblib_file):
        check_saved(joblib_file)
        if not is_trusted:
            raise ModelError(
                f"{joblib_file} is a pickle and can run code when loaded. If you made it yourself, add --trust."
            )
        import joblib

        try:
            return joblib.load(joblib_file)
        except Exception as error:  # a damaged pickle fails anywhere
            raise ModelError(f"{joblib_file} is damaged: {type(error).__name__}: {error}") from error
    raise ModelError(f"There is no head in {folder}.")
