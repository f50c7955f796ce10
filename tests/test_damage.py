"""Files of our own that a full disk or a sync has damaged: the same numbers, or one line."""

import contextlib
import dataclasses
import re
import shutil
import warnings
from pathlib import Path

import hypothesis.strategies as st
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from robust_tf import models, results, runs, saved_models
from robust_tf.errors import Unavailable
from robust_tf.perturbations import Perturbation
from robust_tf.training import Adam, Backup, Constant, Recipe, fit
from tests.helpers import carry_out, files, short, weights

EXAMPLES = 100  # of a finished, and as many of a stopped run


@st.composite
def damages(draw):
    """A way to damage a file, any, at any offset."""
    way = draw(st.sampled_from(["cut", "zero", "double", "flip"]))
    share = st.floats(0, 1, exclude_max=True)
    place, length, bit = draw(share), draw(st.integers(1, 200)), draw(st.integers(0, 7))

    def damage(content: bytes) -> bytes:
        first = int(place * len(content))
        part = content[first : first + length]
        changed = {
            "cut": b"",
            "zero": bytes(len(part)) + content[first + length :],
            "double": part + content[first:],
            "flip": bytes([part[0] ^ 1 << bit]) + content[first + 1 :] if part else b"",
        }
        return content[:first] + changed[way]

    return draw(share), damage


@contextlib.contextmanager
def damaged(folder: Path, which: float, damage):
    """Damages one of the files of a folder, and leaves the folder as it was."""
    before = {path: path.read_bytes() for path in sorted(files(folder))}
    path = list(before)[int(which * len(before))]
    path.write_bytes(damage(before[path]))
    try:
        yield path
    finally:
        for path in files(folder):
            if path not in before:
                path.unlink()
        for path, content in before.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def check_line(error: Unavailable) -> None:
    """One line that says what to do."""
    assert "\n" not in str(error) and re.search("remove (the folder|checksums)", str(error))


@pytest.mark.filterwarnings("ignore:.*damaged is left out")
def test_a_finished_run_of_which_any_file_is_damaged(small, finished, folders, tmp_path):
    place = folders["output_dir"]

    def tables() -> list[pd.DataFrame]:
        asked = carry_out(finished, small, folders)
        return [asked, *(results.read(place, name) for name in ("runs", "history"))]

    whole = tables()

    @fuzzed
    @given(damages())
    def check(damage):
        with damaged(tmp_path, *damage):
            try:
                found = tables()
            except Unavailable as error:
                check_line(error)
                return
            for table, expected in zip(found, whole, strict=True):
                pd.testing.assert_frame_equal(table, expected, check_exact=True)

    check()


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_stopped_run_of_which_any_file_is_damaged(small, tmp_path):
    """Its newest whole state is what it was at that epoch, to the bit."""
    model, states, history = stopped(small, tmp_path)

    @fuzzed
    @given(damages())
    def check(damage):
        with damaged(tmp_path, *damage) as path:
            backup = Backup(tmp_path, run="a")
            done = backup.completed_epochs()
            assert done == {"epoch-00002": 3, "epoch-00003": 2}[path.stem] or is_whole(path)
            rows = backup.restore(model)
        for value, expected in zip(weights(model), states[done], strict=True):
            np.testing.assert_array_equal(value, expected)
        pd.testing.assert_frame_equal(rows, history.head(done), check_exact=True)

    def is_whole(path):
        return path.read_bytes() == whole[path]

    whole = {path: path.read_bytes() for path in files(tmp_path)}
    check()


def stopped(data, directory):
    """A training of three epochs: its model, the weights by epoch, and the history."""
    states = {}

    class Weights(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            states[epoch + 1] = weights(self.model)

    training = Constant(perturbation=Perturbation("hot", 2)).prepare(
        data.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10, seed=4),
        Recipe(epochs=3, batch_size=100, optimizer=Adam(learning_rate=0.01)),
        seed=4,
    )
    training = dataclasses.replace(training, callbacks=(*training.callbacks, Weights()))
    history = fit(training, backup=Backup(directory, run="a"))
    return training.model, states, history


def text(states: list[Path]) -> None:
    for state in states:
        state.write_text("no state")


def foreign(states: list[Path]) -> None:
    """Whole, but of a run of another name, whose numbers would be others."""
    backup = Backup(states[0].parent, run="another")
    backup.set_model(keras.Sequential([keras.layers.Dense(1)]))
    backup.model.compile("sgd")
    backup.model.build((None, 1))
    shutil.rmtree(states[0].parent)
    backup.on_train_begin()
    backup.restore(backup.model)
    backup.on_epoch_end(0, {})


def odd(states: list[Path]) -> None:
    """Copies that a sync has made, and one that says that it has more epochs."""
    for name in ("epoch-0000x", "epoch-", "epoch-00001 (1)", "epoch-00009"):
        shutil.copy(states[0], states[0].with_stem(name))
    states[-1].unlink()


@pytest.fixture(scope="module")
def stopped_once(small, tmp_path_factory) -> Path:
    """The run `short(small)`, trained and stopped before its SavedModel is there."""
    place = tmp_path_factory.mktemp("stopped")
    where = {name: place / name for name in ("output_dir", "saved_models_dir")}

    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saved_models, "export", stop)
        runs.train(short(small), small, progress=False, **where)
    return where["output_dir"]


@pytest.mark.parametrize("damage", [text, foreign, odd])
def test_a_stopped_run_goes_on_from_what_is_whole(small, finished, folders, stopped_once, damage):
    """And ends with the numbers of one that was never stopped."""
    expected = [results.read(folders["output_dir"], "trials"), history_of(folders)]
    for folder in folders.values():
        shutil.rmtree(folder)
    shutil.copytree(stopped_once, folders["output_dir"])
    backup = folders["output_dir"] / f"{finished.name}.partial" / "backup"
    damage(sorted(backup.glob("epoch-*.npz")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [carry_out(finished, small, folders), history_of(folders)]
    for table, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(table, other, check_exact=True)
    said = {str(one.message) for one in caught if "left out" in str(one.message)}
    assert len(said) == 1
    assert all("\n" not in line and "; training " in line for line in said)


def history_of(folders) -> pd.DataFrame:
    exact = ["run", "epoch", "loss", "accuracy", "perturbed_fraction"]
    return results.read(folders["output_dir"], "history")[exact]
