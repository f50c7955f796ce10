"""Any saved classifier, third-party ones too, as a function from images to scores.

This package's own reload as Keras models by `saved_models.load`.
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from robust_tf.data import Data
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.files import for_tensorflow
from robust_tf.saved_models import exports

# What a signature and an output are called where there are several.
_PREFERRED = ("serving_default", "probabilities")


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
        classes: number of classes; None where it does not say.
        function: from images in `input_range` to scores.
        input_range: the values that black and white have in its input.
        metadata: as of `saved_models.metadata`; empty for a third-party model.
    """

    path: Path
    name: str
    fingerprint: str
    signature: str | None
    input: str | None
    output: str | None
    image_shape: tuple[int | None, ...]
    classes: int | None
    function: Callable[[tf.Tensor], tf.Tensor]
    input_range: tuple[float, float]
    metadata: dict[str, Any]

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The scores of a batch; callable in a graph."""
        return self.function(self.inputs(images))

    @property
    def identity(self) -> tuple:
        """Tells what it computes from what all others do."""
        return (self.fingerprint, self.signature, self.output, self.input_range)

    def inputs(self, images: tf.Tensor) -> tf.Tensor:
        """What the model takes for a batch; callable in a graph."""
        low, high = self.input_range
        return images if (low, high) == (0, 1) else low + (high - low) * images

    def check(self, data: Data) -> None:
        """Raises `InvalidArgument` if the model does not fit a dataset."""
        for own, of_data in zip(self.image_shape, data.image_shape):
            if own not in (None, of_data):
                expected = f"a dataset of images of shape {self.image_shape}"
                raise InvalidArgument("dataset", f"{data.name} {data.image_shape}", expected)
        # Some models do not say how many scores they return.
        scores = None if self.classes else self(data.test.images_at(tf.range(1)))
        classes = self.classes if scores is None else int(scores.shape[-1])
        if classes != len(data.label_names):
            expected = f"a dataset of {classes} classes"
            raise InvalidArgument("dataset", f"{data.name} ({len(data.label_names)})", expected)


def load(
    path: str | os.PathLike,
    *,
    signature: str | None = None,
    output: str | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    argument: str = "model",
) -> Classifier:
    """Loads a SavedModel or a `.keras` file.

    Args:
        path: a SavedModel's directory, with or without its version, or a `.keras` file.
        signature: the SavedModel's signature to call, with one floating-point input of
            images; by default `serving_default`, or else the only one of that form.
        output: its output that has the scores, probabilities or logits; by default
            `probabilities`, or else the only floating-point one of shape [B, classes].
        input_range: the values that black and white have in its input.
        argument: what errors call `path`.

    Returns:
        The classifier.

    Raises:
        InvalidArgument: if a signature or output has to be named, or is not there.
        Unavailable: if there is no such model.
    """
    path = Path(path)
    low, high = input_range
    if not (low < high and math.isfinite(high - low)):
        expected = "two numbers, the lower first, such as 0,255"
        raise InvalidArgument("input_range", list(input_range), expected)
    if path.suffix == ".keras":
        if signature or output:
            raise InvalidArgument("signature", signature or output, "no value with a .keras file")
        return _keras(path, input_range, argument)
    folder = exports.find(argument, path)
    try:
        with for_tensorflow(folder) as plain:
            loaded = tf.saved_model.load(os.fspath(plain))
    except (OSError, ValueError, LookupError, tf.errors.OpError) as error:
        raise Unavailable(argument, path, f"expected a SavedModel ({one_line(error)})") from error
    signatures = loaded.signatures
    chosen = _choose("signature", signature, signatures, _takes_images, "one float image input")
    outputs = signatures[chosen].structured_outputs
    scores = _choose("output", output, outputs, _has_scores, "float scores of shape [B, classes]")
    ((name, spec),) = signatures[chosen].structured_input_signature[1].items()

    def function(images: tf.Tensor) -> tf.Tensor:
        # By way of `loaded`, which owns the variables.
        return loaded.signatures[chosen](**{name: tf.cast(images, spec.dtype)})[scores]

    return Classifier(
        path=folder,
        name=exports.full_name(folder),
        fingerprint=exports.fingerprint(folder),
        signature=chosen,
        input=name,
        output=scores,
        image_shape=_dimensions(spec, 4)[1:],
        classes=_dimensions(outputs[scores], 2)[1],
        function=function,
        input_range=input_range,
        metadata=exports.metadata(folder),
    )


def _keras(path: Path, input_range: tuple[float, float], argument: str) -> Classifier:
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise Unavailable(argument, path, f"expected a .keras file ({one_line(error)})") from error
    shape: Any = getattr(model, "input_shape", None)
    scores: Any = getattr(model, "output_shape", None)
    if [isinstance(form, tuple) and len(form) for form in (shape, scores)] != [4, 2]:
        expected = "a model from images [B, H, W, C] to scores [B, classes]"
        raise Unavailable(argument, path, f"expected {expected}, not from {shape} to {scores}")
    return Classifier(
        path=path,
        name=path.name,
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest(),
        signature=None,
        input=None,
        output=None,
        image_shape=shape[1:],
        classes=scores[1],
        function=lambda images: model(images, training=False),
        input_range=input_range,
        metadata={},
    )


def _choose(
    argument: str,
    asked: str | None,
    candidates: Mapping[str, Any],
    fits: Callable[[Any], bool],
    form: str,
) -> str:
    """The asked candidate, or the one that fits; a preferred name comes first."""
    fitting = [name for name in candidates if fits(candidates[name])]
    if asked is None:
        preferred = [name for name in fitting if name in _PREFERRED] or fitting
        if len(preferred) == 1:
            return preferred[0]
    elif asked in fitting:
        return asked
    allowed = f"one of {', '.join(sorted(fitting))}" if fitting else "a model that has one"
    raise InvalidArgument(argument, asked, f"{allowed} ({argument} with {form})")


def _takes_images(function: Any) -> bool:
    inputs = list(function.structured_input_signature[1].values())
    return len(inputs) == 1 and inputs[0].dtype.is_floating and inputs[0].shape.rank in (None, 4)


def _has_scores(output: Any) -> bool:
    return output.dtype.is_floating and output.shape.rank in (None, 2)


def _dimensions(spec: Any, rank: int) -> tuple[int | None, ...]:
    return tuple(spec.shape) if spec.shape.rank == rank else (None,) * rank
