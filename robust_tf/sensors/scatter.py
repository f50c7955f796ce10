"""Where the defects of devices lie: drawn by each device's seed, as a list or in a graph.

What there is to draw, the sources of `Sensor.sources`, is known by its numbers only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
import tensorflow as tf

from robust_tf import seeds as seeds_lib
from robust_tf.perturbations.photons import random_words
from robust_tf.sensors.maps import DefectMap
from robust_tf.sensors.tables import Region, Source
from robust_tf.xla import power_of_two

# Draws of a source's seed.
_PLACES, _VALUES = 0, 1
# Times between two defects are counted in steps, so that sums are exact.
_STEPS = 2.0**32
_SPIRAL = 49


def device_seeds(seed: int, devices: Sequence[int]) -> tf.Tensor:
    """The seeds of devices, int32 [D, 2], as for the maps that `DefectMap.drawn_all` draws."""
    numbers = tf.constant(np.asarray(devices, np.int64))
    return seeds_lib.fold_in(seeds_lib.stream_seed(seed, "device"), numbers)


def spiral(count: int = _SPIRAL) -> np.ndarray:
    """The photosites of a cluster around its place, in order: rows and columns, int32 [count, 2].

    The place itself, its right neighbour, and so on clockwise, out to a square of 7 x 7.
    """
    found, place, step = [(0, 0)], np.array([0, 0]), np.array([0, 1])
    length = 1
    while len(found) < count:
        for _ in range(2):
            for _ in range(length):
                place = place + step
                found.append((int(place[0]), int(place[1])))
            step = np.array([step[1], -step[0]])  # right, down, left, up
        length += 1
    return np.array(found[:count], np.int32)


def drawn(
    sources: Sequence[Source], seeds: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The defects of devices; callable in a graph.

    The number of each source's has a Poisson distribution: as many as events, one after the
    other at exponential intervals, that happen before the mean. So more of a source adds to
    what less of it draws.

    Args:
        sources: what is drawn; where two meet, the earlier one counts.
        seeds: of the devices, int32 [D, 2].
        height: rows of the sensor.
        width: its columns.

    Returns:
        Three tensors [D, N]: the photosites, row · width + column, -1 for none; what each
        keeps of the light, 0 or 1; and what it adds.
    """
    parts = [_of_source(one, seeds, height, width) for one in sources if one.mean > 0]
    if not parts:
        nothing = tf.zeros([tf.shape(seeds)[0], 0])
        return tf.cast(nothing, tf.int32), nothing, nothing
    places, keeps, adds = (tf.concat(one, axis=1) for one in zip(*parts))
    return places, keeps, adds


