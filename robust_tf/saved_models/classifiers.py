"""Any saved classifier, third-party ones too, as a function from images to scores.

This package's own reload as Keras models by `saved_models.load`.
"""

import contextlib
import dataclasses
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.files import for_tensorflow
from robust_tf.saved_models import exports

# What a signature and an output are called where there are several.
_PREFERRED = ("serving_default", "probabilities")
# How much of what a model has is shown where nothing fits.
_CHARACTERS = 300
# What is asked of a model's input and of its output.
_IMAGES = "one input of images [B, H, W, C], floats or integers"
_SCORES = "float scores of shape [B, classes]"
# How lines begin that say where a model has raised, and what colours them.
_FRAME = ("Graph execution error", "Exception encountered", "Detected at node", "File ", "<stack")
_COLOURS = re.compile("\x1b\\[\\d*m")

Function = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A function from float32 images [B, H, W, C] in [0, 1] to scores [B, classes].

    Attributes:
        path: its file, or the folder of its version.
        name: of its file, or of its folder with the version.
        fingerprint: a digest of its content.
        signature: the SavedModel's signature that is called; None for a `.keras` file.
        input: likewise the name of its input.
        output: likewise the name of the output that has the scores.
        image_shape: (H, W, C); None where it takes any.
        classes: number of scores; None where it does not say.
        function: from what `inputs` returns to scores.
        input_range: the values that black and white have in its input.
        metadata: as of `saved_models.metadata`; empty for a third-party model.
        dtype: of its input.
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
    function: Function
    input_range: tuple[float, float]
    metadata: dict[str, Any]
    dtype: tf.DType = tf.float32
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

    def check(self, data: Data) -> None:
        """Raises `InvalidArgument` if the model has another form than a dataset.

        That is, images of another shape or another number of classes; one score will do for two
        classes. `matched` compares their names, too.
        """
        for own, of_data in zip(self.image_shape, data.image_shape):
            if own not in (None, of_data):
                expected = f"a dataset of images of shape {self.image_shape}"
                raise InvalidArgument("dataset", f"{data.name} {data.image_shape}", expected)
        # Some models do not say how many scores they return.
        scores = None if self.classes else self.scores(data.test.images_at(tf.range(1)))
        classes = self.classes if scores is None else int(scores.shape[-1])
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
    """Loads a SavedModel or a `.keras` file.

    A model whose batch size is fixed is called with batches of that size; the last one is filled
    up with black images.

    Args:
        path: a SavedModel's directory, with or without its version, or a `.keras` file.
        signature: the SavedModel's signature to call, with one input of images; by default
            `serving_default`, or else the only one of that form, with a floating-point input if
            there is one.
        output: its output that has the scores, probabilities or logits; by default
            `probabilities`, or else the only floating-point one of shape [B, classes].
        input_range: the values that black and white have in its input; by default (0, 1), of
            integers (0, 255), of int8 (-128, 127).
        same_classes: its classes are those of the dataset in the same order, whatever their
            names; see `matched`.
        argument: what errors call `path`.

    Returns:
        The classifier.

    Raises:
        InvalidArgument: if a signature or output has to be named, or is not there, or the
            input cannot have the values.
        Unavailable: if there is no such model.
    """
    path = Path(path)
    if input_range is not None:  # before a model is loaded
        low, high = input_range
        if not (low < high and math.isfinite(high - low)):
            expected = "two numbers, the lower first, such as 0,255"
            raise InvalidArgument("input_range", list(input_range), expected)
    if path.suffix == ".keras":
        if signature or output:
            raise InvalidArgument("signature", signature or output, "no value with a .keras file")
        found = _keras(path, argument)
    else:
        found = _saved_model(exports.find(argument, path), signature, output, argument)
    found = dataclasses.replace(found, same_classes=same_classes, argument=argument)
    if input_range is None:
        return dataclasses.replace(found, input_range=_usual_range(found.dtype))
    return found.with_range(input_range)


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
    chosen = _choose("signature", signature, signatures, _takes_images, _IMAGES, _of_signature)
    outputs = signatures[chosen].structured_outputs
    scores = _choose("output", output, outputs, _has_scores, _SCORES, _of_spec)
    ((name, spec),) = signatures[chosen].structured_input_signature[1].items()

    def function(images: tf.Tensor) -> tf.Tensor:
        # By way of `loaded`, which owns the variables.
        return loaded.signatures[chosen](**{name: tf.cast(images, spec.dtype)})[scores]

    size = _dimensions(spec, 4)[0]

    return Classifier(
        path=folder,
        name=exports.full_name(folder),
        fingerprint=exports.fingerprint(folder),
        signature=chosen,
        input=name,
        output=scores,
        image_shape=_dimensions(spec, 4)[1:],
        classes=_dimensions(outputs[scores], 2)[1],
        function=_in_batches(function, size, outputs[scores].dtype) if size else function,
        input_range=(0.0, 1.0),
        metadata=exports.metadata(folder, argument),
        dtype=spec.dtype,
    )


