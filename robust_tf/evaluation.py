"""Repeated trials of a model on perturbed test sets.

Perturbation, forward pass and counting run in one compiled function a kind, whose seed
and level are tensors: it is traced once for all trials and levels of the kind.
"""

from collections.abc import Callable, Collection, Iterable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import tqdm

from robust_tf.data import Split
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.seeds import stream_seed

# A test condition: None for natural images.
Condition = Perturbation | None

_BATCH_SIZE = 500


class Evaluator:
    """A model and a test set, ready for trials.

    Args:
        model: a Keras model, or any function that TensorFlow can trace, from float32
            images [B, H, W, C] in [0, 1] to scores [B, classes].
        split: the test set.
        seed: the experiment's seed.
    """

    def __init__(self, model: keras.Model | Callable, split: Split, seed: int = 0):
        """See the class."""
        self._model = model
        self._split = split
        self._seed = seed
        self._functions: dict[tuple, Callable] = {}

    def accuracy(self, condition: Condition, trial: int = 0) -> float:
        """The fraction of the test images that are classified correctly in one pass.

        Args:
            condition: a perturbation, or None for natural images.
            trial: which random draw, a whole number from 0 on.

        Returns:
            The accuracy, in [0, 1].

        Raises:
            InvalidArgument: if the condition's level does not fit the images.
        """
        correct, _ = self._pass(condition, trial)
        return int(correct) / len(self._split)

    def predictions(self, condition: Condition, trial: int = 0) -> np.ndarray:
        """The predicted classes in one pass; arguments as in `accuracy`.

        Returns:
            int64 array of shape [N].
        """
        _, labels = self._pass(condition, trial)
        return labels.numpy()

    def _pass(self, condition: Condition, trial: int) -> tuple[tf.Tensor, tf.Tensor]:
        seed = tf.constant(stream_seed(self._seed, f"evaluation/{trial}"))
        if condition is None:
            return self._function(None, False)(seed, tf.constant(0.0, tf.float64))
        condition.check(self._split.image_shape)
        level = tf.constant(condition.level, tf.float64)
        return self._function(condition.kind, condition.channel_blur)(seed, level)

    def _function(self, kind: str | None, channel_blur: bool) -> Callable:
        key = (kind, channel_blur)
        if key not in self._functions:
            self._functions[key] = self._traced(kind, channel_blur)
        return self._functions[key]

    def _traced(self, kind: str | None, channel_blur: bool) -> Callable:
        split, size = self._split, len(self._split)

        def scores(images: tf.Tensor) -> tf.Tensor:
            if isinstance(self._model, keras.Model):
                return self._model(images, training=False)
            return self._model(images)

        @tf.function
        def one_pass(seed: tf.Tensor, level: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batches = -(-size // _BATCH_SIZE)
            labels = tf.TensorArray(tf.int64, batches, element_shape=[None], infer_shape=False)
            for batch in tf.range(batches):
                first = batch * _BATCH_SIZE
                index = tf.range(first, tf.minimum(first + _BATCH_SIZE, size))
                images = split.images_at(index)
                if kind is not None:
                    perturbation = Perturbation(kind, level, channel_blur)
                    images = perturbation(images, example_seeds(seed, index))
                labels = labels.write(batch, tf.argmax(scores(images), axis=-1))
            predicted = labels.concat()
            return tf.math.count_nonzero(predicted == split.labels), predicted

        return one_pass


def number_of_trials(condition: Condition, trials: int) -> int:
    """How often a condition is run: once where trials cannot differ."""
    return trials if condition is not None and condition.random else 1


def evaluate(
    model: keras.Model | Callable,
    split: Split,
    conditions: Iterable[Condition],
    *,
    trials: int = 25,
    seed: int = 0,
    done: Collection[tuple[Condition, int]] = (),
    label: str | None = None,
) -> pd.DataFrame:
    """Tests a model under several conditions, each in repeated trials (section V).

    A deterministic condition (natural images, blur) is run once, as trial 0.

    Args:
        model: as in `Evaluator`.
        split: the test set.
        conditions: perturbations, and None for natural images.
        trials: passes over the test set for a random perturbation.
        seed: the experiment's seed; trial t of every model sees the same images.
        done: (condition, trial) pairs to leave out.
        label: the progress bar's label; no bar without one.

    Returns:
        A row a trial: test_perturb ("none" for natural images), test_level (missing
        for natural images), trial, accuracy (a fraction), n_examples.
    """
    evaluator = Evaluator(model, split, seed)
    passes = [
        (condition, trial)
        for condition in conditions
        for trial in range(number_of_trials(condition, trials))
        if (condition, trial) not in done
    ]
    rows = []
    shown = bool(label and passes)
    for condition, trial in tqdm.tqdm(passes, desc=label, unit="trial", disable=not shown):
        rows.append(
            {
                "test_perturb": condition.kind if condition else "none",
                "test_level": condition.level if condition else np.nan,
                "trial": trial,
                "accuracy": evaluator.accuracy(condition, trial),
                "n_examples": len(split),
            }
        )
    columns = ["test_perturb", "test_level", "trial", "accuracy", "n_examples"]
    return pd.DataFrame(rows, columns=columns)
