"""Several saved classifiers on the same perturbed images: how good each is, and which is better."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns

from robust_tf import results, saved_models
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import (
    Condition,
    Evaluator,
    condition_label,
    measures,
    number_of_trials,
)
from robust_tf.files import digest, locked, prepare_directory, writing_to
from robust_tf.progress import Bar
from robust_tf.results import figures
from robust_tf.results.labelling import model_names, training_of
from robust_tf.saved_models import Classifier, matched
from robust_tf.saved_models.places import FILES
from robust_tf.seeds import stream_seed

_OF_DATA = ["dataset", "data_source", "seed", "n_examples"]
_OF_TEST = ["test_perturb", "test_level"]
TESTS_COLUMNS = [
    "model",
    "training",
    *_OF_DATA,
    *_OF_TEST,
    "trials",
    "accuracy",
    "std",
    "low",
    "high",
    "unanswered",
    "calibration_error",
    "brier_score",
]
SUMMARY_COLUMNS = [
    "model",
    "training",
    *_OF_DATA,
    "natural",
    "mean",
    "worst",
    "at",
    "drop",
    *(f"{name}_{end}" for name in ("natural", "mean", "worst") for end in ("low", "high")),
    "baseline",
    "mce",
    "relative_mce",
    "natural_calibration_error",
    "calibration_error",
    "natural_brier_score",
    "brier_score",
]
CORRUPTIONS_COLUMNS = [
    "model",
    "baseline",
    "test_perturb",
    "corruption_error",
    "relative_corruption_error",
]
PAIRS_COLUMNS = ["first", "second", *_OF_TEST, "only_first", "only_second", "p_value"]


_MARKERS = "osD^vPX*"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison finds; fractions, not percent.

    Attributes:
        tests: one row per model and test: accuracy (mean over the trials), std (population
            standard deviation over them), low and high (its 95 % interval for other draws and
            other images, `measures.interval`), unanswered (share of the images whose scores are
            not all finite, which are wrong), calibration_error and brier_score (means over the
            trials).
        summary: one row per model: natural, mean, worst, at, drop and the ends of their
            intervals as of `results.profile`; mce and relative_mce to the baseline; calibration
            error and Brier score of natural images, and their means over the perturbed tests.
        corruptions: one row per model and kind; see `measures.corruption_errors`.
        pairs: one row per pair of models and test: McNemar's test on the images of trial 0.
    """

    tests: pd.DataFrame
    summary: pd.DataFrame
    corruptions: pd.DataFrame
    pairs: pd.DataFrame


def find(run: str, output_dir: str | os.PathLike, argument: str = "RUN") -> Path:
    """The saved model that a text means.

    Args:
        run: a run's folder, or its name in `output_dir`; or a SavedModel's directory, or a
            file, `places.FILES`.
        output_dir: where runs' folders are.
        argument: the name of the argument that has the text, for the error.

    Raises:
        Unavailable: if there is none.
    """
    if "://" in run:
        raise Unavailable(argument, run, "expected a SavedModel or run on this machine")
    for folder in (Path(run), Path(output_dir) / run):
        table = folder / "runs.csv"
        if os.path.isfile(table):  # unlike `table.is_file`, False of a name that is too long
            try:
                recorded = Path(results.read_run(folder)["saved_model"])
            except Unavailable as error:
                problem = f"expected one run with its SavedModel in {table} ({error.problem})"
                raise Unavailable(argument, run, problem) from error
            return saved_models.find(argument, _where(folder, recorded))
    is_file = Path(run).suffix.lower() in FILES
    return Path(run) if is_file else saved_models.find(argument, run)


def _where(folder: Path, recorded: Path) -> Path:
    """Where a run's SavedModel is: with its results, which may have been moved, or as recorded."""
    own = Path("saved_models", *recorded.parts[-2:])
    beside, default = folder.absolute().parent, folder.absolute().parent.parent
    places = (beside / own, default / own, recorded)
    return next((place for place in places if place.is_dir()), recorded)


def baseline(models: Sequence[Classifier], asked: Path | None = None) -> int:
    """Which of the models the others are measured by: the asked, the natural, or the first."""
    if asked is not None:
        return next(i for i, model in enumerate(models) if model.path == asked)
    natural = [model.metadata.get("training", {}).get("strategy") == "natural" for model in models]
    return natural.index(True) if True in natural else 0


