"""`perturb` as a library: what users bring, and what it costs them."""

import collections
import warnings

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from robust_tf import xla
from robust_tf.errors import InvalidArgument
from robust_tf.perturbations import Perturbation, gaussian_blur, perturb

CASES = [("hot", 3), ("stuck", 3), ("noise", 0.05), ("blur", 0.75), ("blur", 1.3)]
# Beyond the paper's.
OURS = [("warm", 3), ("row", 2), ("column", 2), ("cluster", 3), ("motion", 3.0)]
OURS += [("shot", 0.1), ("exposure", 0.3), ("contrast", 0.5)]
FEW = [("stuck", 3), ("noise", 0.05), ("blur", 0.75)]
RANGES = [(0, 255), (-1, 1), (-127.5, 127.5), (-2.1179, 2.64), (0, 0.001)]
# Most tests share this shape, which XLA compiles for once.
SHAPE = (4, 8, 9, 3)


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def floats(*shape: int) -> np.ndarray:
    return integers(*shape) / np.float32(255)


def sized(images: list[np.ndarray]) -> tf.data.Dataset:
    """A dataset that does not say how large they are."""
    spec = tf.TensorSpec([None, None, images[0].shape[-1]], images[0].dtype)
    return tf.data.Dataset.from_generator(lambda: iter(images), output_signature=spec)


@pytest.mark.parametrize(
    ("kind", "level", "low_high"),
    [(*case, low_high) for case, low_high in zip(CASES, RANGES, strict=True)],
)
def test_a_value_range_is_that_of_the_result(kind, level, low_high):
    low, high = low_high
    unit = floats(*SHAPE)
    scaled = unit * np.float32(high - low) + np.float32(low)
    perturbed = perturb(scaled, kind, level, value_range=low_high).numpy()
    expected = perturb(unit, kind, level).numpy() * (high - low) + low
    np.testing.assert_allclose(perturbed, expected, atol=2e-6 * (high - low))
    assert perturbed.min() >= low and perturbed.max() <= high
    if kind in ("hot", "stuck"):
        same = (perturbed == scaled).all(axis=-1).sum(axis=(1, 2))
        assert (same >= 8 * 9 - level).all()  # all others keep their bits


@pytest.mark.parametrize(("kind", "level"), FEW)
def test_uint8_stays_uint8_and_is_rounded(kind, level):
    natural = integers(*SHAPE)
    expected = np.round(perturb(natural / np.float32(255), kind, level).numpy() * 255)
    perturbed = perturb(natural, kind, level)
    assert perturbed.dtype == tf.uint8
    np.testing.assert_array_equal(perturbed, expected)
    dataset = tf.data.Dataset.from_tensor_slices((natural, np.arange(4)))
    for i, (image, label) in enumerate(perturb(dataset, kind, level)):
        assert image.dtype == tf.uint8 and label == i
        np.testing.assert_array_equal(image, expected[i])
    one = tf.function(lambda image: perturb(image, kind, level, index=2))(natural[2])
    np.testing.assert_array_equal(one, expected[2])


@pytest.mark.parametrize(
    ("kind", "level", "low_high", "compiled"),
    [
        ("noise", 0.05, (-1, 1), None),
        ("blur", 0.75, (-2.1179, 2.64), True),
        ("blur", 1.3, (0, 0.001), True),
        ("hot", 3, (0, 255), None),
    ],
)
def test_a_value_range_in_a_graph_rounds_at_most_otherwise(kind, level, low_high, compiled):
    low, high = low_high
    scaled = floats(*SHAPE) * np.float32(high - low) + np.float32(low)

    def apply(images):
        return perturb(images, kind, level, index=tf.range(4), value_range=low_high)

    found = tf.function(apply, jit_compile=compiled)(scaled)
    np.testing.assert_allclose(found, apply(scaled), rtol=0, atol=5e-7 * (high - low))


