"""Whose weights a model stands on: named in what is saved and in the card, and their licence goes with them."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from conftest import MakePhotos
from made_results import a_result
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.backbones.hub_catalog import DINOV3_LICENCE
from tlfeat.evaluate.data import open_data
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.extract.extract import extract_rows
from tlfeat.images.load import load_images
from tlfeat.models.export import to_document, to_text
from tlfeat.models.licences import LICENCE_FILES, MUST_TRAVEL, Credits, credits_of, licence_texts
from tlfeat.models.model_card import Check, DataSet, Exported, model_card
from tlfeat.models.saved import Fitted, write_model
from tlfeat.records import Result, Timing
from tlfeat.workspace import read_json

DIGEST = f"sha256:{'0123456789abcdef' * 4}"

#: Backbone, weights of its encoder, digest; what is said of the weights, of the licence; whether it must travel.
KNOWN = {
    "keras": ("resnet50", "imagenet", DIGEST, "/tensorflow/keras-applications/resnet/resnet50_", "MIT", False),
    "keras-file": (
        "resnet50",
        "r.h5",
        DIGEST,
        "file that was given",
        "MIT, if they are Keras' ImageNet weights",
        False,
    ),
    "dinov2": ("dinov2_small", "imagenet", DIGEST, "huggingface.co/facebook/dinov2-small)", "Apache-2.0", False),
    "dinov2-folder": (
        *("dinov2_base", "some/folder", DIGEST, "its authors' are at https://huggingface.co/facebook/dinov2-base"),
        *("Apache-2.0, if they are its authors' weights", False),
    ),
    "kin": ("dinov3", "some/folder", DIGEST, "those that were given)", f"{DINOV3_LICENCE}, if they are", True),
    "hf": ("dinov3", "hf://me/mine", DIGEST, "https://huggingface.co/me/mine)", f"{DINOV3_LICENCE}, if they are", True),
    "dinov3": ("dinov3_small", "imagenet", DIGEST, "dinov3-vits16-pretrain-lvd1689m)", DINOV3_LICENCE, True),
    "minilm": ("minilm", "some/folder", DIGEST, "sentence-transformers/all-MiniLM-L6-v2)", "Apache-2.0, if", False),
    "text-kin": ("bert", "some/folder", DIGEST, "a bert network", "not known to tlfeat", False),
    "tfidf": ("tfidf", "none", "sha256:none", "words are counted", "", False),
    "random": ("dinov3_small", "random", "random:3", "random (random:3)", "", False),
}


def result_of(backbone: str, digest: str) -> Result:
    return replace(a_result("logreg"), backbone=backbone, fingerprint={"backbone": backbone, "weights": digest})


@pytest.mark.parametrize("name", KNOWN)
def test_weights_licence_and_source_are_named(name: str) -> None:
    backbone, weights, digest, said, licence, must_travel = KNOWN[name]
    found = credits_of(result_of(backbone, digest), {"backbone": backbone, "weights": weights})
    assert said in found.weights
    assert digest[:19] in found.weights or name == "tfidf"
    assert found.licence.startswith(licence) and bool(found.licence) == bool(licence)
    assert bool(found.terms) is must_travel
    assert not must_travel or found.terms == MUST_TRAVEL[DINOV3_LICENCE]


def test_rows_of_somebody_else_get_no_licence_of_a_backbone_that_has_the_same_name() -> None:
    for encoder in ({}, {"backbone": "imported"}):
        assert credits_of(result_of("resnet50", DIGEST), encoder).licence == "not known to tlfeat"


def card_of(credits: Credits, licences: list[str]) -> tuple[str, Exported]:
    exported = Exported(
        Path("m.onnx"),
        "onnx",
        [],
        "onnxruntime 1",
        1000,
        ["a", "b"],
        (16, 16),
        "crop",
        Check("2", 2, 1e-6, 1e-4),
        credits,
        licences,
    )
    return model_card(result_of("dinov3_small", DIGEST), DataSet("photos"), exported), exported


def test_the_card_says_what_the_terms_demand_and_whether_the_copy_is_there() -> None:
    credits = credits_of(result_of("dinov3_small", DIGEST), {"backbone": "dinov3_small", "weights": "imagenet"})
    card, exported = card_of(credits, [])
    assert f"**Licence of these weights:** {DINOV3_LICENCE}." in card
    assert MUST_TRAVEL[DINOV3_LICENCE] in card
    assert "put LICENSE.md of the folder of the weights beside it**" in card
    assert "put LICENSE.md of the folder of the weights beside it" in to_text(exported)
    card, exported = card_of(credits, ["LICENSE.md", "NOTICE"])
    assert "Its text: m.onnx.LICENSE.md, m.onnx.NOTICE, beside this file." in card
    assert "put LICENSE.md" not in card + to_text(exported)
    assert "its copy beside it" in to_text(exported)
    assert to_document(exported)["credits"]["terms"] == MUST_TRAVEL[DINOV3_LICENCE]


def test_a_licence_that_asks_for_nothing_is_named_alone() -> None:
    credits = credits_of(result_of("resnet50", DIGEST), {"backbone": "resnet50", "weights": "imagenet"})
    card, exported = card_of(credits, [])
    assert "**Licence of these weights:** MIT. The licence of the training images" in card
    assert "same terms" not in card
    assert "licence" not in to_text(exported)


@pytest.mark.parametrize("kind", ["keras", "head"])
def test_what_is_saved_names_the_weights_and_a_network_has_their_licence_beside_it(
    kind: str, make_photos: MakePhotos, tmp_path: Path
) -> None:
    cache = extract_rows(load_images(make_photos(n=6)), PixelEncoder(), tmp_path / "c.h5").cache
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "LICENSE.md").write_text("the terms")
    encoder = {"backbone": "dinov3_small", "weights": str(tmp_path / "weights")}
    with open_data(cache, seed=3) as data:
        n_test = len(data.split.where("test"))
        fitted = Fitted(
            *("some", kind, "dinov3_small", "", {}, {"backbone": "dinov3_small", "weights": DIGEST}, encoder, {}),
            np.full((n_test, 2), 0.5),
            Timing(),
            [],
        )
        result = write_model(tmp_path / "model", fitted, data, LeakedImages([], []), lambda to: None)
    said = read_json(tmp_path / "model" / "model.json")["credits"]
    assert said == asdict(credits_of(result, encoder))
    assert DIGEST[:19] in said["weights"] and said["terms"] == MUST_TRAVEL[DINOV3_LICENCE]
    assert (tmp_path / "model" / "LICENSE.md").exists() is (kind == "keras")


# --- files of the licence ---------------------------------------------------------------------------------------


def test_texts_of_the_licence_are_taken_from_the_folder_of_the_model_else_of_the_weights(tmp_path: Path) -> None:
    weights, model = tmp_path / "weights", tmp_path / "model"
    for folder in (weights, model):
        folder.mkdir()
        for name in (*LICENCE_FILES, "config.json", "LICENSE.py"):
            (folder / name).write_text(f"{folder.name} {name}")
    encoder = {"backbone": "dinov3_small", "weights": str(weights)}
    assert licence_texts(encoder, model) == {name: f"model {name}".encode() for name in LICENCE_FILES}
    for name in LICENCE_FILES:
        (model / name).unlink()
    assert licence_texts(encoder, model) == {name: f"weights {name}".encode() for name in LICENCE_FILES}
    assert (
        licence_texts({"backbone": "resnet50", "weights": "imagenet"})
        == licence_texts({"weights": "imagenet"})
        == licence_texts({})
        == {}
    )


@pytest.mark.parametrize("kind", ["large", "folder", "pipe", "link-out"])
def test_what_is_no_plain_text_of_the_folder_is_not_handed_on(kind: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "NOTICE").write_text("plain")
    odd = weights / "LICENSE"
    if kind == "large":
        odd.write_bytes(bytes((1 << 20) + 1))
    elif kind == "folder":
        odd.mkdir()
    elif kind == "pipe":
        os.mkfifo(odd)
    else:
        (tmp_path / "id_rsa").write_text("secret")
        odd.symlink_to(tmp_path / "id_rsa")
    assert licence_texts({"weights": str(weights)}) == {"NOTICE": b"plain"}


def test_a_licence_in_the_store_of_hugging_face_is_a_link_and_is_taken(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_text("the terms")
    (snapshot / "LICENSE.md").symlink_to(Path("../../blobs/abc"))
    (tmp_path / "id_rsa").write_text("secret")
    (snapshot / "NOTICE").symlink_to(tmp_path / "id_rsa")
    assert licence_texts({"weights": str(snapshot)}) == {"LICENSE.md": b"the terms"}