def measure(
    models: Mapping[str, Classifier],
    data: Data,
    conditions: Iterable[Condition],
    *,
    baseline: str,
    trials: int,
    seed: int,
    progress: bool = True,
) -> Comparison:
    """Measures classifiers on the same images.

    Args:
        models: by name.
        data: the dataset; its test split is used.
        conditions: what they are tested with, `Natural()` among it.
        baseline: the name of the model that the others are relative to.
        trials: passes for each random perturbation.
        seed: the experiment's seed.
        progress: show a progress bar.

    Returns:
        The tables.

    Raises:
        InvalidArgument: if a condition does not fit the images or `trials` is below 1.
    """
    if trials < 1:
        raise InvalidArgument("trials", trials, "a whole number from 1 on")
    conditions = list(conditions)
    of_data = {"dataset": data.name, "data_source": data.source, "seed": seed}
    right: dict[tuple[str, Condition], np.ndarray] = {}
    rows = []
    todo = list(itertools.product(models, conditions))
    evaluators = {name: Evaluator(model, data.test, seed) for name, model in models.items()}
    for name, condition in Bar(todo, desc="comparing", unit="test", disable=not progress):
        found, answers = [], []
        labels = condition.split(data.test).labels.numpy()
        for trial in range(number_of_trials(condition, trials)):
            scores = evaluators[name].scores(condition, trial)
            probabilities = measures.probabilities(scores)
            answered = measures.answered(scores)
            correct = (scores.argmax(axis=1) == labels) & answered
            answers.append(correct)
            found.append(
                (
                    correct.mean(),
                    1 - answered.mean(),
                    measures.calibration_error(probabilities, labels),
                    measures.brier_score(probabilities, labels),
                )
            )
        accuracies, unanswered, calibration, brier = np.transpose(found)
        right[name, condition] = answers[0]
        changed = [np.mean(one != other) for one, other in itertools.pairwise(answers)]
        low, high = measures.interval(
            accuracies.mean(), len(labels), len(found), np.mean(changed) if changed else np.nan
        )
        rows.append(
            {
                "model": name,
                "training": training_of(models[name]),
                **of_data,
                "n_examples": len(labels),
                **_test(condition),
                "trials": len(found),
                "accuracy": accuracies.mean(),
                "std": accuracies.std(),
                "low": low,
                "high": high,
                "unanswered": unanswered.mean(),
                "calibration_error": calibration.mean(),
                "brier_score": brier.mean(),
            }
        )
    for name, evaluator in evaluators.items():
        evaluator.warn_of_unanswered(name)
    tests = pd.DataFrame(rows, columns=TESTS_COLUMNS)
    corruptions = _corruptions(tests, baseline)
    pairs = [
        {"first": first, "second": second, **_test(condition)}
        | dict(zip(PAIRS_COLUMNS[-3:], measures.mcnemar(right[first, condition], other)))
        for first, second in itertools.combinations(models, 2)
        for condition in conditions
        for other in [right[second, condition]]
    ]
    return Comparison(
        tests,
        _summary(tests, corruptions, baseline),
        corruptions,
        pd.DataFrame(pairs, columns=PAIRS_COLUMNS),
    )


def _test(condition: Condition) -> dict[str, str | float]:
    return {"test_perturb": condition.key[0], "test_level": condition.level}


def _corruptions(tests: pd.DataFrame, baseline: str) -> pd.DataFrame:
    errors = tests.assign(
        error=1 - tests["accuracy"], kind=tests["test_perturb"], level=tests["test_level"]
    )
    of_baseline = errors[errors["model"] == baseline]
    tables = []
    for name, own in errors.groupby("model", sort=False):
        table = measures.corruption_errors(own, of_baseline).rename_axis("test_perturb")
        tables.append(table.reset_index().assign(model=name, baseline=baseline))
    return pd.concat(tables, ignore_index=True)[CORRUPTIONS_COLUMNS]


