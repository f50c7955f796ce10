"""Keras callbacks: the ramp of the perturbed fraction, times, backup and progress.

A callback here adds to the epoch's logs, or ends a training that leads nowhere; none of them
changes weights.
"""

import math
import time

import keras
import numpy as np
import tensorflow as tf

from robust_tf.errors import Unavailable
from robust_tf.progress import Bar
from robust_tf.training.ramp import Ramp


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


class Throughput(keras.callbacks.Callback):
    """Logs an epoch's time.

    Args:
        examples: training examples per epoch.

    Logs:
        seconds: the epoch's wall-clock time.
        images_per_second: `examples` divided by it.
    """

    def __init__(self, examples: int):
        """See the class."""
        super().__init__()
        self.examples = examples

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs the time."""
        seconds = time.perf_counter() - self._start
        if logs is not None:
            logs["seconds"] = seconds
            logs["images_per_second"] = self.examples / seconds


class Divergence(keras.callbacks.Callback):
    """Ends a training whose loss or weights are no longer finite.

    The mean loss of an epoch's batches is looked at after each of them; the weights, which the
    last batch may have ruined, after the epoch. `keras.callbacks.TerminateOnNaN` stops too, but
    leaves the model as if it were trained.

    Args:
        learning_rate: what the error names.

    Raises:
        Unavailable: when that is so. Callbacks behind this one do not get to see that epoch.
    """

    def __init__(self, learning_rate: float):
        """See the class."""
        super().__init__()
        self._learning_rate = learning_rate
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers which epoch it is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the loss, where it is known."""
        self._check("loss", (logs or {}).get("loss", 0.0))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the loss and the weights."""
        for loss in ("loss", "val_loss"):
            self._check(loss, (logs or {}).get(loss, 0.0))
        for variable in self.model.trainable_variables:
            self._check(variable.path, variable.value.numpy())

    def _check(self, what: str, values: float | np.ndarray) -> None:
        if not np.isfinite(values).all():
            problem = (
                f"the training diverges, {what} is not finite in epoch {self._epoch + 1}; nothing "
                "is exported, and a lower learning rate may help"
            )
            raise Unavailable("learning_rate", self._learning_rate, problem)


class Progress(keras.callbacks.Callback):
    """A progress bar over all epochs, on standard error, with the time left.

    `tqdm.keras.TqdmCallback` counts one batch where several are taken at once, and shows
    nothing of an epoch before its end or takes a second line for it.

    Args:
        label: what is being trained.
        epochs: how many epochs there are.
        initial_epoch: the first of them that is still to do, from 0.
        steps_per_epoch: batches per epoch.
    """

    def __init__(self, label: str, epochs: int, initial_epoch: int, steps_per_epoch: int):
        """See the class."""
        super().__init__()
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._bar = Bar(
            desc=label,
            initial=initial_epoch * steps_per_epoch,
            total=epochs * steps_per_epoch,
            unit="batch",
            mininterval=0.5,
        )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers where the epoch begins."""
        self._before = epoch * self._steps_per_epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar; several batches may have been taken since the last call."""
        self._move(self._before + batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Shows the epoch's loss and accuracy."""
        logs = logs or {}
        self._move((epoch + 1) * self._steps_per_epoch)
        self._bar.set_postfix_str(
            f"epoch {epoch + 1}/{self._epochs}, loss {logs.get('loss', math.nan):.4f}, "
            f"accuracy {100 * logs.get('accuracy', math.nan):.2f} %"
        )

    def _move(self, batches: int) -> None:
        self._bar.update(batches - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is; Keras calls no callback after an error."""
        self._bar.close()
