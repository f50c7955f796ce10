"""Correct or retrain? A natural model, corrections in front of it, a robust model, and both.

Corrections are the layers of `models.correction`, as an export has them inside.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns
import tensorflow as tf

from robust_tf import evaluation, results
from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition, condition_label
from robust_tf.evaluation.conditions import InBits, Natural
from robust_tf.files import digest, file_name, locked, prepare_directory, writing_to
from robust_tf.models.correction import Correction
from robust_tf.results import figures
from robust_tf.saved_models import Classifier, matched
from robust_tf.seeds import stream_seed
from robust_tf.sensors import Device
from robust_tf.studies import comparison

NEITHER, TRAINING = "neither", "training"
TIME_COLUMNS = ["milliseconds", "batch_milliseconds", "batch_size"]
REMEDIES_COLUMNS = ["remedy", *comparison.TESTS_COLUMNS[:-2], *TIME_COLUMNS]
PAIRS_COLUMNS = comparison.PAIRS_COLUMNS
# Calls before the time counts, and calls that count: of one image each, and of a batch.
_BEFORE, _SINGLE, _BATCHES = 5, 100, 15


def with_correction(classifier: Classifier, layer: Correction) -> Classifier:
    """A classifier whose images are corrected first; its name says so, its file stays.

    Args:
        classifier: from `classifiers.load`.
        layer: the correction.
    """
    return dataclasses.replace(
        classifier,
        name=f"{classifier.name} + {layer}",
        fingerprint=f"{classifier.fingerprint} + {layer.get_config() | {'name': ''}}",
        function=lambda images: classifier(layer(images)),
        input_range=(0.0, 1.0),
        dtype=tf.float32,
    )


def remedies(
    model: Classifier, corrections: Sequence[Correction], robust: Classifier | None = None
) -> dict[str, Classifier]:
    """The classifiers that a study measures, by remedy.

    Args:
        model: one that was trained on natural images.
        corrections: what may be in front of it.
        robust: one that was trained on perturbed images; None for no such remedy.

    Returns:
        "neither"; each correction; and with a robust model "training", and it with each
        correction, as "training + median".
    """
    found = {NEITHER: model} | {str(one): with_correction(model, one) for one in corrections}
    if robust is not None:
        found |= {TRAINING: robust}
        found |= {f"{TRAINING} + {one}": with_correction(robust, one) for one in corrections}
    return found


def measure(
    asked: Mapping[str, Classifier],
    data: Data,
    conditions: Iterable[Condition],
    *,
    trials: int,
    seed: int,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tests remedies on the same images and takes their time.

    Args:
        asked: classifiers by remedy, as of `remedies`; they fit the images.
        data: the dataset; its test split is used.
        conditions: what they are tested with, `Natural()` among it.
        trials: passes for each random perturbation.
        seed: the experiment's seed.
        progress: show a progress bar.

    Returns:
        One row per remedy and test, columns as in `REMEDIES_COLUMNS`: those of a comparison
        (accuracy with the ends low and high of its 95 % interval, …), and milliseconds, the
        median time of one image alone, batch_milliseconds, that per image of a batch of
        batch_size; and McNemar's test of each pair of remedies, `PAIRS_COLUMNS`, on the images
        of trial 0.

    Raises:
        InvalidArgument: if a condition does not fit the images or `trials` is below 1.
    """
    found = comparison.measure(
        asked,
        data,
        conditions,
        baseline=next(iter(asked)),
        trials=trials,
        seed=seed,
        progress=progress,
    )
    taken = times(asked, data.test)
    table = found.tests.rename(columns={"model": "remedy"})
    table["model"] = table["remedy"].map({name: one.name for name, one in asked.items()})
    table = table.merge(taken, on="remedy")
    return table[REMEDIES_COLUMNS], found.pairs[PAIRS_COLUMNS]


def times(models: Mapping[str, Callable], split: Split) -> pd.DataFrame:
    """How long models take on this CPU, measured in turn so that all see the same load.

    Args:
        models: by name; functions of images that TensorFlow can trace.
        split: the images.

    Returns:
        One row per model: remedy (its name) and `TIME_COLUMNS`, as of `measure`.
    """
    batch = min(evaluation.batch_size(split.image_shape), len(split))
    spec = [tf.TensorSpec([None, *split.image_shape])]
    functions = {name: tf.function(one, spec, autograph=False) for name, one in models.items()}
    medians = {}
    for size, counted in ((1, _SINGLE), (batch, _BATCHES)):
        images = split.images_at(tf.range(size))
        taken: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(_BEFORE + counted):
            for name, function in functions.items():
                start = time.perf_counter()
                function(images).numpy()
                taken[name].append(1000 * (time.perf_counter() - start) / size)
        medians[size] = [float(np.median(own[_BEFORE:])) for own in taken.values()]
    columns = dict(zip(TIME_COLUMNS, (medians[1], medians[batch], batch)))
    return pd.DataFrame({"remedy": list(models), **columns})


