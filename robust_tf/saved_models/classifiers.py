"""Any saved classifier, third-party ones too, as a function from images to scores.

This package's own reload as Keras models by `saved_models.load`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import robust_tf.layers  # noqa: F401  (a .keras file may have some)
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.files import for_tensorflow
from robust_tf.saved_models import exports, forms, runtimes

# How lines begin that say where a model has raised, and what colours them.
_FRAME = ("Graph execution error", "Exception encountered", "Detected at node", "File ", "<stack")
_COLOURS = re.compile("\x1b\\[\\d*m")


@dataclass(frozen=True, eq=False)
class Classifier:
    """A function from float32 images [B, H, W, C] in [0, 1] to scores [B, classes].

    Attributes:
        path: its file, or the folder of its version.
        name: of its file, or of its folder with the version.
        fingerprint: a digest of its content.
        signature: the SavedModel's signature that is called; None for a file.
        input: the name of its input; None for a `.keras` file.
        output: likewise the name of the output that has the scores.
        image_shape: (H, W, C); None where it takes any.
        classes: number of scores; None where it does not say.
        function: from what `inputs` returns to scores.
        input_range: the values that black and white have in its input.
        metadata: as of `saved_models.metadata`; empty for a third-party model.
        dtype: of its input.
        batch_size: how many images its model takes at once; None where that is free.
        logit: whether a single score is a logit, not a probability; None where it does not say.
        same_classes: whether its classes are those of any dataset, whatever their names.
        order: where `matched` has put scores in another order, the places they come from.
        argument: what errors call `path`.
    """

    path: Path
    name: str
    fingerprint: str
    signature: str | None
    input: str | None
    output: str | None
    image_shape: tuple[int | None, ...]
    classes: int | None
    function: forms.Function
    input_range: tuple[float, float]
    metadata: dict[str, Any]
    dtype: tf.DType = tf.float32
    batch_size: int | None = None
    logit: bool | None = None
    same_classes: bool = False
    order: tuple[int, ...] | None = None
    argument: str = "model"

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The scores of a batch; callable in a graph."""
        return self.function(self.inputs(images))

    @property
    def identity(self) -> tuple:
        """Tells what it computes from what all others do."""
        own = (self.fingerprint, self.signature, self.output, self.input_range)
        return own if self.order is None else (*own, self.order)

    def inputs(self, images: tf.Tensor) -> tf.Tensor:
        """What the model takes for a batch, rounded for integers; callable in a graph."""
        low, high = self.input_range
        values = images if (low, high) == (0, 1) else low + (high - low) * images
        return tf.cast(tf.round(values), self.dtype) if self.dtype.is_integer else values

    def takes(self, input_range: tuple[float, float]) -> bool:
        """Whether its input has such values: finite, different, and whole for integers."""
        with np.errstate(over="ignore", invalid="ignore"):
            # As `inputs` computes them, and as the model then sees them.
            ends = np.asarray([*input_range, input_range[1] - input_range[0]], np.float32)
            if not self.dtype.is_integer:
                ends = ends.astype(self.dtype.as_numpy_dtype).astype(np.float64)
        low, high, reach = map(float, ends)
        if self.dtype.is_integer:
            whole = all(float(end).is_integer() for end in input_range)
            return whole and self.dtype.min <= low < high <= self.dtype.max
        smallest = float(np.finfo(np.float32).tiny)  # below, TensorFlow computes with 0
        return low < high and smallest <= reach < math.inf

    def with_range(self, input_range: tuple[float, float]) -> "Classifier":
        """The same with other values of black and white in its input.

        Raises:
            InvalidArgument: if the input cannot have them, or the model's metadata have others.
        """
        own = self.metadata.get("input", {}).get("range")
        if own is not None and [*input_range] != own:
            expected = "{:g},{:g}, which the model has in its metadata".format(*own)
            raise InvalidArgument("input_range", list(input_range), expected)
        if not self.takes(input_range):
            form = ": two finite numbers, the lower first, that differ there"
            if self.dtype.is_integer:
                form = f" from {self.dtype.min} to {self.dtype.max}: whole, the lower first"
            expected = f"values of the model's input, {self.dtype.name}{form}"
            raise InvalidArgument("input_range", list(input_range), expected)
        return dataclasses.replace(self, input_range=input_range)

    def scores(self, images: tf.Tensor) -> np.ndarray:
        """The scores of a batch as an array; what the model raises becomes `Unavailable`."""
        with answering(self):
            return self(images).numpy()

    def counted(self, images: tf.Tensor) -> "Classifier":
        """The same with its number of classes, which some models only show in their scores.

        Args:
            images: a batch to ask such a model with.

        Raises:
            InvalidArgument: if its answers are not scores [B, classes].
            Unavailable: if it raises on them.
        """
        if self.classes:
            return self
        scores = self.scores(images)
        if scores.ndim != 2:
            found = ", ".join(["B", *map(str, scores.shape[1:])][: scores.ndim])
            expected = f"a model that returns scores [B, classes], not [{found}]"
            raise InvalidArgument(self.argument, self.name, expected)
        return dataclasses.replace(self, classes=scores.shape[1])

    def check(self, data: Data) -> None:
        """Raises `InvalidArgument` if the model has another form than a dataset.

        That is, images of another shape or another number of classes; one score will do for two
        classes. `matched` compares their names, too.
        """
        for own, of_data in zip(self.image_shape, data.image_shape):
            if own not in (None, of_data):
                expected = f"a dataset of images of shape {self.image_shape}"
                raise InvalidArgument("dataset", f"{data.name} {data.image_shape}", expected)
        classes = self.counted(data.test.images_at(tf.range(1))).classes
        if classes != len(data.label_names) and (classes, len(data.label_names)) != (1, 2):
            expected = f"a dataset of {'1 or 2' if classes == 1 else classes} classes"
            raise InvalidArgument("dataset", f"{data.name} ({len(data.label_names)})", expected)


