"""What several test files use: command lines, what they print, and runs on a few images."""

import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from robust_tf import runs
from robust_tf.data import Data, Split
from robust_tf.evaluation.suites import standard_tests
from robust_tf.models import blocks
from robust_tf.saved_models import classifiers

ROOT = Path(__file__).parents[1]

# A run of seconds, as flags.
SMALL = (
    "--data_source=sample", "--train_examples=300", "--test_examples=100", "--epochs=3",
    "--trials=2",
)  # fmt: skip
# What small runs are tested with.
CONDITIONS = standard_tests(("hot",))

# Names of classes, and height and width, of `rows_data`.
FRUIT = ("apple", "banana", "cherry")
SIDE = 6

_BOTH = {"output_dir": "results", "saved_models_dir": "saved_models"}
_RESULTS = {"output_dir": "results"}
_OUTPUTS = {
    "pipelines.run": _BOTH,
    "pipelines.impact": _BOTH,
    "pipelines.ablation": _BOTH,
    "pipelines.grid": _BOTH,
    "pipelines.standardization": _BOTH,
    "pipelines.report": _RESULTS,
    "pipelines.evaluate": _RESULTS,
    "pipelines.export": _RESULTS,
    "pipelines.sensor_map": _RESULTS,
    "pipelines.pairs": _RESULTS,
    "pipelines.fleet": _RESULTS,
    "pipelines.confusions": _RESULTS,
    "pipelines.compare": _RESULTS,
    "pipelines.certify": _RESULTS,
    "pipelines.remedies": _BOTH,
    "pipelines.corrupt": {"output_dir": "perturbed"},
    "pipelines.serve": {},
}


def command_line(tmp_path: Path, *flags: str, pipeline: str = "pipelines.run") -> list[str]:
    """The command of a pipeline, with outputs under `tmp_path` where the flags name none."""
    given = {flag.split("=")[0].lstrip("-") for flag in flags}
    defaults = [
        f"--{flag}={tmp_path / name}"
        for flag, name in _OUTPUTS[pipeline].items()
        if flag not in given
    ]
    return [sys.executable, "-m", pipeline, *defaults, *flags]


def outcome(done: subprocess.CompletedProcess) -> str:
    """All that a process has said, for the message of an assertion."""
    return f"{done.returncode}\n{done.stdout}\n{done.stderr}"


def table(done: subprocess.CompletedProcess) -> str:
    """The last table that a pipeline has printed."""
    assert done.returncode == 0, outcome(done)
    return done.stdout.split("\n\n")[-2]


def check_one_line(done: subprocess.CompletedProcess, code: int, message: str) -> None:
    """Checks that a pipeline ended with an error of one line and printed nothing else."""
    assert done.returncode == code, outcome(done)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert done.stdout == ""


def files(folder: Path) -> list[Path]:
    """All files under a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


# What tells real datasets from others: digests of their training and test images, and names.
_DIGITS = tuple("0123456789")
_OBJECTS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CONTENT = {
    ("mnist", "tfds"): (("sha256:91e64895", "sha256:d819f34d"), _DIGITS),
    ("mnist", "sample"): (("sha256:2fef340b", "sha256:3746ed34"), _DIGITS),
    ("cifar10", "tfds"): (("sha256:25a2ec76", "sha256:964b19c0"), _OBJECTS),
}


def fake_data(
    channels: int,
    examples: int,
    *,
    size: int = 32,
    divisor: int = 255,
    name: str = "d",
    source: str = "tfds",
) -> Data:
    """A dataset of ten classes with the form of a real one and nothing in it."""
    images = np.broadcast_to(np.uint8(0), (examples, size, size, channels))
    digests, names = CONTENT.get((name, source), (("none", "none"), ("a",) * 10))
    train, test = (Split(images, None, divisor, digest_of_whole=digest) for digest in digests)
    return Data(name, source, train, test, names)


def short(data: Data, **given) -> runs.Run:
    """A run of two epochs."""
    return runs.resolve(data, **{"epochs": 2, "batch_size": 50, **given})


def carry_out(run, data, folders, conditions=CONDITIONS, trials=3) -> pd.DataFrame:
    """Trains and tests a run; its trials."""
    runs.train(run, data, progress=False, **folders)
    return runs.test(run, data, conditions, trials=trials, progress=False, **folders)


def small_network(
    image_shape,
    classes: int,
    *,
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
) -> keras.Model:
    """A network of ours that no registry knows: two convolutions, the second residual."""
    own = {"precision": precision, "seed": seed}
    images, x = blocks.inputs(image_shape, standardize=standardize, mirror=mirror)
    x = blocks.convolution(x, "conv_1", 8, 3, **own)
    x = blocks.pooled(blocks.activated(x, 1, precision=precision), 1, precision=precision)
    before = x
    x = blocks.activated(blocks.convolution(x, "conv_2", 8, 3, **own), 2, precision=precision)
    x = blocks.added(before, x, 2, precision=precision)
    x = keras.layers.GlobalMaxPooling2D(dtype=precision, name="global_pool")(x)
    return blocks.classifier(images, x, classes, name="small", mirror=mirror, **own)


def weights(model) -> list[np.ndarray]:
    """The values of a model's weights."""
    return [weight.value.numpy() for weight in model.weights]


def assert_same_weights(model, other) -> None:
    """Checks that two models have the same weights to the bit."""
    for a, b in zip(weights(model), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def wait_until(condition, seconds: float = 120) -> None:
    """Waits for a condition; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.002)


def without_network() -> dict[str, str]:
    """The environment of a process that has no network and no prepared data."""
    # A proxy that refuses stands for a network that is out of reach.
    away = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    away.pop("TFDS_DATA_DIR", None)
    return away


def rows_data(names=FRUIT, count=60, order=None, name="fruit") -> Data:
    """Images of SIDE x SIDE; the class of `names[order[k]]` is bright in row k."""
    row = np.arange(count) % len(names)
    images = np.random.default_rng(0).integers(0, 60, (count, SIDE, SIDE, 1))
    images[np.arange(count), row] += 150
    labels = row if order is None else np.take(order, row)
    split = Split.of_arrays(images.astype(np.uint8), labels)
    return Data(name, "tfds", split, split, tuple(names))


def rows_of(images: tf.Tensor, classes: int) -> tf.Tensor:
    """Scores that are right on `rows_data` without an order: the mean of each of the first rows."""
    return tf.reduce_mean(tf.cast(images, tf.float32), axis=(2, 3))[:, :classes]


def spec(*, dtype=tf.float32, batch=None, side=SIDE) -> tf.TensorSpec:
    return tf.TensorSpec([batch, side, side, 1], dtype, name="images")


def linear_classifier(data: Data, name: str, examples: int) -> classifiers.Classifier:
    """A classifier of one dense layer, by least squares on the first training images."""
    images = data.train.images_at(tf.range(examples)).numpy().reshape(examples, -1)
    targets = np.eye(len(data.label_names))[data.train.labels[:examples]]
    kernel, *_ = np.linalg.lstsq(images, targets, rcond=1e-2)
    inputs = keras.Input(data.image_shape)
    dense = keras.layers.Dense(targets.shape[1], use_bias=False)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([kernel])
    return classifiers.of_model(model, Path(name), fingerprint=name)
