"""The declaration of a run: all that decides what it trains, in one tree of dataclasses.

Flags, columns and the run's name are derived from it; nothing here trains or writes.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import keras

from robust_tf import models, saved_models, settings
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.files import file_name
from robust_tf.perturbations import Mixture, Perturbation
from robust_tf.runs.presets import PRESETS
from robust_tf.settings import OneOf, choice, switch, whole
from robust_tf.training import (
    JIT_COMPILE,
    STRATEGIES,
    Constant,
    Natural,
    Recipe,
    Strategy,
    Transfer,
    augmentations,
    devices,
)
from robust_tf.training.ramp import Ramp
from robust_tf.training.recipes import LEAST_STEPS_PER_EPOCH, RECIPES, TRANSFER, recipe_of
from robust_tf.training.strategies import counts_pixels

NETWORKS = {name: settings.of_function(function) for name, function in models.MODELS.items()}


@dataclasses.dataclass(frozen=True)
class PretrainedNetwork:
    """The network of a SavedModel that training starts from, whatever it is.

    Attributes:
        name: its name.
    """

    name: str

    def __str__(self) -> str:
        """The name."""
        return self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What to train, in full; made by `resolve`.

    Attributes:
        strategy: one of `training.STRATEGIES`.
        channel_blur: blur over the channel axis too, in training and tests.
        model: the network, with its settings.
        standardize: "pixel", "global" or "none".
        precision: one of `models.PRECISIONS`.
        recipe: how it is trained.
        jit_compile: whether XLA compiles the training step, one of `training.JIT_COMPILE`.
        distribute: one of `devices.DISTRIBUTIONS`.
        seed: decides everything that is random.
        preset: a name of `PRESETS`, whose settings are in the others.
        dataset: name of the dataset.
        data_source: where the data came from, "tfds" or "sample".
        divisor: what made values in [0, 1] of the images' bytes.
        train_examples: number of training images.
        test_examples: number of test images.
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
            "The network: the paper's two; compact, which learns CIFAR-10 in minutes; or "
            "wide_resnet.",
            NETWORKS,
            default="mnist_cnn for images of one channel, or else cifar10_cnn",
        ),
    ]
    standardize: Annotated[
        str,
        choice(
            "Mean and deviation of the input at each pixel position (as in the paper), over all "
            "values, or none; with --pretrained as there.",
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
            devices.DISTRIBUTIONS,
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
    natural: "Run | None"
    start: str | None

    def __post_init__(self):
        """Checks what settings have to do with each other and with the data."""
        if self.jit_compile == "on" and self.distribute != "none":
            raise InvalidArgument("jit_compile", "on", f"off with distribute={self.distribute}")
        if self.recipe.batch_size > self.train_examples:
            expected = f"at most {self.train_examples}, the number of training images"
            raise InvalidArgument("batch_size", self.recipe.batch_size, expected)

    @property
    def perturbation(self) -> Perturbation | Mixture | None:
        """What perturbs training images; None for natural training."""
        return self.strategy.applied

    @property
    def starts_from(self) -> "Run | None":
        """The run that its training starts from; None if it starts anew or from elsewhere."""
        own = isinstance(self.strategy, Transfer) and self.strategy.pretrained is None
        return self.natural if own else None

    @property
    def label(self) -> str:
        """In words, as in tables and on figures: "constant hot 6", "constant all"."""
        flat = settings.flatten(self)
        words = [flat["strategy"]]
        if "perturb" in flat:
            level = flat["level"]
            words += [flat["perturb"], *([] if isinstance(level, str) else [f"{level:g}"])]
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
        return models.build(
            settings.flatten(self)["model"],
            data.image_shape,
            classes,
            standardize=self.standardize,
            precision=self.precision,
            mirror="flip" in augmentations.parse(self.recipe.augment),
            seed=self.seed,
            **settings.flatten(self.model),
        )

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
_NEVER = {"preset", "natural", "pretrained", "test_examples"}


def _identity(run: Run) -> dict[str, Any]:
    """What a run's name is a digest of."""
    flat = settings.flatten(run)
    unused = set(_NEVER)
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


