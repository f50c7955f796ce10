"""Repeated trials of a model on perturbed test sets.

Perturbation, forward pass and counting run in one traced function a kind, whose seed,
level and weights are tensors: it is traced once for all trials and levels of the kind,
and for all models of one architecture.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import tqdm

from robust_tf import models
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.seeds import stream_seed


@dataclass(frozen=True)
class OtherImages:
    """A test condition that was recorded, not computed: the images of another dataset.

    Attributes:
        kind: the name of the dataset, "mnist_corrupted/fog".
        level: the severity that the dataset gives; NaN for none.
        split: the images.
    """

    kind: str
    level: float
    split: Split = field(compare=False, repr=False)
    # As of a perturbation that does nothing.
    random: ClassVar[bool] = False
    channel_blur: ClassVar[bool] = False

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises `InvalidArgument` if its images are not of shape (H, W, C)."""
        if self.split.image_shape != image_shape:
            given = f"{self.kind} {self.split.image_shape}"
            raise InvalidArgument("eval", given, f"a dataset of images of shape {image_shape}")

    def __str__(self) -> str:
        """In words."""
        return self.kind if math.isnan(self.level) else f"{self.kind} {self.level:g}"


# A test condition: None for natural images.
Condition = Perturbation | OtherImages | None


def images_of(condition: Condition, split: Split) -> Split:
    """The examples that a condition is about: its own, or those of the test set."""
    return condition.split if isinstance(condition, OtherImages) else split


def batch_size(image_shape: tuple[int, int, int]) -> int:
    """Images at once. CPUs are slower where a batch's activations leave their caches."""
    small = math.prod(image_shape) <= 1024
    return 1000 if small or tf.config.list_physical_devices("GPU") else 250


class Evaluator:
    """A model and a test set, ready for trials.

    Args:
        model: a Keras model, or any function that TensorFlow can trace without
            AutoGraph, from float32 images [B, H, W, C] in [0, 1] to scores [B, classes].
        split: the test set.
        seed: the experiment's seed.
    """

    def __init__(self, model: keras.Model | Callable, split: Split, seed: int = 0):
        """See the class."""
        self._model = model
        self._split = split
        self._seed = seed
        self._functions = _functions_of(model)

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
        correct, _, _ = self._pass(condition, trial)
        return int(correct) / len(images_of(condition, self._split))

    def predictions(self, condition: Condition, trial: int = 0) -> np.ndarray:
        """The predicted classes in one pass; arguments as in `accuracy`.

        Returns:
            int64 array of shape [N].
        """
        _, labels, _ = self._pass(condition, trial)
        return labels.numpy()

    def scores(self, condition: Condition, trial: int = 0) -> np.ndarray:
        """What the model returns in one pass; arguments as in `accuracy`.

        Returns:
            float32 array of shape [N, classes].
        """
        _, _, scores = self._pass(condition, trial)
        return scores.numpy()

    def _pass(self, condition: Condition, trial: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        seed = tf.constant(stream_seed(self._seed, f"evaluation/{trial}"))
        if condition is not None:
            condition.check(self._split.image_shape)
        computed = condition if isinstance(condition, Perturbation) else None
        kind = computed.kind if computed else None
        level = tf.constant(computed.level if computed else 0.0, tf.float64)
        channel_blur = computed is not None and computed.channel_blur
        key = (kind, channel_blur)
        if key not in self._functions:
            self._functions[key] = _one_pass(self._model, kind, channel_blur)
        variables = self._model.weights if isinstance(self._model, keras.Model) else []
        weights = [tf.convert_to_tensor(variable) for variable in variables]
        split = images_of(condition, self._split)
        return self._functions[key](weights, split.images, split.labels, split.divisor, seed, level)


# Of models of one architecture, which a sweep has many of, only the first is traced. It is
# kept for that, so not too many architectures are.
_TRACED: dict[str, dict[tuple, Callable]] = {}
_MOST_ARCHITECTURES = 32
# Layers that compute by their configuration and weights, and by nothing else.
_PLAIN_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Conv2D,
    keras.layers.BatchNormalization,
    keras.layers.Activation,
    keras.layers.MaxPooling2D,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Dense,
    keras.layers.Add,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Rescaling,
    models.BatchNormalization,
    models.MeanOfMirrored,
    models.Standardization,
    models.WithMirrored,
)
_FUNCTIONAL = type(keras.Model(inputs := keras.Input([1]), inputs))


