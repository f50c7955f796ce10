"""A correction of defective pixels inside a SavedModel, in front of its network."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

import robust_tf
from robust_tf import models
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.models.correction import Correction, corrected
from robust_tf.saved_models import exports


def export_corrected(
    source: str | os.PathLike,
    directory: str | os.PathLike,
    layer: Correction,
    *,
    label_names: Sequence[str] | None = None,
    value_range: tuple[float, float] | None = None,
    argument: str = "model",
) -> Path:
    """Exports a trained model with a correction inside; it serves and is tested like the others.

    Its metadata are those of the source, with `correction` among `training`. Where the directory
    has the same export already, made by the same versions of the packages, there is no other.

    Args:
        source: a SavedModel that this package exported, with or without its version; or a
            `.keras` file.
        directory: where the versions of the new one lie; made if absent.
        layer: the correction.
        label_names: the names of the classes of a `.keras` file.
        value_range: the values that black and white have in the input of a `.keras` file; None
            for (0, 1).
        argument: what errors call `source`.

    Returns:
        The version's folder.

    Raises:
        InvalidArgument: if the correction does not fit the images, or a `.keras` file is without
            the names of its classes.
        Unavailable: if there is no such model, or it is of a kind that cannot be changed.
    """
    if Path(source).suffix == ".keras":
        model, label_names = _of_file(Path(source), label_names, value_range, argument)
        training, example = {"model": Path(source).stem, "strategy": "external"}, None
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    else:
        folder = exports.find(argument, source)
        model = exports.load(folder, argument)
        metadata = exports.metadata(folder, argument)
        label_names, training = metadata["label_names"], metadata["training"]
        example, digest = _example(folder), exports.content_digest(folder)
    before = training.get("correction")
    correction = f"{layer}, {before}" if before else str(layer)
    training = {**training, "correction": correction}
    seen = None if example is None else example.tobytes()
    mark = _mark(layer, digest, list(label_names), value_range, training, seen)
    # The same again, if it is what the directory stands for: its latest version.
    for same in exports.marked(directory, mark):
        with contextlib.suppress(Unavailable):  # it is damaged
            if same == exports.find("directory", directory):
                exports.check(same)
                return same
    return exports.export(
        corrected(model, layer),
        directory,
        label_names=label_names,
        training=training,
        example=example,
        mark=mark,
    )


def _mark(layer: Correction, *source: object) -> str:
    """What tells an export from all others: its source, the correction, and who has made it."""
    versions = robust_tf.__version__, tf.__version__, keras.__version__
    correction = type(layer).__name__, {**layer.get_config(), "name": ""}
    content = hashlib.sha256(repr((source, correction, versions)).encode())
    return f"corrected {content.hexdigest()}"


def _of_file(
    path: Path,
    label_names: Sequence[str] | None,
    value_range: tuple[float, float] | None,
    argument: str,
) -> tuple[keras.Model, Sequence[str]]:
    try:
        shape = keras.saving.load_model(path, compile=False).input_shape[1:]
    except Exception as error:  # whatever a damaged or a strange file makes Keras raise
        raise Unavailable(argument, path, f"expected a .keras file ({one_line(error)})") from error
    network = models.load(path, shape, argument)
    classes = network.output_shape[-1]
    if label_names is None or len(label_names) != classes:
        raise InvalidArgument("label_names", label_names, f"the names of {classes} classes")
    name = path.stem
    model = models.wrapped(network, classes, value_range=value_range or (0.0, 1.0), name=name)
    return model, label_names


def _example(folder: Path):
    path = folder / exports.EXAMPLE
    return tf.io.decode_png(path.read_bytes()).numpy() if path.exists() else None
