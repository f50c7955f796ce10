"""Where datasets come from: the registry of sources, and `load`, which reads one by name."""

import dataclasses
import warnings

from robust_tf.data.sample import Sample
from robust_tf.data.splits import Data, Split
from robust_tf.data.tfds import DataDir, Tfds, open_builder, prepare
from robust_tf.errors import InvalidArgument


@dataclasses.dataclass(frozen=True)
class Auto:
    """TFDS, or else, for MNIST where the network is out of reach, the sample.

    Args:
        data_dir: as in `Tfds`.
    """

    data_dir: DataDir = None

    def load(self, dataset: str) -> Data:
        """Loads a dataset; a warning says if it is the sample.

        Arguments and errors as in `Tfds.load`.
        """
        if dataset == "mnist":
            problem = prepare(open_builder(dataset, self.data_dir), self.data_dir)
            if problem:
                using = "using the sample of 5,000 MNIST images instead"
                warnings.warn(f"{problem}; {using}", stacklevel=3)
                return Sample().load(dataset)
        return Tfds(self.data_dir).load(dataset)


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
) -> Data:
    """Loads a dataset into memory.

    Prepared data are used without the network; otherwise TFDS downloads and prepares
    them. Where the network is out of reach, which is known within 10 seconds, MNIST
    falls back to a sample of 4,000 training and 1,000 test images, with a warning.

    Args:
        name: a TFDS dataset with uint8 images of one size and integer labels, e.g.
            "mnist", "cifar10", "emnist/digits".
        data_dir: TFDS's directory; by default `TFDS_DATA_DIR`, or else TFDS's own default.
        data_source: "tfds"; "sample" (MNIST only); "auto": TFDS where the dataset can be
            had there, or else the sample; or a source itself, such as `Tfds(directory)`,
            with a directory of its own.
        train_examples: use this many training examples, the first; by default all.
        test_examples: likewise for the test split.
        divisor: bytes are divided by it to give values in [0, 1]; at least 255.
        most_train_examples: use at most this many training examples, the first;
            `train_examples` takes precedence.

    Returns:
        The dataset.

    Raises:
        InvalidArgument: if the name is unknown, the dataset has another form, or it has
            fewer examples than asked for.
        Unavailable: if the data are corrupt, or neither prepared nor within reach.
    """
    source = _source(data_source, data_dir) if isinstance(data_source, str) else data_source
    for argument, value in (("train_examples", train_examples), ("test_examples", test_examples)):
        if value is not None and value < 1:
            raise InvalidArgument(argument, value, "a whole number from 1 on")
    data = source.load(name)
    train, test = (dataclasses.replace(split, divisor=divisor) for split in (data.train, data.test))
    if train_examples is None and most_train_examples is not None:
        train = train.first(most_train_examples)
    return dataclasses.replace(
        data,
        train=_first(train, train_examples, "train_examples"),
        test=_first(test, test_examples, "test_examples"),
    )


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
