"""An experiment's numbers in one form, ours and the published ones, and how they agree.

A point is a mean accuracy under one condition of training and test. Accuracies are
fractions; differences are ours less theirs. Nothing here draws or prints.
"""

import importlib.resources
import os
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import scipy.stats

from robust_tf import results
from robust_tf.evaluation import condition_key
from robust_tf.paper import experiments
from robust_tf.perturbations import KINDS, all_kinds

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
# What is measured at a point, over the seeds of training.
OUR_COLUMNS = ["mean", "std", "n_seeds", "ci95", "low", "high"]


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
        `POINT_COLUMNS`, then mean; std (population standard deviation: over the seeds
        where there are several, or else over the trials); n_seeds; and, missing for one seed,
        ci95, half the width of the 95 % interval of the mean over training, and low and high,
        the ends of the 95 % prediction interval of one more seed, within [0, 1]. Both are
        Student's, of seeds that are normally distributed (Geisser, *Predictive inference*,
        1993). The natural models of the grid have the figure "natural".
    """
    tables = []
    for figures_of, summary in _summaries(output_dir):
        tables.append(figures_of(_over_seeds(summary)))
    columns = [*POINT_COLUMNS, *OUR_COLUMNS]
    return (
        pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    )


def points_by_seed(output_dir: str | os.PathLike) -> dict[int, pd.DataFrame]:
    """The same of each seed alone: `POINT_COLUMNS` and mean, by seed."""
    found: dict[int, list[pd.DataFrame]] = {}
    for figures_of, summary in _summaries(output_dir):
        for seed, own in summary.groupby("seed"):
            found.setdefault(int(seed), []).append(figures_of(own))
    return {
        seed: pd.concat(tables, ignore_index=True)[[*POINT_COLUMNS, "mean"]]
        for seed, tables in sorted(found.items())
    }


def _summaries(output_dir: str | os.PathLike) -> Iterator[tuple[Callable, pd.DataFrame]]:
    """What makes figures of an experiment, and the means of its models over their trials."""
    for experiment, figures_of in (("impact", _impact_figures), ("grid", _grid_figures)):
        trials = results.read_experiment(output_dir, experiment, "trials")
        known = {"none", *all_kinds()}  # the paper has no others
        if len(trials):
            trials = trials[trials[["train_perturb", "test_perturb"]].isin(known).all(axis=1)]
        if len(trials):
            yield figures_of, results.summarize(trials)


def _over_seeds(summary: pd.DataFrame) -> pd.DataFrame:
    keys = [column for column in POINT_COLUMNS if column != "figure"]
    groups = summary.groupby(keys, dropna=False, sort=False)
    merged = groups.agg(
        mean=("mean", "mean"),
        over_seeds=("mean", lambda means: means.std(ddof=0)),
        over_trials=("std", "first"),
        ci95=("mean", "sem"),
        n_seeds=("mean", "size"),
    ).reset_index()
    several = merged["n_seeds"] > 1
    merged["std"] = merged["over_seeds"].where(several, merged["over_trials"])
    merged["ci95"] *= scipy.stats.t.ppf(0.975, (merged["n_seeds"] - 1).clip(lower=1))
    # One more seed varies by itself, and the mean is not exact.
    reach = merged["ci95"] * np.sqrt(merged["n_seeds"] + 1)
    merged["low"] = (merged["mean"] - reach).clip(lower=0)
    merged["high"] = (merged["mean"] + reach).clip(upper=1)
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
        suffixes "" (ours, missing where there is no number) and "_published"; of points
        also inside, whether the published number lies in the prediction interval of ours,
        missing where there is none. A missing level is 0.
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
    both = published.merge(ours, on=keys, how="left", suffixes=("_published", ""))
    if "low" in both:
        low, high = both["low"].astype(float), both["high"].astype(float)
        is_inside = both["mean_published"].between(low, high)
        both["inside"] = is_inside.astype(object).where(low.notna(), None)
    return both


def agreement(compared: pd.DataFrame) -> pd.DataFrame:
    """How the numbers of each figure and dataset agree.

    Args:
        compared: points as `compare` returns them.

    Returns:
        One row per figure and dataset: n_published, n_ours (numbers that can be compared),
        mean_difference (mean of the absolute differences), largest_difference (that of
        the largest absolute value, with its sign), rank_correlation (Spearman's, of the
        conditions; missing below three), n_several (numbers with several of our seeds) and
        n_inside (those of them that lie in the prediction interval).
    """
    rows = []
    for (figure, dataset), group in compared.groupby(["figure", "dataset"], sort=False):
        both = group.dropna(subset=["mean"])
        difference = both["mean"] - both["mean_published"]
        inside = both.get("inside", pd.Series(dtype=object)).dropna()
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
                "n_several": len(inside),
                "n_inside": int(inside.sum()),
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
