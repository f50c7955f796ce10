"""One model on several devices: two logical CPUs."""

import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from robust_tf import data as data_lib
from robust_tf import models, training
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator, Natural
from robust_tf.perturbations import Perturbation
from robust_tf.training import Adam, AdamW, Incremental, Ramp, Recipe, devices
from tests.helpers import check_one_line

BATCH, EPOCHS = 400, 4


def train(count: int, dropout: float, path: str) -> None:
    """What the tests compare; in a process whose CPU is that many devices."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    tf.config.set_logical_device_configuration(cpu, parts)
    dataset = data_lib.load("mnist", data_source="sample")
    distribution = devices.create("mirrored" if count > 1 else "none")

    def build():
        return models.build("mnist_cnn", (28, 28, 1), 10, dropout=dropout)

    if dropout:
        recipe = Recipe(epochs=EPOCHS, batch_size=BATCH, optimizer=Adam(learning_rate=0.05))
    else:
        recipe = Recipe(
            epochs=EPOCHS,
            batch_size=BATCH,
            optimizer=AdamW(learning_rate=0.05, weight_decay=0.01),
            schedule="one_cycle",
            label_smoothing=0.1,
            weight_average=0.5,
        )
    # It changes every image.
    strategy = Incremental(perturbation=Perturbation("stuck", 3))
    started = strategy.prepare(dataset.train, build, recipe, distribution=distribution)
    assert distribution.num_replicas_in_sync == count
    images, labels = [], []
    for batch in started.batches:
        of_devices = [distribution.experimental_local_results(part) for part in batch]
        assert all(len(part) == BATCH // count for parts in of_devices for part in parts)
        # Of R devices each has every R-th image.
        images.append(np.stack(of_devices[0], axis=1).reshape(BATCH, 28, 28, 1))
        labels.append(np.stack(of_devices[1], axis=1).reshape(BATCH))
    history = training.fit(started)
    model = devices.on_one_device(started.model, build)
    accuracy = Evaluator(model, dataset.test).accuracy(Natural())
    weights = np.concatenate([np.ravel(weight) for weight in model.trainable_weights])
    natural = np.stack([dataset.train.images_at(tf.range(len(dataset.train)))])[0]
    np.savez(
        path,
        images=np.stack(images),
        labels=np.stack(labels),
        natural=natural,
        loss=history["loss"],
        fraction=history["perturbed_fraction"],
        accuracy=accuracy,
        weights=weights,
    )


@pytest.fixture(scope="module")
def trained(forks, tmp_path_factory):
    """What `train` left, by number of devices and dropout."""

    def run(devices: int, dropout: float):
        folder = tmp_path_factory.mktemp("devices")
        line = ["tests.test_distribution", str(devices), str(dropout), f"{folder}/left.npz"]
        done = forks.run(line, folder, os.environ, 600)
        assert done.returncode == 0, done.stderr
        return np.load(folder / "left.npz")

    return {key: run(*key) for key in ((1, 0.0), (2, 0.0), (1, 0.2), (2, 0.2))}


def test_the_images_of_a_batch_are_those_of_one_device(trained):
    one, two = trained[1, 0.0], trained[2, 0.0]
    np.testing.assert_array_equal(two["images"], one["images"])
    np.testing.assert_array_equal(two["labels"], one["labels"])


@pytest.mark.parametrize("devices", [1, 2])
def test_the_perturbed_images_of_the_global_batch_are_exactly_so_many(trained, devices):
    left = trained[devices, 0.0]
    natural = {image.tobytes() for image in left["natural"]}
    steps = len(left["images"]) // EPOCHS
    for epoch, fraction in enumerate(Ramp().fractions(EPOCHS)):
        for batch in left["images"][epoch * steps : (epoch + 1) * steps]:
            perturbed = sum(image.tobytes() not in natural for image in batch)
            assert perturbed == np.floor(fraction * BATCH + 0.5)


def test_each_device_has_its_share_of_the_perturbed_ones(trained):
    left = trained[2, 0.0]
    natural = {image.tobytes() for image in left["natural"]}
    batch = left["images"][0]
    counts = [sum(image.tobytes() not in natural for image in batch[k::2]) for k in range(2)]
    assert sum(counts) == 20 and counts == [10, 10]


def test_training_is_that_of_one_device_but_for_rounding(trained):
    one, two = trained[1, 0.0], trained[2, 0.0]
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=0.02)
    assert np.corrcoef(two["weights"], one["weights"])[0, 1] > 0.999
    assert abs(two["accuracy"] - one["accuracy"]) < 0.01


def test_with_dropout_the_accuracy_is_as_good(trained):
    one, two = trained[1, 0.2], trained[2, 0.2]
    assert one["accuracy"] > 0.8
    # Two standard errors of the difference on 1,000 images, and what training changes.
    assert abs(two["accuracy"] - one["accuracy"]) < 0.03 + 0.02


def test_batches_that_devices_cannot_share(sample):
    class Three:
        num_replicas_in_sync = 3

        def scope(self):
            return tf.distribute.get_strategy().scope()

        def distribute_datasets_from_function(self, function):
            return function(tf.distribute.InputContext(num_input_pipelines=1))

    build = lambda: models.build("mnist_cnn", (28, 28, 1), 10)  # noqa: E731
    recipe = Recipe(epochs=1, batch_size=400)
    with pytest.raises(InvalidArgument, match="batch_size=400: expected batches that 3 devices"):
        training.Natural().prepare(sample.train, build, recipe, distribution=Three())


@pytest.mark.parametrize("count", range(13))
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_shards_of_a_batch(count, number):
    index = tf.constant(np.random.default_rng(0).permutation(12))
    parts = [
        devices.shard(index, tf.constant(count), tf.constant(device, tf.int64), number)
        for device in range(number)
    ]
    counts = [int(first) for _, first in parts]
    assert sum(counts) == count and max(counts) - min(counts) <= 1
    together = np.stack([part for part, _ in parts], axis=1).ravel()
    np.testing.assert_array_equal(together, index)
    # The perturbed ones of all devices are the first of the batch.
    perturbed = np.concatenate([part[:first] for part, first in parts])
    assert sorted(perturbed) == sorted(index.numpy()[:count])


def test_xla_and_several_devices(command):
    done = command("--data_source=sample", "--distribute=mirrored", "--jit_compile=on")
    check_one_line(done, 2, "--jit_compile=on: expected off with distribute=mirrored")


if __name__ == "__main__":
    train(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
