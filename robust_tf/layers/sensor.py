"""The layers of one kind of perturbation each."""

from typing import Any

import keras
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.layers.base import SensorLayer, Transformation
from robust_tf.perturbations import KINDS, Perturbation, values
from robust_tf.seeds import fold_in, uniform

# Sets the draw of an image's level apart from those of the perturbation itself.
_LEVEL = 2


class _KindLayer(SensorLayer):
    """A kind of perturbation; a subclass names it, and the argument that is its level."""

    _kind: str
    _argument: str

    def __init__(self, level: Any, value_range: tuple[float, float], **kwargs: Any):
        """Checks what can be checked without an image."""
        super().__init__(**kwargs)
        dtype = tf.uint8 if self.compute_dtype == "uint8" else tf.float32
        self.value_range = values.checked_range(value_range, dtype)
        ends = level if isinstance(level, tuple | list) else (level, level)
        if len(ends) != 2 or any(isinstance(end, str) for end in ends):
            raise InvalidArgument(self._argument, str(level), "a number, or two as (low, high)")
        try:
            low, high = (Perturbation(self._kind, end).level for end in ends)
        except InvalidArgument as error:
            raise error.of(self._argument) from None
        if low > high:
            raise InvalidArgument(self._argument, str(level), "the lower level first")
        self.low, self.high = low, high
        # XLA would have to know the level, as for some of Keras's layers.
        self.supports_jit = low == high

    def draw(self, seeds: tf.Tensor) -> Transformation:
        """The seeds of the images, and their levels, shape [B]."""
        part = uniform(fold_in(seeds, tf.constant(_LEVEL)), 1)[:, 0]
        if KINDS[self._kind].whole:
            part = tf.cast(part, tf.float64) * float(self.high + 1 - self.low)
            return {"seeds": seeds, "levels": self.low + tf.cast(part, tf.int32)}
        return {"seeds": seeds, "levels": self.low + (self.high - self.low) * part}

    def perturb(self, images: tf.Tensor, transformation: Transformation) -> tf.Tensor:
        """Perturbs each image at its level."""
        first = self.data_format == "channels_first"
        if first:
            images = tf.transpose(images, [0, 2, 3, 1])
        if images.dtype != tf.uint8:  # beyond the range, cut off as in Keras's layers
            images = tf.clip_by_value(tf.cast(images, tf.float32), *self.value_range)
        self._check_size(images.shape[1:])
        unit = values.to_unit(images, *self.value_range)
        if self.low == self.high:
            perturbed = Perturbation(self._kind, self.low)(unit, transformation["seeds"])
        elif KINDS[self._kind].whole:
            seeds, levels = transformation["seeds"], transformation["levels"]
            perturbed = KINDS[self._kind].op(unit, seeds, levels, False)
        else:
            perturbed = self._one_by_one(unit, **transformation)
        perturbed = values.from_unit(perturbed, images, *self.value_range)
        return tf.transpose(perturbed, [0, 3, 1, 2]) if first else perturbed

    def build(self, input_shape: Any) -> None:
        """Checks the level against the size of images."""
        shape = input_shape["images"] if isinstance(input_shape, dict) else input_shape
        height, width = shape[-2:] if self.data_format == "channels_first" else shape[-3:-1]
        self._check_size((height, width, None))

    def _check_size(self, image_shape: Any) -> None:
        try:
            Perturbation(self._kind, self.high).check(tuple(image_shape))
        except InvalidArgument as error:
            raise error.of(self._argument) from None

    def _one_by_one(self, images: tf.Tensor, seeds: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
        def alone(one: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
            image, seed, level = one
            return Perturbation(self._kind, level)(image[tf.newaxis], seed[tf.newaxis])[0]

        def each() -> tf.Tensor:
            signature = tf.TensorSpec(images.shape[1:], tf.float32)
            return tf.map_fn(alone, (images, seeds, levels), fn_output_signature=signature)

        # TensorFlow does not stack no images of a size that it does not know.
        return tf.cond(tf.shape(images)[0] == 0, lambda: images, each)

    def get_config(self) -> dict:
        """The arguments that make an equal layer."""
        level = self.low if self.low == self.high else (self.low, self.high)
        own = {self._argument: level, "value_range": self.value_range}
        return {**super().get_config(), **own}


class _Pixels(_KindLayer):
    _argument = "pixels"

    def __init__(
        self,
        pixels: int | tuple[int, int],
        value_range: tuple[float, float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """See the class."""
        super().__init__(pixels, value_range, data_format=data_format, seed=seed, **kwargs)


@keras.saving.register_keras_serializable("robust_tf")
class HotPixels(_Pixels):
    """Sets distinct random pixels of each image to the highest value, during training.

    All channels of a pixel change. Outside training, images stay as they are.

    The call number n of a layer, counted from 0, with seed s has the bits of
    `robust_tf.perturb(images, "hot", pixels, seed=s, epoch=n, value_range=value_range)`.

    Args:
        pixels: the number of pixels in each image, from 1 to H·W; or (low, high), from which each
            image draws a number, both ends included.
        value_range: the lowest and the highest value of images; values beyond are cut off. (0, 1)
            for images after a `keras.layers.Rescaling(1 / 255)`.
        data_format: "channels_last" or "channels_first"; by default Keras's setting.
        seed: a whole number from 0 on; None for another one each time.
        **kwargs: name, dtype ("uint8" for rounded bytes), bounding_box_format, as in Keras.

    Input shape: [H, W, C] or [B, H, W, C] of integers or floats; or a dictionary with such
        "images", whose labels, boxes and masks stay as they are.
    Output shape: the same, of the layer's compute dtype, by default float32.

    Raises:
        InvalidArgument: if a number of pixels or the range is not allowed, or the input is no
            image or batch, or of unknown rank.

    Examples:
        >>> images = tf.zeros([4, 28, 28, 1])
        >>> float(tf.reduce_sum(HotPixels(3, seed=1)(images)) / 255)
        12.0
    """

    _kind = "hot"


@keras.saving.register_keras_serializable("robust_tf")
class DeadPixels(_Pixels):
    """Sets distinct random pixels of each image to the lowest value, during training.

    Arguments, shapes and errors as of `HotPixels`; the kind is "dead".
    """

    _kind = "dead"


@keras.saving.register_keras_serializable("robust_tf")
class StuckPixels(_Pixels):
    """Gives distinct random pixels of each image a random value per channel, during training.

    The values are uniform over the value range. Arguments, shapes and errors as of `HotPixels`;
    the kind is "stuck".
    """

    _kind = "stuck"


@keras.saving.register_keras_serializable("robust_tf")
class SensorNoise(_KindLayer):
    """Adds Gaussian noise to each value and cuts the sum off at the value range, during training.

    Shapes, errors and the other arguments as of `HotPixels`; the kind is "noise".

    Args:
        stddev: the standard deviation of the noise in units of the value range, from 0 to 1: 0.05
            is 12.75 of 255; or (low, high), between which each image draws one, uniformly.
        value_range: as in `HotPixels`.
        data_format: as in `HotPixels`.
        seed: as in `HotPixels`.
        **kwargs: as in `HotPixels`.
    """

    _kind, _argument = "noise", "stddev"

    def __init__(
        self,
        stddev: float | tuple[float, float],
        value_range: tuple[float, float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """See the class."""
        super().__init__(stddev, value_range, data_format=data_format, seed=seed, **kwargs)


@keras.saving.register_keras_serializable("robust_tf")
class GaussianBlur(_KindLayer):
    """Blurs each channel with a Gaussian, cut off at 4 sigma, borders mirrored, during training.

    Unlike `keras.layers.RandomGaussianBlur`, it takes no size of the kernel, blurs every image,
    and a single number is the sigma itself. Shapes, errors and the other arguments as of
    `HotPixels`; the kind is "blur".

    Args:
        sigma: the standard deviation of the Gaussian in pixels, from 0 to the longer side; or
            (low, high), between which each image draws one, uniformly.
        value_range: as in `HotPixels`.
        data_format: as in `HotPixels`.
        seed: as in `HotPixels`.
        **kwargs: as in `HotPixels`.
    """

    _kind, _argument = "blur", "sigma"

    def __init__(
        self,
        sigma: float | tuple[float, float],
        value_range: tuple[float, float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """See the class."""
        super().__init__(sigma, value_range, data_format=data_format, seed=seed, **kwargs)
