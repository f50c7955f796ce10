"""The paper's CNNs as Keras functional models, their standardisation and transfer heads.

A network is described by a small spec, so that other image sizes and the paper's
ablation (Table I) need no new code. Nothing here trains or reads data from disk.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.seeds import stream_int

STANDARDIZATIONS = ("pixel", "global", "none")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu", "gelu", "silu")

_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_MOMENTUM = 0.9
# Largest values are large: without this the first logits are, and training is slow.
_POOLED_SCALE = 0.125


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


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution, its batch norm and activation, and what may follow.

    Attributes:
        filters: output channels.
        kernel: side of the square kernel in pixels.
        stride: step in pixels.
        padding: "valid" or "same".
        pool: side of max-pooling, followed by dropout; 1 for neither.
        residual: add its input to its output, which has the same shape.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: str = "same"
    pool: int = 1
    residual: bool = False


@dataclasses.dataclass(frozen=True)
class CNN:
    """A convolutional classifier.

    Attributes:
        convolutions: from the image on.
        dense_units: hidden dense layers after the convolutions.
        batch_norm: normalise after each convolution.
        dropout: rate of the dropout after each pooling, in [0, 1).
        activation: name of a Keras activation.
        pool_first: pool right after a convolution, which is less work, not after activation.
        global_pool: after the convolutions, only the largest value of each channel goes on.
    """

    convolutions: tuple[Convolution, ...]
    dense_units: tuple[int, ...] = ()
    batch_norm: bool = True
    dropout: float = 0.2
    activation: str = "relu"
    pool_first: bool = False
    global_pool: bool = False


MODELS: dict[str, CNN] = {
    # Figure 1 of the paper.
    "mnist_cnn": CNN((Convolution(10, kernel=7, stride=3, padding="valid", pool=2),)),
    # Figure 2 of the paper.
    "cifar10_cnn": CNN(
        tuple(
            Convolution(filters, kernel=3, pool=pool)
            for filters in (64, 128, 256, 512)
            for pool in (1, 2)
        )
    ),
    # Not of the paper: a third of the work of its CIFAR-10 network, and better; a narrow
    # residual network in the manner of those that DAWNBench's fastest entries trained.
    "compact": CNN(
        (
            Convolution(32, kernel=3),
            Convolution(64, kernel=3, pool=2),
            Convolution(128, kernel=3, pool=2),
            Convolution(128, kernel=3, residual=True),
            Convolution(256, kernel=3, pool=2),
            Convolution(256, kernel=3, residual=True),
        ),
        dropout=0.0,
        pool_first=True,
        global_pool=True,
    ),
}


def build(
    name: str,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
    **changes: Any,
) -> keras.Model:
    """Builds a model of the registry; see `build_cnn`.

    Args:
        name: "mnist_cnn" or "cifar10_cnn", the networks of the paper's figures 1 and 2, or
            "compact".
        image_shape: (H, W, C).
        classes: number of classes.
        standardize: as in `build_cnn`.
        precision: as in `build_cnn`.
        mirror: as in `build_cnn`.
        seed: as in `build_cnn`.
        **changes: attributes of the network's `CNN` that are to be others.

    Returns:
        A functional model from float32 images [B, H, W, C] in [0, 1] to logits.

    Raises:
        InvalidArgument: if the name is unknown or the images too small for the network.
    """
    if name not in MODELS:
        raise InvalidArgument("model", name, f"one of {', '.join(MODELS)}")
    spec = dataclasses.replace(MODELS[name], **changes)
    try:
        return build_cnn(
            spec,
            image_shape,
            classes,
            standardize=standardize,
            precision=precision,
            mirror=mirror,
            seed=seed,
            name=name,
        )
    except InvalidArgument:
        raise
    except ValueError as error:  # Keras: an output would have no pixels left
        raise InvalidArgument(
            "model", name, f"a network that fits images of shape {image_shape}"
        ) from error


@functools.cache  # the plan of a sweep asks for each of its models
def check(name: str, image_shape: tuple[int, int, int]) -> None:
    """Sees whether a network of the registry fits images of a shape (H, W, C).

    Raises:
        InvalidArgument: if the name is unknown or the images too small for the network.
    """
    build(name, image_shape, classes=2)


def build_cnn(
    spec: CNN,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
    name: str = "cnn",
) -> keras.Model:
    """Builds a convolutional classifier (paper, section IV).

    Args:
        spec: its layers.
        image_shape: (H, W, C).
        classes: number of classes.
        standardize: "pixel", "global" or "none"; the layer named "standardization"
            changes nothing until it is adapted.
        precision: "float32", or the mixed precision that layers compute in; weights,
            standardisation and logits are float32 in any case.
        mirror: outside training, average over the image and its mirror image.
        seed: decides the initial weights and the dropout.
        name: the model's name.

    Returns:
        A functional model from "images", float32 [B, H, W, C] in [0, 1], to logits,
        float32 [B, classes]. The input of its layer "logits" are the features.

    Raises:
        InvalidArgument: if `standardize` or `precision` is unknown.
        ValueError: if an image is too small for the convolutions (from Keras).
    """
    if standardize not in STANDARDIZATIONS:
        raise InvalidArgument("standardize", standardize, f"one of {', '.join(STANDARDIZATIONS)}")
    if precision not in PRECISIONS:
        raise InvalidArgument("precision", precision, f"one of {', '.join(PRECISIONS)}")

    images = x = keras.Input(image_shape, name="images")
    if mirror:
        x = WithMirrored(name="with_mirrored")(x)
    if standardize != "none":
        x = Standardization(standardize, name="standardization")(x)
    for i, conv in enumerate(spec.convolutions, start=1):
        before = x
        pool = keras.layers.MaxPooling2D(conv.pool, dtype=precision, name=f"pool_{i}")
        x = keras.layers.Conv2D(
            conv.filters,
            conv.kernel,
            conv.stride,
            conv.padding,
            use_bias=not spec.batch_norm,  # batch norm would cancel it
            kernel_initializer=_initializer(seed, f"conv_{i}"),
            dtype=precision,
            name=f"conv_{i}",
        )(x)
        if conv.pool > 1 and spec.pool_first:
            x = pool(x)
        if spec.batch_norm:
            x = BatchNormalization(
                momentum=_BATCH_NORM_MOMENTUM,
                epsilon=_BATCH_NORM_EPSILON,
                dtype=precision,
                name=f"batch_norm_{i}",
            )(x)
        x = keras.layers.Activation(spec.activation, dtype=precision, name=f"activation_{i}")(x)
        if conv.pool > 1 and not spec.pool_first:
            x = pool(x)
        if conv.pool > 1 and spec.dropout:
            x = keras.layers.Dropout(
                spec.dropout,
                seed=stream_int(seed, f"dropout/{i}"),
                dtype=precision,
                name=f"dropout_{i}",
            )(x)
        if conv.residual:
            x = keras.layers.Add(dtype=precision, name=f"add_{i}")([before, x])
    if spec.global_pool:
        x = keras.layers.GlobalMaxPooling2D(dtype=precision, name="global_pool")(x)
        x = keras.layers.Rescaling(_POOLED_SCALE, dtype=precision, name="scale")(x)
    x = keras.layers.Flatten(dtype=precision, name="flatten")(x)
    for i, units in enumerate(spec.dense_units, start=1):
        x = keras.layers.Dense(
            units,
            activation=spec.activation,
            kernel_initializer=_initializer(seed, f"dense_{i}"),
            dtype=precision,
            name=f"dense_{i}",
        )(x)
    if mirror:
        x = MeanOfMirrored(dtype=precision, name="mean_of_mirrored")(x)
    return keras.Model(images, _logits(x, classes, seed), name=name)


def with_new_head(
    pretrained: keras.Model,
    classes: int,
    head_units: Iterable[int],
    *,
    freeze_base: bool = False,
    seed: int = 0,
) -> keras.Model:
    """Replaces the last dense layer of a trained model by a new head (paper, section VI.C).

    Args:
        pretrained: a functional model whose last layer is a dense one named "logits", as
            `build_cnn` and this function return it; it is left as it is.
        classes: number of classes.
        head_units: units of the head's ReLU layers, each from 1 on; may be empty.
        freeze_base: keep all layers before the head as they are in training, and run
            them in inference mode: batch norm with its moving statistics, no dropout.
        seed: decides the head's initial weights.

    Returns:
        A functional model with copies of the trained weights; its input is that of
        `pretrained`, its output logits, float32 [B, classes].

    Raises:
        InvalidArgument: if a number of units is below 1.
    """
    head_units = list(head_units)
    for units in head_units:
        if units < 1:
            raise InvalidArgument("head_units", units, "whole numbers from 1 on")

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if freeze_base and isinstance(layer, keras.layers.Dropout):
            # Training would switch it on: a functional model tells its mode to all layers.
            config["rate"] = 0.0
        return type(layer).from_config({**config, "trainable": not freeze_base})

    base = keras.models.clone_model(pretrained, clone_function=copy)
    for layer, trained in zip(base.layers, pretrained.layers):
        for variable, value in zip(layer.weights, trained.weights):
            variable.assign(value)
    x = features(base).output
    # The model may have a head from an earlier transfer.
    first = 1 + sum(layer.name.startswith("head_") for layer in base.layers)
    for i, units in enumerate(head_units, start=first):
        x = keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=_initializer(seed, f"head_{i}"),
            dtype=precision_of(pretrained),
            name=f"head_{i}",
        )(x)
    return keras.Model(base.input, _logits(x, classes, seed), name=pretrained.name)


def precision_of(model: keras.Model) -> str:
    """The precision that a model computes in; see `build_cnn`."""
    precisions = {layer.dtype_policy.name for layer in model.layers} - {"float32"}
    return precisions.pop() if precisions else "float32"


def features(model: keras.Model) -> keras.Model:
    """The part of a model before its last dense layer.

    Args:
        model: as `build_cnn` and `with_new_head` return it.

    Returns:
        A functional model with the same layers and weights, from images to the input of
        the layer "logits".
    """
    return keras.Model(model.input, model.get_layer("logits").input, name="features")


def _initializer(seed: int, layer: str) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(stream_int(seed, f"initial weights/{layer}"))


def _logits(x: keras.KerasTensor, classes: int, seed: int) -> keras.KerasTensor:
    initializer = _initializer(seed, "logits")
    layer = keras.layers.Dense(
        classes, kernel_initializer=initializer, dtype="float32", name="logits"
    )
    return layer(x)


# TEMPORARY-SHIM
from typing import Annotated  # noqa: E402

from robust_tf.settings import choice, number, switch  # noqa: E402

_BN = Annotated[bool, switch("Batch norm after each convolution.")]
_DO = Annotated[float, number("Rate of the dropout after each pooling.", 0, below=1, noun="a rate")]
_AC = Annotated[str, choice("Activation after each convolution.", ACTIVATIONS)]


def _shim(name):
    spec = MODELS[name]

    def f(
        image_shape,
        classes,
        *,
        batch_norm: _BN = spec.batch_norm,
        dropout: _DO = spec.dropout,
        activation: _AC = spec.activation,
        **k,
    ):
        return build(
            name,
            image_shape,
            classes,
            batch_norm=batch_norm,
            dropout=dropout,
            activation=activation,
            **k,
        )

    f.__name__ = name
    return f


FUNCTIONS = {name: _shim(name) for name in MODELS}
