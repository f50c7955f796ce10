"""Which defective pixel hurts: one defect at every position of the sensor, none left out.

Goes beyond the paper, whose pixels are drawn at random positions.
"""

import dataclasses
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf import evaluation, results
from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument
from robust_tf.files import digest, file_name, locked, prepare_directory, writing_to
from robust_tf.progress import Bar
from robust_tf.results import figures
from robust_tf.results.labelling import model_names, training_of
from robust_tf.saved_models import Classifier, answering, matched
from robust_tf.sensors import defect_value

POSITION_COLUMNS = [
    "row",
    "column",
    "accuracy",
    "flipped",
    "towards",
    "towards_share",
]
SUMMARY_COLUMNS = [
    "model",
    "training",
    "dataset",
    "data_source",
    "defect",
    "n_examples",
    "natural_accuracy",
    "mean_accuracy",
    "lowest_accuracy",
    "worst_case_accuracy",
    "flipped_by_some",
]
# Images that are taken through all positions together.
_BATCH = 250


@dataclasses.dataclass(frozen=True, eq=False)
class SensorMap:
    """What one defect does at each position.

    Attributes:
        natural: predicted classes of the images as they are, int64 [N]; see
            `evaluation.predicted`.
        predictions: likewise with the defect at each position, int64 [H, W, N].
        labels: true classes, int64 [N].
    """

    natural: np.ndarray
    predictions: np.ndarray
    labels: np.ndarray

    def positions(self, label_names: tuple[str, ...]) -> pd.DataFrame:
        """A row a position, in order of rows and columns of the sensor.

        Returns:
            row and column, from 0 at the upper left; accuracy, a fraction; flipped, the
            fraction of images that are classified otherwise than without the defect;
            towards, the class that most of these go to, missing where there is none; and
            towards_share, the fraction of them that does.
        """
        height, width, _ = self.predictions.shape
        names = [*label_names, "no answer"]  # `evaluation.NO_ANSWER` is -1: the last one
        rows = []
        for row, column in np.ndindex(height, width):
            found = self.predictions[row, column]
            flipped = found[found != self.natural]
            counts = np.bincount(flipped % len(names), minlength=len(names))
            towards = int(counts.argmax())
            some = len(flipped) > 0
            rows.append(
                {
                    "row": row,
                    "column": column,
                    "accuracy": np.mean(found == self.labels),
                    "flipped": len(flipped) / len(found),
                    "towards": names[towards] if some else None,
                    "towards_share": counts[towards] / len(flipped) if some else np.nan,
                }
            )
        return pd.DataFrame(rows, columns=POSITION_COLUMNS)

    def summary(self) -> dict[str, float]:
        """The columns of `SUMMARY_COLUMNS` that it decides.

        `worst_case_accuracy` is the fraction of images that are classified correctly
        wherever the defect is; `flipped_by_some` that of those which a defect somewhere
        makes another class. Both are exact, since no position is left out.
        """
        right = self.predictions == self.labels
        by_position = right.mean(axis=-1)
        return {
            "n_examples": len(self.labels),
            "natural_accuracy": float(np.mean(self.natural == self.labels)),
            "mean_accuracy": float(by_position.mean()),
            "lowest_accuracy": float(by_position.min()),
            "worst_case_accuracy": float(right.all(axis=(0, 1)).mean()),
            "flipped_by_some": float((self.predictions != self.natural).any(axis=(0, 1)).mean()),
        }


def measure(
    model: Callable[[tf.Tensor], tf.Tensor],
    split: Split,
    defect: str = "hot",
    label: str | None = None,
) -> SensorMap:
    """Puts a defect at every position in turn and classifies all images.

    Args:
        model: a function that TensorFlow can trace without AutoGraph, from float32 images
            [B, H, W, C] in [0, 1] to scores [B, classes].
        split: the images.
        defect: see `sensors.defect_value`; all channels of the pixel get the value.
        label: the progress bar's label; no bar without one.

    Returns:
        The map.

    Raises:
        InvalidArgument: if the defect is none.
    """
    value = tf.constant(defect_value(defect), tf.float32)
    height, width, _ = split.image_shape
    predict = tf.function(
        lambda index: evaluation.predicted(model(split.images_at(index))), autograph=False
    )
    predict_all = _all_positions(model, split)
    natural = np.empty(len(split), np.int64)
    found = np.empty((height * width, len(split)), np.int64)
    starts = range(0, len(split), _BATCH)
    for start in Bar(starts, desc=label, unit="batch", disable=label is None):
        index = tf.range(start, min(start + _BATCH, len(split)))
        natural[start : start + _BATCH] = predict(index)
        found[:, start : start + _BATCH] = predict_all(index, value)
    return SensorMap(natural, found.reshape(height, width, -1), split.labels.numpy())