def _functions_of(model: keras.Model | Callable) -> dict[tuple, Callable]:
    """The traced functions that a model may use and add to."""
    if not isinstance(model, keras.Model) or type(model) is not _FUNCTIONAL:
        return {}
    if not all(type(layer) in _PLAIN_LAYERS for layer in model.layers):
        return {}
    architecture = json.dumps(_without_seeds(model.get_config()))
    if architecture not in _TRACED and len(_TRACED) >= _MOST_ARCHITECTURES:
        _TRACED.clear()
    return _TRACED.setdefault(architecture, {})


def _without_seeds(config: Any) -> Any:
    """A Keras configuration without what decides initial weights and dropout."""
    if isinstance(config, dict):
        return {
            key: _without_seeds(value)
            for key, value in config.items()
            if key != "seed" and not key.endswith("_initializer")
        }
    return [_without_seeds(item) for item in config] if isinstance(config, list) else config


def _one_pass(model: keras.Model | Callable, kind: str | None, channel_blur: bool) -> Callable:
    def scores(weights: list[tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        if not isinstance(model, keras.Model):
            return model(images)
        with keras.StatelessScope(state_mapping=list(zip(model.weights, weights, strict=True))):
            return model(images, training=False)

    @tf.function(autograph=False)
    def one_pass(
        weights: list[tf.Tensor],
        all_images: tf.Tensor,
        labels: tf.Tensor,
        divisor: int,
        seed: tf.Tensor,
        level: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        split = Split(all_images, labels, divisor)
        size, at_once = len(split), batch_size(split.image_shape)
        batches = -(-size // at_once)

        def step(batch: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            first = batch * at_once
            index = tf.range(first, tf.minimum(first + at_once, size))
            if size % at_once == 0:
                index = tf.ensure_shape(index, [at_once])
            images = split.images_at(index)
            if kind is not None:
                perturbation = Perturbation(kind, level, channel_blur)
                images = perturbation(images, example_seeds(seed, index))
            return batch + 1, found.write(batch, tf.cast(scores(weights, images), tf.float32))

        found = tf.TensorArray(tf.float32, batches, element_shape=[None, None], infer_shape=False)
        _, found = tf.while_loop(lambda batch, _: batch < batches, step, (0, found))
        all_scores = found.concat()
        predicted = tf.argmax(all_scores, axis=-1)
        return tf.math.count_nonzero(predicted == labels), predicted, all_scores

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
    columns = ["test_perturb", "test_level", "trial", "accuracy", "n_examples"]
    parts = by_condition(model, split, conditions, trials=trials, seed=seed, done=done, label=label)
    return pd.DataFrame([row for rows in parts for row in rows], columns=columns)


def by_condition(
    model: keras.Model | Callable,
    split: Split,
    conditions: Iterable[Condition],
    *,
    trials: int,
    seed: int,
    done: Collection[tuple[Condition, int]] = (),
    label: str | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """The rows of `evaluate`, those of a condition when it is done; arguments as there."""
    evaluator = Evaluator(model, split, seed)
    passes = {
        condition: [
            trial
            for trial in range(number_of_trials(condition, trials))
            if (condition, trial) not in done
        ]
        for condition in conditions
    }
    total = sum(map(len, passes.values()))
    with tqdm.tqdm(total=total, desc=label, unit="trial", disable=not (label and total)) as bar:
        for condition, left in passes.items():
            rows = []
            for trial in left:
                rows.append(
                    {
                        "test_perturb": condition.kind if condition else "none",
                        "test_level": condition.level if condition else np.nan,
                        "trial": trial,
                        "accuracy": evaluator.accuracy(condition, trial),
                        "n_examples": len(images_of(condition, split)),
                    }
                )
                bar.update()
            if rows:
                yield rows
