"""Colour filters and demosaicing, by definition and beside OpenCV's."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf.sensors import mosaics
from robust_tf.xla import by_rows

# The published kernels, in eighths for Malvar's; rows of the paper's figure 2.
CROSS = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
SQUARE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
)
IN_ROW = np.array(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
)
OTHER = np.array(
    [
        [0, 0, -1.5, 0, 0],
        [0, 2, 0, 2, 0],
        [-1.5, 0, 6, 0, -1.5],
        [0, 2, 0, 2, 0],
        [0, 0, -1.5, 0, 0],
    ]
)


def sites(filter, height, width, top=0, left=0):
    """The colours of photosites as letters, by looking each one up."""
    return np.array(
        [
            [filter[2 * ((r + top) % 2) + (c + left) % 2] for c in range(width)]
            for r in range(height)
        ]
    )


def convolved(values, kernel):
    return scipy.ndimage.convolve(values.astype(np.float64), kernel, mode="mirror")


def by_definition(values, letters, method):
    """One image [H, W], with SciPy."""
    masks = {colour: letters == colour for colour in "RGB"}
    if method == "bilinear":
        found = [convolved(values * masks[c], CROSS if c == "G" else SQUARE) for c in "RGB"]
        return np.clip(np.stack(found, axis=-1), 0, 1)
    green, row, column, other = (
        convolved(values, kernel / 8) for kernel in (GREEN, IN_ROW, IN_ROW.T, OTHER)
    )
    found = []
    for colour in "RGB":
        has_row = masks[colour].any(axis=1, keepdims=True)
        at_green = np.where(has_row, row, column)
        missing = green if colour == "G" else np.where(masks["G"], at_green, other)
        found.append(np.where(masks[colour], values, missing))
    return np.clip(np.stack(found, axis=-1), 0, 1)


@pytest.mark.parametrize("method", mosaics.METHODS)
@pytest.mark.parametrize("filter", mosaics.TILES)
def test_it_is_what_the_published_kernels_make(filter, method):
    images = np.random.default_rng(0).uniform(size=[2, 8, 10, 3]).astype(np.float32)
    for top, left in [(0, 0), (3, 1)]:
        letters = sites(filter, 8, 10, top, left)
        own = mosaics.colours(filter, 10, top, left)
        np.testing.assert_array_equal(np.array([*"RGB"])[own], letters[:2])
        values = mosaics.mosaic(tf.constant(images), own).numpy()
        expected = sum(images[..., i] * (letters == c) for i, c in enumerate("RGB"))
        np.testing.assert_array_equal(values, expected)
        found = mosaics.demosaic(tf.constant(values), own, method).numpy()
        for one, image in zip(values, found):
            np.testing.assert_allclose(image, by_definition(one, letters, method), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(mosaics.TILES),
    st.sampled_from(mosaics.METHODS),
    st.integers(2, 6),
    st.integers(2, 6),
    st.integers(0, 2**16),
)
def test_any_size_is_as_by_definition_and_grey_stays_grey(filter, method, half, other, seed):
    height, width = 2 * half, 2 * other
    own = mosaics.colours(filter, width)
    grey = tf.fill([1, height, width], 0.375)
    assert (mosaics.demosaic(grey, own, method).numpy() == 0.375).all()
    values = np.random.default_rng(seed).uniform(size=[1, height, width]).astype(np.float32)
    found = mosaics.demosaic(tf.constant(values), own, method).numpy()[0]
    expected = by_definition(values[0], sites(filter, height, width), method)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_hot_photosite_is_a_coloured_spot():
    values = np.zeros([1, 10, 10], np.float32)
    values[0, 4, 4] = 1  # red in RGGB
    red, green, blue = np.moveaxis(
        mosaics.demosaic(values, mosaics.colours("RGGB", 10)).numpy()[0], -1, 0
    )
    spot = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
    np.testing.assert_array_equal(red[3:6, 3:6], spot)
    assert red.sum() == 4 and not green.any() and not blue.any()
    values[0, 4, 4], values[0, 4, 5] = 0, 1  # green
    red, green, blue = np.moveaxis(
        mosaics.demosaic(values, mosaics.colours("RGGB", 10)).numpy()[0], -1, 0
    )
    np.testing.assert_array_equal(green[3:6, 4:7], [[0, 0.25, 0], [0.25, 1, 0.25], [0, 0.25, 0]])
    assert green.sum() == 2 and not red.any() and not blue.any()


def test_compiled_it_is_the_same_in_any_batch():
    own = mosaics.colours("GBRG", 8)
    values = np.random.default_rng(0).uniform(size=[5, 8, 8]).astype(np.float32)
    compiled = by_rows(lambda batch: mosaics.demosaic(batch[0], own, "malvar"))
    whole = compiled((values,)).numpy()
    np.testing.assert_array_equal(compiled((values[3:4],))[0], whole[3])
    np.testing.assert_allclose(whole, mosaics.demosaic(values, own, "malvar"), atol=1e-6)


@pytest.mark.parametrize("filter", mosaics.TILES)
def test_bilinear_is_opencvs(filter):
    cv2 = pytest.importorskip("cv2")
    # OpenCV names a filter by the second and third photosite of the second row.
    code = {"RGGB": "BG", "BGGR": "RG", "GRBG": "GB", "GBRG": "GR"}[filter]
    bytes_ = np.random.default_rng(0).integers(0, 64, [16, 18], np.uint8) * 4  # no half is rounded
    theirs = cv2.demosaicing(bytes_, getattr(cv2, f"COLOR_Bayer{code}2RGB"))
    values = (bytes_ / 255).astype(np.float32)[np.newaxis]
    ours = mosaics.demosaic(values, mosaics.colours(filter, 18)).numpy()[0] * 255
    # At the border OpenCV repeats what is inside.
    np.testing.assert_allclose(ours[1:-1, 1:-1], theirs[1:-1, 1:-1], atol=1e-3)