def _of_source(source: Source, seeds: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, ...]:
    own = seeds_lib.fold_in(seeds, tf.constant(source.number + 1, tf.int64))
    # One device in 10**12 has more.
    most = power_of_two(1 + int(scipy.stats.poisson.isf(1e-12, source.mean)))
    words = tf.reshape(random_words(own, 4 * most, _PLACES), [-1, most, 4])
    uniform = (tf.cast(words[..., 0], tf.float64) + 0.5) * 2.0**-32
    # Whole steps: the sum of so many is the same in whatever order it is computed.
    intervals = tf.cast(tf.round(-tf.math.log(uniform) * _STEPS), tf.int64)
    there = tf.cumsum(intervals, axis=1) <= round(source.mean * _STEPS)
    region = source.region
    rows = region.top + _below(words[..., 1], region.height)
    columns = region.left + _below(words[..., 2], region.width)
    values = random_words(own, most, _VALUES)
    shifted = tf.bitwise.right_shift(values, tf.constant(8, tf.uint32))
    keep, add = _shown(source, tf.cast(shifted, tf.float32) * 2.0**-24)
    rows, columns, there = (one[..., tf.newaxis] for one in (rows, columns, there))
    if source.shape == "cluster":
        offsets = tf.constant(spiral(max(source.sizes)))
        rows, columns = rows + offsets[:, 0], columns + offsets[:, 1]
        sizes = _sizes(source, words[..., 3])
        there &= tf.range(max(source.sizes)) < sizes[..., tf.newaxis]
        there &= (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    elif source.shape == "row":
        columns = tf.range(width)
    elif source.shape == "column":
        rows = tf.range(height)
    places = tf.where(there, rows * width + columns, -1)
    count = places.shape[-1]
    flat = [tf.shape(seeds)[0], most * count]
    return (
        tf.reshape(places, flat),
        *(tf.repeat(one, count, axis=1) for one in (keep, add)),
    )


def _shown(source: Source, shares: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What is kept of the light, and added to it."""
    if source.shows == "warm":
        low, high = source.offset or (0.0, 0.0)
        return tf.ones_like(shares), low + (high - low) * shares
    added = {"hot": tf.ones_like, "dead": tf.zeros_like, "stuck": tf.identity}[source.shows]
    return tf.zeros_like(shares), added(shares)


def _sizes(source: Source, words: tf.Tensor) -> tf.Tensor:
    ends = np.cumsum(source.shares) / np.sum(source.shares)
    uniform = (tf.cast(words, tf.float64) + 0.5) * 2.0**-32
    chosen = tf.reduce_sum(tf.cast(uniform[..., tf.newaxis] >= ends[:-1], tf.int32), axis=-1)
    return tf.gather(tf.constant(source.sizes, tf.int32), chosen)


def _below(words: tf.Tensor, size: int) -> tf.Tensor:
    """Whole numbers below `size`, all as likely but for size / 2**32."""
    scaled = tf.cast(words, tf.uint64) * tf.constant(size, tf.uint64)
    return tf.cast(tf.bitwise.right_shift(scaled, tf.constant(32, tf.uint64)), tf.int32)


def listed(sources: Sequence[Source], seeds: tf.Tensor, height: int, width: int) -> list[DefectMap]:
    """The maps of devices; arguments as of `drawn`."""
    places, keeps, adds = (one.numpy() for one in drawn(sources, seeds, height, width))
    return [_listed(*own, width) for own in zip(places, keeps, adds)]


def _listed(places: Any, keeps: Any, adds: Any, width: int) -> DefectMap:
    there = np.flatnonzero(places >= 0)
    _, first = np.unique(places[there], return_index=True)
    there = there[first]
    rows, columns = np.divmod(places[there], width)
    warm = keeps[there] == 1
    values = np.where(warm, np.nan, adds[there])
    return DefectMap(rows, columns, values=values, offsets=np.where(warm, adds[there], 0))


def painted(
    defects: tuple[tf.Tensor, tf.Tensor, tf.Tensor], window: Region, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """What becomes of the photosites of a window: `clip(light * keep + add, 0, 1)`.

    Args:
        defects: of `drawn`, for D devices.
        window: the rectangle.
        width: the columns of the sensor.

    Returns:
        keep and add, float32 [D, H, W].
    """
    places, keeps, adds = defects
    devices, count = tf.shape(places)[0], places.shape[1]
    size = window.height * window.width
    rows, columns = places // width - window.top, places % width - window.left
    inside = (places >= 0) & (rows >= 0) & (rows < window.height)
    inside &= (columns >= 0) & (columns < window.width)
    # Those outside go to one more photosite, which is left out.
    own = tf.where(inside, rows * window.width + columns, size)
    own += tf.range(devices)[:, tf.newaxis] * (size + 1)
    own = tf.reshape(own, [-1, 1])
    order = tf.tile(tf.range(count), [devices])
    first = tf.fill([devices * (size + 1)], count)
    first = tf.gather(tf.tensor_scatter_nd_min(first, own, order), own[:, 0])
    own = tf.where((order == first)[:, tf.newaxis], own, size)

    def shown(values: tf.Tensor, rest: float) -> tf.Tensor:
        light = tf.fill([devices * (size + 1)], rest)
        light = tf.tensor_scatter_nd_update(light, own, tf.reshape(values, [-1]))
        light = tf.reshape(light, [devices, size + 1])[:, :size]
        return tf.reshape(light, [devices, window.height, window.width])

    return shown(keeps, 1.0), shown(adds, 0.0)


def painted_map(defects: DefectMap, window: Region) -> tuple[Any, Any]:
    """The same for one device's map, float32 arrays [H, W]."""
    rows, columns = defects.rows - window.top, defects.columns - window.left
    inside = (rows >= 0) & (rows < window.height) & (columns >= 0) & (columns < window.width)
    own = DefectMap(
        rows[inside],
        columns[inside],
        values=defects.values[inside],
        offsets=defects.offsets[inside],
    )
    keep, add = own.tensors((window.height, window.width, 1))
    return keep[..., 0], add[..., 0]
