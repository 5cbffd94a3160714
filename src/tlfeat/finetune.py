"""Training in Keras on the same split as the heads, returning the same Result.

Three ways: a Dense head on the frozen backbone, the last N layers unfrozen, and the same architecture from random
weights. Images are decoded once into a file of pixels on disk; every epoch reads that.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tlfeat.backbone import KerasEncoder
from tlfeat.decode import Pixels, decode_all, decode_batches, pixel_type
from tlfeat.errors import CacheError, DataError, ModelError, UsageError
from tlfeat.evaluate import Labels, Split
from tlfeat.network import BackboneSpec, build_base, import_keras, preprocess
from tlfeat.progress import OnProgress, silent

#: Ways to train, with what they say in tables.
MODES = {
    "frozen": "Dense head on the frozen backbone",
    "finetuned": "last layers unfrozen",
    "scratch": "same architecture from random weights",
}


#: Of BatchNormalization from scratch: statistics of the last 10 batches or so.
_SCRATCH_MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train; the defaults are those of the tutorials where these agree, else what is said beside it.

    Parameters
    ----------
    mode : str, default="frozen"
        One of `MODES`.
    unfreeze_last : int, default=20
        Layers at the end of the backbone that train in mode ``finetuned`` (about the last block of MobileNetV2);
        BatchNormalization among them stays frozen and in inference mode.
    dense : int, default=128
        Units of the hidden Dense layer; 0 leaves it out.
    dropout : float, default=0.2
        Before the last layer; the value of MobileNetV2's own top.
    epochs : int, default=0
        At most; `patience` usually ends training earlier. 0 is 20 epochs, but at least 500 steps; from scratch 30
        and 800. (50 images make 2 steps an epoch: 20 epochs would stop a head that still learns.)
    patience : int, default=0
        Epochs without a lower validation loss before training stops and the best weights come back. 0 is 3 epochs,
        but at least 75 steps; from scratch 8 and 200, as its first epochs learn nothing that validation shows.
    learning_rate : float, optional
        Of Adam; 1e-3 by default, 1e-4 where pretrained layers train.
    batch_size : int, default=32
    seed : int, default=0
    """

    mode: str = "frozen"
    unfreeze_last: int = 20
    dense: int = 128
    dropout: float = 0.2
    epochs: int = 0
    patience: int = 0
    learning_rate: float | None = None
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"No way of training called '{self.mode}'. Known: {', '.join(MODES)}.")
        if self.batch_size < 1 or self.unfreeze_last < 1 or not 0 <= self.dropout < 1:
            raise UsageError("--batch-size and --unfreeze-last are at least 1, --dropout is in [0, 1).")

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the outcome; `unfreeze_last` only where it does."""
        values = {**asdict(self), "learning_rate": self.rate}
        if self.mode != "finetuned":
            del values["unfreeze_last"]
        return values

    def budget(self, n_train: int) -> tuple[int, int]:
        """Return (epochs, patience) in force for `n_train` training images."""
        n_steps = -(-n_train // self.batch_size)
        epochs, steps, patience, patience_steps = (30, 800, 8, 200) if self.mode == "scratch" else (20, 500, 3, 75)
        return (
            self.epochs or max(epochs, -(-steps // n_steps)),
            self.patience or max(patience, -(-patience_steps // n_steps)),
        )

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return self.learning_rate or (1e-4 if self.mode == "finetuned" else 1e-3)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model from uint8-valued pixels to probabilities, and how it came about."""

    model: Any
    history: dict[str, list[float]]
    chosen: dict[str, Any]
    fit_s: float
    notes: list[str]


