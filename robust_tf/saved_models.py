"""Export as a SavedModel that TensorFlow Serving takes, and reload as a Keras model.

A run's exports lie in `<directory>/<run>/<version>/`, version a whole number that grows.
"""

import os
from pathlib import Path

import keras
import tensorflow as tf

from robust_tf.errors import Unavailable, one_line
from robust_tf.files import new_folder

# Keras's description of the network; TensorFlow Serving leaves this folder alone.
_ARCHITECTURE = Path("assets.extra", "model.json")


def export(model: keras.Model, directory: str | os.PathLike) -> Path:
    """Writes a model as the next version of a directory.

    The signature `serving_default` takes `images`, float32 [None, H, W, C] in [0, 1],
    and returns `probabilities`, float32 [None, classes], and `label`, int64 [None].

    Args:
        model: a functional model from images to logits.
        directory: where the versions lie; made if absent.

    Returns:
        The new version's folder, `<directory>/<version>`.

    Raises:
        OSError: if the directory cannot be written.
        tf.errors.OpError: if TensorFlow cannot write its files, on a full disk say.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    archive = keras.export.ExportArchive()
    archive.track(model)

    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(images, training=False)
        return {
            "probabilities": tf.nn.softmax(logits),
            "label": tf.argmax(logits, axis=-1, output_type=tf.int64),
        }

    images = tf.TensorSpec(model.input_shape, tf.float32, name="images")
    archive.add_endpoint("serving_default", serving_default, input_signature=[images])
    folder = directory / str(max(versions(directory), default=0) + 1)
    with new_folder(folder) as temporary:
        archive.write_out(os.fspath(temporary), verbose=False)
        (temporary / _ARCHITECTURE).parent.mkdir(exist_ok=True)
        (temporary / _ARCHITECTURE).write_text(model.to_json())
    return folder


def versions(directory: str | os.PathLike) -> list[int]:
    """The versions in a directory of exports, in rising order; none if it is absent."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal())


def load(folder: str | os.PathLike) -> keras.Model:
    """Reloads an export as the functional model it was made from.

    Args:
        folder: a version's folder, as `export` returned it.

    Returns:
        A functional model from float32 images [B, H, W, C] in [0, 1] to logits, not
        compiled.

    Raises:
        Unavailable: if the folder holds no whole export of this package.
    """
    folder = Path(folder)
    try:
        model = keras.models.model_from_json((folder / _ARCHITECTURE).read_text())
        values = tf.train.load_checkpoint(os.fspath(folder / "variables" / "variables"))
        for i, variable in enumerate(model.variables):
            variable.assign(values.get_tensor(f"variables/{i}/.ATTRIBUTES/VARIABLE_VALUE"))
    except (OSError, ValueError, TypeError, LookupError, tf.errors.OpError) as error:
        problem = f"expected a SavedModel that this package exported ({one_line(error)})"
        raise Unavailable("saved_model", folder, problem) from error
    return model