def verdicts(pairs: pd.DataFrame, level: float = 0.05) -> list[str]:
    """What McNemar's tests say of each correction without training, in one line each.

    Args:
        pairs: as of `measure`.
        level: how probable it may be that any test of a line finds a difference where none is;
            p-values are multiplied by the number of tests in the line (Bonferroni), whatever the
            number of lines.

    Returns:
        For each correction where it is better and worse than training (or than neither, without
        a robust model) and where no difference is shown.
    """
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    other = TRAINING if TRAINING in names else NEITHER
    lines = []
    for name in names:
        if name.startswith(TRAINING) or name in (NEITHER, other):
            continue
        own = pairs[pairs[["first", "second"]].isin([name, other]).all(axis=1)]
        found: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
        for row in own.itertuples():
            gained = row.only_first - row.only_second
            gained *= 1 if row.first == name else -1
            shown = row.p_value * len(own) < level
            word = ("better" if gained > 0 else "worse") if shown else "no difference shown"
            found[word].append(condition_label(row.test_perturb, row.test_level))
        parts = [f"{word}: {', '.join(tests)}" for word, tests in found.items() if tests]
        lines.append(f"{name} against {other}: {'; '.join(parts)}")
    return lines


def figure(table: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy of remedies with its 95 % interval, by test.

    Args:
        table: columns as in `REMEDIES_COLUMNS`.

    Returns:
        The figure; corrections have a marker each, and robust models are filled.
    """
    labels = [condition_label(*row) for row in zip(table["test_perturb"], table["test_level"])]
    table = table.assign(test=[label.removeprefix("defects/") for label in labels])
    names, shown = (list(dict.fromkeys(table[one])) for one in ("remedy", "test"))
    corrections = list(dict.fromkeys(_correction(name) for name in names))
    colours = sns.color_palette(figures.PALETTE, len(corrections))
    drawn = figures.blank(2.5 + 0.75 * len(shown), 4.4)
    axes = drawn.subplots()
    for i, name in enumerate(names):
        own = table[table["remedy"] == name].set_index("test").loc[shown]
        places = np.arange(len(shown)) + (i - (len(names) - 1) / 2) * 0.7 / len(names)
        reach = 100 * np.abs(own[["low", "high"]].sub(own["accuracy"], axis=0).to_numpy().T)
        which = corrections.index(_correction(name))
        axes.errorbar(
            places,
            100 * own["accuracy"],
            reach,
            label=name,
            capsize=2,
            color=colours[which],
            marker="osD^vP"[which % 6],
            markerfacecolor=colours[which] if name.startswith(TRAINING) else "white",
            linestyle="none",
        )
    axes.set(ylabel="accuracy [%]", xlabel="test images")
    axes.set_xticks(
        range(len(shown)),
        [figures.short(one, 24).replace(" ", "\n").replace("-", "-\n") for one in shown],
    )
    axes.grid(axis="y", linewidth=0.4)
    drawn.legend(loc="outside upper center", fontsize=8, ncols=2)
    sns.despine(drawn)
    return drawn


def _is_device(condition: Condition) -> bool:
    """Whether its text says more than its `repr`, in which long arrays are shortened."""
    own = condition.condition if isinstance(condition, InBits) else condition
    return isinstance(own, Device)


def _correction(remedy: str) -> str:
    """The correction in a remedy; "" for none."""
    name = remedy.removeprefix(TRAINING).removeprefix(" + ")
    return "" if name == NEITHER else name


def write(
    model: Classifier,
    corrections: Sequence[Correction],
    data: Data,
    conditions: Iterable[Condition],
    *,
    robust: Classifier | None = None,
    trials: int,
    seed: int,
    output_dir: str | os.PathLike,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Measures remedies and writes the tables and their figure.

    Args:
        model: from `classifiers.load`, one that was trained on natural images.
        corrections: at least one, unless there is a robust model.
        data: the dataset; its test split is used.
        conditions: as in `measure`.
        robust: from `classifiers.load`, one that was trained on perturbed images; or None.
        trials: as in `measure`.
        seed: as in `measure`.
        output_dir: where a folder for the results is made.
        progress: show a progress bar.

    Returns:
        The folder, with `remedies.csv`, `pairs.csv` and `figures/remedies.png`; and the two
        tables.

    Raises:
        InvalidArgument: if a model, correction or condition does not fit the images, both
            models are one, or there is no remedy.
        Unavailable: if the folder cannot be written.
    """
    if not corrections and robust is None:
        raise InvalidArgument("corrections", None, "at least one, or a robust model")
    if robust is not None and robust.path == model.path:
        raise InvalidArgument("robust", robust.path, "another model")
    conditions = list(dict.fromkeys([Natural(), *conditions]))
    if len(conditions) == 1:
        raise InvalidArgument("eval", "", "at least one test")
    for layer in corrections:
        layer.build((None, *data.image_shape))
    stream_seed(seed, "")  # checks it, before there is a folder
    robust = None if robust is None else matched(robust, data)
    asked = remedies(matched(model, data), corrections, robust)
    of_data = (data.name, data.source, *data.test.identity, data.label_names)
    identities = [one.identity for one in asked.values()]
    tests = [str(one) if _is_device(one) else one for one in conditions]
    identity = digest(identities, of_data, tests, trials, seed)
    folder = Path(output_dir) / file_name(f"{model.name} remedies {identity}")
    with locked(prepare_directory("output_dir", folder)):
        table, pairs = measure(asked, data, conditions, trials=trials, seed=seed, progress=progress)
        with writing_to("output_dir", output_dir):
            results.write(table, folder / "remedies.csv", REMEDIES_COLUMNS)
            results.write(pairs, folder / "pairs.csv", PAIRS_COLUMNS)
        figures.save({"remedies": figure(table)}, folder / "figures")
    return folder, table, pairs
