"""Repeated trials of a model under test conditions.

Perturbation, forward pass and counting run in one traced function per kind, whose seed,
level and weights are tensors: it is traced once for all trials and levels of the kind,
and for all models of one architecture.
"""

import functools
import json
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf import models
from robust_tf.data import Split, chunk_size
from robust_tf.evaluation.conditions import Condition, trial_seed
from robust_tf.perturbations import example_seeds
from robust_tf.progress import Bar
from robust_tf.saved_models import answering

# The predicted class of an image whose scores are not all finite: it has no answer, which is wrong.
NO_ANSWER = -1
# Of a batch on a CPU.
_BATCH_VALUES = 2**22


def predicted(scores: tf.Tensor) -> tf.Tensor:
    """The classes that scores are for; callable in a graph.

    Args:
        scores: floats, shape [B, classes].

    Returns:
        int64 tensor of shape [B]: the class of the highest score, `NO_ANSWER` where a score of
        the image is NaN or infinite.
    """
    answered = tf.reduce_all(tf.math.is_finite(scores), axis=-1)
    return tf.where(answered, tf.argmax(scores, axis=-1), tf.constant(NO_ANSWER, tf.int64))


def batch_size(image_shape: tuple[int, int, int]) -> int:
    """Images at once. CPUs are slower where a batch's activations leave their caches.

    Of large images fewer, so that memory does not grow with their size: from 64 x 64 x 3 on.
    """
    values = math.prod(image_shape)
    if tf.config.list_physical_devices("GPU"):
        return chunk_size(image_shape)
    return 1000 if values <= 1024 else max(1, min(250, _BATCH_VALUES // values))


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
        self._unanswered: dict[Condition, tuple[int, int]] = {}
        # By what a trace is for; those of other models of the architecture, too.
        architecture = _architecture(model)
        self._traced = {} if architecture is None else _shared_traces(architecture)

    def accuracy(self, condition: Condition, trial: int = 0) -> float:
        """The fraction of the test images that are classified correctly in one pass.

        Args:
            condition: what the model is tested with.
            trial: which random draw, a whole number from 0 on.

        Returns:
            The accuracy, in [0, 1].

        Raises:
            InvalidArgument: if the condition does not fit the images.
        """
        right = self.right(condition, trial)
        return np.count_nonzero(right) / len(right)

    def right(self, condition: Condition, trial: int = 0) -> np.ndarray:
        """Which images are classified correctly in one pass; arguments as in `accuracy`.

        Returns:
            bool array of shape [N].
        """
        right, _, _ = self._pass(condition, trial)
        return right.numpy()

    def predictions(self, condition: Condition, trial: int = 0) -> np.ndarray:
        """The predicted classes in one pass; arguments as in `accuracy`.

        Returns:
            int64 array of shape [N]; see `predicted`.
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

    def unanswered(self) -> int:
        """How many images had a score that is not finite, in all passes so far."""
        return sum(count for count, _ in self._unanswered.values())

    def warn_of_unanswered(self, name: str = "the model") -> None:
        """Says in one line how many images had no answer, if any.

        Args:
            name: the model's, or a progress bar's label, "testing <name>".
        """
        if not self.unanswered():
            return
        worst = max(self._unanswered, key=lambda one: np.divide(*self._unanswered[one]))
        count, tested = self._unanswered[worst]
        name = name.removeprefix("testing ")
        total = sum(tested for _, tested in self._unanswered.values())
        warnings.warn(
            f"{name}: scores of {self.unanswered():,} of {total:,} images are not finite, "
            f"most with {worst} ({count:,} of {tested:,}); these images count as wrong",
            stacklevel=2,
        )

    def _pass(self, condition: Condition, trial: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Which predictions are correct [N], the predictions [N], and the scores [N, classes]."""
        condition = condition.fitted(self._split.image_shape)
        trace = type(condition), condition.__tf_flatten__()[0]
        if trace not in self._traced:
            self._traced[trace] = _one_pass(self._model)
        variables = self._model.weights if isinstance(self._model, keras.Model) else []
        weights = [tf.convert_to_tensor(variable) for variable in variables]
        seed = tf.constant(trial_seed(self._seed, trial))
        split = condition.split(self._split)
        with answering(self._model), condition.raising():
            right, classes, scores = self._traced[trace](weights, condition, split, seed)
        unanswered = int(np.count_nonzero(classes.numpy() == NO_ANSWER))
        before, tested = self._unanswered.get(condition, (0, 0))
        self._unanswered[condition] = (before + unanswered, tested + len(split))
        return right, classes, scores


@functools.lru_cache(maxsize=32)
def _shared_traces(architecture: str) -> dict[tuple, Callable]:
    """The traces of all models of one architecture, of which a sweep has many.

    Each trace keeps the model that it was made with, so not too many are kept.
    """
    return {}


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
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.Rescaling,
    models.BatchNormalization,
    models.MeanOfMirrored,
    models.Standardization,
    models.WithMirrored,
)
_FUNCTIONAL = type(keras.Model(inputs := keras.Input([1]), inputs))


def _architecture(model: keras.Model | Callable) -> str | None:
    """What models that compute the same, but for their weights, have in common; None if unknown."""
    if not isinstance(model, keras.Model) or type(model) is not _FUNCTIONAL:
        return None
    if not all(type(layer) in _PLAIN_LAYERS for layer in model.layers):
        return None
    return json.dumps(_without_seeds(model.get_config()))


def _without_seeds(config: Any) -> Any:
    """A Keras configuration without what decides initial weights and dropout."""
    if isinstance(config, dict):
        return {
            key: _without_seeds(value)
            for key, value in config.items()
            if key != "seed" and not key.endswith("_initializer")
        }
    return [_without_seeds(item) for item in config] if isinstance(config, list) else config


def _one_pass(model: keras.Model | Callable) -> Callable:
    def scores(weights: list[tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        if not isinstance(model, keras.Model):
            return model(images)
        with keras.StatelessScope(state_mapping=list(zip(model.weights, weights, strict=True))):
            return model(images, training=False)

    @tf.function(autograph=False)
    def one_pass(
        weights: list[tf.Tensor], condition: Condition, split: Split, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size, at_once = len(split), batch_size(split.image_shape)
        batches = -(-size // at_once)

        def step(batch: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            first = batch * at_once
            index = tf.range(first, tf.minimum(first + at_once, size))
            if size % at_once == 0:
                index = tf.ensure_shape(index, [at_once])
            images = condition(split.images_at(index), example_seeds(seed, index))
            return batch + 1, done.write(batch, tf.cast(scores(weights, images), tf.float32))

        done = tf.TensorArray(tf.float32, batches, element_shape=[None, None], infer_shape=False)
        _, done = tf.while_loop(lambda batch, _: batch < batches, step, (0, done))
        all_scores = done.concat()
        classes = predicted(all_scores)
        return (classes == split.labels) & (classes != NO_ANSWER), classes, all_scores

    return one_pass


def number_of_trials(condition: Condition, trials: int) -> int:
    """How often a condition is run: once where trials cannot differ."""
    return trials if condition.random else 1


def evaluate(
    model: keras.Model | Callable,
    split: Split,
    conditions: Iterable[Condition],
    *,
    trials: int = 25,
    seed: int = 0,
    done: Collection[tuple[tuple[str, float], int]] = (),
    label: str | None = None,
) -> pd.DataFrame:
    """Tests a model under several conditions, each in repeated trials (section V).

    A deterministic condition (natural images, blur) is run once, as trial 0.

    Args:
        model: as in `Evaluator`.
        split: the test set.
        conditions: what it is tested with.
        trials: passes over the test set for a random perturbation.
        seed: the experiment's seed; trial t of every model sees the same images.
        done: pairs of a condition's key and a trial, to leave out.
        label: the progress bar's label; no bar without one.

    Returns:
        One row per trial: test_perturb ("none" for natural images), test_level (missing
        for natural images), trial, accuracy (a fraction), n_examples, changed (the fraction of
        the images that were right in the trial before and are wrong in this one, or the other
        way round; missing for trial 0), test_digest (that of the whole split whose first images
        they are).
    """
    columns = ["test_perturb", "test_level", "trial", "accuracy", "n_examples", "changed"]
    columns += ["test_digest"]
    parts = by_condition(model, split, conditions, trials=trials, seed=seed, done=done, label=label)
    return pd.DataFrame([row for rows in parts for row in rows], columns=columns)


def by_condition(
    model: keras.Model | Callable,
    split: Split,
    conditions: Iterable[Condition],
    *,
    trials: int,
    seed: int,
    done: Collection[tuple[tuple[str, float], int]] = (),
    label: str | None = None,
) -> Iterator[list[dict[str, object]]]:
    """Yields the rows of `evaluate`, those of a condition once it is done; arguments as there."""
    evaluator = Evaluator(model, split, seed)
    passes = {
        condition: [
            trial
            for trial in range(number_of_trials(condition, trials))
            if (condition.key, trial) not in done
        ]
        for condition in conditions
    }
    total = sum(map(len, passes.values()))
    with Bar(total=total, desc=label, unit="trial", disable=not (label and total)) as bar:
        for condition, left in passes.items():
            rows: list[dict[str, object]] = []
            right: dict[int, np.ndarray] = {}  # by trial: the one before, and this one
            for trial in left:
                right = {
                    one: right[one] if one in right else evaluator.right(condition, one)
                    for one in (trial - 1, trial)
                    if one >= 0
                }
                rows.append(
                    {
                        "test_perturb": condition.key[0],
                        "test_level": condition.level,
                        "trial": trial,
                        "accuracy": right[trial].mean(),
                        "n_examples": len(right[trial]),
                        "changed": np.mean(right[trial] != right[trial - 1]) if trial else np.nan,
                        "test_digest": condition.digest(split.digest),
                    }
                )
                bar.update()
            if rows:
                yield rows
    evaluator.warn_of_unanswered(label or "the model")
