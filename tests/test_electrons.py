"""Poisson numbers and EMVA 1288's noise, against SciPy and the linear model."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import seeds as seeds_lib
from robust_tf import sensors
from robust_tf.perturbations import photons
from robust_tf.sensors import electrons


def seeds(count, stream="photons"):
    return seeds_lib.fold_in(seeds_lib.stream_seed(0, stream), np.arange(count))


@pytest.mark.parametrize("mean", [0.1, 1.0, 5.0, 11.9, 12.0, 20.0, 100.0, 1000.0, 10_000.0])
def test_numbers_have_the_poisson_distribution(mean):
    drawn = photons.poisson(tf.fill([500, 1000], mean), seeds(500)).numpy().ravel()
    assert (drawn == np.round(drawn)).all() and (drawn >= 0).all()
    exact = scipy.stats.poisson(mean)
    low, high = int(exact.ppf(1e-4)), int(exact.isf(1e-4))
    inner = np.arange(low + 1, high)
    found = np.bincount(np.clip(drawn.astype(int), low, high) - low, minlength=high - low + 1)
    expected = np.array([exact.cdf(low), *exact.pmf(inner), exact.sf(high - 1)]) * drawn.size
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-4


def test_no_photons_come_of_none_and_neighbours_are_independent():
    assert not photons.poisson(tf.zeros([3, 5, 7, 1]), seeds(3)).numpy().any()
    drawn = photons.poisson(tf.fill([400, 400], 30.0), seeds(400)).numpy()
    for one, other in ((drawn[:, 1:], drawn[:, :-1]), (drawn[1:], drawn[:-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)


def test_quantiles_are_those_of_scipy():
    words = np.array([0, 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    words = np.append(words, np.random.default_rng(0).integers(0, 2**32, 5000, np.uint32))
    exact = scipy.stats.norm.ppf((words + 0.5) / 2**32)
    np.testing.assert_allclose(photons.quantiles(tf.constant(words)), exact, rtol=5e-4, atol=2e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8))
def test_an_images_numbers_are_the_same_in_any_batch(batch):
    means = np.random.default_rng(1).uniform(0, 40, [batch, 5, 3]).astype(np.float32)
    whole = photons.poisson(means, seeds(batch)).numpy()
    for i in {0, batch - 1}:
        np.testing.assert_array_equal(
            photons.poisson(means[i : i + 1], seeds(batch)[i : i + 1])[0], whole[i]
        )


def test_words_are_those_of_the_seeds_and_large_images_as_small_ones():
    for count in (7, 1030):
        np.testing.assert_array_equal(
            photons.random_words(seeds(3), count, 2), seeds_lib.random_bits(seeds(3), count, 2)
        )
    means = np.random.default_rng(0).uniform(0, 40, [2, 150, 150, 1]).astype(np.float32)
    rows = photons.poisson(means, seeds(2)).numpy()  # in rows: too many values to compile for
    np.testing.assert_array_equal(photons.poisson(means[:, :20], seeds(2)), rows[:, :20])
    compiled = tf.function(photons.poisson, jit_compile=True)(tf.constant(means), seeds(2))
    assert np.mean(compiled.numpy() != rows) < 1e-4


def taken(light, noise, bits=12, count=1000, pattern=None):
    """What `count` photosites read of so much light, in digital numbers less the black level."""
    words = photons.random_words(seeds(2, f"temporal {light}"), count)
    if pattern is None:
        pattern = tf.stack([tf.ones([count]), tf.zeros([count])])
    read = electrons.digitised(tf.fill([count], light), words, pattern, noise, bits)
    return read.numpy() * noise.K * noise.at_white(bits)


NOISE = sensors.Noise(
    K=0.4, full_well=9000, sigma_d=6, dark_current=40, exposure=0.25, black_level=32, white=8000
)


def test_photon_transfer_is_that_of_the_linear_model():
    dark = 40 * 0.25  # electrons
    for light in (0.01, 0.2, 0.9):
        read = taken(light, NOISE, count=200_000)
        mean = 0.4 * (8000 * light + dark)
        # EMVA 1288: dark noise and quantisation, K times what the light adds, and dark current
        variance = 0.4**2 * 6**2 + 1 / 12 + 0.4 * mean
        assert read.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / 200_000))
        assert read.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / 200_000))


def test_numbers_end_at_the_full_well_and_at_the_bits():
    bright = dataclasses.replace(NOISE, sigma_d=0.0, full_well=8000.0)
    top = np.unique(taken(1.0, dataclasses.replace(bright, dark_current=10_000.0)))
    assert top == pytest.approx([0.4 * 8000])  # all of them full
    assert dataclasses.replace(bright, white=None).at_white(12) == 8000
    assert dataclasses.replace(bright, white=None).at_white(10) == (1023 - 32) / 0.4
    eight = taken(1.0, bright, bits=8)
    assert np.unique(eight) == pytest.approx([255 - 32])
    levels = taken(0.5, bright, bits=12)
    np.testing.assert_allclose(levels, np.round(levels), atol=2e-3)
    # Less than nothing is read as 0: the black level keeps the noise of darkness.
    low = taken(0.0, dataclasses.replace(NOISE, black_level=0.0, dark_current=0.0))
    assert (low >= 0).all() and np.mean(low == 0) > 0.4


def test_fixed_patterns_deviate_by_dsnu_and_prnu():
    noise = dataclasses.replace(NOISE, DSNU_1288=3.0, PRNU_1288=1.5)
    gain, dark = electrons.pattern(noise, photons.random_words(seeds(2), 100_000)).numpy()
    assert gain.mean() == pytest.approx(1, abs=3e-4) and dark.mean() == pytest.approx(0, abs=0.05)
    assert gain.std() == pytest.approx(0.015, rel=0.02) and dark.std() == pytest.approx(3, rel=0.02)
    assert abs(np.corrcoef(gain, dark)[0, 1]) < 0.02


def test_a_device_has_one_pattern_and_each_image_noise_of_its_own():
    noise = dataclasses.replace(NOISE, DSNU_1288=150.0, PRNU_1288=2.0, sigma_d=1.0)
    kinds = (sensors.Defects(name="hot", expected=4), sensors.Defects(name="dead", expected=4))
    sensor = sensors.Sensor(height=16, width=16, bits=12, noise=noise, kinds=kinds)
    found, good = {}, True
    for device in (0, 1):
        of = sensors.SensorDevice(sensor, device)
        for light in (0.25, 0.75):
            images = of(tf.fill([200, 16, 16, 1], light), seeds(200)).numpy()[..., 0]
            keep, add, words = (one.numpy() for one in of.tensors)
            good &= keep == 1  # of both devices
            assert (images[:, keep == 0] == add[keep == 0]).all()  # whatever the noise is
            assert images[:, keep == 1].std(axis=0).min() > 0
            found[device, light] = images.mean(axis=0) * 8000
        own = electrons.pattern(noise, tf.unstack(tf.constant(words))).numpy()
        expected = (own[1] + 8000 * 0.75 * own[0] + 10)[keep == 1]
        # In 8 bits, of 31 electrons each.
        np.testing.assert_allclose(found[device, 0.75][keep == 1], expected, atol=40)
    assert 220 < good.sum() < 256 and found[0, 0.25][good].std() == pytest.approx(155, rel=0.2)
    assert abs(np.corrcoef(found[0, 0.25][good], found[1, 0.25][good])[0, 1]) < 0.3
    # Each image from another device: the pattern is another, and the mean has none.
    sensor = dataclasses.replace(sensor, kinds=())
    images = sensors.SensorDevice(sensor)(tf.fill([200, 16, 16, 1], 0.25), seeds(200)).numpy()
    assert images.mean(axis=0).std() * 8000 == pytest.approx(150 / np.sqrt(200), rel=0.3)


def test_an_image_is_taken_the_same_in_any_batch_and_graph():
    noise = dataclasses.replace(NOISE, DSNU_1288=20.0, PRNU_1288=2.0)
    kinds = (sensors.Defects(name="hot", expected=3),)
    sensor = sensors.Sensor(height=12, width=16, filter="GBRG", bits=12, noise=noise, kinds=kinds)
    sensor = dataclasses.replace(sensor, input=sensors.Input(crop="none"))
    images = np.random.default_rng(0).uniform(size=[7, 12, 16, 3]).astype(np.float32)
    taken = sensors.SensorDevice(sensor)
    whole = taken(images, seeds(7)).numpy()
    graph = tf.function(
        lambda images, seeds: taken(images, seeds),
        input_signature=[tf.TensorSpec([None, 12, 16, 3]), tf.TensorSpec([None, 2], tf.int32)],
        autograph=False,
    )
    for part in (slice(0, 3), slice(3, 7), slice(None)):
        np.testing.assert_array_equal(graph(images[part], seeds(7)[part]), whole[part])
