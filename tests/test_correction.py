"""Corrections beside SciPy's filters, beside a plain loop, and as layers inside a SavedModel."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import saved_models
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.models.correction import ListCorrection, MedianFilter, OutlierCorrection
from robust_tf.results.labelling import training_of
from robust_tf.saved_models import classifiers, conversion
from robust_tf.saved_models.targets import targets
from robust_tf.sensors import HOW, correction
from robust_tf.sensors.correction import GoodNeighbours

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 3]))
# Everything but the pixel itself.
AROUND = np.ones((3, 3), bool)
AROUND[1, 1] = False


def images_of(seed: int, shape: tuple[int, ...], count: int = 3) -> np.ndarray:
    """Images with ties, as of 8 levels of grey."""
    values = np.random.default_rng(seed).integers(0, 8, (count, *shape)) / 7
    return values.astype(np.float32)


def per_channel(images: np.ndarray, function) -> np.ndarray:
    filtered = np.empty_like(images)
    for image, channel in np.ndindex(len(images), images.shape[-1]):
        filtered[image, ..., channel] = function(images[image, ..., channel])
    return filtered


def median_around(plane: np.ndarray) -> np.ndarray:
    return scipy.ndimage.generic_filter(plane, np.median, footprint=AROUND, mode="reflect")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), SHAPES)
def test_the_median_is_that_of_scipy(seed, shape):
    images = images_of(seed, shape)
    found = correction.median(images).numpy()
    expected = per_channel(
        images, lambda plane: scipy.ndimage.median_filter(plane, size=3, mode="reflect")
    )
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), SHAPES, st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0]))
def test_an_outlier_gets_the_median_of_those_around_it(seed, shape, threshold):
    images = images_of(seed, shape)
    around = per_channel(images, median_around)
    # In float32, as everything else: a difference may be the threshold itself.
    far = np.abs(images - around) > np.float32(threshold)
    found = correction.outlier(images, threshold).numpy()
    np.testing.assert_array_equal(found, np.where(far, around, images))


def by_a_loop(image: np.ndarray, mask: np.ndarray, how: str) -> np.ndarray:
    """Grows a window in the mirrored image, value by value."""
    corrected = image.copy()
    reach = 2 * max(image.shape)
    edges = [(reach, reach), (reach, reach), (0, 0)]
    around, bad = np.pad(image, edges, "symmetric"), np.pad(mask, edges, "symmetric")
    for row, column, channel in zip(*np.nonzero(mask)):
        for radius in range(1, reach):
            rows = slice(reach + row - radius, reach + row + radius + 1)
            columns = slice(reach + column - radius, reach + column + radius + 1)
            good = around[rows, columns, channel][~bad[rows, columns, channel]]
            if len(good):
                corrected[row, column, channel] = getattr(np, how)(good.astype(np.float64))
                break
    return corrected


def test_rows_beside_each_other_take_no_more_room_than_their_neighbours():
    """Each value has the good ones of one or two rows, from 3 to 2·(2·10 + 1) of them."""
    mask = np.zeros((32, 32, 3), bool)
    mask[4:24] = True
    mask[28, 5] = True
    good = GoodNeighbours.of(mask)
    counts = np.concatenate([own[(table < mask.size).any(1)] for own, table in _tables(good)])
    distances = np.minimum(np.arange(1, 21), np.arange(20, 0, -1))
    expected = np.repeat(2 * distances + 1, 32 * 3)
    assert sorted(counts) == sorted([*expected, *[8] * 3])
    for own, table in _tables(good):  # no more than half of a table is left empty
        assert table.shape[1] == 8 or table.shape[1] < 2 * own.max()
    images = images_of(5, mask.shape, 2)
    found = correction.by_list(images, good)
    np.testing.assert_allclose(
        found, [by_a_loop(image, mask, "median") for image in images], atol=1e-6
    )


def _tables(good: GoodNeighbours):
    return zip(good.counts, good.sources)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=SHAPES,
    share=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    how=st.sampled_from(HOW),
)
def test_a_list_is_corrected_as_by_a_loop(seed, shape, share, how):
    rng = np.random.default_rng(seed)
    images, mask = images_of(seed, shape), rng.random(shape) < share
    mask[rng.integers(shape[0]), rng.integers(shape[1])] = False
    found = correction.by_list(images, GoodNeighbours.of(mask), how).numpy()
    expected = np.stack([by_a_loop(image, mask, how) for image in images])
    np.testing.assert_array_equal(found[:, ~mask], images[:, ~mask])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_cluster_is_corrected_from_around_it():
    image = np.full((1, 7, 7, 1), 0.25, np.float32)
    mask = np.zeros((7, 7, 1), bool)
    mask[2:5, 2:5] = True
    image[0, 2:5, 2:5] = 1.0
    image[0, 1, 1] = 0.75  # one of the 16 around the 8 around the middle
    mean = correction.by_list(image, GoodNeighbours.of(mask), "mean").numpy()[0, ..., 0]
    assert mean[3, 3] == pytest.approx((15 * 0.25 + 0.75) / 16)
    assert mean[2, 2] == pytest.approx((4 * 0.25 + 0.75) / 5)
    median = correction.by_list(image, GoodNeighbours.of(mask)).numpy()[0, ..., 0]
    assert median[3, 3] == median[2, 2] == 0.25


def test_no_correction_changes_flat_images():
    images = np.full((2, 5, 6, 3), 0.7, np.float32)
    mask = np.random.default_rng(0).random((5, 6, 3)) < 0.4
    np.testing.assert_array_equal(correction.median(images), images)
    np.testing.assert_array_equal(correction.outlier(images, 0.0), images)
    np.testing.assert_array_equal(correction.by_list(images, GoodNeighbours.of(mask)), images)


@pytest.mark.parametrize("name", ["median", "outlier"])
def test_images_of_any_size_have_one_graph(name):
    op = getattr(correction, name)
    graph = tf.function(op, input_signature=[tf.TensorSpec([None] * 4)], autograph=False)
    for shape in ((4, 9, 3), (6, 1, 1)):
        images = images_of(1, shape)
        np.testing.assert_array_equal(graph(images), op(images))


def test_lists_of_similar_lengths_have_one_graph():
    """As a fleet needs, whose devices have different numbers of defects."""
    traced = []

    @tf.function(autograph=False)
    def corrected(images, tables):
        traced.append(1)
        return correction.by_list(images, GoodNeighbours(*tables))

    images = images_of(3, (8, 8, 1))
    for count in (5, 6, 7, 8):
        mask = np.zeros((8, 8, 1), bool)
        mask.ravel()[9 * np.arange(count)] = True
        good = GoodNeighbours.of(mask)
        tables = (good.sources, good.counts, good.places)
        tables = tf.nest.map_structure(tf.constant, tables)
        np.testing.assert_array_equal(corrected(images, tables), correction.by_list(images, good))
    assert len(traced) == 1


def test_what_cannot_be_corrected():
    mask = np.zeros((3, 3, 3), bool)
    mask[..., 1] = True
    with pytest.raises(InvalidArgument, match="a good pixel in each channel"):
        GoodNeighbours.of(mask)
    good = GoodNeighbours.of(np.zeros((3, 3, 1), bool))
    with pytest.raises(InvalidArgument, match="how=mode: expected median or mean"):
        correction.by_list(np.zeros((1, 3, 3, 1)), good, "mode")


def test_an_export_has_corrections_inside(exported, trained, sample, tmp_path):
    """A correction by list first, then one without a list before it."""
    listed, far = ListCorrection([[3, 4, -1], [0, 0, 0]], "mean"), OutlierCorrection(0.35)
    first = saved_models.export_corrected(exported, tmp_path / "listed", listed)
    folder = saved_models.export_corrected(first, tmp_path / "both", far)
    images = np.array(sample.test.images_at(tf.range(40)))
    images[:, 3, 4] = images[:, 0, 0] = images[:, 9, 9] = 1.0
    corrected = listed(far(images))
    assert not np.array_equal(corrected, images)
    expected = keras.ops.softmax(trained(corrected, training=False))
    signatures = tf.saved_model.load(folder).signatures
    assert set(signatures) == {"serving_default", "encoded", "features"}
    files = [tf.io.encode_png(np.round(255 * image).astype(np.uint8)) for image in images]
    for name, asked in (("serving_default", images), ("encoded", files)):
        answers = signatures[name](images=tf.stack(asked))
        np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    features = keras.Model(trained.input, trained.get_layer("logits").input)(corrected)
    answers = signatures["features"](images=tf.stack(images))
    np.testing.assert_allclose(answers["features"], features, atol=1e-4)
    (litert,) = targets(["litert"], ["none"])
    conversion.convert(classifiers.load(folder), tmp_path / "both.tflite", litert, (28, 28, 1))
    answers = classifiers.load(tmp_path / "both.tflite")(tf.constant(images))
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    # Loaded again it is a model like any other.
    np.testing.assert_allclose(
        keras.ops.softmax(saved_models.load(folder)(images)), expected, atol=1e-5
    )
    classifier = classifiers.load(folder)
    assert classifier.metadata["training"]["correction"] == f"{far}, {listed}"
    assert training_of(classifier) == "natural + outlier 0.35, mean list of 2"
    example = (folder / saved_models.EXAMPLE).read_bytes()
    assert example == (exported / saved_models.EXAMPLE).read_bytes()
    # The same again is there already.
    same = saved_models.export_corrected(first, tmp_path / "both", OutlierCorrection(0.35))
    assert same == folder and saved_models.versions(tmp_path / "both") == [1]
    # But not below a later one of another kind, which would be taken for it.
    other, again = (
        saved_models.export_corrected(first, tmp_path / "both", OutlierCorrection(threshold))
        for threshold in (0.36, 0.35)
    )
    assert (other.name, again.name) == ("2", "3")


def test_a_file_of_keras_gets_a_correction(tmp_path):
    def network():
        images = keras.Input([6, 6, 1])
        x = keras.layers.Flatten()(images)
        return keras.Model(images, keras.layers.Dense(3, "softmax")(x))

    model = network()
    model.save(tmp_path / "own.keras")
    names = ("a", "b", "c")
    for some in (None, names[:2]):
        with pytest.raises(InvalidArgument, match="expected the names of 3 classes"):
            saved_models.export_corrected(
                tmp_path / "own.keras", tmp_path / "new", MedianFilter(), label_names=some
            )
    given = {"label_names": names, "value_range": (0, 255)}
    places = tmp_path / "own.keras", tmp_path / "new"
    folder = saved_models.export_corrected(*places, MedianFilter(), **given)
    images = images_of(0, (6, 6, 1))
    np.testing.assert_allclose(
        classifiers.load(folder)(images), model(255 * correction.median(images)), atol=1e-5
    )
    assert training_of(classifiers.load(folder)) == "external + median"
    # The same is there already, unless it is damaged.
    assert saved_models.export_corrected(*places, MedianFilter(), **given) == folder
    (folder / "saved_model.pb").write_bytes(b"")
    again = saved_models.export_corrected(*places, MedianFilter(), **given)
    assert again.name == "2"
    classifiers.load(again)


def test_what_cannot_be_exported_with_a_correction(exported, tmp_path):
    with pytest.raises(InvalidArgument, match="defects=28,0,-1: expected row, column and channel"):
        saved_models.export_corrected(exported, tmp_path / "new", ListCorrection([[28, 0, -1]]))
    with pytest.raises(InvalidArgument, match="threshold=1.5: expected a number from 0 to 1"):
        OutlierCorrection(1.5)
    with pytest.raises(InvalidArgument, match="how=mode: expected median or mean"):
        ListCorrection([[0, 0, 0]], "mode")
    (tmp_path / "odd.keras").write_text("no model")
    with pytest.raises(Unavailable, match="odd.keras: expected a .keras file"):
        saved_models.export_corrected(tmp_path / "odd.keras", tmp_path / "new", MedianFilter())
    assert [path.name for path in tmp_path.iterdir()] == ["odd.keras"]
