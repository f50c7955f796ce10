"""Networks of the user's own: from a `.keras` file, a function or `keras.applications`.

A network is known by what Keras says of its layers, so that others can build it without the file.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.files import digest as file_digest
from robust_tf.files import file_name
from robust_tf.models import adapted, applications, custom_objects, descriptions
from robust_tf.models.adapted import ImageShape, Unfit, words_of
from robust_tf.models.keras_settings import keras_defaults
from robust_tf.models.names import APPLICATION, is_application, is_file


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network without its weights.

    Attributes:
        name: what to call it.
        description: Keras's, of the network as of `adapted.adapted`, as JSON.
        modules: of its custom layers.
        value_range: the values that black and white have in its input.
        weights: a file with weights of a network of `keras.applications`; None for random ones.
        weights_digest: of that file's content.
    """

    name: str
    description: str
    modules: tuple[str, ...]
    value_range: tuple[float, float]
    weights: str | None = None
    weights_digest: str | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Tells it from all other networks, whatever the names of its layers."""
        own = descriptions.digest(json.loads(self.description))
        return file_digest(own, self.weights_digest) if self.weights else own

    @keras_defaults()
    def build(
        self,
        classes: int,
        *,
        standardize: str = "none",
        precision: str = "float32",
        mirror: bool = False,
        seed: int = 0,
        steps: int | None = None,
    ) -> keras.Model:
        """The network with new weights; arguments and result as of `models.build`.

        `steps` are those of the training to come, see `adapted.quicken`; without them, and with
        weights of a file, batch norm stays as it is.

        Raises:
            Unavailable: if a module of its layers is not there, or the file of its weights.
        """
        with descriptions.drawn_from(seed):
            config = descriptions.with_seeds(json.loads(self.description), seed, precision)
            with custom_objects.known(config, "model", self.name, self.modules):
                network = _of_description(config, self.name)
        if self.weights:
            if _of_content(Path(self.weights)) != self.weights_digest:
                raise Unavailable("weights", self.weights, "the file has changed meanwhile")
            shape = network.input_shape[1:]
            known = (self.weights, *_version(Path(self.weights), "weights"))
            trained = applications.build(self.name, shape, classes, True, known)
            base = keras.Model(network.input, network.get_layer("logits").input)
            values = keras.Model(trained.input, trained.get_layer("logits").input).weights
            for variable, value in zip(base.weights, values, strict=True):
                variable.assign(value)
        elif steps:
            adapted.quicken(network, steps)
        return adapted.wrapped(
            network,
            classes,
            standardize=standardize,
            value_range=self.value_range,
            mirror=mirror,
            name=file_name(f"{self.name} {self.digest}"),
        )


@keras_defaults()
def read(
    model: str | keras.Model,
    image_shape: ImageShape,
    classes: int,
    *,
    value_range: tuple[float, float] | None = None,
    weights: str | None = None,
) -> Architecture:
    """A network of the user's own, whose weights do not count.

    Args:
        model: a Keras model; a `.keras` file; `package.module:function`, a function of image
            shape and number of classes that returns a Keras model; or `keras.applications:NAME`.
        image_shape: (H, W, C).
        classes: number of classes.
        value_range: the values that black and white have in its input; None for (0, 1), or
            whatever a network of `keras.applications` takes.
        weights: a file with weights of a network of `keras.applications`, with or without its
            last layers.

    Returns:
        The network.

    Raises:
        InvalidArgument: if it has another number of classes, or there are no such weights.
        Unavailable: if it is not there, or of a kind that cannot be trained.
    """
    if weights and not is_application(model):
        raise InvalidArgument("weights", weights, "no value but with model=keras.applications:NAME")
    with _unfit_as("model", model):
        if isinstance(model, keras.Model):
            name, network = model.name, adapted.adapted(model, image_shape)
        elif is_application(model):
            name = model.removeprefix(APPLICATION)
            known = (weights, *_version(Path(weights), "weights")) if weights else None
            network = applications.build(name, image_shape, classes, value_range is None, known)
        elif not is_file(model):
            place, _, name = model.rpartition(":")
            function = getattr(custom_objects.imported(place, "model", model), name, None)
            if not callable(function):
                raise Unfit(f"expected a function {name} in the module {place}")
            network = _of_function(function, image_shape, classes)
        else:
            name = Path(model).stem
            network = load(model, image_shape, "model")
    units = network.output_shape[-1]
    if units != classes and (units, classes) != (1, 2):
        expected = f"a network with {classes} outputs, one per class, not {units}"
        raise InvalidArgument("model", model, expected)
    description = json.loads(network.to_json())
    architecture = Architecture(
        name=name,
        description=json.dumps(description),
        modules=custom_objects.modules(description),
        value_range=value_range or (0.0, 1.0),
        weights=weights,
        weights_digest=_of_content(Path(weights)) if weights else None,
    )
    _check(architecture, classes)
    return architecture


@functools.lru_cache(maxsize=4)
def _check(architecture: Architecture, classes: int) -> None:
    """Sees whether a network can be built where its file or function is not there."""
    architecture.build(classes)


def _of_description(description: dict, name: str) -> keras.Model:
    try:
        return keras.models.model_from_json(json.dumps(description))
    except Exception as error:  # whatever custom layers and functions make Keras raise
        problem = f"Keras cannot build it of its configuration ({words_of(error)})"
        raise Unavailable("model", name, problem) from error


def _of_content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@keras_defaults()
def load(path: str | os.PathLike, image_shape: ImageShape, argument: str) -> keras.Model:
    """The network of a `.keras` or HDF5 file, with its weights, as of `adapted.adapted`.

    Args:
        path: the file.
        image_shape: (H, W, C).
        argument: the name of the argument that chose it, for the error.

    Raises:
        Unavailable: if there is none, or it is of a kind that cannot be trained.
    """
    path = Path(path)
    with _unfit_as(argument, path):
        return _of_file(path, image_shape, argument, _version(path, argument))


def _version(path: Path, argument: str) -> tuple[int, int]:
    """What changes when a file does."""
    try:
        found = path.stat()
        open(path, "rb").close()
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        problem = "there is no such file" if gone else f"it cannot be read ({error.strerror})"
        raise Unavailable(argument, path, problem) from error
    return found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def _unfit_as(argument: str, value: object) -> Iterator[None]:
    try:
        yield
    except Unfit as error:
        raise Unavailable(argument, value, str(error)) from error


# A sweep asks for its network once per model.
@functools.lru_cache(maxsize=4)
def _of_file(
    path: Path, image_shape: ImageShape, argument: str, version: tuple[int, int]
) -> keras.Model:
    config: Any = None
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as file:
                config = json.loads(file.read("config.json"))
            if "layers" not in config["config"]:
                raise Unfit(adapted.SUBCLASSED)
        with custom_objects.known(config, argument, path):
            model = keras.saving.load_model(path, compile=False)
    except (Unfit, Unavailable):
        raise
    except Exception as error:  # whatever a damaged or a strange file makes Keras raise
        problem = f"expected a file that keras.Model.save wrote ({words_of(error)})"
        raise Unavailable(argument, path, problem) from error
    return adapted.adapted(model, image_shape)


@functools.lru_cache(maxsize=4)
def _of_function(function: Any, image_shape: ImageShape, classes: int) -> keras.Model:
    try:
        with descriptions.drawn_from(0):
            model = function(image_shape, classes)
    except Exception as error:  # whatever a user's function raises
        problem = f"fails for images of shape {image_shape} and {classes} classes"
        raise Unfit(f"the function {problem} ({one_line(error)})") from error
    if not isinstance(model, keras.Model):
        raise Unfit(f"expected a function that returns a keras.Model, not {type(model).__name__}")
    return adapted.adapted(model, image_shape)
