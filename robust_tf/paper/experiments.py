"""The paper's settings and experiments as data: nothing here trains or reads a file.

Sources: Cavey, Dolan and Stock (2020), section IV and figures 1 and 2 for the
hyperparameters, table I for the ablation, sections V and VI for levels and tests.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition, Natural
from robust_tf.perturbations import KINDS, Perturbation

TRIALS = 25


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a batch.
        learning_rate: the optimizer's step size, or its highest.
        optimizer: as in `training.Recipe`, like the next four.
        schedule: of the learning rate.
        weight_decay: of a step.
        label_smoothing: share of a label.
        weight_average: decay of the moving average.
        augment: changes of the training images; see `augmentations.parse`.
        standardize: as in `models.build_cnn`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "adam"
    schedule: str = "constant"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    weight_average: float = 0.0
    augment: str = "none"
    standardize: str = "pixel"


# Found by trying on CIFAR-10; not of the paper.
_COMPACT = Hyperparameters(
    epochs=10,
    batch_size=250,
    learning_rate=0.2,
    optimizer="sgd",
    schedule="one_cycle",
    weight_decay=5e-4,
    label_smoothing=0.1,
    augment="flip,shift",
    standardize="global",
)
HYPERPARAMETERS = {
    "mnist_cnn": Hyperparameters(epochs=50, batch_size=1500, learning_rate=0.05),
    "cifar10_cnn": Hyperparameters(epochs=20, batch_size=100, learning_rate=0.0005),
    "compact": _COMPACT,
}

# Section VI.C: what retrains a natural model, and the units of its new head.
TRANSFER_HYPERPARAMETERS = {
    "mnist_cnn": Hyperparameters(epochs=20, batch_size=200, learning_rate=0.0005),
    "cifar10_cnn": Hyperparameters(epochs=5, batch_size=200, learning_rate=0.0005),
    "compact": dataclasses.replace(_COMPACT, epochs=4, learning_rate=0.05),
}
HEAD_UNITS = {"mnist_cnn": (256,), "cifar10_cnn": (256, 512), "compact": (256,)}


@dataclasses.dataclass(frozen=True)
class Preset:
    """A reading of the paper: what its text and its figures do not have in common.

    Attributes:
        beta_1: decay of Adam's mean of gradients.
        channel_blur: blur over the channel axis too.
        extra_pixels: pixels that are perturbed in training beyond the level.
        shuffle: new order of the training images in each epoch, or that of their files.
        drop_remainder: leave out the images that do not fill a batch.
        ramp_start: perturbed fraction in the first epoch (incremental training).
        ramp_end: perturbed fraction in the last of E epochs; None for 1 - 1/E, with
            which epoch e from 0 has the fraction e/E.
        divisor: makes images of the bytes of a file.
        most_train_examples: by dataset, how many training images are used at most.
    """

    beta_1: float
    channel_blur: bool = False
    extra_pixels: int = 0
    shuffle: bool = True
    drop_remainder: bool = False
    ramp_start: float = 0.05
    ramp_end: float | None = 0.95
    divisor: dict[str, int] = dataclasses.field(default_factory=dict)
    most_train_examples: dict[str, int] = dataclasses.field(default_factory=dict)

    def data_options(self, dataset: str) -> dict[str, Any]:
        """Arguments of `data.load` for a dataset."""
        return {
            "divisor": self.divisor.get(dataset, 255),
            "most_train_examples": self.most_train_examples.get(dataset),
        }


PRESETS = {
    # As the text says.
    "text": Preset(beta_1=0.5),
    # As the published figures were made.
    "published": Preset(
        beta_1=0.9,
        channel_blur=True,
        extra_pixels=1,
        shuffle=False,
        drop_remainder=True,
        ramp_start=0.0,
        ramp_end=None,
        divisor={"mnist": 256},
        most_train_examples={"mnist": 50_000},
    ),
}

# Fewest batches an epoch: a training set too small for the paper's batches, such as the
# MNIST sample, gets smaller ones by default.
LEAST_STEPS_PER_EPOCH = 10


def test_conditions(kinds: tuple[str, ...], channel_blur: bool = False) -> tuple[Condition, ...]:
    """The paper's tests of some kinds, natural images first.

    Args:
        kinds: which kinds to test.
        channel_blur: blur over the channel axis too.

    Returns:
        Natural images, then one perturbation per test.
    """
    levels = ((kind, KINDS[kind].test_levels) for kind in KINDS if kind in kinds)
    return conditions(levels, channel_blur)


def default_model(image_shape: tuple[int, int, int]) -> str:
    """The paper's network for images of a shape: MNIST's for one channel."""
    return "mnist_cnn" if image_shape[-1] == 1 else "cifar10_cnn"


def default_hyperparameters(
    model: str, strategy: str, examples: int, image_shape: tuple[int, int, int]
) -> Hyperparameters:
    """The paper's or the model's own, with smaller batches where theirs leave too few an epoch.

    Images of one channel, digits say, are not mirrored.

    Args:
        model: a name of `HYPERPARAMETERS`.
        strategy: "transfer" has its own.
        examples: number of training images.
        image_shape: (H, W, C).

    Returns:
        How to train.
    """
    table = TRANSFER_HYPERPARAMETERS if strategy == "transfer" else HYPERPARAMETERS
    batch_size = max(1, min(table[model].batch_size, examples // LEAST_STEPS_PER_EPOCH))
    augment = table[model].augment
    if image_shape[-1] == 1 and augment == "flip,shift":
        augment = "shift"
    return dataclasses.replace(table[model], batch_size=batch_size, augment=augment)


# What each strategy's figures are called: A.1 has pixels, A.2 noise, A.3 blur.
FIGURE_LETTERS = {"constant": "A", "incremental": "B", "transfer": "C"}
FIGURE_NUMBERS = {"pixels": 1, "noise": 2, "blur": 3}
IMPACT_FIGURES = {"pixels": "4", "noise": "6", "blur": "8"}

_NOISE_LEVELS = tuple(np.linspace(0.001, 0.05, 5).round(9).tolist())
# Levels of training in the grid (section VI).
GRID_LEVELS = {
    **dict.fromkeys(("stuck", "dead", "hot"), tuple(range(1, 11))),
    "noise": _NOISE_LEVELS,
    "blur": tuple(np.linspace(0.04, 1.0, 5).round(9).tolist()),
}
# Levels of the tests of natural models (section V).
IMPACT_LEVELS = {
    **dict.fromkeys(("stuck", "dead", "hot"), tuple(range(1, 6))),
    "noise": _NOISE_LEVELS,
    "blur": tuple(np.linspace(0.4, 1.0, 5).round(9).tolist()),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model of an experiment.

    Attributes:
        dataset: its name.
        strategy: a training strategy.
        perturb: the kind of the training perturbation; None for natural training.
        level: its level.
        batch_norm: whether the network has batch norm; None for the network's own.
        dropout: likewise its rate of dropout, in [0, 1).
        activation: likewise its activation.
        standardize: as in `models.build_cnn`; None for the network's own.
        test_levels: what it is tested with besides natural images: levels by kind.
    """

    dataset: str
    strategy: str = "natural"
    perturb: str | None = None
    level: float | None = None
    batch_norm: bool | None = None
    dropout: float | None = None
    activation: str | None = None
    standardize: str | None = None
    test_levels: tuple[tuple[str, tuple[float, ...]], ...] = ()


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which part of an experiment is asked for; None for all of a field.

    Attributes:
        datasets: names of datasets, which need not be the paper's.
        strategies: training strategies.
        perturbs: kinds of perturbation.
        levels: their levels.
    """

    datasets: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    perturbs: tuple[str, ...] | None = None
    levels: tuple[float, ...] | None = None

    def __post_init__(self):
        """Refuses an empty field."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) == ():
                raise InvalidArgument(field.name, "", "at least one")


