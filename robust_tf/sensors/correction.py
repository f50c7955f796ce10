"""Corrections of defective pixels, as graph-mode ops on batches of images.

By a list of known defects, or without one by comparing each pixel with its neighbours. Borders
are mirrored with the edge repeated, as in `perturbations.blur`; each channel is on its own.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from robust_tf.errors import InvalidArgument
from robust_tf.sensors.names import HOW, THRESHOLD


def median(images: tf.Tensor) -> tf.Tensor:
    """The median of each pixel and its 8 neighbours.

    Equals `scipy.ndimage.median_filter` of each channel with `size=3` and `mode="reflect"`.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1]; sizes may be unknown in a graph.

    Returns:
        float32 tensor of shape [B, H, W, C]; each value is one of its image's.
    """
    low, middle, high = _sorted_columns(_rows(images))
    # The median of the highest low, the median middle and the lowest high is that of all nine.
    left, here, right = _shifted(low)
    highest_low = tf.maximum(tf.maximum(left, here), right)
    left, here, right = _shifted(high)
    lowest_high = tf.minimum(tf.minimum(left, here), right)
    return _of_three(highest_low, _of_three(*_shifted(middle)), lowest_high)


def outlier(images: tf.Tensor, threshold: float | tf.Tensor = THRESHOLD) -> tf.Tensor:
    """Gives pixels that are far from their neighbours the median of these.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1]; sizes may be unknown in a graph.
        threshold: a pixel that differs by more from the median of its 8 neighbours, the mean of
            the two middle ones, becomes that median; a number or a scalar tensor.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1].
    """
    rows = _rows(images)
    above, here, below = rows
    columns = _sorted_columns(rows)
    left, right = ([_shifted(one)[side] for one in columns] for side in (0, 2))
    beside = [_ranked(left, right, rank) for rank in range(1, 6)]  # of the six there
    others = [_shifted(one)[1] for one in (tf.minimum(above, below), tf.maximum(above, below))]
    found = (_ranked(beside, others, 4) + _ranked(beside, others, 5)) / 2
    images = _shifted(here)[1]
    return tf.where(tf.abs(images - found) > threshold, found, images)


def _rows(images: tf.Tensor) -> list[tf.Tensor]:
    """The rows above, here and below, [B, H, W + 2, C] each."""
    images = tf.convert_to_tensor(images, tf.float32)
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    return [padded[:, :-2], padded[:, 1:-1], padded[:, 2:]]


def _shifted(values: tf.Tensor) -> list[tf.Tensor]:
    """The columns left, here and right, [B, H, W + 2, C] -> [B, H, W, C] each."""
    return [values[:, :, :-2], values[:, :, 1:-1], values[:, :, 2:]]


def _sorted_columns(rows: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Three values at each place in rising order."""
    above, here, below = rows
    low, high = tf.minimum(above, here), tf.maximum(above, here)
    between = tf.minimum(high, below)
    return [tf.minimum(low, below), tf.maximum(low, between), tf.maximum(high, below)]


def _of_three(first: tf.Tensor, second: tf.Tensor, third: tf.Tensor) -> tf.Tensor:
    return _sorted_columns((first, second, third))[1]


def _ranked(first: Sequence[tf.Tensor], second: Sequence[tf.Tensor], rank: int) -> tf.Tensor:
    """The value of a rank, from 1 on, among those of two lists in rising order."""
    options = []
    for i in range(max(0, rank - len(second)), min(rank, len(first)) + 1):
        last = [*first[max(0, i - 1) : i], *second[max(0, rank - i - 1) : rank - i]]
        options.append(functools.reduce(tf.maximum, last))
    return functools.reduce(tf.minimum, options)


