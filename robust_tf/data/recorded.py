"""Recorded test images: those of another dataset, to test models of a dataset with.

Also those of a folder of files: perturbed ones that `robust_tf.evaluation.recordings` has written,
or arrays as those of CIFAR-10-C.
"""

import dataclasses
import json
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from robust_tf.data.classes import check_labels, numbered, places
from robust_tf.data.splits import Data, Split
from robust_tf.data.tfds import name_of_test_split, open_builder, prepare, read_split
from robust_tf.errors import InvalidArgument, Unavailable, one_line

# What a folder of perturbed images says of itself, and the labels of arrays.
MANIFEST, LABELS = "perturbed.json", "labels.npy"
# The severities of each file of CIFAR-10-C, one after the other.
_SEVERITIES = 5


def load_test(
    name: str,
    like: Data,
    *,
    data_dir: str | None = None,
    test_examples: int | None = None,
    same_classes: bool = False,
    memory: float | None = None,
) -> Split:
    """Loads the test images of another dataset, to test models of `like` with.

    Args:
        name: as in `load`.
        like: the dataset that the models were trained for.
        data_dir: as in `load`.
        test_examples: use at most this many, the first; by default all.
        same_classes: its classes are those of `like` in the same order, whatever their names.
        memory: how many bytes its images may take; by default what `like` has left.

    Returns:
        The test split, with the divisor of that of `like` and the labels that its classes have
        there: classes in another order are matched by name, with a warning. Where one of the two
        has only numbers for names they are taken in order, with a warning, but for TFDS's
        corrupted variant of `like`.

    Raises:
        InvalidArgument: if the name is unknown, or the images have another shape than those
            of `like`, or it has other classes, or a label is no class.
        Unavailable: if it is neither prepared nor can be downloaded.
    """
    try:
        builder = open_builder(name, data_dir)
    except InvalidArgument as error:
        raise error.of("eval") from error
    image, label = builder.info.features["image"], builder.info.features["label"]
    if tuple(image.shape) != like.image_shape or label.num_classes != len(like.label_names):
        expected = f"a dataset of {len(like.label_names)} classes and images {like.image_shape}"
        raise InvalidArgument("eval", f"{name} ({label.num_classes}, {image.shape})", expected)
    if problem := prepare(builder, data_dir):
        raise Unavailable("eval", name, f"{problem}; prepare it by `tfds build {name}`")
    test = name_of_test_split(builder)
    if test is None:
        raise InvalidArgument("eval", name, "a TFDS dataset with a split test")
    split = read_split(builder, test, data_dir, like.test.room if memory is None else memory)
    check_labels(split.labels.numpy(), label.num_classes, argument="eval", value=name)
    corrupted = builder.name == _corrupted(like) and numbered(label.names)
    if not (same_classes or corrupted):
        named = {"argument": "eval", "value": name, "other": f"the dataset {like.name}"}
        order = places(like.label_names, label.names, **named)
        if order is not None:
            labels = np.take(order, split.labels.numpy())
            split = dataclasses.replace(split, labels=tf.constant(labels), digest_of_whole=None)
    split = dataclasses.replace(split, divisor=like.test.divisor)
    return split if test_examples is None else split.first(test_examples)


def _corrupted(like: Data) -> str:
    """What TFDS calls the corrupted variant of a dataset."""
    return f"{like.name.partition(':')[0]}_corrupted"


def prepared_corruptions(like: Data, data_dir: str | None = None) -> list[str]:
    """The prepared configurations of TFDS's corrupted variant of a dataset.

    Args:
        like: the dataset, "mnist" or "cifar10".
        data_dir: as in `load`.

    Returns:
        Names of datasets, such as "mnist_corrupted/fog", in TFDS's order.

    Raises:
        InvalidArgument: if TFDS has no such variant.
        Unavailable: if none of them is prepared.
    """
    variant = _corrupted(like)
    try:
        names = [config.name for config in tfds.builder_cls(variant).BUILDER_CONFIGS]
    except (tfds.core.DatasetNotFoundError, ValueError):
        expected = f"no value with dataset={like.name}: TFDS has no {variant}"
        raise InvalidArgument("eval", "corrupted", expected) from None
    configurations = [f"{variant}/{name}" for name in names if name != "identity"]  # no change
    prepared = [name for name in configurations if open_builder(name, data_dir).is_prepared()]
    if not prepared:
        raise Unavailable(
            "eval",
            "corrupted",
            f"no part of {variant} is prepared in {data_dir or tfds.core.constants.DATA_DIR}; "
            f"prepare some where there is a network, such as `tfds build {configurations[0]}`",
        )
    return prepared