def _keras(path: Path, argument: str) -> Classifier:
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged file makes Keras raise
        raise Unavailable(argument, path, f"expected a .keras file ({one_line(error)})") from error
    inputs, outputs = (getattr(model, side, None) or [] for side in ("inputs", "outputs"))
    specs = [tf.TensorSpec(one.shape, one.dtype, one.name) for one in (*inputs, *outputs)]
    if (
        (len(inputs), len(outputs)) != (1, 1)
        or not (specs[0].shape.rank == 4 and _has_values(specs[0]))
        or not (specs[1].shape.rank == 2 and _has_scores(specs[1]))
    ):
        described = [_of_spec(one.name, one) for one in specs]
        sides = described[: len(inputs)], described[len(inputs) :]
        problem = f"expected a model from {_IMAGES} to {_SCORES}, not from"
        raise Unavailable(argument, path, f"{problem} {' to '.join(map(_all, sides))}")
    (size, *shape), (_, classes) = inputs[0].shape, outputs[0].shape

    def function(images: tf.Tensor) -> tf.Tensor:
        form = getattr(model, "input", None)  # an uncalled Sequential has none
        asked = {name: images for name in form} if isinstance(form, dict) else images
        (scores,) = keras.tree.flatten(model(asked, training=False))
        return scores

    return Classifier(
        path=path,
        name=path.name,
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest(),
        signature=None,
        input=None,
        output=None,
        image_shape=tuple(shape),
        classes=classes,
        function=_in_batches(function, size, tf.as_dtype(outputs[0].dtype)) if size else function,
        input_range=(0.0, 1.0),
        metadata={},
        dtype=tf.as_dtype(inputs[0].dtype),
        logit=_is_logit(outputs[0]),
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


def _in_batches(function: Function, size: int, dtype: tf.DType) -> Function:
    """A function of batches of one size as one of any number of images."""

    def of_any(images: tf.Tensor) -> tf.Tensor:
        count = tf.shape(images)[0]
        filled = tf.pad(images, [[0, -count % size], [0, 0], [0, 0], [0, 0]])
        batches = tf.reshape(filled, tf.concat([[-1, size], tf.shape(images)[1:]], axis=0))
        batches = tf.ensure_shape(batches, [None, size, *images.shape[1:]])
        scores = tf.map_fn(function, batches, fn_output_signature=dtype)
        return tf.reshape(scores, [-1, scores.shape[-1] or tf.shape(scores)[-1]])[:count]

    return of_any


def _choose(
    argument: str,
    asked: str | None,
    candidates: Mapping[str, Any],
    fits: Callable[[Any], int],
    form: str,
    described: Callable[[str, Any], str],
) -> str:
    """The asked candidate, or the one that fits best; a preferred name comes first."""
    ranks = {name: fits(candidates[name]) for name in candidates}
    fitting = [name for name, rank in ranks.items() if rank]
    if asked is None:
        best = [name for name in fitting if ranks[name] == max(ranks.values())]
        preferred = [name for name in best if name in _PREFERRED] or best
        if len(preferred) == 1:
            return preferred[0]
    elif asked in fitting:
        return asked
    allowed = f"one of {', '.join(sorted(fitting))}" if fitting else "a model that has one"
    found = _all(described(name, candidates[name]) for name in sorted(candidates))
    raise InvalidArgument(argument, asked, f"{allowed} ({argument} with {form}), found {found}")


def _takes_images(function: Any) -> int:
    """2 for an input of floating-point images, 1 for integers, else 0."""
    inputs = list(function.structured_input_signature[1].values())
    if len(inputs) != 1 or inputs[0].shape.rank not in (None, 4):
        return 0
    return 2 if inputs[0].dtype.is_floating else int(inputs[0].dtype.is_integer)


def _of_signature(name: str, function: Any) -> str:
    inputs = function.structured_input_signature[1]
    return f"{name}({', '.join(_of_spec(*one) for one in inputs.items())})"


def _of_spec(name: str, spec: Any) -> str:
    sides = None if spec.shape.rank is None else [side or "?" for side in spec.shape]
    shape = "of any shape" if sides is None else f"[{', '.join(map(str, sides))}]"
    return f"{name}: {spec.dtype.name} {shape}"


def _all(found: Iterable[str]) -> str:
    text = ", ".join(found) or "none"
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _has_values(images: Any) -> bool:
    return images.dtype.is_floating or images.dtype.is_integer


def _has_scores(output: Any) -> bool:
    return output.dtype.is_floating and output.shape.rank in (None, 2)


def _dimensions(spec: Any, rank: int) -> tuple[int | None, ...]:
    return tuple(spec.shape) if spec.shape.rank == rank else (None,) * rank
