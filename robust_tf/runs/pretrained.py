"""What a run with `pretrained` starts from: an export of this package, or a file of Keras's."""

import dataclasses
from pathlib import Path
from typing import Any

import keras

from robust_tf import models, saved_models
from robust_tf.errors import InvalidArgument
from robust_tf.files import file_name
from robust_tf.models.adapted import adapted

_DECIDED = "no value with pretrained, which decides it"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A trained model in the form of our networks.

    Attributes:
        model: a functional model from images in [0, 1] to logits.
        fingerprint: tells it from all others, by its content.
        standardize: "pixel", "global" or "none", as the model has it.
        training: how it was trained, as its metadata say; empty for a file of Keras's.
    """

    model: keras.Model
    fingerprint: str
    standardize: str
    training: dict[str, Any]


@models.keras_defaults()
def load(
    path: str,
    image_shape: tuple[int, int, int],
    *,
    standardize: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> Pretrained:
    """Loads what training starts from.

    Args:
        path: the directory of an export, with or without its version; or a `.keras` or HDF5 file
            of a functional or sequential classifier.
        image_shape: (H, W, C) of the images that it is for.
        standardize: what to put in front, of a model that has no standardisation; None for
            nothing.
        value_range: the values that black and white have in the input of a file's network; None
            for (0, 1).

    Raises:
        InvalidArgument: if it is for images of another shape, or has a standardisation, or says
            itself what values it takes.
        Unavailable: if there is none, or it is of a kind that cannot be trained.
    """
    if models.is_file(path):
        network = models.load(path, image_shape, "pretrained")
        name = Path(path).stem
        own = standardize or "none"
        model = models.wrapped(
            network,
            network.output_shape[-1],
            standardize=own,
            value_range=value_range or (0.0, 1.0),
            name=f"own-{file_name(name)}",
        )
        fingerprint = f"{name} {models.digest_of(network)}"
        return Pretrained(model, fingerprint, own, {})
    folder = saved_models.find("pretrained", path)
    model = saved_models.load(folder, argument="pretrained")
    shape = model.input_shape[1:]
    if shape != image_shape:
        expected = f"a model for images of shape {image_shape}, not {shape}"
        raise InvalidArgument("pretrained", path, expected)
    if value_range is not None:
        raise InvalidArgument("value_range", list(value_range), _DECIDED)
    own = standardization_of(model)
    if standardize not in (None, "none") and own == "none":
        network = adapted(model, image_shape)
        model = models.wrapped(
            network, network.output_shape[-1], name=model.name, standardize=standardize
        )
        own = standardize
    elif standardize is not None and standardize != own:
        raise InvalidArgument("standardize", standardize, _DECIDED)
    training = saved_models.metadata(folder).get("training", {})
    return Pretrained(model, saved_models.fingerprint(folder), own, training)


def standardization_of(model: keras.Model) -> str:
    """What a model has: "pixel", "global" or "none"."""
    layers = {layer.name: layer for layer in model.layers}
    return layers["standardization"].mode if "standardization" in layers else "none"
