"""The paper's experiments as data: nothing here trains or reads a file.

Source: Cavey, Dolan and Stock (2020), table I for the ablation, sections V and VI for levels
and tests.
"""

import math

from robust_tf import settings
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS, Perturbation
from robust_tf.runs.experiments import Cell, Experiment, Selection, levels_of_family
from robust_tf.training import STRATEGIES

# What each strategy's figures are called: A.1 has pixels, A.2 noise, A.3 blur.
FIGURE_LETTERS = {"constant": "A", "incremental": "B", "transfer": "C"}
FIGURE_NUMBERS = {"pixels": 1, "noise": 2, "blur": 3}
IMPACT_FIGURES = {"pixels": "4", "noise": "6", "blur": "8"}

_NOISE_LEVELS = (0.001, 0.01325, 0.0255, 0.03775, 0.05)
# Levels of training in the grid (section VI).
GRID_LEVELS = {
    **dict.fromkeys(("stuck", "dead", "hot"), tuple(range(1, 11))),
    "noise": _NOISE_LEVELS,
    "blur": (0.04, 0.28, 0.52, 0.76, 1.0),
}
# Levels of the tests of natural models (section V).
IMPACT_LEVELS = {
    **dict.fromkeys(("stuck", "dead", "hot"), tuple(range(1, 6))),
    "noise": _NOISE_LEVELS,
    "blur": (0.4, 0.55, 0.7, 0.85, 1.0),
}


def impact(selection: Selection) -> list[Cell]:
    """The natural models under every perturbation: figures 4, 6 and 8.

    Args:
        selection: kinds and levels are those of the tests.

    Returns:
        One cell per dataset.

    Raises:
        InvalidArgument: if a field of the selection has what is not there.
    """
    selection.check("strategies", ["natural"])
    levels = _select_levels(IMPACT_LEVELS, selection)
    datasets = selection.datasets or IMPACT.datasets
    return [Cell(dataset, {}, tuple(levels.items())) for dataset in datasets]


def ablation(selection: Selection) -> list[Cell]:
    """Natural models without some of the network's components: table I.

    Args:
        selection: only datasets can be chosen.

    Returns:
        Six cells per dataset, in the order of the table.

    Raises:
        InvalidArgument: if another field of the selection is given.
    """
    selection.check("strategies", ["natural"])
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
        Cell(dataset, {"batch_norm": batch_norm, "dropout": dropout, "activation": activation})
        for dataset in selection.datasets or ABLATION.datasets
        for batch_norm, dropout, activation in rows
    ]


def grid(selection: Selection) -> list[Cell]:
    """The robust models of figures A.1 to C.3, and the natural ones as their baseline.

    Args:
        selection: kinds and levels are those of training.

    Returns:
        The natural cell of a dataset, then the others: 240 in all for two datasets.

    Raises:
        InvalidArgument: if a field of the selection has what is not there.
    """
    selection.check("strategies", FIGURE_LETTERS)
    chosen = _select_levels(GRID_LEVELS, selection)
    cells = []
    for dataset in selection.datasets or GRID.datasets:
        cells.append(Cell(dataset, {}, levels_of_family(chosen)))
        cells += [
            Cell(
                dataset,
                {"strategy": strategy, "perturbation": Perturbation(kind, level)},
                levels_of_family([kind]),
            )
            for strategy in FIGURE_LETTERS
            if strategy in (selection.strategies or FIGURE_LETTERS)
            for kind, levels in chosen.items()
            for level in levels
        ]
    return cells


_TRAINING = frozenset({"strategy", "perturb", "level"})
# Natural models have none of the settings of other strategies.
_NATURAL = _TRAINING.union(*map(settings.declared, STRATEGIES.values()))
_COMPONENTS = frozenset({"batch_norm", "dropout", "activation"})
IMPACT = Experiment("impact", impact, ("mnist", "cifar10"), ("perturbs", "levels"), _NATURAL)
ABLATION = Experiment("ablation", ablation, ("cifar10",), (), _NATURAL | _COMPONENTS)
GRID = Experiment(
    "grid", grid, ("mnist", "cifar10"), ("strategies", "perturbs", "levels"), _TRAINING
)


def figure(strategy: str, perturb: str) -> str:
    """The paper's figure that shows models of a training: "A.1" for constant hot."""
    return f"{FIGURE_LETTERS[strategy]}.{FIGURE_NUMBERS[KINDS[perturb].family]}"


def _select_levels(
    table: dict[str, tuple[float, ...]], selection: Selection
) -> dict[str, tuple[float, ...]]:
    """The part of a table of levels by kind that is asked for."""
    selection.check("perturbs", table)
    kinds = [kind for kind in table if kind in (selection.perturbs or table)]
    if selection.levels is None:
        return {kind: table[kind] for kind in kinds}
    known = sorted({level for kind in kinds for level in table[kind]})
    for level in selection.levels:
        if not any(math.isclose(level, other) for other in known):
            expected = f"some of {', '.join(f'{other:g}' for other in known)}"
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
