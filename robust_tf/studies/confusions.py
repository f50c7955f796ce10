"""Which classes flow into which when the sensor changes, and the images that go first."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import matplotlib.figure
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf import results
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import (
    Condition,
    Evaluator,
    Natural,
    condition_key,
    condition_label,
    examples,
    number_of_trials,
)
from robust_tf.files import digest, file_name, locked, prepare_directory, writing_to
from robust_tf.progress import Bar
from robust_tf.results import figures
from robust_tf.results.labelling import training_of
from robust_tf.saved_models import Classifier, matched
from robust_tf.seeds import stream_seed

CHANGES_COLUMNS = ["test_perturb", "test_level", "natural", "perturbed", "images", "share"]
FLIPS_COLUMNS = ["test_perturb", "test_level", "example", "label", "natural", "perturbed", "flip"]
# What another class can mean, in the order of the tables.
FLIPS = ("right to wrong", "wrong to right", "wrong to wrong")
# The class of an image whose scores are not all finite.
_NO_ANSWER = "no answer"
# Images that flip first, of each kind, which are shown.
_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Confusions:
    """What perturbations do to a model's classes.

    Attributes:
        changes: one row per test and pair of classes: natural, the class of the natural image;
            perturbed, that of the perturbed one; images, how many go from one to the other,
            the mean over the trials; share, of the images that have the first class
            (missing where none has). "no answer" is a class where scores are not finite.
        flips: one row per kind and image that it makes another class: the lowest of the tested
            levels that does, in trial 0. label, natural and perturbed are names of classes,
            natural the model's own before; flip is one of `FLIPS`. Of each kind those from
            right to wrong come first, and of each of these the lowest level.
    """

    changes: pd.DataFrame
    flips: pd.DataFrame


def measure(
    model: keras.Model | Callable,
    data: Data,
    conditions: Iterable[Condition],
    *,
    trials: int,
    seed: int,
    label: str | None = None,
) -> Confusions:
    """Compares the classes of perturbed images with those of natural ones.

    Args:
        model: as in `evaluation.Evaluator`.
        data: the dataset; its test split is used.
        conditions: perturbations of the test images.
        trials: passes for each random one.
        seed: the experiment's seed.
        label: the progress bar's label; no bar without one.

    Returns:
        The tables.

    Raises:
        InvalidArgument: if a condition does not fit the images or `trials` is below 1.
    """
    if trials < 1:
        raise InvalidArgument("trials", trials, "a whole number from 1 on")
    evaluator = Evaluator(model, data.test, seed)
    # `evaluation.NO_ANSWER` is -1: the last class, which is left out where no image has it.
    names, labels = np.array([*data.label_names, _NO_ANSWER]), data.test.labels.numpy()
    classes = len(names)
    natural = evaluator.predictions(Natural()) % classes
    having = np.bincount(natural, minlength=classes)[:, np.newaxis]
    changes, flips, flipped = [], [], dict[str, np.ndarray]()
    in_order = sorted(conditions, key=lambda condition: condition.key[1])
    for condition in Bar(in_order, desc=label, unit="test", disable=label is None):
        counts = np.zeros((classes, classes))
        count = number_of_trials(condition, trials)
        for trial in range(count):
            found = evaluator.predictions(condition, trial) % classes
            counts += np.bincount(natural * classes + found, minlength=classes**2).reshape(
                classes, classes
            )
            if trial == 0:
                before = flipped.setdefault(condition.kind, np.zeros(len(natural), bool))
                new = np.flatnonzero((found != natural) & ~before)
                before[new] = True
                was, is_now = natural[new] == labels[new], found[new] == labels[new]
                flips.append(
                    pd.DataFrame(
                        {
                            "test_perturb": condition.key[0],
                            "test_level": condition.level,
                            "example": new,
                            "label": names[labels[new]],
                            "natural": names[natural[new]],
                            "perturbed": names[found[new]],
                            "flip": np.select([was, is_now], FLIPS[:2], FLIPS[2]),
                        }
                    )
                )
        counts /= count
        with np.errstate(invalid="ignore"):
            shares = counts / having
        changes.append(
            pd.DataFrame(
                {
                    "test_perturb": condition.key[0],
                    "test_level": condition.level,
                    "natural": np.repeat(names, classes),
                    "perturbed": np.tile(names, classes),
                    "images": counts.ravel(),
                    "share": shares.ravel(),
                }
            )
        )
    evaluator.warn_of_unanswered(label or "the model")
    if not evaluator.unanswered():
        among_classes = np.pad(np.ones((classes - 1, classes - 1), bool), (0, 1)).ravel()
        changes = [part[among_classes] for part in changes]
    return Confusions(
        _sorted(changes, CHANGES_COLUMNS, ["test_perturb"]),
        _sorted(flips, FLIPS_COLUMNS, ["test_perturb", "flip"]),
    )


def _sorted(parts: list[pd.DataFrame], columns: list[str], by: list[str]) -> pd.DataFrame:
    """Parts of a table together; rows that are equal in `by` stay in their order."""
    table = pd.concat(parts, ignore_index=True)[columns]
    return table.sort_values(by, kind="stable", ignore_index=True)


def first_to_flip(
    found: Confusions, data: Data, conditions: Iterable[Condition], seed: int
) -> pd.DataFrame:
    """The images that flip at the lowest levels, right to wrong and then wrong to right.

    Args:
        found: of `measure`.
        data: the same.
        conditions: the same.
        seed: the same.

    Returns:
        Some rows of `flips`, of each kind and direction, with the column image, a PNG file in
        base64, as perturbed.
    """
    by_key = {condition.key: condition for condition in conditions}
    shown = found.flips[found.flips["flip"] != FLIPS[2]].sort_values("flip", kind="stable")
    shown = shown.groupby(["flip", "test_perturb"], sort=False).head(_SHOWN)
    images = []
    for row in shown.itertuples():
        condition = by_key[condition_key(row.test_perturb, row.test_level)]
        (image,) = condition.images(data.test, tf.constant([row.example]), seed)
        images.append(examples.png(image))
    return shown.assign(image=images)


def changes_figure(
    table: pd.DataFrame, label_names: Sequence[str], title: str
) -> matplotlib.figure.Figure:
    """Which classes flow into which under the highest level of each kind.

    Args:
        table: columns as in `CHANGES_COLUMNS`.
        label_names: the names of the classes.
        title: what was tested, in words.

    Returns:
        The figure, one matrix per kind, all in the same colours: rows are classes of natural
        images, columns those of perturbed ones; what stays in its class is left out.
    """
    table = _at_highest(table)
    moved = table.loc[table["natural"] != table["perturbed"], "share"]
    most = max(1.0, 100 * moved.max())
    kinds = list(dict.fromkeys(table["test_perturb"]))
    names = [*label_names]
    if _NO_ANSWER in {*table["natural"]} - {*names}:
        names.append(_NO_ANSWER)
    ticks = [figures.short(name) for name in names]
    room = 0.06 * max(0, max(map(len, ticks)) - 12)
    side = max(2.6, 0.28 * len(names) + 0.9) + room
    figure = figures.blank(side * len(kinds) + 0.8, side + 1.0)
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds):
        own = table[table["test_perturb"] == kind]
        matrix = np.full((len(names), len(names)), np.nan)
        for row in own.itertuples():
            if str(row.natural) != str(row.perturbed):
                place = names.index(str(row.natural)), names.index(str(row.perturbed))
                matrix[place] = 100 * row.share
        image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=most)
        axes.set_title(condition_label(kind, own["test_level"].iloc[0]), fontsize=10)
        axes.set_xticks(range(len(names)), ticks, fontsize=7, rotation=90)
        axes.set_yticks(range(len(names)), ticks, fontsize=7)
        axes.set_xlabel("perturbed image")
    figure.colorbar(image, ax=list(panels), shrink=0.7, pad=0.01)
    panels[0].set_ylabel("natural image")
    figures.title(figure, f"{title}: share that goes to another class [%]")
    return figure


def flips_figure(table: pd.DataFrame, title: str) -> matplotlib.figure.Figure:
    """The images that become another class at the lowest levels.

    Args:
        table: columns as in `FLIPS_COLUMNS`, and image.
        title: what was tested, in words.

    Returns:
        The figure, one row per direction and kind. A wrong class is marked by ✗, a right one
        by ✓.
    """
    rows = table.groupby(["flip", "test_perturb"], sort=False)
    most = rows.size().max()
    figure = figures.blank(1.75 * most + 0.4, 2.0 * len(rows) + 0.4)
    grid = figure.subplots(len(rows), most, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, ((flip, _), own) in zip(grid, rows):
        was, now = ("✓" if word == "right" else "✗" for word in flip.split(" to "))
        for axes, row in zip(line, own.itertuples()):
            axes.imshow(figures.decoded(row.image), cmap="gray", vmin=0, vmax=1)
            level = condition_label(row.test_perturb, row.test_level)
            texts = (row.natural, row.perturbed, row.label)
            before, after, true = (figures.short(text, 20) for text in texts)
            axes.set_title(
                f"{level}: {before} {was} → {after} {now}\nimage {row.example}, true: {true}",
                fontsize=7,
            )
    figures.title(figure, f"{title}: the first to become another class (✓ right, ✗ wrong)")
    return figure


def write(
    classifier: Classifier,
    data: Data,
    conditions: Iterable[Condition],
    *,
    trials: int,
    seed: int,
    output_dir: str | os.PathLike,
    progress: bool = True,
) -> tuple[Path, Confusions]:
    """Measures the confusions of a saved classifier and writes them.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; its test split is used.
        conditions: as in `measure`, one at least.
        trials: passes for each random one.
        seed: the experiment's seed.
        output_dir: where a folder for the results is made.
        progress: show a progress bar.

    Returns:
        The folder, with `changes.csv`, `flips.csv`, and in `figures/` `changes.png` and
        `flips.png`; and the tables.

    Raises:
        InvalidArgument: if the classifier or a condition does not fit the images.
        Unavailable: if the folder cannot be written.
    """
    classifier = matched(classifier, data)
    conditions = list(conditions)
    stream_seed(seed, "")  # checks it, before there is a folder
    of_data = (data.name, data.source, *data.test.identity, data.label_names)
    identity = digest(classifier.identity, of_data, conditions, trials, seed)
    folder = Path(output_dir) / file_name(f"{classifier.name} confusions {identity}")
    with locked(prepare_directory("output_dir", folder)):
        found = measure(
            classifier,
            data,
            conditions,
            trials=trials,
            seed=seed,
            label=f"testing {classifier.name}" if progress else None,
        )
        with writing_to("output_dir", output_dir):
            results.write(found.changes, folder / "changes.csv", CHANGES_COLUMNS)
            results.write(found.flips, folder / "flips.csv", FLIPS_COLUMNS)
        title = f"{training_of(classifier)} ({figures.short(classifier.name, 80)})"
        drawn = {"changes": changes_figure(found.changes, data.label_names, title)}
        shown = first_to_flip(found, data, conditions, seed)
        if len(shown):
            drawn["flips"] = flips_figure(shown, title)
        figures.save(drawn, folder / "figures")
    return folder, found


def largest(changes: pd.DataFrame, count: int) -> pd.DataFrame:
    """The largest flows between different classes of each kind, at its highest level."""
    moved = _at_highest(changes)
    moved = moved[(moved["natural"] != moved["perturbed"]) & (moved["images"] > 0)]
    moved = moved.sort_values("images", ascending=False, kind="stable")
    top = moved.groupby("test_perturb", sort=False).head(count)
    return top.sort_values(["test_perturb", "images"], ascending=[True, False], kind="stable")


def _at_highest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each kind's highest level; all of a kind that has no levels."""
    level = table["test_level"].fillna(0)
    return table[level == level.groupby(table["test_perturb"]).transform("max")]
