"""Heads are scikit-learn's: its own fit finds them again, its own tools take them, and they load without tlfeat."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlfeat.errors import ModelError
from tlfeat.evaluate.split import Split, make_split
from tlfeat.heads import table
from tlfeat.heads.fit import Fit, fit_head, predict_probabilities
from tlfeat.heads.pipelines import classifier_of
from tlfeat.heads.saved import SCIKIT_LEARN_TYPES, load_head, save_head
from tlfeat.heads.table import HEADS, find_head
from tlfeat.images.image_set import ImageSet, ImageTable, content_key
from tlfeat.types import Rows

NAMES = [head.name for head in HEADS]
CLASSES = ("ant", "bee", "cat")
WIDTH = 14

#: Of the largest coefficient; the rest is how far either solver goes.
TOLERANCE = 0.02


def problem_of(n_classes: int, *, is_signed: bool = False, is_uneven: bool = False) -> tuple[Rows, Split]:
    """Overlapping classes in columns of unequal size, 1,100 rows: more than one block."""
    rng = np.random.default_rng(n_classes)
    shares = np.array([0.6, 0.25, 0.15])[:n_classes] if is_uneven else np.ones(n_classes)
    numbers = rng.choice(n_classes, 1_100, p=shares / shares.sum())
    rows = np.abs(rng.normal(0, 1, (1_100, WIDTH)) + rng.normal(0, 0.8, (n_classes, WIDTH))[numbers])
    rows = (rows * np.linspace(0.2, 3, WIDTH) - (1.5 if is_signed else 0)).astype(np.float32)
    labels = [CLASSES[i] for i in numbers]
    n, keys = len(rows), [content_key(row.tobytes()) for row in rows]
    images = ImageSet(Path("/d"), Path("/d"), [str(i) for i in range(n)], labels, [""] * n, [""] * n)
    split = make_split(ImageTable(images, keys, ["ok"] * n, [""] * n, [1] * n, [1] * n))
    by_key = dict(zip(keys, rows, strict=True))
    return np.stack([by_key[key] for key in split.keys]), split


def fitted_with(name: str, rows_choice: str, rows: Rows, split: Split, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """Fit a head that takes rows in one given way."""
    heads = [
        replace(h, quick=replace(h.quick, row_choices=(rows_choice,))) if h.name == name else h for h in table.HEADS
    ]
    monkeypatch.setattr(table, "HEADS", tuple(heads))
    at = split.where("train", "val")
    found = fit_head(name, rows[at], split, at, seed=2)
    assert found.chosen["rows"] == rows_choice
    return found


def fitted_again(head: Any, rows: Rows, split: Split) -> Any:
    """What scikit-learn makes of an unfitted copy, and no word of one that did not converge."""
    from sklearn.base import clone

    at = split.where("train", "val")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return clone(head).fit(rows[at].astype(np.float64), np.array(split.classes)[split.labels[at]])


WAYS = [
    *((name, "standardised") for name in ("logreg", "linear-svm", "ridge", "lda", "svm")),
    *((name, "root-l2") for name in ("logreg", "linear-svm", "ridge", "svm")),
    *(("logreg", rows) for rows in ("raw", "l2", "root", "whitened")),
    ("lda", "root"),
    ("knn", "raw"),
    ("knn", "root"),
]


# every head with two and three classes, and with every way of taking rows; the other pairs are in `make soak`
@pytest.mark.sample(
    *("logreg-standardised-2", "logreg-root-l2-3", "logreg-raw-2", "logreg-l2-3", "logreg-root-2", "logreg-whitened-3"),
    *("linear-svm-standardised-3", "linear-svm-root-l2-2", "ridge-standardised-2", "ridge-root-l2-3"),
    *("lda-standardised-3", "lda-root-2", "svm-standardised-2", "svm-root-l2-3", "knn-raw-2", "knn-root-3"),
)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("name", "rows_choice"), WAYS)
def test_scikit_learn_fits_the_same_head(
    name: str, rows_choice: str, n_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # signed and uneven in turn, so that every kind of head has met both
    is_signed = (len(name) + len(rows_choice)) % 2 == 0
    rows, split = problem_of(n_classes, is_signed=is_signed, is_uneven=n_classes == 3)
    head = fitted_with(name, rows_choice, rows, split, monkeypatch).head
    other = fitted_again(head, rows, split)
    (mine, temperature), (theirs, _) = classifier_of(head), classifier_of(other)
    assert type(mine) is type(theirs)
    if name not in ("svm", "knn"):
        largest = np.abs(theirs.coef_).max()
        assert mine.coef_.shape == theirs.coef_.shape
        size = np.abs if rows_choice == "whitened" else np.positive  # a component has no sign
        np.testing.assert_allclose(size(mine.coef_), size(theirs.coef_), rtol=0, atol=TOLERANCE * largest)
    test_at = split.where("test")
    found, expected = head.predict_proba(rows[test_at]), other.predict_proba(rows[test_at])
    if name != "knn":  # whose temperature depends on a few images, and on which of them were held out together
        assert temperature > 0
        np.testing.assert_allclose(found, expected, atol=0.05)
    same = np.mean(head.predict(rows[test_at]) == other.predict(rows[test_at]))
    assert same >= 0.99, "a score of two classes may be equal but for the tolerance"


def test_rows_with_negative_values_get_a_root_that_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_signed, function in ((False, np.sqrt), (True, np.cbrt)):
        rows, split = problem_of(2, is_signed=is_signed)
        assert (rows.min() < 0) == is_signed
        head = fitted_with("ridge", "root-l2", rows, split, monkeypatch).head
        assert head[0].func is function
    with pytest.raises(ModelError, match=r"cannot take these rows: .*NaN"):
        unsigned, split = problem_of(2)
        predict_probabilities(fitted_with("ridge", "root-l2", unsigned, split, monkeypatch).head, -unsigned)


@pytest.mark.parametrize("name", NAMES)
def test_tools_of_scikit_learn_take_a_head(name: str) -> None:
    from sklearn.base import clone, is_classifier
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import cross_val_score
    from sklearn.utils.validation import check_is_fitted

    rows, split = problem_of(3)
    at, test_at = split.where("train", "val"), split.where("test")
    head = fit_head(name, rows[at], split, at, is_searched=False).head
    names = np.array(split.classes)[split.labels]
    check_is_fitted(head)
    assert is_classifier(head)
    assert head.classes_.tolist() == list(CLASSES)
    assert head.n_features_in_ == WIDTH
    score = head.score(rows[test_at], names[test_at])
    assert score > 0.5
    parameters = {key.rpartition("__")[2]: value for key, value in clone(head).get_params().items()}
    for key, value in find_head(name).default.items():
        if key != "gamma":  # in units of scikit-learn's "scale"
            assert parameters[key] == value
    shown = permutation_importance(head, rows[test_at], names[test_at], n_repeats=2, random_state=0)
    assert shown.importances_mean.max() > 0.02
    few = np.r_[0:300]
    assert cross_val_score(head, rows[few], names[few], cv=2).min() > 0.5


@pytest.mark.filterwarnings("ignore:Attribute `prob:FutureWarning")  # skl2onnx asks SVC for what 1.11 drops
@pytest.mark.parametrize("name", ["logreg", "ridge", "lda", "svm", "linear-svm"])
def test_skl2onnx_converts_a_head(name: str) -> None:
    """But for roots, the calibration by temperature and cosine neighbours, which skl2onnx 1.20 does not know."""
    import onnxruntime
    from skl2onnx import to_onnx
    from sklearn.pipeline import Pipeline

    rows, split = problem_of(3)
    at = split.where("train", "val")
    head = fit_head(name, rows[at], split, at, is_searched=False).head
    if name != "logreg":
        head = Pipeline([*head.steps[:-1], (name, classifier_of(head)[0])])
    options = {"nocl": False} if name == "linear-svm" else {"zipmap": False}
    converted = to_onnx(
        head, rows[:1], options={id(head): options} if name != "linear-svm" else {id(head[-1]): options}
    )
    session = onnxruntime.InferenceSession(converted.SerializeToString())
    labels = session.run(None, {session.get_inputs()[0].name: rows[:90]})[0]
    assert labels.tolist() == head.predict(rows[:90]).tolist()


@pytest.mark.sample("svm-3", "knn-2", "logreg-3", "linear-svm-2", "ridge-3", "lda-2")
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_of_tlfeat_are_those_of_the_pipeline(name: str, n_classes: int) -> None:
    rows, split = problem_of(n_classes)
    at = split.where("train", "val")
    head = fit_head(name, rows[at], split, at).head
    np.testing.assert_allclose(predict_probabilities(head, rows), head.predict_proba(rows), rtol=0, atol=1e-6)


_WITHOUT_TLFEAT = """
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "tlfeat":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np, skops.io
*folders, rows = sys.argv[3:]
for folder in folders:
    file, trusted = folder + "/head.skops", sys.argv[1:3]
    assert set(skops.io.get_untrusted_types(file=file)) <= set(trusted)
    print(*skops.io.load(file, trusted=trusted).predict(np.load(rows)))
