import dataclasses
import functools

import keras
import numpy as np
import pandas as pd
import pytest

from robust_tf import models
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation
from robust_tf.results import HISTORY_COLUMNS
from robust_tf.training import (
    SGD,
    Adam,
    AdamW,
    Backup,
    Incremental,
    Natural,
    Recipe,
    compile_model,
    fit,
    fitting,
)
from tests.helpers import assert_same_weights, weights


class Stop(keras.callbacks.Callback):
    """Interrupts in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, epoch: int):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.current = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.current == self.epoch:
            raise KeyboardInterrupt


def train(data, directory=None, stop=None, epochs=5, precision="float32", **kwargs):
    backup = Backup(directory) if directory else None
    training = Incremental(perturbation=Perturbation("noise", 0.05), fresh=True).prepare(
        data.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10, precision=precision, seed=4),
        recipe(epochs),
        seed=4,
        initial_epoch=backup.completed_epochs() if backup else 0,
    )
    if stop is not None:
        callbacks = (*training.callbacks, Stop(stop))
        training = dataclasses.replace(training, callbacks=callbacks)
    history = fit(training, backup=backup, **kwargs)
    return training.model, history


def recipe(epochs=5) -> Recipe:
    return Recipe(epochs=epochs, batch_size=40, optimizer=Adam(learning_rate=0.01))


@pytest.fixture(scope="module")
def undisturbed(small):
    """The model and the history of a training from beginning to end."""
    return train(small)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(
    small, undisturbed, tmp_path, precision
):
    expected, expected_history = undisturbed
    if precision != "float32":
        expected, expected_history = train(small, precision=precision)
    for stop in (0, 3, 4):  # stopped three times, the first before any epoch was done
        with pytest.raises(KeyboardInterrupt):
            train(small, tmp_path, stop, precision=precision)
        assert Backup(tmp_path).completed_epochs() == stop
    model, history = train(small, tmp_path, precision=precision)
    assert_same_weights(model, expected)
    exact = ["epoch", "loss", "accuracy", "perturbed_fraction"]
    pd.testing.assert_frame_equal(history[exact], expected_history[exact])


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_training_is_not_repeated_and_its_last_states_are_kept(small, tmp_path):
    model, history = train(small, tmp_path)
    assert names(tmp_path) == ["epoch-00004.npz", "epoch-00005.npz"]
    again, same = train(small, tmp_path)
    assert_same_weights(model, again)
    assert same["seconds"].tolist() == pytest.approx(history["seconds"].tolist())


def test_a_state_that_cannot_be_written_leaves_the_one_before(
    small, undisturbed, tmp_path, monkeypatch
):
    real = np.savez

    def full(file, *arrays):
        if "00003" in file.name:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(file, *arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        train(small, tmp_path)
    monkeypatch.undo()
    assert Backup(tmp_path).completed_epochs() == 2
    assert names(tmp_path) == ["epoch-00001.npz", "epoch-00002.npz"]
    model, _ = train(small, tmp_path)
    assert_same_weights(model, undisturbed[0])


def test_history(undisturbed):
    _, history = undisturbed
    assert set(history.columns) == set(HISTORY_COLUMNS)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(
        history["perturbed_fraction"], [0.05, 0.275, 0.5, 0.725, 0.95], atol=1e-12
    )
    np.testing.assert_allclose(history["images_per_second"], 200 / history["seconds"])
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def compiled(steps=5, precision="float32", **options) -> keras.Model:
    model = models.build("mnist_cnn", (28, 28, 1), 10, precision=precision)
    compile_model(model, recipe(), steps_per_epoch=steps, **options)
    return model


def test_training_is_the_papers():
    model = compiled()
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.999)
    assert model.loss.name == "sparse_categorical_crossentropy"


def test_xla_is_not_chosen_on_a_cpu():
    assert compiled().jit_compile is False
    assert compiled(jit_compile="off").jit_compile is False
    with pytest.raises(InvalidArgument, match="jit_compile=maybe: expected one of auto, on, off"):
        compiled(jit_compile="maybe")


def test_xla_trains_as_well_where_it_is_asked_for(small, undisturbed):
    model, history = train(small, jit_compile="on")
    assert model.jit_compile is True
    # Dropout is another there.
    np.testing.assert_allclose(history["loss"], undisturbed[1]["loss"], rtol=0.2)


@pytest.fixture(scope="module")
def accuracy_in(sample):
    """The accuracy of training in a precision; each is trained once."""

    @functools.cache
    def accuracy(precision):
        training = Natural().prepare(
            sample.train,
            lambda: models.build("mnist_cnn", (28, 28, 1), 10, precision=precision),
            Recipe(epochs=4, batch_size=400, optimizer=Adam(learning_rate=0.05)),
        )
        history = fit(training)
        assert {weight.dtype for weight in training.model.trainable_weights} == {"float32"}
        return history["accuracy"].iloc[-1]

    return accuracy


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_as_well(accuracy_in, precision):
    assert accuracy_in(precision) > accuracy_in("float32") - 0.03


def test_small_gradients_are_scaled_in_float16_only():
    for precision, scaled in (("mixed_float16", True), ("mixed_bfloat16", False)):
        optimizer = compiled(precision=precision).optimizer
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) == scaled


@pytest.mark.parametrize(("optimizer", "steps"), [(Adam(), 1), (SGD(), 2), (AdamW(), 2)])
def test_a_step_is_traced_once(small, monkeypatch, optimizer, steps):
    traced = []
    step = keras.Model.train_step
    monkeypatch.setattr(
        keras.Model, "train_step", lambda self, data: traced.append(1) or step(self, data)
    )
    training = Natural().prepare(
        small.train.first(40),
        lambda: models.build("mnist_cnn", (28, 28, 1), 10),
        Recipe(epochs=2, batch_size=40 // steps, optimizer=optimizer, weight_average=0.5),
    )
    fit(training)
    assert len(traced) == 1


def test_the_seed_decides_everything(small):
    def trained(seed):
        training = Natural().prepare(
            small.train,
            lambda: models.build("mnist_cnn", (28, 28, 1), 10, seed=seed),
            recipe(epochs=2),
            seed=seed,
        )
        fit(training)
        return training.model

    first = trained(1)
    assert_same_weights(first, trained(1))
    assert (weights(first)[-1] != weights(trained(2))[-1]).any()


def test_tensorboard_logs_hold_the_fraction(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small, tensorboard_dir=tmp_path, epochs=2)
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"tensors": 0})
    events.Reload()
    assert "epoch_perturbed_fraction" in events.Tags()["tensors"]
    assert len(events.Tensors("epoch_loss")) == 2


@pytest.mark.parametrize(("steps", "at_once"), [(40, 20), (33, 11), (7, 7), (23, 1), (1, 1)])
def test_steps_at_once_divide_the_epoch(steps, at_once):
    assert compiled(steps).steps_per_execution == at_once


def test_steps_at_once_change_nothing(small, undisturbed, monkeypatch, capsys):
    together, history = undisturbed
    monkeypatch.setattr(fitting, "_STEPS_AT_ONCE", 1)
    one_by_one, expected = train(small, label="training")
    assert "| 25/25 [" in capsys.readouterr().err
    assert_same_weights(together, one_by_one)
    assert history["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-5)