def load(
    path: str | os.PathLike,
    *,
    signature: str | None = None,
    output: str | None = None,
    input_range: tuple[float, float] | None = None,
    same_classes: bool = False,
    argument: str = "model",
) -> Classifier:
    """Loads a SavedModel, or a `.keras`, `.tflite` or `.onnx` file.

    A model whose batch size is fixed is called with batches of that size; the last one is filled
    up with black images.

    Args:
        path: a SavedModel's directory, with or without its version, or a file.
        signature: the SavedModel's signature to call, with one input of images; by default
            `serving_default`, or else the only one of that form, with a floating-point input if
            there is one.
        output: its output that has the scores, probabilities or logits; by default
            `probabilities`, or else the only floating-point one of shape [B, classes].
        input_range: the values that black and white have in its input; by default (0, 1), of
            integers (0, 255), of int8 (-128, 127); of a quantised input the lowest and the
            highest value that its scale has an integer for.
        same_classes: its classes are those of the dataset in the same order, whatever their
            names; see `matched`.
        argument: what errors call `path`.

    Returns:
        The classifier.

    Raises:
        InvalidArgument: if a signature or output has to be named, or is not there, or the
            input cannot have the values.
        Unavailable: if there is no such model, or nothing here that runs it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if input_range is not None:  # before a model is loaded
        low, high = input_range
        if not (low < high and math.isfinite(high - low)):
            expected = "two numbers, the lower first, such as 0,255"
            raise InvalidArgument("input_range", list(input_range), expected)
    if suffix == ".keras":
        if signature or output:
            raise InvalidArgument("signature", signature or output, "no value with a .keras file")
        found = _keras(path, argument)
    elif suffix in runtimes.RUNTIMES:
        if signature:
            raise InvalidArgument("signature", signature, f"no value with a {suffix} file")
        found = _device_file(path, output, argument)
    else:
        found = _saved_model(exports.find(argument, path), signature, output, argument)
    found = dataclasses.replace(found, same_classes=same_classes, argument=argument)
    return found if input_range is None else found.with_range(input_range)


@contextlib.contextmanager
def answering(model: Any) -> Iterator[None]:
    """While a model answers: what a classifier raises becomes one line.

    Args:
        model: a `Classifier`; errors of anything else are not touched.

    Raises:
        Unavailable: if the classifier raises, because it checks its input say.
    """
    try:
        yield
    except (tf.errors.ResourceExhaustedError, InvalidArgument, Unavailable):
        raise
    except Exception as error:  # whatever a third-party model raises
        if not isinstance(model, Classifier):
            raise
        problem = f"the model fails on the images ({_own_words(error)})"
        raise Unavailable(model.argument, model.path, problem) from error


def _own_words(error: Exception) -> str:
    """The line of an error that says what is wrong, after those of TensorFlow and Keras."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    own = [line for line in lines if line and not line.startswith(_FRAME)]
    return one_line(RuntimeError(own[0])) if own else one_line(error)


def _usual_range(dtype: tf.DType) -> tuple[float, float]:
    if dtype == tf.int8:
        return (-128.0, 127.0)
    return (0.0, 255.0) if dtype.is_integer else (0.0, 1.0)


def _saved_model(
    folder: Path, signature: str | None, output: str | None, argument: str
) -> Classifier:
    try:
        with for_tensorflow(folder) as plain:
            loaded = tf.saved_model.load(os.fspath(plain))
        signatures = loaded.signatures
    except Exception as error:  # whatever a damaged or an old model makes TensorFlow raise
        problem = f"expected a SavedModel that this TensorFlow loads ({one_line(error)})"
        if "add_slot" in problem:
            problem += "; Keras 2 has to save it with include_optimizer=False"
        raise Unavailable(argument, folder, problem) from error
    chosen = forms.choose(
        "signature", signature, signatures, forms.takes_images, forms.IMAGES, forms.of_signature
    )
    outputs = signatures[chosen].structured_outputs
    scores = forms.choose("output", output, outputs, forms.has_scores, forms.SCORES, forms.of_spec)
    ((name, spec),) = signatures[chosen].structured_input_signature[1].items()

    def function(images: tf.Tensor) -> tf.Tensor:
        # By way of `loaded`, which owns the variables.
        return loaded.signatures[chosen](**{name: tf.cast(images, spec.dtype)})[scores]

    size = forms.dimensions(spec, 4)[0]

    return Classifier(
        path=folder,
        name=exports.full_name(folder),
        fingerprint=exports.fingerprint(folder),
        signature=chosen,
        input=name,
        output=scores,
        image_shape=forms.dimensions(spec, 4)[1:],
        classes=forms.dimensions(outputs[scores], 2)[1],
        function=forms.in_batches(function, size, outputs[scores].dtype) if size else function,
        input_range=_usual_range(spec.dtype),
        metadata=exports.metadata(folder, argument),
        dtype=spec.dtype,
        batch_size=size,
    )


