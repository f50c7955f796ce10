"""Which examples are for testing, where nobody has said: as many of each class, by a seed."""

from collections.abc import Sequence

import numpy as np

from robust_tf.data.names import TEST_FRACTION
from robust_tf.seeds import stream_int

# What is expected where a drawn test split would be empty.
UNDRAWN = "two {0}s or more of a class, of which one is for testing; each has one alone"


def ranked(keys: Sequence[str], stream: str, seed: int) -> np.ndarray:
    """An order of examples that depends on their keys alone, not on the order they come in.

    Args:
        keys: of the examples, such as paths; each is there once.
        stream: a name; orders of other names are independent.
        seed: a whole number from 0 on.

    Returns:
        int64 array of shape [N]: the place of the first, of the second, ….
    """
    # As ASCII, since a path need not be text.
    ranks = [(stream_int(seed, f"{stream}/{key!a}"), key) for key in keys]
    return np.array(sorted(range(len(keys)), key=ranks.__getitem__), np.int64)


def stratified(
    labels: np.ndarray, keys: Sequence[str], fraction: float = TEST_FRACTION, seed: int = 0
) -> np.ndarray:
    """Draws examples for testing: of each class its share, rounded.

    Of two or more examples of a class at least one is for testing and at least one for
    training; a single one is for training. With a fraction of 1 all are for testing.

    Args:
        labels: of the examples, [N].
        keys: as of `ranked`.
        fraction: share for testing, above 0 and at most 1.
        seed: decides which.

    Returns:
        bool array of shape [N], true where an example is for testing.
    """
    if fraction == 1:
        return np.ones(len(labels), bool)
    order = ranked(keys, "split", seed)
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        share = int(np.floor(fraction * len(own) + 0.5))
        test[own[: min(max(1, share), len(own) - 1)]] = True
    return test
