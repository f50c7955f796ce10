"""The small network beyond the paper, and the recipe that trains it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from robust_tf import data as data_lib
from robust_tf import models, saved_models
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator, Natural
from robust_tf.models import blocks
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.runs.declaration import Options
from robust_tf.seeds import stream_seed
from robust_tf.training import Recipe, compile_model, fit
from robust_tf.training.augmentations import augment
from robust_tf.training.callbacks import Backup
from robust_tf.training.strategies import STRATEGIES, Settings, constant, natural

RECIPE = Recipe("sgd", "one_cycle", weight_decay=5e-4, label_smoothing=0.1, weight_average=0.9)


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
    """Two convolutions of it."""
    how = {"precision": "float32", "seed": 1}
    images, x = blocks.inputs((16, 16, 3), standardize="global", mirror=True)
    x = blocks.convolution(x, "conv_1", filters=8, kernel=3, **how)
    x = blocks.activated(x, 1, precision="float32")
    before = blocks.pooled(x, 1, precision="float32")
    x = blocks.convolution(before, "conv_2", filters=8, kernel=3, **how)
    x = blocks.added(before, blocks.activated(x, 2, precision="float32"), 2, precision="float32")
    x = keras.layers.GlobalMaxPooling2D(name="global_pool")(x)
    x = keras.layers.Rescaling(0.125, name="scale")(x)
    return blocks.classifier(images, x, 2, name="cnn", mirror=True, **how)


def trained(data, directory=None, epochs=4, initial_recipe=RECIPE):
    backup = Backup(directory) if directory else None
    settings = Settings(
        epochs=epochs,
        batch_size=15,
        augment=("flip", "shift"),
        initial_epoch=backup.completed_epochs() if backup else 0,
    )
    started = natural(data.train, small_compact, settings)
    history = fit(started, learning_rate=0.1, beta_1=0.9, recipe=initial_recipe, backup=backup)
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
            Evaluator(model, colours.test).predictions(Natural()), expected
        )
        accuracies.append(expected.tolist())
    assert len({tuple(found) for found in accuracies}) > 1


def test_the_recipe_learns(colours):
    model, history = trained(colours, epochs=8)
    assert Evaluator(model, colours.test).accuracy(Natural()) > 0.9
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_a_stopped_training_goes_on_with_rate_and_average(colours, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    expected, _ = trained(colours)
    settings = Settings(epochs=4, batch_size=15, augment=("flip", "shift"))
    started = natural(colours.train, small_compact, settings)
    stopped = type(started)(**{**vars(started), "callbacks": (Stop(),)})
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, learning_rate=0.1, beta_1=0.9, recipe=RECIPE, backup=Backup(tmp_path))
    assert Backup(tmp_path).completed_epochs() == 2
    for _ in range(2):  # goes on; then finds that nothing is left to do
        model, _ = trained(colours, tmp_path)
        for a, b in zip(model.weights, expected.weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_cycle_rises_and_falls():
    optimizer = Recipe("sgd", "one_cycle").make_optimizer(0.4, 0.9, steps=100)
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
    loss = Recipe(label_smoothing=0.2).loss()
    np.testing.assert_allclose(loss(labels, logits), expected, rtol=1e-5)


def test_the_trained_weights_are_the_average():
    """Of two steps, by hand."""
    inputs = keras.Input([1])
    layer = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
    model = keras.Model(inputs, layer(inputs))
    compile_model(model, learning_rate=1.0, beta_1=0.9, recipe=Recipe("sgd", weight_average=0.75))
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
    settings = Settings(
        epochs=3,
        batch_size=20,
        shuffle=False,
        perturbation=Perturbation("hot", 2),
        augment=("flip", "shift"),
    )
    started = constant(split, lambda: keras.Sequential([keras.Input((16, 16, 1))]), settings)
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
    np.testing.assert_array_equal(epochs[1], settings.perturbation(expected, sensor))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("perturb", ["hot", "all"])
def test_all_strategies_work_with_it(colours, strategy, perturb):
    asked = {} if strategy == "natural" else {"strategy": strategy, "perturb": perturb}
    run = Options(model="compact", **asked).resolve(colours)
    assert (run.optimizer, run.augment, run.standardize) == ("sgd", "flip,shift", "global")
    assert run.batch_size == 6
    model = run.build_model(colours)
    assert {"with_mirrored", "mean_of_mirrored"} <= {layer.name for layer in model.layers}
    again = Options(model="compact", **asked, preset="published", beta_1=0.3).resolve(colours)
    assert run.columns()["beta_1"] is None  # which SGD has not
    if strategy == "natural":
        assert again.recipe == run.recipe


def test_images_of_one_channel_are_not_mirrored(small):
    run = Options(model="compact").resolve(small)
    assert run.augment == "shift"
    assert "with_mirrored" not in [layer.name for layer in run.build_model(small).layers]
    assert Options(model="compact", augment="flip").resolve(small).augment == "flip"


def test_another_optimizer_has_rate_and_decay_of_its_own(small):
    adam = Options(model="compact", optimizer="adam").resolve(small)
    assert (adam.learning_rate, adam.weight_decay) == (0.001, 0.0)
    adamw = Options(model="compact", optimizer="adamw").resolve(small)
    assert (adamw.learning_rate, adamw.weight_decay) == (0.001, 5e-4)
    assert Options(optimizer="adamw").resolve(small).learning_rate == 0.05
    assert Options(optimizer="sgd").resolve(small).learning_rate == 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "lion"}, "optimizer=lion: expected one of adam, adamw, sgd"),
        ({"schedule": "step"}, "schedule=step: expected one of constant, one_cycle"),
        ({"augment": "turn"}, "augment=turn: expected none, or some of flip, shift"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: expected a number from 0 on"),
        ({"weight_decay": 0.1}, "weight_decay=0.1: expected 0 with optimizer=adam"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: expected a number from 0 to below 1"),
        ({"weight_average": 1.0}, "weight_average=1.0: expected a number from 0 to below 1"),
    ],
)
def test_what_is_not_allowed(small, options, message):
    with pytest.raises(InvalidArgument, match=message):
        Options(**options).resolve(small)


def test_the_papers_runs_keep_their_names(small):
    """The settings that came later are not part of a name unless they are used."""
    usual = Options().resolve(small)
    assert Options(optimizer="adam", augment="none").resolve(small).name == usual.name
    assert Options(schedule="one_cycle").resolve(small).name != usual.name


@pytest.mark.full_data
def test_it_learns_cifar10_in_seconds():
    data = data_lib.load("cifar10", train_examples=4000, test_examples=500)
    run = Options(model="compact", epochs=2).resolve(data)
    settings = Settings(epochs=2, batch_size=100, augment=("flip", "shift"))
    started = natural(data.train, lambda: run.build_model(data), settings)
    fit(started, learning_rate=run.learning_rate, beta_1=0.9, recipe=run.recipe)
    assert Evaluator(started.model, data.test).accuracy(Natural()) > 0.35


def test_a_sweep_takes_it(command):
    flags = [
        "--datasets=mnist,mnist",
        "--data_source=sample",
        "--strategies=constant",
        "--perturbs=blur",
    ]
    done = command(*flags, "--model=compact", "--dry_run", pipeline="pipelines.grid")
    assert done.returncode == 0, done.stderr
    assert "6 models" in done.stdout
