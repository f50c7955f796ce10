"""A fleet of MNIST devices, beside bare forward passes of as many images."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks import processes
from benchmarks.evaluation import bare_pass
from benchmarks.timing import medians, times
from robust_tf import models, saved_models
from robust_tf.data import Data
from robust_tf.perturbations import Perturbation
from robust_tf.saved_models import classifiers
from robust_tf.sensors import Fleet
from robust_tf.studies import fleet as study

_DEVICES = 1000
_COMMAND = "pipelines.fleet"


def measure(data: Data, rounds: int, flags: list[str], share: int) -> pd.DataFrame:
    """Times a fleet of MNIST devices, as a command and as a study, and bare forward passes.

    Args:
        data: MNIST; its test images are classified.
        rounds: timed rounds, without a warm-up.
        flags: those of `pipelines.fleet` that say where the data come from.
        share: the part of the devices: 1 of this many.

    Returns:
        One row per way: images in all, seconds by the clock and by the processor's time, and
        their ratios to bare passes.
    """
    devices = _DEVICES // share
    with tempfile.TemporaryDirectory() as folder:
        model = models.build("mnist_cnn", data.image_shape, len(data.label_names))
        training = {"strategy": "natural"}
        directory = saved_models.export(
            model, Path(folder) / "model", label_names=data.label_names, training=training
        )
        classifier = classifiers.load(directory)
        drawn = Fleet.drawn(Perturbation("hot", 2), data.image_shape, 0, devices)
        bare = bare_pass(classifier, data.test)
        command = [sys.executable, "-m", "pipelines.fleet", f"--model={directory}", *flags]
        command += ["--dataset=mnist", "--perturb=hot", "--level=2", f"--devices={devices}"]
        command += [f"--output_dir={folder}/results"]
        ways: dict[str, Callable] = {
            "bare": lambda: [bare() for _ in range(devices)],
            "study": lambda: study.measure(classifier, data.test, drawn, len(data.label_names)),
            _COMMAND: lambda: processes.run(command),
        }
        timed = {way: lambda run=run: times(run) for way, run in ways.items()}
        found = medians(timed, rounds, warm_up=0)
    rows = [
        (way, devices * len(data.test), *taken, *(taken / found["bare"]))
        for way, taken in found.items()
    ]
    return pd.DataFrame(rows, columns=["way", "images", "seconds", "cpu_s", "ratio", "cpu_ratio"])


def goals(table: pd.DataFrame) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    command = table.set_index("way").loc[_COMMAND]
    words = f"mnist: seconds of {_COMMAND} of {command['images']:,.0f} images"
    return [(12, words, 40, command["seconds"], command["seconds"] < 40)]
