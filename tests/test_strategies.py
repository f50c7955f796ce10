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
from robust_tf.training.callbacks import RAMPS, PerturbedFraction, Ramp
from robust_tf.training.strategies import STRATEGIES, Settings, constant, incremental, natural

HOT = Perturbation("hot", 1)


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
    settings, recorder = training.settings, Recorder()
    recorder.compile(run_eagerly=True)
    epochs = []

    class Cut(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append(list(recorder.seen))
            recorder.seen.clear()

    recorder.fit(
        training.batches,
        epochs=settings.epochs,
        initial_epoch=settings.initial_epoch,
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
    settings = Settings(epochs=7, batch_size=batch_size, perturbation=HOT, ramp=ramp)
    counts = perturbed_counts(fit(incremental(black(examples), no_model, settings)))
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
    settings = Settings(epochs=6, batch_size=20, perturbation=HOT, ramp=Ramp(0.0, 1.0))
    training = incremental(black(120), no_model, settings)
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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(strategy):
    settings = Settings(epochs=3, batch_size=8, perturbation=HOT)
    epochs = fit(STRATEGIES[strategy](black(50), no_model, settings))
    orders = [np.concatenate([labels for _, labels in batches]) for batches in epochs]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert (orders[0] != orders[1]).any() and (orders[1] != orders[2]).any()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("fresh", [False, True])
def test_batches_from_a_later_epoch_are_those_of_the_whole_training(strategy, fresh):
    settings = Settings(epochs=4, batch_size=8, seed=3, perturbation=HOT, fresh=fresh)
    whole = fit(STRATEGIES[strategy](black(30), no_model, settings))
    later = Settings(**{**vars(settings), "initial_epoch": 2})
    rest = fit(STRATEGIES[strategy](black(30), no_model, later))
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
    settings = Settings(epochs=3, batch_size=8, seed=1, perturbation=HOT)
    seen = images_by_example(fit(constant(black(50), no_model, settings)))
    seeds = example_seeds(stream_seed(1, "training perturbation"), tf.range(50))
    expected = HOT(tf.zeros([50, 6, 5, 1]), seeds)
    for epoch in seen:
        np.testing.assert_array_equal(epoch, expected)


def test_fresh_draws_anew_in_every_epoch():
    settings = Settings(epochs=3, batch_size=8, seed=1, perturbation=HOT, fresh=True)
    seen = images_by_example(fit(constant(black(50), no_model, settings)))
    np.testing.assert_array_equal(seen.sum(axis=(2, 3, 4)), 1)
    base = stream_seed(1, "training perturbation")
    for epoch in range(3):
        expected = HOT(tf.zeros([50, 6, 5, 1]), example_seeds(base, tf.range(50), epoch))
        np.testing.assert_array_equal(seen[epoch], expected)
    assert (seen[0] != seen[1]).any() and (seen[1] != seen[2]).any()


def test_images_too_many_to_keep_in_memory_are_the_same(monkeypatch):
    settings = Settings(epochs=2, batch_size=8, perturbation=Perturbation("stuck", 3))
    kept = images_by_example(fit(constant(black(50), no_model, settings)))
    monkeypatch.setattr("robust_tf.training.strategies._CACHE_BYTES", 0)
    computed = images_by_example(fit(constant(black(50), no_model, settings)))
    np.testing.assert_array_equal(kept, computed)


def test_incremental_shows_the_images_of_constant_or_natural(small):
    settings = Settings(epochs=3, batch_size=50, perturbation=Perturbation("stuck", 3))
    numbered = Split(small.train.images, tf.range(200, dtype=tf.int64))
    mixed = images_by_example(fit(incremental(numbered, no_model, settings)))
    perturbed = images_by_example(fit(constant(numbered, no_model, settings)))
    plain = images_by_example(fit(natural(numbered, no_model, settings)))
    is_perturbed = (mixed == perturbed).all(axis=(2, 3, 4))
    is_natural = (mixed == plain).all(axis=(2, 3, 4))
    assert (is_perturbed ^ is_natural).all()
    assert is_perturbed.sum(axis=1).tolist() == [4 * 3, 4 * 25, 4 * 48]


@pytest.mark.parametrize(
    ("strategy", "presented"),
    [("natural", False), ("constant", True), ("incremental", False), ("transfer", True)],
)
def test_whose_statistics_standardise(small, strategy, presented):
    settings = Settings(epochs=1, batch_size=50, perturbation=Perturbation("hot", 9))
    training = STRATEGIES[strategy](
        small.train, lambda: models.build("mnist_cnn", (28, 28, 1), 10), settings
    )
    images = small.train.images_at(tf.range(200))
    if presented:
        seeds = example_seeds(stream_seed(0, "training perturbation"), tf.range(200))
        images = settings.perturbation(images, seeds)
    mean = training.model.get_layer("standardization").mean
    np.testing.assert_allclose(mean, images.numpy().mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("strategy", ["constant", "incremental", "transfer"])
def test_a_perturbation_is_needed_and_must_fit(strategy):
    make = STRATEGIES[strategy]
    with pytest.raises(InvalidArgument, match="^perturb: expected a perturbation"):
        make(black(9), no_model, Settings(epochs=1, batch_size=3))
    large = Settings(epochs=1, batch_size=3, perturbation=Perturbation("hot", 31))
    with pytest.raises(InvalidArgument, match="level=31: expected .* from 1 to 30"):
        make(black(9), no_model, large)


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
    settings = Settings(
        epochs=5,
        batch_size=20,
        perturbation=HOT,
        ramp=Ramp(0.0, 1 - 1 / 5),
        shuffle=False,
        drop_remainder=True,
    )
    training = incremental(black(50), no_model, settings)
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
    settings = Settings(epochs=6, batch_size=20, drop_remainder=True)
    epochs = fit(natural(black(50), no_model, settings))
    kept = [frozenset(np.concatenate([labels for _, labels in epoch])) for epoch in epochs]
    assert {len(labels) for labels in kept} == {40}
    assert len(set(kept)) > 1
