"""Perturbed images per second: robust_tf beside the tools that one would use instead."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import tensorflow as tf

from benchmarks.batches import loop
from benchmarks.isolated import Isolated, speeds
from benchmarks.peers import PEERS
from robust_tf.perturbations import perturb

LEVELS = {"noise": 0.05, "stuck": 2, "dead": 2, "hot": 2, "blur": 1.0}
# Of a quick look: one of each family.
_QUICK = ("noise", "hot", "blur")
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
        part: use this part of the images only, and few kinds, for a quick look.

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
            if part > 1 and kind not in _QUICK:
                continue
            batches = np.split(images, count // batch_size)
            peers = {}
            for name, process in processes.items():
                some = max(1, len(batches) // _SLOW_PART) if name in _SLOW else len(batches)
                arguments = [name, kind, level, shape, batch_size, some]
                peers[name] = process, arguments, some * batch_size
            found, failed = speeds(ours(batches, kind, level), peers, rounds)
            left_out += [f"{name}, {kind}, {setting}: {why}" for name, why in failed.items()]
            for name, (speed, _) in found.items():
                ratio = found["robust_tf, tf.data"][0] / speed
                rows.append((setting, kind, name, speed, ratio))
    for process in processes.values():
        process.close()
    columns = ["setting", "perturb", "tool", "images_per_s", "ratio"]
    return pd.DataFrame(rows, columns=columns), left_out


def ours(batches: list[np.ndarray], kind: str, level: float) -> dict[str, tuple]:
    """The images through `robust_tf.perturb` in both ways, as `speeds` takes them."""
    return {
        "robust_tf, tf.data": pipeline(batches, lambda dataset: perturb(dataset, kind, level)),
        "robust_tf, function": function(batches, lambda images: perturb(images, kind, level)),
    }


def pipeline(
    batches: list[np.ndarray], perturbed: Callable[[tf.data.Dataset], tf.data.Dataset]
) -> tuple[Callable[[], None], int]:
    """Batches through a tf.data pipeline of some epochs, and how many images these are."""
    stacked = tf.constant(np.stack(batches))
    dataset = tf.data.Dataset.range(len(batches)).repeat(_EPOCHS).map(lambda i: stacked[i])
    dataset = perturbed(dataset).prefetch(tf.data.AUTOTUNE)

    def run() -> None:
        for _ in dataset:
            pass

    return run, _EPOCHS * sum(map(len, batches))


def function(
    batches: list[np.ndarray], perturbed: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[Callable[[], None], int]:
    """Batches through a `tf.function`, and how many images these are."""
    tensors = [tf.constant(batch) for batch in batches]
    return loop(tensors, tf.function(perturbed, autograph=False)), sum(map(len, batches))


def draw(table: pd.DataFrame, path: Path) -> None:
    """Images per second of all tools, as bars on a logarithmic axis."""
    grid = sns.catplot(
        table, kind="bar", x="images_per_s", y="perturb", hue="tool", col="setting",
        height=7, aspect=0.8, palette="tab20",
    )  # fmt: skip
    grid.set(xscale="log", xlabel="images per second", ylabel="")
    grid.savefig(path, dpi=100)
    plt.close(grid.figure)


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
