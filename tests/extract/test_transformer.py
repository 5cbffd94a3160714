"""Embeddings as a step of a scikit-learn pipeline."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import CountingEncoder, MakePhotos
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.network import BackboneSpec
from tlfeat.errors import DataError, FingerprintError
from tlfeat.extract.extract import extract_rows
from tlfeat.extract.transformer import ImageEmbedder
from tlfeat.images.load import load_images


@pytest.fixture
def files(make_photos: MakePhotos) -> list[Path]:
    return sorted(make_photos(n=6).rglob("*.png"))


def test_a_pipeline_learns_from_paths(files: list[Path]) -> None:
    labels = [file.parent.name for file in files]
    pipeline = make_pipeline(ImageEmbedder("pixels", layer="pixels"), LogisticRegression())
    assert pipeline.fit(files, labels).score(files, labels) == 1.0
    assert pipeline.predict([str(files[0])]).tolist() == [labels[0]]


def test_cached_and_live_rows_are_equal_and_come_in_the_order_asked(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "c.h5"
    live = ImageEmbedder("pixels", layer="pixels").transform(files)
    extract_rows(load_images(files[0].parents[1]), PixelEncoder(), cache)
    files = [*files[3:], *files[:3]]
    counting = CountingEncoder((16, 16))
    monkeypatch.setattr("tlfeat.extract.encoders.PixelEncoder", lambda: counting)
    embedder = ImageEmbedder("pixels", layer="pixels", cache=cache)
    assert embedder.transform(files).tobytes() == np.roll(live, -3, axis=0).tobytes()
    assert counting.n_encoded == 0
    new = tmp_path / "new.png"
    new.write_bytes(files[0].read_bytes() + b" ")  # other bytes, the same picture
    mixed = embedder.transform([files[1], new, files[0]])
    assert counting.n_encoded == 1
    assert mixed.tobytes() == np.roll(live, -3, axis=0)[[1, 0, 0]].tobytes()


def test_a_cache_of_another_encoder_is_refused(files: list[Path], tmp_path: Path) -> None:
    extract_rows(load_images(files[0].parents[1]), CountingEncoder((9, 9)), tmp_path / "c.h5")
    with pytest.raises(FingerprintError, match="input_size"):
        ImageEmbedder("pixels", layer="pixels", cache=tmp_path / "c.h5").transform(files)


def test_an_image_that_cannot_be_read_is_an_error_because_a_row_may_not_be_missing(
    files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(DataError, match=r"bad\.png: not an image"):
        ImageEmbedder("pixels", layer="pixels").transform([files[0], tmp_path / "bad.png"])
    with pytest.raises(DataError, match="no image to embed"):
        ImageEmbedder("pixels", layer="pixels").transform([])


def test_another_parameter_makes_another_encoder_and_the_same_ones_do_not(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[BackboneSpec, list[str], int]] = []

    def make(spec: BackboneSpec, layers: list[str], *, batch_size: int) -> PixelEncoder:
        made.append((spec, layers, batch_size))
        return PixelEncoder(spec.size)

    monkeypatch.setattr("tlfeat.extract.encoders.KerasEncoder", make)
    embedder = ImageEmbedder("resnet50", weights="random", input_size=(8, 8)).fit(files)
    assert embedder.transform(files).shape == (12, 8 * 8 * 3)
    assert len(made) == 1
    embedder.set_params(input_size=(6, 4))
    assert embedder.transform(files).shape == (12, 6 * 4 * 3)
    for change in ({"backbone": "resnet101"}, {"layer": "conv1_relu"}, {"preprocess": "tf"}, {"batch_size": 5}):
        embedder.set_params(**change).fit(files).fit(files)
    assert [layers for _, layers, _ in made] == [*[["avg_pool"]] * 3, *[["conv1_relu"]] * 3]
    assert made[-1] == (BackboneSpec("resnet101", "random", (6, 4), "tf"), ["conv1_relu"], 5)


def test_it_can_be_cloned_and_pickled_after_use(files: list[Path]) -> None:
    embedder = ImageEmbedder("pixels", layer="pixels").fit(files)
    rows = embedder.transform(files)
    for other in (clone(embedder), pickle.loads(pickle.dumps(embedder))):
        assert other.get_params() == embedder.get_params()
        assert other.transform(files).tobytes() == rows.tobytes()


def test_columns_have_names_and_come_as_a_frame_when_asked(files: list[Path]) -> None:
    pandas = pytest.importorskip("pandas")
    embedder = ImageEmbedder("pixels", layer="pixels")
    names = embedder.get_feature_names_out()
    assert names.tolist() == [f"pixels_{i}" for i in range(768)] and embedder.n_features_out_ == 768
    rows = embedder.transform(files)
    frame = embedder.set_output(transform="pandas").fit_transform(files)
    assert isinstance(frame, pandas.DataFrame) and frame.columns.tolist() == names.tolist()
    assert frame.to_numpy().tobytes() == rows.tobytes()
    pipeline = make_pipeline(embedder, StandardScaler()).set_output(transform="pandas")
    assert pipeline.fit(files).get_feature_names_out().tolist() == names.tolist()


def test_names_follow_the_layer_and_the_width_of_another_backbone(files: list[Path]) -> None:
    embedder = ImageEmbedder(PixelEncoder((2, 3)))
    assert embedder.fit(files).get_feature_names_out().shape == (18,)
    embedder.set_params(backbone=PixelEncoder((2, 5)))
    assert embedder.get_feature_names_out().tolist()[-1] == "pixels_29"


def test_images_in_memory_pass_through_a_pipeline_and_a_sparse_matrix_does_not(files: list[Path]) -> None:
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    labels = [file.parent.name for file in files]
    pipeline = make_pipeline(ImageEmbedder("pixels"), LogisticRegression())
    assert pipeline.fit(arrays, labels).predict([Image.open(files[-1])]).tolist() == labels[-1:]
    assert cross_val_score(pipeline, arrays, labels, cv=3).tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="sparse"):
        pipeline.fit(csr_array((3, 3)), [0, 1, 1])
