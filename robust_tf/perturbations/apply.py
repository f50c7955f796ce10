"""`perturb`: a perturbation of an image, a batch of images or a dataset of either."""

from typing import Any

import numpy as np
import tensorflow as tf

from robust_tf import machine
from robust_tf import seeds as seeds_lib
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations.kinds import Perturbation, example_seeds


def perturb(
    inputs: tf.Tensor | np.ndarray | tf.data.Dataset,
    kind: str,
    level: float | tf.Tensor,
    *,
    seed: int = 0,
    index: int | tf.Tensor | np.ndarray | None = None,
    epoch: int | tf.Tensor | None = None,
    channel_blur: bool = False,
) -> tf.Tensor | tf.data.Dataset:
    """Perturbs one image, a batch of images, or a `tf.data.Dataset`.

    An image of the same index is perturbed the same, to the bit, alone, in a batch of any
    size, in a dataset and in any order.

    Args:
        inputs: float32 values in [0, 1]: an image [H, W, C], a batch [B, H, W, C], or a
            dataset of either, alone, as the first item of tuples, or under "image" in
            dictionaries.
        kind: as in `Perturbation`.
        level: as in `Perturbation`.
        seed: a whole number from 0 on; another seed gives another draw.
        index: the example's index, which its random numbers depend on: a scalar for an
            image, [B] for a batch. By default the place in the batch; in a dataset always
            the place there.
        epoch: draw anew for each epoch; by default every epoch has the same draw.
        channel_blur: as in `Perturbation`.

    Returns:
        The perturbed images: a float32 tensor of the same shape, values in [0, 1], or a
        dataset of the same structure.

    Raises:
        InvalidArgument: if an argument is out of range, or images are not float32
            tensors with three or four axes.

    Examples:
        >>> images = tf.zeros([4, 28, 28, 1])
        >>> float(tf.reduce_sum(perturb(images, "hot", 3)))
        12.0
    """
    perturbation = Perturbation(kind, level, channel_blur)
    base = seeds_lib.stream_seed(seed, "perturbation")
    if isinstance(inputs, tf.data.Dataset):
        return _perturb_dataset(inputs, perturbation, base, epoch)
    images = tf.convert_to_tensor(inputs)
    _check_images(images)
    if index is None:
        index = 0 if images.shape.rank == 3 else tf.range(tf.shape(images)[0])
    return _perturb_images(images, perturbation, base, index, epoch)


def _check_images(images: tf.Tensor | tf.TensorSpec) -> None:
    if images.dtype != tf.float32 or images.shape.rank not in (3, 4):
        received = f"{images.dtype.name} {images.shape}"
        raise InvalidArgument(
            "images", received, "float32 values in [0, 1], shape [H, W, C] or [B, H, W, C]"
        )


def _perturb_images(
    images: tf.Tensor,
    perturbation: Perturbation,
    base: np.ndarray,
    index: int | tf.Tensor | np.ndarray,
    epoch: int | tf.Tensor | None,
) -> tf.Tensor:
    if images.shape.rank == 3:
        return _perturb_images(images[tf.newaxis], perturbation, base, [index], epoch)[0]
    return perturbation(images, example_seeds(base, index, epoch))


def _perturb_dataset(
    dataset: tf.data.Dataset,
    perturbation: Perturbation,
    base: np.ndarray,
    epoch: int | tf.Tensor | None,
) -> tf.data.Dataset:
    def images_of(element: Any) -> tf.Tensor:
        if isinstance(element, dict):
            return element["image"]
        return element[0] if isinstance(element, tuple) else element

    def replaced(element: Any, images: tf.Tensor) -> Any:
        if isinstance(element, dict):
            return {**element, "image": images}
        return (images, *element[1:]) if isinstance(element, tuple) else images

    def number(start: tf.Tensor, item: Any) -> tuple:
        images = images_of(item)
        size = tf.shape(images)[0] if images.shape.rank == 4 else 1
        return start + tf.cast(size, tf.int64), (start, item)

    def apply(start: tf.Tensor, item: Any) -> Any:
        images = images_of(item)
        index = start
        if images.shape.rank == 4:
            index += tf.range(tf.shape(images)[0], dtype=tf.int64)
        return replaced(item, _perturb_images(images, perturbation, base, index, epoch))

    _check_images(images_of(dataset.element_spec))
    numbered = dataset.scan(tf.constant(0, tf.int64), number)
    # Not AUTOTUNE; see `data.without_autotuning`. The rest of the pipeline is the caller's.
    return numbered.map(apply, num_parallel_calls=machine.cores())
