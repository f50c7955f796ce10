"""`perturb`: a perturbation of an image, a batch of images or a dataset of either."""

import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from robust_tf import machine
from robust_tf import seeds as seeds_lib
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import values
from robust_tf.perturbations.kinds import Perturbation, example_seeds


@tf.autograph.experimental.do_not_convert
def perturb(
    inputs: tf.Tensor | np.ndarray | tf.data.Dataset,
    kind: str,
    level: float | tf.Tensor,
    *,
    seed: int = 0,
    index: int | tf.Tensor | np.ndarray | None = None,
    epoch: int | tf.Tensor | None = None,
    channel_blur: bool = False,
    value_range: tuple[float, float] | None = None,
) -> tf.Tensor | tf.data.Dataset:
    """Perturbs one image, a batch of images, or a `tf.data.Dataset`.

    An image of the same index is perturbed the same, to the bit, alone, in a batch of any
    size, in a dataset and in any order. With a `value_range`, noise and blur in a graph may
    differ from eager ones in the last bit.

    Args:
        inputs: float32 or uint8 values: an image [H, W, C], a batch [B, H, W, C], or a
            dataset of either, alone, as the first item of tuples, or under "image" in
            dictionaries. The images of a dataset may differ in size.
        kind: as in `Perturbation`.
        level: as in `Perturbation`; of noise in units of the value range.
        seed: a whole number from 0 on; another seed gives another draw.
        index: the example's index, a whole number from 0 on, which its random numbers depend
            on: a scalar for an image, [B] for a batch. By default the place in the batch, 0
            for an image. In a dataset it is always the place there.
        epoch: draw anew for each epoch, a whole number; by default every epoch has the same draw.
        channel_blur: as in `Perturbation`.
        value_range: the lowest and the highest value that images may have, such as (0, 255)
            or (-1, 1); by default (0, 255) of uint8, (0, 1) of float32. Of uint8, whole numbers.

    Returns:
        The perturbed images: a tensor of the same shape and dtype, with values in the same
        range (uint8 rounded), or a dataset of the same structure.

    Raises:
        InvalidArgument: if an argument is out of range; if images are not float32 or uint8
            with three or four axes; eagerly, if a value is NaN or out of range; in a graph, if
            one image has no index, so that all would have the same draw.

    In a graph, as in `dataset.map` and `tf.function`, values are checked when it runs:
    `tf.errors.InvalidArgumentError`. XLA leaves that check out.

    Examples:
        >>> images = tf.zeros([4, 28, 28, 1])
        >>> float(tf.reduce_sum(perturb(images, "hot", 3)))
        12.0
    """
    perturbation = Perturbation(kind, level, channel_blur)
    base = seeds_lib.stream_seed(seed, "perturbation")
    if epoch is not None:
        epoch = _whole("epoch", epoch, [])
    if isinstance(inputs, tf.data.Dataset):
        if index is not None:
            raise InvalidArgument("index", "…", "none for a dataset: it is the place there")
        return _perturb_dataset(inputs, perturbation, base, epoch, value_range)
    try:
        images = tf.convert_to_tensor(inputs)
    except (TypeError, ValueError):
        values.check_form(inputs)  # which names its type
        raise
    values.check_form(images)
    batch = images.shape[:-3]
    if index is not None:
        index = tf.reshape(_whole("index", index, batch), tf.shape(images)[:-3])
    else:
        if perturbation.random and tf.is_symbolic_tensor(inputs):
            _check_unnumbered(batch.rank)
        index = tf.range(tf.shape(images)[0]) if batch.rank else tf.constant(0)
    return _perturb_images(images, perturbation, base, index, epoch, value_range)


def _whole(argument: str, value: Any, shape: list | tf.TensorShape) -> tf.Tensor:
    """The integers of that shape; raises `InvalidArgument` if `value` is anything else."""
    try:
        numbers = tf.convert_to_tensor(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(argument, repr(value), "whole numbers from 0 on") from None
    if not numbers.dtype.is_integer:
        raise InvalidArgument(argument, numbers.dtype.name, "whole numbers from 0 on")
    if not numbers.shape.is_compatible_with(shape):
        expected = f"one for each of {shape[0]} images" if len(shape) else "one number"
        raise InvalidArgument(argument, f"{numbers.shape}", expected)
    if tf.executing_eagerly() and tf.reduce_any(numbers < 0):
        raise InvalidArgument(argument, int(tf.reduce_min(numbers)), "whole numbers from 0 on")
    return numbers


def _check_unnumbered(axes: int) -> None:
    """An image that stands for many, in a graph, must say which it is."""
    how = "the example's index, from dataset.enumerate() say, or perturb(dataset, …)"
    if not axes:
        same = "without it every image has the same random pixels"
        raise InvalidArgument("index", None, f"{how}: {same}")
    warnings.warn(f"index: every batch has the same draws; to differ, give {how}", stacklevel=4)


def _perturb_images(
    images: tf.Tensor,
    perturbation: Perturbation,
    base: np.ndarray,
    index: tf.Tensor,
    epoch: tf.Tensor | None,
    value_range: tuple[float, float] | None,
) -> tf.Tensor:
    if images.shape.rank == 3:
        one = images[tf.newaxis], perturbation, base, index[tf.newaxis]
        return _perturb_images(*one, epoch, value_range)[0]
    low, high = values.checked_range(value_range, images.dtype)
    if value_range is not None or images.dtype != tf.uint8:
        values.check_values(images, low, high)
        images = values.assert_values(images, low, high)
    seeds = example_seeds(base, index, epoch)
    perturbed = perturbation(values.to_unit(images, low, high), seeds)
    return values.from_unit(perturbed, images, low, high)


def _perturb_dataset(
    dataset: tf.data.Dataset,
    perturbation: Perturbation,
    base: np.ndarray,
    epoch: tf.Tensor | None,
    value_range: tuple[float, float] | None,
) -> tf.data.Dataset:
    def images_of(element: Any) -> tf.Tensor:
        if isinstance(element, dict):
            return element.get("image")
        return element[0] if isinstance(element, tuple) else element

    def replaced(element: Any, images: tf.Tensor) -> Any:
        if isinstance(element, dict):
            return {**element, "image": images}
        if hasattr(element, "_replace"):  # a named tuple
            return element._replace(**{element._fields[0]: images})
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
        perturbed = _perturb_images(images, perturbation, base, index, epoch, value_range)
        return replaced(item, perturbed)

    spec = images_of(dataset.element_spec)
    values.check_form(spec)
    values.checked_range(value_range, spec.dtype)
    numbered = dataset.scan(tf.constant(0, tf.int64), number)
    # Not AUTOTUNE; see `data.without_autotuning`. The rest of the pipeline is the caller's.
    return numbered.map(apply, num_parallel_calls=machine.cores())
