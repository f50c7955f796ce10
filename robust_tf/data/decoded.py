"""A split's decoded images in one file beside the files that they were decoded from.

The file is a help and nothing else: one that is damaged, or of other content, is decoded again
and replaced, and where it cannot be written all is as without it. Splits that do not fit in
memory are read from folders, see `prepared`.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from robust_tf.data.splits import Split
from robust_tf.data.tensors import as_tensor, empty
from robust_tf.files import replacing

# The variable of the environment that does without such files, neither reads nor writes them.
_SWITCH, _OFF = "ROBUST_TF_DECODED", ("0", "off", "false", "no")
_FIRST = b"robust_tf decoded images 1\n"
# Bytes that are read at once.
_BLOCK = 2**20


def key(identity: object, files: Iterable[str | os.PathLike]) -> str:
    """A text that tells what images are decoded from, by its content, and how from all others.

    Args:
        identity: what says how: names, numbers and shapes.
        files: the files with the encoded images, in order; read to the end.

    Raises:
        OSError: if one cannot be read.
    """
    # An image may be decoded in another way by another TensorFlow.
    found = hashlib.sha256(repr((identity, tf.__version__)).encode())
    for name in files:
        content = hashlib.sha256()
        with open(name, "rb") as file:
            while block := file.read(_BLOCK):
                content.update(block)
        found.update(content.digest())
    return found.hexdigest()


def read_or_make(
    path: Path, make_key: Callable[[], str], shape: tuple[int, ...], make: Callable[[], Split]
) -> Split:
    """Reads a split's file, or else decodes its images and writes it.

    Args:
        path: the file; its folder is made if absent.
        make_key: gives the key, see `key`.
        shape: of the images: (N, H, W, C).
        make: decodes them: a split in memory.

    Returns:
        The split; the same images and labels either way.
    """
    if os.environ.get(_SWITCH, "").strip().lower() in _OFF:
        return make()
    try:
        own = make_key()
    except OSError:
        return make()  # which says what is wrong
    with contextlib.suppress(OSError, EOFError):
        if path.is_file() and (found := _read(path, own, shape)) is not None:
            return found
    split = make()
    # Of files that were replaced while they were decoded, nothing is written.
    with contextlib.suppress(OSError):
        if (
            split.images.shape == shape
            and _may_write(path, split.bytes_in_memory)
            and own == make_key()
        ):
            path.parent.mkdir(exist_ok=True)
            _write(path, own, split)
    return split


def _read(path: Path, own: str, shape: tuple[int, ...]) -> Split | None:
    """The split of a file; None if it is of another key or damaged."""
    with open(path, "rb") as file:
        if file.readline(len(_FIRST)) != _FIRST or file.readline(100) != f"{own}\n".encode():
            return None
        content = file.readline(100)
        labels, images = np.empty(shape[:1], "<i8"), empty(shape, np.uint8)
        rest = os.fstat(file.fileno()).st_size - file.tell()
        if rest != labels.nbytes + images.nbytes:
            return None
        for array in (labels, images):
            if file.readinto(array.data.cast("B")) != array.nbytes:
                return None
    split = _split(labels, images)
    return split if f"{split.content}\n".encode() == content else None


def _split(labels: np.ndarray, images: np.ndarray) -> Split:
    with tf.device("CPU"):
        return Split(as_tensor(images), tf.constant(labels, tf.int64))


def _write(path: Path, own: str, split: Split) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(_FIRST)
        file.write(f"{own}\n{split.content}\n".encode())
        file.write(split.labels.numpy().astype("<i8").data)
        for images in split.chunks():
            file.write(np.ascontiguousarray(images).data)


def _may_write(path: Path, size: int) -> bool:
    """Whether there is room, and a folder that some may write, if this process is of root."""
    if path.exists() and not path.is_file():
        return False
    folder = path.parent if path.parent.exists() else path.parent.parent
    is_open = os.access(folder, os.W_OK | os.X_OK) and folder.stat().st_mode & 0o222
    return bool(is_open) and shutil.disk_usage(folder).free > 2 * size
