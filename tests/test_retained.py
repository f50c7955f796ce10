"""Training images that are computed once: the same bits, in as little memory as these allow."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from robust_tf.data import Split
from robust_tf.data.tensors import as_tensor, empty
from robust_tf.training.retained import retain

COUNT, SHAPE = 10, (3, 2, 1)
SIZE = COUNT * 3 * 2


def split(divisor=255) -> Split:
    values = np.random.default_rng(5).integers(0, 256, (COUNT, *SHAPE), np.uint8)
    return dataclasses.replace(Split.of_arrays(values, np.zeros(COUNT)), divisor=divisor)


def chunks(images: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(images.astype(np.float32)).batch(4)


def natural(own: Split) -> np.ndarray:
    return own.images_at(range(COUNT)).numpy()


def bits(images) -> list[int]:
    return np.asarray(images).view(np.int32).ravel().tolist()


@pytest.mark.parametrize("divisor", [255, 256])
def test_bytes_are_kept_as_bytes(divisor):
    own = split(divisor)
    images = natural(own)[::-1]
    assert retain(chunks(images), own, SIZE - 1) is None
    kept = retain(chunks(images), own, SIZE)
    assert bits(kept(tf.range(COUNT))) == bits(images)
    index = tf.data.Dataset.from_tensor_slices([[3, 9, 3], [0, 1, 2]]).map(kept)
    assert bits(np.concatenate(list(index))) == bits(images[[3, 9, 3, 0, 1, 2]])


@pytest.mark.parametrize("odd", [1e-9, -0.0, 0.5, 256 / 256])
@pytest.mark.parametrize("place", [0, COUNT - 1])
def test_a_single_value_that_is_no_byte_is_kept_to_the_bit(odd, place):
    own = split(256)
    images = natural(own)
    images[place, 1, 1, 0] = odd
    is_byte = odd == 0.5  # 128 / 256
    assert (retain(chunks(images), own, 4 * SIZE - 1) is not None) == is_byte
    kept = retain(chunks(images), own, 4 * SIZE)
    assert bits(kept(tf.range(COUNT))) == bits(images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("shape", [(0, 2), (1,), (7, 5, 3), (1000, 33)])
def test_a_tensor_is_its_array(dtype, shape):
    array = empty(shape, dtype)
    array[...] = np.random.default_rng(0).integers(0, 200, shape)
    expected, place = array.copy(), array.ctypes.data
    tensor = as_tensor(array)
    del array
    np.testing.assert_array_equal(tensor, expected, strict=True)
    assert (place % 64 == 0 or not expected.size) and "CPU" in tensor.device
    np.testing.assert_array_equal(tf.function(tf.identity)(tensor), expected)


def test_a_split_has_its_own_images():
    images = np.zeros((COUNT, *SHAPE), np.uint8)
    own = Split.of_arrays(images, np.zeros(COUNT))
    images[:] = 9
    assert not own.images.numpy().any()
