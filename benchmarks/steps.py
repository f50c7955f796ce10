"""Training and inference of the paper's networks: robust_tf beside PyTorch, channels-last.

The same batch, float32, over and over, so that nothing but the step is timed. Ours is
Keras's `fit`, compiled as a run does, with a dataset of the repeated batch.
"""

import numpy as np
import pandas as pd
import tensorflow as tf

from benchmarks.isolated import Isolated
from benchmarks.timing import Failed, medians, seconds
from robust_tf import models
from robust_tf.data import without_autotuning
from robust_tf.training import Adam, Recipe, compile_model

# Setting: model, shape of an image, batch size, steps per measurement.
SETTINGS = {
    "mnist": ("mnist_cnn", (28, 28, 1), 1500, 80),
    "cifar10": ("cifar10_cnn", (32, 32, 3), 100, 6),
}

_WHAT = ("training", "inference")


def measure(rounds: int, part: int = 1) -> tuple[pd.DataFrame, list[str]]:
    """Times the steps of both networks.

    Args:
        rounds: timed rounds.
        part: divides the number of steps, for a quick look.

    Returns:
        One row per setting and tool: images_per_s of training and of inference, and the ratio
        of robust_tf's to it; and what was left out, with the reason.
    """
    rows, left_out = [], []
    for setting, (name, shape, batch_size, steps) in SETTINGS.items():
        steps = max(1, steps // part)
        rng = np.random.default_rng(0)
        images = rng.random((batch_size, *shape), np.float32)
        labels = rng.integers(0, 10, batch_size)
        variants = _ours(name, images, labels, steps)
        failed: dict[tuple[str, str], str] = {}
        peers = {what: Isolated("benchmarks.torch_models:prepared") for what in _WHAT}
        for what, peer in peers.items():
            try:
                peer.prepare(what, name, shape, batch_size, steps)
                variants["PyTorch", what] = peer.seconds
            except Failed as error:
                failed["PyTorch", what] = str(error)
        times = medians(variants, rounds, failed)
        for peer in peers.values():
            peer.close()
        left_out += [f"{tool}, {what}, {setting}: {why}" for (tool, what), why in failed.items()]
        speeds = {key: steps * batch_size / time for key, time in times.items()}
        for (tool, what), speed in speeds.items():
            rows.append((setting, what, tool, speed, speeds["robust_tf", what] / speed))
    return pd.DataFrame(
        rows, columns=["setting", "what", "tool", "images_per_s", "ratio"]
    ), left_out


def precisions(rounds: int, settings: list[str]) -> pd.DataFrame:
    """Times our training steps as `--precision` and `--jit_compile` change them.

    Args:
        rounds: timed rounds.
        settings: some of `SETTINGS`.

    Returns:
        One row per setting: images_per_s of training, and the ratio to the defaults.
    """
    rows = []
    for setting in settings:
        name, shape, batch_size, steps = SETTINGS[setting]
        steps //= 2
        rng = np.random.default_rng(0)
        images = rng.random((batch_size, *shape), np.float32)
        labels = rng.integers(0, 10, batch_size)
        chosen = [(precision, "off") for precision in models.PRECISIONS] + [("float32", "on")]
        variants = {
            (precision, jit_compile): _ours(name, images, labels, steps, precision, jit_compile)[
                "robust_tf", "training"
            ]
            for precision, jit_compile in chosen
        }
        times = medians(variants, rounds)
        for key, time in times.items():
            rows.append((setting, *key, steps * batch_size / time, times[chosen[0]] / time))
    columns = ["setting", "precision", "jit_compile", "images_per_s", "ratio"]
    return pd.DataFrame(rows, columns=columns)


def _ours(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    steps: int,
    precision: str = "float32",
    jit_compile: str = "auto",
) -> dict:
    model = models.build(name, images.shape[1:], 10, standardize="none", precision=precision)
    recipe = Recipe(epochs=1, batch_size=len(images), optimizer=Adam(learning_rate=0.001))
    compile_model(model, recipe, steps_per_epoch=steps, jit_compile=jit_compile)
    batches = without_autotuning(tf.data.Dataset.from_tensors((images, labels)).repeat())
    forward = tf.function(lambda batch: model(batch, training=False))
    tensor = tf.constant(images)

    def train() -> float:
        return seconds(lambda: model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0))

    def infer() -> float:
        return seconds(lambda: [forward(tensor).numpy() for _ in range(steps)])

    return {("robust_tf", "training"): train, ("robust_tf", "inference"): infer}


def goals(table: pd.DataFrame) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    rows = table[(table["tool"] == "PyTorch") & (table["what"] == "training")]
    found = [
        (3, f"{row.setting}: training step, times PyTorch", 1.0, row.ratio, row.ratio >= 1.0)
        for row in rows.itertuples()
    ]
    own = table.set_index(["setting", "what", "tool"])["images_per_s"]
    speed = own["mnist", "training", "robust_tf"]
    return [*found, (3, "mnist: training steps, images/s", 4e5, speed, speed >= 4e5)]
