"""Models from files, and in memory, as a notebook has them."""

import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from robust_tf import saved_models
from robust_tf.data import Data, Split
from robust_tf.data.classes import in_order, listed
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.saved_models import Classifier, classifiers

# The values of black and white in the input of models that this package has made.
_RANGES: "weakref.WeakKeyDictionary[keras.Model, tuple[float, float]]" = weakref.WeakKeyDictionary()
# Classifiers of files that say nothing of these values.
_WITHOUT_RANGE: "weakref.WeakSet[Classifier]" = weakref.WeakSet()


def load_model(path: str | os.PathLike) -> keras.Model | Classifier:
    """Loads a model that was trained.

    Args:
        path: an export of this package (`saved_models/<run>`, with or without its version), a
            `.keras` file, or any other model that `saved_models.classifiers.load` takes.

    Returns:
        A Keras model, where it is one: of an export from float images in [0, 1] to logits. Of
        other SavedModels a `Classifier`, a function from such images to scores.

    Raises:
        Unavailable: if there is no such model.
        InvalidArgument: if it is a SavedModel of which no signature takes images.
    """
    path = Path(path)
    if path.suffix == ".keras":
        try:
            return keras.saving.load_model(path, compile=False)
        except Exception as error:  # whatever a damaged file makes Keras raise
            problem = f"expected a .keras file ({one_line(error)})"
            raise Unavailable("path", path, problem) from error
    if not path.suffix or path.is_dir():
        folder = saved_models.find("path", path)
        if saved_models.metadata(folder, "path"):
            return taking(saved_models.load(folder, "path"), (0.0, 1.0))
    found = classifiers.load(path, argument="path")
    _WITHOUT_RANGE.add(found)
    return found


def taking(model: keras.Model, values: tuple[float, float]) -> keras.Model:
    """The same model, of which is known what values black and white have in its input."""
    _RANGES[model] = values
    return model


def arrays(images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as arrays.

    Raises:
        InvalidArgument: if they are datasets, or their elements differ in shape.
    """
    return _array("images", images), _array("labels", labels)


def _array(argument: str, given: Any) -> np.ndarray:
    if isinstance(given, tf.data.Dataset | Data | Split):
        expected = f"an array, such as split.{argument}.numpy() of a split of robust_tf.data"
        raise InvalidArgument(argument, type(given).__name__, expected)
    try:
        return np.asarray(given)
    except ValueError as error:
        expected = f"an array, or a list of {argument} of one shape ({one_line(error)})"
        raise InvalidArgument(argument, None, expected) from error


def class_names(
    labels: np.ndarray,
    classes: int | None,
    names: Sequence[str] | None,
    known: Sequence[str] | None = None,
) -> Sequence[str] | None:
    """The names of the classes in the order of a model's scores.

    Args:
        labels: numbers, or texts.
        classes: number of scores; None if it is not known.
        names: those asked for, if any.
        known: those that the model has.

    Returns:
        The names; None where neither labels nor model tell how many there are.
    """
    texts = {label for label in labels.ravel().tolist() if isinstance(label, str)}
    if names is not None:
        return names
    if known and texts <= {*known}:
        return known
    if texts:
        return in_order(texts)
    return [str(place) for place in range(max(2, classes))] if classes else None


def check_names(names: Sequence[str], classes: int) -> None:
    """Raises `InvalidArgument` if names are not as many as scores; two have one score at least."""
    if len(names) != max(2, classes):
        expected = f"the names of {max(2, classes)} classes, in the order of the model's scores"
        raise InvalidArgument("label_names", f"{listed(names)} ({len(names)})", expected)


def usual_range(images: np.ndarray) -> tuple[float, float]:
    """The values of black and white in images of which nothing else is said.

    Raises:
        InvalidArgument: if they have others, or whole numbers that may be of either.
    """
    if images.dtype.kind == "b":
        return (0.0, 1.0)
    if images.dtype.kind in "iu" and images.size and images.max() <= 1:
        shown = f"whole numbers from {images.min()} to {images.max()}"
        expected = "value_range=(black, white) for these, such as (0, 1) or (0, 255)"
        raise InvalidArgument("images", shown, expected)
    if images.dtype.kind != "f":
        return (0.0, 255.0)
    if images.size and not (images.min() >= 0 and images.max() <= 1):  # NaN neither
        shown = f"values from {images.min():g} to {images.max():g}"
        expected = "bytes, values from 0 to 1, or value_range=(black, white)"
        raise InvalidArgument("images", shown, expected)
    return (0.0, 1.0)


def classifier_of(
    model: str | os.PathLike | keras.Model | Callable,
    values: tuple[float, float],
    input_range: tuple[float, float] | None,
) -> Classifier:
    """Any model as a function of images in [0, 1].

    Args:
        model: as in `benchmark`.
        values: of black and white in the images that are given.
        input_range: those in its input, if they are asked for.

    Raises:
        InvalidArgument: if it has another form.
        Unavailable: if there is no such model.
    """
    if isinstance(model, str | os.PathLike | Classifier):
        found = model if isinstance(model, Classifier) else classifiers.load(model)
        says = found.metadata or (found is model and found not in _WITHOUT_RANGE)
        if input_range is None and not says and found.dtype.is_floating:
            input_range = values
    else:
        found = _in_memory(model)
        own = _RANGES.get(model) if isinstance(model, keras.Model) else None
        if input_range is None and found.dtype.is_floating:
            input_range = own or values
    return found if input_range is None else found.with_range(input_range)


def _in_memory(model: Any) -> Classifier:
    if not callable(model):
        expected = "a Keras model, a function, or the path of a model"
        raise InvalidArgument("model", type(model).__name__, expected)
    name = str(getattr(model, "name", None) or getattr(model, "__name__", type(model).__name__))
    if isinstance(getattr(model, "__self__", None), keras.Model) and name.startswith("predict"):
        expected = "the Keras model itself, not its method"
        raise InvalidArgument("model", f"{model.__self__.name}.{name}", expected)
    if isinstance(model, keras.Model) and getattr(model, "inputs", None):
        return classifiers.of_model(model, Path(name))

    @tf.function(autograph=False)  # so that what cannot be traced fails at the first batch
    def function(images: tf.Tensor) -> tf.Tensor:
        if isinstance(model, keras.Model):
            return tf.convert_to_tensor(model(images, training=False))
        try:
            return tf.convert_to_tensor(model(images))
        except (AttributeError, NotImplementedError, TypeError) as error:  # NumPy's, `predict`'s
            expected = "a function of TensorFlow's or Keras's operations, which can be traced"
            raise InvalidArgument("model", name, f"{expected} ({one_line(error)})") from error

    return Classifier(
        path=Path(name),
        name=name,
        fingerprint="",
        signature=None,
        input=None,
        output=None,
        image_shape=(None, None, None),
        classes=None,
        function=function,
        input_range=(0.0, 1.0),
        metadata={},
    )
