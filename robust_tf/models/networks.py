"""Networks as functions of image shape, number of classes and settings of their own.

Each takes `(image_shape, classes, *, <own settings>, standardize, precision, mirror, seed)` and
returns a functional model. `MODELS` has them by name; what trains them is not known here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from robust_tf import settings
from robust_tf.errors import InvalidArgument
from robust_tf.models.keras_settings import keras_defaults
from robust_tf.models.names import PRECISIONS
from robust_tf.settings import Setting, choice, number, switch, whole

if TYPE_CHECKING:
    import keras

ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu", "gelu", "silu")

# Largest values are large: without this the first logits are, and training is slow.
_POOLED_SCALE = 0.125

ImageShape = tuple[int, int, int]
BatchNorm = Annotated[bool, switch("Batch norm after each convolution.")]
Dropout = Annotated[
    float,
    number(
        "Rate of the dropout after each pooling, or inside each block of a wide_resnet.",
        0,
        below=1,
        noun="a rate",
    ),
]
Activation = Annotated[str, choice("Activation after each convolution.", ACTIVATIONS)]
_DEPTH = Setting(
    "Number of convolutions of a wide_resnet, 6n + 4.",
    int,
    "6n + 4 with n from 1 on: 10, 16, 22, 28, …",
    lambda depth: isinstance(depth, int) and depth >= 10 and depth % 6 == 4,
)
Depth = Annotated[int, _DEPTH]
Width = Annotated[int, whole("Factor of the number of channels (wide_resnet).")]


def mnist_cnn(
    image_shape: ImageShape,
    classes: int,
    *,
    batch_norm: BatchNorm = True,
    dropout: Dropout = 0.2,
    activation: Activation = "relu",
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
) -> keras.Model:
    """Figure 1 of the paper: one convolution with a large kernel; see `build`."""
    from robust_tf.models import blocks

    images, x = blocks.inputs(image_shape, standardize=standardize, mirror=mirror)
    x = blocks.convolution(
        x,
        "conv_1",
        filters=10,
        kernel=7,
        stride=3,
        padding="valid",
        bias=not batch_norm,
        precision=precision,
        seed=seed,
    )
    x = blocks.activated(x, 1, activation, batch_norm=batch_norm, precision=precision)
    x = blocks.pooled(x, 1, precision=precision)
    x = blocks.dropped(x, 1, dropout, precision=precision, seed=seed)
    return blocks.classifier(
        images, x, classes, name="mnist_cnn", mirror=mirror, precision=precision, seed=seed
    )


def cifar10_cnn(
    image_shape: ImageShape,
    classes: int,
    *,
    batch_norm: BatchNorm = True,
    dropout: Dropout = 0.2,
    activation: Activation = "relu",
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
) -> keras.Model:
    """Figure 2 of the paper: pairs of convolutions, each followed by pooling; see `build`."""
    from robust_tf.models import blocks

    images, x = blocks.inputs(image_shape, standardize=standardize, mirror=mirror)
    i = 0
    for filters in (64, 128, 256, 512):
        for _ in range(2):
            i += 1
            x = blocks.convolution(
                x,
                f"conv_{i}",
                filters,
                kernel=3,
                bias=not batch_norm,
                precision=precision,
                seed=seed,
            )
            x = blocks.activated(x, i, activation, batch_norm=batch_norm, precision=precision)
        x = blocks.pooled(x, i, precision=precision)
        x = blocks.dropped(x, i, dropout, precision=precision, seed=seed)
    return blocks.classifier(
        images, x, classes, name="cifar10_cnn", mirror=mirror, precision=precision, seed=seed
    )


def compact(
    image_shape: ImageShape,
    classes: int,
    *,
    batch_norm: BatchNorm = True,
    dropout: Dropout = 0.0,
    activation: Activation = "relu",
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
) -> keras.Model:
    """A narrow residual network in the manner of DAWNBench's fastest entries; see `build`.

    Not of the paper: a third of the work of its CIFAR-10 network, and better. It pools right
    after a convolution, which is less work than after the activation; of the last pixels, only
    the largest value of each channel goes on.
    """
    import keras

    from robust_tf.models import blocks

    images, x = blocks.inputs(image_shape, standardize=standardize, mirror=mirror)
    rows = [(32, ""), (64, "pool"), (128, "pool"), (128, "add"), (256, "pool"), (256, "add")]
    for i, (filters, special) in enumerate(rows, start=1):
        before = x
        x = blocks.convolution(
            x,
            f"conv_{i}",
            filters,
            kernel=3,
            bias=not batch_norm,
            precision=precision,
            seed=seed,
        )
        if special == "pool":
            x = blocks.pooled(x, i, precision=precision)
        x = blocks.activated(x, i, activation, batch_norm=batch_norm, precision=precision)
        if special == "pool":
            x = blocks.dropped(x, i, dropout, precision=precision, seed=seed)
        if special == "add":
            x = blocks.added(before, x, i, precision=precision)
    x = keras.layers.GlobalMaxPooling2D(dtype=precision, name="global_pool")(x)
    x = keras.layers.Rescaling(_POOLED_SCALE, dtype=precision, name="scale")(x)
    return blocks.classifier(
        images, x, classes, name="compact", mirror=mirror, precision=precision, seed=seed
    )


def wide_resnet(
    image_shape: ImageShape,
    classes: int,
    *,
    depth: Depth = 16,
    width: Width = 4,
    dropout: Dropout = 0.0,
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
) -> keras.Model:
    """WRN-depth-width of Zagoruyko and Komodakis (2016), arXiv 1605.07146; see `build`.

    Three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels; the second
    and third group halve height and width. A block is twice batch norm, ReLU and a 3×3
    convolution, with dropout before the second one; a 1×1 convolution on the shortcut where
    the number of channels changes. The initial weights are Glorot's, as in the other networks.
    """
    import keras

    from robust_tf.models import blocks

    _DEPTH.check("depth", depth)
    activate = functools.partial(blocks.activated, precision=precision)
    convolve = functools.partial(blocks.convolution, precision=precision, seed=seed)
    images, x = blocks.inputs(image_shape, standardize=standardize, mirror=mirror)
    x = convolve(x, "conv_1", filters=16, kernel=3)
    i = 2
    for filters, first_stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for stride in (first_stride, *[1] * ((depth - 4) // 6 - 1)):
            shortcut, x = x, activate(x, i)
            if shortcut.shape[-1] != filters:
                shortcut = convolve(x, f"shortcut_{i}", filters, kernel=1, stride=stride)
            x = convolve(x, f"conv_{i}", filters, kernel=3, stride=stride)
            x = activate(x, i + 1)
            x = blocks.dropped(x, i + 1, dropout, precision=precision, seed=seed)
            x = convolve(x, f"conv_{i + 1}", filters, kernel=3)
            x = blocks.added(shortcut, x, i + 1, precision=precision)
            i += 2
    x = activate(x, i)
    x = keras.layers.GlobalAveragePooling2D(dtype=precision, name="global_pool")(x)
    return blocks.classifier(
        images, x, classes, name="wide_resnet", mirror=mirror, precision=precision, seed=seed
    )


@keras_defaults()
def build(
    name: str,
    image_shape: ImageShape,
    classes: int,
    *,
    standardize: str = "pixel",
    precision: str = "float32",
    mirror: bool = False,
    seed: int = 0,
    **own: bool | int | float | str,
) -> keras.Model:
    """Builds a network of the registry.

    Args:
        name: a name in `MODELS`: "mnist_cnn" or "cifar10_cnn", the networks of the paper's
            figures 1 and 2; "compact"; or "wide_resnet".
        image_shape: (H, W, C).
        classes: number of classes.
        standardize: "pixel", "global" or "none"; the layer named "standardization" changes
            nothing until it is adapted.
        precision: "float32", or the mixed precision that layers compute in; weights,
            standardisation and logits are float32 in any case.
        mirror: outside training, average over the image and its mirror image.
        seed: decides the initial weights and the dropout.
        **own: settings of the network, by name; others have its defaults.

    Returns:
        A functional model from "images", float32 [B, H, W, C] in [0, 1], to logits, float32
        [B, classes]. The input of its layer "logits" are the features.

    Raises:
        InvalidArgument: if the name, a setting or its value is not allowed, or if the images
            are too small for the network.
    """
    if name not in MODELS:
        raise InvalidArgument("model", name, f"one of {', '.join(MODELS)}")
    if precision not in PRECISIONS:
        raise InvalidArgument("precision", precision, f"one of {', '.join(PRECISIONS)}")
    checked = settings.check(settings.of_function(MODELS[name]), own)
    try:
        return MODELS[name](
            image_shape,
            classes,
            standardize=standardize,
            precision=precision,
            mirror=mirror,
            seed=seed,
            **checked,
        )
    except InvalidArgument:
        raise
    except ValueError as error:  # Keras: an output would have no pixels left
        raise InvalidArgument(
            "model", name, f"a network that fits images of shape {image_shape}"
        ) from error


@functools.cache  # the plan of a sweep asks for each of its models
def check(name: str, image_shape: ImageShape) -> None:
    """Checks that a network of the registry fits images of a shape (H, W, C).

    Raises:
        InvalidArgument: if the name is unknown or the images are too small for the network.
    """
    build(name, image_shape, classes=2)


MODELS: dict[str, Callable[..., keras.Model]] = {
    "mnist_cnn": mnist_cnn,
    "cifar10_cnn": cifar10_cnn,
    "compact": compact,
    "wide_resnet": wide_resnet,
}
