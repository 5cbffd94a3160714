"""How a network is trained, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tlfeat.errors import DataError, UsageError, nearest
from tlfeat.finetune.augment import Augmentation

#: Ways to train, with what they say in tables.
MODES = {
    "frozen": "Dense head on the frozen backbone",
    "finetuned": "last layers or blocks unfrozen",
    "scratch": "same architecture from random weights",
}

#: By the names that Keras gives them.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}

#: What the last layer gives, by the loss that it is trained with.
LOSSES = {
    "sparse_categorical_crossentropy": "softmax",
    "categorical_crossentropy": "softmax",
    "binary_crossentropy": "sigmoid",
}

#: How what crosses the cut is stored, or not at all.
CUTS = ("float32", "float16", "off")

#: What trains in mode ``finetuned`` where nothing is said: about the last block of MobileNetV2; of a transformer, which
#: has 12 blocks or more that are all alike, a sixth.
UNFROZEN_LAYERS, UNFROZEN_BLOCKS = 20, 2

#: Steps of an epoch at least, where --epochs is left open. Few images would be validated after every second step:
#: a head on 50 images of the example took 46 s of CPU in 250 epochs of 2 steps, 24 s in 20 of 26 (start included).
EPOCH_STEPS = 25


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training: which layers train, for how long, how fast.

    An epoch goes `passes` times through all training images before validation.
    """

    unfreeze_last: int
    epochs: int
    patience: int
    rate: float
    passes: int = 1


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train; the defaults are those of the tutorials where these agree, else what is said beside it.

    Parameters
    ----------
    mode : str, default="frozen"
        One of `MODES`.
    unfreeze_last : int, optional
        In mode ``finetuned``: layers at the end of the backbone, its pooling not counted, that train; of a vision
        transformer blocks, with the norm and the pooling above them. More than there are: the whole backbone.
        `UNFROZEN_LAYERS` or `UNFROZEN_BLOCKS` by default.
    dense : sequence of int, default=(128,)
        Units of the hidden Dense layers, each with a ReLU.
    dropout : float, default=0.2
        After every hidden layer, or before the last layer where there is none; the value of MobileNetV2's own top.
    augment : Augmentation, optional
        Training images are changed at random in every epoch; nothing by default.
    views : int, default=0
        Take only so many changed copies of each image, over and over, so that what lies below the cut is computed
        once for each of them; 0 draws anew in every epoch.
    optimizer : str, default="adam"
        One of `OPTIMIZERS`.
    loss : str, default="sparse_categorical_crossentropy"
        One of `LOSSES`; binary_crossentropy ends in one sigmoid and takes two classes.
    learning_rate : float, optional
        1e-3 by default, 1e-4 where pretrained layers train.
    head_epochs : int, default=0
        In mode ``finetuned``: train the head alone for so many epochs first, at `head_learning_rate`.
    head_learning_rate : float, default=1e-3
    plateau : int, default=0
        Divide the learning rate by 10 after so many epochs without a lower validation loss (Keras'
        ReduceLROnPlateau); 0 never does.
    epochs : int, default=0
        At most; `patience` usually ends training earlier. 0 is 20 epochs, from scratch 30, of at least `EPOCH_STEPS`
        steps each: few images are gone through several times in an epoch. (50 images make 2 steps: 20 epochs of them
        would stop a head that still learns.)
    patience : int, default=0
        Epochs without a lower validation loss before training stops. 0 is 3 epochs; from scratch 8, as its first
        epochs learn nothing that validation shows.
    cut : str, default="float32"
        How what crosses the cut is stored: float32, or float16 at half the size; "off" feeds pixels at every epoch.
    keep : str, default="best"
        Weights of the epoch with the lowest validation loss, or of the "last" epoch.
    batch_size : int, default=32
    trains_batchnorm : bool, default=False
        Whether BatchNormalization among the unfrozen layers trains, on the statistics of each batch; otherwise, and
        in all frozen layers, it runs in inference mode: its statistics were learned on a million images.
    preprocess : str, optional
        Another scaling of pixels than the backbone's own, one of ``network.PREPROCESS``.
    is_flattened : bool, default=False
        With the Flatten layer that two tutorials put on an output that is a vector already.
    recipe : str, default=""
        The name in tables.
    seed : int, default=0
    """

    mode: str = "frozen"
    unfreeze_last: int | None = None
    dense: Sequence[int] = (128,)
    dropout: float = 0.2
    augment: Augmentation = field(default_factory=Augmentation)
    views: int = 0
    optimizer: str = "adam"
    loss: str = "sparse_categorical_crossentropy"
    learning_rate: float | None = None
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    plateau: int = 0
    epochs: int = 0
    patience: int = 0
    cut: str = "float32"
    keep: str = "best"
    batch_size: int = 32
    trains_batchnorm: bool = False
    preprocess: str | None = None
    is_flattened: bool = False
    recipe: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"No way of training called '{self.mode}'. Known: {', '.join(MODES)}.")
        for value, known, of in (
            (self.optimizer, tuple(OPTIMIZERS), "optimizers"),
            (self.loss, tuple(LOSSES), "losses"),
        ):
            if value not in known:
                raise UsageError(f"'{value}' is none of the {of}. {nearest(value, list(known), of=of)}")
        if self.batch_size < 1 or self._n_unfrozen < 1 or not 0 <= self.dropout < 1:
            raise UsageError("--batch-size and --unfreeze-last are at least 1, --dropout is in [0, 1).")
        if self.keep not in ("best", "last"):
            raise UsageError(f"--keep is best or last, received '{self.keep}'.")
        if self.cut not in CUTS:
            raise UsageError(f"--cut is one of {', '.join(CUTS)}, received '{self.cut}'.")
        if any(units < 1 for units in self.dense):
            raise UsageError("--dense wants numbers of units, at least 1 each.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UsageError("--learning-rate is above 0.")
        if self.views and not self.augment:
            raise UsageError("--views says how many changed copies of each image to take: add --augment.")
        if self.head_epochs and self.mode != "finetuned":
            raise UsageError("--head-epochs trains the head before layers are unfrozen: add --unfreeze-last N.")

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return self.recipe or f"keras-{self.mode}"

    @property
    def activation(self) -> str:
        """Of the last layer."""
        return LOSSES[self.loss]

    @property
    def rate(self) -> float:
        """The learning rate in force; that of the last phase."""
        return self.learning_rate or (1e-4 if self.mode == "finetuned" else 1e-3)

    @property
    def _n_unfrozen(self) -> int:
        return UNFROZEN_LAYERS if self.unfreeze_last is None else self.unfreeze_last

    def on(self, *, has_blocks: bool) -> TrainSettings:
        """Return the settings with the default of a backbone that has blocks, or layers, for what is left open."""
        if self.unfreeze_last is not None:
            return self
        return replace(self, unfreeze_last=UNFROZEN_BLOCKS if has_blocks else UNFROZEN_LAYERS)

    def check_classes(self, n_classes: int) -> None:
        """Raise `DataError` where the loss is for fewer classes; a split has two at least."""
        if self.activation == "sigmoid" and n_classes > 2:
            raise DataError(
                f"{self.loss} tells two classes apart; here are {n_classes}. Take two of them with --classes A,B when "
                f"images are read, or --loss categorical_crossentropy."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the outcome, as JSON values; `unfreeze_last` only where it does."""
        values = {**asdict(self), "learning_rate": self.rate, "augment": str(self.augment), "dense": list(self.dense)}
        values["unfreeze_last"] = self._n_unfrozen
        if self.mode != "finetuned":
            del values["unfreeze_last"]
        if not self.head_epochs:
            del values["head_learning_rate"]
        return values

    def phases(self, n_train: int) -> list[Phase]:
        """Return the stretches of training in force for `n_train` training images, in their order."""
        unfreeze_last = self._n_unfrozen if self.mode == "finetuned" else 0
        last = Phase(unfreeze_last, *self.budget(n_train), self.rate, self.passes(n_train))
        if not self.head_epochs:
            return [last]
        return [Phase(0, self.head_epochs, self.head_epochs, self.head_learning_rate), last]

    def budget(self, n_train: int) -> tuple[int, int]:
        """Return (epochs, patience) in force for `n_train` training images."""
        epochs, steps, patience, patience_steps = (30, 800, 8, 200) if self.mode == "scratch" else (20, 500, 3, 75)
        n_steps = -(-n_train // self.batch_size) * self.passes(n_train)
        return (
            self.epochs or max(epochs, -(-steps // n_steps)),
            self.patience or max(patience, -(-patience_steps // n_steps)),
        )

    def passes(self, n_train: int) -> int:
        """Return how often an epoch goes through `n_train` training images; once where `epochs` says how often."""
        return 1 if self.epochs else max(1, -(-EPOCH_STEPS // -(-n_train // self.batch_size)))
