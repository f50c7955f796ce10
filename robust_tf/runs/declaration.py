"""What a run is: its options, checked and resolved for a dataset, and its name.

Nothing here trains or writes; `runs` does.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

import keras

from robust_tf import models, results, saved_models, training
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.files import file_name
from robust_tf.paper import experiments
from robust_tf.perturbations import KINDS, Perturbation, mixtures
from robust_tf.seeds import stream_seed
from robust_tf.training import augmentations, devices
from robust_tf.training.callbacks import Ramp
from robust_tf.training.strategies import STRATEGIES

# Options whose defaults come from the preset.
_OF_PRESET = (
    "extra_pixels",
    "channel_blur",
    "ramp_start",
    "ramp_end",
    "beta_1",
    "shuffle",
    "drop_remainder",
)
_LATER = {
    "precision": "float32",
    "jit_compile": "auto",
    "distribute": "none",
    "optimizer": "adam",
    "schedule": "constant",
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "weight_average": 0.0,
    "augment": "none",
}
_RECIPE = tuple(field.name for field in dataclasses.fields(training.Recipe))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, as a user asks for it; None stands for a default.

    Args:
        strategy: "natural", "constant", "incremental" or "transfer".
        perturb: the kind of perturbation in training, or several, or "all", as
            `mixtures.parse` takes them; None for natural training.
        level: its level, see `perturbations.Perturbation`; or a range, see
            `mixtures.parse`.
        preset: "text" or "published"; gives the defaults of what is marked by *, and of
            the training images (see `experiments.Preset`).
        extra_pixels*: pixels that are perturbed in training beyond `level` (stuck, dead,
            hot), a whole number from 0 on. The levels of a range are what they are.
        channel_blur*: blur over the channel axis too, in training and tests.
        fresh: draw a training perturbation anew in each epoch.
        ramp: "linear", "cosine" or "step" (incremental training).
        ramp_start*: perturbed fraction in the first epoch, in [0, 1].
        ramp_end*: perturbed fraction in the last epoch, in [0, 1].
        pretrained: the directory of the SavedModel that transfer starts from, with or
            without its version; None for the natural run with the same options.
        head_units: units of the ReLU layers of transfer's new head.
        freeze_base: train nothing but the head (transfer).
        keep_standardization: of the pretrained model, even when it is fine-tuned; a
            frozen base keeps its own anyway (transfer).
        model: a name of `models.MODELS`.
        batch_norm: whether the network has batch norm.
        dropout: its rate of dropout, in [0, 1).
        activation: its activation, one of `models.ACTIVATIONS`.
        epochs: passes over the training images.
        batch_size: images a batch.
        learning_rate: the optimizer's step size, or its highest.
        optimizer: one of `training.OPTIMIZERS`.
        beta_1*: decay of Adam's mean of gradients (adam, adamw).
        schedule: one of `training.SCHEDULES`.
        weight_decay: see `training.Recipe`, from 0 on (adamw, sgd).
        label_smoothing: see `training.Recipe`, in [0, 1).
        weight_average: see `training.Recipe`, in [0, 1).
        augment: "none", or changes of the training images in each epoch, see
            `augmentations.parse`; with "flip" a new network also averages over an image and
            its mirror image once it is trained.
        shuffle*: a new order of the training images in each epoch.
        drop_remainder*: leave out the images of an epoch that do not fill a batch.
        standardize: "pixel", "global" or "none".
        precision: one of `models.PRECISIONS`.
        jit_compile: one of `training.JIT_COMPILE`.
        distribute: one of `distribution.DISTRIBUTIONS`.
        seed: decides everything that is random.

    Raises:
        InvalidArgument: if an argument is not allowed, whatever the data.
    """

    strategy: str = "natural"
    perturb: str | None = None
    level: float | str | None = None
    preset: str = "text"
    extra_pixels: int | None = None
    channel_blur: bool | None = None
    fresh: bool = False
    ramp: str = Ramp.shape
    ramp_start: float | None = None
    ramp_end: float | None = None
    pretrained: str | None = None
    head_units: tuple[int, ...] | None = None
    freeze_base: bool = False
    keep_standardization: bool = False
    model: str | None = None
    batch_norm: bool | None = None
    dropout: float | None = None
    activation: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    optimizer: str | None = None
    beta_1: float | None = None
    schedule: str | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    weight_average: float | None = None
    augment: str | None = None
    shuffle: bool | None = None
    drop_remainder: bool | None = None
    standardize: str | None = None
    precision: str | None = None
    jit_compile: str = "auto"
    distribute: str = "none"
    seed: int = 0

    def __post_init__(self):
        """Checks what can be checked without data; fills in the level and the preset."""
        _check_choice("strategy", self.strategy, STRATEGIES)
        _check_choice("preset", self.preset, experiments.PRESETS)
        for argument in _OF_PRESET:
            if getattr(self, argument) is None:
                default = getattr(experiments.PRESETS[self.preset], argument)
                object.__setattr__(self, argument, default)
        if self.activation is not None:
            _check_choice("activation", self.activation, models.ACTIVATIONS)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InvalidArgument("dropout", self.dropout, "a rate from 0 to below 1")
        if self.extra_pixels is not None and self.extra_pixels < 0:
            raise InvalidArgument("extra_pixels", self.extra_pixels, "a whole number from 0 on")
        if self.standardize is not None:
            _check_choice("standardize", self.standardize, models.STANDARDIZATIONS)
        if self.optimizer is not None:
            _check_choice("optimizer", self.optimizer, training.OPTIMIZERS)
        if self.schedule is not None:
            _check_choice("schedule", self.schedule, training.SCHEDULES)
        if self.augment is not None:
            augmentations.parse(self.augment)
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise InvalidArgument("weight_decay", self.weight_decay, "a number from 0 on")
        if self.precision is not None:
            _check_choice("precision", self.precision, models.PRECISIONS)
        _check_choice("jit_compile", self.jit_compile, training.JIT_COMPILE)
        _check_choice("distribute", self.distribute, devices.DISTRIBUTIONS)
        if self.jit_compile == "on" and self.distribute != "none":
            raise InvalidArgument("jit_compile", "on", f"off with distribute={self.distribute}")
        if self.model is not None and self.pretrained is None:
            _check_choice("model", self.model, models.MODELS)
        if self.strategy != "transfer":
            self._refuse("pretrained", "head_units", "freeze_base", "keep_standardization")
        for units in self.head_units or ():
            if units < 1:
                raise InvalidArgument("head_units", units, "whole numbers from 1 on")
        for argument in ("epochs", "batch_size"):
            value = getattr(self, argument)
            if value is not None and value < 1:
                raise InvalidArgument(argument, value, "a whole number from 1 on")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise InvalidArgument("learning_rate", self.learning_rate, "a number above 0")
        for argument in ("beta_1", "label_smoothing", "weight_average"):
            value = getattr(self, argument)
            if value is not None and not 0 <= value < 1:
                raise InvalidArgument(argument, value, "a number from 0 to below 1")
        stream_seed(self.seed, "")
        Ramp(_or(self.ramp_start, Ramp.start), _or(self.ramp_end, Ramp.end), self.ramp)
        if self.strategy == "natural":
            self._refuse("perturb", "level")
        else:
            mixture = mixtures.parse(self.perturb, self.level) if self.perturb else None
            if mixture:
                if self.extra_pixels not in (0, experiments.PRESETS[self.preset].extra_pixels):
                    expected = "no value with a range of levels"
                    raise InvalidArgument("extra_pixels", self.extra_pixels, expected)
                kinds = [kind for kind, _, _ in mixture.ranges]
                several = "all" if len(kinds) == len(KINDS) else ",".join(kinds)
                object.__setattr__(self, "perturb", several)
                object.__setattr__(self, "level", str(mixture))
                return
            if self.perturb not in KINDS:
                expected = f"all, or some of {', '.join(KINDS)}"
                raise InvalidArgument("perturb", self.perturb, expected)
            level = KINDS[self.perturb].train_level if self.level is None else self.level
            level = Perturbation(self.perturb, level).level
            object.__setattr__(self, "level", level)

    def _refuse(self, *arguments: str, because: str = "") -> None:
        because = because or f"strategy={self.strategy}"
        for argument in arguments:
            value = getattr(self, argument)
            if value != getattr(Options, argument):  # its default
                raise InvalidArgument(argument, value, f"no value with {because}")

    @property
    def perturbation(self) -> Perturbation | mixtures.Mixture | None:
        """The training perturbation; None for natural training."""
        if self.perturb is None:
            return None
        if isinstance(self.level, str):
            mixture = mixtures.parse(self.perturb, self.level)
            return mixture and dataclasses.replace(mixture, channel_blur=bool(self.channel_blur))
        level = (self.level or 0) + (self.extra_pixels or 0) * self._of_pixels
        return Perturbation(self.perturb, level, bool(self.channel_blur))

    @property
    def _of_pixels(self) -> bool:
        """Whether it has one number of pixels."""
        return (
            self.perturb in KINDS
            and not isinstance(self.level, str)
            and (KINDS[self.perturb].family == "pixels")
        )

    @property
    def label(self) -> str:
        """In words, as in tables and on figures: "constant hot 6", "constant all"."""
        level = math.nan if isinstance(self.level, str) else self.level or 0
        return results.training_label(self.strategy, self.perturb or "none", level)

    def _natural(self) -> "Options":
        return dataclasses.replace(
            self,
            strategy="natural",
            perturb=None,
            level=None,
            pretrained=None,
            head_units=None,
            freeze_base=False,
            keep_standardization=False,
        )

    def resolve(self, data: Data) -> "Run":
        """Fills in the defaults for a dataset and checks the rest.

        Raises:
            InvalidArgument: if an argument does not fit the data.
            Unavailable: if `pretrained` is no SavedModel that can be reloaded.
        """
        if self.pretrained is not None:
            network = (
                "model",
                "standardize",
                "batch_norm",
                "dropout",
                "activation",
                "precision",
            )
            self._refuse(*network, because="pretrained, which decides it")
        examples = len(data.train)
        start = self._start(data)
        model = start.get("model", self.model)
        if model not in models.MODELS:
            model = experiments.default_model(data.image_shape)
        hyperparameters = experiments.default_hyperparameters(
            model, self.strategy, examples, data.image_shape
        )
        epochs = self.epochs or hyperparameters.epochs
        spec = models.MODELS[model]
        defaults = {
            **dataclasses.asdict(hyperparameters),
            "ramp_end": 1.0 - 1.0 / epochs,
            "batch_norm": spec.batch_norm,
            "dropout": spec.dropout,
            "activation": spec.activation,
            "precision": "float32",
            "head_units": experiments.HEAD_UNITS[model] if self.strategy == "transfer" else None,
        }
        optimizer = self.optimizer or hyperparameters.optimizer
        if (optimizer == "sgd") != (hyperparameters.optimizer == "sgd"):
            defaults["learning_rate"] = training.LEARNING_RATES[optimizer]
        if optimizer == "adam":
            defaults["weight_decay"] = 0.0  # it has none
        asked = {field.name: getattr(self, field.name) for field in dataclasses.fields(Options)}
        filled = {key: default for key, default in defaults.items() if asked[key] is None}
        run = Run(
            **{
                **asked,
                "model": model,
                **filled,
                "natural_run": None,
                "start": None,
                **start,
                "dataset": data.name,
                "data_source": data.source,
                "divisor": data.train.divisor,
                "train_examples": examples,
                "test_examples": len(data.test),
            }
        )
        if run.batch_size > examples:
            expected = f"at most {examples}, the number of training images"
            raise InvalidArgument("batch_size", run.batch_size, expected)
        if run.weight_decay and run.optimizer == "adam":
            raise InvalidArgument("weight_decay", run.weight_decay, "0 with optimizer=adam")
        if run.perturbation:
            run.perturbation.check(data.image_shape)
        if run.pretrained is None:
            models.check(model, data.image_shape)
        return run

    def _start(self, data: Data) -> dict[str, Any]:
        """The natural run, what transfer starts from, and what that decides."""
        if self.strategy == "natural":
            return {}
        if self.pretrained is None:
            natural_run = self._natural().resolve(data)
            start = natural_run.name if self.strategy == "transfer" else None
            return {"natural_run": natural_run, "start": start}
        folder = saved_models.find("pretrained", self.pretrained)
        trained = saved_models.load(folder, argument="pretrained")
        shape = trained.input_shape[1:]
        if shape != data.image_shape:
            expected = f"a model for images of shape {data.image_shape}, not {shape}"
            raise InvalidArgument("pretrained", self.pretrained, expected)
        names = {layer.name: layer for layer in trained.layers}
        network = trained.name if trained.name in models.MODELS else None
        return {
            "natural_run": dataclasses.replace(self._natural(), model=network).resolve(data),
            "start": saved_models.fingerprint(folder),
            "model": trained.name,
            "standardize": names["standardization"].mode if "standardization" in names else "none",
            "precision": models.precision_of(trained),
            **{"batch_norm": None, "dropout": None, "activation": None},  # whatever it has
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Options):
    """What to train, in full; made by `Options.resolve`.

    Args:
        natural_run: the natural training that the same options with strategy "natural"
            ask for: the baseline, and what transfer starts from by default; None for a
            natural run.
        start: what transfer starts from: the name of a natural run, or the fingerprint
            of the SavedModel that `pretrained` names; None with other strategies.
        dataset: name of the dataset.
        data_source: where the data came from, "tfds" or "sample".
        divisor: what made values in [0, 1] of the images' bytes.
        train_examples: number of training images.
        test_examples: number of test images.
    """

    model: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    beta_1: float
    schedule: str
    weight_decay: float
    label_smoothing: float
    weight_average: float
    augment: str
    shuffle: bool
    drop_remainder: bool
    extra_pixels: int
    channel_blur: bool
    ramp_start: float
    ramp_end: float
    standardize: str
    precision: str
    natural_run: "Run | None"
    start: str | None
    dataset: str
    data_source: str
    divisor: int
    train_examples: int
    test_examples: int

    @property
    def name(self) -> str:
        """A name that tells the run from all others with other settings.

        Settings that do not affect its training do not affect the name.
        """
        unused = {"test_examples", "natural_run", "pretrained"}  # `start` stands for these
        unused |= {"preset"}  # its settings count
        if self.optimizer == "sgd":
            unused |= {"beta_1"}
        if self.strategy == "natural":
            unused |= {"fresh"}
        if not self._of_pixels:
            unused |= {"extra_pixels"}
        if self.strategy != "incremental":
            unused |= {"ramp", "ramp_start", "ramp_end"}
        if self.strategy != "transfer":
            unused |= {"start", "head_units", "freeze_base", "keep_standardization"}
        elif self.freeze_base:
            unused |= {"keep_standardization"}
        # Later settings, at their defaults, leave the names that runs had before them.
        unused |= {key for key, value in _LATER.items() if getattr(self, key) == value}
        used = {key: value for key, value in vars(self).items() if key not in unused}
        digest = hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()[:8]
        return file_name(f"{self.dataset} {self.label} {digest}")

    @property
    def recipe(self) -> training.Recipe:
        """How weights follow the gradients."""
        return training.Recipe(**{name: getattr(self, name) for name in _RECIPE})

    def build_model(self, data: Data, pretrained: keras.Model | None = None) -> keras.Model:
        """The model that training starts from.

        Args:
            data: what the run was resolved for.
            pretrained: gets a new head (transfer); otherwise the model is made anew.

        Raises:
            InvalidArgument: if the images are too small for the network.
        """
        classes = len(data.label_names)
        if pretrained is None:
            return models.build(
                self.model,
                data.image_shape,
                classes,
                standardize=self.standardize,
                precision=self.precision,
                mirror="flip" in augmentations.parse(self.augment),
                seed=self.seed,
                batch_norm=self.batch_norm,
                dropout=self.dropout,
                activation=self.activation,
            )
        return models.with_new_head(
            pretrained,
            classes,
            self.head_units or (),
            freeze_base=self.freeze_base,
            seed=self.seed,
        )

    def columns(self) -> dict:
        """The run as the columns of `results.RUN_COLUMNS` that it decides."""
        columns = dict(vars(self))
        del columns["natural_run"]
        columns["train_perturb"] = columns.pop("perturb") or "none"
        level = columns.pop("level")
        columns["train_level"] = None if isinstance(level, str) else level
        columns["train_range"] = level if isinstance(level, str) else None
        columns["pretrained"] = columns.pop("start")
        if self.optimizer == "sgd":
            columns["beta_1"] = None
        if not self._of_pixels:
            columns["extra_pixels"] = None
        if self.strategy != "incremental":
            columns |= {"ramp": None, "ramp_start": None, "ramp_end": None}
        if self.strategy == "transfer":
            columns["head_units"] = json.dumps(self.head_units)  # text to every CSV reader
            columns["keep_standardization"] = self.freeze_base or self.keep_standardization
        else:
            columns |= {"freeze_base": None, "keep_standardization": None}
        return {"run": self.name, **columns}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _check_choice(argument: str, value: Any, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise InvalidArgument(argument, value, f"one of {', '.join(allowed)}")
