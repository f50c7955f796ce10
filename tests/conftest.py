"""Fixtures: real MNIST images from a package, and full data where they are prepared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import robust_tf  # noqa: F401  (sets what must be set before TensorFlow is imported)
from robust_tf import data as data_lib

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
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


@pytest.fixture
def command(tmp_path):
    """Runs a pipeline in a process of its own, with outputs under `tmp_path`."""

    def run(*flags: str, pipeline: str = "pipelines.run", **kwargs) -> subprocess.CompletedProcess:
        return subprocess.run(
            command_line(tmp_path, *flags, pipeline=pipeline),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
            **kwargs,
        )

    return run


def command_line(tmp_path: Path, *flags: str, pipeline: str = "pipelines.run") -> list[str]:
    directories = {"output_dir": "results", "saved_models_dir": "saved_models"}
    given = {flag.split("=")[0].lstrip("-") for flag in flags}
    defaults = [
        f"--{flag}={tmp_path / name}" for flag, name in directories.items() if flag not in given
    ]
    return [sys.executable, "-m", pipeline, *defaults, *flags]
