"""The declaration of a run: all that decides what it trains, in one tree of dataclasses.

Flags, columns and the run's name are derived from it; nothing here trains or writes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import TYPE_CHECKING, Annotated, Any

from robust_tf import models, settings
from robust_tf.data import DIGESTS
from robust_tf.errors import InvalidArgument
from robust_tf.files import file_name
from robust_tf.perturbations.condition import Condition
from robust_tf.runs.presets import PRESETS
from robust_tf.settings import OneOf, Other, Setting, choice, switch, whole
from robust_tf.training import (
    DISTRIBUTIONS,
    JIT_COMPILE,
    STRATEGIES,
    Natural,
    Recipe,
    Strategy,
    Transfer,
    augmentations,
)

if TYPE_CHECKING:
    import keras

    from robust_tf.data import Data

NETWORKS = {name: settings.of_function(function) for name, function in models.MODELS.items()}


ValueRange = Annotated[tuple[float, float] | None, models.VALUE_RANGE]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnNetwork:
    """A network of the user's own.

    Attributes:
        architecture: what it is, a `models.Architecture`.
        value_range: the values that black and white have in its input; None for (0, 1), or
            what a network of `keras.applications` takes.
        weights: a file with weights of a network of `keras.applications`; None for random ones.
    """

    architecture: Any  # not a dataclass of settings
    value_range: ValueRange = None
    weights: Annotated[
        str | None,
        Setting(
            "A file with weights for keras.applications:NAME, with or without its last layers.",
            default="random weights",
        ),
    ] = None

    def __str__(self) -> str:
        """The name, with a digest that tells it from others."""
        return f"{self.architecture.name} {self.architecture.digest}"


@dataclasses.dataclass(frozen=True)
class PretrainedNetwork:
    """The network of a saved model that training starts from, whatever it is.

    Attributes:
        name: its name.
        value_range: as in `OwnNetwork`.
    """

    name: str
    value_range: ValueRange = None

    def __str__(self) -> str:
        """The name."""
        return self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What to train, in full; made by `defaults.resolve`.

    Attributes:
        strategy: one of `training.STRATEGIES`.
        channel_blur: blur over the channel axis too, in training and tests.
        model: the network, with its settings.
        standardize: "pixel", "global" or "none".
        precision: one of `models.PRECISIONS`.
        recipe: how it is trained.
        jit_compile: whether XLA compiles the training step, one of `training.JIT_COMPILE`.
        distribute: one of `training.DISTRIBUTIONS`.
        seed: decides everything that is random.
        preset: a name of `PRESETS`, whose settings are in the others.
        dataset: name of the dataset.
        data_source: where the data came from, as `Data.source`.
        divisor: what made values in [0, 1] of the images' bytes.
        train_examples: number of training images.
        test_examples: number of test images.
        train_digest: of the training data, see `Data.train_digest`.
        test_digest: of the test images and their labels, see `Split.digest`.
        natural: the natural training that the same settings with the strategy "natural" give:
            the baseline, and what transfer starts from by default; None for a natural run.
        start: what transfer starts from: the name of a natural run, or the fingerprint of the
            SavedModel that `pretrained` names; None with other strategies.
    """

    strategy: Annotated[
        Strategy,
        OneOf(
            "natural: no perturbation; constant: every training image is perturbed; incremental: "
            "a fraction of each batch that grows with the epochs; transfer: a natural model gets "
            "a new head and is trained on perturbed images.",
            STRATEGIES,
            default="constant with --perturb, or else natural",
        ),
    ] = Natural()
    preset: Annotated[
        str,
        choice(
            "Where the paper's text and its figures differ: as the text says, or as the "
            "published figures were made (order, number and range of MNIST's training images "
            "included).",
            PRESETS,
        ),
    ] = "text"
    recipe: Recipe
    model: Annotated[
        Any,
        OneOf(
            "The network: the paper's two; compact, which learns CIFAR-10 in minutes; "
            "wide_resnet; or one of your own, whose weights are drawn anew: "
            f"{models.OWN_FORMS}.",
            NETWORKS,
            default="mnist_cnn for images of one channel, or else cifar10_cnn",
            other=Other(OwnNetwork, models.OWN_FORMS, models.is_own),
        ),
    ]
    standardize: Annotated[
        str,
        choice(
            "Mean and deviation of the input at each pixel position (as in the paper), over all "
            "values, or none; with --pretrained as there, if it has it.",
            models.STANDARDIZATIONS,
        ),
    ] = "pixel"
    precision: Annotated[
        str,
        choice("What layers compute in; with --pretrained as there.", models.PRECISIONS),
    ] = "float32"
    jit_compile: Annotated[
        str,
        choice(
            "Whether XLA compiles the training step. auto: no, since it cannot where the same "
            "command must give the same numbers on a GPU too; with on it need not.",
            JIT_COMPILE,
        ),
    ] = "auto"
    distribute: Annotated[
        str,
        choice(
            "none: train on one device; mirrored: share each batch between all GPUs.",
            DISTRIBUTIONS,
        ),
    ] = "none"
    channel_blur: Annotated[
        bool, switch("Blur over the colour axis too, as in the paper's figures.")
    ] = False
    seed: Annotated[int, whole("Decides everything that is random.", 0)] = 0
    dataset: str
    data_source: str
    divisor: int
    train_examples: int
    test_examples: int
    train_digest: str
    test_digest: str
    natural: Run | None
    start: str | None

    def __post_init__(self):
        """Checks what settings have to do with each other and with the data."""
        if self.jit_compile == "on" and self.distribute != "none":
            raise InvalidArgument("jit_compile", "on", f"off with distribute={self.distribute}")
        if self.recipe.batch_size > self.train_examples:
            expected = f"at most {self.train_examples}, the number of training images"
            raise InvalidArgument("batch_size", self.recipe.batch_size, expected)

    @property
    def perturbation(self) -> Condition | None:
        """What perturbs training images; None for natural training."""
        return self.strategy.applied

    @property
    def starts_from(self) -> Run | None:
        """The run that its training starts from; None if it starts anew or from elsewhere."""
        own = isinstance(self.strategy, Transfer) and self.strategy.pretrained is None
        return self.natural if own else None

    @property
    def label(self) -> str:
        """In words, as in tables and on figures: "constant hot 6", "constant all"."""
        flat = settings.flatten(self)
        words = [flat["strategy"]]
        if "perturb" in flat:
            level = flat.get("level")
            words += [flat["perturb"], *([f"{level:g}"] if isinstance(level, int | float) else [])]
        return " ".join(words)

    @property
    def name(self) -> str:
        """A name that tells the run from all others with other settings.

        Settings that do not affect its training do not affect the name.
        """
        digest = hashlib.sha256(json.dumps(_identity(self), sort_keys=True).encode())
        return file_name(f"{self.dataset} {self.label} {digest.hexdigest()[:8]}")

    def build_model(self, data: Data, pretrained: keras.Model | None = None) -> keras.Model:
        """The model that training starts from.

        Args:
            data: what the run was resolved for.
            pretrained: gets a new head (transfer); otherwise the model is made anew.

        Raises:
            InvalidArgument: if the images are too small for the network.
        """
        classes = len(data.label_names)
        if isinstance(self.strategy, Transfer) and pretrained is not None:
            return models.with_new_head(
                pretrained,
                classes,
                self.strategy.head_units,
                freeze_base=self.strategy.freeze_base,
                seed=self.seed,
            )
        own: dict[str, Any] = {
            "standardize": self.standardize,
            "precision": self.precision,
            "mirror": "flip" in augmentations.parse(self.recipe.augment),
            "seed": self.seed,
        }
        if isinstance(self.model, OwnNetwork):
            steps = self.recipe.epochs * math.ceil(len(data.train) / self.recipe.batch_size)
            return self.model.architecture.build(classes, **own, steps=steps)
        name = settings.flatten(self)["model"]
        return models.build(name, data.image_shape, classes, **own, **settings.flatten(self.model))

    def columns(self) -> dict[str, Any]:
        """The run as the columns of `runs.csv` that it decides."""
        flat = {"run": self.name, **settings.flatten(self)}
        del flat["natural"]
        flat["train_perturb"] = flat.pop("perturb", "none")
        level = flat.pop("level", None)
        flat["train_level"] = None if isinstance(level, str) else level
        flat["train_range"] = level if isinstance(level, str) else None
        flat["pretrained"] = flat.pop("start")
        if isinstance(self.strategy, Transfer):
            flat["head_units"] = json.dumps(self.strategy.head_units)  # text to every reader
            flat["keep_standardization"] = self.strategy.adapts_to is None
        if flat.get("value_range") is not None:
            flat["value_range"] = "{:g},{:g}".format(*flat["value_range"])
        return {name: flat.get(name) for name in _KNOWN}


