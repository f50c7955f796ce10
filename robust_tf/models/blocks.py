"""What networks are made of: small functions from Keras tensors to Keras tensors.

Each names its layers by the number that it is given; the names decide initial weights and
dropout. Which block follows which is not known here.
"""

import keras

from robust_tf.errors import InvalidArgument
from robust_tf.models.layers import (
    BatchNormalization,
    MeanOfMirrored,
    Standardization,
    WithMirrored,
)
from robust_tf.models.names import STANDARDIZATIONS
from robust_tf.seeds import stream_int

_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_MOMENTUM = 0.9


def inputs(
    image_shape: tuple[int, int, int], *, standardize: str, mirror: bool
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The images as they arrive, and as the first convolution takes them.

    Args:
        image_shape: (H, W, C).
        standardize: "pixel", "global" or "none".
        mirror: outside training, add the mirror images to the batch.

    Raises:
        InvalidArgument: if `standardize` is unknown.
    """
    if standardize not in STANDARDIZATIONS:
        raise InvalidArgument("standardize", standardize, f"one of {', '.join(STANDARDIZATIONS)}")
    images = x = keras.Input(image_shape, name="images")
    if mirror:
        x = WithMirrored(name="with_mirrored")(x)
    if standardize != "none":
        x = Standardization(standardize, name="standardization")(x)
    return images, x


def convolution(
    x: keras.KerasTensor,
    name: str,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: str = "same",
    bias: bool = False,
    precision: str,
    seed: int,
) -> keras.KerasTensor:
    """A convolution with a square kernel; batch norm after it would cancel a bias."""
    return keras.layers.Conv2D(
        filters,
        kernel,
        stride,
        padding,
        use_bias=bias,
        kernel_initializer=initializer(seed, name),
        dtype=precision,
        name=name,
    )(x)


def activated(
    x: keras.KerasTensor,
    number: int,
    activation: str = "relu",
    *,
    batch_norm: bool = True,
    precision: str,
) -> keras.KerasTensor:
    """Batch norm, if asked for, then a Keras activation by name."""
    if batch_norm:
        x = BatchNormalization(
            momentum=_BATCH_NORM_MOMENTUM,
            epsilon=_BATCH_NORM_EPSILON,
            dtype=precision,
            name=f"batch_norm_{number}",
        )(x)
    return keras.layers.Activation(activation, dtype=precision, name=f"activation_{number}")(x)


def pooled(x: keras.KerasTensor, number: int, *, precision: str) -> keras.KerasTensor:
    """Max-pooling of 2×2 pixels."""
    return keras.layers.MaxPooling2D(2, dtype=precision, name=f"pool_{number}")(x)


def dropped(
    x: keras.KerasTensor, number: int, rate: float, *, precision: str, seed: int
) -> keras.KerasTensor:
    """Dropout; no layer where the rate is 0."""
    if not rate:
        return x
    dropout_seed = stream_int(seed, f"dropout/{number}")
    layer = keras.layers.Dropout(rate, seed=dropout_seed, dtype=precision, name=f"dropout_{number}")
    return layer(x)


def added(
    shortcut: keras.KerasTensor, x: keras.KerasTensor, number: int, *, precision: str
) -> keras.KerasTensor:
    """The sum of both branches of a residual block."""
    return keras.layers.Add(dtype=precision, name=f"add_{number}")([shortcut, x])


def classifier(
    images: keras.KerasTensor,
    x: keras.KerasTensor,
    classes: int,
    *,
    name: str,
    mirror: bool,
    precision: str,
    seed: int,
) -> keras.Model:
    """A model that ends with the flattened features and the logits.

    Args:
        images: the first of `inputs`.
        x: the features, of any shape.
        classes: number of classes.
        name: the model's name.
        mirror: as in `inputs`.
        precision: one of `names.PRECISIONS`.
        seed: decides the initial weights.
    """
    x = keras.layers.Flatten(dtype=precision, name="flatten")(x)
    if mirror:
        x = averaged(x, precision=precision)
    return keras.Model(images, logits(x, classes, seed=seed), name=name)


def averaged(x: keras.KerasTensor, *, precision: str = "float32") -> keras.KerasTensor:
    """The mean of the features of images and mirrored images."""
    return MeanOfMirrored(dtype=precision, name="mean_of_mirrored")(x)


def logits(x: keras.KerasTensor, classes: int, *, seed: int) -> keras.KerasTensor:
    """The last dense layer, in float32 whatever the precision."""
    return keras.layers.Dense(
        classes, kernel_initializer=initializer(seed, "logits"), dtype="float32", name="logits"
    )(x)


def initializer(seed: int, layer: str) -> keras.initializers.Initializer:
    """Draws the initial weights of a layer, by the layer's name."""
    return keras.initializers.GlorotUniform(stream_int(seed, f"initial weights/{layer}"))
