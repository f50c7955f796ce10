"""The small network beyond the paper, and the recipe that trains it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from robust_tf import data as data_lib
from robust_tf import models, runs, saved_models, settings
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator
from robust_tf.evaluation import Natural as NaturalImages
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.seeds import stream_seed
from robust_tf.training import (
    SGD,
    STRATEGIES,
    AdamW,
    Backup,
    Constant,
    Natural,
    Recipe,
    compile_model,
    fit,
)
from robust_tf.training.augmentations import augment
from tests.helpers import assert_same_weights, small_network


def recipe(epochs=4, **changed) -> Recipe:
    """The one of the network, for a training of sixty images."""
    usual = {
        "batch_size": 15,
        "optimizer": SGD(learning_rate=0.1, weight_decay=5e-4),
        "schedule": "one_cycle",
        "label_smoothing": 0.1,
        "weight_average": 0.9,
        "augment": "flip,shift",
    }
    return Recipe(epochs=epochs, **usual | changed)


@pytest.fixture(scope="module")
def colours() -> data_lib.Data:
    """Sixty colour images of two classes that are easy to tell apart: reddish and bluish."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 90)
    images = random.integers(0, 150, (90, 16, 16, 3))
    images[..., 0] += 90 * (labels == 0)[:, None, None]
    images[..., 2] += 90 * (labels == 1)[:, None, None]
    whole = data_lib.Split(tf.constant(images, tf.uint8), tf.constant(labels, tf.int64))
    rest = data_lib.Split(whole.images[60:], whole.labels[60:])
    return data_lib.Data("colours", "tfds", whole.first(60), rest, ("red", "blue"))


def small_compact() -> keras.Model:
    return small_network((16, 16, 3), 2, standardize="global", mirror=True, seed=1)


def trained(data, directory=None, epochs=4, callbacks=()):
    backup = Backup(directory) if directory else None
    started = Natural().prepare(
        data.train,
        small_compact,
        recipe(epochs),
        initial_epoch=backup.completed_epochs() if backup else 0,
    )
    started = dataclasses.replace(started, callbacks=(*started.callbacks, *callbacks))
    history = fit(started, backup=backup)
    return started.model, history


def test_a_trained_one_comes_back_whatever_trained_it(colours, tmp_path):
    model, _ = trained(colours, epochs=1)
    folder = saved_models.export(model, tmp_path / "m", label_names=["red", "blue"], training={})
    images = colours.test.images_at(tf.range(30))
    np.testing.assert_allclose(saved_models.load(folder)(images), model(images), atol=1e-5)


def test_models_of_one_architecture_share_traces_and_not_weights(colours):
    accuracies = []
    for seed in range(3):
        model = models.build("compact", (16, 16, 3), 2, mirror=True, seed=seed)
        expected = np.argmax(model(colours.test.images_at(tf.range(30))), axis=1)
        np.testing.assert_array_equal(
            Evaluator(model, colours.test).predictions(NaturalImages()), expected
        )
        accuracies.append(expected.tolist())
    assert len({tuple(found) for found in accuracies}) > 1


def test_the_recipe_learns(colours):
    model, history = trained(colours, epochs=8)
    assert Evaluator(model, colours.test).accuracy(NaturalImages()) > 0.9
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_a_stopped_training_goes_on_with_rate_and_average(colours, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    expected, _ = trained(colours)
    with pytest.raises(KeyboardInterrupt):
        trained(colours, tmp_path, callbacks=[Stop()])
    assert Backup(tmp_path).completed_epochs() == 2
    for _ in range(2):  # goes on; then finds that nothing is left to do
        model, _ = trained(colours, tmp_path)
        assert_same_weights(model, expected)


def test_one_cycle_rises_and_falls():
    optimizer = recipe(optimizer=SGD(learning_rate=0.4)).make_optimizer(100)
    rate = optimizer._learning_rate
    rates = np.array([float(rate(step)) for step in range(101)])
    assert rates[0] == pytest.approx(0.04)
    assert rates.argmax() == 20 and rates.max() == pytest.approx(0.4)
    assert (np.diff(rates[:21]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    assert rates[60] == pytest.approx(0.2) and rates[100] == pytest.approx(0, abs=1e-7)


def test_label_smoothing_is_a_cross_entropy_with_a_mixture():
    logits = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0, 1, 2])
    targets = 0.8 * np.eye(4)[labels] + 0.2 / 4
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -(targets * logs).sum(axis=1)
    loss = recipe(label_smoothing=0.2).loss()
    np.testing.assert_allclose(loss(labels, logits), expected, rtol=1e-5)


def test_the_trained_weights_are_the_average():
    """Of two steps, by hand."""
    inputs = keras.Input([1])
    layer = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
    model = keras.Model(inputs, layer(inputs))
    of_steps = Recipe(epochs=1, batch_size=1, optimizer=SGD(learning_rate=1.0), weight_average=0.75)
    compile_model(model, of_steps, steps_per_epoch=1)
    seen = []
    each = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(layer.kernel.numpy())
    )
    images, labels = np.ones((2, 1), np.float32), np.zeros(2, np.int64)
    model.fit(images, labels, batch_size=1, shuffle=False, verbose=0, callbacks=[each])
    first, second = seen
    average = 0.75 * first + 0.25 * second  # begins with what the first step made
    np.testing.assert_allclose(layer.kernel.numpy(), average, rtol=1e-6)


