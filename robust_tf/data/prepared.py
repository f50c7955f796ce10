"""Splits on disk: prepared once in a folder, complete or absent, and checked when opened.

A folder has `images.npy` and `labels.npy`, which `numpy.load` reads, and `split.json`, which says
what they are of. Images are kept as bytes and not compressed: read back they are the same to the
bit, whichever library decodes image files how, and nothing is decoded twice.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from robust_tf.data.records import Records, header
from robust_tf.data.splits import Split
from robust_tf.data.tensors import as_tensor, empty
from robust_tf.errors import Unavailable
from robust_tf.files import (
    digest,
    locked,
    new_folder,
    remove_folder,
    replacing,
    user_cache,
    writing_to,
)

_VERSION = 1
_FILES = _IMAGES, _LABELS, _ABOUT = "images.npy", "labels.npy", "split.json"


def hold(
    examples: Iterable[tuple[np.ndarray, int]],
    count: int,
    image_shape: tuple[int, int, int],
    memory: float,
    *,
    folder: Callable[[], Path],
    key: Callable[[], str],
    argument: str = "data_dir",
) -> Split:
    """A split in memory where it fits, or else on disk; its images are the same.

    Args:
        examples: as of `store`.
        count: how many they are at most; fewer where some cannot be read.
        image_shape: (H, W, C).
        memory: how many bytes the images may take.
        folder: gives the folder for those that take more, see `place`.
        key: gives the key, as of `store`.
        argument: as of `store`.

    Returns:
        The split; what is left of the memory is its `room`.

    Raises:
        Unavailable: as `store`.
    """
    if count * math.prod(image_shape) > memory:
        found = store(examples, folder(), image_shape, key=key(), count=count, argument=argument)
        return dataclasses.replace(found, room=memory)
    images, labels = empty((count, *image_shape), np.uint8), np.empty((count,), np.int64)
    done = 0
    for image, label in examples:
        images[done], labels[done] = image, label
        done += 1
    with tf.device("CPU"):
        in_memory = Split(as_tensor(images[:done]), tf.constant(labels[:done]))
    return dataclasses.replace(in_memory, room=memory - in_memory.bytes_in_memory)


def store(
    examples: Iterable[tuple[np.ndarray, int]],
    folder: str | os.PathLike,
    image_shape: tuple[int, int, int],
    *,
    key: str,
    count: int | None = None,
    argument: str = "data_dir",
) -> Split:
    """A split whose images stay on disk.

    A folder that was prepared for the same key is opened, and `examples` is not touched. Otherwise
    it is made, by one process at a time; a damaged one, or one of another key, is made again, with
    a warning.

    Args:
        examples: pairs of an image, uint8 [H, W, C], and its label, in the order of their
            indices; taken one after another. An error of its own should be one of
            `robust_tf.errors`.
        folder: where the images are to be; its parent is created if absent.
        image_shape: (H, W, C).
        key: a text that tells what the examples are made of, such as names, sizes and times of
            files, and how, from all others.
        count: the number of examples, if it is known: room is then looked for before the work.
        argument: the name of the argument that chose the folder.

    Returns:
        The split. Its images take no memory but for those that are asked for.

    Raises:
        Unavailable: if the folder cannot be written, has no room or has other files.
    """
    folder = Path(folder)
    with contextlib.suppress(_Unfit):
        return _opened(folder, image_shape, key)
    with writing_to(argument, folder), locked(folder.parent):
        folder.parent.mkdir(exist_ok=True)  # gone where another process has failed meanwhile
        try:
            return _opened(folder, image_shape, key)  # what another process has made meanwhile
        except _Unfit as unfit:
            if os.path.lexists(folder):
                _check_ours(folder, argument)
                warnings.warn(f"{folder}: {unfit}; it is prepared again", stacklevel=2)
                remove_folder(folder)
        needed = 0 if count is None else count * math.prod(image_shape)
        if needed > (free := shutil.disk_usage(folder.parent).free):
            problem = f"no room for {needed / 2**30:.3g} GiB of images: {free / 2**30:.3g} are free"
            raise Unavailable(argument, folder, problem)
        with new_folder(folder) as place:
            _write(examples, place, image_shape)
            _describe(place, _read(place, image_shape), key)
        return _opened(folder, image_shape, key)


class _Unfit(Exception):
    """A folder is not what was asked for; its text says why."""


def _opened(folder: Path, image_shape: tuple[int, int, int], key: str) -> Split:
    """The split of a folder.

    Raises:
        _Unfit: if it is not there, damaged, or of another key.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if not isinstance(about, dict) or about.get("version") != _VERSION:
            raise _Unfit(f"{_ABOUT} is of another version")
        if about.get("key") != key:
            raise _Unfit("it was prepared from other images")
        split = _read(folder, image_shape)
        if about.get("stamp") == _stamp(folder, about):
            return dataclasses.replace(split, digest_of_whole=about["digest"])
        # Copied, or touched: what is in it says whether it is the same.
        if split.digest != about.get("digest"):
            raise _Unfit("its content is not what was written")
    except (OSError, ValueError) as error:
        raise _Unfit(f"it cannot be read ({error})") from error
    with contextlib.suppress(OSError):  # another user's: it is digested each time
        _describe(folder, split, key)
    return split


