"""Embed images once with a frozen Keras backbone, fit scikit-learn heads in seconds, compare honestly.

The command line and this small API call the same functions; nothing heavy is imported until it is used::

    import tlfeat

    report = tlfeat.plan_extraction("photos", backbone="mobilenet_v2").run()
    rows = tlfeat.load(report.cache)  # rows.train.X, rows.train.y, rows.test, rows.frame(), ...
    with tlfeat.open_data(report.cache, seed=0) as data:
        outcome = tlfeat.fit_sklearn(data, "svm")
        comparison = tlfeat.compare_candidates(data)
    for prediction in tlfeat.Model(outcome.result.model).predict(["new.jpg"]):
        print(prediction.label, prediction.probability)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

#: Public name to the module it lives in. ``tests/test_imports.py`` holds the block below to it.
_HOME = {
    "BackboneSpec": "backbones.network",
    "Cache": "cache.reader",
    "Coral": "adapt.domain_maps",
    "DomainStandardiser": "adapt.domain_maps",
    "Embeddings": "evaluate.embeddings",
    "Encoder": "backbones.encoder",
    "ImageEmbedder": "extract.transformer",
    "ImageSet": "images.image_set",
    "KerasEncoder": "backbones.keras_encoder",
    "LinearTransport": "adapt.domain_maps",
    "Model": "models.predict",
    "PixelEncoder": "backbones.encoder",
    "PooledStandardiser": "adapt.domain_maps",
    "Result": "records",
    "SubspaceAlignment": "adapt.domain_maps",
    "TlfeatError": "errors",
    "compare_candidates": "studies.compare",
    "embed": "extract.arrays",
    "export_model": "models.export",
    "extract_rows": "extract.extract",
    "fit_keras": "models.fit_keras",
    "fit_sklearn": "models.fit_sklearn",
    "load": "evaluate.embeddings",
    "load_images": "images.load",
    "make_split": "evaluate.split",
    "next_pictures": "labelling.next",
    "open_cache": "cache.store",
    "open_data": "evaluate.data",
    "plan_extraction": "extract.plan",
}

if TYPE_CHECKING:
    from tlfeat.adapt.domain_maps import Coral as Coral
    from tlfeat.adapt.domain_maps import DomainStandardiser as DomainStandardiser
    from tlfeat.adapt.domain_maps import LinearTransport as LinearTransport
    from tlfeat.adapt.domain_maps import PooledStandardiser as PooledStandardiser
    from tlfeat.adapt.domain_maps import SubspaceAlignment as SubspaceAlignment
    from tlfeat.backbones.encoder import Encoder as Encoder
    from tlfeat.backbones.encoder import PixelEncoder as PixelEncoder
    from tlfeat.backbones.keras_encoder import KerasEncoder as KerasEncoder
    from tlfeat.backbones.network import BackboneSpec as BackboneSpec
    from tlfeat.cache.reader import Cache as Cache
    from tlfeat.cache.store import open_cache as open_cache
    from tlfeat.errors import TlfeatError as TlfeatError
    from tlfeat.evaluate.data import open_data as open_data
    from tlfeat.evaluate.embeddings import Embeddings as Embeddings
    from tlfeat.evaluate.embeddings import load as load
    from tlfeat.evaluate.split import make_split as make_split
    from tlfeat.extract.arrays import embed as embed
    from tlfeat.extract.extract import extract_rows as extract_rows
    from tlfeat.extract.plan import plan_extraction as plan_extraction
    from tlfeat.extract.transformer import ImageEmbedder as ImageEmbedder
    from tlfeat.images.image_set import ImageSet as ImageSet
    from tlfeat.images.load import load_images as load_images
    from tlfeat.labelling.next import next_pictures as next_pictures
    from tlfeat.models.export import export_model as export_model
    from tlfeat.models.fit_keras import fit_keras as fit_keras
    from tlfeat.models.fit_sklearn import fit_sklearn as fit_sklearn
    from tlfeat.models.predict import Model as Model
    from tlfeat.records import Result as Result
    from tlfeat.studies.compare import compare_candidates as compare_candidates

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import the home of a public name when it is first used (PEP 562): ``import tlfeat`` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'tlfeat' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"tlfeat.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names, for completion; what was imported to make them is not among them."""
    return sorted([*_HOME, *(name for name in globals() if name.startswith("__"))])
