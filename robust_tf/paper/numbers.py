"""An experiment's numbers in one form, ours and the published ones, and how they agree.

A point is a mean accuracy under one condition of training and test. Accuracies are
fractions; differences are ours less theirs. Nothing here draws or prints.
"""

import importlib.resources
import os

import numpy as np
import pandas as pd
import scipy.stats

from robust_tf import results
from robust_tf.evaluation import condition_key
from robust_tf.paper import experiments
from robust_tf.perturbations import KINDS

# What tells points apart; `figure` is that of the paper.
POINT_COLUMNS = [
    "figure",
    "dataset",
    "strategy",
    "train_perturb",
    "train_level",
    "test_perturb",
    "test_level",
]
ABLATION_COLUMNS = ["dataset", "batch_norm", "dropout", "activation"]


def published_points() -> pd.DataFrame:
    """The published figures 4, 6, 8 and A.1 to C.3.

    Sources: `reference/impact.csv` and `reference/grid.csv`, accuracies in percent, of
    Cavey, Dolan and Stock (2020).

    Returns:
        `POINT_COLUMNS`, then mean and std (over 25 trials; missing for natural images).
    """
    grid, impact = _reference("grid"), _reference("impact")
    grid["figure"] = [
        experiments.figure(strategy, perturb)
        for strategy, perturb in zip(grid["strategy"], grid["train_perturb"])
    ]
    impact = impact.assign(strategy="natural", train_perturb="none", train_level=np.nan)
    points = pd.concat([impact, grid], ignore_index=True)
    points["mean"] = points["accuracy_mean"] / 100
    points["std"] = points["accuracy_std"] / 100
    return points[[*POINT_COLUMNS, "mean", "std"]]


def published_ablation() -> pd.DataFrame:
    """Table I of the paper (`reference/ablation.csv`): `ABLATION_COLUMNS`, accuracies."""
    table = _reference("ablation")
    return table.assign(
        train_accuracy=table["train_accuracy"] / 100, test_accuracy=table["test_accuracy"] / 100
    )


def _reference(name: str) -> pd.DataFrame:
    file = importlib.resources.files("robust_tf.paper") / "reference" / f"{name}.csv"
    with importlib.resources.as_file(file) as path:
        return pd.read_csv(path, dtype={"figure": str})


def points(output_dir: str | os.PathLike) -> pd.DataFrame:
    """Our figures 4, 6, 8 and A.1 to C.3, as far as there are trials.

    Args:
        output_dir: where the folders `impact` and `grid` are.

    Returns:
        `POINT_COLUMNS`, then mean, std (population standard deviation: over the seeds
        where there are several, or else over the trials) and n_seeds. The natural models
        of the grid have the figure "natural".
    """
    tables = []
    for experiment, figures_of in (("impact", _impact_figures), ("grid", _grid_figures)):
        trials = results.read_experiment(output_dir, experiment, "trials")
        if len(trials):
            tables.append(figures_of(_over_seeds(trials)))
    if not tables:
        return pd.DataFrame(columns=[*POINT_COLUMNS, "mean", "std", "n_seeds"])
    return pd.concat(tables, ignore_index=True)[[*POINT_COLUMNS, "mean", "std", "n_seeds"]]


def _over_seeds(trials: pd.DataFrame) -> pd.DataFrame:
    summary = results.summarize(trials)
    keys = [column for column in POINT_COLUMNS if column != "figure"]
    groups = summary.groupby(keys, dropna=False, sort=False)
    merged = groups.agg(
        mean=("mean", "mean"),
        over_seeds=("mean", lambda means: means.std(ddof=0)),
        over_trials=("std", "first"),
        n_seeds=("mean", "size"),
    ).reset_index()
    merged["std"] = merged["over_seeds"].where(merged["n_seeds"] > 1, merged["over_trials"])
    return merged


def _impact_figures(summary: pd.DataFrame) -> pd.DataFrame:
    tables = []
    for family, figure in experiments.IMPACT_FIGURES.items():
        mine = [
            perturb == "none" or KINDS[perturb].family == family
            for perturb in summary["test_perturb"]
        ]
        tables.append(summary[mine].assign(figure=figure))
    return pd.concat(tables, ignore_index=True)


