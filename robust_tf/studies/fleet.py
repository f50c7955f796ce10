"""How many devices are bad: a model on each device of a fleet, with the device's own defects.

Goes beyond the paper, whose pixels are drawn anew for each image, as those of no camera are.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
import seaborn as sns
import tensorflow as tf

from robust_tf import evaluation, results
from robust_tf.data import Data, Split
from robust_tf.evaluation import Condition
from robust_tf.evaluation.conditions import trial_seed
from robust_tf.files import digest, file_name, locked, prepare_directory, writing_to
from robust_tf.perturbations import example_seeds
from robust_tf.progress import Bar
from robust_tf.results import figures
from robust_tf.results.labelling import training_of
from robust_tf.saved_models import Classifier, answering, matched
from robust_tf.sensors import Fleet
from robust_tf.sensors import fleet as fleets

_KEY = ["model", "fleet"]
DEVICE_COLUMNS = [
    *_KEY, "device", "defects", "description", "accuracy", "drop", "answered_otherwise",
]  # fmt: skip
CLASS_COLUMNS = [*_KEY, "device", "class", "n_examples", "accuracy"]
DEFECT_COLUMNS = ["fleet", "device", "row", "column", "channel", "value", "offset", "since"]
POSITION_COLUMNS = [*_KEY, "row", "column", "devices", "drop", "drop_of_others", "cost"]
SUMMARY_COLUMNS = [
    *_KEY, "training", "dataset", "data_source", "test_digest", "n_examples", "seed", "devices",
    "natural_accuracy", "mean_accuracy", "mean_low", "mean_high", "median_accuracy",
    "accept_share", "quantile_accuracy", "quantile_low", "quantile_rank", "lowest_accuracy",
    "accept", "below", "share_below", "share_low", "share_high", "share_bound", "accepted",
]  # fmt: skip
# Devices that are taken through a batch of images together.
_AT_ONCE, _AT_ONCE_VALUES = 100, 2**24


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """What a model answers on each device.

    Attributes:
        natural: predicted classes without defects, int64 [N]; see `evaluation.predicted`.
        labels: true classes, int64 [N].
        right: correct answers by device and true class, int64 [D, K].
        otherwise: answers that differ from those without defects, int64 [D].
        unanswered: answers that are none, over all devices.
    """

    natural: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    otherwise: np.ndarray
    unanswered: int

    @property
    def natural_accuracy(self) -> float:
        """Without defects."""
        return float(np.mean(self.natural == self.labels))

    def devices(self, fleet: Fleet) -> pd.DataFrame:
        """A row a device, in the order of the fleet: `DEVICE_COLUMNS` without the model."""
        accuracy = self.right.sum(axis=1) / len(self.labels)
        table = {
            "fleet": fleet.name,
            "device": list(fleet.maps),
            "defects": [own.pixels for own in fleet.maps.values()],
            "description": [fleets.described(own) for own in fleet.maps.values()],
            "accuracy": accuracy,
            "drop": self.natural_accuracy - accuracy,
            "answered_otherwise": self.otherwise / len(self.labels),
        }
        return pd.DataFrame(table)

    def by_class(self, fleet: Fleet, label_names: tuple[str, ...]) -> pd.DataFrame:
        """A row a device and class: `CLASS_COLUMNS` without the model."""
        counts = np.bincount(self.labels, minlength=len(label_names))
        with np.errstate(invalid="ignore"):  # of classes without images
            accuracy = self.right / counts
        table = {
            "fleet": fleet.name,
            "device": np.repeat(list(fleet.maps), len(label_names)),
            "class": np.tile(label_names, len(fleet)),
            "n_examples": np.tile(counts, len(fleet)),
            "accuracy": accuracy.ravel(),
        }
        return pd.DataFrame(table)


class Tester:
    """A model and images, ready for the devices of any fleet.

    Args:
        model: a function that TensorFlow can trace without AutoGraph, from float32 images
            [B, H, W, C] in [0, 1] to scores [B, classes].
        split: the images.
        classes: their number.
    """

    def __init__(self, model: Callable[[tf.Tensor], tf.Tensor], split: Split, classes: int):
        """See the class."""
        self._model, self._split, self._classes = model, split, classes
        size, batch = len(split), evaluation.batch_size(split.image_shape)
        starts = range(0, size, batch)
        self._batches = [tf.range(first, min(first + batch, size)) for first in starts]
        self._labels = split.labels.numpy()
        self._traced: dict[tuple, Callable] = {}  # by what a trace is for
        self._natural: dict[Condition, np.ndarray] = {}  # classes without defects

    def answers(self, fleet: Fleet, label: str | None = None) -> Answers:
        """Classifies all images on each device.

        Args:
            fleet: the devices.
            label: the progress bar's label; no bar without one.

        Raises:
            InvalidArgument: if a device does not fit the images.
        """
        shape = self._split.image_shape
        conditions, without = fleet.conditions(shape), fleet.without(shape)
        seed = tf.constant(trial_seed(fleet.seed, 0))
        if without not in self._natural:
            classes, tensors = self._prepared([without])
            parts = [classes(index, tensors, seed)[0] for index in self._batches]
            self._natural[without] = np.concatenate(parts)
        all_natural = self._natural[without]
        right = np.zeros((len(fleet), self._classes), np.int64)
        otherwise, unanswered = np.zeros(len(fleet), np.int64), 0
        values = sum(int(tf.size(one)) for one in without.__tf_flatten__()[1])
        at_once = max(1, min(_AT_ONCE, _AT_ONCE_VALUES // values))
        total = len(self._batches) * len(fleet)
        with Bar(total=total, desc=label, unit="pass", disable=label is None) as bar:
            for first in range(0, len(fleet), at_once):
                here = slice(first, first + at_once)
                classes, tensors = self._prepared(conditions[here])
                conditions[here] = [without] * len(conditions[here])  # keeps no tensors of theirs
                for index in self._batches:
                    found = classes(index, tensors, seed).numpy()
                    natural, labels = all_natural[index], self._labels[index]
                    of_class = labels[:, np.newaxis] == np.arange(self._classes)
                    right[here] += (found == labels).astype(np.int64) @ of_class
                    otherwise[here] += np.count_nonzero(found != natural, axis=1)
                    unanswered += int(np.count_nonzero(found == evaluation.NO_ANSWER))
                    bar.update(len(found))
        return Answers(all_natural, self._labels, right, otherwise, unanswered)

    def _prepared(self, conditions: Sequence[Condition]) -> tuple[Callable, list[tf.Tensor]]:
        """The traced function for some devices, and their tensors."""
        metadata, tensors = zip(*(one.__tf_flatten__() for one in conditions))
        trace = type(conditions[0]), metadata[0]
        if trace not in self._traced:
            self._traced[trace] = _all_devices(self._model, self._split, *trace)
        return self._traced[trace], [*map(tf.stack, zip(*tensors))]


def _all_devices(model: Callable, split: Split, kind: type[Condition], metadata: tuple) -> Callable:
    """From indices [B] and tensors of devices [D, …] to classes [D, B]."""

    @tf.function(reduce_retracing=True, autograph=False)
    def classes(index: tf.Tensor, tensors: list[tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
        images, seeds = split.images_at(index), example_seeds(seed, index)

        def on_device(own: list[tf.Tensor]) -> tf.Tensor:
            device = kind.__tf_unflatten__(metadata, tuple(own))
            return evaluation.predicted(model(device(images, seeds)))

        return tf.map_fn(on_device, tensors, fn_output_signature=tf.int64)

    return classes


def measure(
    model: Callable[[tf.Tensor], tf.Tensor],
    split: Split,
    fleet: Fleet,
    classes: int,
    label: str | None = None,
) -> Answers:
    """Classifies all images on each device; arguments as of `Tester` and `Tester.answers`."""
    return Tester(model, split, classes).answers(fleet, label)


def positions(devices: pd.DataFrame, fleet: Fleet) -> pd.DataFrame:
    """Which positions cost, of those where some device has a defect.

    Args:
        devices: as of `Answers.devices`.
        fleet: the devices, in the same order.

    Returns:
        A row a position, `POSITION_COLUMNS` without the model: devices, the number of those
        with a defect there; drop, their mean drop; drop_of_others, that of the other devices,
        missing where there are none; and cost, the difference.
    """
    parts = [
        pd.DataFrame({"row": own.rows, "column": own.columns}).drop_duplicates().assign(drop=drop)
        for own, drop in zip(fleet.maps.values(), devices["drop"])
    ]
    by_place = pd.concat(parts).groupby(["row", "column"])["drop"]
    table = pd.DataFrame({"devices": by_place.size(), "total": by_place.sum()}).reset_index()
    others = len(fleet) - table["devices"]
    of_others = (devices["drop"].sum() - table["total"]) / others.where(others > 0)
    drop = table["total"] / table["devices"]
    own = {"fleet": fleet.name, "drop": drop, "drop_of_others": of_others}
    return table.drop(columns="total").assign(**own, cost=drop - of_others)


def defects(fleet: Fleet) -> pd.DataFrame:
    """A row a defect, `DEFECT_COLUMNS`.

    Those of one device, without the first two columns, are a CSV of `DefectMap.read`.
    """
    parts = [
        pd.DataFrame(
            {
                "device": device,
                "row": own.rows,
                "column": own.columns,
                "channel": pd.array(own.channels, "Int64"),
                "value": own.values,  # noqa: PD011 (no table)
                "offset": np.where(np.isnan(own.values), own.offsets, np.nan),
                "since": own.since,
            }
        )
        for device, own in fleet.maps.items()
    ]
    table = pd.concat(parts, ignore_index=True).assign(fleet=fleet.name)
    table["channel"] = table["channel"].mask(table["channel"] < 0)
    return table[DEFECT_COLUMNS]


def figure(devices: pd.DataFrame, summary: pd.DataFrame) -> matplotlib.figure.Figure:
    """The share of devices by the accuracy that they do not exceed.

    Args:
        devices: `DEVICE_COLUMNS`, of one or more models and fleets.
        summary: one row per model and fleet, `SUMMARY_COLUMNS`.

    Returns:
        The figure: a panel per fleet, a step line per model with its natural accuracy (dotted)
        and the quantile of its devices (dot); and the accuracy that is asked for.
    """
    names = list(summary["fleet"].unique())
    drawn = figures.blank(4.6 * len(names) + 0.6, 4.2)
    panels = drawn.subplots(1, len(names), squeeze=False, sharey=True)[0]
    colors = dict(zip(summary["model"].unique(), sns.color_palette(figures.PALETTE)))
    for axes, name in zip(panels, names):
        for place, row in enumerate(summary[summary["fleet"] == name].itertuples()):
            own = devices[(devices["model"] == row.model) & (devices["fleet"] == name)]
            accuracies = 100 * np.sort(own["accuracy"])
            shares = 100 * np.arange(1, len(own) + 1) / len(own)
            color, style = colors[row.model], ("-", "--", "-.")[place % 3]
            label = f"{figures.short(row.training)} ({100 * row.mean_accuracy:.2f} % on average)"
            axes.step(accuracies, shares, style, where="post", color=color, label=label)
            axes.axvline(100 * row.natural_accuracy, color=color, linestyle=":", linewidth=1)
            axes.plot(100 * row.quantile_accuracy, 100 * row.accept_share, "o", color=color)
        if summary["accept"].notna().any():
            accept = 100 * summary["accept"].max()
            axes.axvline(accept, color="black", linewidth=1, label=f"asked for: {accept:g} %")
        axes.set(xlabel="accuracy of a device [%]", title=f"{row.devices:,} devices, {name}")
        axes.set_xlim(right=min(axes.get_xlim()[1], 100.5))
        axes.legend(fontsize=7, loc="upper left")
    panels[0].set(ylabel="devices that have at most this accuracy [%]", ylim=(0, 100))
    sns.despine(drawn)
    return drawn


def write(
    classifier: Classifier,
    data: Data,
    fleet: Fleet,
    output_dir: str | os.PathLike,
    *,
    asked: fleets.Asked,
    seed: int | None = None,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Measures a saved classifier on each device of a fleet and writes what is found.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; its test split is used.
        fleet: the devices.
        output_dir: where a folder for the results is made.
        asked: what is asked of the fleet.
        seed: what the devices were drawn with; None for none.
        progress: show a progress bar.

    Returns:
        The folder, with `devices.csv`, `by_class.csv`, `defects.csv`, `positions.csv`,
        `summary.csv` and `figures/fleet.png`; then the tables of the devices and of the positions,
        and the summary, which has one row.

    Raises:
        InvalidArgument: if the classifier or a map does not fit the images.
        Unavailable: if the folder cannot be written.
    """
    classifier = matched(classifier, data)
    identity = (*identity_of(classifier, data), fleet.digest, asked)
    folder = folder_for(output_dir, f"{classifier.name} fleet {fleet.name}", identity)
    with locked(folder):
        found = ClassifierTester(classifier, data, progress).answers(fleet)
        devices = found.devices(fleet).assign(model=classifier.name)
        places = positions(devices, fleet).assign(model=classifier.name)
        own = {
            **columns_of(classifier, data),
            "fleet": fleet.name,
            "seed": seed,
            **summary_of(found, fleet, asked),
        }
        summary = pd.DataFrame([own]).reindex(columns=SUMMARY_COLUMNS)
        by_class = found.by_class(fleet, data.label_names).assign(model=classifier.name)
        with writing_to("output_dir", output_dir):
            results.write(devices, folder / "devices.csv", DEVICE_COLUMNS)
            results.write(by_class, folder / "by_class.csv", CLASS_COLUMNS)
            results.write(places, folder / "positions.csv", POSITION_COLUMNS)
            results.write(defects(fleet), folder / "defects.csv", DEFECT_COLUMNS)
            results.write(summary, folder / "summary.csv", SUMMARY_COLUMNS)
        figures.save({"fleet": figure(devices, summary)}, folder / "figures")
    return folder, devices, places, summary


