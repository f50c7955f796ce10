"""What trials say: means with their uncertainty, and tables to read. Runs are never mixed.

Accuracies are fractions; only `comparison` shows percent.
"""

import pandas as pd
import scipy.stats

from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import condition_label
from robust_tf.results.labels import with_labels
from robust_tf.results.tables import TEST_COLUMNS, TRAINING_COLUMNS


def summarize(trials: pd.DataFrame) -> pd.DataFrame:
    """Aggregates trials to one row per run and test condition.

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


def comparison(trials: pd.DataFrame, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """A table to read: one row per run, one column per test condition.

    Args:
        trials: of one or more runs.
        runs: the table of runs, to tell apart those of one training; see `labels`.

    Returns:
        Texts such as "76.73 ± 0.37": percent, mean and population standard deviation;
        the mean alone where there is one trial.
    """
    summary = with_labels(summarize(trials), runs)
    return _in_percent(summary, "n_trials")


def over_seeds(trials: pd.DataFrame, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """As `comparison`, with one row for all runs that differ in nothing but their seed.

    Args:
        trials: of several runs.
        runs: as in `comparison`.

    Returns:
        Texts such as "76.73 ± 0.37": percent, mean and population standard deviation of the
        seeds' means; the mean alone where there is one seed.
    """
    summary = with_labels(summarize(trials), runs, but=("seed",))
    groups = summary.groupby(["training", "test"], sort=False)["mean"]
    means = groups.agg(mean="mean", std=lambda mean: mean.std(ddof=0), n_seeds="size")
    return _in_percent(means.reset_index(), "n_seeds")


def _in_percent(summary: pd.DataFrame, count: str) -> pd.DataFrame:
    texts = [
        f"{100 * mean:.2f}" + (f" ± {100 * std:.2f}" if number > 1 else "")
        for mean, std, number in zip(summary["mean"], summary["std"], summary[count])
    ]
    table = summary.assign(text=texts).pivot_table(
        index="training", columns="test", values="text", aggfunc="first", sort=False
    )
    return table.fillna("").rename_axis(index=None, columns=None)


def profile(trials: pd.DataFrame, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """How robust models are over all their tests: one row per run.

    Args:
        trials: of one or more runs, each with natural images and others among its tests.
        runs: as in `comparison`.

    Returns:
        natural accuracy; mean over the perturbed tests, all with the same weight; worst, the
        lowest of them; at, which test that is; and drop, natural less worst. Fractions; the
        means over trials count.

    Raises:
        InvalidArgument: if a run was not tested with both.
    """
    summary = with_labels(summarize(trials), runs)
    rows = {}
    for label, group in summary.groupby("training", sort=False):
        is_natural = group["test_perturb"] == "none"
        if is_natural.all() or not is_natural.any():
            expected = f"tests of natural and of perturbed images for {label}"
            raise InvalidArgument("trials", None, expected)
        natural = group[is_natural]["mean"].iloc[0]
        rows[label] = profile_of(natural, group[~is_natural], "mean")
    return pd.DataFrame.from_dict(rows, orient="index")


def profile_of(natural: float, tests: pd.DataFrame, column: str) -> dict[str, float | str]:
    """A row of `profile`.

    Args:
        natural: accuracy on natural images.
        tests: one row per perturbed test, with `TEST_COLUMNS` and the accuracies.
        column: the name of the column that has these.
    """
    worst = tests.loc[tests[column].idxmin()]
    return {
        "natural": natural,
        "mean": tests[column].mean(),
        "worst": worst[column],
        "at": condition_label(worst["test_perturb"], worst["test_level"]),
        "drop": natural - worst[column],
    }
