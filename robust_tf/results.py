"""The tables of results: their columns, writing, reading and aggregation.

Tidy: one row an observation, the same columns from every pipeline. Natural images and
natural training have the perturbation "none" and an empty level. Accuracies are
fractions; only `comparison` and the figures show percent.
"""

import os
from pathlib import Path

import pandas as pd
import scipy.stats

from robust_tf.files import replacing

TRAINING_COLUMNS = [
    "run",
    "dataset",
    "data_source",
    "model",
    "strategy",
    "train_perturb",
    "train_level",
    "seed",
]
TEST_COLUMNS = ["test_perturb", "test_level"]
TRIAL_COLUMNS = [*TRAINING_COLUMNS, *TEST_COLUMNS, "trial", "accuracy", "n_examples"]
RUN_COLUMNS = [
    *TRAINING_COLUMNS,
    "preset",
    "epochs",
    "batch_size",
    "learning_rate",
    "beta_1",
    "shuffle",
    "drop_remainder",
    "batch_norm",
    "dropout",
    "activation",
    "standardize",
    "extra_pixels",
    "fresh",
    "ramp",
    "ramp_start",
    "ramp_end",
    "pretrained",
    "head_units",
    "freeze_base",
    "keep_standardization",
    "channel_blur",
    "divisor",
    "train_examples",
    "test_examples",
    "train_accuracy",
    "natural_accuracy",
    "seconds",
    "images_per_second",
    "saved_model",
    "tensorflow_version",
    "keras_version",
    "robust_tf_version",
]
HISTORY_COLUMNS = [
    "epoch",
    "loss",
    "accuracy",
    "perturbed_fraction",
    "seconds",
    "images_per_second",
]


def write(table: pd.DataFrame, path: str | os.PathLike, columns: list[str]) -> None:
    """Writes a CSV, complete or not at all.

    Args:
        table: has at least the columns.
        path: the file; its folder must exist.
        columns: what to write, in this order.
    """
    with replacing(path) as temporary:
        table[columns].to_csv(temporary, index=False)


def read(output_dir: str | os.PathLike, table: str) -> pd.DataFrame:
    """Gathers a table from all finished runs of a directory.

    Args:
        output_dir: holds a folder a run.
        table: "trials", "runs" or "history" (which gets the column `run`).

    Returns:
        All rows, runs in order of their names; empty without a run.
    """
    tables = []
    for path in sorted(Path(output_dir).glob(f"*/{table}.csv")):
        if path.parent.suffix == ".partial":
            continue
        rows = pd.read_csv(path)
        if "run" not in rows:
            rows.insert(0, "run", path.parent.name)
        tables.append(rows)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def summarize(trials: pd.DataFrame) -> pd.DataFrame:
    """Aggregates trials to a row a run and test condition.

    Args:
        trials: as `read` returns them.

    Returns:
        The columns of training and test, then mean, std (population standard deviation
        over the trials), ci95 (half the width of the 95 % interval of the mean, from
        Student's t; missing for a single trial) and n_trials. Order is that of `trials`.
    """
    groups = trials.groupby([*TRAINING_COLUMNS, *TEST_COLUMNS], dropna=False, sort=False)[
        "accuracy"
    ]
    summary = groups.agg(
        mean="mean", std=lambda accuracy: accuracy.std(ddof=0), sem="sem", n_trials="size"
    ).reset_index()
    quantile = scipy.stats.t.ppf(0.975, (summary["n_trials"] - 1).clip(lower=1))
    summary.insert(summary.columns.get_loc("sem"), "ci95", quantile * summary["sem"])
    return summary.drop(columns="sem")


def condition_label(perturb: str, level: float) -> str:
    """A training or test condition in words: "natural" or, say, "hot 2"."""
    return "natural" if perturb == "none" else f"{perturb} {level:g}"


def training_label(strategy: str, perturb: str, level: float) -> str:
    """A training in words: "natural" or, say, "constant hot 6"."""
    return strategy if perturb == "none" else f"{strategy} {condition_label(perturb, level)}"


def with_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the columns `training` and `test`, conditions in words."""
    return table.assign(
        training=[
            training_label(*row)
            for row in zip(table["strategy"], table["train_perturb"], table["train_level"])
        ],
        test=[condition_label(*row) for row in zip(table["test_perturb"], table["test_level"])],
    )


def comparison(trials: pd.DataFrame) -> pd.DataFrame:
    """A table to read: a row a training, a column a test condition.

    Args:
        trials: of one or more runs.

    Returns:
        Texts such as "76.73 ± 0.37": percent, mean and population standard deviation;
        the mean alone where there is one trial.
    """
    summary = with_labels(summarize(trials))
    summary["text"] = [
        f"{100 * mean:.2f}" + (f" ± {100 * std:.2f}" if count > 1 else "")
        for mean, std, count in zip(summary["mean"], summary["std"], summary["n_trials"])
    ]
    table = summary.pivot_table(
        index="training", columns="test", values="text", aggfunc="first", sort=False
    )
    return table.fillna("").rename_axis(index=None, columns=None)
