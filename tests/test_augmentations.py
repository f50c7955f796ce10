import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import example_seeds
from robust_tf.seeds import stream_seed
from robust_tf.training import augmentations
from robust_tf.training.augmentations import augment

BASE = stream_seed(3, "augmentation")


def seeds_of(count: int, first: int = 0) -> tf.Tensor:
    return example_seeds(BASE, tf.range(first, first + count), None)


def possible(image: np.ndarray, names) -> dict[bytes, tuple[bool, int, int]]:
    """All that NumPy can make of an image, and how."""
    height, width, _ = image.shape
    down, right = (height // 8, width // 8) if "shift" in names else (0, 0)
    found = {}
    for flip in (False, True) if "flip" in names else (False,):
        mirrored = image[:, ::-1] if flip else image
        padded = np.pad(mirrored, ((down, down), (right, right), (0, 0)), mode="reflect")
        for i in range(2 * down + 1):
            for j in range(2 * right + 1):
                part = padded[i : i + height, j : j + width]
                found[part.tobytes()] = (flip, i - down, j - right)
    return found


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 26),
    st.sampled_from([1, 3]),
    st.sampled_from([("flip",), ("shift",), ("flip", "shift")]),
)
def test_each_image_is_one_that_numpy_can_make(height, width, channels, names):
    images = np.random.default_rng(0).random((6, height, width, channels), np.float32)
    changed = augment(tf.constant(images), seeds_of(6), names).numpy()
    for image, result in zip(images, changed):
        assert result.tobytes() in possible(image, names)


def test_flips_and_shifts_are_all_as_likely():
    names, count = ("flip", "shift"), 20_000
    image = np.random.default_rng(1).random((16, 17, 1), np.float32)
    table = possible(image, names)
    changed = augment(tf.constant(np.tile(image, (count, 1, 1, 1))), seeds_of(count), names)
    ways = [table[result.tobytes()] for result in changed.numpy()]
    counts = [ways.count(way) for way in table.values()]
    assert len(counts) == 2 * 5 * 5
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_an_image_is_changed_the_same_in_every_batch():
    images = tf.random.stateless_uniform([9, 12, 10, 3], [1, 2])
    whole = augment(images, seeds_of(9), ("flip", "shift"))
    for i in range(9):
        alone = augment(images[i : i + 1], seeds_of(1, first=i), ("flip", "shift"))
        np.testing.assert_array_equal(alone[0], whole[i])


def test_names():
    assert augmentations.parse("none") == ()
    assert augmentations.parse("flip,shift") == ("flip", "shift")
    for text in ("", "turn", "flip,flip", "none,flip"):
        with pytest.raises(InvalidArgument, match="none, or some of flip, shift"):
            augmentations.parse(text)
