"""What peers need for batches of images; no TensorFlow."""

from collections.abc import Callable

import numpy as np

Perturb = Callable[[np.ndarray], object]


def over(
    peer: Perturb | None, shape: list[int], batch_size: int, count: int
) -> Callable[[], None] | None:
    """A function over some batches of random images, called once before; None of None."""
    if peer is None:
        return None
    images = np.random.default_rng(0).random((batch_size * count, *shape), np.float32)
    peer(images[:2])
    return loop(np.split(images, count), peer)


def loop(batches: list, run_one: Perturb) -> Callable[[], None]:
    """A function that goes through all batches."""

    def run() -> None:
        for batch in batches:
            run_one(batch)

    return run


def in_bytes(batch: np.ndarray) -> np.ndarray:
    """Images as those tools take them that know uint8 only."""
    return (batch * 255.0).astype(np.uint8)


def distinct(rng: np.random.Generator, images: int, size: int, count: int) -> np.ndarray:
    """So many distinct numbers below `size` for each image, [images, count]."""
    at = rng.integers(0, size, (images, count))
    while (twice := (np.diff(np.sort(at, axis=1), axis=1) == 0).any(axis=1)).any():
        at[twice] = rng.integers(0, size, (twice.sum(), count))
    return at


def tensor(batch: np.ndarray):
    """The same in PyTorch."""
    import torch

    return torch.from_numpy(batch)
