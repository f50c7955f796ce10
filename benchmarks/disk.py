"""Photos of 224 x 224 as input of a training, and the memory that a large dataset takes.

Each tool shuffles, reads and makes batches of 32 as its users write it; there is no model.
"""

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from benchmarks import processes
from benchmarks.isolated import Isolated
from benchmarks.timing import Failed, medians, seconds
from robust_tf import data, machine
from robust_tf.evaluation import Evaluator
from robust_tf.evaluation import Natural as NaturalImages
from robust_tf.training import Natural, Recipe

SHAPE = (224, 224, 3)
BATCH = 32
PHOTOS, IMAGES = 2_000, 100_000
CLASSES = 10
_OURS, _KERAS = "robust_tf, from disk", "Keras, image_dataset_from_directory"
_TORCH = "PyTorch, DataLoader"


def measure(rounds: int, share: int) -> tuple[pd.DataFrame, list[str]]:
    """Times a pass over photos with each tool.

    Args:
        rounds: timed rounds.
        share: the part of the photos that is used: 1 of this many.

    Returns:
        One row per tool: images_per_s; first_s, the seconds that it takes once, before the first
        pass; and what was left out, with the reason.
    """
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        photos, count = Path(folder) / "photos", PHOTOS // share
        make_photos(photos, count)
        start = time.perf_counter()
        split = data.store(_decoded(photos), Path(folder) / "prepared", SHAPE, key="photos")
        first = {_OURS: time.perf_counter() - start}
        variants: dict[str, Callable[[], float]] = {
            tool: functools.partial(seconds, functools.partial(_exhaust, batches))
            for tool, batches in ((_OURS, _ours(split)), (_KERAS, _keras(photos)))
        }
        torch = Isolated("benchmarks.torch_photos:prepared")
        try:
            torch.prepare(os.fspath(photos), BATCH, machine.cores())
            variants[_TORCH] = torch.seconds
        except Failed as error:
            failed[_TORCH] = str(error)
        found = medians(variants, rounds, failed)
        torch.close()
    rows = [(tool, count / seconds, first.get(tool, 0.0)) for tool, seconds in found.items()]
    table = pd.DataFrame(rows, columns=["tool", "images_per_s", "first_s"])
    return table, [f"{tool}: {reason}" for tool, reason in failed.items()]


def make_photos(folder: Path, count: int) -> None:
    """Writes JPEGs of about 25 kB in folders of classes: blurred noise, with some grain."""
    rng = np.random.default_rng(0)
    for place in range(count):
        coarse = tf.image.resize(rng.uniform(0, 255, (1, 12, 12, 3)), SHAPE[:2], "bicubic")[0]
        pixels = np.clip(coarse + rng.normal(0, 6, SHAPE), 0, 255).astype(np.uint8)
        path = folder / f"class_{place % CLASSES}" / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(pixels, quality=85).numpy())


def _decoded(folder: Path) -> Iterator[tuple[np.ndarray, int]]:
    paths = sorted(folder.glob("*/*.jpg"))
    files = tf.data.Dataset.from_tensor_slices([os.fspath(path) for path in paths])
    images = files.map(
        lambda path: tf.io.decode_jpeg(tf.io.read_file(path), 3),
        num_parallel_calls=machine.cores(),
    )
    for path, image in zip(paths, images.prefetch(BATCH).as_numpy_iterator()):
        yield image, int(path.parent.name.rpartition("_")[2])


def _ours(split: data.Split) -> tf.data.Dataset:
    recipe = Recipe(epochs=1, batch_size=BATCH, shuffle=True)
    return Natural().prepare(split, keras.Sequential, recipe).batches


def _keras(folder: Path) -> tf.data.Dataset:
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=SHAPE[:2], batch_size=BATCH, shuffle=True, seed=0, verbose=False
    )
    return batches.map(lambda images, labels: (images / 255.0, labels))


def _exhaust(batches: tf.data.Dataset) -> None:
    for _ in batches:
        pass


def peak_gib(share: int) -> float:
    """The peak memory of a process that trains an epoch on a large dataset and tests with it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.disk", folder, str(IMAGES // share)]
        _, memory = processes.run(command)
    return memory


def _patterns(count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Images of noise that are quickly made, 16,384 different ones."""
    noise = np.random.default_rng(0).integers(0, 256, (64, *SHAPE), np.uint8)
    for place in range(count):
        yield noise[place % 64] ^ np.uint8(place // 64 % 256), place % CLASSES


def main(folder: str, count: str) -> None:
    """What the process does: prepares images, and reads each of them twice."""
    start = time.perf_counter()
    split = data.store(_patterns(int(count)), Path(folder) / "prepared", SHAPE, key="patterns")
    prepared = time.perf_counter()
    _exhaust(_ours(split))
    trained = time.perf_counter()
    Evaluator(lambda images: tf.reduce_mean(images, axis=(1, 2)), split).accuracy(NaturalImages())
    tested = time.perf_counter()
    print(f"prepared in {prepared - start:.0f} s, an epoch in {trained - prepared:.0f} s, ")
    print(f"a test in {tested - trained:.0f} s")


def goals(table: pd.DataFrame, memory: float) -> list[tuple]:
    """(number, what, goal, figure, whether it is met) of the README's table."""
    speed = table.set_index("tool")["images_per_s"]
    rows: list[tuple] = []
    for tool in speed.index.drop(_OURS):
        ratio = speed[_OURS] / speed[tool]
        rows.append((9, f"photos: images/s, times {tool}", 1.0, ratio, ratio >= 1.0))
    return [*rows, (10, "images larger than memory: peak in GiB", 2.0, memory, memory < 2.0)]


if __name__ == "__main__":
    main(*sys.argv[1:])
