"""`perturb`: a perturbation of an image, a batch of images or a dataset of either."""

from typing import Any

import tensorflow as tf

from robust_tf import machine
from robust_tf import seeds as seeds_lib
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations.kinds import Perturbation, example_seeds


def perturb(
    inputs: Any,
    kind: str,
    level: float,
    *,
    seed: int = 0,
    index: int | tf.Tensor | None = None,
    epoch: int | tf.Tensor | None = None,
    channel_blur: bool = False,
) -> Any:
    """Perturbs one image, a batch of images, or a `tf.data.Dataset`.

    Image i comes out the same, to the bit, alone, in a batch of any size, in a dataset
    and in any order, as long as it has the same index.

    Args:
        inputs: float32 values in [0, 1]: an image [H, W, C], a batch [B, H, W, C], or a
            dataset of either, alone, as the first item of tuples, or under "image" in
            dictionaries.
        kind: as in `Perturbation`.
        level: as in `Perturbation`.
        seed: the experiment's seed, a whole number from 0 on.
        index: what example an image is: a scalar for an image, [B] for a batch. By
            default its place in the batch; in a dataset always its place there.
        epoch: draw anew for each epoch; by default the draw is the same in all.
        channel_blur: as in `Perturbation`.

    Returns:
        What came in, with perturbed images.

    Raises:
        InvalidArgument: if an argument is out of range, or images are not float32
            tensors with three or four axes.

    Example:
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


def _check_images(images: Any) -> None:
    if images.dtype != tf.float32 or images.shape.rank not in (3, 4):
        received = f"{images.dtype.name} {images.shape}"
        raise InvalidArgument(
            "images", received, "float32 values in [0, 1], shape [H, W, C] or [B, H, W, C]"
        )


def _perturb_images(
    images: tf.Tensor, perturbation: Perturbation, base: Any, index: Any, epoch: Any
) -> tf.Tensor:
    if images.shape.rank == 3:
        return _perturb_images(images[tf.newaxis], perturbation, base, [index], epoch)[0]
    return perturbation(images, example_seeds(base, index, epoch))


def _perturb_dataset(
    dataset: tf.data.Dataset, perturbation: Perturbation, base: Any, epoch: Any
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
