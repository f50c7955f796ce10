"""Held-out training images, early stopping and weights of classes."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf import results, runs, training
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation
from robust_tf.results import figures
from robust_tf.training import Adam, Backup, Constant, Natural, Recipe, fit, fitting
from robust_tf.training.validation import balanced, division
from tests.helpers import assert_same_weights, short, weights


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_a_part_of_each_class_is_held_out(fraction):
    labels = np.repeat([0, 1, 3], [200, 50, 11])
    kept, held_out = division(labels, fraction, 0)
    assert sorted([*kept, *held_out]) == [*range(len(labels))]
    for label, count in ((0, 200), (1, 50), (3, 11)):
        assert np.count_nonzero(labels[held_out] == label) == int(fraction * count + 0.5)
    again, other = division(labels, fraction, 0)[1], division(labels, fraction, 1)[1]
    np.testing.assert_array_equal(again, held_out)
    assert (other != held_out).any()


@pytest.mark.parametrize(("labels", "fraction"), [([0, 1] * 10, 0.01), ([0, 1], 0.9), ([0], 0.4)])
def test_both_parts_need_images(labels, fraction):
    with pytest.raises(InvalidArgument, match="validation_fraction=.*images on both sides"):
        division(np.array(labels), fraction, 0)


@pytest.mark.parametrize("counts", [(90, 10), (5, 5, 5), (1, 2, 100), (7, 0, 3)])
def test_all_classes_count_the_same(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    found = balanced(labels, len(counts))
    totals = found * counts
    assert len(np.unique(totals[np.array(counts) > 0].round(3))) == 1
    np.testing.assert_allclose(found[labels].mean(), 1, rtol=1e-6)
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    present = np.unique(labels)
    expected = sklearn.compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(found[present], expected, rtol=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_keras_with_class_weights(label_smoothing):
    draw = np.random.default_rng(0)
    labels, logits = draw.integers(0, 3, 20), draw.normal(size=(20, 3)).astype(np.float32)
    own = np.array([0.5, 1.0, 2.0], np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.eye(3)[labels] * (1 - label_smoothing) + label_smoothing / 3
    expected = -(targets * np.log(probabilities)).sum(axis=1) * own[labels]
    recipe = Recipe(epochs=1, batch_size=1, label_smoothing=label_smoothing)
    np.testing.assert_allclose(recipe.loss(own)(labels, logits), expected, rtol=1e-5)


def tiny(seed=0):
    def build():
        images = keras.Input((28, 28, 1))
        x = keras.layers.AveragePooling2D(7)(images)
        x = keras.layers.Dropout(0.2, seed=seed)(keras.layers.Flatten()(x))
        initial = keras.initializers.GlorotUniform(seed)
        return keras.Model(
            images, keras.layers.Dense(10, kernel_initializer=initial, name="logits")(x)
        )

    return build


def recipe(**more) -> Recipe:
    given = {"epochs": 12, "batch_size": 50, "optimizer": Adam(learning_rate=0.05)}
    return Recipe(**{**given, "validation_fraction": 0.25, **more})


def test_it_measures_images_that_training_never_sees(small):
    """Counted from the batches, and computed by Keras from what is left."""
    started = Natural().prepare(small.train, tiny(), recipe(epochs=2))
    _, held_out = division(small.train.labels.numpy(), 0.25, 0)
    kept = np.setdiff1d(np.arange(len(small.train)), held_out)
    batches = [*started.batches]
    seen = np.concatenate([images.numpy() for images, _ in batches])
    assert (started.examples, len(seen)) == (len(kept), 2 * len(kept))
    own = small.train.images_at(kept).numpy()
    assert {image.tobytes() for image in seen} == {image.tobytes() for image in own}
    history = fit(started)
    started.model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    images = small.train.images_at(held_out)
    labels = small.train.labels.numpy()[held_out]
    expected = started.model.evaluate(images, labels, verbose=0)
    np.testing.assert_allclose(history[["val_loss", "val_accuracy"]].iloc[-1], expected, rtol=1e-5)


@pytest.mark.parametrize("augment", ["none", "shift"])
def test_held_out_images_are_perturbed_as_in_training(small, augment):
    strategy = Constant(perturbation=Perturbation("hot", 6))
    started = strategy.prepare(small.train, tiny(), recipe(augment=augment))
    _, held_out = division(small.train.labels.numpy(), 0.25, 0)
    natural = small.train.images_at(held_out).numpy()
    perturbed = np.concatenate([images.numpy() for images, _ in started.validation._batches])
    changed = (perturbed != natural).any(axis=-1)
    assert (changed.sum(axis=(1, 2)) <= 6).all() and changed.any(axis=(1, 2)).all()


def stops(started, backup=None, epoch=None):
    """Fits, and may kill the training after an epoch."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, current, logs=None):
            if current == epoch:
                raise KeyboardInterrupt

    return fit(dataclasses.replace(started, callbacks=(*started.callbacks, Stop())), backup=backup)


class Overfits(Natural):
    """Labels of the kept images are wrong from some epoch on."""

    def prepare(self, split, *arguments, **named):
        started = super().prepare(split, *arguments, **named)
        steps, first = started.steps_per_epoch, started.initial_epoch

        def wrong(i, batch):
            images, labels = batch
            late = first + i // steps >= 4
            return images, tf.where(late, (labels + 1) % 10, labels)

        return dataclasses.replace(started, batches=started.batches.enumerate().map(wrong))


