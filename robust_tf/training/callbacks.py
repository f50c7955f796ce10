"""Keras callbacks: the ramp of the perturbed fraction, times, backup and progress.

A callback here adds to the epoch's logs or keeps what training has reached; none of
them changes weights.
"""

import dataclasses
import math
import os
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import tqdm

from robust_tf.errors import InvalidArgument
from robust_tf.files import replacing

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

    start: float = 0.05
    end: float = 0.95
    shape: str = "linear"

    def __post_init__(self):
        """Checks the arguments."""
        for argument, value in (("ramp_start", self.start), ("ramp_end", self.end)):
            if not 0.0 <= value <= 1.0:
                raise InvalidArgument(argument, value, "a fraction from 0 to 1")
        if self.shape not in RAMPS:
            raise InvalidArgument("ramp", self.shape, f"one of {', '.join(RAMPS)}")

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


class Throughput(keras.callbacks.Callback):
    """Logs an epoch's time.

    Args:
        examples: training examples an epoch.

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


class Backup(keras.callbacks.Callback):
    """Keeps the state after each epoch, so that a stopped training can go on.

    One file holds weights, optimiser and dropout seeds; its name tells the epochs done
    and it is renamed into place, so that a kill leaves the old state or the new one,
    never a mixture. `keras.callbacks.BackupAndRestore` keeps the epoch in a second file.

    Args:
        directory: where to keep it; made if absent.
        write: whether to save states, not only to go on from them.
    """

    def __init__(self, directory: str | os.PathLike, write: bool = True):
        """See the class."""
        super().__init__()
        self.directory = Path(directory)
        self._write = write

    def completed_epochs(self) -> int:
        """How many epochs the state in the directory has behind it; 0 without one."""
        states = self.directory.glob("epoch-*.npz")
        return max((int(state.stem.removeprefix("epoch-")) for state in states), default=0)

    def restore(self, model: keras.Model) -> pd.DataFrame:
        """Loads the state into a compiled model.

        Returns:
            The epochs so far, a row each; empty without a state.
        """
        done = self.completed_epochs()
        self._rows = []
        if done:
            with np.load(self._state(done)) as state:
                for i, variable in enumerate(_variables(model)):
                    variable.assign(state[f"arr_{i}"])
            self._rows = pd.read_csv(self._history).head(done).to_dict("records")
        return pd.DataFrame(self._rows)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Prepares the directory."""
        if not self._write:
            return
        self.directory.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the state."""
        if not self._write:
            return
        self._rows.append({"epoch": epoch + 1, **(logs or {})})
        with replacing(self._history) as path:
            pd.DataFrame(self._rows).to_csv(path, index=False)
        with replacing(self._state(epoch + 1)) as path, open(path, "wb") as file:
            np.savez(file, *(variable.value.numpy() for variable in _variables(self.model)))
        self._state(epoch).unlink(missing_ok=True)

    @property
    def _history(self) -> Path:
        return self.directory / "history.csv"

    def _state(self, epochs: int) -> Path:
        return self.directory / f"epoch-{epochs:05d}.npz"


def _variables(model: keras.Model) -> list[keras.Variable]:
    """All that training changes: weights, dropout seeds, and the optimiser's state."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


class Progress(keras.callbacks.Callback):
    """A progress bar over all epochs, on standard error, with the time left.

    Args:
        label: what is being trained.
        epochs: how many epochs there are.
        initial_epoch: the first of them that is still to do, from 0.
        steps_per_epoch: batches an epoch.
    """

    def __init__(self, label: str, epochs: int, initial_epoch: int, steps_per_epoch: int):
        """See the class."""
        super().__init__()
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._bar = tqdm.tqdm(
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
        """Moves the bar; several batches may have been taken at once."""
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