def with_nan(images: np.ndarray) -> np.ndarray:
    images.flat[5] = np.nan
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (floats(9, 28, 28, 1) * 255, r"from 0 to 255: .* from 0 to 1; .*value_range=\(0, 255\)"),
        (floats(9, 28, 28, 1) * 2 - 1, r"from -1 to 1: .*value_range=\(-1, 1\)"),
        (floats(9, 28, 28, 3) * 7 - 3, r"from -3 to 4: .*value_range=\(…, …\)"),
        (with_nan(floats(2, 8, 8, 1)), "images=1 values that are NaN: expected numbers"),
        (np.full((8, 8, 1), np.inf, np.float32), "images=values from inf to inf"),
    ],
)
def test_values_out_of_range_are_refused(images, message):
    for kind, level in CASES:
        with pytest.raises(InvalidArgument, match=message) as caught:
            perturb(images, kind, level)
        assert "\n" not in str(caught.value)
    if images.ndim == 4:
        with pytest.raises(InvalidArgument, match=message):
            Perturbation("blur", 1)(images)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_values_out_of_range_are_refused_in_a_dataset(batch_size):
    images = floats(*SHAPE) * np.float32(255)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.batch(batch_size) if batch_size else dataset
    with pytest.raises(tf.errors.InvalidArgumentError, match="images: expected values from 0 to 1"):
        list(perturb(dataset, "hot", 3))


def test_each_value_is_checked_in_a_graph():
    @tf.function
    def hot(images):
        return perturb(images, "hot", 3, index=tf.range(4))

    for bad in (np.nan, 255, 1.001, -1, -0.001, np.inf, -np.inf):
        for place in ((0, 0, 0, 0), (3, 7, 8, 2), (1, 2, 5, 1)):
            images = floats(*SHAPE)
            images[place] = bad
            with pytest.raises(tf.errors.InvalidArgumentError, match="images: expected values"):
                hot(images)
    letterbox = floats(*SHAPE) * 255
    letterbox[:, 3:6] = 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="images: expected values"):
        hot(letterbox)
    assert hot(floats(*SHAPE) * np.float32(1.000001)).shape == SHAPE
    nothing = tf.function(lambda x: perturb(x, "blur", 0.75))(tf.zeros([0, 8, 9, 3]))
    assert nothing.shape == (0, 8, 9, 3)


@pytest.mark.parametrize(
    "bad",
    [
        *((1, 0), (0, 0), (0, float("inf")), 255, "ab", (0, 1, 2), "01", ("0", "1"), b"01"),
        *((0, 1e39), (-3e38, 3e38), (0, 1e-42), (2**24, 2**24 + 1), (False, True), ()),
    ],
)
def test_a_value_range_is_two_numbers(bad):
    for inputs in (floats(8, 9, 3), tf.data.Dataset.from_tensors(floats(8, 9, 3))):
        with pytest.raises(InvalidArgument, match="^value_range.*: expected two numbers"):
            perturb(inputs, "hot", 3, value_range=bad)


@pytest.mark.parametrize("bad", [(-1, 1), (0, 300), (0, 1.5), (0, 256), (0.5, 255), (255, 0)])
def test_a_value_range_of_uint8_is_within_it(bad):
    for inputs in (integers(8, 9, 3), tf.data.Dataset.from_tensors(integers(8, 9, 3))):
        with pytest.raises(InvalidArgument, match="^value_range=.*whole ones from 0 to 255"):
            perturb(inputs, "hot", 3, value_range=bad)


def test_a_narrow_value_range_of_uint8_has_its_own_ends():
    natural = integers(*SHAPE) // 16 + 16  # as video has: from 16
    hot, dead = (perturb(natural, kind, 3, value_range=(16, 235)) for kind in ("hot", "dead"))
    for perturbed, end in ((hot, 235), (dead, 16)):
        changed = (perturbed.numpy() != natural).any(axis=-1)
        assert changed.any() and (perturbed.numpy()[changed] == end).all()


@pytest.mark.parametrize(("kind", "level"), CASES)
def test_images_without_channels_are_refused(kind, level):
    with pytest.raises(InvalidArgument, match=r"^images=\(8, 9, 0\): expected at least one"):
        perturb(tf.zeros([8, 9, 0]), kind, level)


