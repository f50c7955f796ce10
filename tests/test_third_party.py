"""Inputs, outputs and forms that third-party models come with."""

import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from robust_tf import saved_models
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.saved_models import classifiers, matched
from tests.helpers import SIDE, check_one_line, rows_data, rows_of, spec
from tests.test_matching import accuracy, save
from tests.test_matching import fruit_model as fruit_model
from tests.test_matching import stored as stored


@pytest.mark.parametrize("form", ["saved", "keras"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint16", "int8", "int64"])
def test_integer_inputs_get_the_bytes(tmp_path, form, dtype):
    """The scores are the first pixels, as the model sees them."""
    data = rows_data()
    if form == "saved":
        path = save(
            tmp_path / "m",
            lambda images: tf.cast(images[:, 0, :3, 0], tf.float32),
            spec(dtype=tf.as_dtype(dtype)),
        )
    else:
        inputs = keras.Input((SIDE, SIDE, 1), dtype=dtype)
        x = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(inputs))
        scores = keras.layers.Dense(3, use_bias=False)
        path = tmp_path / "m.keras"
        model = keras.Model(inputs, scores(x))
        scores.set_weights([np.eye(SIDE * SIDE, 3)])
        model.save(path)
    classifier = classifiers.load(path)
    found = classifier(data.test.images_at(tf.range(60))).numpy()
    expected = data.test.images.numpy()[:, 0, :3, 0].astype(int)
    np.testing.assert_array_equal(found, expected - 128 if dtype == "int8" else expected)
    beyond = (0.0, 2.0 * tf.as_dtype(dtype).max)
    with pytest.raises(
        InvalidArgument, match=f"expected values of the model's input, {dtype} from"
    ):
        classifiers.load(path, input_range=beyond)


def test_a_float_signature_comes_before_one_of_integers(tmp_path):
    module = tf.Module()
    signatures = {
        name: tf.function(lambda images: {"scores": rows_of(images, 3)}).get_concrete_function(
            spec(dtype=dtype)
        )
        for name, dtype in (("bytes", tf.uint8), ("floats", tf.float32))
    }
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    assert classifiers.load(tmp_path / "m").signature == "floats"
    by_name = classifiers.load(tmp_path / "m", signature="bytes")
    assert (by_name.dtype, by_name.input_range) == (tf.uint8, (0, 255))


def for_range(low: float, high: float, strict: bool = False):
    """Scores of a model that is right where images have these values, and else answers 0."""

    def function(images):
        fits = (tf.reduce_min(images) < low + 0.3 * (high - low)) & (
            abs(tf.reduce_max(images) - (low + 0.8 * (high - low))) < 0.1 * (high - low)
        )
        if strict:
            with tf.control_dependencies([tf.debugging.Assert(fits, [images])]):
                return rows_of(images, 3)
        return tf.where(fits, rows_of(images, 3), tf.one_hot(0, 3))

    return function


@pytest.mark.parametrize(
    ("made_for", "asked"),
    [((0.0, 255.0), (0.0, 1.0)), ((-1.0, 1.0), (0.0, 1.0)), ((0.0, 1.0), (-1.0, 1.0))],
)
def test_a_likelier_range_is_named(tmp_path, made_for, asked):
    path = save(tmp_path / "m", for_range(*made_for), spec())
    named = "{:g},{:g}".format(*made_for)
    with pytest.warns(UserWarning, match=f"and 100% with {named}: it may be made for --input_rang"):
        assert accuracy(classifiers.load(path, input_range=asked), rows_data()) < 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert accuracy(classifiers.load(path, input_range=made_for), rows_data()) == 1


def test_models_of_another_range_are_compared(tmp_path, stored, fruit_model, in_process):
    path = save(tmp_path / "m", for_range(0.0, 255.0), spec())
    flags = ("--dataset=fruit_a", f"--data_dir={stored}", "--trials=1", "--eval=dead")

    def compare(*runs):
        return in_process(*flags, *map(str, runs), pipeline="pipelines.compare")

    done = compare(path, fruit_model)
    assert done.returncode == 0 and "made for --input_range=0,255" in done.stderr, done.stderr
    done = compare(path, fruit_model, "--input_range=0,255")
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    (natural,) = (line for line in done.stdout.splitlines() if line.startswith("natural  100.00"))
    assert natural.count("100.00 [") == 2
    other = shutil.copytree(fruit_model, tmp_path / "other")
    done = compare(fruit_model, other, "--input_range=0,255")
    check_one_line(done, 2, "--input_range=0,255: expected no value without a third-party mod")
    done = compare(path, fruit_model, "--input_range=0,1e39")
    check_one_line(done, 2, "--input_range=0,1e+39: expected values of the model's input, float")


def test_no_range_is_named_without_need(tmp_path, fruit_model):
    strict = save(tmp_path / "strict", for_range(0.0, 1.0, strict=True), spec())
    poor = save(tmp_path / "poor", lambda images: rows_of(-images, 3), spec())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path, expected in ((strict, 1), (poor, 0), (fruit_model, 1)):
            assert accuracy(classifiers.load(path), rows_data()) == expected


@pytest.mark.parametrize(
    "random",
    [
        lambda: keras.layers.Dropout(0.5),
        lambda: keras.layers.GaussianNoise(1.0),
        lambda: keras.layers.RandomFlip("vertical"),
        lambda: keras.layers.SpatialDropout2D(0.5),
    ],
)
def test_a_model_whose_training_layers_are_on_is_named(tmp_path, random):
    """As a user exports it who forgets `training=False`; without it the answers stay."""
    layer = random()
    for training, said in ((True, True), (False, False)):

        def scores(images, training=training):
            return rows_of(layer(images, training=training), 3)

        module = tf.Module()
        generator = getattr(layer, "seed_generator", None) or layer.generator
        module.seed = generator.state.value
        call = tf.function(lambda images: {"scores": scores(images)}, autograph=False)
        signatures = {"serving_default": call.get_concrete_function(spec())}
        tf.saved_model.save(module, str(tmp_path / f"{training}"), signatures=signatures)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            matched(classifiers.load(tmp_path / f"{training}"), rows_data())
        lines = [str(one.message) for one in caught if "asked again" in str(one.message)]
        assert len(lines) == said


def single(inputs, activation):
    """A Keras model whose single score is above a half where row 1 is bright, not row 0."""
    x = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(1, activation=activation, use_bias=False)
    model = keras.Model(inputs, dense(x))
    weights = np.zeros((SIDE * SIDE, 1))
    weights[:SIDE], weights[SIDE : 2 * SIDE] = -3, 3
    dense.set_weights([weights])
    return model


@pytest.mark.parametrize("form", ["saved", "keras"])
@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_one_score_is_that_of_the_second_of_two_classes(tmp_path, form, activation):
    model = single(keras.Input((SIDE, SIDE, 1)), activation)
    path = tmp_path / ("m" if form == "saved" else "m.keras")
    if form == "saved":
        model.export(path, verbose=False)
    else:
        model.save(path)
    data, classifier = rows_data(("no", "yes")), classifiers.load(path)
    assert accuracy(classifier, data) == 1
    found = matched(classifier, data)(data.test.images_at(tf.range(60))).numpy()
    logits = single(keras.Input((SIDE, SIDE, 1)), "linear")(data.test.images_at(tf.range(60)))
    expected = tf.sigmoid(logits).numpy()[:, 0]
    if activation == "linear":
        found = tf.nn.softmax(found).numpy()
    np.testing.assert_allclose(found, np.stack([1 - expected, expected], axis=1), atol=1e-6)
    with pytest.raises(InvalidArgument, match=r"=fruit \(3\): expected a dataset of 1 or 2 class"):
        classifier.check(rows_data())


@pytest.mark.parametrize(
    ("squashed", "logit"),
    [
        (keras.ops.sigmoid, None),
        (keras.activations.sigmoid, None),
        (lambda z: 1 / (1 + keras.ops.exp(-z)), None),
        (lambda z: keras.layers.Rescaling(0.5)(keras.ops.tanh(z)) + 0.5, None),
        (keras.layers.Activation("sigmoid"), False),
        (lambda z: z, True),
        (lambda z: keras.layers.Activation("linear")(keras.ops.sigmoid(z)), None),
        (keras.layers.Activation("linear"), None),
        (lambda z: keras.ops.reshape(z, (-1, 1)), None),
    ],
)
def test_one_score_is_what_makes_the_output_not_the_last_layer(tmp_path, squashed, logit):
    """Far from a half, where a probability taken for a logit would always be the second class."""
    inputs = keras.Input((SIDE, SIDE, 1))
    before = single(inputs, "linear")
    keras.Model(inputs, squashed(before.outputs[0])).save(tmp_path / "m.keras")
    classifier = classifiers.load(tmp_path / "m.keras")
    assert classifier.logit is logit
    assert accuracy(classifier, rows_data(("no", "yes"))) == 1


@pytest.mark.parametrize("form", ["saved", "keras"])
@pytest.mark.parametrize("size", [1, 7, 32, 60, 100])
def test_a_fixed_batch_size_is_kept(tmp_path, form, size):
    if form == "saved":
        path = save(tmp_path / "m", lambda images: rows_of(images, 3), spec(batch=size))
    else:
        inputs = keras.Input(batch_shape=(size, SIDE, SIDE, 1))
        x = keras.layers.Reshape((SIDE, SIDE))(inputs)
        x = keras.layers.GlobalAveragePooling1D(data_format="channels_first")(x)
        path = tmp_path / "m.keras"
        scores = keras.layers.Dense(3, use_bias=False)
        model = keras.Model(inputs, scores(x))
        scores.set_weights([np.eye(SIDE, 3)])
        model.save(path)
    data, classifier = rows_data(), classifiers.load(path)
    images = data.test.images_at(tf.range(60))
    np.testing.assert_allclose(classifier(images), rows_of(images, 3), rtol=1e-6)
    assert accuracy(classifier, data) == 1


def test_versions_with_zeros_before_them_count(fruit_model, tmp_path):
    for name in ("00000123", "0124", "99"):
        (tmp_path / "m" / name).mkdir(parents=True)
        (tmp_path / "m" / name / "saved_model.pb").write_bytes(b"x")
    assert saved_models.find("model", tmp_path / "m").name == "0124"
    only = tmp_path / "n" / "00000123"
    only.parent.mkdir()
    only.symlink_to(fruit_model)
    assert accuracy(classifiers.load(tmp_path / "n"), rows_data()) == 1


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (tf.TensorSpec([None], tf.string, name="b64"), "(b64: string [?])"),
        (tf.TensorSpec([None, 28, 28], tf.uint8, name="x"), "(x: uint8 [?, 28, 28])"),
        (tf.TensorSpec([None, 4, 4, 1], tf.bool, name="x"), "(x: bool [?, 4, 4, 1])"),
    ],
)
def test_a_refusal_says_what_was_found(tmp_path, inputs, found):
    path = save(tmp_path / "m", lambda x: tf.zeros([1, 10]), inputs)
    with pytest.raises(InvalidArgument) as error:
        classifiers.load(path)
    assert str(error.value).endswith(f"found serving_default{found}")


