"""Export as a SavedModel that TensorFlow Serving takes, and reload as a Keras model.

The SavedModel is the one artefact that is handed on: it answers requests, says what it
is, and is what transfer learning starts from. A run's exports lie in
`<directory>/<run>/<version>/`, version a whole number that grows.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import robust_tf
from robust_tf import models
from robust_tf.errors import Unavailable, one_line
from robust_tf.files import (
    for_tensorflow,
    new_folder,
    remove_folder,
    replacing,
    sweep_versions,
)
from robust_tf.models import custom_objects
from robust_tf.perturbations import KINDS
from robust_tf.saved_models import image_files, signatures, warmup
from robust_tf.saved_models.places import MODEL, locate
from robust_tf.sensors import is_device, is_sensor

# TensorFlow Serving leaves this folder alone, but for its warm-up file.
EXTRA = "assets.extra"
EXAMPLE = Path(EXTRA, "example.png")
ROBUSTNESS = Path(EXTRA, "robustness.csv")
_ARCHITECTURE = Path(EXTRA, "model.json")
_METADATA = Path(EXTRA, "metadata.json")
_CHECKSUMS = Path(EXTRA, "checksums.json")
# What changes later, or is TensorFlow Serving's alone.
_UNCHECKED = {ROBUSTNESS, _CHECKSUMS}


@models.keras_defaults()
def export(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    label_names: Sequence[str],
    training: Mapping[str, str | float | None],
    example: np.ndarray | None = None,
    mark: str | None = None,
) -> Path:
    """Writes a model as the next version of a directory.

    Signatures, each with the one input `images` and a batch size N that is free:

    - `serving_default`: float32 [N, H, W, C] in [0, 1] to `probabilities`, float32
      [N, classes], and `label`, int64 [N].
    - `encoded` (images of 1 or 3 channels): string [N], PNG, JPEG, GIF or BMP files of
      any number of channels and of at most `image_files.MAX_PIXELS` pixels, to the same.
      They are decoded as they are stored, whatever their EXIF orientation, an alpha channel is
      dropped, colours become grey or grey becomes colours, and they are resized to
      H × W (bilinear, antialiased, whatever their aspect ratio).
    - `features`: as `serving_default` to `features`, float32 [N, …], the input of the
      last dense layer.

    Images of another shape, or with values outside [0, 1], are an error of the graph.

    To those who load it in TensorFlow, the SavedModel has functions from images to
    features, `features` in inference mode and `features_training` in training mode,
    which updates moving statistics; they are the endpoints of `keras.layers.TFSMLayer`.

    `assets.extra/` holds `metadata.json` (label names, input, files that `encoded` takes,
    training configuration, versions, and modules of custom layers if it has some),
    `model.json` (Keras's description of the network, as `models.plain` makes it),
    `example.png`, `checksums.json` (digests of all files, by which damage is seen) and, with
    the package `tensorflow-serving-api`, a warm-up file for TensorFlow Serving.

    Args:
        model: a functional model from images to logits, as of `models`.
        directory: where the versions lie; made if absent.
        label_names: the names of the classes.
        training: the training configuration by name: text, numbers and None.
        example: an image for the user to try, uint8 [H, W, C]; by default a black one.
        mark: by which `marked` and `remove_marked` know it.

    Returns:
        The new version's folder, `<directory>/<version>`.

    Raises:
        OSError: if the directory cannot be written.
        tf.errors.OpError: if TensorFlow cannot write its files, on a full disk say.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    shape = model.input_shape[1:]
    if example is None:
        example = np.zeros(shape, np.uint8)
    images = example[np.newaxis] / np.float32(255)
    model = models.plain(model)
    root, functions = signatures.servable(model)
    requests = {name: {"images": images} for name in functions}
    metadata = {
        "label_names": list(label_names),
        "input": {"dtype": "float32", "shape": [None, *shape], "range": [0.0, 1.0]},
        "encoded": image_files.ACCEPTED if "encoded" in functions else None,
        "training": dict(training),
        "versions": {
            "robust_tf": robust_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    if modules := custom_objects.modules(json.loads(model.to_json())):
        metadata["modules"] = list(modules)
    folder = directory / str(max(versions(directory), default=0) + 1)
    with new_folder(folder) as temporary:
        with for_tensorflow(temporary) as plain:
            tf.saved_model.save(root, os.fspath(plain), signatures=functions)
        (temporary / EXTRA).mkdir()
        (temporary / _ARCHITECTURE).write_text(_architecture(model), encoding="utf-8")
        text = json.dumps(metadata, indent=2) + "\n"
        (temporary / _METADATA).write_text(text, encoding="utf-8")
        if "encoded" in functions:
            png = tf.io.encode_png(example).numpy()
            requests["encoded"] = {"images": np.array([png], object)}
            (temporary / EXAMPLE).write_bytes(png)
        with for_tensorflow(temporary) as plain:
            warmup.write(plain / EXTRA, directory.name, requests)
        for inside in (path for path in temporary.rglob("*") if path.is_dir()):
            shutil.copymode(temporary, inside)  # TensorFlow's are closed to the group
        checksums = json.dumps({"mark": mark, "files": _digests(temporary)}, indent=2)
        (temporary / _CHECKSUMS).write_text(f"{checksums}\n", encoding="utf-8")
    return folder


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix(): _digest(folder / path) for path in paths if path not in _UNCHECKED}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(folder: str | os.PathLike, argument: str = "saved_model") -> None:
    """Sees whether all files of an export are as they were written.

    Those of an earlier version, or of others, say nothing of that, and pass.

    Args:
        folder: a version's folder.
        argument: the name of the argument that chose it, for the error.

    Raises:
        Unavailable: if a file is damaged or gone.
    """
    folder = Path(folder)
    if not (folder / _CHECKSUMS).exists():
        return
    name = str(_CHECKSUMS)
    try:
        for name, digest in json.loads((folder / _CHECKSUMS).read_bytes())["files"].items():
            if _digest(folder / name) != digest:
                raise ValueError
    except FileNotFoundError:
        raise _damaged(argument, folder, name, "not there") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        raise _damaged(argument, folder, name, "damaged") from None


def _damaged(argument: str, folder: str | os.PathLike, name: str, what: str) -> Unavailable:
    return Unavailable(argument, folder, f"{name} is {what}; remove the folder, export it again")


def remove_marked(directory: str | os.PathLike, mark: str) -> None:
    """Removes the versions with a mark, and what is left of exports that were killed.

    Args:
        directory: where the versions lie; it may be absent.
        mark: what `export` was given.
    """
    sweep_versions(Path(directory))
    for folder in marked(directory, mark):
        remove_folder(folder)


def marked(directory: str | os.PathLike, mark: str) -> list[Path]:
    """The versions with a mark, in rising order; arguments as of `remove_marked`."""
    found = []
    for version in versions(directory):
        folder = Path(directory, str(version))
        # Others are not ours, or damaged, which is said where they are used.
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
            if json.loads((folder / _CHECKSUMS).read_bytes())["mark"] == mark:
                found.append(folder)
    return found


def _architecture(model: keras.Model) -> str:
    """Keras's description of a network, without what it was trained by."""
    description = json.loads(model.to_json())
    description.pop("compile_config", None)
    return json.dumps(description)


def versions(directory: str | os.PathLike) -> list[int]:
    """The versions in a directory of exports, in rising order; none if it is absent."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal())


def find(argument: str, path: str | os.PathLike) -> Path:
    """The SavedModel that a path means.

    Args:
        argument: the name of the argument that has the path, for the error.
        path: a SavedModel, or a directory of its versions, of which the latest counts.

    Returns:
        The folder of the SavedModel.

    Raises:
        Unavailable: if there is none, or it is damaged.
    """
    folder = locate(argument, path)
    check(folder, argument)
    model = folder / MODEL
    if not model.stat().st_size:  # one of an earlier version
        raise _damaged(argument, folder, model.name, "empty")
    return folder


@models.keras_defaults()
def load(folder: str | os.PathLike, argument: str = "saved_model") -> keras.Model:
    """Reloads an export as the functional model it was made from.

    Args:
        folder: a version's folder, as `export` returned it.
        argument: the name of the argument that chose it, for the error.

    Returns:
        A functional model from float32 images [B, H, W, C] in [0, 1] to logits, not
        compiled. It has Keras's batch norm; `models.with_new_head` gives it ours, which
        trains faster.

    Raises:
        Unavailable: if the folder holds no complete export of this package.
    """
    folder = Path(folder)
    check(folder, argument)
    try:
        text = (folder / _ARCHITECTURE).read_text(encoding="utf-8")
        modules = metadata(folder, argument).get("modules", [])
        with custom_objects.known(json.loads(text), argument, folder, modules):
            model = keras.models.model_from_json(text)
        with for_tensorflow(folder) as plain:
            values = tf.train.load_checkpoint(os.fspath(plain / "variables" / "variables"))
            for i, variable in enumerate(model.variables):
                key = f"model_variables/{i}/.ATTRIBUTES/VARIABLE_VALUE"
                variable.assign(values.get_tensor(key))
    except Unavailable:  # of a custom layer's module, or the metadata
        raise
    except Exception as error:  # whatever a damaged description makes Keras raise
        problem = f"expected a SavedModel that this package exported ({one_line(error)})"
        raise Unavailable(argument, folder, problem) from error
    return model


def metadata(folder: str | os.PathLike, argument: str = "saved_model") -> dict[str, Any]:
    """What an export says of itself; empty for a third-party SavedModel.

    Args:
        folder: a version's folder.
        argument: the name of the argument that chose it, for the error.

    Returns:
        `label_names`, `input`, `training` and `versions`, as `export` wrote them.

    Raises:
        Unavailable: if it is damaged.
    """
    path = Path(folder) / _METADATA
    try:
        return parse_metadata(path.read_bytes()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise _damaged(argument, folder, str(_METADATA), "damaged") from error


def parse_metadata(text: str | bytes) -> dict[str, Any]:
    """What `metadata` reads; `ValueError` if `export` writes no such text."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not (isinstance(found, dict) and _is_metadata(found)):
        raise ValueError("no metadata of an export")
    return found


def _is_metadata(found: dict[str, Any]) -> bool:
    """Whether the parts that there are have what `export` writes."""
    parts = {
        "label_names": list,
        "modules": list,
        "input": dict,
        "training": dict,
        "versions": dict,
    }
    if not all(isinstance(found.get(name, kind()), kind) for name, kind in parts.items()):
        return False
    label_names, training = found.get("label_names", ["0"]), found.get("training", {})
    level, ends = training.get("train_level"), found.get("input", {}).get("range", [0, 1])
    texts = [training.get(name, "none") for name in ("dataset", "strategy", "train_perturb")]
    return (
        all(isinstance(one, str) for one in [*label_names, *texts, *found.get("modules", [])])
        and len(label_names) > 0
        and all(isinstance(one, str | float | int | None) for one in training.values())
        and (
            is_device(texts[2])
            or is_sensor(texts[2])
            or set(texts[2].split(",")) <= {"none", "all", *KINDS}
        )
        and isinstance(level, float | int | None)
        and isinstance(ends, list)
        and [type(end) in (float, int) for end in ends] == [True, True]
        and ends[0] < ends[1]
    )


def add_robustness(folder: str | os.PathLike, summary: pd.DataFrame) -> None:
    """Writes the results of tests beside an export, as `assets.extra/robustness.csv`.

    Args:
        folder: a version's folder.
        summary: as of `results.summarize`.

    Raises:
        OSError: if it cannot be written.
    """
    with replacing(Path(folder) / ROBUSTNESS) as temporary:
        summary.to_csv(temporary, index=False)


def full_name(folder: str | os.PathLike) -> str:
    """The name of a SavedModel: "<model>/<version>", or "<model>" without versions."""
    folder = Path(folder).resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name.isdecimal() else folder.name


def fingerprint(folder: str | os.PathLike) -> str:
    """The name of a SavedModel with a digest that tells it from all others.

    Args:
        folder: a version's folder.

    Returns:
        For example "mnist-natural-1a2b3c4d/1 5e6f7a8b".
    """
    return f"{full_name(folder)} {content_digest(folder)[:8]}"


def content_digest(folder: str | os.PathLike) -> str:
    """The SHA-256 of a SavedModel's graph and weights, 64 characters."""
    digest = hashlib.sha256()
    for path in [Path(folder, "saved_model.pb"), *sorted(Path(folder).glob("variables/*"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
