"""Models made of trained models: with a new head, without one, and of plain Keras layers."""

from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

from robust_tf.errors import InvalidArgument
from robust_tf.models import blocks
from robust_tf.models.keras_settings import keras_defaults
from robust_tf.models.layers import FUNCTIONAL, BatchNormalization, Frozen


@keras_defaults()
def with_new_head(
    pretrained: keras.Model,
    classes: int,
    head_units: Iterable[int],
    *,
    freeze_base: bool = False,
    seed: int = 0,
) -> keras.Model:
    """Replaces the last dense layer of a trained model by a new head (paper, section VI.C).

    Keras's batch norm becomes `layers.BatchNormalization`, which trains faster.

    Args:
        pretrained: a functional model whose last layer is a dense one named "logits", as
            `build`, `saved_models.load` and this function return it; it is left as it is.
        classes: number of classes.
        head_units: units of the head's ReLU layers, each from 1 on; may be empty.
        freeze_base: keep all layers before the head as they are in training, and run
            them in inference mode: batch norm with its moving statistics, no dropout. A
            nested model, as of `adapted.wrapped`, becomes a layer `Frozen`.
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
        kind = type(layer)
        if kind is keras.layers.BatchNormalization:
            kind = BatchNormalization
        new = kind.from_config(config)
        new.trainable = not freeze_base
        return new

    def copy_nested(model: keras.Model) -> keras.Layer:
        return Frozen(model, name=model.name) if freeze_base else model

    base = _copy(pretrained, copy, lambda layer: layer.weights, copy_nested)
    x = features(base).output
    # The model may have a head from an earlier transfer.
    first = 1 + sum(layer.name.startswith("head_") for layer in base.layers)
    for i, units in enumerate(head_units, start=first):
        x = keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=blocks.initializer(seed, f"head_{i}"),
            dtype=precision_of(pretrained),
            name=f"head_{i}",
        )(x)
    return keras.Model(base.input, blocks.logits(x, classes, seed=seed), name=pretrained.name)


@keras_defaults()
def plain(model: keras.Model) -> keras.Model:
    """A copy with Keras's own batch norm, to hand on; it computes the same.

    The layers that no Keras layer does the work of stay: `Standardization`, `WithMirrored`,
    `MeanOfMirrored`, `ReversedChannels` and corrections; those of a user stay, too. A frozen
    network becomes the network alone.

    Args:
        model: a functional model.
    """

    def copy(layer: keras.Layer) -> keras.Layer:
        kind = type(layer)
        if kind is BatchNormalization:
            kind = keras.layers.BatchNormalization
        return kind.from_config(layer.get_config())

    # With the state of dropout, so that the copy goes on where the model is.
    return _copy(model, copy, lambda layer: layer.variables)


def copied(model: keras.Model, inputs: keras.KerasTensor) -> keras.Model:
    """A copy of a functional model with its variables, on another input.

    What `Normalization` layers were adapted to is in the copies' settings, as if they had been
    made with a mean and a variance: such layers have no variables to lose.
    """

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if _is_adapted(layer):
            mean, variance, *_ = layer.get_weights()
            config |= {"mean": np.asarray(mean).tolist(), "variance": np.asarray(variance).tolist()}
        return type(layer).from_config(config)

    def own(model: keras.Model) -> list[keras.Layer]:  # a copied Sequential has an input layer
        return [one for one in leaves(model) if not isinstance(one, keras.layers.InputLayer)]

    copied = _cloned(model, copy, inputs=inputs)
    for layer, original in zip(own(copied), own(model), strict=True):
        if not _is_adapted(original):
            for variable, value in zip(layer.variables, original.variables, strict=True):
                variable.assign(value)
    return copied


def _is_adapted(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Normalization) and layer.input_mean is None


def leaves(model: keras.Model) -> Iterator[keras.Layer]:
    """All layers of a model, those of nested models in place of these."""
    for layer in model.layers:
        nested = layer.network if isinstance(layer, Frozen) else layer
        yield from leaves(nested) if isinstance(nested, keras.Model) else (layer,)


def _copy(
    model: keras.Model,
    copy_layer: Callable[[keras.Layer], keras.Layer],
    variables: Callable[[keras.Layer], list[keras.Variable]],
    copy_nested: Callable[[keras.Model], keras.Layer] = lambda model: model,
) -> keras.Model:
    """A model of copied layers, with the values that their variables have."""
    copied = _cloned(model, copy_layer, copy_nested)
    for layer, original in zip(copied.layers, model.layers, strict=True):
        for variable, value in zip(variables(layer), variables(original), strict=True):
            variable.assign(value)
    return copied


def _cloned(
    model: keras.Model,
    copy_layer: Callable[[keras.Layer], keras.Layer],
    copy_nested: Callable[[keras.Model], keras.Layer] = lambda model: model,
    inputs: keras.KerasTensor | None = None,
) -> keras.Model:
    """A model of copied layers, nested models and all, with other weights."""
    copies: dict[int, keras.Layer] = {}  # a layer may be in several nested models

    def copy(layer: keras.Layer) -> keras.Layer:
        if id(layer) not in copies:
            nested = layer.network if isinstance(layer, Frozen) else layer
            if type(nested) in (FUNCTIONAL, keras.Sequential):
                copies[id(layer)] = copy_nested(clone(nested))
            elif isinstance(layer, keras.Layer):
                copies[id(layer)] = copy_layer(layer)
            else:  # an operation, which has no state
                copies[id(layer)] = layer
        return copies[id(layer)]

    def clone(model: keras.Model, inputs: keras.KerasTensor | None = None) -> keras.Model:
        # Of a compiled model Keras would compile the copy, with losses that it may not know.
        ends = model.input, model.output
        if isinstance(model, keras.Sequential):  # whose own are those of its call in another model
            ends = model.inputs[0], model.outputs[0]
        uncompiled = keras.Model(*ends, name=model.name)
        return keras.models.clone_model(uncompiled, input_tensors=inputs, clone_function=copy)

    return clone(model, inputs)


def precision_of(model: keras.Model) -> str:
    """The precision that a model computes in; see `build`."""
    precisions = {layer.dtype_policy.name for layer in leaves(model)} - {"float32"}
    return precisions.pop() if precisions else "float32"


@keras_defaults()
def features(model: keras.Model) -> keras.Model:
    """The part of a model before its last dense layer.

    Args:
        model: as `build` and `with_new_head` return it.

    Returns:
        A functional model with the same layers and weights, from images to the input of
        the layer "logits".
    """
    return keras.Model(model.input, model.get_layer("logits").input, name="features")
