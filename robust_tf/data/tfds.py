"""Datasets of TensorFlow Datasets (TFDS): opened, checked, downloaded where needed, and read."""

import atexit
import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from robust_tf import machine
from robust_tf.data import decoded, prepared
from robust_tf.data.splits import Data, Split, chunk_size, without_autotuning
from robust_tf.errors import InvalidArgument, Unavailable, one_line
from robust_tf.files import digest, for_tensorflow
from robust_tf.progress import Bar

# Seconds until a host that does not answer counts as out of reach.
_PROBE_SECONDS = 8.0
# Seconds until a bar says what takes so long.
_PATIENCE = 3.0


def load(dataset: str, data_dir: str | None, memory: float) -> Data:
    """Loads a dataset; prepares it first where that was not done.

    Args:
        dataset: a TFDS dataset with uint8 images of one size and integer labels.
        data_dir: TFDS's directory; None for its default.
        memory: how many bytes the images may take; a split that does not fit stays on disk.

    Raises:
        InvalidArgument: if the name is unknown or the dataset has another form.
        Unavailable: if the data are corrupt, or not prepared and out of reach.
    """
    builder = open_builder(dataset, data_dir)
    if problem := prepare(builder, data_dir):
        raise Unavailable(
            "dataset",
            dataset,
            f"{problem}; prepare it where there is a network "
            f"(`tfds build {dataset}`) and name that directory by --data_dir",
        )
    test = name_of_test_split(builder)
    if "train" not in builder.info.splits or test is None:
        raise InvalidArgument(
            "dataset",
            dataset,
            f"a TFDS dataset with splits train and test; it has {list(builder.info.splits)}",
        )
    train = read_split(builder, "train", data_dir, memory)
    return Data(
        name=dataset,
        source="tfds",
        train=train,
        test=read_split(builder, test, data_dir, train.room),
        label_names=tuple(builder.info.features["label"].names),
    )


