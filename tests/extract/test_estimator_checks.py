"""scikit-learn's own checks of an estimator, as far as its tables of numbers can stand for images."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.estimator_checks import check_estimator

from tlfeat.extract.transformer import ImageEmbedder
from tlfeat.types import Rows

#: Checks that transform a table of numbers, which is no image: a `ShapeError` says so. `OfTables` passes all of them.
_NO_IMAGES = "a table of numbers is no image"

DO_NOT_APPLY = dict.fromkeys(
    [
        "check_fit_score_takes_y",
        "check_estimators_dtypes",
        "check_pipeline_consistency",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_transformer_general",
        "check_transformers_unfitted_stateless",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_dict_unchanged",
        "check_fit_idempotent",
    ],
    _NO_IMAGES,
)


class Checked(ImageEmbedder):
    """The embedder as the checks take it: they run on nothing that says that it takes no tables."""

    def __init__(
        self,
        backbone: Any = "pixels",
        layer: str = "pixels",
        weights: str = "imagenet",
        preprocess: Any = None,
        input_size: Any = None,
        cache: Any = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__(backbone, layer, weights, preprocess, input_size, cache, batch_size)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        assert not tags.input_tags.two_d_array
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        return tags


class OfTables(Checked):
    """The same, which draws each line of a table as an image of one row of pixels."""

    def transform(self, X: Any) -> Rows:
        grey: npt.NDArray[np.uint8] = np.rint(np.clip(16 * np.asarray(X, float) + 128, 0, 255)).astype(np.uint8)
        return super().transform(np.repeat(grey[:, None, :, None], 3, axis=3))


def outcomes(estimator: ImageEmbedder, expected: dict[str, str]) -> dict[str, set[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks provoke some
        found = check_estimator(estimator, expected_failed_checks=expected, on_skip=None)
    by_status: dict[str, set[str]] = {}
    for each in found:
        by_status.setdefault(each["status"], set()).add(each["check_name"])
    return by_status


def test_scikit_learns_checks_pass_but_for_those_that_transform_tables() -> None:
    found = outcomes(Checked(), DO_NOT_APPLY)
    assert found.keys() <= {"passed", "xfail", "skipped"}
    assert found["xfail"] == set(DO_NOT_APPLY), "what passes is struck off the list"
    assert len(found["passed"]) >= 20 and found.get("skipped", set()) <= {"check_array_api_input"}


def test_the_checks_that_transform_tables_pass_where_tables_are_drawn_as_images() -> None:
    found = outcomes(OfTables(), {})
    assert found.keys() <= {"passed", "skipped"}
    assert found["passed"] >= set(DO_NOT_APPLY)
    assert Counter(found.get("skipped", set())) == {"check_array_api_input": 1}
