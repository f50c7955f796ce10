"""Fixtures: real MNIST images from a package, and full data where they are prepared."""

import importlib
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import robust_tf  # noqa: F401  (sets what must be set before TensorFlow is imported)
from robust_tf import data as data_lib
from robust_tf import machine, models, results, saved_models
from robust_tf.training import Adam, Natural, Recipe, fit
from tests.forks import Forks
from tests.helpers import ROOT, carry_out, command_line, short, weights

# Files that take half a minute or more come first, the longest before the others, so that no
# worker is left with one at the end.
LONG = (
    "test_ray", "test_pipeline", "test_own_networks", "test_sweeps", "test_benchmarks",
    "test_mixtures", "test_readme", "test_notebook_api", "test_cifar10", "test_standardization",
    "test_compact", "test_runs", "test_perturbations", "test_report", "test_clean_processes",
    "test_transfer_runs", "test_applications", "test_your_own", "test_comparison", "test_training",
    "test_uploads", "test_commands_at_urls", "test_distribution",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    missing = _missing_full_data()
    if missing:
        for item in items:
            if "full_data" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=missing))


def _missing_full_data() -> str | None:
    directory = os.environ.get("TFDS_DATA_DIR")
    if not directory:
        return "TFDS_DATA_DIR does not name a directory of prepared MNIST and CIFAR-10"
    for name in ("mnist", "cifar10"):
        if not (Path(directory) / name).is_dir():
            return f"TFDS_DATA_DIR={directory} has no {name}"
    return None


@pytest.fixture(scope="session")
def sample() -> data_lib.Data:
    """4,000 + 1,000 real MNIST images."""
    return data_lib.load("mnist", data_source="sample")


@pytest.fixture(scope="session")
def small() -> data_lib.Data:
    """The first 200 + 100 of them."""
    return data_lib.load("mnist", data_source="sample", train_examples=200, test_examples=100)


@pytest.fixture(scope="session")
def trained(sample) -> Iterator[keras.Model]:
    """MNIST's network after an epoch, so that no weight is as it was made.

    Tests share it and must leave it as it is; the last of them fails otherwise.
    """
    training = Natural().prepare(
        sample.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10),
        Recipe(epochs=1, batch_size=400, optimizer=Adam(learning_rate=0.01)),
    )
    fit(training)
    before = weights(training.model)
    yield training.model
    for weight, value in zip(training.model.weights, before):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)


@pytest.fixture(scope="session")
def exported(trained, sample, tmp_path_factory) -> Path:
    """Its SavedModel; a test that changes it takes a copy."""
    return saved_models.export(
        trained,
        tmp_path_factory.mktemp("saved") / "digits",
        label_names=sample.label_names,
        training={"dataset": "mnist", "strategy": "natural", "train_perturb": "none"},
        example=sample.test.images[0].numpy(),
    )


@pytest.fixture(scope="session")
def other(sample, tmp_path_factory) -> Path:
    """The SavedModel of a network that has learned nothing."""
    return saved_models.export(
        models.build("mnist_cnn", (28, 28, 1), 10, standardize="none", seed=3),
        tmp_path_factory.mktemp("saved") / "untrained",
        label_names=sample.label_names,
        training={"dataset": "mnist", "strategy": "constant", "train_perturb": "hot"},
    )


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Where a test's runs go."""
    return {"output_dir": tmp_path / "results", "saved_models_dir": tmp_path / "saved_models"}


@pytest.fixture(scope="session")
def finished_once(small, tmp_path_factory) -> Path:
    """A natural run of two epochs, with three trials of hot pixels; for `finished`."""
    place = tmp_path_factory.mktemp("finished")
    where = {"output_dir": place / "results", "saved_models_dir": place / "saved_models"}
    carry_out(short(small), small, where)
    return place


@pytest.fixture
def finished(finished_once, folders, small):
    """The run `short(small)`, trained and tested in `folders`: a copy of the shared one."""
    for folder in folders.values():
        shutil.copytree(finished_once / folder.name, folder)
    run = short(small)
    table = folders["output_dir"] / run.name / "runs.csv"
    rows = pd.read_csv(table)
    rows["saved_model"] = (folders["saved_models_dir"] / run.name / "1").as_posix()
    results.write(rows, table, list(rows))
    return run


@pytest.fixture(scope="session")
def without_us(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that can import neither Keras nor this package."""
    folder = tmp_path_factory.mktemp("hidden")
    for name in ("keras", "robust_tf"):
        (folder / f"{name}.py").write_text("raise ImportError('hidden')")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A process that runs pipelines in forks."""
    process = Forks(ROOT)
    yield process
    process.close()


@pytest.fixture
def command(forks, tmp_path, tmp_path_factory):
    """Runs a pipeline in a process of its own, with outputs under `tmp_path`.

    With `fresh`, or options of `subprocess.run`, that is a fresh process, otherwise a fork.
    """

    def run(
        *flags: str, pipeline: str = "pipelines.run", fresh: bool = False, **options
    ) -> subprocess.CompletedProcess:
        line = command_line(tmp_path, *flags, pipeline=pipeline)
        if not (fresh or options):
            return forks.run(line[2:], tmp_path_factory.mktemp("output"), os.environ, 600)
        return subprocess.run(
            line, cwd=ROOT, capture_output=True, text=True, timeout=600, **options
        )

    return run


@pytest.fixture
def in_process(tmp_path, monkeypatch, capsys):
    """Runs a pipeline as `command` does, but in this process: for what trains nothing."""

    def run(*flags: str, pipeline: str = "pipelines.run") -> subprocess.CompletedProcess:
        # What a command line sets for its process is not for the tests after it.
        monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
        monkeypatch.setattr(machine, "use_threads", lambda threads: None)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        _, _, *arguments = command_line(tmp_path, *flags, pipeline=pipeline)
        capsys.readouterr()
        code = 0
        try:
            importlib.import_module(pipeline).cli(arguments)
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run
