"""What trials say: means with their uncertainty, and tables to read. Runs are never mixed.

Accuracies are fractions; only `comparison`, `over_seeds` and `in_percent` show percent.
"""

import numpy as np
import pandas as pd
import scipy.stats

from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import condition_label, measures
from robust_tf.results.labelling import with_labels
from robust_tf.results.tables import TEST_COLUMNS, TRAINING_COLUMNS

# What tells test sets apart.
_TEST_SET = ["n_examples", "test_digest"]


def summarize(trials: pd.DataFrame) -> pd.DataFrame:
    """Aggregates trials to one row per run, test condition and test set.

    Args:
        trials: as `read` returns them.

    Returns:
        The columns of training and test, then mean, std (population standard deviation
        over the trials), ci95 (half the width of the 95 % interval of the mean for other draws
        on the same images, from Student's t; missing for a single trial), low and high (the
        ends of the 95 % interval for other draws and other images, `measures.interval`),
        n_trials, and n_examples and test_digest, by which test sets are told apart. Order is
        that of `trials`.

    Raises:
        InvalidArgument: if a trial is there twice.
    """
    natural = trials["test_perturb"] == "none"
    trials = trials.assign(
        test_level=trials["test_level"].mask(natural),  # as it is written, whoever wrote 0
        n_examples=pd.to_numeric(trials["n_examples"]),
        test_digest=trials.get("test_digest", np.nan),
        changed=pd.to_numeric(trials.get("changed", np.nan)),
    )
    by = [*TRAINING_COLUMNS, *TEST_COLUMNS, *_TEST_SET]
    _check_once(trials, [*by, "trial"])
    groups = trials.groupby(by, dropna=False, sort=False)
    summary = groups.agg(
        mean=("accuracy", "mean"),
        std=("accuracy", lambda accuracy: accuracy.std(ddof=0)),
        ci95=("accuracy", "sem"),
        low=("changed", "mean"),
        high=("changed", "mean"),
        n_trials=("accuracy", "size"),
    ).reset_index()
    summary["ci95"] *= scipy.stats.t.ppf(0.975, (summary["n_trials"] - 1).clip(lower=1))
    summary["low"], summary["high"] = measures.interval(
        summary["mean"], summary["n_examples"], summary["n_trials"], summary["low"]
    )
    return summary[[name for name in summary if name not in _TEST_SET] + _TEST_SET]


def _check_once(trials: pd.DataFrame, key: list[str]) -> None:
    """Raises `InvalidArgument` if a trial is there twice, which would look like two."""
    numbered = trials[trials["trial"].notna()] if "trial" in trials else trials.head(0)
    if (again := numbered.duplicated(key)).any():
        row = numbered[again].iloc[0]
        test = condition_label(row["test_perturb"], row["test_level"])
        twice = f"{row['run']}, {test}, trial {row['trial']:g}"
        raise InvalidArgument("trials", twice, "each trial once; drop_duplicates may help")


def comparison(trials: pd.DataFrame, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """A table to read: one row per run, one column per test condition.

    Args:
        trials: of one or more runs.
        runs: the table of runs, to tell apart those of one training; see `labels`.

    Returns:
        Texts such as "76.73 ± 0.37 [75.94, 77.51]": percent, mean and population standard
        deviation, which is left out where there is one trial, and the 95 % interval for other
        draws and other images, `low` and `high` of `summarize`.
    """
    summary = with_labels(summarize(trials), runs)
    return _in_percent(summary, "n_trials")


def over_seeds(trials: pd.DataFrame, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """As `comparison`, with one row for all runs that differ in nothing but their seed.

    Args:
        trials: of several runs.
        runs: as in `comparison`.

    Returns:
        Texts such as "76.73 ± 0.37 [75.90, 77.55]": percent, mean and population standard
        deviation of the seeds' means, which is left out where there is one seed, and the 95 %
        interval for other images, as of one pass over them.
    """
    summary = with_labels(summarize(trials), runs, but=("seed",))
    groups = summary.groupby(["training", "test"], sort=False)
    means = groups.agg(
        mean=("mean", "mean"),
        std=("mean", lambda mean: mean.std(ddof=0)),
        n_seeds=("mean", "size"),
        n_examples=("n_examples", "min"),
    ).reset_index()
    means["low"], means["high"] = measures.interval(means["mean"], means["n_examples"])
    return _in_percent(means, "n_seeds")


def in_percent(
    accuracy: float, low: float | None = None, high: float | None = None, std: float = np.nan
) -> str:
    """An accuracy as it is printed: "76.73 ± 0.37 [75.94, 77.51]".

    Args:
        accuracy: a fraction, like all that follow.
        low: lower end of its interval; without it there is none.
        high: upper end.
        std: standard deviation, left out where it is missing.
    """
    deviation = "" if np.isnan(std) else f" ± {100 * std:.2f}"
    interval = ""
    if low is not None and high is not None and not np.isnan(low):
        interval = f" [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{100 * accuracy:.2f}{deviation}{interval}"


def _in_percent(summary: pd.DataFrame, count: str) -> pd.DataFrame:
    deviations = summary["std"].where(summary[count] > 1)
    numbers = zip(summary["mean"], summary["low"], summary["high"], deviations)
    texts = [in_percent(*row) for row in numbers]
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
        lowest of them; at, which test that is; drop, natural less worst; and natural_low,
        natural_high, mean_low, mean_high, worst_low, worst_high, the ends of 95 % intervals:
        those of `summarize`, and for the mean that of one pass over the images. Fractions;
        the means over trials count.

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
        rows[label] = profile_of(group[is_natural].iloc[0], group[~is_natural], "mean")
    return pd.DataFrame.from_dict(rows, orient="index")


def profile_of(natural: pd.Series, tests: pd.DataFrame, column: str) -> dict[str, float | str]:
    """A row of `profile`.

    Args:
        natural: the test of natural images.
        tests: one row per perturbed test, likewise with `TEST_COLUMNS`, n_examples, the
            accuracy, and low and high, the ends of its interval.
        column: the name of the column that has the accuracy.
    """
    worst, mean = tests.loc[tests[column].idxmin()], tests[column].mean()
    row = {
        "natural": natural[column],
        "mean": mean,
        "worst": worst[column],
        "at": condition_label(worst["test_perturb"], worst["test_level"]),
        "drop": natural[column] - worst[column],
    }
    ends = {
        "natural": (natural["low"], natural["high"]),
        "mean": measures.interval(mean, tests["n_examples"].min()),
        "worst": (worst["low"], worst["high"]),
    }
    for name, (low, high) in ends.items():
        row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return row
