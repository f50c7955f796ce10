"""Perturbed test images as files: what a trial of an evaluation sees, for other programs.

`data.load_files` and `data.load_test` read them back.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

import robust_tf
from robust_tf import perturbations
from robust_tf.data import Data, Split
from robust_tf.data.recorded import LABELS, MANIFEST
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation.conditions import trial_seed
from robust_tf.evaluation.evaluator import batch_size
from robust_tf.evaluation.names import FORMATS
from robust_tf.files import file_name, new_folder, writing_to
from robust_tf.perturbations import KINDS, Perturbation, example_seeds
from robust_tf.progress import Bar


def perturbed(data: Data, condition: Perturbation, *, seed: int = 0, trial: int = 0) -> np.ndarray:
    """The test images that a trial with a perturbation sees, rounded to bytes.

    Args:
        data: the dataset.
        condition: the perturbation.
        seed: the experiment's seed.
        trial: which random draw, a whole number from 0 on.

    Returns:
        uint8 array of shape [N, H, W, C].

    Raises:
        InvalidArgument: if the perturbation does not fit the images.
    """
    condition.check(data.image_shape)
    size, at_once = len(data.test), batch_size(data.image_shape)
    base = tf.constant(trial_seed(seed, trial))
    starts = range(0, size, at_once)
    batches = (tf.range(start, min(start + at_once, size)) for start in starts)
    return np.concatenate([_bytes(condition, data.test, one, base).numpy() for one in batches])


@tf.function(autograph=False)  # TensorFlow divides and rounds in graphs as the evaluator does
def _bytes(condition: Perturbation, split: Split, index: tf.Tensor, base: tf.Tensor) -> tf.Tensor:
    images = condition(split.images_at(index), example_seeds(base, index))
    return tf.cast(tf.round(images * 255.0), tf.uint8)


def name_of(data: Data) -> str:
    """What the perturbed variant of a dataset is called in TFDS: "mnist_perturbed"."""
    name = "".join(one if one.isalnum() and one.isascii() else "_" for one in data.name.lower())
    return f"{name.strip('_')}_perturbed"


def place_of(data: Data, folder: str | Path, form: str) -> Path:
    """The folder that is made: a dataset's in a data directory of TFDS, otherwise that one."""
    return Path(folder) / name_of(data) if form == "tfds" else Path(folder)


