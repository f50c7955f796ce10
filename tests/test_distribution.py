"""One model on several devices: two logical CPUs, and two processes on this machine."""

import contextlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf import data as data_lib
from robust_tf import models, training
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator
from robust_tf.perturbations import Perturbation
from robust_tf.training import devices, strategies
from robust_tf.training.strategies import Settings
from tests.helpers import ROOT, check_one_line, command_line, outcome

BATCH, EPOCHS = 400, 4


def train(devices: int, dropout: float, path: str) -> None:
    """What the tests compare; in a process whose CPU is that many devices."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
    tf.config.set_logical_device_configuration(cpu, parts)
    dataset = data_lib.load("mnist", data_source="sample")
    settings = Settings(
        epochs=EPOCHS,
        batch_size=BATCH,
        perturbation=Perturbation("stuck", 3),  # changes every image
        distribution=devices.create("mirrored" if devices > 1 else "none"),
    )

    def build():
        return models.build("mnist_cnn", (28, 28, 1), 10, dropout=dropout)

    started = strategies.incremental(dataset.train, build, settings)
    assert settings.distribution.num_replicas_in_sync == devices
    images, labels = [], []
    for batch in started.batches:
        of_devices = [settings.distribution.experimental_local_results(part) for part in batch]
        assert all(len(part) == BATCH // devices for parts in of_devices for part in parts)
        # Of R devices each has every R-th image.
        images.append(np.stack(of_devices[0], axis=1).reshape(BATCH, 28, 28, 1))
        labels.append(np.stack(of_devices[1], axis=1).reshape(BATCH))
    recipe = training.Recipe(
        "adamw", "one_cycle", weight_decay=0.01, label_smoothing=0.1, weight_average=0.5
    )
    recipe = training.Recipe() if dropout else recipe
    history = training.fit(started, learning_rate=0.05, beta_1=0.5, recipe=recipe)
    model = devices.on_one_device(started.model, build)
    accuracy = Evaluator(model, dataset.test).accuracy(None)
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
def trained(tmp_path_factory):
    """What `train` left, by number of devices and dropout."""

    def run(devices: int, dropout: float):
        path = tmp_path_factory.mktemp("devices") / "left.npz"
        call = f"train({devices}, {dropout}, {str(path)!r})"
        command = [sys.executable, "-c", f"from tests.test_distribution import train; {call}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return np.load(path)

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
    for epoch, fraction in enumerate(strategies.Ramp().fractions(EPOCHS)):
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

    settings = Settings(epochs=1, batch_size=400, distribution=Three())
    build = lambda: models.build("mnist_cnn", (28, 28, 1), 10)  # noqa: E731
    with pytest.raises(InvalidArgument, match="batch_size=400: expected batches that 3 devices"):
        strategies.natural(sample.train, build, settings)


FLAGS = (
    "--data_source=sample",
    "--train_examples=400",
    "--test_examples=200",
    "--epochs=3",
    "--trials=2",
    "--strategy=transfer",
    "--perturb=hot",
    "--head_units=16",
    "--dropout=0",
)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_two_workers_train_what_one_process_trains(command, tmp_path):
    ports = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    processes = []
    for index in range(2):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                command_line(tmp_path / "two", *FLAGS, "--distribute=multiworker"),
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps(config)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "Accuracy in percent" in outputs[0][0] and "Accuracy" not in outputs[1][0]
    assert "transfer hot 6 is trained; the first worker tests it" in outputs[1][0]

    one = command(*FLAGS)
    assert one.returncode == 0, outcome(one)
    for kind in ("natural", "transfer"):
        histories, rows = [], []
        for folder in (tmp_path / "two", tmp_path):
            (run,) = (folder / "results").glob(f"*{kind}*")
            histories.append(pd.read_csv(run / "history.csv")["loss"])
            rows.append(pd.read_csv(run / "runs.csv").iloc[0])
        np.testing.assert_allclose(*histories, rtol=0.02)
        assert [row["devices"] for row in rows] == [2, 1]
        assert [row["distribute"] for row in rows] == ["multiworker", "none"]
        assert abs(rows[0]["natural_accuracy"] - rows[1]["natural_accuracy"]) < 0.03
    assert len(list((tmp_path / "two" / "saved_models").glob("*/*"))) == 2  # written by one


BAD_CONFIGS = (
    None,
    "junk",
    '{"cluster": {"worker": []}, "task": {"index": 0}}',
    '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": "0"}}',
    '{"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"index": 0}}',
    '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
)


@pytest.mark.parametrize("config", BAD_CONFIGS)
def test_multiworker_needs_to_know_its_workers(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InvalidArgument, match="distribute=multiworker: expected TF_CONFIG to name"):
        devices.create("multiworker")


def test_multiworker_needs_outputs_that_all_workers_see(command):
    done = command(
        "--data_source=sample", "--distribute=multiworker", "--output_dir=memory://bucket/results"
    )
    check_one_line(done, 2, "--output_dir=memory://bucket/results: expected a directory that all")


def test_xla_and_several_devices(command):
    done = command("--data_source=sample", "--distribute=mirrored", "--jit_compile=on")
    check_one_line(done, 2, "--jit_compile=on: expected off with distribute=mirrored")
