"""Perturbed images per second: robust_tf beside the tools that one would use instead."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import tensorflow as tf

from benchmarks.isolated import Isolated
from benchmarks.peers import PEERS, loop
from benchmarks.timing import Failed, medians, seconds
from robust_tf.perturbations import perturb

LEVELS = {"noise": 0.05, "stuck": 2, "dead": 2, "hot": 2, "blur": 1.0}
# Setting: shape of an image, batch size, images per measurement.
SETTINGS = {
    "mnist": ((28, 28, 1), 1500, 30000),
    "cifar10": ((32, 32, 3), 100, 10000),
}
# Epochs of one tf.data iterator, as in a training. It is the longest measurement, since
# nothing is counted out: starting the iterator, compiling, filling it.
_EPOCHS = 20
# Tools that go image by image are slow: they get a part of the images.
_SLOW = {"SciPy, per image", "albumentations", "NRTK", "imagecorruptions"}
_SLOW_PART = 10


def measure(rounds: int, part: int = 1) -> tuple[pd.DataFrame, list[str]]:
    """Times every perturbation of every tool.

    Args:
        rounds: timed rounds.
        part: use this part of the images only, for a quick look.

    Returns:
        One row per setting, kind and tool: images_per_s, and `ratio`, the images_per_s of
        robust_tf's tf.data pipeline divided by it; and what was left out, with the reason.
    """
    rows, left_out = [], []
    processes = {name: Isolated("benchmarks.peers:prepared") for name in PEERS}
    for setting, (shape, batch_size, count) in SETTINGS.items():
        count = max(batch_size, count // part // batch_size * batch_size)
        images = np.random.default_rng(0).random((count, *shape), np.float32)
        for kind, level in LEVELS.items():
            batches = np.split(images, count // batch_size)
            variants = {
                "robust_tf, tf.data": (_pipeline(batches, kind, level), _EPOCHS * count),
                "robust_tf, function": (_function(batches, kind, level), count),
            }
            timed = {name: lambda run=run: seconds(run) for name, (run, _) in variants.items()}
            failed: dict[str, str] = {}
            for name, process in processes.items():
                some = max(1, len(batches) // _SLOW_PART) if name in _SLOW else len(batches)
                try:
                    if process.prepare(name, kind, level, shape, batch_size, some):
                        variants[name] = (process.seconds, some * batch_size)
                        timed[name] = process.seconds
                except Failed as error:
                    failed[name] = str(error)
            times = medians(timed, rounds, failed)
            left_out += [f"{name}, {kind}, {setting}: {why}" for name, why in failed.items()]
            speeds = {name: variants[name][1] / time for name, time in times.items()}
            for name, speed in speeds.items():
                ratio = speeds["robust_tf, tf.data"] / speed
                rows.append((setting, kind, name, speed, ratio))
    for process in processes.values():
        process.close()
    columns = ["setting", "perturb", "tool", "images_per_s", "ratio"]
    return pd.DataFrame(rows, columns=columns), left_out


def _pipeline(batches: list[np.ndarray], kind: str, level: float) -> Callable[[], None]:
    """The images through `robust_tf.perturb` of a dataset of batches."""
    stacked = tf.constant(np.stack(batches))
    dataset = tf.data.Dataset.range(len(batches)).repeat(_EPOCHS).map(lambda i: stacked[i])
    dataset = perturb(dataset, kind, level).prefetch(tf.data.AUTOTUNE)

    def run() -> None:
        for _ in dataset:
            pass

    return run


def _function(batches: list[np.ndarray], kind: str, level: float) -> Callable[[], None]:
    """The images through `robust_tf.perturb` of a tensor, in a `tf.function`."""
    tensors = [tf.constant(batch) for batch in batches]
    function = tf.function(lambda images: perturb(images, kind, level), autograph=False)
    return loop(tensors, function)


def goals(table: pd.DataFrame) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    ratios = table.set_index(["setting", "perturb", "tool"])["ratio"]
    others = ("PyTorch", "kornia", "albumentations", "NRTK", "imagecorruptions")
    rows = []
    for setting in SETTINGS:
        limits = [("noise", "NumPy, usual", 5.0), ("noise", "NumPy, quickest", 5.0)]
        limits += [
            (kind, f"NumPy, {how}", 3.0)
            for kind in ("hot", "dead", "stuck")
            for how in ("usual", "quickest")
        ]
        limits += [("blur", "SciPy, whole batch", 1.5), ("blur", "SciPy, per image", 8.0)]
        limits += [(kind, other, 2.0) for kind in LEVELS for other in others]
        for kind, tool, limit in limits:
            if (setting, kind, tool) in ratios.index:
                ratio = ratios[setting, kind, tool]
                rows.append((1, f"{setting}: {kind}, times {tool}", limit, ratio, ratio >= limit))
    return rows