def load_files(
    place: str, like: Data, *, test_examples: int | None = None, same_classes: bool = False
) -> list[tuple[str, float, Split]]:
    """Loads the test images of a folder of files, to test models of `like` with.

    Args:
        place: "npy:FOLDER" or "png:FOLDER", which `recordings.write` has written; or "npy:FOLDER"
            with the layout of CIFAR-10-C: per corruption a file of uint8 [5 N, H, W, C] or
            [5 N, H, W], severities 1 to 5 one after the other, and labels.npy. Where the labels
            are not five times the same, each file is one test.
        like: as in `load_test`.
        test_examples: use at most this many of each test, the first; by default all.
        same_classes: as in `load_test`.

    Returns:
        For each test a name, such as "npy:FOLDER/hot"; the level, NaN for none; and the images
        with labels as in `load_test`.

    Raises:
        InvalidArgument: if images or classes are others than those of `like`, or a label is none.
        Unavailable: if there is no such folder, or it is not as it was written.
    """
    form, _, name = place.partition(":")
    folder = Path(name).expanduser()
    try:
        told = None
        if (folder / MANIFEST).exists() or form == "png":
            told = json.loads((folder / MANIFEST).read_bytes())
            if told["format"] != form:
                raise InvalidArgument("eval", place, f"{told['format']}:{name}, which it is")
        tests = _told(folder, told) if told else _arrays(folder)
        names = told["label_names"] if told else [str(i) for i in range(len(like.label_names))]
        found = []
        order: Any = ()
        for kind, level, images, labels, digest in tests:
            if images.shape[1:] != like.image_shape or len(names) != len(like.label_names):
                expected = f"{len(like.label_names)} classes and images {like.image_shape}"
                given = f"{place} ({len(names)}, {images.shape[1:]})"
                raise InvalidArgument("eval", given, expected)
            check_labels(labels, len(names), argument="eval", value=place)
            split = Split.of_arrays(images, labels)
            if digest not in (None, split.digest):
                raise ValueError(f"{kind} {level:g} is not as it was written")
            if order == ():
                named = {"argument": "eval", "value": place, "other": f"the dataset {like.name}"}
                order = None if same_classes else places(like.label_names, names, **named)
            if order is not None:
                split = Split.of_arrays(images, np.take(order, labels))
            split = dataclasses.replace(split, divisor=like.test.divisor)
            split = split if test_examples is None else split.first(test_examples)
            found.append((f"{form}:{folder.resolve().name}/{kind}", level, split))
    except InvalidArgument:
        raise
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        reason = one_line(error)
        if isinstance(error, OSError) and error.filename:
            reason = f"{os.path.relpath(error.filename, folder)}: {error.strerror}"
        elif not isinstance(error, ValueError):
            reason = f"{MANIFEST} is not as it was written"
        problem = f"expected a folder that pipelines.corrupt has written ({reason})"
        raise Unavailable("eval", place, problem) from error
    if not found:
        raise Unavailable("eval", place, "expected a folder with images")
    if (count := len(found[0][2])) != len(like.test):
        others = f"natural images and computed perturbations are of {len(like.test):,}"
        warnings.warn(f"{place} has {count:,} test images, {others}", stacklevel=2)
    return found


def _told(folder: Path, told: dict) -> Iterator[tuple[str, float, np.ndarray, np.ndarray, str]]:
    """Kind, level, images, labels and digest of the tests that a manifest names."""
    count, shape = told["n_examples"], tuple(told["image_shape"])
    arrays = told["format"] == "npy"
    labels = _array(folder / LABELS)[:count] if arrays else told["labels"]
    labels = np.asarray(labels, np.int64)
    for test in told["tests"]:
        if arrays:
            stacked = _array(folder / test["file"])
            images = np.asarray(stacked[test["first"] : test["first"] + count])
        else:
            images = np.empty((count, *shape), np.uint8)
            for i, label in enumerate(labels):
                path = folder / test["file"] / told["folders"][label] / f"{i:05}.png"
                try:
                    images[i] = tf.io.decode_png(path.read_bytes(), channels=shape[-1])
                except (tf.errors.OpError, ValueError) as error:
                    own = path.relative_to(folder).as_posix()
                    raise ValueError(f"{own} is no PNG of this size") from error
        yield test["kind"], float(test["level"]), images, labels, test["digest"]


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:  # empty, cut, or of objects
        raise ValueError(f"{path.name} is no whole file of an array") from error


def _arrays(folder: Path) -> Iterator[tuple[str, float, np.ndarray, np.ndarray, None]]:
    """The same of arrays as those of CIFAR-10-C, which have no digests."""
    labels = _array(folder / LABELS).astype(np.int64)
    parts = labels.reshape(_SEVERITIES, -1) if len(labels) % _SEVERITIES == 0 else labels[None]
    several = len(parts) > 1 and (parts == parts[0]).all()
    own = parts[0] if several else labels
    for path in sorted(folder.glob("*.npy")):
        if path.name == LABELS or path.name.startswith("."):
            continue
        stacked = _array(path)
        if stacked.dtype != np.uint8 or stacked.ndim not in (3, 4) or len(stacked) != len(labels):
            expected = f"uint8 [{len(labels)}, …]"
            raise ValueError(f"{path.name} has {stacked.dtype} {stacked.shape}, not {expected}")
        stacked = stacked[..., None] if stacked.ndim == 3 else stacked
        for place in range(len(labels) // len(own)):
            images = np.asarray(stacked[place * len(own) : (place + 1) * len(own)])
            yield path.stem, float(place + 1) if several else math.nan, images, own, None