def _keras(path: Path, argument: str) -> Classifier:
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged file makes Keras raise
        raise Unavailable(argument, path, f"expected a .keras file ({one_line(error)})") from error
    return of_model(model, path, hashlib.sha256(path.read_bytes()).hexdigest(), argument)


def of_model(
    model: keras.Model, path: Path, fingerprint: str = "", argument: str = "model"
) -> Classifier:
    """A Keras model with one input of images and one output of scores as a classifier.

    Args:
        model: functional or sequential.
        path: its file, or what to call it.
        fingerprint: a digest of its content.
        argument: what errors call `path`.

    Raises:
        Unavailable: if it has another form.
    """
    inputs, outputs = (getattr(model, side, None) or [] for side in ("inputs", "outputs"))
    specs = [tf.TensorSpec(one.shape, one.dtype, one.name) for one in (*inputs, *outputs)]
    if (
        (len(inputs), len(outputs)) != (1, 1)
        or not (specs[0].shape.rank == 4 and forms.has_values(specs[0]))
        or not (specs[1].shape.rank == 2 and forms.has_scores(specs[1]))
    ):
        described = [forms.of_spec(one.name, one) for one in specs]
        sides = described[: len(inputs)], described[len(inputs) :]
        problem = f"expected a model from {forms.IMAGES} to {forms.SCORES}, not from"
        raise Unavailable(argument, path, f"{problem} {' to '.join(map(forms.all_of, sides))}")
    (size, *shape), (_, classes) = inputs[0].shape, outputs[0].shape
    dtype = tf.as_dtype(inputs[0].dtype)

    def function(images: tf.Tensor) -> tf.Tensor:
        form = getattr(model, "input", None)  # an uncalled Sequential has none
        asked = {name: images for name in form} if isinstance(form, dict) else images
        (scores,) = keras.tree.flatten(model(asked, training=False))
        return scores

    return Classifier(
        path=path,
        name=path.name,
        fingerprint=fingerprint,
        signature=None,
        input=None,
        output=None,
        image_shape=tuple(shape),
        classes=classes,
        function=forms.in_batches(function, size, tf.as_dtype(outputs[0].dtype))
        if size
        else function,
        input_range=_usual_range(dtype),
        metadata={},
        dtype=dtype,
        batch_size=size,
        logit=_is_logit(outputs[0]),
    )


def _device_file(path: Path, output: str | None, argument: str) -> Classifier:
    opened = runtimes.open_file(path, argument)
    if len(opened.inputs) != 1 or not forms.is_images(*opened.inputs.values()):
        found = forms.all_of(forms.of_spec(*one) for one in opened.inputs.items())
        problem = f"expected a model with {forms.IMAGES}, not with {found}"
        raise Unavailable(argument, path, problem)
    ((name, images),) = opened.inputs.items()
    scores = forms.choose(
        "output", output, opened.outputs, forms.has_scores, forms.SCORES, forms.of_spec
    )
    _, *shape = images.shape
    if opened.channels_first:
        shape = [*shape[1:], shape[0]]
        warnings.warn(
            f"{path.name} takes images as [B, C, H, W]: they are transposed for it", stacklevel=3
        )
    classes = forms.dimensions(opened.outputs[scores], 2)[1]

    def function(images: tf.Tensor) -> tf.Tensor:
        found = tf.numpy_function(functools.partial(opened.run, scores), [images], tf.float32)
        return tf.ensure_shape(found, [None, classes])

    own = opened.metadata.get("input", {}).get("range")
    return Classifier(
        path=path,
        name=path.name,
        fingerprint=runtimes.fingerprint(path),
        signature=None,
        input=name,
        output=scores,
        image_shape=tuple(shape),
        classes=classes,
        function=function,
        input_range=tuple(own) if own else opened.range or _usual_range(images.dtype),
        metadata=opened.metadata,
        dtype=images.dtype,
        batch_size=images.shape[0],
    )


def _is_logit(output: Any) -> bool | None:
    """Whether the layer that makes an output gives logits; None where it does not say."""
    layer = getattr(getattr(output, "_keras_history", None), "operation", None)
    if layer is None or type(layer) not in (keras.layers.Dense, keras.layers.Activation):
        return None  # an operation, or a layer that may do more after its activation
    if layer.activation == keras.activations.sigmoid:
        return False
    plain = type(layer) is keras.layers.Dense and layer.activation == keras.activations.linear
    return True if plain else None  # `Activation("linear")` passes on what is before it
