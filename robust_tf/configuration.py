"""What a run is: its options, checked and resolved for a dataset, and its name.

Nothing here trains or writes; `runs` does.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable
from typing import Any

import keras

from robust_tf import experiments, models, results
from robust_tf.callbacks import Ramp
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation
from robust_tf.seeds import stream_seed
from robust_tf.strategies import STRATEGIES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to train, as a user asks for it; None stands for a default.

    Args:
        strategy: "natural", "constant" or "incremental".
        perturb: the kind of perturbation in training; None for natural training.
        level: its level; see `perturbations.Perturbation`.
        channel_blur: blur over the channel axis too, in training and tests.
        fresh: draw a training perturbation anew in each epoch.
        ramp: "linear", "cosine" or "step" (incremental training).
        ramp_start: perturbed fraction in the first epoch, in [0, 1].
        ramp_end: perturbed fraction in the last epoch, in [0, 1].
        model: a name of `models.MODELS`.
        epochs: passes over the training images.
        batch_size: images a batch.
        learning_rate: Adam's step size.
        beta_1: decay of Adam's mean of gradients.
        standardize: "pixel", "global" or "none".
        seed: decides everything that is random.

    Raises:
        InvalidArgument: if an argument is not allowed, whatever the data.
    """

    strategy: str = "natural"
    perturb: str | None = None
    level: float | None = None
    channel_blur: bool = False
    fresh: bool = False
    ramp: str = Ramp.shape
    ramp_start: float = Ramp.start
    ramp_end: float = Ramp.end
    model: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    beta_1: float | None = None
    standardize: str = "pixel"
    seed: int = 0

    def __post_init__(self):
        """Checks what can be checked without data, and fills in the level."""
        _check_choice("strategy", self.strategy, STRATEGIES)
        _check_choice("standardize", self.standardize, models.STANDARDIZATIONS)
        if self.model is not None:
            _check_choice("model", self.model, models.MODELS)
        for argument in ("epochs", "batch_size"):
            value = getattr(self, argument)
            if value is not None and value < 1:
                raise InvalidArgument(argument, value, "a whole number from 1 on")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise InvalidArgument("learning_rate", self.learning_rate, "a number above 0")
        if self.beta_1 is not None and not 0 <= self.beta_1 < 1:
            raise InvalidArgument("beta_1", self.beta_1, "a number from 0 to below 1")
        stream_seed(self.seed, "")
        Ramp(self.ramp_start, self.ramp_end, self.ramp)
        if self.strategy == "natural":
            for argument in ("perturb", "level"):
                value = getattr(self, argument)
                if value is not None:
                    raise InvalidArgument(argument, value, "no value with strategy=natural")
        else:
            _check_choice("perturb", self.perturb, experiments.TRAIN_LEVELS)
            level = experiments.TRAIN_LEVELS[self.perturb] if self.level is None else self.level
            level = Perturbation(self.perturb, level, self.channel_blur).level
            object.__setattr__(self, "level", level)

    @property
    def perturbation(self) -> Perturbation | None:
        """The training perturbation; None for natural training."""
        if self.perturb is None:
            return None
        return Perturbation(self.perturb, self.level, self.channel_blur)

    @property
    def label(self) -> str:
        """In words, as in tables and on figures: "constant hot 6"."""
        return results.training_label(self.strategy, self.perturb or "none", self.level or 0)

    def resolve(self, data: Data) -> "Run":
        """Fills in the defaults for a dataset and checks the rest.

        Raises:
            InvalidArgument: if an argument does not fit the data.
        """
        examples = len(data.train)
        model = self.model or experiments.default_model(data.image_shape)
        defaults = dataclasses.asdict(experiments.HYPERPARAMETERS[model])
        defaults["batch_size"] = experiments.default_batch_size(model, examples)
        asked = dataclasses.asdict(self)
        filled = {key: default for key, default in defaults.items() if asked[key] is None}
        run = Run(
            **{
                **asked,
                **filled,
                "model": model,
                "dataset": data.name,
                "data_source": data.source,
                "train_examples": examples,
                "test_examples": len(data.test),
            }
        )
        if run.batch_size > examples:
            expected = f"at most {examples}, the number of training images"
            raise InvalidArgument("batch_size", run.batch_size, expected)
        if run.perturbation:
            run.perturbation.check(data.image_shape)
        run.build_model(data)  # raises if the images are too small for the network
        return run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Options):
    """What to train, in full; made by `Options.resolve`.

    Args:
        dataset: name of the dataset.
        data_source: where the data came from, "tfds" or "sample".
        train_examples: number of training images.
        test_examples: number of test images.
    """

    model: str
    epochs: int
    batch_size: int
    learning_rate: float
    beta_1: float
    dataset: str
    data_source: str
    train_examples: int
    test_examples: int

    @property
    def name(self) -> str:
        """A name that tells the run from all others with other settings.

        Settings that do not affect its training do not affect the name.
        """
        unused = {"test_examples"}
        if self.strategy == "natural":
            unused |= {"fresh"}
        if self.strategy != "incremental":
            unused |= {"ramp", "ramp_start", "ramp_end"}
        settings = dataclasses.asdict(self)
        used = {key: value for key, value in settings.items() if key not in unused}
        digest = hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()[:8]
        return re.sub(r"[^A-Za-z0-9._]+", "-", f"{self.dataset} {self.label} {digest}")

    def build_model(self, data: Data) -> keras.Model:
        """The untrained model for a dataset.

        Raises:
            InvalidArgument: if the images are too small for the network.
        """
        return models.build(
            self.model,
            data.image_shape,
            len(data.label_names),
            standardize=self.standardize,
            seed=self.seed,
        )

    def natural(self) -> "Run":
        """The natural training with the same settings: the baseline to compare with."""
        return dataclasses.replace(self, strategy="natural", perturb=None, level=None)

    def columns(self) -> dict:
        """The run as the columns of `results.RUN_COLUMNS` that it decides."""
        columns = dataclasses.asdict(self)
        columns["train_perturb"] = columns.pop("perturb") or "none"
        columns["train_level"] = columns.pop("level")
        if self.strategy != "incremental":
            columns |= {"ramp": None, "ramp_start": None, "ramp_end": None}
        return {"run": self.name, **columns}


def _check_choice(argument: str, value: Any, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise InvalidArgument(argument, value, f"one of {', '.join(allowed)}")