def test_the_sensor_does_not_move_with_the_scene():
    """A hot pixel of a training image stays where it is while the scene is shifted."""
    images = np.tile(np.arange(16, dtype=np.uint8)[:, None, None], (20, 1, 16, 1)) * 10
    split = data_lib.Split(tf.constant(images), tf.range(20, dtype=tf.int64))
    strategy = Constant(perturbation=Perturbation("hot", 2))
    started = strategy.prepare(
        split,
        lambda: keras.Sequential([keras.Input((16, 16, 1))]),
        recipe(epochs=3, batch_size=20, shuffle=False),
    )
    epochs = [batch.numpy() for batch, _ in started.batches]
    hot = [batch == 1 for batch in epochs]
    assert hot[0].sum() == 2 * 20
    for other in hot[1:]:
        np.testing.assert_array_equal(other, hot[0])
    assert (epochs[0] != epochs[1]).any(axis=(1, 2, 3)).mean() > 0.5
    # As the parts that it consists of say.
    index = tf.range(20)
    scene = example_seeds(stream_seed(0, "augmentation"), index, 1)
    sensor = example_seeds(stream_seed(0, "training perturbation"), index)
    expected = augment(split.images_at(index), scene, ("flip", "shift"))
    np.testing.assert_array_equal(epochs[1], strategy.perturbation(expected, sensor))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("perturb", ["hot", "all"])
def test_all_strategies_work_with_it(colours, strategy, perturb):
    given = {"model": "compact"}
    given |= {} if strategy == "natural" else {"strategy": strategy, "perturb": perturb}
    run = runs.resolve(colours, **given)
    flat = settings.flatten(run)
    assert (flat["optimizer"], flat["augment"]) == ("sgd", "flip,shift")
    assert (run.standardize, run.recipe.batch_size) == ("global", 6)
    model = run.build_model(colours)
    assert {"with_mirrored", "mean_of_mirrored"} <= {layer.name for layer in model.layers}
    assert run.columns()["beta_1"] is None  # which SGD has not
    with pytest.raises(InvalidArgument, match="beta_1=0.3: expected no value with optimizer=sgd"):
        runs.resolve(colours, **given, beta_1=0.3)
    published = runs.resolve(colours, **given, preset="published")  # whose beta_1 is left out
    presented = {"shuffle": False, "drop_remainder": True}
    assert published.recipe == dataclasses.replace(run.recipe, **presented)


def test_images_of_one_channel_are_not_mirrored(small):
    run = runs.resolve(small, model="compact")
    assert run.recipe.augment == "shift"
    assert "with_mirrored" not in [layer.name for layer in run.build_model(small).layers]
    assert runs.resolve(small, model="compact", augment="flip").recipe.augment == "flip"


def test_another_optimizer_has_rate_and_decay_of_its_own(small):
    def optimizer(**given):
        return runs.resolve(small, **given).recipe.optimizer

    adam = optimizer(model="compact", optimizer="adam")
    assert adam.learning_rate == 0.001 and not hasattr(adam, "weight_decay")
    assert optimizer(model="compact", optimizer="adamw") == AdamW(weight_decay=5e-4)
    assert optimizer(optimizer="adamw").learning_rate == 0.05
    assert optimizer(optimizer="sgd").learning_rate == 0.01


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "lion"}, "optimizer=lion: expected one of adam, adamw, sgd"),
        ({"schedule": "step"}, "schedule=step: expected one of constant, one_cycle"),
        ({"augment": "turn"}, "augment=turn: expected none, or some of flip, shift"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: expected a number from 0 on"),
        ({"weight_decay": 0.1}, "weight_decay=0.1: expected no value with optimizer=adam"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: expected a number from 0 to below 1"),
        ({"weight_average": 1.0}, "weight_average=1.0: expected a number from 0 to below 1"),
    ],
)
def test_what_is_not_allowed(small, given, message):
    with pytest.raises(InvalidArgument, match=message):
        runs.resolve(small, **given)


def test_the_papers_runs_keep_their_names(small):
    """The settings that came later are not part of a name unless they are used."""
    usual = runs.resolve(small)
    assert runs.resolve(small, optimizer="adam", augment="none").name == usual.name
    assert runs.resolve(small, schedule="one_cycle").name != usual.name


@pytest.mark.full_data
def test_it_learns_cifar10_in_seconds():
    data = data_lib.load("cifar10", train_examples=1500, test_examples=500)
    run = runs.resolve(data, model="compact", epochs=2, batch_size=50)
    started = run.strategy.prepare(data.train, lambda: run.build_model(data), run.recipe)
    fit(started)
    assert Evaluator(started.model, data.test).accuracy(NaturalImages()) > 0.3


def test_a_sweep_takes_it(in_process):
    flags = [
        "--datasets=mnist,mnist",
        "--data_source=sample",
        "--strategies=constant",
        "--perturbs=blur",
    ]
    done = in_process(*flags, "--model=compact", "--dry_run", pipeline="pipelines.grid")
    assert done.returncode == 0, done.stderr
    assert "6 models" in done.stdout