# What names of runs have always had in them; of settings that came later, those that are not
# at their defaults. So a new setting leaves the names of earlier runs as they are.
_ALWAYS = {
    "strategy", "perturb", "level", "extra_pixels", "fresh", "ramp", "ramp_start", "ramp_end",
    "head_units", "freeze_base", "keep_standardization", "channel_blur", "model", "batch_norm",
    "dropout", "activation", "standardize", "epochs", "batch_size", "learning_rate", "beta_1",
    "shuffle", "drop_remainder", "seed", "dataset", "data_source", "divisor", "train_examples",
    "start",
}  # fmt: skip
# What does not affect training; `start` stands for what is pretrained.
_NEVER = {"preset", "natural", "pretrained", "test_examples", "test_digest", "weights"}


def _identity(run: Run) -> dict[str, Any]:
    """What a run's name is a digest of."""
    flat = settings.flatten(run)
    unused = set(_NEVER)
    if isinstance(run.model, OwnNetwork):  # known by its content, wherever it is
        flat["model"] = f"own {flat.pop('architecture').digest}"
    if (known := DIGESTS.get((run.dataset, run.data_source))) and known[0] == run.train_digest:
        unused.add("train_digest")  # names were given before digests were
    if flat.get("extra_pixels") is None:
        unused.add("extra_pixels")
    if isinstance(run.strategy, Transfer):
        if run.strategy.freeze_base:
            unused.add("keep_standardization")
    else:
        unused.add("start")
    for name, declared in settings.declared(Run).items():
        if name not in _ALWAYS and flat.get(name) == declared.default:
            unused.add(name)
    always = dict.fromkeys(("perturb", "level", "batch_norm", "dropout", "activation"))
    return {name: value for name, value in (always | flat).items() if name not in unused}


# Columns of every run, whatever it trains; then those of its settings, and what was measured.
_FIRST = [
    "run", "dataset", "data_source", "model", "strategy", "train_perturb", "train_level", "seed",
]  # fmt: skip
_MEASURED = [
    "train_accuracy",
    "natural_accuracy",
    "seconds",
    "images_per_second",
    "threads",
    "devices",
    "machine",
    "saved_model",
    "tensorflow_version",
    "keras_version",
    "robust_tf_version",
]
_RENAMED = {"perturb": "train_perturb", "defects": "train_perturb", "level": "train_level"}
_SETTINGS = [_RENAMED.get(name, name) for name in settings.declared(Run)]
_DATA = ["divisor", "train_examples", "test_examples", "train_digest", "test_digest"]
_KNOWN = [*dict.fromkeys([*_FIRST, "train_range", *_SETTINGS, *_DATA])]
RUN_COLUMNS = [*_KNOWN, *_MEASURED]