def test_rounding_beyond_the_range_is_none_of_the_callers():
    images = floats(*SHAPE) * np.float32(1.000001)
    assert images.max() > 1
    assert perturb(images, "noise", 0.1).shape == images.shape


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0.5, 1.7], "index=float32: expected whole numbers from 0 on"),
        (np.array([0.0, 1.0]), "index=float64: expected whole numbers"),
        ([True, False], "index=bool: expected whole numbers"),
        (["a", "b"], "index=string: expected whole numbers"),
        ([-1, 3], "index=-1: expected whole numbers from 0 on"),
        ([1, 2, 3], r"index=\(3,\): expected one for each of 2 images"),
        (4, r"index=\(\): expected one for each of 2 images"),
        ([2**70, 0], "index=.*: expected whole numbers from 0 on"),
    ],
)
def test_indices_are_whole_numbers_one_for_each_image(index, message):
    with pytest.raises(InvalidArgument, match=message):
        perturb(floats(2, 8, 8, 1), "noise", 0.1, index=index)


def test_epochs_and_indices_of_one_image_are_whole_numbers():
    image = floats(8, 8, 1)
    with pytest.raises(InvalidArgument, match="^epoch=float32: expected whole numbers"):
        perturb(image, "hot", 1, epoch=0.5)
    with pytest.raises(InvalidArgument, match="^epoch=-2: expected whole numbers"):
        perturb(image, "hot", 1, epoch=-2)
    with pytest.raises(InvalidArgument, match=r"^index=\(1,\): expected one number"):
        perturb(image, "hot", 1, index=[3])
    with pytest.raises(InvalidArgument, match="^index=…: expected none for a dataset"):
        perturb(tf.data.Dataset.from_tensors(image), "hot", 1, index=[3])


def test_an_image_in_a_map_says_which_it_is():
    images = floats(*SHAPE)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    maps = (
        dataset.map,
        lambda f: tf.vectorized_map(f, images),
        lambda f: tf.function(lambda: tf.map_fn(f, images))(),
    )
    for (kind, level), traced in zip(CASES[:3], maps, strict=True):
        # TensorFlow adds lines about the caller's code, and makes another type of it.
        with pytest.raises(Exception, match=r"index: expected .*enumerate\(\) .*perturb\("):
            traced(lambda image, kind=kind, level=level: perturb(image, kind, level))


@pytest.mark.parametrize(("kind", "level"), [CASES[0], CASES[2]])
def test_an_image_that_says_which_it_is_in_a_map(kind, level):
    images = tf.constant(floats(*SHAPE))

    def one(pair):
        return perturb(pair[0], kind, level, index=pair[1])

    expected = perturb(images, kind, level).numpy()
    pairs = tf.data.Dataset.from_tensor_slices((images, tf.range(4)))
    mapped = pairs.map(lambda image, i: perturb(image, kind, level, index=i))
    np.testing.assert_array_equal(np.stack(list(mapped)), expected)
    eager = tf.map_fn(one, (images, tf.range(4)), fn_output_signature=tf.float32)
    np.testing.assert_array_equal(eager, expected)


def test_a_value_in_an_eager_map():
    images = floats(*SHAPE)
    for kind, level in CASES[3:]:
        value = Perturbation(kind, level)
        mapped = tf.map_fn(lambda image, value=value: value(image[tf.newaxis])[0], images)
        np.testing.assert_array_equal(mapped, value(images))


