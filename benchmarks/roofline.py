"""What a training step of the MNIST network could take at best on this machine, layer by layer.

A layer's floor is the larger of two times: its arithmetic at the speed of a large matrix product,
and its traffic at the speed of a multiplication of arrays as large as the first activations.
"""

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from benchmarks.steps import SETTINGS
from benchmarks.timing import medians, seconds
from robust_tf import models

_PRODUCT = 2048  # rows and columns of the large matrix product
_TIMES = 10  # calls per measurement
Ways = dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]


def measure(rounds: int) -> pd.DataFrame:
    """Times each layer's part of a training step, forward and backward, apart from the others.

    Args:
        rounds: timed rounds.

    Returns:
        One row per layer of the network, from the first with weights on: us, microseconds per
        image; floor_us; mflop and kbytes, its arithmetic and least traffic per image; ratio,
        of us to floor_us; and rows "machine" with mflop per us (in `mflop`) and kbytes per us.
    """
    name, shape, batch_size, _ = SETTINGS["mnist"]
    model = models.build(name, shape, 10, standardize="none")
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    layers = [layer for layer in layers if not isinstance(layer, keras.layers.Flatten)]
    variants = {layer.name: _step(layer, batch_size, layer is layers[0]) for layer in layers}
    square = tf.random.stateless_normal([_PRODUCT, _PRODUCT], [0, 0])
    activations = tf.random.stateless_normal([batch_size, *layers[0].output.shape[1:]], [0, 0])
    product = tf.function(lambda: tf.matmul(square, square))
    multiplied = tf.function(lambda: activations * 1.5)
    variants |= {"matmul": _timed(product), "multiply": _timed(multiplied)}
    times = medians(variants, rounds)
    mflop_per_us = 2 * _PRODUCT**3 / 1e12 / times.pop("matmul")
    kbytes_per_us = 2 * 4 * float(tf.size(activations)) / 1e9 / times.pop("multiply")
    rows = []
    for layer in layers:
        mflop, kbytes = _work(layer, layer is layers[0])
        floor = max(mflop / mflop_per_us, kbytes / kbytes_per_us)
        us = times[layer.name] * 1e6 / batch_size
        rows.append((layer.name, us, floor, mflop, kbytes, us / floor))
    rows.append(("machine", np.nan, np.nan, mflop_per_us, kbytes_per_us, np.nan))
    return pd.DataFrame(rows, columns=["layer", "us", "floor_us", "mflop", "kbytes", "ratio"])


def alternatives(rounds: int) -> pd.DataFrame:
    """Times other ways to the same values, forward and backward: what was tried.

    Args:
        rounds: timed rounds.

    Returns:
        One row per way: what it computes, microseconds per image, and ratio to the network's.
    """
    _, (height, width, _), batch_size, _ = SETTINGS["mnist"]
    images = tf.random.stateless_uniform([batch_size, height, width, 1], [0, 0])
    kernel = tf.random.stateless_normal([7, 7, 1, 10], [0, 1])
    activations = tf.random.stateless_normal([batch_size, 8, 8, 10], [0, 2])
    # What is computed: the ways, the network's first, their arguments, by which of them to derive.
    asked = {
        "convolution": (_CONVOLUTIONS, (images, kernel), 1),
        "pooling": (_POOLINGS, (activations, kernel), 0),
    }
    variants, first = {}, {}
    for what, (ways, arguments, by) in asked.items():
        expected = next(iter(ways.values()))(*arguments)
        for name, way in ways.items():
            np.testing.assert_allclose(way(*arguments), expected, atol=1e-3)
            variants[what, name] = _timed(_gradient(way, arguments, by))
        first[what] = what, next(iter(ways))
    times = medians(variants, rounds)
    rows = [
        (what, name, time * 1e6 / batch_size, time / times[first[what]])
        for (what, name), time in times.items()
    ]
    return pd.DataFrame(rows, columns=["what", "way", "us", "ratio"])


def _timed(run: Callable[[], object]) -> Callable[[], float]:
    """Seconds of one call; on a CPU it returns when all is computed."""
    return lambda: seconds(lambda: [run() for _ in range(_TIMES)]) / _TIMES


def _gradient(way: Callable, arguments: tuple, by: int) -> Callable[[], tf.Tensor]:
    upstream = tf.random.stateless_normal(tf.shape(way(*arguments)), [0, 3])
    # A variable: what depends on constants alone would be computed once.
    variable = tf.Variable(arguments[by])

    @tf.function(autograph=False)
    def run() -> tf.Tensor:
        values = [*arguments]
        values[by] = tf.convert_to_tensor(variable)
        with tf.GradientTape() as tape:
            tape.watch(values[by])
            output = way(*values)
        return tape.gradient(output, values[by], output_gradients=upstream)

    return run


