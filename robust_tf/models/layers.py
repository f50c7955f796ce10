"""Keras layers of our own: standardisation, batch norm that trains faster, mirrored images.

How networks are made of them and of Keras's is not known here.
"""

import math

import keras
import tensorflow as tf

from robust_tf.errors import InvalidArgument

FUNCTIONAL = type(keras.Model(_inputs := keras.Input([1]), _inputs))  # Keras gives it no name


@keras.saving.register_keras_serializable("robust_tf")
class Standardization(keras.layers.Layer):
    """Shifts and scales images to mean 0 and standard deviation 1 (paper, section IV).

    Unlike `keras.layers.Normalization`, a position that is constant in the images it
    was adapted to becomes exactly 0, whatever arrives there later.

    Args:
        mode: "pixel" for a mean and deviation at each of the H·W·C positions, "global"
            for one of each over all values.

    Input shape: float32 [B, H, W, C].
    Output shape: float32 [B, H, W, C].

    Raises:
        InvalidArgument: if the mode is unknown.
    """

    def __init__(self, mode: str = "pixel", **kwargs):
        """See the class."""
        super().__init__(**kwargs)
        if mode not in ("pixel", "global"):
            raise InvalidArgument("standardize", mode, "pixel or global")
        self.mode = mode

    def build(self, input_shape: tuple) -> None:
        """Creates mean and scale; until `adapt` the layer changes nothing."""
        shape = tuple(input_shape[1:]) if self.mode == "pixel" else (1, 1, 1)
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones", trainable=False)

    def adapt(self, batches: tf.data.Dataset) -> None:
        """Takes mean and population standard deviation of images.

        Args:
            batches: dataset of float32 image batches [B, H, W, C].
        """
        axes = [0] if self.mode == "pixel" else [0, 1, 2, 3]
        shape = tuple(self.mean.shape)

        @tf.autograph.experimental.do_not_convert
        def update(state: tuple, images: tf.Tensor) -> tuple:
            count, total, squares, low, high = state
            values = tf.cast(images, tf.float64)
            count += tf.cast(tf.size(images) // tf.size(total), tf.float64)
            total += tf.reshape(tf.reduce_sum(values, axes), shape)
            squares += tf.reshape(tf.reduce_sum(values**2, axes), shape)
            low = tf.minimum(low, tf.reshape(tf.reduce_min(images, axes), shape))
            high = tf.maximum(high, tf.reshape(tf.reduce_max(images, axes), shape))
            return count, total, squares, low, high

        zeros = tf.zeros(shape, tf.float64)
        start = (tf.zeros([], tf.float64), zeros, zeros, tf.fill(shape, 2.0), tf.fill(shape, -1.0))
        count, total, squares, low, high = batches.reduce(start, update)
        mean = total / count
        deviation = tf.sqrt(tf.maximum(squares / count - mean**2, 0.0))
        # low == high tells a constant exactly; a deviation of rounding errors would not.
        scale = tf.where(low == high, tf.zeros_like(mean), 1.0 / deviation)
        self.mean.assign(tf.cast(mean, tf.float32))
        self.scale.assign(tf.cast(scale, tf.float32))

    def call(self, images):
        """Standardises a batch."""
        return (images - self.mean) * self.scale

    def get_config(self) -> dict:
        """The arguments that make an equal layer."""
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable("robust_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer over the last axis, in training with fewer and longer loops.

    A vector unit has little to do with the ten channels of the MNIST network, so sums and
    products here run over whole examples; a training step of that network takes a
    quarter less. Arguments, shapes and results are those of Keras's layer.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalises a batch, in training by its own statistics."""
        usual = (
            inputs.dtype == tf.float32
            and None not in inputs.shape[1:]
            and self.axis in (-1, len(inputs.shape) - 1)
            and self.scale
            and self.center
            and mask is None
            and not getattr(self, "synchronized", False)
        )
        if not (training and self.trainable and usual):
            return super().call(inputs, training=training, mask=mask)
        normalized, mean, variance = _normalize(inputs, self.gamma, self.beta, self.epsilon)
        for moving, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + found * (1.0 - self.momentum))
        return normalized


def _normalize(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalised inputs [..., C], and mean and population variance of the channels [C]."""
    channels = inputs.shape[-1]
    places = math.prod(inputs.shape[1:-1])

    def per_channel(values: tf.Tensor) -> tf.Tensor:  # [B, places * C] -> [C]
        sums = tf.reduce_sum(values, axis=0)
        return tf.reduce_sum(tf.reshape(sums, [places, channels]), axis=0)

    def per_value(channel: tf.Tensor) -> tf.Tensor:  # [C] -> [places * C]
        return tf.tile(channel, [places])

    @tf.custom_gradient
    def normalize(inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple:
        values = tf.reshape(inputs, [-1, places * channels])
        count = tf.cast(tf.shape(values)[0] * places, values.dtype)
        mean = per_channel(values) / count
        centred = values - per_value(mean)
        variance = per_channel(centred * centred) / count
        rate = tf.math.rsqrt(variance + epsilon)
        normalized = centred * per_value(gamma * rate) + per_value(beta)

        def gradients(upstream: tf.Tensor, *_: tf.Tensor) -> tuple:
            # Mean and variance go to the moving averages only: nothing comes back from there.
            upstream = tf.reshape(upstream, [-1, places * channels])
            beta_gradient = per_channel(upstream)
            products = per_channel(upstream * centred)
            slope = gamma * rate
            inputs_gradient = (
                per_value(slope) * upstream
                - per_value(slope * rate**2 * products / count) * centred
                - per_value(slope * beta_gradient / count)
            )
            return tf.reshape(inputs_gradient, tf.shape(inputs)), products * rate, beta_gradient

        return (tf.reshape(normalized, tf.shape(inputs)), mean, variance), gradients

    return normalize(inputs, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


@keras.saving.register_keras_serializable("robust_tf")
class WithMirrored(keras.layers.Layer):
    """Outside training, adds to a batch its images with left and right changed.

    Input shape: [B, H, W, C].
    Output shape: [2 B, H, W, C], the images, then the mirrored ones; in training [B, H, W, C].
    """

    def call(self, images, training=None):
        """Makes one batch of both."""
        return images if training else tf.concat([images, images[:, :, ::-1]], axis=0)


@keras.saving.register_keras_serializable("robust_tf")
class MeanOfMirrored(keras.layers.Layer):
    """Outside training, the mean of what a network makes of images and mirrored images.

    Before a dense layer without activation, that is the mean of that layer's outputs too.

    Input shape: [2 B, F], as of `WithMirrored`; in training [B, F].
    Output shape: [B, F].
    """

    def call(self, features, training=None):
        """Takes the mean of each pair."""
        return features if training else tf.add_n(tf.split(features, 2)) / 2


@keras.saving.register_keras_serializable("robust_tf")
class ReversedChannels(keras.layers.Layer):
    """The channels of images in reverse order, for networks that take BGR.

    Input shape: [B, H, W, C].
    Output shape: [B, H, W, C].
    """

    def call(self, images):
        """Reverses them."""
        return images[..., ::-1]


@keras.saving.register_keras_serializable("robust_tf")
class Frozen(keras.layers.Layer):
    """A network that does not train, and that runs in inference mode even in training.

    Keras tells all layers of a model the mode that it runs in, nested models too.

    Args:
        network: a model from images to features.

    Input shape: that of the network.
    Output shape: that of the network.
    """

    def __init__(self, network: keras.Model, **kwargs):
        """See the class."""
        super().__init__(**kwargs)
        self.network = network
        self.trainable = False

    def call(self, images, mask=None):
        """Runs the network."""
        return self.network(images, training=False, mask=mask)
