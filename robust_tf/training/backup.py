"""A Keras callback that keeps the state after each epoch, so that a stopped training goes on."""

import contextlib
import hashlib
import io
import json
import os
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from robust_tf.errors import Unavailable, one_line
from robust_tf.files import make_way, remove, replacing

# The last two: should the last be damaged, training loses an epoch and not all.
_KEPT = 2


class Backup(keras.callbacks.Callback):
    """Keeps the state after each epoch, so that a stopped training can go on.

    One file holds weights, optimiser, dropout seeds and the history so far, and ends with a
    digest of all that; it is renamed into place. So a kill leaves the old state or the new
    one, never a mixture, and a damaged one is known. `keras.callbacks.BackupAndRestore`
    keeps the epoch in a second file.

    Args:
        directory: where to keep it; made if absent.
        write: whether to save states, not only to go on from them.
        run: the name of what is trained; the state of another does not count.
        keep_best: keep that of the epoch with the lowest `val_loss`, too.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        write: bool = True,
        run: str | None = None,
        keep_best: bool = False,
    ):
        """See the class."""
        super().__init__()
        self._keep_best = keep_best
        self._best_content = b""
        self.directory = Path(directory)
        self._write = write
        self._run = run

    def completed_epochs(self) -> int:
        """How many epochs the newest whole state has behind it; 0 without one."""
        return len(self._newest()[0])

    def restore(self, model: keras.Model) -> pd.DataFrame:
        """Loads the newest whole state into a compiled model.

        Returns:
            The epochs so far, a row each; empty without a state.

        Raises:
            Unavailable: if it is the state of another network, as another version may make.
        """
        self._rows, content = self._newest()
        if self._rows:
            variables = _variables(model)
            values = _values(content)
            if [value.shape for value in values] != [tuple(each.shape) for each in variables]:
                problem = "its state is of another network; remove the folder to begin again"
                raise Unavailable("output_dir", self.directory, problem)
            for variable, value in zip(variables, values):
                variable.assign(value)
        return pd.DataFrame(self._rows)

    def best(self, model: keras.Model) -> list[np.ndarray]:
        """The values of a model's variables after its best epoch, once `restore` was called."""
        return _values(self._best_content)[: len(model.variables)] if self._best_content else []

    def _newest(self) -> tuple[list[dict], bytes]:
        """The history and the arrays of the newest whole state; both empty without one."""
        problems = []
        for epochs, path in sorted(self._states(), reverse=True):
            try:
                rows, content = self._check(path.read_bytes(), epochs)
                self._best_content = self._content_of_best(rows, content)
                break
            except FileNotFoundError:  # replaced by a newer one meanwhile
                continue
            except Exception as error:  # whatever foreign content makes NumPy and us raise
                problems.append(f"{path} is left out ({one_line(error)})")
        else:
            rows, content = [], b""
        if problems:
            goes_on = f"goes on after epoch {len(rows)}" if rows else "begins again"
            # One place, so that a command says it once.
            warnings.warn(f"{'; '.join(problems)}; training {goes_on}", stacklevel=1)
        return rows, content

    def _content_of_best(self, rows: list[dict], content: bytes) -> bytes:
        """The arrays of the best epoch's state, given those of the last."""
        best = self._best_epoch(rows)
        if best in (0, len(rows)):
            return content
        try:
            return self._check(self._path(best).read_bytes(), best)[1]
        except FileNotFoundError:
            raise ValueError(f"without the state of epoch {best}, the best") from None

    def _best_epoch(self, rows: list[dict]) -> int:
        """The number of the epoch to keep besides the last ones; 0 for none."""
        if not (self._keep_best and rows):
            return 0
        return min(rows, key=lambda row: row["val_loss"])["epoch"]

    def _path(self, epoch: int) -> Path:
        return self.directory / f"epoch-{epoch:05d}.npz"

    def _check(self, content: bytes, epochs: int) -> tuple[list[dict], bytes]:
        """The parts of a state; raises `ValueError` if it is not whole or not ours."""
        size = hashlib.sha256().digest_size
        content, digest = content[:-size], content[-size:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("damaged")
        with np.load(io.BytesIO(content)) as state:
            about = json.loads(state["arr_0"].item())
            values = [state[f"arr_{i + 1}"] for i in range(len(state.files) - 1)]
        if about["run"] != self._run or len(about["history"]) != epochs:
            raise ValueError("of another training")
        if [row["epoch"] for row in about["history"]] != [*range(1, epochs + 1)]:
            raise ValueError("damaged")
        shapes = [list(value.shape) for value in values]
        if about.get("shapes", shapes) != shapes or not values:
            raise ValueError("of another network")
        if any(np.isnan(value).any() for value in values):
            raise ValueError("with weights that are no numbers")
        return about["history"], content

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Prepares the directory."""
        if not self._write:
            return
        make_way(self.directory, folder=True)
        self.directory.mkdir(parents=True, exist_ok=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the state."""
        if not self._write:
            return
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self._rows.append({"epoch": epoch + 1, **numbers})
        variables = _variables(self.model)
        shapes = [list(variable.shape) for variable in variables]
        about = np.array(json.dumps({"run": self._run, "history": self._rows, "shapes": shapes}))
        values = (variable.value.numpy() for variable in variables)
        target = self._path(epoch + 1)
        make_way(target)
        with replacing(target) as path, open(path, "w+b") as file:
            np.savez(file, about, *values)
            file.seek(0)
            file.write(hashlib.sha256(file.read()).digest())
            file.flush()
        best = self._best_epoch(self._rows)
        for epochs, state in self._states():
            if epochs != best and not epoch + 1 - _KEPT < epochs <= epoch + 1:
                remove(state)

    def remove(self) -> None:
        """Removes the states, and the directory if there is nothing else in it."""
        for _, state in self._states():
            remove(state)
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    def _states(self) -> list[tuple[int, Path]]:
        """The epochs and files of all states; those of other names are none."""
        paths = self.directory.glob("epoch-*.npz")
        names = ((re.fullmatch(r"epoch-(\d{5,})", path.stem, re.ASCII), path) for path in paths)
        return [(int(match[1]), path) for match, path in names if match]


def _values(content: bytes) -> list[np.ndarray]:
    """The arrays of a state after its description."""
    with np.load(io.BytesIO(content)) as state:
        return [state[f"arr_{i + 1}"] for i in range(len(state.files) - 1)]


def _variables(model: keras.Model) -> list[keras.Variable]:
    """All that training changes: weights, dropout seeds, and the optimiser's state."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]
