"""The perturbed fraction of each batch, ramped per epoch by a Keras callback."""

import dataclasses
import math
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf

from robust_tf.settings import check_fields, choice, number

RAMPS = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1.0 - math.cos(math.pi * progress)) / 2.0,
    "step": lambda progress: float(progress >= 0.5),
}


@dataclasses.dataclass(frozen=True)
class Ramp:
    """How the perturbed fraction grows from the first epoch to the last.

    Args:
        start: fraction in the first epoch, in [0, 1].
        end: fraction in the last epoch, in [0, 1].
        shape: "linear", "cosine" (slow at both ends) or "step" (`start` in the first
            half of the epochs, then `end`).

    Raises:
        InvalidArgument: if an argument is out of range.
    """

    start: Annotated[
        float,
        number(
            "Perturbed fraction in the first epoch, 0 to 1 (incremental).",
            0,
            1,
            noun="a fraction",
            name="ramp_start",
        ),
    ] = 0.05
    end: Annotated[
        float,
        number(
            "Perturbed fraction in the last epoch, 0 to 1 (incremental).",
            0,
            1,
            noun="a fraction",
            name="ramp_end",
        ),
    ] = 0.95
    shape: Annotated[
        str, choice("How the perturbed fraction grows (incremental).", RAMPS, name="ramp")
    ] = "linear"

    def __post_init__(self):
        """Checks the arguments."""
        check_fields(self)

    def fractions(self, epochs: int) -> np.ndarray:
        """The fraction of each epoch, float64 of shape [epochs]."""
        last = max(epochs - 1, 1)
        progress = [RAMPS[self.shape](epoch / last) for epoch in range(epochs)]
        return self.start + (self.end - self.start) * np.array(progress, np.float64)


class PerturbedFraction(keras.callbacks.Callback):
    """Ramps the perturbed fraction of each batch per epoch and logs it.

    Keras asks for batches before it announces their epoch, and `tf.data` prepares
    batches ahead, so a variable set in `on_epoch_begin` would come too late for some of
    them. Instead the input pipeline, whose batches know their epoch, asks `count`.

    Args:
        ramp: the fractions.
        epochs: how many epochs the ramp takes.

    Logs:
        perturbed_fraction: the fraction of the epoch, in [0, 1].
    """

    def __init__(self, ramp: Ramp, epochs: int):
        """See the class."""
        super().__init__()
        self.fractions = ramp.fractions(epochs)

    def count(self, epoch: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
        """How many images of a batch are perturbed: ⌊fraction · size + ½⌋.

        Args:
            epoch: int64 scalar, from 0.
            batch_size: integer scalar.

        Returns:
            int32 scalar.
        """
        fraction = tf.constant(self.fractions)[epoch]
        return tf.cast(tf.floor(fraction * tf.cast(batch_size, tf.float64) + 0.5), tf.int32)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs the fraction."""
        if logs is not None:
            logs["perturbed_fraction"] = float(self.fractions[epoch])
