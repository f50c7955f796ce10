"""Example images as a table: how they look when perturbed, and what models see in them.

A row is an image under a condition, seen by a model; the image itself is in it, so that
figures can be drawn from the table alone.
"""

import base64
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf.data import Data
from robust_tf.evaluation.evaluator import Evaluator
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.seeds import stream_seed

# Natural images, or perturbed ones; those of other datasets are no others of the same.
Condition = Perturbation | None

COLUMNS = ["example", "test_perturb", "test_level", "label", "training", "predicted", "image"]
# Examples are chosen from so many test images.
_FROM = 500


def misled(
    loaded: Mapping[str, keras.Model],
    data: Data,
    conditions: Sequence[Condition],
    *,
    seed: int,
    count: int = 4,
) -> pd.DataFrame:
    """The test images that mislead the first model the most, as in the paper's figure 3.

    Args:
        loaded: models by training in words.
        data: the dataset.
        conditions: what they are tested with, natural images first.
        seed: the experiment's; the images are those of trial 0.
        count: how many images.

    Returns:
        `COLUMNS`: example (index of the test image), test_perturb, test_level, label and
        predicted (names of classes), training, image (a PNG file in base64).
    """
    predicted = _predictions(loaded, data, conditions, seed)
    labels = data.test.labels.numpy()[:_FROM]
    wrong = next(iter(predicted.values())) != labels[:, np.newaxis]
    # Right on the natural image, then wrong as often as possible.
    chosen = np.argsort(np.where(wrong[:, 0], 0, -wrong.sum(axis=1)), kind="stable")
    return _table(data, conditions, seed, chosen[:count], predicted)


def levels(
    loaded: Mapping[str, keras.Model],
    data: Data,
    conditions: Sequence[Condition],
    *,
    seed: int,
) -> pd.DataFrame:
    """One test image at several levels, as in the paper's figures 5 and 7.

    Arguments and result as in `misled`; the image is the first that the first model
    classifies correctly under the first condition.
    """
    predicted = _predictions(loaded, data, conditions, seed)
    right = next(iter(predicted.values()))[:, 0] == data.test.labels.numpy()[:_FROM]
    return _table(data, conditions, seed, np.array([right.argmax()]), predicted)


def _predictions(
    loaded: Mapping[str, keras.Model], data: Data, conditions: Sequence[Condition], seed: int
) -> dict[str, np.ndarray]:
    """By training, the predicted classes, int64 [N, conditions]."""
    predicted = {}
    for training, model in loaded.items():
        evaluator = Evaluator(model, data.test.first(_FROM), seed)
        by_condition = [evaluator.predictions(condition) for condition in conditions]
        predicted[training] = np.stack(by_condition, axis=1)
    return predicted


def _table(
    data: Data,
    conditions: Sequence[Condition],
    seed: int,
    chosen: np.ndarray,
    predicted: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    images = data.test.images_at(chosen)
    seeds = example_seeds(stream_seed(seed, "evaluation/0"), chosen)
    names, labels = np.array(data.label_names), data.test.labels.numpy()
    rows = []
    for column, condition in enumerate(conditions):
        shown = condition(images, seeds) if condition else images
        for example, image in zip(chosen, shown):
            rows += [
                {
                    "example": int(example),
                    "test_perturb": condition.kind if condition else "none",
                    "test_level": condition.level if condition else np.nan,
                    "label": names[labels[example]],
                    "training": training,
                    "predicted": names[classes[example, column]],
                    "image": png(image),
                }
                for training, classes in predicted.items()
            ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    # An example after another, in the order in which they were chosen.
    place = {int(example): i for i, example in enumerate(chosen)}
    return table.sort_values("example", key=lambda column: column.map(place), kind="stable")


def png(image: tf.Tensor) -> str:
    """An image [H, W, C] in [0, 1] as a PNG file in base64; one channel where C is not 3."""
    values = tf.cast(tf.round(image * 255.0), tf.uint8)
    if values.shape[-1] not in (1, 3):
        values = values[..., :1]
    return base64.b64encode(tf.io.encode_png(values).numpy()).decode()


# Figures 3, 5 and 7 of the paper.
FIGURES: dict[str, tuple[Condition, ...]] = {
    "3": (
        None,
        Perturbation("stuck", 1),
        Perturbation("noise", 0.05),
        Perturbation("blur", 0.75),
    ),
    "5": (None, *(Perturbation("noise", level) for level in (0.001, 0.025, 0.05, 0.075, 0.1))),
    "7": (None, *(Perturbation("blur", level) for level in (0.04, 0.28, 0.52, 0.76, 1.0))),
}


def of_paper(training: str, model: keras.Model, data: Data, *, seed: int) -> pd.DataFrame:
    """What figures 3, 5 and 7 of the paper show, of a natural model.

    Args:
        training: the model's training in words.
        model: the model.
        data: the dataset.
        seed: the experiment's.

    Returns:
        Columns figure and dataset, then `COLUMNS`.
    """
    tables = []
    for figure, conditions in FIGURES.items():
        choose = misled if figure == "3" else levels
        table = choose({training: model}, data, conditions, seed=seed)
        table.insert(0, "figure", figure)
        table.insert(1, "dataset", data.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