def _check_ours(folder: Path, argument: str) -> None:
    """Raises `Unavailable` if a folder that is to be removed has files of others."""
    is_ours = folder.is_dir() and not folder.is_symlink()
    if not is_ours or any(not name.endswith(_FILES) for name in os.listdir(folder)):
        problem = "expected a folder of prepared images, or none, and it is something else"
        raise Unavailable(argument, folder, problem)


def _read(folder: Path, image_shape: tuple[int, int, int]) -> Split:
    """The split in a folder, as far as can be seen without reading the images."""
    with open(folder / _LABELS, "rb") as file:
        labels = np.lib.format.read_array(file, allow_pickle=False)
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise _Unfit(f"{_LABELS} has no list of labels")
    images = Records(os.fspath(folder / _IMAGES), (len(labels), *image_shape))
    if problem := images.problem():
        raise _Unfit(problem)
    with tf.device("CPU"):
        return Split(images, tf.constant(labels))


def _write(
    examples: Iterable[tuple[np.ndarray, int]], folder: Path, image_shape: tuple[int, int, int]
) -> None:
    labels: list[int] = []
    with open(folder / _IMAGES, "wb") as file:
        file.write(header((0, *image_shape)))
        for image, label in examples:
            if image.shape != tuple(image_shape) or image.dtype != np.uint8:
                expected = f"uint8 {image_shape}, not {image.dtype} {image.shape}"
                raise ValueError(f"example {len(labels)}: expected {expected}")
            file.write(np.ascontiguousarray(image).data)
            labels.append(label)
        file.seek(0)
        file.write(header((len(labels), *image_shape)))
    np.save(folder / _LABELS, np.array(labels, np.int64))


def _describe(folder: Path, split: Split, key: str) -> None:
    about = {"version": _VERSION, "key": key, "digest": split.digest}
    about["stamp"] = _stamp(folder, about)
    with replacing(folder / _ABOUT) as path:
        path.write_text(json.dumps(about, indent=1), encoding="utf-8")


def _stamp(folder: Path, about: dict) -> str:
    """What changes with the description, and with the size or time of a file."""
    stats = [(folder / name).stat() for name in (_IMAGES, _LABELS)]
    times = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return digest(_VERSION, about.get("key"), about.get("digest"), times)


def place(directory: str | os.PathLike, *names: str) -> Path:
    """Where to prepare images: beside those that they are made of, or in the user's cache.

    Args:
        directory: that of the images, or its URL.
        *names: of folders in it, one in another.

    Returns:
        That folder, where it is there or can be made, or one in the cache that stands for it.
    """
    beside = Path(directory, *names)
    there = next(folder for folder in (beside, *beside.parents) if folder.exists())
    if "://" not in str(directory) and (there == beside or os.access(there, os.W_OK | os.X_OK)):
        return beside
    return user_cache() / "prepared" / digest(str(directory)) / Path(*names)