assert not any(name.partition(".")[0] == "tlfeat" for name in sys.modules)
"""


def test_heads_load_and_run_where_there_is_no_tlfeat(tmp_path: Path) -> None:
    rows, split = problem_of(3)
    at = split.where("train", "val")
    script = tmp_path / "script.py"
    script.write_text(_WITHOUT_TLFEAT, encoding="utf-8")
    fitted = {name: fit_head(name, rows[at], split, at, is_searched=False).head for name in ("svm", "logreg", "knn")}
    for name, head in fitted.items():
        (tmp_path / name).mkdir()
        save_head(head, tmp_path / name)
    np.save(tmp_path / "rows.npy", rows[:40])
    places = [*(str(tmp_path / name) for name in fitted), str(tmp_path / "rows.npy")]
    run = subprocess.run(
        [sys.executable, str(script), *SCIKIT_LEARN_TYPES, *places], capture_output=True, text=True, check=False
    )
    expected = [head.predict(rows[:40]).tolist() for head in fitted.values()]
    assert [line.split() for line in run.stdout.splitlines()] == expected, run.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda machine: setattr(machine, "_n_support", machine._n_support * 1000), "other sizes: counts"),
        (lambda machine: setattr(machine, "support_vectors_", machine.support_vectors_[:3]), "other sizes: support_"),
        (lambda machine: setattr(machine, "_dual_coef_", machine._dual_coef_[:, :3]), "other sizes: _dual_coef_"),
        (lambda machine: setattr(machine, "_intercept_", np.full_like(machine._intercept_, np.nan)), "damaged"),
        (lambda machine: setattr(machine, "classes_", machine.classes_[:2]), "other sizes: _n_support"),
    ],
)
def test_a_machine_whose_parts_do_not_fit_is_refused_before_it_computes(
    change: Any, message: str, tmp_path: Path
) -> None:
    rows, split = problem_of(3)
    at = split.where("train", "val")
    head = fit_head("svm", rows[at], split, at, is_searched=False).head
    change(classifier_of(head)[0])
    save_head(head, tmp_path)
    with pytest.raises(ModelError, match=message):
        load_head(tmp_path)
