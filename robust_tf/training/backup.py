"""A Keras callback that keeps the state after each epoch, so that a stopped training goes on."""

import os
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from robust_tf.files import replacing


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
