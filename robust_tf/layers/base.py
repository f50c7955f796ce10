"""What all layers have in common: seeds, dtypes, and what is done to other inputs than images."""

import random
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import example_seeds
from robust_tf.seeds import stream_seed

# Keras's base of its random layers has no public name of its own, but public subclasses.
_ImagePreprocessing: Any = keras.layers.RandomBrightness.__base__

# What is drawn for a batch: tensors whose first axis is that of the images.
Transformation = dict[str, Any]


class SensorLayer(_ImagePreprocessing):
    """The base of the layers.

    A subclass defines `draw`, and `perturb` for what it does to images.

    Args:
        seed: a whole number from 0 on; None for another one each time.
        **kwargs: those of Keras's base: data_format, bounding_box_format, name, dtype.
    """

    _USE_BASE_FACTOR = False

    def __init__(self, seed: int | None = None, **kwargs: Any):
        """See the class."""
        super().__init__(**kwargs)
        self.seed = seed
        # As Keras draws its own, so that `keras.utils.set_random_seed` holds here too.
        drawn = random.randint(1, 10**9) if seed is None else seed
        self._stream = stream_seed(drawn, "perturbation")
        self.generator = keras.random.SeedGenerator(int(drawn))

    def draw(self, seeds: tf.Tensor) -> Transformation:
        """What is drawn for images, from their seeds, int32 [B, 2]."""
        raise NotImplementedError

    def perturb(self, images: tf.Tensor, transformation: Transformation) -> tf.Tensor:
        """What becomes of images, of the layer's compute dtype and data format."""
        raise NotImplementedError

    @tf.autograph.experimental.do_not_convert
    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """What becomes of an image, a batch, or a dictionary that has one as "images".

        Raises:
            InvalidArgument: if they are not images, or of a rank that is not known.
        """
        if isinstance(inputs, dict) and "images" not in inputs:
            raise InvalidArgument("images", None, 'a dictionary that has "images"')
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        shape = tf.TensorShape(images.shape if hasattr(images, "shape") else np.shape(images))
        if shape.rank not in (3, 4):
            shown = "unknown rank" if shape.rank is None else f"shape {shape}"
            expected = "images of shape [H, W, C] or [B, H, W, C]"
            way_out = "; tf.ensure_shape gives a tensor a rank" if shape.rank is None else ""
            raise InvalidArgument("images", f"a tensor of {shown}", expected + way_out)
        return super().__call__(inputs, **kwargs)

    @tf.autograph.experimental.do_not_convert
    def get_random_transformation(
        self, data: Any, training: bool = True, seed: Any = None
    ) -> Transformation | None:
        """Draws what is done to an image or a batch.

        Args:
            data: an image, a batch, or a dictionary that has one as "images".
            training: whether anything is done.
            seed: a number, for the draws of `robust_tf.perturb` with that seed; or a
                `keras.random.SeedGenerator`, which counts the calls instead of the layer's own.

        Returns:
            Tensors whose first axis is that of the images; None outside training.
        """
        if not training:
            return None
        images = data["images"] if isinstance(data, dict) else data
        count = tf.shape(images)[0] if len(images.shape) == 4 else 1
        if isinstance(seed, int):
            return self.draw(example_seeds(stream_seed(seed, "perturbation"), tf.range(count)))
        # Each call has draws of its own, as the epochs of `perturb` have.
        call = (self.generator if seed is None else seed).next()[1]
        return self.draw(example_seeds(self._stream, tf.range(count), call))

    @tf.autograph.experimental.do_not_convert
    def transform_images(
        self, images: tf.Tensor, transformation: Transformation | None, training: bool = True
    ) -> tf.Tensor:
        """Perturbs a batch, in training.

        Args:
            images: shape [B, H, W, C], or [B, C, H, W] where `data_format` says so.
            transformation: what `get_random_transformation` has drawn.
            training: whether anything is done.

        Returns:
            Images of the same shape and the layer's compute dtype; integers are rounded.
        """
        images = tf.cast(images, self.compute_dtype)
        if not training or transformation is None:
            return images
        perturbed = self.perturb(images, transformation)
        if images.dtype.is_integer and perturbed.dtype.is_floating:
            perturbed = tf.round(perturbed)
        return tf.cast(perturbed, self.compute_dtype)

    def transform_labels(self, labels: Any, transformation: Any, training: bool = True) -> Any:
        """Labels stay as they are."""
        return labels

    def transform_bounding_boxes(
        self, bounding_boxes: Any, transformation: Any, training: bool = True
    ) -> Any:
        """Boxes stay where they are."""
        return bounding_boxes

    def transform_segmentation_masks(
        self, segmentation_masks: Any, transformation: Any, training: bool = True
    ) -> Any:
        """Masks stay as they are."""
        return segmentation_masks

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict:
        """The arguments that make an equal layer."""
        return {**super().get_config(), "seed": self.seed}
