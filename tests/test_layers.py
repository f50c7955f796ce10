"""The Keras layers: the bits of `perturb`, the levels drawn, and what Keras does with layers."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import robust_tf as rt
from robust_tf.errors import InvalidArgument
from robust_tf.layers import (
    Compose,
    DeadPixels,
    GaussianBlur,
    HotPixels,
    OneOf,
    SensorNoise,
    StuckPixels,
)
from robust_tf.perturbations import KINDS, Perturbation
from tests.helpers import ROOT

# A layer, the kind that it is, a level and a range of levels.
LAYERS = [
    (HotPixels, "hot", 3, (1, 10)),
    (DeadPixels, "dead", 5, (2, 4)),
    (StuckPixels, "stuck", 4, (1, 3)),
    (SensorNoise, "noise", 0.05, (0.01, 0.2)),
    (GaussianBlur, "blur", 0.75, (0.1, 1.5)),
]
each = pytest.mark.parametrize(("layer", "kind", "level", "levels"), LAYERS)
VARIED = OneOf([HotPixels((1, 3)), SensorNoise(0.1), GaussianBlur((0.3, 1))], seed=2)


def photos(count=6, shape=(8, 9, 3), seed=0) -> np.ndarray:
    """Random bytes, with black and white among them."""
    values = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    values[:, 0, 0], values[:, 1, 1] = 0, 255
    return values


@each
@pytest.mark.parametrize("call", [0, 1, 4])
def test_a_call_has_the_bits_of_perturb(layer, kind, level, levels, call):
    images = photos().astype("float32")
    one = layer(level, seed=7)
    for _ in range(call + 1):
        perturbed = one(images)
    expected = rt.perturb(images, kind, level, seed=7, epoch=call, value_range=(0, 255))
    np.testing.assert_array_equal(perturbed, expected)
    assert (perturbed.numpy() != images).any()


@each
def test_bytes_are_rounded_as_perturb_does(layer, kind, level, levels):
    images = photos()
    perturbed = layer(level, seed=1, dtype="uint8")(images)
    assert perturbed.dtype == tf.uint8
    np.testing.assert_array_equal(perturbed, rt.perturb(images, kind, level, seed=1, epoch=0))
    # By default bytes become floats, as in Keras's own layers.
    assert layer(level)(images).dtype == tf.float32


@each
@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1)])
def test_other_ranges(layer, kind, level, levels, value_range):
    low, high = value_range
    images = (photos() / 255 * (high - low) + low).astype("float32")
    perturbed = layer(level, value_range, seed=3)(images)
    expected = rt.perturb(images, kind, level, seed=3, epoch=0, value_range=value_range)
    np.testing.assert_array_equal(perturbed, expected)


@each
def test_each_image_has_a_level_of_its_own(layer, kind, level, levels):
    images = photos(12).astype("float32") / 255
    one = layer(levels, (0, 1), seed=5)
    drawn = one.get_random_transformation(images)
    perturbed = one.transform_images(tf.constant(images), drawn)
    assert len(set(drawn["levels"].numpy())) > 2
    for place, own in enumerate(drawn["levels"].numpy()):
        alone = Perturbation(kind, own.item())(images[place, None], drawn["seeds"][place, None])
        np.testing.assert_array_equal(perturbed[place], alone[0])


@each
def test_levels_are_uniform_over_the_range(layer, kind, level, levels):
    images = np.zeros([4000, 1, 1, 1])
    drawn = layer(levels, seed=11).get_random_transformation(images)["levels"].numpy()
    low, high = levels
    if KINDS[kind].whole:
        counts = np.bincount(drawn, minlength=high + 1)[low:]
        expected = len(drawn) / (high - low + 1)
        assert counts.sum() == len(drawn) and len(counts) == high - low + 1
        # Five standard deviations of a count.
        assert np.abs(counts - expected).max() < 5 * expected**0.5
    else:
        assert low <= drawn.min() and drawn.max() <= high
        quarters, _ = np.histogram(drawn, 4, (low, high))
        assert np.abs(quarters - 1000).max() < 5 * 1000**0.5


def test_one_of_draws_all_layers_alike_and_each_image_has_one():
    images = np.full([3000, 4, 4, 1], 127, np.float32)
    layer = OneOf([HotPixels(1), DeadPixels(2), StuckPixels(3, dtype="uint8")], seed=1)
    changed = (layer(images).numpy() != images).reshape(len(images), -1).sum(axis=1)
    counts = np.bincount(changed, minlength=4)
    # A stuck pixel may take the value that it had.
    assert counts[0] == 0 and np.abs(counts[1:] - 1000).max() < 5 * (3000 * 2 / 9) ** 0.5


def test_one_of_gives_what_the_drawn_layers_give():
    images = photos(20).astype("float32")
    drawn = VARIED.get_random_transformation(images, seed=4)
    perturbed = VARIED.transform_images(tf.constant(images), drawn)
    assert set(drawn["choice"].numpy()) == {0, 1, 2}
    for place, choice in enumerate(drawn["choice"].numpy()):
        own = tf.nest.map_structure(lambda x, i=place: x[i, None], drawn["layers"][choice])
        alone = VARIED.layers[choice].transform_images(tf.constant(images[place, None]), own)
        np.testing.assert_array_equal(perturbed[place], alone[0])


@pytest.mark.parametrize("count", [0, 1])
def test_layers_that_no_image_has_drawn(count):
    ranges = [(layer, levels) for layer, _, _, levels in LAYERS]
    layer = OneOf([one(levels) for one, levels in ranges] + [HotPixels(1)], seed=3)
    images = photos(count).astype("float32")
    in_graph = tf.function(lambda x: layer(x, training=True), autograph=False)
    for call in (layer, in_graph):
        for _ in range(8):
            perturbed = call(images).numpy()
            assert perturbed.shape == images.shape and (perturbed != images).any() == count
    for one, levels in ranges:
        assert one(levels)(images).shape == images.shape


def test_a_choice_within_a_choice_is_drawn_anew():
    images = np.full([2000, 2, 2, 1], 127, np.float32)
    inner = OneOf([HotPixels(1), HotPixels(2)])
    changed = OneOf([inner, HotPixels(3)], seed=3)(images).numpy() != images
    counts = np.bincount(changed.reshape(len(images), -1).sum(axis=1), minlength=4)[1:]
    assert np.abs(counts - [500, 500, 1000]).max() < 5 * 500**0.5


def test_compose_calls_its_layers_in_turn():
    images = np.full([5, 6, 6, 1], 100, np.float32)
    layer = Compose([HotPixels(4), DeadPixels(3)], seed=9)
    perturbed = layer(images).numpy()
    assert ((perturbed == 0).sum(axis=(1, 2, 3)) == 3).all()  # after the hot ones
    drawn = layer.get_random_transformation(images, seed=9)["layers"]
    step = Perturbation("hot", 4)(images / 255, drawn[0]["seeds"])
    step = Perturbation("dead", 3)(step, drawn[1]["seeds"])
    again = layer.transform_images(tf.constant(images), {"layers": drawn})
    np.testing.assert_allclose(again / 255, step, atol=1e-7)


@each
def test_channels_first_is_channels_last_transposed(layer, kind, level, levels):
    images = photos().astype("float32")
    for given in (level, levels):
        last = layer(given, seed=2)(images)
        first = layer(given, data_format="channels_first", seed=2)(images.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(np.transpose(first, (0, 2, 3, 1)), last)


@each
def test_an_image_alone_is_the_first_of_a_batch(layer, kind, level, levels):
    images = photos().astype("float32")
    for given in (level, levels):
        alone, batch = layer(given, seed=2)(images[0]), layer(given, seed=2)(images)
        np.testing.assert_array_equal(alone, batch[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "float64", "int32"])
@pytest.mark.parametrize("shared", [HotPixels(2), SensorNoise(0.1), VARIED], ids=str)
def test_other_dtypes(dtype, shared):
    layer = type(shared).from_config({**shared.get_config(), "dtype": dtype, "seed": 1})
    images = photos()
    perturbed = layer(images)
    assert perturbed.dtype == layer.compute_dtype
    values = tf.cast(perturbed, tf.float32).numpy()
    expected = type(shared).from_config({**shared.get_config(), "seed": 1})(images).numpy()
    np.testing.assert_allclose(values, expected, atol=1.0 if "b" in dtype else 0.5)
    assert values.min() >= 0 and values.max() <= 255


def test_the_users_policy_and_data_format_are_followed():
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = HotPixels(2)
        wrapped = OneOf([layer])
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_dtype_policy("float32")
    assert layer.data_format == wrapped.data_format == "channels_first"
    assert wrapped(np.zeros([1, 3, 8, 8], np.uint8)).dtype == tf.float16


@pytest.mark.parametrize("layer", [HotPixels(2), StuckPixels((1, 2)), VARIED], ids=str)
def test_outside_training_images_stay_as_they_are(layer):
    images = photos().astype("float32")
    np.testing.assert_array_equal(layer(images, training=False), images)
    model = keras.Sequential([keras.Input(images.shape[1:]), layer])
    np.testing.assert_array_equal(model.predict(images, verbose=0), images)
    assert (model(images, training=True).numpy() != images).any()


def test_labels_boxes_and_masks_stay_as_they_are():
    data = {
        "images": photos().astype("float32"),
        "labels": np.arange(6),
        "segmentation_masks": photos(shape=(8, 9, 1)),
        "bounding_boxes": {"boxes": np.ones([6, 1, 4]), "labels": np.zeros([6, 1])},
    }
    layer = HotPixels(2, seed=1, bounding_box_format="xyxy")
    found = layer({name: value for name, value in data.items()})
    np.testing.assert_array_equal(found["images"], HotPixels(2, seed=1)(data["images"]))
    np.testing.assert_array_equal(found["labels"], data["labels"])
    np.testing.assert_array_equal(found["segmentation_masks"], data["segmentation_masks"])
    np.testing.assert_array_equal(found["bounding_boxes"]["boxes"], np.ones([6, 1, 4]))


@pytest.mark.parametrize(
    "layer",
    [
        HotPixels((1, 4), (0, 1), seed=1),
        StuckPixels(2, data_format="channels_first"),
        SensorNoise(0.05, dtype="float16", seed=3, name="noise"),
        GaussianBlur((0.2, 0.8), (-1, 1)),
        Compose([VARIED, DeadPixels(1)], seed=4),
    ],
    ids=str,
)
def test_a_model_is_saved_and_loaded(layer, tmp_path):
    shape = (3, 8, 8) if layer.data_format == "channels_first" else (8, 8, 3)
    images = np.random.default_rng(0).uniform(0, 1, [4, *shape]).astype("float32")
    model = keras.Sequential([keras.Input(shape), layer, keras.layers.Flatten()])
    model(images, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert _without_shapes(loaded.layers[0].get_config()) == _without_shapes(layer.get_config())
    if layer.seed is not None:  # calls are counted anew, as in Keras's own layers
        again = type(layer).from_config(layer.get_config())(images)
        found = keras.Sequential(loaded.layers[:1])(images, training=True)
        np.testing.assert_array_equal(found, again)


def _without_shapes(config):
    """A configuration without what Keras notes of the images that layers were built for."""
    if isinstance(config, dict):
        return {key: _without_shapes(one) for key, one in config.items() if key != "build_config"}
    return [_without_shapes(one) for one in config] if isinstance(config, list) else config


def test_a_saved_model_has_the_layer(tmp_path):
    layer = StuckPixels((1, 3))
    images = photos(shape=(8, 8, 1)).astype("float32")
    model = keras.Sequential([keras.Input((8, 8, 1)), layer])
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, training in (("serve", False), ("perturb", True)):
        signature = [tf.TensorSpec([None, 8, 8, 1])]
        archive.add_endpoint(name, lambda x, t=training: model(x, training=t), signature)
    archive.write_out(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.serve(images), images)
    calls = [loaded.perturb(images).numpy() for _ in range(2)]
    assert (calls[0] != images).any() and (calls[0] != calls[1]).any()


def test_without_training_given_it_is_as_keras_has_it():
    images = photos().astype("float32")
    changed = []
    for layer in (keras.layers.RandomBrightness((0.5, 0.6)), SensorNoise(0.1)):
        model = keras.Sequential([keras.Input(images.shape[1:]), layer])
        given = [{}, {"training": True}, {"training": False}]
        found = [call(images, **how) for call in (layer, model) for how in given]
        found += [model.predict(images, verbose=0)]
        changed.append([bool((np.asarray(one) != images).any()) for one in found])
    assert changed[0] == changed[1] == [True, True, False, True, True, False, False]


def test_fit_draws_anew_in_each_epoch():
    seen = []

    @keras.saving.register_keras_serializable("test_layers")
    class Record(keras.layers.Layer):
        def call(self, images):
            tf.py_function(lambda x: seen.append(x.numpy()), [images], [])
            return images

    images = np.zeros([8, 4, 4, 1], np.uint8)
    layer = HotPixels(2, seed=6)
    model = keras.Sequential([layer, Record(), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(images, np.zeros(8), batch_size=4, epochs=3, shuffle=False, verbose=0)
    batches = np.stack(seen[-6:])
    assert ((batches > 0).sum(axis=(2, 3, 4)) == 2).all()
    assert len({batch.tobytes() for batch in batches}) == 6


@each
def test_a_fixed_level_is_compiled(layer, kind, level, levels):
    images = tf.constant(photos())
    compiled = layer(level, seed=3, dtype="uint8")
    assert compiled.supports_jit and not layer(levels).supports_jit
    step = tf.function(lambda x: compiled(x, training=True), jit_compile=True, autograph=False)
    np.testing.assert_array_equal(step(images), layer(level, seed=3, dtype="uint8")(images))


@pytest.mark.parametrize("layer", [HotPixels(2), SensorNoise((0.01, 0.1)), VARIED], ids=str)
def test_fit_compiles_what_can_be_compiled(layer):
    model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(photos().astype("float32"), np.zeros(6), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("given", [3, (1, 4)], ids=str)
def test_in_a_dataset_each_element_has_its_draws(given):
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros([12, 4, 5, 1], np.uint8), np.arange(12)))
    layer = HotPixels(given, seed=1, dtype="uint8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # AutoGraph warns of what it cannot convert
        single = dataset.map(lambda x, y: (layer(x), y))
        batched = dataset.batch(6).map(lambda x, y: (layer(x), y))
    for mapped in (single, batched):
        first, second = ([x.numpy() for x, _ in mapped] for _ in range(2))
        images = np.stack(first).reshape(12, -1)
        counts = (images == 255).sum(axis=1)
        assert (counts == 3).all() if given == 3 else set(counts) <= {1, 2, 3, 4}
        assert len({image.tobytes() for image in images}) > 10
        assert not np.array_equal(first, second)  # another epoch


def test_sizes_may_be_unknown_in_a_dataset():
    sizes = [(4, 5), (7, 3), (9, 9)]
    dataset = tf.data.Dataset.from_generator(
        lambda: (np.zeros([*size, 1], np.float32) for size in sizes),
        output_signature=tf.TensorSpec([None, None, 1]),
    )
    for image, size in zip(dataset.map(HotPixels((2, 3), (0, 1), seed=1)), sizes):
        assert image.shape == (*size, 1) and tf.reduce_sum(image) in (2, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="level: for hot of images of this"):
        list(dataset.map(HotPixels(50)))


def test_draws_without_a_seed_differ_and_follow_keras():
    images = photos().astype("float32")
    assert (SensorNoise(0.1)(images).numpy() != SensorNoise(0.1)(images).numpy()).any()
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        results.append(SensorNoise(0.1)(images).numpy())
    np.testing.assert_array_equal(*results)


def test_values_beyond_the_range_are_cut_off():
    images = np.array([[[[-4.0], [300.0], [128.0], [9.0]]]], np.float32)
    noisy = SensorNoise(0.001, seed=1)(images).numpy().ravel()
    assert abs(noisy[0]) < 2 and abs(noisy[1] - 255) < 2 and abs(noisy[2] - 128) < 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HotPixels(0), r"pixels=0: expected a whole number from 1 on"),
        (lambda: HotPixels(2.5), r"pixels=2.5: expected a whole number"),
        (lambda: HotPixels((4, 2)), r"pixels=\(4, 2\): expected the lower level first"),
        (lambda: DeadPixels((1, 2, 3)), r"pixels=\(1, 2, 3\): expected a number, or two"),
        (lambda: HotPixels(26)(np.zeros([1, 5, 5, 1])), r"pixels=26: expected .* from 1 to 25"),
        (lambda: StuckPixels((1, 26))(np.zeros([1, 5, 5, 1])), r"pixels=26: expected"),
        (lambda: SensorNoise(1.5), r"stddev=1.5: expected a number from 0 to 1"),
        (lambda: SensorNoise("0.1"), r"stddev=0.1: expected a number, or two"),
        (lambda: HotPixels("2"), r"pixels=2: expected a number, or two"),
        (lambda: HotPixels(("1", 2)), r"pixels=\('1', 2\): expected a number, or two"),
        (lambda: GaussianBlur(-1), r"sigma=-1: expected a number from 0 on"),
        (lambda: HotPixels(2, (255, 0)), r"value_range=\(255, 0\): expected two numbers"),
        (lambda: HotPixels(2, seed=-1), r"seed=-1: expected a whole number from 0 on"),
        (lambda: OneOf([]), r"layers=none: expected one or more"),
        (lambda: OneOf(HotPixels(1), seed=1), r"layers=HotPixels: expected a list"),
        (lambda: Compose([keras.layers.RandomFlip()]), r"layers=RandomFlip: expected layers of"),
        (
            lambda: Compose([HotPixels(1), HotPixels(1, data_format="channels_first")]),
            r"layers=several: expected one or more, all of one data_format",
        ),
    ],
)
def test_what_is_not_allowed_is_said_in_one_line(make, message):
    with pytest.raises(InvalidArgument, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "layer", [HotPixels(2), GaussianBlur(1.0), Compose([HotPixels(2)]), VARIED]
)
def test_other_tensors_than_images_are_one_line(layer):
    shapes = [(8, 8), (8,), (1, 2, 8, 8, 3), ()]
    for given in (*map(np.zeros, shapes), {"images": np.zeros((8, 8))}, {"pictures": 1}):
        with pytest.raises(InvalidArgument, match="images") as error:
            layer(given)
        assert "\n" not in str(error.value)
    layer(np.zeros((2, 8, 8, 3)))  # also where it has seen images before
    with pytest.raises(InvalidArgument, match=r"shape \(8, 8\): expected images of shape"):
        layer(np.zeros((8, 8)))
    unknown = [tf.TensorSpec(None, tf.float32)]
    traced = tf.function(lambda x: layer(x), input_signature=unknown, autograph=False)
    with pytest.raises(InvalidArgument, match="unknown rank: .*tf.ensure_shape"):
        traced(np.zeros((2, 8, 8, 3), np.float32))


def test_the_base_is_that_of_keras():
    names = [base.__name__ for base in HotPixels.__mro__]
    assert names[4:6] == ["BaseImagePreprocessingLayer", "DataLayer"]
    for kin in (keras.layers.RandomContrast, keras.layers.RandomGaussianBlur):
        assert issubclass(HotPixels, kin.__base__)


def test_a_model_with_layers_is_loaded_and_not_perturbed(tmp_path):
    layers = [Compose([HotPixels((1, 60), (0, 1))]), keras.layers.GlobalMaxPooling2D()]
    keras.Sequential([keras.Input((8, 8, 2)), *layers]).save(tmp_path / "model.keras")
    line = (
        "import sys, numpy as np\n"
        "from robust_tf.saved_models import classifiers\n"
        "assert not classifiers.load(sys.argv[1])(np.zeros([3, 8, 8, 2], np.float32)).numpy().any()"
    )
    command = [sys.executable, "-c", line, tmp_path / "model.keras"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