@contextmanager
def stored_pixels(
    root: Path,
    paths: Sequence[str],
    size: tuple[int, int],
    resize: str,
    *,
    below: Path,
    on_progress: OnProgress = silent,
) -> Iterator[Pixels]:
    """Decode images once into a temporary file and give them as one array, gone at the end.

    Parameters
    ----------
    root, paths
        The images; every one of them was decoded before, so that one that fails now is an error.
    size : tuple of int
        Height and width in pixels.
    resize : str
        One of `decode.RESIZES`.
    below : Path
        Folder for the temporary file: n_images x height x width x 3 bytes.

    Yields
    ------
    array of shape (n_images, height, width, 3)
        As `decode.decode_bytes` gives them. Mapped from disk: it takes memory only while there is some to spare.
    """
    shape = (len(paths), *size, 3)
    dtype = np.dtype(pixel_type(resize))
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    below.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(below).free
    if free < n_bytes * 1.05:
        raise CacheError(
            f"Training needs {n_bytes / 1e9:.2f} GB in {below} for decoded images, {free / 1e9:.2f} GB are free."
        )
    with tempfile.TemporaryDirectory(dir=below, prefix=".pixels-") as folder:
        pixels = np.memmap(Path(folder) / "pixels", dtype=dtype, mode="w+", shape=shape)
        files = ((i, root / path) for i, path in enumerate(paths))
        for decoded in decode_all(files, size, resize=resize):
            if decoded.pixels is None:
                raise DataError(f"{paths[decoded.i]}: {decoded.error} (it could be read by tlfeat extract).")
            pixels[decoded.i] = decoded.pixels
            on_progress("decoding for Keras", decoded.i + 1, len(paths))
        yield pixels


def train(
    spec: BackboneSpec,
    pixels: Pixels,
    split: Split,
    settings: TrainSettings,
    *,
    on_progress: OnProgress = silent,
) -> Trained:
    """Train one network on the training images, choosing the epoch by the validation loss.

    Parameters
    ----------
    spec : BackboneSpec
    pixels : uint8 array of shape (n_images, height, width, 3)
        Of all images of the split, in its order.
    split : Split
    settings : TrainSettings
    on_progress : callable, optional
    """
    keras = import_keras()
    notes = []
    input_size = KerasEncoder(spec, ()).input_size
    model = _build(spec, input_size, len(split.classes), settings)
    if settings.mode == "finetuned" and not _base_of(model).trainable_weights:
        notes.append(
            f"the last {settings.unfreeze_last} layers of {spec.name} have no weights that train: this is the frozen "
            f"backbone. Unfreeze more"
        )
    train_at, val_at = split.where("train"), split.where("val")
    val: Any = _batches(pixels, split.labels, val_at, settings.batch_size, seed=None) if len(val_at) else None
    monitor = "val_loss" if val is not None else "loss"
    if val is None:
        notes.append("no validation images: early stopping watches the training loss")
    epochs, patience = settings.budget(len(train_at))
    stop = keras.callbacks.EarlyStopping(monitor=monitor, patience=patience, restore_best_weights=True)
    started_s = time.perf_counter()
    history = model.fit(
        _batches(pixels, split.labels, train_at, settings.batch_size, seed=settings.seed),
        validation_data=val,
        epochs=epochs,
        verbose=0,
        callbacks=[
            stop,
            _epoch_clock(keras, f"training keras-{settings.mode}, at most {epochs} epochs", epochs, on_progress),
            keras.callbacks.TerminateOnNaN(),
        ],
    ).history
    fit_s = time.perf_counter() - started_s
    losses = history.get(monitor, [])
    if not losses or not np.isfinite(losses).any():
        raise DataError(f"Training diverged: the loss is not finite. Try a lower --learning-rate than {settings.rate}.")
    trainable = int(sum(np.prod(w.shape) for w in model.trainable_weights))
    chosen = {
        "best_epoch": int(np.nanargmin(losses)) + 1,
        "epochs_run": len(losses),
        "trainable_parameters": trainable,
    }
    curves = {name: [float(v) for v in values] for name, values in history.items()}
    return Trained(model, curves, chosen, fit_s, notes)


def predict_pixels(model: Any, pixels: Pixels, *, batch_size: int = 32) -> npt.NDArray[np.float64]:
    """Return probabilities of shape (n_images, n_classes) of uint8 pixels (n_images, height, width, 3).

    The last batch is padded to `batch_size`: every new shape would be traced again, for half a second.
    """
    batches = []
    for start in range(0, len(pixels), batch_size):
        batch = np.zeros((batch_size, *pixels.shape[1:]), np.float32)
        n = len(pixels[start : start + batch_size])
        batch[:n] = pixels[start : start + batch_size]
        batches.append(np.asarray(model.predict_on_batch(batch))[:n])
    return np.concatenate(batches).astype(np.float64)


