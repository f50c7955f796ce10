"""Sensors: the defects of their devices, and single photosites up to the network."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import InBits
from robust_tf.seeds import fold_in, stream_seed
from robust_tf.sensors import (
    DefectMap,
    Defects,
    Growth,
    Input,
    Noise,
    Sensor,
    SensorDevice,
    Zone,
    scatter,
)


def seeds(count):
    return fold_in(stream_seed(0, "images"), np.arange(count))


LARGE = Sensor(height=500, width=800, kinds=(Defects(name="hot", expected=3),))


def test_numbers_of_defects_have_a_poisson_distribution_and_places_are_even():
    maps = LARGE.defects_of(0, range(3000))
    counts = np.bincount([len(one) for one in maps], minlength=12)
    expected = 3000 * scipy.stats.poisson(3).pmf(np.arange(len(counts)))
    expected[-1] += 3000 - expected.sum()
    many = [counts[9:].sum(), *counts[:9]], [expected[9:].sum(), *expected[:9]]
    assert scipy.stats.chisquare(*many).pvalue > 1e-4
    for places, size in (("rows", 500), ("columns", 800)):
        all_of_them = np.concatenate([getattr(one, places) for one in maps])
        assert scipy.stats.kstest((all_of_them + 0.5) / size, "uniform").pvalue > 1e-4


def test_a_device_is_the_same_everywhere():
    first, second = LARGE.defects(7, 0), LARGE.defects_of(7, [5, 0])[1]
    assert first.digest == second.digest != LARGE.defects(8, 0).digest
    # On every machine: these places were found once.
    assert list(zip(first.rows.tolist(), first.columns.tolist())) == [(42, 428)]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 50), st.floats(0, 10), st.floats(0, 10))
def test_a_device_keeps_its_defects_and_gets_more(device, one, other):
    # So small that defects meet.
    growth = Growth(law="linear", per_year=3.0, source="a test", shows="stuck")
    sensor = Sensor(height=8, width=9, kinds=LARGE.kinds, growth=growth)
    young, old = (sensor.defects(0, device, years) for years in sorted([one, other]))
    values = dict(zip(zip(old.rows.tolist(), old.columns.tolist()), old.values.tolist()))
    for row, column, value in zip(young.rows.tolist(), young.columns.tolist(), young.values):
        assert values[row, column] == value
    first = dataclasses.replace(sensor, growth=None).defects(0, device)
    assert sensor.defects(0, device).digest == first.digest


def test_they_grow_at_the_rate_of_the_law():
    power = Growth(
        law="power", source="a test", coefficient=0.5, pixel_um=10.0, pixel_exponent=-1.0,
        iso=400.0, iso_exponent=0.5,
    )  # fmt: skip
    # 0.5 / 10 * 20 for each mm² of 400,000 photosites of (0.01 mm)²
    assert power.rate(400_000) == pytest.approx(40)
    linear = Growth(law="linear", source="a test", per_year=5.0, per="megapixel")
    assert linear.rate(400_000) == pytest.approx(2)
    sensor = dataclasses.replace(LARGE, kinds=(), growth=linear)
    counts = [len(one) for one in sensor.defects_of(0, range(500), years=3)]
    assert np.mean(counts) == pytest.approx(6, abs=4 * math.sqrt(6 / 500))
    with pytest.raises(InvalidArgument, match="years=-1: expected a number from 0 to below"):
        sensor.defects(0, 0, years=-1)
    with pytest.raises(InvalidArgument, match="device=-1: expected a whole number from 0 to below"):
        sensor.defects(0, -1)
    with pytest.raises(InvalidArgument, match="years=1000000.0: expected defects of at most"):
        sensor.defects(0, 0, years=1e6)


def test_clusters_rows_columns_and_zones_have_their_shapes():
    assert scatter.spiral(9).tolist() == [
        [0, 0], [0, 1], [1, 1], [1, 0], [1, -1], [0, -1], [-1, -1], [-1, 0], [-1, 1],
    ]  # fmt: skip
    assert {tuple(one) for one in scatter.spiral()} == {
        (r, c) for r in range(-3, 4) for c in range(-3, 4)
    }
    zone = Zone(top=10, left=20, height=2, width=3, expected=4)
    of = {
        "cluster": dict(sizes=(4,), shows="stuck"),
        "row": dict(shows="warm", offset=0.25),
        "column": dict(shows="dead"),
        "hot": dict(zones=(zone,)),
    }
    maps = {
        name: Sensor(
            height=40, width=60,
            kinds=(Defects(name=name, expected=0 if name == "hot" else 0.7, **own),),
        ).defects_of(0, range(60))
        for name, own in of.items()
    }  # fmt: skip
    one = next(each for each in maps["cluster"] if len(each) == 4)
    top, left = one.rows.min(), one.columns.min()
    assert {*zip(one.rows - top, one.columns - left)} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert len({*one.values.tolist()}) == 1 and 0 < one.values[0] < 1
    one = next(each for each in maps["row"] if len(each))
    assert len(one) % 60 == 0 and (one.offsets == 0.25).all() and np.isnan(one.values).all()
    one = next(each for each in maps["column"] if len(each))
    assert len(one) % 40 == 0 and (one.values == 0).all()
    rows, columns = (
        np.concatenate([getattr(each, name) for each in maps["hot"]])
        for name in ("rows", "columns")
    )
    assert {*rows} == {10, 11} and {*columns} == {20, 21, 22}


def test_an_image_of_another_device_has_the_defects_of_that_device():
    sensor = Sensor(
        height=12, width=10,
        kinds=(
            Defects(name="hot", expected=5),
            Defects(name="dead", expected=5),
            Defects(name="warm", expected=5, offset=(0.2, 0.4)),
        ),
    )  # fmt: skip
    taken = SensorDevice(dataclasses.replace(sensor, input=Input(crop="none")))
    images = tf.fill([40, 12, 10, 1], 0.5)
    found = taken(images, seeds(40)).numpy()
    own = fold_in(seeds(40), tf.constant(2))
    for image, defects in zip(found, scatter.listed(sensor.sources(), own, 12, 10)):
        keep, add = defects.tensors((12, 10, 1))
        expected = np.round(np.clip(np.round(0.5 * 255) / 255 * keep + add, 0, 1) * 255) / 255
        np.testing.assert_allclose(image, expected, atol=1e-6)
    np.testing.assert_array_equal(taken(images[3:5], seeds(40)[3:5]), found[3:5])
    assert taken.random and math.isnan(taken.level)


SIZE = (960, 1280)
COLOUR = Sensor(height=960, width=1280, filter="RGGB", bits=12, input=Input(binning=2))


@pytest.fixture(scope="module")
def dark():
    """What a network sees of darkness, by the map of a device of the large sensor."""

    @tf.function(autograph=False)
    def see(taken):
        return taken(tf.zeros([1, 32, 32, 3]), tf.zeros([1, 2], tf.int32))

    return lambda *places: see(
        SensorDevice(COLOUR, 0, defects=DefectMap(*np.array(places).reshape(-1, 2).T, values=1.0))
    ).numpy()[0]


def test_a_single_photosite_reaches_the_network_with_its_weight(dark):
    # The window begins at column 160. Photosite (44, 44) of it is red, and in the binned image
    # in pixel (22, 22), which is the centre of pixel (1, 1) of 15 x 15 of these.
    image = dark((44, 160 + 44))
    half, quarter = 128 / 255, 64 / 255  # of eight bits
    binned = {(0, 0): 1 + 2 * half + quarter, (0, 1): half + quarter, (1, 1): quarter}
    weights = 15 / 225, 14 / 225  # of the triangle, at its centre and beside it
    expected = (
        weights[0] ** 2 * binned[0, 0]
        + 2 * weights[0] * weights[1] * binned[0, 1]
        + weights[1] ** 2 * binned[1, 1]
    ) / 4
    assert image[1, 1, 0] == pytest.approx(expected, rel=1e-5)
    assert image[..., 0].argmax() == 33 and not image[..., 1:].any()


def test_photosites_are_as_pillow_resizes_them_and_those_outside_are_not_seen(dark):
    assert not dark((44, 100), (959, 1279)).any()  # left and right of the window
    assert not dark((0, 1120), (500, 159)).any()
    for row, column, channel in [(1, 161, 2), (300, 701, 1), (959, 1119, 2)]:
        mosaic = np.zeros([960, 960], np.float32)
        mosaic[row, column - 160] = 1
        kernel = (
            [[0, 1, 0], [1, 4, 1], [0, 1, 0]] if channel == 1 else [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
        )
        spot = scipy.ndimage.convolve(mosaic, np.array(kernel) / 4, mode="mirror")
        spot = np.round(np.clip(spot, 0, 1) * 255) / 255
        binned = spot.reshape(480, 2, 480, 2).mean(axis=(1, 3)).astype(np.float32)
        resized = Image.fromarray(binned).resize((32, 32), Image.Resampling.BILINEAR)
        image = dark((row, column))
        np.testing.assert_allclose(image[..., channel], np.asarray(resized), atol=1e-7)
        assert not np.delete(image, channel, axis=-1).any()


def test_a_scene_is_enlarged_and_comes_back():
    sensor = Sensor(height=64, width=64, bits=12)
    image = np.random.default_rng(0).uniform(size=[2, 16, 16, 1]).astype(np.float32)
    found = SensorDevice(sensor, 0)(image, seeds(2)).numpy()
    for own, one in zip(image[..., 0], found[..., 0]):
        large = np.asarray(Image.fromarray(own).resize((64, 64), Image.Resampling.BILINEAR))
        read = np.round(np.round(large * 4095) / 4095 * 255) / 255
        small = Image.fromarray(read.astype(np.float32)).resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(one, np.asarray(small), atol=5e-4)  # one step in eight bits
    plain = SensorDevice(Sensor(height=16, width=16), 0)
    bytes_ = np.round(image * 255).astype(np.float32) / 255
    np.testing.assert_array_equal(plain(bytes_, seeds(2)), bytes_)
    assert not plain.random


def test_images_need_the_colours_of_the_sensor_and_devices_their_place():
    with pytest.raises(
        InvalidArgument, match="sensor=sensor, filter=RGGB: expected filter=mono for"
    ):
        SensorDevice(COLOUR)(tf.zeros([1, 28, 28, 1]), seeds(1))
    with pytest.raises(InvalidArgument, match="filter=mono: expected filter=RGGB, BGGR"):
        SensorDevice(LARGE).check((32, 32, 3))
    with pytest.raises(InvalidArgument, match="expected a position on the sensor"):
        SensorDevice(COLOUR, 0, defects=DefectMap([960], [0], values=1.0))
    with pytest.raises(InvalidArgument, match="device"):
        SensorDevice(COLOUR, -1)
    assert SensorDevice(LARGE, 3).kind == f"{LARGE.kind} device 3"
    assert SensorDevice(LARGE, 3, years=2).kind == f"{LARGE.kind} device 3 2 years"
    assert SensorDevice(LARGE, 3) == SensorDevice(LARGE, 3) != SensorDevice(LARGE, 3, seed=1)


def test_one_trace_serves_all_devices_also_in_bits():
    sensor = Sensor(height=8, width=8, kinds=(Defects(name="hot", expected=9),))
    traces = []

    @tf.function(autograph=False)
    def see(condition):
        traces.append(condition)
        return condition(tf.zeros([1, 8, 8, 1]), tf.zeros([1, 2], tf.int32))

    for device in range(3):
        one = SensorDevice(sensor, device)
        keep, add = sensor.defects(0, device).tensors((8, 8, 1))
        np.testing.assert_array_equal(see(one)[0], add)
        np.testing.assert_array_equal(see(InBits(one, 8))[0], add)
    assert len(traces) == 2


def test_the_same_bits_compiled_by_the_caller_and_before():
    sensor = Sensor(
        height=32,
        width=32,
        filter="GBRG",
        bits=12,
        noise=Noise(K=0.4, full_well=9000, sigma_d=4),
        kinds=(Defects(name="hot", expected=2),),
        input=Input(binning=2, demosaic="malvar"),
    )
    taken = SensorDevice(sensor)
    images = tf.random.stateless_uniform([3, 8, 8, 3], [1, 2])
    before = taken(images, seeds(3))
    compiled = tf.function(lambda x, s: taken(x, s), jit_compile=True)
    assert compiled(images[:0], seeds(3)[:0]).shape == (0, 8, 8, 3)
    np.testing.assert_array_equal(compiled(images, seeds(3)), before)
    np.testing.assert_array_equal(taken(images, seeds(3)), before)


@pytest.mark.parametrize("size", [8, 16])  # as they are, and resized
def test_no_image_gives_none(size):
    taken = SensorDevice(Sensor(height=8, width=8, filter="RGGB", bits=12))
    images = tf.TensorSpec([None, size, size, 3], tf.float32)
    in_graph = tf.function(
        lambda x, s: taken(x, s), input_signature=[images, tf.TensorSpec([None, 2], tf.int32)]
    )
    none = tf.zeros([0, size, size, 3]), tf.zeros([0, 2], tf.int32)
    assert in_graph(*none).shape == tf.function(taken)(*none).shape == (0, size, size, 3)