@dataclasses.dataclass(frozen=True, eq=False)
class GoodNeighbours:
    """What the pixels of a list are corrected from; made by `of`.

    Defective values are in groups by their number of good neighbours, so that the few that have
    many, in the middle of a cluster, do not lengthen the tables of all.

    Attributes:
        sources: of each group int32 [N, K], places among the H·W·C values of an image, and H·W·C
            for none: the good neighbours of each defective value.
        counts: of each group int32 [N], how many these are.
        places: int32 [H, W, C]: the value's own place, or H·W·C + n for defective value n, of
            the groups one after the other.
    """

    sources: tuple[np.ndarray | tf.Tensor, ...]
    counts: tuple[np.ndarray | tf.Tensor, ...]
    places: np.ndarray | tf.Tensor

    @classmethod
    def of(cls, mask: np.ndarray) -> "GoodNeighbours":
        """Finds the good neighbours of each defective value, in its channel.

        These are the good ones of its 8 neighbours. Where none of them is good, those of the 16
        around these count, and so on, until there is one; beyond the border the image is mirrored.

        Args:
            mask: bool [H, W, C], true where a value is defective.

        Raises:
            InvalidArgument: if a channel has no good pixel.
        """
        mask = np.asarray(mask, bool)
        if without_good_pixel(mask):
            raise InvalidArgument("defects", "all pixels", "a good pixel in each channel")
        groups: dict[int, list[np.ndarray]] = {}
        for found in _found(mask):
            # K is one of few numbers, so that a graph is traced for few shapes.
            counts = (found[:, 1:] < mask.size).sum(axis=1)
            lengths = np.maximum(_FEWEST, 2 ** np.ceil(np.log2(counts)).astype(int))
            for length in np.unique(lengths).tolist():
                own = np.pad(
                    found[lengths == length], [(0, 0), (0, length)], constant_values=mask.size
                )
                groups.setdefault(length, []).append(own[:, : length + 1])
        sources, counts, places = [], [], np.arange(mask.size)
        first = mask.size
        for length in sorted(groups):
            own = np.concatenate(groups[length])  # [N, 1 + K]
            table = np.full((_power_of_two(len(own)), length), mask.size, np.int32)
            table[: len(own)] = own[:, 1:]
            places[own[:, 0]] = first + np.arange(len(own))
            first += len(table)
            sources.append(table)
            counts.append(np.maximum(1, (table < mask.size).sum(axis=1)).astype(np.int32))
        return cls(tuple(sources), tuple(counts), places.reshape(mask.shape).astype(np.int32))


def without_good_pixel(mask: np.ndarray) -> bool:
    """Whether a channel of defective values, bool [H, W, C], has nothing to correct them from."""
    return bool(mask.all(axis=(0, 1)).any())


def _found(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Defective values with their good neighbours: int [N, 1 + R], places; the last may be none."""
    left, radius = np.argwhere(mask), 0
    while len(left):
        radius += 1
        near = np.arange(-radius, radius + 1)
        window = np.stack(np.meshgrid(near, near, indexing="ij"), axis=-1).reshape(-1, 2)
        ring = window[np.abs(window).max(axis=1) == radius]  # all within it are defective
        alone = []
        for part in np.array_split(left, -(-len(left) * len(ring) // _AT_ONCE)):
            rows = _mirrored(part[:, :1] + ring[:, 0], mask.shape[0])
            columns = _mirrored(part[:, 1:2] + ring[:, 1], mask.shape[1])
            around = np.ravel_multi_index((rows, columns, part[:, 2:]), mask.shape)  # [N, R]
            good = ~mask.ravel()[around]
            some = good.any(axis=1)
            alone.append(part[~some])
            # The good ones first, in their order.
            around = np.where(good, around, mask.size)[some]
            order = np.argsort(~good[some], axis=1, kind="stable")
            own = np.ravel_multi_index(tuple(part[some].T), mask.shape)
            yield np.column_stack([own, np.take_along_axis(around, order, axis=1)])
        left = np.concatenate(alone)


# The shortest table of neighbours, and places that are looked at together.
_FEWEST, _AT_ONCE = 8, 2**22


def by_list(images: tf.Tensor, good: GoodNeighbours, how: str = "median") -> tf.Tensor:
    """Corrects the pixels of a list; all others keep their bits.

    Args:
        images: float32, shape [B, H, W, C], values in [0, 1].
        good: of the sensor's defects.
        how: "median" or "mean" of the good neighbours.

    Returns:
        float32 tensor of shape [B, H, W, C], values in [0, 1].

    Raises:
        InvalidArgument: if there is no such way.
    """
    if how not in HOW:
        raise InvalidArgument("how", how, " or ".join(HOW))
    images = tf.convert_to_tensor(images, tf.float32)
    flat = tf.reshape(images, [tf.shape(images)[0], tf.size(good.places)])
    # What is not there comes last, and counts 0 in a sum.
    none = 2.0 if how == "median" else 0.0
    padded = tf.pad(flat, [[0, 0], [0, 1]], constant_values=none)
    parts = [flat]
    for sources, counts in zip(good.sources, good.counts):
        values = tf.gather(padded, sources, axis=1)  # [B, H*W*C + 1] -> [B, N, K]
        if how == "mean":
            found = tf.reduce_sum(values, axis=-1) / tf.cast(counts, tf.float32)
        else:
            # Of the values in rising order, half of each of the two in the middle, or twice of one.
            length = tf.shape(sources)[1]
            middle = tf.one_hot((counts - 1) // 2, length) + tf.one_hot(counts // 2, length)
            found = tf.reduce_sum(tf.sort(values, axis=-1) * (middle / 2), axis=-1)
        parts.append(tf.clip_by_value(found, 0.0, 1.0))
    everything = tf.concat(parts, axis=1)
    return tf.reshape(tf.gather(everything, good.places, axis=1), tf.shape(images))


def _mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Places on a line that is mirrored at its ends, with the edge repeated."""
    places = places % (2 * length)
    return np.where(places < length, places, 2 * length - 1 - places)


def _power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()
