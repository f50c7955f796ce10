"""Tests with images that this package did not perturb: those of other prepared datasets."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from robust_tf import data as data_lib
from robust_tf import results
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, Natural, Recorded, evaluate
from robust_tf.perturbations import Perturbation
from robust_tf.results import trials
from tests.helpers import check_one_line


def prepare(name: str, directory, images: np.ndarray, labels: np.ndarray) -> None:
    """Prepares a TFDS dataset of such images, without its download."""
    builder = tfds.builder(name, data_dir=directory)

    def examples():
        for i, (image, label) in enumerate(zip(images, labels)):
            yield i, {"image": image, "label": int(label)}

    with pytest.MonkeyPatch.context() as patch:
        splits = {"train": examples(), "test": examples()}
        patch.setattr(type(builder), "_split_generators", lambda *_: splits)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def content(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, bytes]]:
    return sorted((int(label), image.tobytes()) for image, label in zip(images, labels))


@pytest.fixture(scope="module")
def dark(sample) -> tuple[np.ndarray, np.ndarray]:
    """Sixty test images at a third of their brightness."""
    return (sample.test.images[:60] // 3).numpy(), sample.test.labels[:60].numpy()


@pytest.fixture(scope="module")
def directory(dark, tmp_path_factory):
    """A data directory with one corruption of MNIST, and with KMNIST of the same images."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare("mnist_corrupted/identity", folder, *dark)  # which is not one
    prepare("mnist_corrupted/fog", folder, *dark)
    prepare("kmnist", folder, *dark)
    return folder


def test_what_is_prepared_is_found_and_read(directory, sample, dark):
    names = data_lib.prepared_corruptions(sample, str(directory))
    assert names == ["mnist_corrupted/fog"]
    split = data_lib.load_test(names[0], sample, data_dir=str(directory))
    # TFDS decides the order of its files.
    found = split.images.numpy(), split.labels.numpy()
    assert content(*found) == content(*dark)
    assert len(data_lib.load_test("kmnist", sample, data_dir=str(directory), test_examples=9)) == 9


def test_what_cannot_be_tested_with(directory, sample, tmp_path):
    with pytest.raises(Unavailable, match="no part of mnist_corrupted is prepared in"):
        data_lib.prepared_corruptions(sample, str(tmp_path))
    other = data_lib.Data("kmnist", "tfds", sample.train, sample.test, sample.label_names)
    with pytest.raises(InvalidArgument, match="TFDS has no kmnist_corrupted"):
        data_lib.prepared_corruptions(other, str(tmp_path))
    digits = data_lib.Data("emnist/digits", "tfds", sample.train, sample.test, sample.label_names)
    with pytest.raises(InvalidArgument, match="TFDS has no emnist/digits_corrupted"):
        data_lib.prepared_corruptions(digits, str(directory))
    with_version = dataclasses.replace(digits, name="mnist:3.0.1")
    assert data_lib.prepared_corruptions(with_version, str(directory)) == ["mnist_corrupted/fog"]
    (damaged,) = (tmp_path / "mnist_corrupted" / "fog" / "1.0.0",)
    damaged.mkdir(parents=True)
    (damaged / "dataset_info.json").write_text("{")
    with pytest.raises(Unavailable, match="the description of mnist_corrupted/fog cannot be read"):
        data_lib.prepared_corruptions(sample, str(tmp_path))
    with pytest.raises(InvalidArgument, match="eval=nothing"):
        data_lib.load_test("nothing", sample, data_dir=str(directory))
    with pytest.raises(InvalidArgument, match=r"eval=cifar10 \(10, .*expected a dataset of 10"):
        data_lib.load_test("cifar10", sample, data_dir=str(directory))
    with pytest.raises(InvalidArgument, match="expected a dataset of images of shape"):
        Recorded("x", math.nan, sample.test).check((8, 8, 3))


def test_an_evaluator_takes_their_images_and_labels(trained, sample):
    """Of the same images without their labels' order, and of fewer."""
    few = Split(sample.test.images[5:25], (sample.test.labels[5:25] + 1) % 10)
    condition = Recorded("few", 3.0, few)
    evaluator = Evaluator(trained, sample.test)
    np.testing.assert_array_equal(
        evaluator.predictions(condition), evaluator.predictions(Natural())[5:25]
    )
    expected = np.mean(evaluator.predictions(Natural())[5:25] == few.labels.numpy())
    assert evaluator.accuracy(condition) == expected
    row = evaluate(trained, sample.test, [condition], trials=5).iloc[0]
    assert (row["test_perturb"], row["test_level"], row["trial"]) == ("few", 3.0, 0)
    assert (row["accuracy"], row["n_examples"]) == (expected, 20)


