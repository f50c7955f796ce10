"""A user's Keras classifier in the form of our networks: from images in [0, 1] to logits.

Its last dense layer becomes the layer "logits", an activation after it is taken off, and all that
comes before stays as it is, as the layer "network". Where it comes from is not known here.
"""

import re

import keras

from robust_tf.errors import one_line
from robust_tf.models import blocks
from robust_tf.models.heads import copied, leaves
from robust_tf.models.layers import FUNCTIONAL

ImageShape = tuple[int, int, int]
# A standardised image has mean 0 and deviation 1. A network takes values of a range, as those of
# usual images, whose mean and deviation are about these parts of it.
_MEAN, _DEVIATION = 0.5, 0.25
# How many times the moving statistics of batch norm could arrive in a training.
_TIMES = 10
# What may follow the last dense layer without changing which class has the highest score.
_AFTER = (keras.layers.Softmax, keras.layers.Activation)
_IN = "in a module that is imported"
SUBCLASSED = (
    "a subclassed model does not say what its layers do; expected a keras.Sequential or "
    "keras.Model(inputs, outputs)"
)
_MODELS = (FUNCTIONAL, keras.Sequential)
_MONOTONE = ("softmax", "sigmoid", "log_softmax", "linear")


class Unfit(ValueError):
    """A model that cannot be adapted; the text says why, and what would help."""


def words_of(error: Exception) -> str:
    """What Keras says of a layer that it cannot make of its configuration, and what helps."""
    text, decorator = str(error), "@keras.saving.register_keras_serializable()"
    if "ambda" in text:
        return f"no file holds the function of a Lambda layer safely; make it a layer class, {_IN}"
    if unknown := re.search(r"(?:Could not locate|Unknown) \w+:? '\S+'", text):
        return f"{unknown[0]}; it needs the decorator {decorator}, {_IN}"
    if "get_config" in text:
        return "a custom layer needs a get_config with all its arguments"
    return one_line(error)


def adapted(model: keras.Model, image_shape: ImageShape) -> keras.Model:
    """A copy, with its weights, from one image batch to the logits of its last dense layer.

    Args:
        model: a functional or sequential classifier, whatever its names and nested models.
        image_shape: (H, W, C) of the images that it is for.

    Returns:
        A functional model whose last layer is a dense one named "logits".

    Raises:
        Unfit: if it is of another kind.
    """
    if not isinstance(model, _MODELS):
        raise Unfit(SUBCLASSED)
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *image_shape))
    for layer in leaves(model):
        if isinstance(layer, keras.layers.Lambda):
            problem = f"Keras does not reload the function of a Lambda layer ({layer.name})"
            raise Unfit(f"{problem}; make it a layer class with @register_keras_serializable()")
    if (len(model.inputs), len(model.outputs)) != (1, 1):
        found = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise Unfit(f"expected a network of one input and one output, not {found}")
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or any(own not in (None, of) for own, of in zip(shape, image_shape)):
        raise Unfit(f"expected a network for images of shape {image_shape}, not {shape}")
    features, dense = _cut(model)
    try:
        images = keras.Input(image_shape, name="images")
        base = copied(features, images)
        last = _logits(dense, dense.units)
        whole = keras.Model(images, last(base.output), name=model.name)
    except ValueError as error:  # Keras: an output would have no pixels left
        problem = f"expected a network that fits images of shape {image_shape}"
        raise Unfit(f"{problem} ({one_line(error)})") from error
    except Exception as error:  # whatever a custom layer raises
        raise Unfit(f"Keras cannot copy its layers ({words_of(error)})") from error
    for variable, value in zip(last.weights, dense.weights, strict=True):
        variable.assign(value)
    return whole


def wrapped(
    network: keras.Model,
    classes: int,
    *,
    standardize: str = "none",
    value_range: tuple[float, float] = (0.0, 1.0),
    mirror: bool = False,
    name: str,
) -> keras.Model:
    """An adapted network as `models.build` returns networks, with the same weights.

    Args:
        network: as of `adapted`; its layers become the result's.
        classes: number of classes; where it is another, the layer "logits" is new.
        standardize: "pixel", "global" or "none". The network then gets values about the middle
            of its range, a quarter of it per standard deviation.
        value_range: the values that black and white have in the network's input.
        mirror: outside training, average over the image and its mirror image.
        name: of the model.
    """
    low, high = value_range
    scale, offset = float(high - low), float(low)
    images, x = blocks.inputs(network.input_shape[1:], standardize=standardize, mirror=mirror)
    if standardize != "none":
        scale, offset = scale * _DEVIATION, offset + scale * _MEAN
    if (scale, offset) != (1, 0):
        x = keras.layers.Rescaling(scale, offset, dtype="float32", name="value_range")(x)
    dense = network.get_layer("logits")
    x = keras.Model(network.input, dense.input, name="network")(x)
    if mirror:
        x = blocks.averaged(x)
    last = _logits(dense, classes)
    model = keras.Model(images, last(x), name=name)
    if dense.units == classes:
        for variable, value in zip(last.weights, dense.weights, strict=True):
            variable.assign(value)
    return model


def quicken(network: keras.Model, steps: int) -> None:
    """Limits the momentum of batch norm, so that its statistics arrive within a training.

    They start at mean 0 and variance 1, and after n steps of momentum m a part mⁿ of that is
    left: 0.2 of it after 1,600 steps of the 0.999 that MobileNetV2 has, which is then at chance
    level however well it was trained. With m = n/(n + 10) no more than e⁻¹⁰ is left of it.

    Args:
        network: a network with new weights.
        steps: of its training.
    """
    for layer in leaves(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, steps / (steps + _TIMES))


def _logits(dense: keras.layers.Dense, classes: int) -> keras.layers.Dense:
    config = dense.get_config()
    own = {"name": "logits", "activation": "linear", "units": classes, "dtype": "float32"}
    return keras.layers.Dense.from_config({**config, **own, "trainable": True})


def _cut(model: keras.Model) -> tuple[keras.Model, keras.layers.Dense]:
    """The part of a model before its last dense layer, and that layer."""
    tensor = model.outputs[0]
    while True:
        layer, node, _ = tensor._keras_history
        if isinstance(layer, _MODELS):
            inner, dense = _cut(layer)
            before = inner(_inputs(layer, node))
            return keras.Model(model.inputs[0], before, name=model.name), dense
        if type(layer) is keras.layers.Dense:
            break
        activation = getattr(layer, "activation", keras.activations.softmax)
        if type(layer) not in _AFTER or activation.__name__ not in _MONOTONE:
            problem = f"expected a dense layer at the end, not {type(layer).__name__}"
            raise Unfit(f"{problem} ({layer.name}); add one in Keras, with a unit per class")
        tensor = _inputs(layer, node)
    if layer.activation.__name__ not in _MONOTONE or len(tensor.shape) != 2:
        problem = "expected a dense layer without activation or with softmax or sigmoid at the end"
        raise Unfit(f"{problem}, from [B, F] to [B, classes], not {layer.name}")
    return keras.Model(model.inputs[0], _inputs(layer, node), name=model.name), layer


def _inputs(layer: keras.Layer, node: int) -> keras.KerasTensor:
    """What a layer was called with, which `layer.input` says only of layers called once."""
    return layer._inbound_nodes[node].input_tensors[0]
