"""Embed images once with a frozen Keras backbone, fit scikit-learn heads in seconds, compare honestly.

The command line and this small API call the same functions; nothing heavy is imported until it is used::

    import tlfeat

    job = tlfeat.plan_extraction(Path("photos"), backbone="mobilenet_v2", layers=["avg_pool"])
    report = job.run()
    with tlfeat.open_data(report.cache, seed=0) as data:
        outcome = tlfeat.fit_sklearn(data, "svm")
        comparison = tlfeat.compare_candidates(data)
    for prediction in tlfeat.Model(Path(outcome.result.model)).predict([Path("new.jpg")]):
        print(prediction.label, prediction.probability)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

#: Public name to the module it lives in.
_HOME = {
    "BackboneSpec": "network",
    "KerasEncoder": "backbone",
    "Encoder": "encoder",
    "PixelEncoder": "encoder",
    "Cache": "cache",
    "open_cache": "cache",
    "ImageSet": "images",
    "load_images": "images",
    "ImageEmbedder": "transformer",
    "Model": "predict",
    "Result": "records",
    "TlfeatError": "errors",
    "extract_rows": "extract",
    "plan_extraction": "plan",
    "make_split": "evaluate",
    "open_data": "candidates",
    "fit_sklearn": "candidates",
    "fit_keras": "candidates",
    "compare_candidates": "compare",
    "export_model": "export",
}

__all__ = [
    "BackboneSpec",
    "Cache",
    "Encoder",
    "ImageEmbedder",
    "ImageSet",
    "KerasEncoder",
    "Model",
    "PixelEncoder",
    "Result",
    "TlfeatError",
    "compare_candidates",
    "export_model",
    "extract_rows",
    "fit_keras",
    "fit_sklearn",
    "load_images",
    "make_split",
    "open_cache",
    "open_data",
    "plan_extraction",
]

if TYPE_CHECKING:
    from tlfeat.backbones.encoder import Encoder, PixelEncoder
    from tlfeat.backbones.keras_encoder import KerasEncoder
    from tlfeat.backbones.network import BackboneSpec
    from tlfeat.cache.store import Cache, open_cache
    from tlfeat.errors import TlfeatError
    from tlfeat.evaluate.data import open_data
    from tlfeat.evaluate.split import make_split
    from tlfeat.extract.extract import extract_rows
    from tlfeat.extract.plan import plan_extraction
    from tlfeat.extract.transformer import ImageEmbedder
    from tlfeat.images.image_set import ImageSet, load_images
    from tlfeat.models.export import export_model
    from tlfeat.models.fit_keras import fit_keras
    from tlfeat.models.fit_sklearn import fit_sklearn
    from tlfeat.models.predict import Model
    from tlfeat.records import Result
    from tlfeat.studies.compare import compare_candidates


def __getattr__(name: str) -> Any:
    """Import the home of a public name when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'tlfeat' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"tlfeat.{_HOME[name]}"), name)