def _summary(tests: pd.DataFrame, corruptions: pd.DataFrame, baseline: str) -> pd.DataFrame:
    rows = []
    for name, own in tests.groupby("model", sort=False):
        natural = own[own["test_perturb"] == "none"].iloc[0]
        perturbed = own[own["test_perturb"] != "none"]
        errors = corruptions[corruptions["model"] == name]
        rows.append(
            {
                **natural[["model", "training", *_OF_DATA]],
                **results.profile_of(natural, perturbed, "accuracy"),
                "baseline": baseline,
                "mce": errors["corruption_error"].mean(),
                "relative_mce": errors["relative_corruption_error"].mean(),
                "natural_calibration_error": natural["calibration_error"],
                "calibration_error": perturbed["calibration_error"].mean(),
                "natural_brier_score": natural["brier_score"],
                "brier_score": perturbed["brier_score"].mean(),
            }
        )
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def figure(tests: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy with its 95 % interval and calibration error of models, by test.

    Args:
        tests: columns as in `TESTS_COLUMNS`.

    Returns:
        The figure, one panel per measure.
    """
    labels = [condition_label(*row) for row in zip(tests["test_perturb"], tests["test_level"])]
    tests = tests.assign(test=labels)
    names = list(dict.fromkeys(tests["model"]))
    shown = list(dict.fromkeys(tests["test"]))
    drawn = figures.blank(2.5 + 0.75 * len(shown), 6.4 + 0.2 * len(names))
    above, below = drawn.subplots(2, 1, sharex=True)
    for i, (name, colour) in enumerate(zip(names, sns.color_palette(figures.PALETTE, len(names)))):
        own = tests[tests["model"] == name].set_index("test").loc[shown]
        places = np.arange(len(shown)) + (i - (len(names) - 1) / 2) * 0.6 / len(names)
        style = {"color": colour, "marker": _MARKERS[i % len(_MARKERS)], "linestyle": "none"}
        reach = 100 * np.abs(own[["low", "high"]].sub(own["accuracy"], axis=0).to_numpy().T)
        label = f"{own['training'].iloc[0]} ({figures.short(name, 80)})"
        above.errorbar(places, 100 * own["accuracy"], reach, label=label, capsize=2, **style)
        below.plot(places, 100 * own["calibration_error"], **style)
    above.set(ylabel="accuracy [%]")
    below.set(ylabel="calibration error [%]", xlabel="test images", ylim=(0, None))
    below.set_xticks(range(len(shown)), [test.replace(" ", "\n") for test in shown])
    for axes in (above, below):
        axes.grid(axis="y", linewidth=0.4)
    drawn.legend(loc="outside upper center", fontsize=8)
    sns.despine(drawn)
    return drawn


def write(
    models: Sequence[Classifier],
    data: Data,
    conditions: Iterable[Condition],
    *,
    baseline: int,
    trials: int,
    seed: int,
    output_dir: str | os.PathLike,
    progress: bool = True,
) -> tuple[Path, Comparison]:
    """Compares classifiers and writes the tables and their figure.

    Args:
        models: from `classifiers.load`.
        data: the dataset; its test split is used.
        conditions: as in `measure`.
        baseline: the place of the model that the others are relative to.
        trials: as in `measure`.
        seed: as in `measure`.
        output_dir: where a folder for the results is made.
        progress: show a progress bar.

    Returns:
        The folder, with `tests.csv`, `summary.csv`, `corruptions.csv`, `pairs.csv` and
        `figures/comparison.png`; and the tables.

    Raises:
        InvalidArgument: if a model or condition does not fit the images.
        Unavailable: if the folder cannot be written.
    """
    conditions = list(conditions)
    models = [matched(model, data) for model in models]
    names = model_names(models)
    if len(set(names)) < len(names):
        raise InvalidArgument("RUN", ", ".join(names), "different models")
    stream_seed(seed, "")  # checks it, before there is a folder
    of_data = (data.name, data.source, *data.test.identity, data.label_names)
    asked = (conditions, baseline, trials, seed)
    identity = digest([model.identity for model in models], of_data, asked)
    folder = Path(output_dir) / f"comparison-{identity}"
    with locked(prepare_directory("output_dir", folder)):
        found = measure(
            dict(zip(names, models)),
            data,
            conditions,
            baseline=names[baseline],
            trials=trials,
            seed=seed,
            progress=progress,
        )
        with writing_to("output_dir", output_dir):
            results.write(found.tests, folder / "tests.csv", TESTS_COLUMNS)
            results.write(found.summary, folder / "summary.csv", SUMMARY_COLUMNS)
            results.write(found.corruptions, folder / "corruptions.csv", CORRUPTIONS_COLUMNS)
            results.write(found.pairs, folder / "pairs.csv", PAIRS_COLUMNS)
        figures.save({"comparison": figure(found.tests)}, folder / "figures")
    return folder, found
