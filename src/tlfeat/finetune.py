"""Training in Keras on the same split as the heads: a head on the frozen backbone, the last layers, or from scratch.

What is frozen always runs in inference mode. Where its outputs are the same at every epoch (no augmentation, or a fixed
number of changed copies) they are computed once and only what lies above the `cut` is trained; else pixels go through
the whole network. Both train the same layers from the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tlfeat import workspace
from tlfeat.augment import augment
from tlfeat.backbone import KerasEncoder
from tlfeat.cache import Cache
from tlfeat.cut import Crossing, Cut, CutRows, CutSource, some_images, split_graph
from tlfeat.decode import Pixels, decode_batches
from tlfeat.errors import DataError, Interrupted, ModelError, counted
from tlfeat.evaluate import Labels, Split
from tlfeat.images import ImageSet
from tlfeat.network import BackboneSpec, build_base, import_keras, preprocess
from tlfeat.pixelstore import PixelStore, open_pixels_of
from tlfeat.plan import DEFAULT_BACKBONE
from tlfeat.progress import OnProgress, silent
from tlfeat.recipes import OPTIMIZERS, TrainSettings
from tlfeat.runtime import has_gpu
from tlfeat.training import State, begin_phase, make_batches, run_phase

#: Of BatchNormalization from scratch: statistics of the last 10 batches or so.
_SCRATCH_MOMENTUM = 0.9

#: Tensors at the cut take at most so much disk, whatever is free, unless a caller says otherwise.
MAX_CUT_BYTES = 20e9

#: Images whose probabilities are computed at once.
_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network from pixels of 0 to 255 to probabilities, and how it came about.

    Attributes
    ----------
    model : keras.Model
    history : dict of str to list of float
        By epoch.
    chosen : dict
        What training decided: best epoch, epochs run, how it ended, what it was fed with.
    fit_s : float
        Wall seconds of all epochs, validation included, decoding too where pixels were not kept already.
    extract_s : float or None
        Seconds to compute what crosses the cut, once; None where pixels were fed.
    notes : list of str
    """

    model: Any
    history: dict[str, list[float]]
    chosen: dict[str, Any]
    fit_s: float
    extract_s: float | None
    notes: list[str]

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended it; the weights are the best so far."""
        return bool(self.chosen["ended"] == "interrupted")


class Network:
    """A backbone and a head, with what trains set as the settings say.

    Parameters
    ----------
    spec : BackboneSpec
    input_size : tuple of int
        Height and width in pixels.
    n_classes : int
    settings : TrainSettings
    precision : str, optional
        Keras' name of a dtype policy; mixed_float16 where a GPU is, else float32.

    Attributes
    ----------
    graph : keras.Model
        The backbone, from scaled pixels to its output.
    head : list of keras.Layer
    whole : keras.Model
        From float32 pixels (n, height, width, 3) of 0 to 255 to probabilities (n, n_classes).
    """

    def __init__(
        self,
        spec: BackboneSpec,
        input_size: tuple[int, int],
        n_classes: int,
        settings: TrainSettings,
        *,
        precision: str | None = None,
    ) -> None:
        if settings.activation == "sigmoid" and n_classes != 2:
            raise DataError(f"{settings.loss} tells two classes apart; here are {n_classes}.")
        self.spec, self.input_size, self.n_classes, self.settings = spec, input_size, n_classes, settings
        keras = import_keras()
        policy = keras.config.dtype_policy()
        self.precision = precision or ("mixed_float16" if has_gpu() else "float32")
        keras.config.set_dtype_policy(self.precision)
        try:
            keras.utils.set_random_seed(settings.seed)
            base = _scratch_base(spec, input_size, settings.seed) if settings.mode == "scratch" else None
            base = base or build_base(spec, input_size)
            self.graph = base if hasattr(base, "_nodes_by_depth") else keras.Model(base.inputs[0], base.outputs[0])
            keras.utils.set_random_seed(settings.seed)
            self.head = self._head_layers()
            inputs = keras.Input((*input_size, 3), name="pixels", dtype="float32")
            outputs = self._through_head(self.graph(preprocess(inputs, spec.mode)))
            if settings.activation == "sigmoid":
                outputs = keras.ops.concatenate([1.0 - outputs, outputs], axis=-1)
            self.whole = keras.Model(inputs, outputs, name=settings.name.replace("-", "_"))
        finally:
            keras.config.set_dtype_policy(policy)
        self.unfreeze(settings.phases(1)[-1].unfreeze_last)

    def _head_layers(self) -> list[Any]:
        layers, s = import_keras().layers, self.settings
        found = [] if len(self.graph.outputs[0].shape) == 2 else [layers.GlobalAveragePooling2D()]
        found += [layers.Flatten()] if s.is_flattened else []
        for units in s.dense:
            found.append(layers.Dense(units, activation="relu"))
            found += [layers.Dropout(s.dropout)] if s.dropout else []
        found += [layers.Dropout(s.dropout)] if s.dropout and not s.dense else []
        is_sigmoid = s.activation == "sigmoid"
        n_outputs, name = (1, "probability") if is_sigmoid else (self.n_classes, "probabilities")
        return [*found, layers.Dense(n_outputs, activation=s.activation, name=name, dtype="float32")]

    def _through_head(self, features: Any) -> Any:
        for layer in self.head:
            features = layer(features)
        return features

    def unfreeze(self, last: int) -> None:
        """Let the last so many layers of the backbone train, its pooling not counted; all of them from scratch."""
        keras = import_keras()
        for layer in self.graph.layers:
            layer.trainable = True
        if self.settings.mode == "scratch":
            return
        layers = self.graph.layers
        is_pooled = self.spec.model_file is None and isinstance(layers[-1], keras.layers.GlobalAveragePooling2D)
        counted_layers = layers[:-1] if is_pooled else layers
        for layer in counted_layers[: len(counted_layers) - last]:
            layer.trainable = False
        if not self.settings.trains_batchnorm:
            for layer in layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False

    def split(self) -> tuple[Any, Any, Cut]:
        """Return the frozen part, the part above it and the `Cut` between them; see ``cut.split_graph``."""
        trunk, tail, cut = split_graph(self.graph)
        is_output = len(cut.crossings) == 1 and not tail.weights
        if is_output and self.spec.model_file is None:
            cut = replace(cut, crossings=(Crossing("avg_pool", cut.crossings[0].shape),))
        return trunk, tail, cut

    def pixel_model(self, trunk: Any, tail: Any) -> Any:
        """Return the model to train from float32 pixels; what is frozen runs in inference mode."""
        keras = import_keras()
        inputs = keras.Input((*self.input_size, 3), dtype="float32")
        return keras.Model(inputs, self._through_head(tail(trunk(preprocess(inputs, self.spec.mode), training=False))))

    def tail_model(self, tail: Any) -> Any:
        """Return the model to train from what crosses the cut."""
        keras = import_keras()
        inputs = [keras.Input(tensor.shape[1:], dtype="float32") for tensor in tail.inputs]
        return keras.Model(inputs, self._through_head(tail(inputs if len(inputs) > 1 else inputs[0])))

    def in_float32(self) -> Any:
        """Return the whole network for any device: what was trained in mixed precision is slow without a GPU."""
        if self.precision == "float32":
            return self.whole
        spec = replace(self.spec, weights="random") if self.spec.model_file is None else self.spec
        plain = Network(spec, self.input_size, self.n_classes, self.settings, precision="float32").whole
        plain.set_weights(self.whole.get_weights())
        return plain

    def compile(self, model: Any, rate: float) -> None:
        """Get a model ready to train."""
        keras = import_keras()
        model.compile(
            optimizer=getattr(keras.optimizers, OPTIMIZERS[self.settings.optimizer])(rate),
            loss=self.settings.loss,
            metrics=["accuracy"],
            jit_compile=has_gpu(),  # XLA is 8 times slower on a CPU
        )

    def targets(self, labels: Labels) -> npt.NDArray[Any]:
        """Return labels as the loss wants them."""
        if self.settings.loss == "categorical_crossentropy":
            return np.eye(self.n_classes, dtype=np.float32)[labels]
        return labels[:, None].astype(np.float32) if self.settings.activation == "sigmoid" else labels


def _scratch_base(spec: BackboneSpec, input_size: tuple[int, int], seed: int) -> Any:
    keras = import_keras()
    if spec.model_file is not None:
        base = keras.models.clone_model(build_base(spec, input_size))  # same layers, new weights
    else:
        base = build_base(BackboneSpec(spec.backbone, "random", input_size, spec.preprocess, seed), input_size)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # MobileNetV2's 0.999 averages over a thousand batches, more than small sets have in all epochs:
            # validation then runs on statistics of the initial weights and stays at chance (50.0 % of two
            # classes on 850 images, where 0.9 learns)
            layer.momentum = min(layer.momentum, _SCRATCH_MOMENTUM)
    return base


@dataclass
class Sources:
    """Where training gets its images from: pixels kept on disk, or what crosses a cut; opened when wanted.

    Attributes
    ----------
    spec : BackboneSpec
    images : ImageSet
    split : Split
    size : tuple of int
        Height and width in pixels.
    resize : str
        One of `decode.RESIZES`.
    stem : str
        For names of files.
    embeddings : Cache, optional
        Of the same backbone: its rows are taken where they are what crosses the cut.
    max_cut_bytes : float
    say : callable
        Told what is going to be written, before it is.
    """

    spec: BackboneSpec
    images: ImageSet
    split: Split
    size: tuple[int, int]
    resize: str
    stem: str
    embeddings: Cache | None = None
    max_cut_bytes: float = MAX_CUT_BYTES
    say: Callable[[str], None] = lambda _: None
    on_progress: OnProgress = silent
    _stack: ExitStack = field(default_factory=ExitStack)
    _pixels: PixelStore | None = None
    _rows: dict[str, tuple[CutRows, float]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def pixels(self) -> PixelStore:
        """Return the store of all images of the split, decoded when first asked for."""
        if self._pixels is None:
            files = [self.images.root / path for path in self.split.paths]
            store = open_pixels_of(files, self.split.keys, self.size, self.resize)
            self._pixels = self._stack.enter_context(store)
        return self._pixels

    def rows(self, cut: Cut, settings: TrainSettings) -> tuple[CutRows, float] | str:
        """Return what crosses the cut and the seconds it took to compute, or why pixels have to be taken."""
        if settings.cut == "off":
            return "--cut off"
        if not cut.is_worthwhile:
            return "next to nothing lies below the cut"
        if settings.augment and not settings.views:
            return "pictures change in every epoch (--views N would keep N changed copies of each)"
        names = [crossing.embedding for crossing in cut.crossings]
        if self._are_embedded(names) and settings.cut == "float32" and not settings.views:
            assert self.embeddings is not None
            found = CutRows(cut, names, self.embeddings, [], self.split.keys, {})
            return found, float(self.embeddings.timing["extract_s"])
        source = CutSource(
            self.spec,
            some_images(self.images, [self.split.paths[i] for i in self.split.where("train", "val")]),
            self.stem,
            self.resize,
            settings.cut,
            settings.augment,
            settings.views,
            settings.seed,
        )
        n_bytes = source.n_bytes(cut)
        if n_bytes > self.max_cut_bytes:
            return (
                f"what crosses the cut would take {n_bytes / 1e9:.1f} GB, the limit is {self.max_cut_bytes / 1e9:g} GB"
            )
        key = str((names, str(settings.augment), settings.views, settings.seed, settings.cut))
        if key not in self._rows:
            self.say(
                f"What crosses the cut ({', '.join(names)}; {cut.n_values:,} values an image, {100 * cut.share:.0f} % "
                f"of the backbone's work below it) is computed once and kept: at most {n_bytes / 1e9:.2f} GB in "
                f"{workspace.CUTS_DIR}"
            )
            self._rows[key] = self._stack.enter_context(source.open(cut, self.split.keys, on_progress=self.on_progress))
        return self._rows[key]

    def _are_embedded(self, names: Sequence[str]) -> bool:
        held = self.embeddings
        return held is not None and set(names) <= set(held.layers) and held.fingerprint.get("dtype") == "float32"

    @property
    def unstored(self) -> str:
        """Why decoded images could not be kept, or ""."""
        return self._pixels.unstored if self._pixels else ""

    def failures(self) -> list[tuple[str, str]]:
        """Return the images that took no part because they could not be read, with the reason."""
        found = {self.split.paths[i]: reason for i, reason in (self._pixels.failures if self._pixels else {}).items()}
        for rows, _ in self._rows.values():
            at = self.split.where("train", "val")
            for i in at[~rows.is_there(at)]:
                path = self.split.paths[i]
                found[path] = rows.failures.get(path, "its content has changed since it was read first")
        return sorted(found.items())


def train(
    network: Network,
    split: Split,
    sources: Sources,
    *,
    state_path: Path | None = None,
    on_progress: OnProgress = silent,
) -> Trained:
    """Train on the training images, choosing the epoch by the validation loss.

    Parameters
    ----------
    network : Network
    split : Split
        May be another one than that of `sources` in its roles.
    sources : Sources
    state_path : Path, optional
        Where the state is kept while training goes on; what is there from a stopped run is gone on from. It is
        removed at the end.

    Raises
    ------
    DataError
        No epoch ended with a finite loss, or no training image can be read any more.
    Interrupted
        Ctrl-C before the first epoch had ended; later it ends training, and `Trained` says so.
    """
    settings = network.settings
    notes: list[str] = []
    train_at, val_at = split.where("train"), split.where("val")
    targets = network.targets(split.labels)
    phases = settings.phases(len(train_at))
    state = State.load(state_path) if state_path else State()
    if state.ended == "interrupted":
        state.ended = ""
    n_resumed = state.n_epochs
    fed: list[str] = []
    extract_s = None
    for number, phase in enumerate(phases):
        network.unfreeze(phase.unfreeze_last)
        if number < state.phase:
            continue
        if number > state.phase:
            begin_phase(state, number)
        trunk, tail, cut = network.split()
        if phase.unfreeze_last and not tail.trainable_weights:
            notes.append(
                f"the last {phase.unfreeze_last} layers of {network.spec.name} have no weights that train: this is the "
                f"frozen backbone. Unfreeze more"
            )
        model, feed, fed_with, spent_s = _connect(network, trunk, tail, sources, cut, split)
        fed.append(fed_with)
        extract_s = extract_s if spent_s is None else (extract_s or 0.0) + spent_s
        network.compile(model, phase.rate)
        run_phase(
            model,
            _changing(tail, network.head),
            make_batches(feed, targets, train_at, settings.batch_size, seed=settings.seed, passes=phase.passes),
            make_batches(feed, targets, val_at, settings.batch_size) if len(val_at) else None,
            phase,
            state,
            plateau=settings.plateau,
            keeps_last=settings.keep == "last",
            save=lambda reached: reached.save(state_path) if state_path else None,
            what=f"training {settings.name}, at most {counted(phase.epochs, 'epoch')}",
            on_progress=on_progress,
        )
        if state.ended in ("diverged", "interrupted"):
            break
    if not state.n_epochs and state.ended == "interrupted":
        raise Interrupted("Stopped before the first epoch of training had ended: there is nothing to keep of it.")
    if not state.n_epochs:
        raise DataError(
            f"Training diverged in its first epoch: the loss is not finite. Try a lower --learning-rate than "
            f"{settings.rate}."
        )
    if state_path and state.ended != "interrupted":
        state_path.unlink(missing_ok=True)
    notes += _notes(split, settings, state, sources, n_resumed)
    is_last = settings.keep == "last" and state.ended != "diverged"
    chosen = {
        "best_epoch": state.n_epochs if is_last else state.best_epoch,
        "epochs_run": state.n_epochs,
        "ended": state.ended,
        "fed": "; then ".join(dict.fromkeys(fed)),
        "trainable_parameters": _n_trainable(network),
    }
    return Trained(network.in_float32(), state.history, chosen, state.fit_s, extract_s, notes)


def _connect(
    network: Network, trunk: Any, tail: Any, sources: Sources, cut: Cut, split: Split
) -> tuple[Any, Callable[..., Any], str, float | None]:
    """Return the model to train, what feeds it, that in words, and the seconds that computing it once took."""
    settings = network.settings
    found = sources.rows(cut, settings)
    if isinstance(found, str):
        store = sources.pixels()
        return network.pixel_model(trunk, tail), _pixel_feed(store, settings), f"pixels: {found}", None
    rows, spent_s = found
    for role in ("train", "val"):
        at = split.where(role)
        there = at[rows.is_there(at)]
        if len(at) and not len(there):
            raise DataError(f"None of the {role} images can be read any more; the first: {split.paths[at[0]]}.")
        rows.hold(there, is_training=role == "train")
    fed_with = f"{', '.join(rows.layers)}" + (f" of {settings.views} views" if settings.views else "")
    return network.tail_model(tail), _cut_feed(rows, settings), fed_with, spent_s


def _changing(tail: Any, head: Sequence[Any]) -> list[Any]:
    """Return every variable that training may change: weights, moving statistics, states of random generators."""
    return [*tail.variables, *(variable for layer in head for variable in layer.variables)]


def _n_trainable(network: Network) -> int:
    return int(sum(np.prod(weight.shape) for weight in network.whole.trainable_weights))


def _notes(split: Split, settings: TrainSettings, state: State, sources: Sources, n_resumed: int) -> list[str]:
    notes = []
    if not len(split.where("val")):
        notes.append("no validation images: early stopping watches the training loss")
    if n_resumed:
        notes.append(f"training went on from epoch {n_resumed}, where an earlier run was stopped")
    if state.ended == "diverged":
        notes.append(
            f"the loss was not finite in epoch {state.n_epochs + 1}: the weights are those of epoch {state.best_epoch}"
            f". Try a lower --learning-rate than {settings.rate}"
        )
    if state.ended == "interrupted":
        notes.append(f"interrupted: the weights are the best of {counted(state.n_epochs, 'epoch')}")
    if sources.unstored:
        notes.append(f"decoded images could not be kept and were decoded again at every epoch: {sources.unstored}")
    failures = sources.failures()
    if failures:
        path, reason = failures[0]
        notes.append(
            f"{counted(len(failures), 'image')} could not be read any more and took no part in training; the first: "
            f"{path}: {reason}"
        )
    return notes


def _pixel_feed(store: PixelStore, settings: TrainSettings) -> Callable[..., Any]:
    def feed(positions: Labels, epoch: int | None) -> tuple[Any, npt.NDArray[np.bool_]]:
        pixels, is_there = store.read(positions)
        pixels = pixels if is_there.all() else pixels[is_there]
        if epoch is not None and settings.augment:
            view = epoch % settings.views if settings.views else epoch
            pixels = augment(pixels, settings.augment, settings.seed, view)
        return pixels.astype(np.float32), is_there

    return feed


def _cut_feed(rows: CutRows, settings: TrainSettings) -> Callable[..., Any]:
    def feed(positions: Labels, epoch: int | None) -> tuple[Any, npt.NDArray[np.bool_]]:
        is_there = rows.is_there(positions)
        tensors = rows(positions[is_there], epoch)
        return (tensors[0] if len(tensors) == 1 else tuple(tensors)), is_there

    return feed


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


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``tlfeat summary`` prints.

    Attributes
    ----------
    text : str
        As Keras prints it.
    n_trainable, n_parameters : int
    frozen, trained : list of str
        Layers with weights, by what they do.
    """

    text: str
    n_trainable: int
    n_parameters: int
    frozen: list[str]
    trained: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts, without the text."""
        return {name: value for name, value in asdict(self).items() if name != "text"}


def summarise(
    settings: TrainSettings,
    *,
    model: Path | None = None,
    backbone: str | None = None,
    input_size: tuple[int, int] | None = None,
    preprocess: str | None = None,
    n_classes: int = 2,
) -> Summary:
    """Describe a saved network, or the one that `settings` would train, with random weights."""
    if model is not None:
        whole = load_model((model.parent if model.is_file() else model) / "model.keras")
    else:
        spec = BackboneSpec(backbone or DEFAULT_BACKBONE, "random", input_size, preprocess)
        whole = Network(spec, KerasEncoder(spec, ()).input_size, n_classes, settings).whole
    lines: list[str] = []
    whole.summary(
        expand_nested=True, show_trainable=True, line_length=110, print_fn=lambda text, **_: lines.append(text)
    )
    layers = [
        layer for layer in whole._flatten_layers(include_self=False) if layer.weights and not hasattr(layer, "layers")
    ]
    return Summary(
        "\n".join(lines),
        int(sum(np.prod(w.shape) for w in whole.trainable_weights)),
        int(sum(np.prod(w.shape) for w in whole.weights)),
        [layer.name for layer in layers if not layer.trainable_weights],
        [layer.name for layer in layers if layer.trainable_weights],
    )