def _step(layer: keras.layers.Layer, batch_size: int, is_first: bool) -> Callable[[], float]:
    """Times a layer in training, with the gradients that its place in the network needs."""
    images = tf.Variable(tf.random.stateless_normal([batch_size, *layer.input.shape[1:]], [0, 0]))
    upstream = tf.random.stateless_normal([batch_size, *layer.output.shape[1:]], [0, 1])

    @tf.function(autograph=False)
    def run() -> tuple:
        inputs = tf.convert_to_tensor(images)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = layer(inputs, training=True)
        sources = [weight.value for weight in layer.trainable_weights]
        sources += [] if is_first else [inputs]
        gradients = tape.gradient(output, sources, output_gradients=upstream)
        return output, gradients

    return _timed(run)


def _work(layer: keras.layers.Layer, is_first: bool) -> tuple[float, float]:
    """Arithmetic in MFLOP, and least traffic in kB, of an image forward and backward."""
    inputs, outputs = (int(np.prod(x.shape[1:])) for x in (layer.input, layer.output))
    products = 0
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        kernel = layer.kernel.shape
        places = outputs // kernel[-1]
        products = 2 * places * int(np.prod(kernel)) * (2 if is_first else 3)
    # Forward it reads its inputs and writes its outputs; backward it reads what comes back and
    # its inputs again, and writes what goes back, unless nothing is before it.
    numbers = inputs + outputs + outputs + inputs + (0 if is_first else inputs)
    return products / 1e6, numbers * 4 / 1e3


def _by_blocks(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Blocks of 3×3 pixels become channels, the stride becomes 1."""
    blocks = tf.nn.space_to_depth(tf.pad(images, [[0, 0], [0, 2], [0, 2], [0, 0]]), 3)
    padded = tf.reshape(tf.pad(kernel, [[0, 2], [0, 2], [0, 0], [0, 0]]), [3, 3, 3, 3, 10])
    padded = tf.reshape(tf.transpose(padded, [0, 2, 1, 3, 4]), [3, 3, 9, 10])
    return tf.nn.conv2d(blocks, padded, 1, "VALID")


def _by_patches(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """One product of all patches, gathered, with the kernel."""
    rows = tf.stack([images[:, 3 * i : 3 * i + 7, :, 0] for i in range(8)], axis=1)
    patches = tf.stack([rows[..., 3 * j : 3 * j + 7] for j in range(8)], axis=2)
    products = tf.matmul(tf.reshape(patches, [-1, 49]), tf.reshape(kernel, [49, 10]))
    return tf.reshape(products, [-1, 8, 8, 10])


def _by_rows(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """One product of all strips of 7 rows with a matrix that has the kernel at 8 places."""
    strips = tf.stack(
        [tf.reshape(images[:, 3 * i : 3 * i + 7], [-1, 196]) for i in range(8)], axis=1
    )
    flat = tf.reshape(kernel, [7, 7, 10])
    places = [tf.pad(flat, [[0, 0], [3 * j, 21 - 3 * j], [0, 0]]) for j in range(8)]
    matrix = tf.reshape(tf.stack(places, axis=2), [196, 80])
    return tf.reshape(tf.matmul(tf.reshape(strips, [-1, 196]), matrix), [-1, 8, 8, 10])


def _by_maximum(values: tf.Tensor) -> tf.Tensor:
    """The larger of two neighbours, twice."""
    rows = tf.maximum(*tf.unstack(tf.reshape(values, [-1, 4, 2, 80]), axis=2))
    pairs = tf.unstack(tf.reshape(rows, [-1, 16, 2, 10]), axis=2)
    return tf.reshape(tf.maximum(*pairs), [-1, 4, 4, 10])


def _pooled(values: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(values, 2, 2, "VALID")


_CONVOLUTIONS: Ways = {
    "conv2d": lambda images, kernel: tf.nn.conv2d(images, kernel, 3, "VALID"),
    "blocks of 3×3 as channels": _by_blocks,
    "patches, one product": _by_patches,
    "strips of rows, one product": _by_rows,
}
_POOLINGS: Ways = {
    "ReLU, then max_pool2d": lambda values, _: _pooled(tf.nn.relu(values)),
    "max_pool2d, then ReLU": lambda values, _: tf.nn.relu(_pooled(values)),
    "maximum of neighbours, then ReLU": lambda values, _: tf.nn.relu(_by_maximum(values)),
}
