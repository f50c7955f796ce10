"""The kinds beyond the paper's: defects, shot noise, motion, exposure, contrast, JPEG."""

import io

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines import shared_flags
from robust_tf import runs
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import KINDS, Mixture, Perturbation, all_kinds, mixtures, perturb
from tests.helpers import fake_data

MNIST = fake_data(1, 60_000, size=28, name="mnist")
PAPER = ("stuck", "dead", "hot", "noise", "blur")


def grey(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Values away from both ends, so that what is set to 0 or 1 can be told."""
    values = np.random.default_rng(0).uniform(0.1, 0.9, (count, *shape))
    return values.astype(np.float32)


def test_all_are_the_papers_kinds():
    assert all_kinds() == PAPER
    assert [kind for kind, _, _ in mixtures.parse("all", None).ranges] == list(PAPER)
    for asked, perturb_with in ((("all",), None), (("auto",), None), (("auto",), "all")):
        assert shared_flags.Tests(eval=asked).kinds(perturb_with) == PAPER


def test_others_go_by_their_names():
    assert shared_flags.Tests(eval=("all", "warm", "jpeg")).kinds(None) == (*PAPER, "warm", "jpeg")
    assert shared_flags.Tests(eval=("auto",)).kinds("row") == ("row", "column")
    assert shared_flags.Tests(eval=("auto",)).kinds("hot,warm") == ("stuck", "dead", "hot", "warm")
    run = runs.resolve(MNIST, strategy="constant", perturb="hot,warm,motion")
    assert run.label == "constant hot,warm,motion"
    every = Mixture(tuple((name, *kind.train_range) for name, kind in KINDS.items()))
    assert every.kind == ",".join(KINDS)  # which is more than all
    with pytest.raises(InvalidArgument, match="blur, warm, row, column, cluster, shot, .*jpeg"):
        mixtures.parse("hot,rain", None)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in PAPER])
def test_default_levels_are_in_bounds(name):
    kind = KINDS[name]
    for level in (kind.train_level, *kind.train_range, *kind.test_levels):
        Perturbation(name, level).check((28, 28, 1))


@pytest.mark.parametrize(
    ("kind", "level", "expected"),
    [
        ("warm", 0, r"a whole number from 1 .*\(number of pixels of warm\)"),
        ("row", 29, "a whole number from 1 to 28 "),
        ("column", 33, "a whole number from 1 to 32 "),
        ("cluster", 785, "a whole number from 1 to 784"),
        ("shot", 1.5, "a number from 0 to 1 "),
        ("motion", -1, "a number from 0 "),
        ("motion", 33, "a number from 0 to 32 "),
        ("exposure", -1.1, "a number from -1 to 1 "),
        ("contrast", -0.1, r"a number from 0 on \(factor of contrast\)"),
        ("contrast", float("inf"), "a number from 0 on"),
        ("jpeg", 0, "a whole number from 1 to 100 "),
        ("jpeg", 101, "a whole number from 1 to 100 "),
    ],
)
def test_levels_out_of_range(kind, level, expected):
    shape = (28, 28, 1) if kind != "motion" and kind != "column" else (28, 32, 1)
    with pytest.raises(InvalidArgument, match=f"^level=.*: expected {expected}") as caught:
        Perturbation(kind, level).check(shape)
    assert "\n" not in str(caught.value)


def test_warm_pixels_are_those_of_hot_and_brighter_by_what_stuck_draws():
    natural = grey(2000, (6, 5, 3))
    warm = perturb(natural, "warm", 4).numpy()
    changed = (perturb(natural, "hot", 4).numpy() != natural).any(axis=-1)
    np.testing.assert_array_equal((warm != natural).any(axis=-1), changed)
    offsets = perturb(tf.zeros(natural.shape), "stuck", 4).numpy()
    np.testing.assert_array_equal(warm, np.minimum(natural + offsets, 1))
    black = perturb(tf.zeros(natural.shape), "warm", 4).numpy()[changed]
    for channel in range(3):
        assert scipy.stats.kstest(black[:, channel], "uniform").pvalue > 1e-3


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["row", "column"]),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    data=st.data(),
)
def test_lines_are_as_many_as_asked_and_whole(kind, shape, data):
    across = 1 if kind == "row" else 0
    count = data.draw(st.integers(1, shape[1 - across]))
    natural = grey(5, shape)
    perturbed = perturb(natural, kind, count).numpy()
    hot = (perturbed == 1).all(axis=(1 + across, 3))
    np.testing.assert_array_equal(hot.sum(axis=1), count)
    kept = ~np.broadcast_to(np.expand_dims(hot, (1 + across, 3)), natural.shape)
    np.testing.assert_array_equal(perturbed[kept], natural[kept])


@pytest.mark.parametrize("kind", ["row", "column"])
def test_pairs_of_lines_are_equally_likely(kind):
    perturbed = perturb(tf.zeros([20_000, 5, 5, 1]), kind, 2).numpy()[..., 0]
    hot = perturbed.min(axis=2 if kind == "row" else 1)
    _, counts = np.unique(hot @ 2 ** np.arange(5), return_counts=True)
    assert len(counts) == 10
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_a_cluster_is_in_one_piece(shape, seed, data):
    pixels = data.draw(st.integers(1, shape[0] * shape[1]))
    natural = grey(20, shape)
    perturbed = perturb(natural, "cluster", pixels, seed=seed).numpy()
    hot = (perturbed == 1).all(axis=-1)
    np.testing.assert_array_equal(hot.sum(axis=(1, 2)), pixels)
    np.testing.assert_array_equal(perturbed[~hot], natural[~hot])
    for one in hot:
        assert scipy.ndimage.label(one)[1] == 1


def test_clusters_lie_anywhere_and_are_round():
    single = perturb(tf.zeros([20_000, 4, 3, 1]), "cluster", 1).numpy()
    assert scipy.stats.chisquare(single.sum(axis=(0, 3)).ravel()).pvalue > 1e-3
    pairs = perturb(tf.zeros([4000, 40, 40, 1]), "cluster", 2).numpy()[..., 0]
    upright = (pairs[:, 1:] * pairs[:, :-1]).any(axis=(1, 2)).sum()
    assert scipy.stats.binomtest(int(upright), 4000).pvalue > 1e-3
    rows, columns = np.mgrid[:41, :41]
    for one in perturb(tf.zeros([50, 41, 41, 1]), "cluster", 30).numpy()[..., 0]:
        inside = one == 1
        middle = rows[inside].mean(), columns[inside].mean()
        if not (inside[[0, -1]].any() or inside[:, [0, -1]].any()):
            radius = np.hypot(rows - middle[0], columns - middle[1])
            assert radius[inside].max() < (30 / np.pi) ** 0.5 + 1


@pytest.mark.parametrize("level", [0.02, 0.1, 0.5])
def test_shot_noise_is_poissons(level):
    natural = np.full((40, 28, 28, 1), 0.6, np.float32)
    electrons = perturb(natural, "shot", level).numpy() / level**2
    np.testing.assert_allclose(electrons, np.round(electrons), rtol=1e-5, atol=1e-5)
    white = 1 / level**2
    full = int(white + 1e-9)
    counts = np.bincount(np.minimum(np.round(electrons), full).astype(int).ravel())
    numbers = np.arange(len(counts) - 1)
    expected = scipy.stats.poisson.pmf(numbers, 0.6 * white)
    expected = np.append(expected, 1 - expected.sum()) * electrons.size  # and those clipped
    groups = np.cumsum(expected) // (electrons.size / 20)
    both = [np.bincount(groups.astype(int), one) for one in (counts, expected)]
    some = both[1] > 5
    found, wanted = both[0][some], both[1][some]
    assert scipy.stats.chisquare(found, wanted * found.sum() / wanted.sum()).pvalue > 1e-3
    black = perturb(np.zeros((1, 8, 8, 1), np.float32), "shot", level)
    assert not tf.reduce_any(black != 0)


def line_weights(angle: float, length: float, reach: int) -> np.ndarray:
    """Motion's kernel by definition: many points of the line, linearly interpolated."""
    along = length * ((np.arange(1000) + 0.5) / 1000 - 0.5)
    down, right = along * np.sin(angle), along * np.cos(angle)
    offsets = np.arange(-reach, reach + 1)
    hats = [np.maximum(0, 1 - abs(one[:, np.newaxis] - offsets)) for one in (down, right)]
    return hats[0].T @ hats[1] / 1000


def kernels(count: int, length: float, reach: int) -> np.ndarray:
    """What becomes of white points, by image."""
    points = np.zeros((count, 2 * reach + 1, 2 * reach + 1, 1), np.float32)
    points[:, reach, reach] = 1
    return perturb(points, "motion", length).numpy()[..., 0]


@pytest.mark.parametrize("length", [0.4, 3.0, 9.5])
def test_motion_smears_a_point_over_a_line(length):
    reach = int(np.ceil(length / 2)) + 1
    angles = np.pi * np.arange(4096) / 4096
    coarse = [line_weights(angle, length, reach) for angle in angles[::32]]
    for found in kernels(8, length, reach):
        assert found.sum() == pytest.approx(1, abs=1e-6)
        np.testing.assert_array_equal(found, found[::-1, ::-1])
        near = 32 * int(np.argmin([abs(found - one).max() for one in coarse]))
        close = [line_weights(angles[i % 4096], length, reach) for i in range(near - 32, near + 32)]
        assert min(abs(found - one).max() for one in close) < 0.003


@settings(max_examples=20, deadline=None)
@given(
    length=st.floats(0.0, 12.0),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3)),
)
def test_motion_is_scipys_convolution(length, shape):
    length = min(length, max(shape[:2]))
    natural = grey(3, shape)
    found = perturb(natural, "motion", length).numpy()
    weights = kernels(3, length, 8)
    for image, one, blurred in zip(natural, weights, found, strict=True):
        for channel in range(shape[2]):
            expected = scipy.ndimage.convolve(image[..., channel].astype(float), one)
            np.testing.assert_allclose(blurred[..., channel], expected, atol=1e-5)


