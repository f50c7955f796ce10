"""Training images that stay the same in all epochs: computed once, and kept in memory."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from robust_tf.data import Split
from robust_tf.data.tensors import as_tensor, empty


def retain(
    images: tf.data.Dataset, split: Split, most: float
) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Computes images of a split and keeps them, as bytes where these give the same bits.

    Hot pixels are such bytes, noise is not. They take a quarter of the memory, and again where
    tf.data copies what a pipeline refers to.

    Args:
        images: what is made of all images of the split, in order, in chunks: float32 tensors
            [B, H, W, C], values in [0, 1]. Iterated twice where they are no bytes.
        split: the split.
        most: how many bytes they may take.

    Returns:
        A function as `Split.images_at` that gives these images; None where they take too much.
    """

    def packed(chunk: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stored = tf.cast(tf.round(chunk * split.divisor), tf.uint8)
        # As integers: 0 and -0 are equal, and other bits.
        same = tf.bitcast(split.values_of(stored), tf.int32) == tf.bitcast(chunk, tf.int32)
        return stored, tf.reduce_all(same)

    size = len(split) * math.prod(split.image_shape)
    if size > most:
        return None
    # In a graph of tf.data, as those that read the bytes.
    as_bytes = images.map(tf.autograph.experimental.do_not_convert(packed))
    stored = empty((len(split), *split.image_shape), np.uint8)
    done = 0
    for chunk, same in as_bytes:
        if not same:
            break
        stored[done : done + len(chunk)] = chunk
        done += len(chunk)
    else:
        return split.with_images(as_tensor(stored)).images_at
    if 4 * size > most:
        return None
    del stored
    values = empty((len(split), *split.image_shape), np.float32)
    done = 0
    for chunk in images:
        values[done : done + len(chunk)] = chunk
        done += len(chunk)
    kept = as_tensor(values)
    return lambda index: tf.gather(kept, index)
