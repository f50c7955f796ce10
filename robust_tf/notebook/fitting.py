"""A robust model, in one call."""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras

from robust_tf import data as data_lib
from robust_tf import models, runs
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.files import file_name
from robust_tf.models import leaves
from robust_tf.models.adapted import Unfit, adapted
from robust_tf.notebook.loading import arrays, check_names, class_names, taking, usual_range

Range = tuple[float, float]


def fit(
    model: str | os.PathLike | keras.Model | Callable[[tuple[int, int, int], int], keras.Model],
    images: Any,
    labels: Any,
    *,
    perturb: str | Iterable[str] | None = "all",
    strategy: str | None = None,
    seed: int = 0,
    value_range: Range | None = None,
    label_names: Sequence[str] | None = None,
    progress: bool = True,
    **settings: Any,
) -> keras.Model:
    """Trains a network so that it keeps its accuracy when images are perturbed.

    The network itself is left as it is. Its weights are drawn anew, but for the strategy
    "transfer", which starts from them and replaces the last dense layer.

    Args:
        model: a functional or sequential Keras classifier; a function of image shape (H, W, C) and
            number of classes that returns one; or a text that `pipelines.run` takes: a `.keras`
            file, "keras.applications:MobileNetV2", or the name of one of our own networks.
            For "transfer" also the directory of an export of this package.
        images: training images, shape [N, H, W, C] or [N, H, W].
        labels: one per image: whole numbers from 0 on, or texts, the names of the classes.
        perturb: a kind of perturbation, several as in "hot,noise", or "all"; None for natural
            images.
        strategy: "constant", "incremental", "transfer" or "natural"; by default "constant", and
            without `perturb` "natural".
        seed: decides everything that is random.
        value_range: the values of black and white in the images, and in the network's input; by
            default (0, 255) for whole numbers, (0, 1) for floats and bool. Images that are not of
            bytes are rounded to bytes.
        label_names: the names of the classes in the order of the scores; by default numbers, or
            the texts, sorted (as numbers where all are numbers).
        progress: show a progress bar.
        **settings: other settings of `pipelines.run`, such as `epochs=10`, `batch_size=64`,
            `learning_rate=0.001` or `level="1:5"`.

    Returns:
        A trained Keras model that takes images of the values given, not compiled. A Keras model
        that was given comes back as a copy with other weights, one score as one score. In all
        other cases, and where "transfer", `standardize` or mirrored images change the network,
        the model returns logits, one per class.

    Raises:
        InvalidArgument: if an argument is not allowed, or the network does not fit the images.
        Unavailable: if the network is of a kind that cannot be trained, or training diverges.
    """
    images, labels = arrays(images, labels)
    if perturb is not None:
        perturb = _kinds(perturb)
    values = usual_range(images) if value_range is None else value_range
    outputs = getattr(model, "outputs", None) if isinstance(model, keras.Model) else None
    names = class_names(labels, outputs[0].shape[-1] if outputs else None, label_names)
    # The first image stands for test images, which there are none of.
    data = data_lib.from_arrays(
        images, labels, images[:1], labels[:1], label_names=names, value_range=values
    )
    if callable(model) and not isinstance(model, keras.Model):
        model = _made(model, data)
    given: dict[str, Any] = {"seed": seed, "perturb": perturb, "strategy": strategy}
    given = {name: value for name, value in given.items() if value is not None} | settings
    with tempfile.TemporaryDirectory() as folder:
        path = str(model)
        if isinstance(model, keras.Model):
            _check(model, data, same_head=strategy != "transfer")
            path = f"{folder}/{file_name(model.name)}.keras"
            model.save(path)
        starts = strategy == "transfer" and (models.is_file(path) or Path(path).is_dir())
        given["pretrained" if starts else "model"] = path
        if models.is_file(path) or callable(model):
            given.setdefault("value_range", values)
        try:
            run = runs.resolve(data, **given)
            places = f"{folder}/results", f"{folder}/saved_models"
            runs.train(
                run, data, output_dir=places[0], saved_models_dir=places[1], progress=progress
            )
            trained = runs.load_model(run, *places)
            own = None
            if isinstance(model, keras.Model) and not starts:
                own = _with_weights(keras.saving.load_model(path, compile=False), trained)
        except (InvalidArgument, Unavailable) as error:
            if isinstance(model, keras.Model) and str(error.value) == path:
                raise error.with_value(model.name).of("model") from error
            raise
    return taking(own or _taking_values(trained, values), values)


def _kinds(perturb: Any) -> str:
    asked = perturb.split(",") if isinstance(perturb, str) else perturb
    asked = list(asked) if isinstance(asked, Iterable) else [asked]
    if not all(isinstance(one, str) for one in asked):
        expected = 'a kind, several as in "hot,noise", or "all"; their levels are `level`'
        raise InvalidArgument("perturb", asked, expected)
    return ",".join(one.strip() for one in asked)


def _check(model: keras.Model, data: Data, *, same_head: bool) -> None:
    try:
        adapted(model, data.image_shape)
    except Unfit as error:
        raise Unavailable("model", model.name, str(error)) from error
    if same_head:
        check_names(data.label_names, model.output_shape[-1])


def _made(function: Callable, data: Data) -> keras.Model:
    made = function(data.image_shape, len(data.label_names))
    if not isinstance(made, keras.Model):
        expected = "a function of image shape and number of classes that returns a keras.Model"
        raise InvalidArgument("model", getattr(function, "__name__", function), expected)
    return made


def _with_weights(own: keras.Model, trained: keras.Model) -> keras.Model | None:
    """The user's network with weights of a trained one; None where that has other layers."""
    if [layer.name for layer in trained.layers[1:-2]] not in ([], ["value_range"]):
        return None
    network, last = (layer.get_weights() for layer in trained.layers[-2:])
    if own.output_shape[-1] == 1:  # softmax of logits a, b gives the second class sigmoid(b - a)
        last = [weight[..., 1:] - weight[..., :1] for weight in last]
    variables = [
        variable
        for layer in leaves(own)
        if not isinstance(layer, keras.layers.Normalization)  # which training leaves as it is
        for variable in layer.weights
    ]
    weights = [*network, *last]
    if [weight.shape for weight in weights] != [tuple(one.shape) for one in variables]:
        return None
    for variable, weight in zip(variables, weights, strict=True):
        variable.assign(weight)
    return own


def _taking_values(model: keras.Model, values: Range) -> keras.Model:
    """A model from images in [0, 1] as one from images of other values."""
    low, high = values
    images = keras.Input(model.input_shape[1:], name="images")
    scale = 1 / (high - low)
    x = images if (low, high) == (0, 1) else keras.layers.Rescaling(scale, -low * scale)(images)
    return keras.Model(images, model(x), name=model.name)