class ClassifierTester:
    """A saved classifier on the test images of a dataset; arguments as of `write`."""

    def __init__(self, classifier: Classifier, data: Data, progress: bool):
        """See the class."""
        self._classifier, self._size, self._progress = classifier, len(data.test), progress
        self._tester = Tester(classifier, data.test, len(data.label_names))

    def answers(self, fleet: Fleet) -> Answers:
        """What it answers on each device, with a warning where it does not."""
        name = self._classifier.name
        label = f"testing {name}, {fleet.name}" if self._progress else None
        with answering(self._classifier):
            found = self._tester.answers(fleet, label)
        if found.unanswered:
            warnings.warn(
                f"{name}: scores of {found.unanswered:,} of {len(fleet) * self._size:,} images "
                "with defects are not finite; these images count as wrong",
                stacklevel=2,
            )
        return found


def summary_of(found: Answers, fleet: Fleet, asked: fleets.Asked) -> dict[str, Any]:
    """The columns of `summarize` for a fleet."""
    accuracies = found.right.sum(axis=1) / len(found.labels)
    natural, examples = found.natural_accuracy, len(found.labels)
    return fleets.summarize(accuracies, natural, examples, asked, fleet.sample)


def columns_of(classifier: Classifier, data: Data) -> dict[str, Any]:
    """The columns that say which model and images."""
    return {
        "model": classifier.name,
        "training": training_of(classifier),
        "dataset": data.name,
        "data_source": data.source,
        "test_digest": data.test.digest,
        "n_examples": len(data.test),
    }


def identity_of(classifier: Classifier, data: Data) -> tuple:
    """What tells a model on its test images from others."""
    return classifier.identity, data.name, data.source, data.test.identity, data.label_names


def folder_for(output_dir: str | os.PathLike, name: str, identity: tuple) -> Path:
    """The folder of results with that identity; raises `Unavailable` if it cannot be made."""
    return prepare_directory(
        "output_dir", Path(output_dir) / file_name(f"{name} {digest(identity)}")
    )
