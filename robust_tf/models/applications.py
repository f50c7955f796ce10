"""Networks of `keras.applications`, with what Keras does to images before them; no download."""

import functools
import sys
import warnings
from typing import Any

import keras
import numpy as np

from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.models.adapted import ImageShape, Unfit, adapted
from robust_tf.models.layers import ReversedChannels
from robust_tf.models.names import APPLICATION

# Layers that may have other names: a last one for other classes, and those that Keras numbers.
_ANYWHERE = (keras.layers.Dense, keras.layers.Normalization)


@functools.lru_cache(maxsize=4)
def build(
    name: str,
    image_shape: ImageShape,
    classes: int,
    preprocessed: bool,
    weights: tuple[str, int, int] | None,
) -> keras.Model:
    """A network as of `adapted.adapted`.

    Args:
        name: of the function that makes it.
        image_shape: (H, W, C).
        classes: number of classes.
        preprocessed: whether its own preprocessing comes first, of images in [0, 1].
        weights: a file with weights, and what changes when the file does; None for random ones.

    Raises:
        InvalidArgument: if there is none of that name.
        Unavailable: if the file has no weights for it.
        Unfit: if it does not take such images.
    """
    function, own = _function_of(name), {"weights": None, "input_shape": image_shape}
    if weights:
        model = _with_top(_without_top(name, image_shape, weights[0]), classes)
    else:
        model = _called(function, image_shape, classes=classes, **own)
        if not isinstance(model.layers[-1], keras.layers.Dense):  # MobileNetV3 has convolutions
            base = _called(function, image_shape, include_top=False, pooling="avg", **own)
            model = _with_top(base, classes)
    if preprocessed:
        images = keras.Input(image_shape)
        model = keras.Model(images, model(_preprocessed(images, name)), name=model.name)
    return adapted(model, image_shape)


def _with_top(base: keras.Model, classes: int) -> keras.Model:
    output = keras.layers.Dense(classes, name="predictions")(base.output)
    return keras.Model(base.input, output, name=base.name)


def _function_of(name: str) -> Any:
    known = [one for one in dir(keras.applications) if one[:1].isupper()]
    if name not in known:
        raise InvalidArgument("model", f"{APPLICATION}{name}", f"a name of {', '.join(known)}")
    return getattr(keras.applications, name)


def _called(function: Any, image_shape: ImageShape, **arguments: Any) -> keras.Model:
    try:
        return function(**arguments)
    except ValueError as error:
        problem = f"it does not take images of shape {image_shape} ({one_line(error)})"
        raise Unfit(problem) from error


def _without_top(name: str, image_shape: ImageShape, weights: str) -> keras.Model:
    """A network up to its pooled features, with weights of a file that may have more."""
    function, own = _function_of(name), {"weights": None, "input_shape": image_shape}
    model = _called(function, image_shape, include_top=False, pooling="avg", **own)
    network = _called(function, image_shape, **own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras has one for each layer that does not fit
        stored = _stored(weights)
        if stored and (strange := _besides(network, stored)):
            problem = f"expected weights of {name}, not of a model with the layer {strange[0]}"
            raise Unavailable("weights", weights, problem)
        try:
            model.load_weights(weights)
        except Exception:  # whatever Keras raises for the weights of other layers
            try:
                _copy_layers(_with_weights(network, weights, stored), model)
            except Exception as error:
                expected = f"expected weights of {name} for images of {image_shape[-1]} channels"
                problem = f"{expected}, that Keras wrote ({one_line(error)})"
                raise Unavailable("weights", weights, problem) from error
    return model


def _stored(weights: str) -> keras.Model | None:
    """The model of a file; None where the file has weights alone."""
    try:
        return keras.saving.load_model(weights, compile=False)
    except Exception:  # Keras has no one error for that
        return None


def _besides(network: keras.Model, stored: keras.Model) -> list[str]:
    """Layers that a stored model has besides a network's, as a larger one of its family has.

    Keras would take the weights of those that have the network's names.
    """
    known = {layer.name for layer in network.layers}
    return [
        layer.name
        for layer in stored.layers
        if layer.weights and layer.name not in known and not isinstance(layer, _ANYWHERE)
    ]


def _with_weights(network: keras.Model, weights: str, stored: keras.Model | None) -> keras.Model:
    """A network with weights of a file; or what is stored there, which may be for other classes."""
    try:
        network.load_weights(weights)
    except Exception:  # whatever Keras raises for another last layer
        if stored is None:
            raise
        return stored
    return network


def _copy_layers(whole: keras.Model, model: keras.Model) -> None:
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())


def _preprocessed(images: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """What Keras does with bytes before a network takes them, from images in [0, 1].

    It is a factor and a summand per channel, and maybe another order of the channels.
    """
    module = sys.modules[_function_of(name).__module__]
    channels = images.shape[-1]
    probes = 255.0 * np.concatenate([np.zeros([1, channels]), np.eye(channels)])
    try:
        found = module.preprocess_input(probes[:, None, None].astype(np.float32))[:, 0, 0]
    except Exception as error:  # of colours it takes the means of three channels
        problem = f"its preprocessing is for images of 3 channels, not {channels}"
        raise Unfit(f"{problem}; value_range says what it gets instead") from error
    offset, change = found[0], found[1:] - found[0]  # change[i, j]: of channel i in output j
    order = change.argmax(axis=1)
    if channels > 1 and order.tolist() == list(range(channels))[::-1]:
        images = ReversedChannels(name="reversed_channels")(images)
    ends = []
    for values in (change.max(axis=0), offset):
        same = len(set(values.tolist())) == 1
        ends.append(float(values[0]) if same else values.tolist())
    return keras.layers.Rescaling(*ends, name="preprocessing")(images)
