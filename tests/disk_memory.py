"""Reads a split on disk, then the same in memory; prints how much the peak of memory grew, in MiB.

`python -m tests.disk_memory FOLDER SIZE` makes the split in the folder, of SIZE MiB of images.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from robust_tf import data
from robust_tf.evaluation import Evaluator, Natural

SIDE = 128


def peak() -> float:
    # Not of `resource`, which starts with the memory of the process that started this one.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def images(count: int) -> Iterator[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(0)
    for label in rng.integers(0, 4, count):
        yield rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), label


def use(split: data.Split) -> None:
    """An epoch in a random order, and a pass over all images."""
    order = tf.data.Dataset.from_tensor_slices(np.random.default_rng(1).permutation(len(split)))
    read = order.batch(32).map(split.images_at, num_parallel_calls=2)
    for _ in data.without_autotuning(read.prefetch(2)):
        pass
    Evaluator(lambda batch: tf.reduce_mean(batch, axis=(1, 2)), split).accuracy(Natural())


def main(folder: str, size: str) -> None:
    """Prints both growths."""
    count = int(size) * 2**20 // (SIDE * SIDE * 3)
    use(data.store(images(40), Path(folder) / "few", (SIDE, SIDE, 3), key="few"))
    before = peak()
    split = data.store(images(count), Path(folder) / "all", (SIDE, SIDE, 3), key="all")
    use(split)
    after = peak()
    use(data.Split(split.bytes_at(range(count)), split.labels))
    print(after - before, peak() - after)


if __name__ == "__main__":
    main(*sys.argv[1:])
