"""Layers made of others: one of several for each image, or all of them in turn."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.layers.base import SensorLayer, Transformation
from robust_tf.seeds import fold_in, uniform

# The draw of an image's layer; those of the layers themselves have the numbers from 1 on.
_CHOICE = 0


class _Composition(SensorLayer):
    """Layers, each of which has seeds of its own, derived from those of the whole."""

    def __init__(
        self,
        layers: Sequence[SensorLayer],
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Checks the layers."""
        if not isinstance(layers, list | tuple):
            raise InvalidArgument("layers", type(layers).__name__, "a list of layers")
        for layer in layers:
            if not isinstance(layer, SensorLayer):
                expected = "layers of robust_tf.layers, one or more"
                raise InvalidArgument("layers", type(layer).__name__, expected)
        formats = {layer.data_format for layer in layers} | ({data_format} - {None})
        if len(formats) != 1:
            problem = "several" if formats else "none"
            raise InvalidArgument("layers", problem, "one or more, all of one data_format")
        super().__init__(seed, data_format=formats.pop(), **kwargs)
        self.layers = list(layers)
        self.supports_jit = all(layer.supports_jit for layer in layers)

    def build(self, input_shape: Any) -> None:
        """Builds the layers, which have nothing but counts of their calls."""
        for layer in self.layers:
            layer.build(input_shape)

    def draw(self, seeds: tf.Tensor) -> Transformation:
        """What each of the layers draws, for all images."""
        parts = enumerate(self.layers, start=1)
        return {"layers": [layer.draw(fold_in(seeds, tf.constant(i))) for i, layer in parts]}

    def get_config(self) -> dict:
        """The arguments that make an equal layer."""
        layers = keras.saving.serialize_keras_object(self.layers)
        return {**super().get_config(), "layers": layers}

    @classmethod
    def from_config(cls, config: dict) -> "_Composition":
        """The layer of a configuration."""
        layers = [keras.saving.deserialize_keras_object(one) for one in config["layers"]]
        return cls(**{**config, "layers": layers})


@keras.saving.register_keras_serializable("robust_tf")
class OneOf(_Composition):
    """Perturbs each image by one of several layers, all as likely, during training.

    Args:
        layers: layers of `robust_tf.layers`, with value ranges of their own. Their seeds have no
            effect here: all draws are of this layer's seed.
        data_format: that of the layers, which is the default.
        seed: a whole number from 0 on; None for another one each time.
        **kwargs: name, dtype, bounding_box_format, as in Keras.

    Input and output shape: as of `HotPixels`.

    Raises:
        InvalidArgument: if a layer is of another kind, or they differ in `data_format`.

    Examples:
        >>> layer = OneOf([HotPixels((1, 10)), SensorNoise((0.005, 0.05))], seed=1)
        >>> layer(tf.zeros([4, 28, 28, 1])).shape
        TensorShape([4, 28, 28, 1])
    """

    def __init__(
        self,
        layers: Sequence[SensorLayer],
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """See the class."""
        super().__init__(layers, data_format, seed, **kwargs)
        self.supports_jit = False  # how many images a layer gets is known when it runs

    def draw(self, seeds: tf.Tensor) -> Transformation:
        """Which layer each image gets, int32 [B], and what the layers draw."""
        part = uniform(fold_in(seeds, tf.constant(_CHOICE)), 1)[:, 0]
        return {"choice": tf.cast(part * len(self.layers), tf.int32), **super().draw(seeds)}

    def perturb(self, images: tf.Tensor, transformation: Transformation) -> tf.Tensor:
        """Calls each layer on the images that have drawn it."""
        places = tf.dynamic_partition(
            tf.range(tf.shape(images)[0]), transformation["choice"], len(self.layers)
        )
        parts = []
        for layer, own, place in zip(self.layers, transformation["layers"], places):
            of_these = tf.nest.map_structure(lambda x, place=place: tf.gather(x, place), own)
            part = layer.transform_images(tf.gather(images, place), of_these)
            parts.append(tf.cast(part, tf.float32))
        return tf.ensure_shape(tf.dynamic_stitch(places, parts), images.shape)


@keras.saving.register_keras_serializable("robust_tf")
class Compose(_Composition):
    """Perturbs each image by several layers in turn, during training.

    In a `keras.Sequential`, they do the same with draws of their own seeds. Here they are one
    layer with one seed, which `OneOf` takes too.

    Args:
        layers: as in `OneOf`.
        data_format: as in `OneOf`.
        seed: as in `OneOf`.
        **kwargs: as in `OneOf`.

    Input and output shape: as of `HotPixels`.

    Raises:
        InvalidArgument: as in `OneOf`.
    """

    def perturb(self, images: tf.Tensor, transformation: Transformation) -> tf.Tensor:
        """Calls one layer after the other."""
        for layer, own in zip(self.layers, transformation["layers"]):
            images = layer.transform_images(images, own)
        return images