def impact(selection: Selection) -> list[Cell]:
    """The natural models under every perturbation: figures 4, 6 and 8.

    Args:
        selection: kinds and levels are those of the tests.

    Returns:
        A cell a dataset.

    Raises:
        InvalidArgument: if a field of the selection has what is not there.
    """
    _check("strategies", selection.strategies, ["natural"])
    levels = _select_levels(IMPACT_LEVELS, selection)
    datasets = selection.datasets or ("mnist", "cifar10")
    return [Cell(dataset, test_levels=tuple(levels.items())) for dataset in datasets]


def ablation(selection: Selection) -> list[Cell]:
    """Natural models without some of the network's components: table I.

    Args:
        selection: only datasets can be chosen.

    Returns:
        Six cells a dataset, in the order of the table.

    Raises:
        InvalidArgument: if another field of the selection is given.
    """
    _check("strategies", selection.strategies, ["natural"])
    for field in ("perturbs", "levels"):
        if getattr(selection, field) is not None:
            value = ",".join(map(str, getattr(selection, field)))
            raise InvalidArgument(field, value, "no value with the ablation")
    rows = [
        (True, 0.2, "relu"),
        (True, 0.0, "relu"),
        (False, 0.2, "relu"),
        (True, 0.2, "tanh"),
        (False, 0.0, "relu"),
        (False, 0.0, "tanh"),
    ]
    return [
        Cell(dataset, batch_norm=batch_norm, dropout=dropout, activation=activation)
        for dataset in selection.datasets or ("cifar10",)
        for batch_norm, dropout, activation in rows
    ]