def open_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The builder of a dataset of images of one size and with a class label.

    Raises:
        InvalidArgument: if the name is unknown or the dataset has another form.
        Unavailable: if its description is corrupt.
    """
    if not name.strip():
        raise InvalidArgument("dataset", name, "the name of a TFDS dataset, such as mnist")
    try:
        builder = tfds.builder(name, data_dir=data_dir and _for_tensorflow(data_dir))
    except tfds.core.DatasetNotFoundError:
        if data_dir and "://" not in data_dir and not Path(data_dir).is_dir():
            raise Unavailable("data_dir", data_dir, "there is no such directory") from None
        raise InvalidArgument(
            "dataset", name, "the name of a TFDS dataset, such as mnist or cifar10"
        ) from None
    except (ValueError, AssertionError) as error:  # a config or version that is not there
        raise InvalidArgument(
            "dataset", name, f"a TFDS dataset's name ({one_line(error)})"
        ) from error
    except ImportError as error:  # of huggingface:…, say
        raise Unavailable("dataset", name, f"a package is missing ({one_line(error)})") from error
    except Exception as error:  # whatever a damaged description makes TFDS raise
        raise _corrupt(data_dir, f"the description of {name}", error) from error
    features = builder.info.features
    parts = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = parts.get("image"), parts.get("label")
    fits = (
        isinstance(image, tfds.features.Image)
        and image.np_dtype == np.uint8
        and None not in image.shape
        and isinstance(label, tfds.features.ClassLabel)
    )
    if not fits:
        raise InvalidArgument(
            "dataset", name, "a TFDS dataset with uint8 images of one size and a class label"
        )
    return builder


@functools.cache
def _for_tensorflow(data_dir: str) -> str:
    """A name for the directory as long as the process lives; see `files.for_tensorflow`."""
    if "://" in data_dir:
        return data_dir
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return os.fspath(stack.enter_context(for_tensorflow(Path(data_dir))))


def prepare(builder: tfds.core.DatasetBuilder, data_dir: str | None) -> str | None:
    """Downloads and prepares a dataset where that was not done; returns what went wrong.

    Returns:
        None where the dataset is prepared, or else the problem in a few words.

    Raises:
        Unavailable: if it was prepared and is corrupt.
    """
    if builder.is_prepared():
        return None
    if builder.data_path.exists():
        raise _corrupt(data_dir, f"{builder.data_path} has no dataset_info.json")
    for host in _unreachable(_hosts(builder.url_infos or ())):
        return f"{builder.name} is not prepared in {builder.data_dir}, and {host} is out of reach"
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except (OSError, tfds.download.DownloadError, requests.RequestException) as error:
        return f"{builder.name} could not be prepared in {builder.data_dir} ({one_line(error)})"
    return None


def _corrupt(data_dir: str | None, what: str, error: Exception | None = None) -> Unavailable:
    detail = f"{what} cannot be read ({one_line(error)})" if error else what
    if data_dir and "://" in data_dir:  # nothing says that it is there at all
        problem = f"expected a directory that can be reached and read, but {detail}"
        return Unavailable("data_dir", data_dir, problem)
    return Unavailable(
        "data_dir",
        data_dir or tfds.core.constants.DATA_DIR,
        f"expected a directory of prepared TFDS data, but {detail}; "
        "delete the dataset's folder there and prepare it again",
    )


def _hosts(urls: Iterable[str]) -> list[str]:
    parts = [urllib.parse.urlsplit(url) for url in urls]
    return sorted({f"{part.scheme}://{part.netloc}" for part in parts if part.netloc})


def _unreachable(hosts: list[str]) -> list[str]:
    """The hosts that do not answer in time; all are asked at once."""
    answered: set[str] = set()

    def ask(host: str) -> None:
        try:
            requests.head(host, timeout=_PROBE_SECONDS)
        except requests.RequestException:
            return
        answered.add(host)

    # Daemon threads: a name server that never answers must not keep the process.
    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PROBE_SECONDS)
    return [host for host in hosts if host not in answered]


def name_of_test_split(builder: tfds.core.DatasetBuilder) -> str | None:
    """The name of the split to test with; None where there is none."""
    return next((name for name in ("test", "validation") if name in builder.info.splits), None)


def read_split(
    builder: tfds.core.DatasetBuilder, split: str, data_dir: str | None, memory: float = math.inf
) -> Split:
    """Reads a split of a prepared dataset: into memory, or where it does not fit into a folder.

    Args:
        builder: the dataset.
        split: the split's name.
        data_dir: TFDS's directory; None for its default.
        memory: how many bytes the images may take.

    Returns:
        The split; what is left of the memory is its `room`.

    Raises:
        Unavailable: if its files are corrupt, or there is no room for the folder.
    """
    info = builder.info.splits[split]

    def key() -> str:
        stats = [(path.name, tf.io.gfile.stat(os.fspath(path))) for path in info.filepaths]
        files = [(name, stat.length, stat.mtime_nsec) for name, stat in stats]
        return digest(builder.info.full_name, split, info.num_examples, files)

    place = os.fspath(builder.data_path)
    # Without a link that lives no longer than this process.
    place = place if "://" in place else os.path.realpath(place)
    image_shape = tuple(builder.info.features["image"].shape)

    def held() -> Split:
        return prepared.hold(
            _examples(builder, split, data_dir),
            info.num_examples,
            image_shape,
            memory,
            folder=lambda: prepared.place(place, "robust_tf", split),
            key=key,
        )

    shape = (info.num_examples, *image_shape)
    if "://" in place or math.prod(shape) > memory:
        return held()
    identity = builder.info.full_name, split, shape
    found = decoded.read_or_make(
        Path(place, "robust_tf", f"{split}.decoded"),
        lambda: decoded.key(identity, info.filepaths),
        shape,
        held,
    )
    return dataclasses.replace(
        found, digest_of_whole=found.digest, room=memory - found.bytes_in_memory
    )


def _examples(
    builder: tfds.core.DatasetBuilder, split: str, data_dir: str | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Images [H, W, C] and labels of a split, in the order of its files."""
    # One file after another, so that an example's index is its place in the files.
    config = tfds.ReadConfig(
        interleave_cycle_length=1,
        try_autocache=False,
        num_parallel_calls_for_decode=machine.cores(),
    )
    expected, done = builder.info.splits[split].num_examples, 0
    try:
        dataset = builder.as_dataset(split=split, shuffle_files=False, read_config=config)
        dataset = dataset.map(lambda example: (example["image"], example["label"]))
        dataset = dataset.batch(chunk_size(builder.info.features["image"].shape))
        batches = without_autotuning(dataset.prefetch(2)).as_numpy_iterator()
        with Bar(
            total=expected,
            desc=f"reading {builder.name}, {split}",
            unit="image",
            delay=_PATIENCE,
            disable=multiprocessing.parent_process() is not None,  # which has shown it already
        ) as bar:
            for images, labels in batches:
                done += len(labels)
                if done > expected:
                    break
                yield from zip(images, labels)
                bar.update(len(labels))
    except Exception as error:  # whatever damaged files make TFDS and TensorFlow raise
        raise _corrupt(data_dir, f"split {split} of {builder.name}", error) from error
    if done != expected:
        problem = f"split {split} of {builder.name} has {done} examples instead of {expected}"
        raise _corrupt(data_dir, problem)
