"""Training images that only measure: which they are, what they say after each epoch, when to stop.

How the other images are trained with is not known here.
"""

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.seeds import stream_int


def division(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The training images that are trained with, and those that are held out.

    Of each class, ⌊fraction · n + ½⌋ of its n images are held out, drawn from the seed.

    Args:
        labels: of all images, shape [N].
        fraction: in (0, 1).
        seed: the experiment's seed.

    Returns:
        Indices of both, each int64 in rising order.

    Raises:
        InvalidArgument: if one has no images.
    """
    draw = np.random.default_rng(stream_int(seed, "validation"))
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = draw.permutation(np.flatnonzero(labels == label))
        held_out[own[: math.floor(fraction * len(own) + 0.5)]] = True
    if held_out.all() or not held_out.any():
        expected = f"a part that leaves images on both sides, of {len(labels)} training images"
        raise InvalidArgument("validation_fraction", fraction, expected)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def balanced(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights by which each class counts as much as any other, and an image 1 on average.

    As scikit-learn's: N / (K · n) for a class with n of N images of K classes.

    Args:
        labels: of the images that are trained with, shape [N].
        classes: number of classes; those without images do not count.

    Returns:
        float32 array of shape [classes].
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return np.where(counts, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)


class Validation(keras.callbacks.Callback):
    """Measures a model with held-out images after each epoch; may end the training by it.

    `keras.callbacks.EarlyStopping` forgets the best weights when a training is stopped and goes on.

    Args:
        batches: (float32 images [B, H, W, C], int64 labels [B]) of the held-out images.
        patience: epochs without a lower loss after which training ends, and the model has the
            weights of the epoch with the lowest; 0 to train all epochs and keep the last weights.

    Logs:
        val_loss: the mean cross-entropy, whatever smoothing and weights training has.
        val_accuracy: a fraction.
    """

    def __init__(self, batches: tf.data.Dataset, patience: int = 0):
        """See the class."""
        super().__init__()
        self.patience = patience
        self._batches = batches
        self._lowest, self._since = math.inf, 0
        self._best: list[np.ndarray] = []
        spec, labels = batches.element_spec

        @tf.function(input_signature=[spec, labels], autograph=False)
        def measured(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits = self.model(images, training=False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            right = tf.equal(tf.argmax(logits, axis=-1), labels)
            return tf.reduce_sum(losses), tf.math.count_nonzero(right)

        self._measured = measured

    @property
    def ended(self) -> bool:
        """Whether the patience is at its end."""
        return bool(self.patience) and self._since >= self.patience

    def resume(self, losses: Sequence[float], best: list[np.ndarray]) -> None:
        """Goes on after epochs of an earlier process.

        Args:
            losses: `val_loss` of each.
            best: values of the model's variables after the epoch with the lowest.
        """
        for loss in losses:
            self._note(loss)
        self._best = best

    def _note(self, loss: float) -> bool:
        """Whether a loss is the lowest so far."""
        lower = loss < self._lowest
        self._lowest, self._since = min(loss, self._lowest), 0 if lower else self._since + 1
        return lower

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs loss and accuracy."""
        loss, right, count = 0.0, 0, 0
        for images, labels in self._batches:
            losses, hits = self._measured(images, labels)
            loss, right, count = loss + float(losses), right + int(hits), count + len(labels)
        if logs is not None:
            logs["val_loss"], logs["val_accuracy"] = loss / count, right / count
        if self._note(loss / count) and self.patience:
            self._best = [variable.numpy() for variable in self.model.variables]
        if self.ended:
            self.model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Gives the model its best weights."""
        if self.patience and self._best:
            for variable, value in zip(self.model.variables, self._best, strict=True):
                variable.assign(value)