def grid(selection: Selection) -> list[Cell]:
    """The robust models of figures A.1 to C.3, and the natural ones as their baseline.

    Args:
        selection: kinds and levels are those of training.

    Returns:
        A dataset's natural cell, then the others: 240 in all for two datasets.

    Raises:
        InvalidArgument: if a field of the selection has what is not there.
    """
    _check("strategies", selection.strategies, FIGURE_LETTERS)
    chosen = _select_levels(GRID_LEVELS, selection)
    cells = []
    for dataset in selection.datasets or ("mnist", "cifar10"):
        families = {KINDS[kind].family for kind in chosen}
        cells.append(Cell(dataset, test_levels=_tests(families)))
        cells += [
            Cell(dataset, strategy, kind, level, test_levels=_tests({KINDS[kind].family}))
            for strategy in FIGURE_LETTERS
            if strategy in (selection.strategies or FIGURE_LETTERS)
            for kind, levels in chosen.items()
            for level in levels
        ]
    return cells


def standardization(selection: Selection) -> list[Cell]:
    """Natural models and those of each strategy and kind, standardised in three ways.

    Each kind is trained at its own level (`Kind.train_level`); all are tested with all of the
    paper's tests. Goes beyond the paper.

    Args:
        selection: of datasets, strategies and kinds.

    Returns:
        Sixteen cells a dataset and standardisation.

    Raises:
        InvalidArgument: if a field of the selection has what is not there.
    """
    _check("strategies", selection.strategies, FIGURE_LETTERS)
    _check("perturbs", selection.perturbs, KINDS)
    cells = []
    for dataset in selection.datasets or ("mnist",):
        for standardize in ("pixel", "global", "none"):
            cells.append(Cell(dataset, standardize=standardize))
            cells += [
                Cell(dataset, strategy, kind, KINDS[kind].train_level, standardize=standardize)
                for strategy in FIGURE_LETTERS
                if strategy in (selection.strategies or FIGURE_LETTERS)
                for kind in KINDS
                if kind in (selection.perturbs or KINDS)
            ]
    return with_all_tests(cells)


def with_all_tests(cells: Iterable[Cell]) -> list[Cell]:
    """The same models, tested with all kinds, not those of their own family alone."""
    families = {kind.family for kind in KINDS.values()}
    return [dataclasses.replace(cell, test_levels=_tests(families)) for cell in cells]


EXPERIMENTS: dict[str, Callable[[Selection], list[Cell]]] = {
    "impact": impact,
    "ablation": ablation,
    "grid": grid,
    "standardization": standardization,
}


def figure(strategy: str, perturb: str) -> str:
    """The paper's figure that shows models of a training: "A.1" for constant hot."""
    return f"{FIGURE_LETTERS[strategy]}.{FIGURE_NUMBERS[KINDS[perturb].family]}"


def conditions(
    test_levels: Iterable[tuple[str, Iterable[float]]], channel_blur: bool = False
) -> tuple[Condition, ...]:
    """Test conditions, natural images first.

    Args:
        test_levels: levels by kind.
        channel_blur: blur over the channel axis too.

    Returns:
        Natural images, then one perturbation per test.
    """
    return (
        Natural(),
        *(
            Perturbation(kind, level, channel_blur and kind == "blur")
            for kind, levels in test_levels
            for level in levels
        ),
    )


def _tests(families: Collection[str]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    return tuple(
        (name, kind.test_levels) for name, kind in KINDS.items() if kind.family in families
    )


def _check(field: str, asked: Iterable[Any] | None, allowed: Iterable[Any]) -> None:
    for value in asked or ():
        if value not in allowed:
            raise InvalidArgument(field, value, f"some of {', '.join(map(str, allowed))}")


def _select_levels(
    table: dict[str, tuple[float, ...]], selection: Selection
) -> dict[str, tuple[float, ...]]:
    """The part of a table of levels by kind that is asked for."""
    _check("perturbs", selection.perturbs, table)
    kinds = [kind for kind in table if kind in (selection.perturbs or table)]
    if selection.levels is None:
        return {kind: table[kind] for kind in kinds}
    there = sorted({level for kind in kinds for level in table[kind]})
    for level in selection.levels:
        if not any(math.isclose(level, other) for other in there):
            expected = f"some of {', '.join(f'{other:g}' for other in there)}"
            raise InvalidArgument("levels", f"{level:g}", expected)
    chosen = {
        kind: tuple(
            level
            for level in table[kind]
            if any(math.isclose(level, asked) for asked in selection.levels)
        )
        for kind in kinds
    }
    return {kind: levels for kind, levels in chosen.items() if levels}