def write(
    data: Data,
    conditions: Sequence[Perturbation],
    folder: str | Path,
    *,
    form: str = "npy",
    seed: int = 0,
    trial: int = 0,
    progress: bool = True,
) -> Path:
    """Writes the perturbed test images, complete or not at all.

    Args:
        data: the dataset.
        conditions: the perturbations, each of which has images of its own.
        folder: a new folder; for TFDS, a data directory, in which the dataset must be new.
        form: "npy": per kind a file of uint8 [levels · N, H, W, C], one level after the other, and
            labels.npy, which has the labels for each level, as CIFAR-10-C has them; the file of a
            kind with fewer levels than another is shorter. "png": files kind/level/class/index.png.
            "tfds": a dataset with a configuration per condition.
        seed: the experiment's seed.
        trial: which random draw, a whole number from 0 on.
        progress: show a progress bar.

    Returns:
        The folder that was made. Its perturbed.json has seeds, definitions, digests and versions.

    Raises:
        InvalidArgument: if a perturbation does not fit the images, or they are no PNG files.
        Unavailable: if the folder is there already, or cannot be written.
    """
    if form not in FORMATS:
        raise InvalidArgument("format", form, f"one of {', '.join(FORMATS)}")
    channels = data.image_shape[-1]
    if form == "png" and channels not in (1, 3, 4):
        raise InvalidArgument("format", form, f"npy or tfds for images of {channels} channels")
    for condition in conditions:
        condition.check(data.image_shape)
    place = place_of(data, folder, form)
    check_new(place)
    with writing_to("output_dir", folder, tf.errors.OpError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(place) as temporary:
            with Bar(
                total=len(conditions), desc="perturbing", unit="test", disable=not progress
            ) as bar:
                made = _made(data, conditions, seed, trial, bar)
                tests = _WRITERS[form](data, conditions, made, temporary)
            told = _manifest(data, form, seed, trial) | {"tests": tests}
            if form == "png":  # the others have the labels in their files
                told["folders"] = folders_of(data.label_names)
                told["labels"] = data.test.labels.numpy().tolist()
            (temporary / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return place


def check_new(place: Path) -> None:
    """Raises `Unavailable` if a folder to be made is there and has something in it."""
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise Unavailable("output_dir", place, "expected a new folder, but it is there already")


def _made(
    data: Data, conditions: Sequence[Perturbation], seed: int, trial: int, bar: Bar
) -> Iterator[np.ndarray]:
    for condition in conditions:
        images = perturbed(data, condition, seed=seed, trial=trial)
        bar.update()
        yield images


def _manifest(data: Data, form: str, seed: int, trial: int) -> dict:
    return {
        "format": form,
        "dataset": data.name,
        "data_source": data.source,
        "test_digest": data.test.digest,
        "n_examples": len(data.test),
        "image_shape": data.image_shape,
        "label_names": data.label_names,
        "seed": seed,
        "trial": trial,
        "bits": 8,
        "versions": {
            "python": sys.version.split()[0],
            "robust_tf": robust_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }


def _entry(data: Data, condition: Perturbation, images: np.ndarray, **place: object) -> dict:
    """What the manifest says of a test."""
    return {
        "kind": condition.kind,
        "level": condition.level,
        "unit": KINDS[condition.kind].unit,
        "definition": (getattr(perturbations, condition.kind).__doc__ or "").partition("\n")[0],
        "channel_blur": condition.channel_blur,
        "digest": Split.of_arrays(images, data.test.labels.numpy()).digest,
        **place,
    }


def folders_of(names: Sequence[str]) -> list[str]:
    """The folders of classes: their names, as far as file systems take them."""
    folders = [file_name(name) for name in names]
    if "" in folders or len({folder.casefold() for folder in folders}) < len(folders):
        return [f"{place}-{folder}".rstrip("-") for place, folder in enumerate(folders)]
    return folders


def _write_npy(
    data: Data, conditions: Sequence[Perturbation], made: Iterator[np.ndarray], folder: Path
) -> list[dict]:
    count, tests = len(data.test), []
    kinds = [condition.kind for condition in conditions]
    levels = {kind: kinds.count(kind) for kind in kinds}
    files: dict[str, np.memmap] = {}
    done = dict.fromkeys(kinds, 0)
    for condition, images in zip(conditions, made):
        kind = condition.kind
        if kind not in files:
            shape = (levels[kind] * count, *data.image_shape)
            path = folder / f"{kind}.npy"
            files[kind] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        first = done[kind] * count
        files[kind][first : first + count] = images
        done[kind] += 1
        tests.append(_entry(data, condition, images, file=f"{kind}.npy", first=first))
    for file in files.values():
        file.flush()
    labels = data.test.labels.numpy().astype(np.uint8 if len(data.label_names) < 256 else np.int64)
    np.save(folder / LABELS, np.tile(labels, max(levels.values())))
    return tests


def _write_png(
    data: Data, conditions: Sequence[Perturbation], made: Iterator[np.ndarray], folder: Path
) -> list[dict]:
    labels, classes = data.test.labels.numpy(), folders_of(data.label_names)
    tests = []
    for condition, images in zip(conditions, made):
        name = f"{condition.kind}/{condition.level:.12g}"
        for one in classes:  # also those without images: readers count the folders
            (folder / name / one).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(images, labels)):
            path = folder / name / classes[label] / f"{i:05}.png"
            path.write_bytes(tf.io.encode_png(image).numpy())
        tests.append(_entry(data, condition, images, file=name))
    return tests


def _write_tfds(
    data: Data, conditions: Sequence[Perturbation], made: Iterator[np.ndarray], folder: Path
) -> list[dict]:
    labels, tests = data.test.labels.numpy(), []
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=data.image_shape),
            "label": tfds.features.ClassLabel(names=data.label_names),
        }
    )
    for condition, images in zip(conditions, made):
        config = f"{condition.kind}_{condition.level:.12g}"
        examples = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels})
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of a download, and a place
            tfds.dataset_builders.store_as_tfds_dataset(
                name_of(data),
                version="1.0.0",
                features=features,
                split_datasets={"test": examples},
                config=config,
                data_dir=folder / "tfds",
                description=f"{data.name}'s test images with {condition}",
                disable_shuffling=True,  # an example's index is its place
            )
        tests.append(_entry(data, condition, images, file=config))
    for made_folder in (folder / "tfds" / name_of(data)).iterdir():
        made_folder.rename(folder / made_folder.name)
    shutil.rmtree(folder / "tfds")
    return tests


_WRITERS: Mapping = {"npy": _write_npy, "png": _write_png, "tfds": _write_tfds}
