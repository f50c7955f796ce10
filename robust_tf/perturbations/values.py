"""Images of the caller's form: their sizes, range of values and dtype.

The ops know float32 images in [0, 1] only; what else `perturb` takes is checked and turned here.
"""

import math
import warnings

import numpy as np
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.xla import in_xla

# Filters, resizing and products with 1/255 round beyond the ends by so much of the range.
_ROUNDING = 1e-5


def sizes(images: tf.Tensor) -> list[int | tf.Tensor]:
    """The length of each axis: an integer where it is known, otherwise a scalar tensor."""
    known, traced = images.shape.as_list(), tf.shape(images)
    return [traced[axis] if size is None else size for axis, size in enumerate(known)]


def on_grid(values: tf.Tensor) -> tf.Tensor:
    """Rounds float64 values to multiples of 2**-26.

    Products of two such values, and their sums up to 1, are exact in float64. So the
    order of summation, which differs between batch sizes, does not change the result.
    """
    return tf.grad_pass_through(tf.round)(values * 2.0**26) * 2.0**-26


def checked_range(value_range: tuple[float, float] | None, dtype: tf.DType) -> tuple[float, float]:
    """The range that values of `dtype` have; raises `InvalidArgument` if it is none."""
    if value_range is None:
        return (0.0, 255.0) if dtype == tf.uint8 else (0.0, 1.0)
    noun = "numbers, finite and different in float32"
    if dtype == tf.uint8:
        noun = "numbers, whole ones from 0 to 255"
    try:
        if isinstance(value_range, bytes):
            raise TypeError(value_range)
        ends = np.stack([np.asarray(end) for end in value_range])
        low, high = map(float, ends)
        with np.errstate(over="ignore", invalid="ignore"):
            width = float(np.float32(high) - np.float32(low))
    except (TypeError, ValueError, OverflowError):
        width = math.nan
    # XLA and TensorFlow take smaller numbers than `tiny` for 0.
    fits = math.isfinite(width) and width >= np.finfo(np.float32).tiny and ends.dtype.kind in "iuf"
    if fits and dtype == tf.uint8:
        fits = low >= 0 and high <= 255 and low.is_integer() and high.is_integer()
    if not fits:
        expected = f"two {noun}, the lower one first, such as (0, 255)"
        raise InvalidArgument("value_range", str(value_range), expected)
    return low, high


def check_form(images: tf.Tensor | tf.TensorSpec) -> None:
    """Raises `InvalidArgument` if images have another dtype or number of axes than ops take."""
    expected = "float32 or uint8 values, shape [H, W, C] or [B, H, W, C]"
    if not isinstance(images, tf.Tensor | tf.TensorSpec):
        raise InvalidArgument("images", type(images).__name__, expected)
    if images.shape.rank is None:
        expected += "; name the number of axes, with tf.ensure_shape say"
    if images.dtype not in (tf.float32, tf.uint8) or images.shape.rank not in (3, 4):
        raise InvalidArgument("images", f"{images.dtype.name} {images.shape}", expected)
    height, width, channels = images.shape[-3:]
    if channels == 0:
        raise InvalidArgument("images", f"{images.shape}", "at least one channel, the last axis")
    if (channels or 0) > 4 and channels >= min(height or channels + 1, width or channels + 1):
        axes = f"{height} rows, {width} columns and {channels} channels"
        warnings.warn(f"images: {axes} are odd; is the shape [H, W, C]?", stacklevel=5)


def check_values(images: tf.Tensor, low: float = 0.0, high: float = 1.0) -> None:
    """Raises `InvalidArgument` if values are NaN or out of range; eager images only."""
    if not tf.executing_eagerly() or tf.size(images) == 0:
        return
    values = images.numpy()
    least, most = np.min(values), np.max(values)  # both NaN if one value is
    if math.isnan(least):
        count = np.count_nonzero(np.isnan(values))
        raise InvalidArgument("images", f"{count} values that are NaN", "numbers")
    slack = _ROUNDING * (high - low)
    if least < low - slack or most > high + slack:
        received = f"values from {least:g} to {most:g}"
        guess = "(0, 255)" if least >= 0 else "(-1, 1)" if least >= -1 and most <= 1 else "(…, …)"
        expected = f"values from {low:g} to {high:g}; else give their range, value_range={guess}"
        raise InvalidArgument("images", received, expected)


def assert_values(images: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """The same images, checked when the graph runs."""
    if tf.executing_eagerly() or in_xla():
        return images
    least = tf.cast(tf.reduce_min(images), tf.float32)
    most = tf.cast(tf.reduce_max(images), tf.float32)
    slack = _ROUNDING * (high - low)
    # Without images, least is above most. False of NaN.
    fits = (least > most) | ((least >= low - slack) & (most <= high + slack))
    message = (
        f"images: expected values from {low:g} to {high:g}; else give their range, value_range="
        "(0, 255), say; found, lowest and highest:"
    )
    with tf.control_dependencies([tf.debugging.Assert(fits, [message, least, most])]):
        return tf.identity(images)


def to_unit(images: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Values of that range as float32 in [0, 1]."""
    if images.dtype == tf.float32 and (low, high) == (0.0, 1.0):
        return images
    unit = (tf.cast(images, tf.float32) - low) / (high - low)
    return tf.clip_by_value(unit, 0.0, 1.0)  # may round beyond


def from_unit(perturbed: tf.Tensor, images: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """What became of `images`, in their range and dtype; values not perturbed keep their bits."""
    if images.dtype == tf.float32 and (low, high) == (0.0, 1.0):
        return perturbed
    values = tf.clip_by_value(perturbed * (high - low) + low, low, high)
    if images.dtype == tf.uint8:
        return tf.cast(tf.round(values), tf.uint8)
    return tf.where(perturbed == to_unit(images, low, high), images, values)
