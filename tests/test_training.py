import keras
import numpy as np
import pandas as pd
import pytest

from robust_tf import models
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation
from robust_tf.results import HISTORY_COLUMNS
from robust_tf.training import compile_model, fit
from robust_tf.training.callbacks import Backup
from robust_tf.training.strategies import Settings, incremental, natural


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
    settings = Settings(
        epochs=epochs,
        batch_size=40,
        seed=4,
        perturbation=Perturbation("noise", 0.05),
        fresh=True,
        initial_epoch=backup.completed_epochs() if backup else 0,
    )
    training = incremental(
        data.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10, precision=precision, seed=4),
        settings,
    )
    if stop is not None:
        training = type(training)(
            **{**vars(training), "callbacks": (*training.callbacks, Stop(stop))}
        )
    history = fit(training, learning_rate=0.01, beta_1=0.5, backup=backup, **kwargs)
    return training.model, history


def weights(model) -> list[np.ndarray]:
    return [weight.value.numpy() for weight in model.weights]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_a_stopped_training_ends_with_the_weights_of_one_that_was_not(small, tmp_path, precision):
    expected, expected_history = train(small, precision=precision)
    for stop in (0, 3, 4):  # stopped three times, the first before any epoch was done
        with pytest.raises(KeyboardInterrupt):
            train(small, tmp_path, stop, precision=precision)
        assert Backup(tmp_path).completed_epochs() == stop
    model, history = train(small, tmp_path, precision=precision)
    for a, b in zip(weights(model), weights(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    exact = ["epoch", "loss", "accuracy", "perturbed_fraction"]
    pd.testing.assert_frame_equal(history[exact], expected_history[exact])


def test_a_finished_training_is_not_repeated(small, tmp_path):
    model, history = train(small, tmp_path)
    again, same = train(small, tmp_path)
    for a, b in zip(weights(model), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert same["seconds"].tolist() == pytest.approx(history["seconds"].tolist())


def test_only_the_last_state_is_kept(small, tmp_path):
    train(small, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00005.npz", "history.csv"]


def test_a_state_that_cannot_be_written_leaves_the_one_before(small, tmp_path, monkeypatch):
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00002.npz", "history.csv"]
    expected, _ = train(small)
    model, _ = train(small, tmp_path)
    np.testing.assert_array_equal(weights(model)[-1], weights(expected)[-1])


def test_history(small):
    model, history = train(small)
    assert set(history.columns) == set(HISTORY_COLUMNS)
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(
        history["perturbed_fraction"], [0.05, 0.275, 0.5, 0.725, 0.95], atol=1e-12
    )
    np.testing.assert_allclose(history["images_per_second"], 200 / history["seconds"])
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_training_is_the_papers(small):
    model, _ = train(small)
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.999)
    assert model.loss.name == "sparse_categorical_crossentropy"


def test_xla_is_not_chosen_on_a_cpu(small):
    model, _ = train(small)
    assert model.jit_compile is False


def test_xla_trains_as_well_where_it_is_asked_for(small):
    _, expected = train(small)
    model, history = train(small, jit_compile="on")
    assert model.jit_compile is True
    # Dropout is another there.
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=0.2)
    with pytest.raises(InvalidArgument, match="jit_compile=maybe: expected one of auto, on, off"):
        train(small, jit_compile="maybe")


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_learns_as_well(sample, precision):
    def accuracy(precision):
        training = natural(
            sample.train,
            lambda: models.build("mnist_cnn", (28, 28, 1), 10, precision=precision),
            Settings(epochs=4, batch_size=400),
        )
        history = fit(training, learning_rate=0.05, beta_1=0.5)
        assert {weight.dtype for weight in training.model.trainable_weights} == {"float32"}
        return history["accuracy"].iloc[-1]

    assert accuracy(precision) > accuracy("float32") - 0.03


def test_small_gradients_are_scaled_in_float16_only(small):
    for precision, scaled in (("mixed_float16", True), ("mixed_bfloat16", False)):
        model, _ = train(small, epochs=1, precision=precision)
        is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert is_scaled == scaled


def test_the_seed_decides_everything(small):
    def trained(seed):
        training = natural(
            small.train,
            lambda: models.build("mnist_cnn", (28, 28, 1), 10, seed=seed),
            Settings(epochs=2, batch_size=40, seed=seed),
        )
        fit(training, learning_rate=0.01, beta_1=0.5)
        return weights(training.model)

    for a, b in zip(trained(1), trained(1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (trained(1)[-1] != trained(2)[-1]).any()


def test_tensorboard_logs_hold_the_fraction(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small, tensorboard_dir=tmp_path)
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"tensors": 0})
    events.Reload()
    assert "epoch_perturbed_fraction" in events.Tags()["tensors"]
    assert len(events.Tensors("epoch_loss")) == 5


@pytest.mark.parametrize(("steps", "at_once"), [(40, 20), (33, 11), (7, 7), (23, 1), (1, 1)])
def test_steps_at_once_divide_the_epoch(steps, at_once):
    model = models.build("mnist_cnn", (28, 28, 1), 10)
    compile_model(model, learning_rate=0.01, beta_1=0.9, steps_per_epoch=steps)
    assert model.steps_per_execution == at_once


def test_steps_at_once_change_nothing(small, monkeypatch, capsys):
    together, history = train(small, label="training")
    assert "| 25/25 [" in capsys.readouterr().err
    monkeypatch.setattr("robust_tf.training.fit._STEPS_AT_ONCE", 1)
    one_by_one, expected = train(small)
    for a, b in zip(weights(together), weights(one_by_one), strict=True):
        np.testing.assert_array_equal(a, b)
    assert history["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-5)
