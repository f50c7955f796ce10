"""What figures 3, 5 and 7 of the paper show, as a table."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import keras
import pandas as pd

from robust_tf import results
from robust_tf.data import Data
from robust_tf.evaluation import Condition, Natural
from robust_tf.evaluation.examples import levels, misled
from robust_tf.files import writing_to
from robust_tf.perturbations import Perturbation
from robust_tf.runs import stages
from robust_tf.runs.tasks import Task

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


def write(
    tasks: Iterable[Task],
    datasets: Mapping[str, Data],
    output_dir: str | os.PathLike,
    saved_models_dir: str | os.PathLike,
) -> None:
    """Writes the examples to `impact/tables/examples.csv`.

    Args:
        tasks: of the experiment "impact"; the first model of each dataset that is done is shown.
        datasets: by name.
        output_dir: holds the runs' folders.
        saved_models_dir: holds their SavedModels.

    Raises:
        Unavailable: if a SavedModel is gone or the table cannot be written.
    """
    output_dir = Path(output_dir)
    tables: dict[str, pd.DataFrame] = {}
    for run in (task.run for task in tasks if task.is_done(output_dir)):
        if run.dataset not in tables:
            model = stages.load_model(run, output_dir, saved_models_dir)
            tables[run.dataset] = measure(run.label, model, datasets[run.dataset], seed=run.seed)
    if tables:
        table = pd.concat(tables.values(), ignore_index=True)
        with writing_to("output_dir", output_dir):
            path = output_dir / "impact" / "tables" / "examples.csv"
            results.write(table, path, list(table.columns))