def test_motion_has_all_directions():
    rows, columns = np.mgrid[-8:9, -8:9]
    found = kernels(2000, 12.0, 8)
    both = (found * rows * columns).sum(axis=(1, 2))
    wide = (found * (columns**2 - rows**2)).sum(axis=(1, 2))
    angles = np.arctan2(2 * both, wide) / (2 * np.pi) + 0.5
    assert scipy.stats.kstest(angles, "uniform").pvalue > 1e-3


def test_white_is_not_moved():
    white = np.ones((3, 9, 9, 1), np.float32)
    np.testing.assert_array_equal(perturb(white, "motion", 6.5), white)


@settings(max_examples=20, deadline=None)
@given(added=st.floats(-1, 1), factor=st.floats(0, 5), channels=st.integers(1, 3))
def test_exposure_and_contrast_by_definition(added, factor, channels):
    natural = np.random.default_rng(1).random((4, 6, 7, channels), np.float32)
    expected = np.clip(natural + np.float32(added), 0, 1)
    np.testing.assert_array_equal(perturb(natural, "exposure", added), expected)
    mean = natural.astype(float).mean(axis=(1, 2), keepdims=True)  # as ImageNet-C
    expected = np.clip((natural - mean) * factor + mean, 0, 1)
    np.testing.assert_allclose(perturb(natural, "contrast", factor), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "level"), [("shot", 0), ("motion", 0), ("exposure", 0), ("contrast", 1)]
)
def test_identities(kind, level):
    natural = np.random.default_rng(0).random((4, 8, 8, 3), np.float32) / 5
    np.testing.assert_array_equal(perturb(natural, kind, level), natural)
    same = tf.function(lambda value: Perturbation(kind, value)(natural, tf.zeros([4, 2], tf.int32)))
    np.testing.assert_array_equal(same(tf.constant(level, tf.float64)), natural)


@settings(max_examples=25, deadline=None)
@given(
    quality=st.integers(1, 100),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    seed=st.integers(0, 9),
)
def test_jpeg_is_pillows(quality, shape, seed):
    noisy = np.random.default_rng(seed).integers(0, 256, shape)
    natural = scipy.ndimage.uniform_filter(noisy, (3, 3, 0)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(natural.squeeze(-1) if shape[2] == 1 else natural).save(
        file, "JPEG", quality=quality
    )
    expected = np.asarray(Image.open(file)).reshape(shape)
    np.testing.assert_array_equal(perturb(natural, "jpeg", quality), expected)
    unit = perturb(natural / np.float32(255), "jpeg", quality)
    np.testing.assert_array_equal(unit, expected / np.float32(255))


def test_where_there_is_no_jpeg():
    with pytest.raises(InvalidArgument, match="^images=2 channels: expected one channel, or three"):
        perturb(grey(2, (8, 8, 2)), "jpeg", 50)
    compiled = tf.function(lambda images: Perturbation("jpeg", 50)(images), jit_compile=True)
    with pytest.raises(Exception, match="perturb=jpeg: expected another kind, or no jit_compile"):
        compiled(grey(2, (8, 8, 1)))