def test_their_trials_are_kept_and_not_repeated(trained, small, tmp_path, monkeypatch):
    few = Recorded("few", math.nan, small.test.first(30))
    conditions = [Natural(), few, Perturbation("hot", 2)]
    path = tmp_path / "run" / "trials.csv"
    columns = dict.fromkeys(
        ("run", "dataset", "data_source", "model", "strategy", "saved_model"), "a"
    )
    columns |= {"strategy": "natural", "train_perturb": "none", "train_level": None, "seed": 0}
    asked = {"trials": 2, "seed": 0}
    first = trials.complete(path, trained, small.test, conditions, columns, **asked)
    assert first["n_examples"].tolist() == [100, 30, 100, 100]
    assert trials.is_complete(path, (100, small.test.digest), conditions, columns, trials=2)

    def fail(*_):
        raise AssertionError("was tested again")

    monkeypatch.setattr(Evaluator, "_pass", fail)
    again = trials.complete(path, trained, small.test, conditions, columns, **asked)
    pd.testing.assert_frame_equal(first, again)
    # Another number of their images is another test.
    more = [Natural(), Recorded("few", math.nan, small.test.first(31))]
    assert not trials.is_complete(path, (100, small.test.digest), more, columns, trials=2)


def test_trials_of_a_condition_are_kept_when_the_next_is_stopped(trained, small, tmp_path):
    class Stops(Recorded):
        def check(self, image_shape):
            raise KeyboardInterrupt

    path = tmp_path / "run" / "trials.csv"
    columns = dict.fromkeys([*results.TRAINING_COLUMNS, "saved_model"], "a")
    columns |= {"strategy": "natural", "train_level": None, "seed": 0}
    conditions = [Natural(), Perturbation("hot", 2), Stops("stops", math.nan, small.test)]
    with pytest.raises(KeyboardInterrupt):
        trials.complete(path, trained, small.test, conditions, columns, trials=3, seed=0)
    assert pd.read_csv(path)["test_perturb"].tolist() == ["none", "hot", "hot", "hot"]


def test_severities():
    from pipelines.shared_flags import kind_and_severity

    assert kind_and_severity("cifar10_corrupted/fog_3") == ("cifar10_corrupted/fog", 3.0)
    for name in ("mnist_corrupted/shot_noise", "cifar10_1/v4", "kmnist"):
        kind, severity = kind_and_severity(name)
        assert kind == name and math.isnan(severity)


def test_the_pipelines_have_them_in_the_same_tables(command, directory, tmp_path):
    flags = ["--data_source=sample", f"--data_dir={directory}", "--trials=1"]
    done = command(*flags, "--epochs=1", "--eval=blur,corrupted,tfds:kmnist")
    assert done.returncode == 0, done.stderr
    assert "mnist_corrupted/fog" in done.stdout
    (run,) = (tmp_path / "results").iterdir()
    table = pd.read_csv(run / "trials.csv").set_index("test_perturb")
    assert list(table.index) == ["none", *["blur"] * 3, "mnist_corrupted/fog", "kmnist"]
    assert table.loc["kmnist", "accuracy"] == table.loc["mnist_corrupted/fog", "accuracy"]
    assert table["n_examples"].tolist() == [1000] * 4 + [60] * 2
    model = f"--model={tmp_path / 'saved_models' / run.name}"
    done = command(model, *flags, "--eval=corrupted", pipeline="pipelines.evaluate")
    assert done.returncode == 0, done.stderr
    assert "mnist_corrupted/fog" in done.stdout


def test_nothing_prepared_is_told_in_a_line(command, tmp_path):
    flags = ["--data_source=sample", f"--data_dir={tmp_path}", "--eval=corrupted"]
    check_one_line(command(*flags), 1, "--eval=corrupted: no part of mnist_corrupted is prepared")
    assert not (tmp_path / "results").exists() or not any((tmp_path / "results").iterdir())


def test_a_split_is_not_part_of_a_conditions_identity():
    a, b = (
        Recorded("x", 1.0, Split(tf.zeros([n, 2, 2, 1], tf.uint8), tf.zeros([n], tf.int64)))
        for n in (1, 2)
    )
    assert a == b and hash(a) == hash(b) and str(a) == "x 1"