def test_a_refusal_of_outputs_says_what_was_found(tmp_path):
    path = save(tmp_path / "m", lambda images: tf.cast(images, tf.int32), spec(batch=2))
    with pytest.raises(InvalidArgument, match=r"found scores: int32 \[2, 6, 6, 1\]$"):
        classifiers.load(path)
    images, other = keras.Input((SIDE, SIDE, 1), name="a"), keras.Input((3,), name="b")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(images), other])
    keras.Model([images, other], keras.layers.Dense(2)(x)).save(tmp_path / "two.keras")
    with pytest.raises(Unavailable, match=r"not from a: float32 \[\?, 6, 6, 1\], b: float32 \[\?"):
        classifiers.load(tmp_path / "two.keras")


@pytest.mark.parametrize(
    "raised", [AttributeError("'_UserObject' object has no attribute 'add_slot'"),
               RuntimeError("two\nlines"), AssertionError(), TypeError("a")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_loading_raises_is_one_line(fruit_model, monkeypatch, raised):
    def load(*_):
        raise raised

    monkeypatch.setattr(tf.saved_model, "load", load)
    with pytest.raises(Unavailable, match="expected a SavedModel that this TensorFlow") as error:
        classifiers.load(fruit_model)
    assert "\n" not in str(error.value)


def test_a_model_with_the_slots_of_an_old_optimizer(tmp_path):
    """As Keras 2 and `tf.compat.v1` save them."""
    # A `tf.map_fn` that once failed in this process leaves its device in the default graph's
    # scope, where optimizers of `tf.compat.v1` stumble over it.
    tf.compat.v1.reset_default_graph()
    module = tf.Module()
    module.weight = tf.Variable(tf.eye(3))
    module.optimizer = tf.compat.v1.train.AdamOptimizer()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(module.weight)
    module.optimizer.apply_gradients([(tape.gradient(loss, module.weight), module.weight)])
    module.weight.assign(tf.eye(3))
    signature = tf.function(lambda images: {"scores": rows_of(images, 3) @ module.weight})
    signatures = {"serving_default": signature.get_concrete_function(spec())}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    with pytest.raises(Unavailable, match="_slot.*has to save it with include_optimizer=False$"):
        classifiers.load(tmp_path / "m")