@pytest.mark.parametrize("killed", [3, 6])
def test_training_ends_with_the_best_weights_whatever_stopped_it(small, tmp_path, killed):
    asked = recipe(early_stopping=3)
    whole = Overfits().prepare(small.train, tiny(), asked)
    history = fit(whole)
    best = history["val_loss"].idxmin()
    assert best + 4 == len(history) < asked.epochs
    until = Overfits().prepare(small.train, tiny(), dataclasses.replace(asked, epochs=best + 1))
    fit(until)
    assert_same_weights(whole.model, until.model)
    kept = {"directory": tmp_path, "keep_best": True}
    with pytest.raises(KeyboardInterrupt):
        stops(Overfits().prepare(small.train, tiny(), asked), Backup(**kept), killed)
    backup = Backup(**kept)
    assert backup.completed_epochs() == killed
    goes_on = Overfits().prepare(small.train, tiny(), asked, initial_epoch=killed)
    again = fit(goes_on, backup=backup)
    exact = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    pd.testing.assert_frame_equal(again[exact], history[exact])
    assert_same_weights(goes_on.model, whole.model)
    # Stopped once more, before its export: nothing is trained again.
    backup = Backup(**kept)
    ended = Overfits().prepare(small.train, tiny(), asked, initial_epoch=backup.completed_epochs())
    pd.testing.assert_frame_equal(fit(ended, backup=backup)[exact], history[exact])
    assert_same_weights(ended.model, whole.model)
    assert len([*tmp_path.glob("epoch-*.npz")]) == 3


def test_without_the_best_state_a_training_begins_again(small, tmp_path):
    asked = recipe(early_stopping=3)
    backup = Backup(tmp_path, keep_best=True)
    history = fit(Overfits().prepare(small.train, tiny(), asked), backup=backup)
    (tmp_path / f"epoch-{history['val_loss'].idxmin() + 1:05d}.npz").unlink()
    with pytest.warns(UserWarning, match="without the state of epoch .*begins again"):
        assert Backup(tmp_path, keep_best=True).completed_epochs() == 0


def test_a_run_that_stops_early_has_its_columns_and_figure(small, folders):
    run = short(
        small, epochs=6, validation_fraction=0.2, early_stopping=1, class_weight="balanced",
        learning_rate=0.5,
    )  # fmt: skip
    folder = runs.train(run, small, progress=False, **folders)
    history = results.read_history(folder)
    assert [*history] == [*results.HISTORY_COLUMNS, *results.VALIDATION_COLUMNS]
    row = results.read_run(folder)
    best = history["val_loss"].idxmin()
    assert row["train_accuracy"] == history["accuracy"][best]
    assert (row["validation_fraction"], row["early_stopping"]) == (0.2, 1)
    figure = figures.training(history.assign(run=run.name))
    accuracy = figure.axes[0]
    assert "held-out" in accuracy.get_title()
    dotted = [line for line in accuracy.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(dotted[0].get_ydata(), 100 * history["val_accuracy"])
    assert short(small).name != short(small, validation_fraction=0.2).name
    assert short(small).name == short(small, validation_fraction=0, class_weight="none").name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"early_stopping": 2}, "early_stopping=2: expected a validation_fraction besides"),
        ({"validation_fraction": 1}, "validation_fraction=1: expected a part from 0 to below 1"),
        ({"class_weight": "even"}, "class_weight=even: expected one of none, balanced"),
        (
            {"early_stopping": 2, "validation_fraction": 0.1, "weight_average": 0.9},
            "weight_average=0.9: expected 0 with early_stopping",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other(small, given, message):
    with pytest.raises(InvalidArgument, match=message):
        runs.resolve(small, **given)


def test_rare_classes_are_learned_better_with_weights(small):
    """Nine of ten images are of one class; what is left out of the other is found more often."""
    labels = small.train.labels.numpy()
    index = np.concatenate([np.flatnonzero(labels == 1), np.flatnonzero(labels == 7)[:3]])
    split = Split(tf.gather(small.train.images, index), tf.gather(small.train.labels, index))
    found = {}
    for class_weight in ("none", "balanced"):
        asked = recipe(epochs=4, batch_size=8, validation_fraction=0, class_weight=class_weight)
        started = Natural().prepare(split, tiny(), asked)
        fit(started)
        tests = small.test.images_at(np.flatnonzero(small.test.labels.numpy() == 7))
        scores = tf.nn.softmax(started.model(tests)).numpy()
        found[class_weight] = scores[:, 7].mean()
        assert np.isfinite(weights(started.model)[0]).all()
    assert found["balanced"] > found["none"]


def test_the_step_of_each_device_ends_early_too(small):
    """As `keras.Model.fit` does, which several devices do without."""
    asked = recipe(early_stopping=2)
    whole = Overfits().prepare(small.train, tiny(), asked)
    alone = fit(whole)
    other = Overfits().prepare(small.train, tiny(), asked)
    steps = other.steps_per_epoch
    training.compile_model(other.model, asked, steps_per_epoch=steps)
    callbacks = [*other.callbacks, other.validation]
    history = fitting._fit_on_devices(other, callbacks, asked.epochs)
    assert len(history.epoch) == len(alone) < asked.epochs
    np.testing.assert_allclose(history.history["val_loss"], alone["val_loss"], rtol=1e-5)
    assert_same_weights(other.model, whole.model)
