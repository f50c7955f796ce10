"""What figures 3, 5 and 7 of the paper show, as a table."""

import keras
import pandas as pd

from robust_tf.data import Data
from robust_tf.evaluation import Condition, Natural
from robust_tf.evaluation.examples import levels, misled
from robust_tf.perturbations import Perturbation

FIGURES: dict[str, tuple[Condition, ...]] = {
    "3": (
        Natural(),
        Perturbation("stuck", 1),
        Perturbation("noise", 0.05),
        Perturbation("blur", 0.75),
    ),
    "5": (Natural(), *(Perturbation("noise", level) for level in (0.001, 0.025, 0.05, 0.075, 0.1))),
    "7": (Natural(), *(Perturbation("blur", level) for level in (0.04, 0.28, 0.52, 0.76, 1.0))),
}


def measure(training: str, model: keras.Model, data: Data, *, seed: int) -> pd.DataFrame:
    """What the figures show of a natural model.

    Args:
        training: the model's training in words.
        model: the model.
        data: the dataset.
        seed: the experiment's seed.

    Returns:
        Columns figure and dataset, then `evaluation.examples.COLUMNS`.
    """
    tables = []
    for figure, conditions in FIGURES.items():
        choose = misled if figure == "3" else levels
        table = choose({training: model}, data, conditions, seed=seed)
        table.insert(0, "figure", figure)
        table.insert(1, "dataset", data.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