def check(given: Mapping[str, Any], loosely: Collection[str] = ()) -> dict[str, Any]:
    """Checks what can be checked of a run's settings before there are data.

    Args:
        given: settings by name, as a user asks for them.
        loosely: names of those that are left out where the strategy does not have them.

    Returns:
        The same, parsed; with the strategy, and the perturbation as a value.

    Raises:
        InvalidArgument: if one is unknown, not allowed, or not for the strategy.
    """
    perturbation = given.get("perturbation")
    given = settings.check(Run, {k: v for k, v in given.items() if k != "perturbation"})
    perturbed = perturbation is not None or "perturb" in given
    given.setdefault("strategy", "constant" if perturbed else "natural")
    if perturbation is not None:
        given["perturbation"] = perturbation
    preset = {k: v for k, v in PRESETS[given.get("preset", "text")].items() if not callable(v)}
    foreign = _of_strategies() - _of_strategy(given["strategy"])
    for name in [name for name in given if name in foreign]:
        if name not in loosely:
            expected = f"no value with strategy={given['strategy']}"
            raise InvalidArgument(name, given[name], expected)
        del given[name]
    if "extra_pixels" in loosely and perturbation and not counts_pixels(perturbation):
        given.pop("extra_pixels", None)
    strategy = settings.make(STRATEGIES[given["strategy"]], preset | given)
    if isinstance(strategy, Constant):
        given["perturbation"] = strategy.perturbation
    if given.get("pretrained"):
        network = {"model", "standardize", "precision"}
        network |= {name for kind in NETWORKS.values() for name in settings.declared(kind)}
        for name in given:
            if name in network:
                expected = "no value with pretrained, which decides it"
                raise InvalidArgument(name, given[name], expected)
    return given


def resolve(data: Data, *, loosely: Collection[str] = (), **given: Any) -> Run:
    """The run that settings ask for, in full.

    Args:
        data: the dataset.
        loosely: names of settings that are left out where the run's strategy, optimizer or
            network does not have them.
        **given: settings by name, those of the flags of `pipelines.run`; `perturbation` may
            stand for `perturb` and `level`. Others have the defaults of the network's recipe
            and the preset.

    Returns:
        The run.

    Raises:
        InvalidArgument: if a setting is not allowed or does not fit the data.
        Unavailable: if `pretrained` is no SavedModel that can be reloaded.
    """
    given = check(given, loosely)
    known: dict[str, Any] = {
        "dataset": data.name,
        "data_source": data.source,
        "divisor": data.train.divisor,
        "train_examples": len(data.train),
        "test_examples": len(data.test),
        "natural": None,
        "start": None,
    }
    network = given.get("model", default_network(data.image_shape))
    of_natural = {
        name: value for name, value in given.items() if name not in _of_strategy(given["strategy"])
    }
    of_natural |= {"strategy": "natural"}
    if given.get("pretrained"):
        pretrained = _pretrained(given["pretrained"], data)
        known |= pretrained
        network = str(pretrained["model"])
        if network in NETWORKS:
            of_natural["model"] = network
        known["natural"] = resolve(data, loosely=loosely, **of_natural)
        network = network if network in NETWORKS else default_network(data.image_shape)
    elif given["strategy"] != "natural":
        known["natural"] = resolve(data, loosely=loosely, **of_natural)
        if given["strategy"] == "transfer":
            known["start"] = known["natural"].name
    values = _defaults(network, given, data) | given
    values["model"] = network
    asked = [name for name in given if name != "perturbation" and name not in loosely]
    run = settings.make(Run, values, asked, **known)
    if run.perturbation is not None:
        run.perturbation.check(data.image_shape)
    if not given.get("pretrained"):
        models.check(network, data.image_shape)
    return run