def predict_files(
    model: Any, files: Sequence[Path], size: tuple[int, int], resize: str, *, batch_size: int = 32
) -> npt.NDArray[np.float64]:
    """Return probabilities of shape (n_files, n_classes), decoding included; every file must be readable."""
    batches = decode_batches(files, size, batch_size, resize)
    return np.concatenate([predict_pixels(model, pixels) for pixels in batches])


def save_model(model: Any, path: Path) -> None:
    """Save the whole network without the optimizer's state, which is twice as large as the weights."""
    model.compile()
    model.optimizer = None
    model.save(path)


def load_model(path: Path) -> Any:
    """Load what `save_model` wrote; Keras' safe mode refuses anything that would run foreign code."""
    keras = import_keras()
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a stranger's file: whatever Keras raises means that it cannot be used
        raise ModelError(f"{path} cannot be loaded as a Keras model: {str(error).splitlines()[0]}") from error


def _build(spec: BackboneSpec, input_size: tuple[int, int], n_classes: int, settings: TrainSettings) -> Any:
    keras = import_keras()
    keras.utils.set_random_seed(settings.seed)
    base = _base_for(spec, input_size, settings)
    keras.utils.set_random_seed(settings.seed)
    inputs = keras.Input((*input_size, 3), name="pixels")  # float32, 0 to 255
    x = base(preprocess(inputs, spec.mode))
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D()(x)
    if settings.dense:
        x = keras.layers.Dense(settings.dense, activation="relu")(x)
    x = keras.layers.Dropout(settings.dropout)(x)
    outputs = keras.layers.Dense(n_classes, activation="softmax", name="probabilities")(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(settings.rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # XLA is 8 times slower on a CPU
    )
    return model


def _base_for(spec: BackboneSpec, input_size: tuple[int, int], settings: TrainSettings) -> Any:
    keras = import_keras()
    if settings.mode == "scratch":
        if spec.model_file is not None:
            base = keras.models.clone_model(build_base(spec, input_size))  # same layers, new weights
        else:
            random = BackboneSpec(spec.backbone, "random", input_size, spec.preprocess, settings.seed)
            base = build_base(random, input_size)
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                # MobileNetV2's 0.999 averages over a thousand batches, more than small sets have in all epochs:
                # validation then runs on statistics of the initial weights and stays at chance (50.0 % of two
                # classes on 850 images, where 0.9 learns)
                layer.momentum = min(layer.momentum, _SCRATCH_MOMENTUM)
        return base
    base = build_base(spec, input_size)
    base.trainable = settings.mode == "finetuned"
    if settings.mode == "finetuned":
        for layer in base.layers[: -settings.unfreeze_last]:
            layer.trainable = False
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False  # inference mode: its statistics were learned on a million images
    return base


def _base_of(model: Any) -> Any:
    """Return the backbone within a network that `_build` made: the one layer that is a model itself."""
    return next(layer for layer in model.layers if hasattr(layer, "layers"))


def _batches(pixels: Pixels, labels: Labels, positions: Labels, batch_size: int, *, seed: int | None) -> Any:
    """Return a Keras data set over the stored pixels, shuffled anew each epoch where a seed is given."""
    keras = import_keras()

    class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rng = None if seed is None else np.random.default_rng(seed)
            self.order = positions
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-len(positions) // batch_size)

        def __getitem__(self, i: int) -> tuple[npt.NDArray[np.float32], Labels]:
            # sorted within the batch: the file is then read forwards
            at = np.sort(self.order[i * batch_size : (i + 1) * batch_size])
            return pixels[at].astype(np.float32), labels[at]

        def on_epoch_end(self) -> None:
            if self.rng is not None:
                self.order = self.rng.permutation(positions)

    return Batches()


def _epoch_clock(keras: Any, what: str, epochs: int, on_progress: OnProgress) -> Any:
    """A callback that reports batches and writes each epoch's wall seconds into the history."""

    class EpochClock(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch, self.started_s = epoch, time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            steps = self.params.get("steps") or 0
            on_progress(what, self.epoch * steps + batch + 1, epochs * steps)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if logs is not None:
                logs["epoch_s"] = time.perf_counter() - self.started_s

    return EpochClock()
