"""What was asked for of texts becomes a job, and an encoder of the other kind is refused with what to do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from conftest import MakePhotos
from made_data import tlfeat
from made_sentences import sentences, write_table
from made_texts import as_sentence_encoder, text_folder
from tlfeat.backbones.text_encoder import TextEncoder
from tlfeat.errors import TlfeatError
from tlfeat.extract.arrays import embed
from tlfeat.extract.plan import plan_extraction
from tlfeat.models.predict import Model

needs_hub = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("keras_hub", "safetensors", "tokenizers")),
    reason="KerasHub is not installed (pip install 'tlfeat[hub]')",
)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_table(tmp_path / "s.csv", [(label, text, "x") for text, label in sentences(8)], ("kind", "said", "id"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return as_sentence_encoder(text_folder(tmp_path / "weights"))


def test_every_option_of_texts_reaches_the_encoder(table: Path, folder: Path) -> None:
    job = plan_extraction(
        table, backbone="bert", weights=str(folder), layers=["avg_pool", "final:cls"], text_column="said",
        label_column="kind", class_map=["foods=food"], dtype="float16", runtime="tensorflow", batch_size=5, n_threads=3,
    )  # fmt: skip
    encoder = job.encoder
    assert isinstance(encoder, TextEncoder)
    assert (encoder.layers, encoder.batch_size, encoder.dtype) == (("avg_pool", "final:cls"), 5, "float16")
    assert job.images.classes == ["animals", "food"]
    assert job.origin == {
        "encoder": {"backbone": "bert", "weights": str(folder)},
        "class_map": ["foods=food"],
        "text_column": "said",
        "label_column": "kind",
        "holds": "texts",
    }


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("photos", {"backbone": "bert"}, "holds images, and this backbone embeds texts"),
        ("t.csv", {}, "holds texts, and this backbone embeds images. Add --backbone minilm --weights FOLDER"),
        (
            "texts",
            {"backbone": "pixels"},
            "No images in .* If these texts are meant: --backbone minilm",
        ),
        ("t.csv", {"text_column": "text"}, "--text-column names texts: add --backbone minilm"),
        ("t.csv", {"backbone": "bert", "path_column": "a"}, "--path-column names files of images"),
        ("t.csv", {"backbone": "bert", "resize": "antialias"}, "--resize is for images, and bert embeds texts"),
        ("t.csv", {"backbone": "bert", "pool": "cls"}, "Poolings of texts are part of the layer: --layer final:cls"),
        (
            "t.csv",
            {"backbone": "minilm", "weights": "imagenet"},
            "Fetch the folder sentence-transformers/all-MiniLM-L6",
        ),
    ],
)
def test_what_does_not_fit_texts_says_what_to_do(
    data: str, options: dict[str, str], message: str, make_photos: MakePhotos, folder: Path, tmp_path: Path
) -> None:
    make_photos(n=2)
    write_table(tmp_path / "t.csv", sentences(2))
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "1.txt").write_text("x")
    with pytest.raises(TlfeatError, match=message):
        plan_extraction(tmp_path / data, **{"weights": str(folder), **options})


@needs_hub
@pytest.mark.keras
def test_texts_go_the_whole_road_with_a_network(table: Path, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="text encoders come with tlfeat[hub]")
    words = ["--text-column", "said", "--label-column", "kind", "--backbone", "bert", "--weights", str(folder)]
    said = tlfeat("extract", "s.csv", *words, "--runtime", "tensorflow", cwd=tmp_path)
    assert "16 texts, 2 classes" in said.stderr
    assert "16 embedded" in said.stdout
    again = tlfeat("extract", "--cache", str(next(Path("cache").glob("*.h5"))), cwd=tmp_path)  # what it was made with
    assert "0 embedded, 16 known already" in again.stdout
    fitted = tlfeat("fit-sklearn", "--no-search", cwd=tmp_path)
    assert "test texts" in fitted.stdout
    (tmp_path / "new.txt").write_text("Cook rice for 3 minutes")
    predicted = tlfeat("predict", "new.txt", cwd=tmp_path)
    assert predicted.stdout.splitlines()[-1].split()[:2] in (["new.txt", "foods"], ["new.txt", "animals"])
    report = tlfeat("report", "--map", "none", cwd=tmp_path)
    page = next(Path("cache/reports").rglob("comparison.html")).read_text()
    assert "--text-column said" in page
    assert "logreg" in report.stdout
    rows = embed([b"a cat", b"a dog"], "bert", weights=str(folder), runtime="tensorflow")
    assert rows.shape == (2, 16)
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("cat", "hat2"))
    with pytest.raises(TlfeatError, match="tokenizer"):
        Model(next(Path("cache/models").rglob("model.json")).parent)


def test_a_new_tokenizer_makes_another_cache(table: Path, folder: Path) -> None:
    options = {"backbone": "bert", "weights": str(folder), "text_column": "said", "label_column": "kind"}
    first = plan_extraction(table, **options)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert plan_extraction(table, **options).cache_path != first.cache_path


def test_names_of_text_encoders_are_listed_with_where_to_get_them(tmp_path: Path) -> None:
    said = tlfeat("backbones", cwd=tmp_path)
    assert "sentence-transformers/all-MiniLM-L6-v2" in said.stdout