def test_a_batch_in_a_map_warns_unless_it_says_which():
    dataset = tf.data.Dataset.from_tensor_slices(floats(*SHAPE)).batch(2)
    with pytest.warns(UserWarning, match="^index: every batch has the same draws"):
        dataset.map(lambda images: perturb(images, "hot", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.map(lambda images: perturb(images, "blur", 1))
        dataset.map(lambda images: perturb(images, "hot", 1, index=tf.range(2)))
        perturb(dataset, "hot", 1)


def test_axes_that_look_wrong_are_named():
    for shape in ((8, 32, 32), (4, 3, 32, 32), (100, 28, 28)):
        with pytest.warns(UserWarning, match=r"channels are odd; is the shape \[H, W, C\]"):
            perturb(floats(*shape), "hot", 1)


@pytest.mark.parametrize(("kind", "level"), [*CASES[1:], *OURS, ("jpeg", 50)])
def test_images_of_any_size_in_a_dataset(kind, level):
    images = [floats(8, 9, 3), floats(4, 70, 3)]
    expected = [perturb(x, kind, level, index=i).numpy() for i, x in enumerate(images)]
    for found, wanted in zip(perturb(sized(images), kind, level), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("kind", "level"), [("stuck", 65), ("blur", 9), ("row", 9)])
def test_a_level_too_high_for_an_image_of_a_dataset(kind, level):
    with pytest.raises(tf.errors.InvalidArgumentError, match="level: .*expected at most"):
        list(perturb(sized([floats(8, 8, 1)]), kind, level))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"img": floats(2, 8, 8, 1)}, "images=NoneType: expected float32 or uint8"),
        (floats(2, 8, 8, 1).astype(np.float64), r"images=float64 \(8, 8, 1\)"),
        (floats(2, 8), r"images=float32 \(8,\)"),
    ],
)
def test_datasets_of_another_form_are_refused(dataset, message):
    with pytest.raises(InvalidArgument, match=message):
        perturb(tf.data.Dataset.from_tensor_slices(dataset), "hot", 1)


def test_a_dataset_of_unknown_rank_is_refused():
    dataset = tf.data.Dataset.from_generator(lambda: iter([]), output_types=tf.float32)
    with pytest.raises(InvalidArgument, match=r"<unknown>: expected .*tf.ensure_shape"):
        perturb(dataset, "hot", 1)


def test_a_dataset_of_named_tuples_keeps_them():
    pair = collections.namedtuple("Pair", "picture name")
    dataset = tf.data.Dataset.from_tensor_slices(pair(floats(3, 8, 8, 1), np.arange(3)))
    found = next(iter(perturb(dataset, "hot", 1)))
    assert type(found).__name__ == "Pair" and found.name == 0


@pytest.fixture
def nothing_compiled(monkeypatch):
    """No shape of whole images is compiled for."""
    monkeypatch.setattr(xla, "_SHAPES", 0)
    monkeypatch.setattr(xla, "_compiled_shapes", set())


@pytest.mark.parametrize(
    ("kind", "level", "shape"),
    [
        ("noise", 0.05, (28, 28, 1)),
        ("noise", 0.05, (5, 61, 2)),
        ("blur", 0.75, (32, 32, 3)),
        ("blur", 1.1, (5, 61, 2)),
    ],
)
def test_rows_have_the_bits_of_whole_images(kind, level, shape, nothing_compiled):
    natural = floats(5, *shape)
    index = tf.range(5)
    whole = tf.function(lambda x: perturb(x, kind, level, index=index))(natural)
    np.testing.assert_array_equal(perturb(natural, kind, level), whole)


def test_few_sizes_are_compiled(monkeypatch):
    monkeypatch.setattr(xla, "_compiled_shapes", set())
    for side in range(60):
        shape = tf.TensorSpec([1, 10 + side, 12, 1])
        with tf.init_scope():
            xla.worth_compiling(tf.zeros(shape.shape))
    assert len(xla._compiled_shapes) == xla._SHAPES
    assert not xla.worth_compiling(tf.zeros([1, 200, 300, 3]))
    assert xla.worth_compiling(tf.zeros([1, 10, 12, 1]))


def test_few_batch_sizes_and_levels_are_compiled(monkeypatch):
    monkeypatch.setattr(xla, "_compiled_rows", set())
    monkeypatch.setattr(xla, "_ROW_SHAPES", 3)
    traces = []

    @xla.by_rows
    def rows(batch, columns):
        traces.append((batch[0].shape[0], columns.shape[0]))
        return batch[0][:, tf.newaxis] * columns

    for size in (0, 1, 3, 4, 5, 9, 17, 64, 65, 100, 129, 1000):
        for level in (1, 2, 4):
            values = np.arange(size)
            found = rows((values,), tf.range(level, dtype=tf.int64))
            np.testing.assert_array_equal(found, values[:, np.newaxis] * np.arange(level))
    assert {size for size, _ in traces} == {4, 64} and len(traces) <= 6 + xla._ROW_SHAPES