def _all_positions(model: Callable, split: Split) -> Callable:
    """From indices [B] and a value to the classes with a defect at each position [H·W, B]."""
    height, width, channels = split.image_shape
    places = height * width
    at_once = max(1, evaluation.batch_size(split.image_shape) // _BATCH)  # positions
    steps = -(-places // at_once)

    @tf.function(reduce_retracing=True, autograph=False)
    def classes(index: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        images = tf.reshape(split.images_at(index), [1, -1, places, channels])

        def classes_at(step: tf.Tensor) -> tf.Tensor:
            here = tf.range(at_once) + step * at_once
            defective = tf.one_hot(here, places, on_value=True, off_value=False, dtype=tf.bool)
            changed = tf.where(defective[:, tf.newaxis, :, tf.newaxis], value, images)
            scores = model(tf.reshape(changed, [-1, height, width, channels]))
            return tf.reshape(evaluation.predicted(scores), [at_once, -1])

        found = tf.map_fn(classes_at, tf.range(steps), fn_output_signature=tf.int64)
        # The last positions, where they do not fill a step, are beyond the sensor.
        return tf.reshape(found, [steps * at_once, -1])[:places]

    return classes


def figure(positions: pd.DataFrame, summary: pd.DataFrame) -> matplotlib.figure.Figure:
    """Accuracy by the position of a defective pixel, in the shape of the sensor.

    Args:
        positions: as of `SensorMap.positions`, with the column `model`.
        summary: one row per model, `SUMMARY_COLUMNS`.

    Returns:
        The figure, one panel per model, all in the same colours.
    """
    drawn = figures.blank(4.2 * len(summary) + 0.9, 4.4)
    panels = drawn.subplots(1, len(summary), squeeze=False)[0]
    lowest = 100 * positions["accuracy"].min()
    highest = 100 * max(positions["accuracy"].max(), summary["natural_accuracy"].max())
    for axes, row in zip(panels, summary.itertuples()):
        own = positions[positions["model"] == row.model]
        sensor = 100 * own.pivot_table(index="row", columns="column", values="accuracy").to_numpy()
        image = axes.imshow(sensor, cmap="cividis", vmin=lowest, vmax=highest)
        axes.set(xlabel="column", ylabel="row")
        axes.set_title(
            f"{row.training} ({figures.short(row.model, 80)})\n"
            f"without a defect {100 * row.natural_accuracy:.2f} %, "
            f"worst position {100 * row.lowest_accuracy:.2f} %",
            fontsize=9,
        )
    drawn.colorbar(image, ax=list(panels), label="accuracy [%]", shrink=0.85)
    return drawn


def write(
    classifier: Classifier,
    data: Data,
    defect: str,
    output_dir: str | os.PathLike,
    baseline: Classifier | None = None,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Measures the map of a saved classifier and writes it.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; its test split is used.
        defect: see `sensors.defect_value`.
        output_dir: where a folder for the results is made.
        baseline: another classifier, whose map is drawn beside it in the same colours.
        progress: show a progress bar.

    Returns:
        The folder, with `positions.csv`, `summary.csv` and `figures/sensor-map.png`; then
        the two tables, which have the columns `model`, then those of `POSITION_COLUMNS`,
        and `SUMMARY_COLUMNS`.

    Raises:
        InvalidArgument: if a classifier does not fit the images, both are the same, or the
            defect is none.
        Unavailable: if the folder cannot be written.
    """
    value = defect_value(defect)
    both = [model for model in (baseline, classifier) if model is not None]
    both = [matched(model, data) for model in both]
    if baseline is not None and baseline.path == classifier.path:
        raise InvalidArgument("baseline", baseline.path, "another model")
    of_data = (data.name, data.source, *data.test.identity, data.label_names)
    identity = digest([model.identity for model in both], of_data, value)
    folder = Path(output_dir) / file_name(f"{classifier.name} sensor map {defect} {identity}")
    tables, summaries = [], []
    with locked(prepare_directory("output_dir", folder)):
        for name, model in zip(model_names(both), both):
            label = f"mapping {name}" if progress else None
            with answering(model):
                found = measure(model, data.test, defect, label)
            unanswered = int((found.predictions == evaluation.NO_ANSWER).sum())
            if unanswered:
                warnings.warn(
                    f"{name}: scores of {unanswered:,} of {found.predictions.size:,} images with "
                    "a defect are not finite; these images count as wrong",
                    stacklevel=2,
                )
            table = found.positions(data.label_names)
            table.insert(0, "model", name)
            tables.append(table)
            summaries.append(
                {
                    "model": name,
                    "training": training_of(model),
                    "dataset": data.name,
                    "data_source": data.source,
                    "defect": value,
                    **found.summary(),
                }
            )
        positions = pd.concat(tables, ignore_index=True)
        summary = pd.DataFrame(summaries, columns=SUMMARY_COLUMNS)
        with writing_to("output_dir", output_dir):
            results.write(positions, folder / "positions.csv", ["model", *POSITION_COLUMNS])
            results.write(summary, folder / "summary.csv", SUMMARY_COLUMNS)
        figures.save({"sensor-map": figure(positions, summary)}, folder / "figures")
    return folder, positions, summary