def default_network(image_shape: tuple[int, int, int]) -> str:
    """The paper's network for images of a shape: MNIST's for one channel."""
    return "mnist_cnn" if image_shape[-1] == 1 else "cifar10_cnn"


def _of_strategy(strategy: str) -> set[str]:
    """The settings that belong to a strategy, not to its natural run."""
    return {*settings.declared(STRATEGIES[strategy]), "perturbation"}


def _defaults(network: str, given: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """The settings of the network's recipe, then those of the preset."""
    recipe = recipe_of(network, given["strategy"], len(data.train), data.image_shape)
    usual = recipe.get("optimizer", "adam")
    if (given.get("optimizer", usual) == "sgd") != (usual == "sgd"):
        del recipe["learning_rate"]  # it is for another optimizer
    values: dict[str, Any] = recipe | {k: v for k, v in given.items() if v is not None}
    preset = {
        name: value(values) if callable(value) else value
        for name, value in PRESETS[given.get("preset", "text")].items()
        if name not in given
        and not (callable(value) and name in _of_strategies() - _of_strategy(given["strategy"]))
    }
    return recipe | preset


def _of_strategies() -> set[str]:
    return set().union(*map(_of_strategy, STRATEGIES))


def _pretrained(path: str, data: Data) -> dict[str, Any]:
    """What a SavedModel that training starts from decides of a run."""
    folder = saved_models.find("pretrained", path)
    trained = saved_models.load(folder, argument="pretrained")
    shape = trained.input_shape[1:]
    if shape != data.image_shape:
        expected = f"a model for images of shape {data.image_shape}, not {shape}"
        raise InvalidArgument("pretrained", path, expected)
    layers = {layer.name: layer for layer in trained.layers}
    return {
        "start": saved_models.fingerprint(folder),
        "model": PretrainedNetwork(trained.name),
        "standardize": layers["standardization"].mode if "standardization" in layers else "none",
        "precision": models.precision_of(trained),
    }


def defaults_in_words() -> dict[str, str]:
    """The defaults of the settings that networks and presets decide, by name."""
    words: dict[str, str] = {}
    for name, declared in settings.declared(Run).items():
        by_network = {
            network: table[name]
            for network, table in RECIPES.items()
            if table.get(name, declared.default) != declared.default
        }
        by_transfer = {network: t[name] for network, t in TRANSFER.items() if name in t}
        by_preset = {
            preset: table[name]
            for preset, table in PRESETS.items()
            if name in table and name != "extra_pixels"
        }
        parts = [] if declared.default in (dataclasses.MISSING, ()) else [_text(declared.default)]
        parts += [f"{_text(value)} ({network})" for network, value in by_network.items()]
        parts += [f"{_text(value)} (transfer, {network})" for network, value in by_transfer.items()]
        parts += [f"{_text(value)} (preset {preset})" for preset, value in by_preset.items()]
        if by_network or by_transfer or by_preset:
            words[name] = ", ".join(parts)
    words["ramp_end"] = f"{Ramp.end:g}, 1 - 1/epochs (preset published)"
    words["batch_size"] += f"; less where that makes fewer than {LEAST_STEPS_PER_EPOCH} batches"
    words["extra_pixels"] = "0, 1 (preset published)"
    return words


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


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
_RENAMED = {"perturb": "train_perturb", "level": "train_level"}
_SETTINGS = [_RENAMED.get(name, name) for name in settings.declared(Run)]
_DATA = ["divisor", "train_examples", "test_examples"]
_KNOWN = [*dict.fromkeys([*_FIRST, "train_range", *_SETTINGS, *_DATA])]
RUN_COLUMNS = [*_KNOWN, *_MEASURED]
# The models of an experiment: all that is known of a run before it is trained, then what
# it is tested with, "natural;hot 2", and how often.
PLAN_COLUMNS = [*_KNOWN, "tests", "trials"]