def test_pixels_in_slabs_have_the_same_bits(monkeypatch):
    images = floats(7, 8, 9, 3)
    expected = perturb(images, "stuck", 3).numpy()
    for name, value in {"_compiled_rows": set(), "_ROW_SHAPES": 0, "_SLAB": 4}.items():
        monkeypatch.setattr(xla, name, value)
    np.testing.assert_array_equal(perturb(images, "stuck", 3), expected)


@pytest.mark.parametrize("channel_blur", [False, True])
@pytest.mark.parametrize(
    ("shape", "sigma"),
    [((2, 70, 90, 3), 1.3), ((1, 65, 3, 2), 9.0), ((1, 2, 300, 1), 3.5), ((1, 66, 20, 3), 66.0)],
)
def test_a_wide_blur_of_a_large_image_is_scipys(shape, sigma, channel_blur):
    natural = floats(*shape)
    axes = (0, sigma, sigma, sigma if channel_blur else 0)
    expected = scipy.ndimage.gaussian_filter(
        natural.astype(float), axes, mode="reflect", truncate=4.0
    )
    blurred = perturb(natural, "blur", sigma, channel_blur=channel_blur)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize("sigma", [1.2, 1.5, 5.0, 28.0])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_tiles_have_the_bits_of_whole_matrices(sigma, shape):
    images = tf.constant(floats(3, *shape))
    np.testing.assert_array_equal(
        gaussian_blur._blur_by_tiles(images, sigma, False),
        gaussian_blur._blur_by_matrices(images, sigma, False),
    )


@pytest.mark.parametrize(
    ("kind", "level", "shape"),
    [
        *((*case, SHAPE[1:]) for case in [*CASES[1:], *OURS]),
        *(("noise", 0.05, (66, 6, 3)), ("blur", 1.3, (66, 6, 3))),
    ],
)
def test_inside_a_function_that_the_caller_compiles(kind, level, shape):
    natural = tf.constant(floats(4, *shape))
    expected = perturb(natural, kind, level).numpy()

    @tf.function(jit_compile=True)
    def both(images, index):
        constant = perturb(natural, kind, level)
        return constant, perturb(images * 1.0, kind, level, index=index)

    constant, argument = both(natural, tf.range(4))
    np.testing.assert_array_equal(constant, expected)
    np.testing.assert_array_equal(argument, expected)


@pytest.mark.parametrize(
    ("sigma", "channel_blur"), [(0.75, False), (1.5, False), (2, True), (5.0, False)]
)
def test_a_blur_is_differentiated_in_a_function_that_the_caller_compiles(sigma, channel_blur):
    natural = tf.constant(floats(*SHAPE))

    def gradient(images):
        blurred = perturb(images, "blur", sigma, channel_blur=channel_blur)
        return tf.gradients(blurred**2, images)[0]

    compiled = tf.function(gradient, jit_compile=True)(natural)
    # A blur is its own adjoint, borders included, where it does not clip.
    axes = (0, sigma, sigma, sigma if channel_blur else 0)
    twice = natural.numpy().astype(float)
    for _ in range(2):
        twice = scipy.ndimage.gaussian_filter(twice, axes, mode="reflect", truncate=4.0)
    np.testing.assert_allclose(compiled, 2 * twice, atol=1e-5)


@pytest.mark.parametrize(("kind", "level"), [CASES[0], *CASES[2:4]])
def test_vectorized_map_rounds_at_most_otherwise(kind, level):
    natural = tf.constant(floats(*SHAPE))
    mapped = tf.vectorized_map(
        lambda pair: perturb(pair[0], kind, level, index=pair[1]), (natural, tf.range(4))
    )
    exact = kind in ("hot", "stuck")
    np.testing.assert_allclose(
        mapped, perturb(natural, kind, level), rtol=0, atol=0 if exact else 5e-7
    )