def _grid_figures(summary: pd.DataFrame) -> pd.DataFrame:
    # The paper's figures show tests of the trained family; there may be others.
    kinds = zip(summary["train_perturb"], summary["test_perturb"])
    summary = summary[
        ["none" in pair or KINDS[pair[0]].family == KINDS[pair[1]].family for pair in kinds]
    ]
    figures = [
        "natural" if strategy == "natural" else experiments.figure(strategy, perturb)
        for strategy, perturb in zip(summary["strategy"], summary["train_perturb"])
    ]
    return summary.assign(figure=figures)


def ablation(output_dir: str | os.PathLike) -> pd.DataFrame:
    """Our table I, means over seeds: `ABLATION_COLUMNS`, train_accuracy, test_accuracy."""
    runs = results.read_experiment(output_dir, "ablation", "runs")
    if not len(runs):
        return pd.DataFrame(columns=[*ABLATION_COLUMNS, "train_accuracy", "test_accuracy"])
    groups = runs.groupby(ABLATION_COLUMNS, sort=False)
    return groups.agg(
        train_accuracy=("train_accuracy", "mean"), test_accuracy=("natural_accuracy", "mean")
    ).reset_index()


def compare(ours: pd.DataFrame, published: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Every published number beside ours.

    Args:
        ours: points, or rows of the ablation.
        published: likewise.
        keys: the columns that tell rows apart; levels match as their `condition_key`.

    Returns:
        The published rows in their order, those columns that ours have too with the
        suffixes "" (ours, missing where there is no number) and "_published". A missing
        level is 0.
    """
    parts = [key.removesuffix("_level") for key in keys if key.endswith("_level")]
    for part in parts:
        kind, level = f"{part}_perturb", f"{part}_level"
        ours, published = (
            frame.assign(
                **{level: [condition_key(*row)[1] for row in zip(frame[kind], frame[level])]}
            )
            for frame in (ours, published)
        )
    return published.merge(ours, on=keys, how="left", suffixes=("_published", ""))


def agreement(compared: pd.DataFrame) -> pd.DataFrame:
    """How the numbers of each figure and dataset agree.

    Args:
        compared: points as `compare` returns them.

    Returns:
        One row per figure and dataset: n_published, n_ours (numbers that can be compared),
        mean_difference (mean of the absolute differences), largest_difference (that of
        the largest absolute value, with its sign), rank_correlation (Spearman's, of the
        conditions; missing below three).
    """
    rows = []
    for (figure, dataset), group in compared.groupby(["figure", "dataset"], sort=False):
        both = group.dropna(subset=["mean"])
        difference = both["mean"] - both["mean_published"]
        correlation = np.nan
        if len(both) >= 3 and both["mean"].max() > both["mean"].min():
            correlation = scipy.stats.spearmanr(both["mean"], both["mean_published"]).statistic
        rows.append(
            {
                "figure": figure,
                "dataset": dataset,
                "n_published": len(group),
                "n_ours": len(both),
                "mean_difference": difference.abs().mean(),
                "largest_difference": difference.loc[difference.abs().idxmax()]
                if len(both)
                else np.nan,
                "rank_correlation": correlation,
            }
        )
    return pd.DataFrame(rows)


def extremes(ours: pd.DataFrame) -> pd.DataFrame:
    """The best and the worst training of each strategy and kind (paper, section VII).

    Best and worst are the highest and the lowest mean accuracy on perturbed images.

    Args:
        ours: points of the grid, ours or the published ones.

    Returns:
        One row per dataset, strategy and kind: best and worst with the levels of training
        that they come from, best_level and worst_level, and
        natural_low, natural_high: the range of natural accuracy over the levels.
    """
    grid = ours[ours["strategy"].isin(experiments.FIGURE_LETTERS)]
    rows = []
    for (dataset, strategy, kind), group in grid.groupby(
        ["dataset", "strategy", "train_perturb"], sort=False
    ):
        natural = group[group["test_perturb"] == "none"]["mean"]
        tests = group[group["test_perturb"] != "none"]
        if not len(tests) or not len(natural):
            continue
        best, worst = tests.loc[tests["mean"].idxmax()], tests.loc[tests["mean"].idxmin()]
        rows.append(
            {
                "dataset": dataset,
                "strategy": strategy,
                "train_perturb": kind,
                "best": best["mean"],
                "best_level": best["train_level"],
                "worst": worst["mean"],
                "worst_level": worst["train_level"],
                "natural_low": natural.min(),
                "natural_high": natural.max(),
            }
        )
    return pd.DataFrame(rows)
