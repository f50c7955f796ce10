"""The counts and contents of batches, as `model.fit` sees them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from robust_tf import models
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.seeds import stream_seed
from robust_tf.training import (
    RAMPS,
    STRATEGIES,
    Constant,
    Incremental,
    Natural,
    PerturbedFraction,
    Ramp,
    Recipe,
    Strategy,
    Transfer,
)

HOT = Perturbation("hot", 1)


def strategies(perturbation=HOT, **settings) -> list[Strategy]:
    """One of each, with settings for those that perturb."""
    return [
        Natural() if kind is Natural else kind(perturbation=perturbation, **settings)
        for kind in STRATEGIES.values()
    ]


def by_name(strategy) -> str:
    return type(strategy).__name__


def black(count: int) -> Split:
    """Black images, so that a hot pixel tells a perturbed one; labels are the indices."""
    return Split(tf.zeros([count, 6, 5, 1], tf.uint8), tf.range(count, dtype=tf.int64))


@keras.saving.register_keras_serializable("tests")
class Recorder(keras.Model):
    """Stands for a model and records the batches that `train_step` gets from `fit`."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def train_step(self, data):
        images, labels = data
        self.seen.append((images.numpy(), labels.numpy()))
        return {"loss": tf.constant(0.0)}


def fit(training) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Fits a recorder as `training.fit` does; returns the batches by epoch."""
    recorder = Recorder()
    recorder.compile(run_eagerly=True)
    epochs = []

    class Cut(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append(list(recorder.seen))
            recorder.seen.clear()

    recorder.fit(
        training.batches,
        epochs=training.recipe.epochs,
        initial_epoch=training.initial_epoch,
        steps_per_epoch=training.steps_per_epoch,
        callbacks=[*training.callbacks, Cut()],
        shuffle=False,
        verbose=0,
    )
    return epochs


def no_model():
    return keras.Sequential([keras.Input((6, 5, 1))])


def perturbed_counts(epochs) -> list[list[int]]:
    return [[int(images.any(axis=(1, 2, 3)).sum()) for images, _ in batches] for batches in epochs]


@pytest.mark.parametrize("ramp", [Ramp(0.05, 0.95, shape) for shape in RAMPS] + [Ramp(1.0, 0.0)])
@pytest.mark.parametrize(("examples", "batch_size"), [(60, 20), (50, 20), (37, 37), (9, 1)])
def test_every_batch_of_a_ramp_holds_the_exact_count(ramp, examples, batch_size):
    recipe = Recipe(epochs=7, batch_size=batch_size)
    strategy = Incremental(perturbation=HOT, ramp=ramp)
    counts = perturbed_counts(fit(strategy.prepare(black(examples), no_model, recipe)))
    sizes = [min(batch_size, examples - i) for i in range(0, examples, batch_size)]
    fractions = ramp.fractions(7)
    assert counts == [[int(f * size + 0.5) for size in sizes] for f in fractions]


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_the_count_is_exact_inside_keras_own_train_function(steps_per_execution):
    """The same through the compiled train function, where Keras makes iterators early."""

    class Counter(keras.Model):
        def train_step(self, data):
            perturbed = tf.reduce_any(data[0] > 0, axis=(1, 2, 3))
            self.total.assign_add(tf.math.count_nonzero(perturbed))
            return {"perturbed": tf.math.count_nonzero(perturbed)}

    model = Counter()
    model.total = tf.Variable(0, dtype=tf.int64)
    model.compile(steps_per_execution=steps_per_execution, jit_compile=False)
    strategy = Incremental(perturbation=HOT, ramp=Ramp(0.0, 1.0))
    training = strategy.prepare(black(120), no_model, Recipe(epochs=6, batch_size=20))
    totals = []
    seen = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: totals.append(int(model.total.numpy()))
    )
    history = model.fit(
        training.batches,
        epochs=6,
        steps_per_epoch=training.steps_per_epoch,
        callbacks=[*training.callbacks, seen],
        shuffle=False,
        verbose=0,
    ).history
    fractions = Ramp(0.0, 1.0).fractions(6)
    expected = [6 * int(f * 20 + 0.5) for f in fractions]
    assert np.diff([0, *totals]).tolist() == expected
    assert history["perturbed_fraction"] == pytest.approx(fractions.tolist())


@pytest.mark.parametrize("strategy", strategies(), ids=by_name)
def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(strategy):
    epochs = fit(strategy.prepare(black(50), no_model, Recipe(epochs=3, batch_size=8)))
    orders = [np.concatenate([labels for _, labels in batches]) for batches in epochs]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert (orders[0] != orders[1]).any() and (orders[1] != orders[2]).any()


@pytest.mark.parametrize("strategy", [*strategies(), *strategies(fresh=True)[1:]], ids=str)
def test_batches_from_a_later_epoch_are_those_of_the_whole_training(strategy):
    recipe = Recipe(epochs=4, batch_size=8)
    whole = fit(strategy.prepare(black(30), no_model, recipe, seed=3))
    rest = fit(strategy.prepare(black(30), no_model, recipe, seed=3, initial_epoch=2))
    assert len(rest) == 2
    for a, b in zip(whole[2:], rest, strict=True):
        for (images, labels), (images_b, labels_b) in zip(a, b, strict=True):
            np.testing.assert_array_equal(images, images_b)
            np.testing.assert_array_equal(labels, labels_b)


def images_by_example(epochs) -> np.ndarray:
    """[epochs, examples, H, W, C]."""
    ordered = []
    for batches in epochs:
        images = np.concatenate([images for images, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        ordered.append(images[np.argsort(labels)])
    return np.stack(ordered)


def test_constant_shows_the_same_perturbation_in_every_epoch():
    strategy, recipe = Constant(perturbation=HOT), Recipe(epochs=3, batch_size=8)
    seen = images_by_example(fit(strategy.prepare(black(50), no_model, recipe, seed=1)))
    seeds = example_seeds(stream_seed(1, "training perturbation"), tf.range(50))
    expected = HOT(tf.zeros([50, 6, 5, 1]), seeds)
    for epoch in seen:
        np.testing.assert_array_equal(epoch, expected)


def test_fresh_draws_anew_in_every_epoch():
    strategy, recipe = Constant(perturbation=HOT, fresh=True), Recipe(epochs=3, batch_size=8)
    seen = images_by_example(fit(strategy.prepare(black(50), no_model, recipe, seed=1)))
    np.testing.assert_array_equal(seen.sum(axis=(2, 3, 4)), 1)
    base = stream_seed(1, "training perturbation")
    for epoch in range(3):
        expected = HOT(tf.zeros([50, 6, 5, 1]), example_seeds(base, tf.range(50), epoch))
        np.testing.assert_array_equal(seen[epoch], expected)
    assert (seen[0] != seen[1]).any() and (seen[1] != seen[2]).any()


def test_images_too_many_to_keep_in_memory_are_the_same(monkeypatch):
    strategy = Constant(perturbation=Perturbation("stuck", 3))
    recipe = Recipe(epochs=2, batch_size=8)
    kept = images_by_example(fit(strategy.prepare(black(50), no_model, recipe)))
    monkeypatch.setattr("robust_tf.training.batches._CACHE_BYTES", 0)
    computed = images_by_example(fit(strategy.prepare(black(50), no_model, recipe)))
    np.testing.assert_array_equal(kept, computed)


def test_incremental_shows_the_images_of_constant_or_natural(small):
    recipe = Recipe(epochs=3, batch_size=50)
    numbered = Split(small.train.images, tf.range(200, dtype=tf.int64))
    plain, perturbed, mixed, _ = (
        images_by_example(fit(strategy.prepare(numbered, no_model, recipe)))
        for strategy in strategies(Perturbation("stuck", 3))
    )
    is_perturbed = (mixed == perturbed).all(axis=(2, 3, 4))
    is_natural = (mixed == plain).all(axis=(2, 3, 4))
    assert (is_perturbed ^ is_natural).all()
    assert is_perturbed.sum(axis=1).tolist() == [4 * 3, 4 * 25, 4 * 48]


@pytest.mark.parametrize(
    ("strategy", "adapted_to"),
    [
        (Natural(), "natural"),
        (Constant(perturbation=Perturbation("hot", 9)), "perturbed"),
        (Incremental(perturbation=Perturbation("hot", 9)), "natural"),
        (Transfer(perturbation=Perturbation("hot", 9)), "perturbed"),
        (Transfer(perturbation=Perturbation("hot", 9), keep_standardization=True), "nothing"),
        (Transfer(perturbation=Perturbation("hot", 9), freeze_base=True), "nothing"),
    ],
    ids=str,
)
def test_whose_statistics_standardise(small, strategy, adapted_to):
    recipe = Recipe(epochs=1, batch_size=50)
    training = strategy.prepare(
        small.train, lambda: models.build("mnist_cnn", (28, 28, 1), 10), recipe
    )
    images = small.train.images_at(tf.range(200))
    if adapted_to == "perturbed":
        seeds = example_seeds(stream_seed(0, "training perturbation"), tf.range(200))
        images = strategy.perturbation(images, seeds)
    expected = np.zeros((28, 28, 1)) if adapted_to == "nothing" else images.numpy().mean(axis=0)
    mean = training.model.get_layer("standardization").mean
    np.testing.assert_allclose(mean, expected, atol=1e-6)


@pytest.mark.parametrize("kind", [Constant, Incremental, Transfer])
def test_a_perturbation_is_needed_and_must_fit(kind):
    with pytest.raises(TypeError, match="perturbation"):
        kind()
    large = kind(perturbation=Perturbation("hot", 31))
    with pytest.raises(InvalidArgument, match="level=31: expected .* from 1 to 30"):
        large.prepare(black(9), no_model, Recipe(epochs=1, batch_size=3))


def test_extra_pixels_are_perturbed_beyond_the_level():
    more = Constant(perturbation=Perturbation("hot", 2), extra_pixels=1)
    assert more.applied == Perturbation("hot", 3)
    epochs = fit(more.prepare(black(6), no_model, Recipe(epochs=1, batch_size=3)))
    assert [int(images.sum()) for images, _ in epochs[0]] == [9, 9]
    assert Constant(perturbation=HOT).extra_pixels == 0
    assert Constant(perturbation=Perturbation("blur", 1.0)).extra_pixels is None
    with pytest.raises(InvalidArgument, match="extra_pixels=1: expected no value with perturb=blu"):
        Constant(perturbation=Perturbation("blur", 1.0), extra_pixels=1)


def test_ramp_shapes():
    np.testing.assert_allclose(Ramp(0.0, 1.0).fractions(5), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(Ramp(0.2, 0.6, "step").fractions(4), [0.2, 0.2, 0.6, 0.6])
    cosine = Ramp(0.0, 1.0, "cosine").fractions(5)
    np.testing.assert_allclose(cosine, (1 - np.cos(np.pi * np.arange(5) / 4)) / 2)
    assert Ramp().fractions(1).tolist() == [0.05]
    assert Ramp().fractions(50)[[0, -1]].tolist() == pytest.approx([0.05, 0.95])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"start": -0.1}, "ramp_start=-0.1: expected a fraction from 0 to 1"),
        ({"end": 1.5}, "ramp_end=1.5: expected a fraction from 0 to 1"),
        ({"end": float("nan")}, "ramp_end=nan: expected a fraction from 0 to 1"),
        ({"shape": "cubic"}, "ramp=cubic: expected one of linear, cosine, step"),
    ],
)
def test_bad_ramps(kwargs, message):
    with pytest.raises(InvalidArgument, match=message):
        Ramp(**kwargs)


def test_the_fraction_rounds_half_up():
    fraction = PerturbedFraction(Ramp(0.5, 0.5), epochs=2)
    assert [int(fraction.count(0, size)) for size in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]


def test_without_shuffling_batches_are_in_order_and_the_rest_is_dropped():
    strategy = Incremental(perturbation=HOT, ramp=Ramp(0.0, 1 - 1 / 5))
    recipe = Recipe(epochs=5, batch_size=20, shuffle=False, drop_remainder=True)
    training = strategy.prepare(black(50), no_model, recipe)
    assert (training.steps_per_epoch, training.examples) == (2, 40)
    epochs = fit(training)
    for epoch, batches in enumerate(epochs):
        labels = [label for _, labels in batches for label in labels]
        assert labels == list(range(40))
        for images, _ in batches:
            # The published ramp: ⌊e/E · batch⌋ images, a contiguous slice.
            perturbed = images.any(axis=(1, 2, 3))
            assert perturbed.tolist() == [i < epoch * 20 // 5 for i in range(20)]


def test_dropping_the_remainder_of_a_shuffled_epoch_drops_others_each_time():
    recipe = Recipe(epochs=6, batch_size=20, drop_remainder=True)
    epochs = fit(Natural().prepare(black(50), no_model, recipe))
    kept = [frozenset(np.concatenate([labels for _, labels in epoch])) for epoch in epochs]
    assert {len(labels) for labels in kept} == {40}
    assert len(set(kept)) > 1
