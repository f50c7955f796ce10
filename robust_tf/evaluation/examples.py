"""Example images as a table: how they look when perturbed, and what models see in them.

One row per image, condition and model; the image itself is in it, so that figures can be drawn
from the table alone.
"""

import base64
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf.data import Data
from robust_tf.evaluation.conditions import Condition
from robust_tf.evaluation.evaluator import Evaluator

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
    """The test images that mislead the first model the most.

    Args:
        loaded: models by what they are called.
        data: the dataset.
        conditions: of the same test images, natural ones first.
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
    """One test image at several levels.

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
    # `NO_ANSWER` is -1: the last one.
    names, labels = np.array([*data.label_names, "no answer"]), data.test.labels.numpy()
    rows = []
    for column, condition in enumerate(conditions):
        for example, image in zip(chosen, condition.images(data.test, chosen, seed)):
            rows += [
                {
                    "example": int(example),
                    "test_perturb": condition.key[0],
                    "test_level": condition.level,
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
