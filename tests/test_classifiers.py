"""Saved models, third-party ones too: found, called, checked against the data, and tested."""

import dataclasses
import re
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf import results
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, Natural
from robust_tf.evaluation.suites import standard_tests
from robust_tf.perturbations import Perturbation
from robust_tf.saved_models import classifiers
from robust_tf.studies import comparison, confusions, robustness, sensor_map
from tests.helpers import SIDE, rows_data, rows_of, spec

HOT = standard_tests(("hot",))


@pytest.fixture(scope="module")
def foreign() -> keras.Model:
    """A small third-party network: other names, other layers, softmax inside."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((28, 28, 1), name="pixels")
    x = keras.layers.Rescaling(2.0, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(4, 5, strides=3, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="digit")(x))


@pytest.fixture(scope="module")
def exports(foreign, tmp_path_factory):
    """The same model in both of Keras's forms, and for images from 0 to 255."""
    folder = tmp_path_factory.mktemp("foreign")
    foreign.export(folder / "exported", verbose=False)
    foreign.save(folder / "saved.keras")
    inputs = keras.Input((28, 28, 1))
    outputs = foreign(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, outputs).export(folder / "bytes", verbose=False)
    return folder


@pytest.mark.parametrize(
    ("name", "input_range"),
    [("exported", (0.0, 1.0)), ("saved.keras", (0.0, 1.0)), ("bytes", (0.0, 255.0))],
)
def test_a_third_party_model(foreign, exports, sample, tmp_path, name, input_range):
    classifier = classifiers.load(exports / name, input_range=input_range)
    images = sample.test.images_at(tf.range(30))
    expected = foreign(images, training=False)
    np.testing.assert_allclose(classifier(images), expected, atol=1e-5)
    assert (classifier.name, classifier.image_shape) == (name, (28, 28, 1))
    assert (classifier.classes, classifier.metadata) == (10, {})
    folder, trials = robustness.write(
        classifier, sample, HOT, trials=3, seed=2, output_dir=tmp_path, progress=False
    )
    assert trials.columns.tolist() == results.TRIAL_COLUMNS
    assert trials["test_perturb"].tolist() == ["none", "hot", "hot", "hot"]
    assert set(trials["strategy"]) == {"external"} and set(trials["model"]) == {name}
    predicted = foreign.predict(sample.test.images_at(tf.range(1000)), verbose=0).argmax(axis=1)
    labels = sample.test.labels.numpy()
    assert trials["accuracy"][0] == pytest.approx((predicted == labels).mean(), abs=0.002)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checksums.json", "figures", "trials.csv",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(results.read(tmp_path, "trials"), trials)
    measured = robustness.measure(classifier, sample, HOT, trials=3, seed=2, progress=False)
    pd.testing.assert_frame_equal(measured, trials, check_dtype=False)


def test_our_own_export_says_what_it_was_trained_with(exported, trained, sample, tmp_path):
    classifier = classifiers.load(exported.parent)
    assert classifier.path == exported and classifier.name == "digits/1"
    assert (classifier.signature, classifier.output) == ("serving_default", "probabilities")
    images = sample.test.images_at(tf.range(30))
    expected = tf.nn.softmax(trained(images, training=False))
    np.testing.assert_allclose(classifier(images), expected, atol=1e-6)
    _, trials = robustness.write(
        classifier, sample, [Natural()], trials=1, seed=0, output_dir=tmp_path, progress=False
    )
    assert trials["strategy"].tolist() == ["natural"]
    assert trials["model"].tolist() == ["digits/1"]


def test_tests_go_on_where_they_stopped_and_models_are_kept_apart(exports, small, tmp_path):
    classifier = classifiers.load(exports / "exported")
    options = {"seed": 0, "output_dir": tmp_path, "progress": False}
    folder, first = robustness.write(classifier, small, HOT, trials=2, **options)
    again, more = robustness.write(classifier, small, HOT, trials=3, **options)
    assert again == folder and len(first) == 3 and len(more) == 4
    pd.testing.assert_frame_equal(more[:3], first)
    others = [
        robustness.write(
            classifiers.load(exports / "saved.keras"), small, HOT, trials=2, **options
        ),
        robustness.write(classifier, small, HOT, trials=2, **{**options, "seed": 1}),
        robustness.write(classifier, small, [Perturbation("blur", 1.0, True)], trials=2, **options),
    ]
    assert len({folder, *(path for path, _ in others)}) == 4


def save(folder, **functions):
    """A SavedModel with signatures of any form; by name, the function and its input."""
    module = tf.Module()
    signatures = {
        name: tf.function(function).get_concrete_function(spec)
        for name, (function, spec) in functions.items()
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


IMAGES = tf.TensorSpec([None, 28, 28, 1], tf.float32, name="x")


def scores(classes=10, name="scores"):
    return lambda x: {name: tf.reshape(x, [-1, 784])[:, :classes]}


def test_the_signature_and_output_that_fit_are_chosen(tmp_path, sample):
    path = save(
        tmp_path / "m",
        classify=(
            lambda x: {
                "scores": tf.reshape(x, [-1, 784])[:, :10],
                "label": tf.zeros([tf.shape(x)[0]], tf.int64),
                "map": x,
            },
            IMAGES,
        ),
        decode=(lambda x: {"length": tf.strings.length(x)}, tf.TensorSpec([None], tf.string)),
    )
    classifier = classifiers.load(path)
    assert (classifier.signature, classifier.input, classifier.output) == (
        "classify", "x", "scores",
    )  # fmt: skip
    assert classifier(sample.test.images_at([0, 1])).shape == (2, 10)


def test_half_precision_and_free_shapes(tmp_path, sample):
    spec = tf.TensorSpec(None, tf.float16, name="x")
    classifier = classifiers.load(save(tmp_path / "m", serving_default=(scores(), spec)))
    assert classifier.image_shape == (None, None, None)
    classifier.check(sample)
    assert classifier(sample.test.images_at([0, 1])).dtype == tf.float16


def test_a_choice_must_be_made_where_several_fit(tmp_path):
    path = save(tmp_path / "m", first=(scores(), IMAGES), second=(scores(), IMAGES))
    with pytest.raises(InvalidArgument, match=r"^signature: expected one of first, second \("):
        classifiers.load(path)
    assert classifiers.load(path, signature="second").signature == "second"
    with pytest.raises(InvalidArgument, match="^signature=third: expected one of first, second"):
        classifiers.load(path, signature="third")
    both = save(
        tmp_path / "n",
        serving_default=(lambda x: {**scores(name="a")(x), **scores(name="b")(x)}, IMAGES),
    )
    with pytest.raises(InvalidArgument, match=r"^output: expected one of a, b \("):
        classifiers.load(both)
    assert classifiers.load(both, output="b").output == "b"


def test_a_model_without_images_or_scores_is_refused(tmp_path):
    texts = save(
        tmp_path / "m",
        serving_default=(lambda x: {"n": tf.strings.length(x)}, tf.TensorSpec([None], tf.string)),
    )
    with pytest.raises(InvalidArgument, match="^signature: expected a model that has one"):
        classifiers.load(texts)
    maps = save(tmp_path / "n", serving_default=(lambda x: {"map": x}, IMAGES))
    with pytest.raises(InvalidArgument, match="^output: expected a model that has one"):
        classifiers.load(maps)


@pytest.mark.parametrize(
    "value", [(1.0, 0.0), (0.0, 0.0), (float("nan"), 1.0)], ids=["falling", "empty", "nan"]
)
def test_a_range_rises(exports, value):
    with pytest.raises(InvalidArgument, match="^input_range=.*: expected two numbers, the lower"):
        classifiers.load(exports / "exported", input_range=value)


def truncated_graph(folder):
    path = folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:1000])


def no_graph(folder):
    (folder / "saved_model.pb").unlink()


def empty_graph(folder):
    (folder / "saved_model.pb").write_bytes(b"")


def text_graph(folder):
    (folder / "saved_model.pb").write_text("this is no graph\n" * 9)


def truncated_weights(folder):
    path = next((folder / "variables").glob("*.data*"))
    path.write_bytes(path.read_bytes()[:100])


def truncated_index(folder):
    path = next((folder / "variables").glob("*.index"))
    path.write_bytes(path.read_bytes()[:100])


def no_weights(folder):
    shutil.rmtree(folder / "variables")


@pytest.mark.parametrize(
    "damage",
    [
        truncated_graph, no_graph, empty_graph, text_graph, truncated_weights, truncated_index,
        no_weights,
    ],
)  # fmt: skip
def test_a_damaged_model_gives_one_line(exported, tmp_path, damage):
    folder = tmp_path / "m" / "1"
    shutil.copytree(exported, folder)
    damage(folder)
    with pytest.raises(Unavailable) as caught:
        classifiers.load(folder)
    message = str(caught.value)
    found = message.removeprefix(f"model={folder}: ")
    assert re.match(r"\S+ is (damaged|not there); remove|expected the directory of a Saved", found)
    assert "\n" not in message
    (folder / "assets.extra" / "checksums.json").unlink()  # as of others, or an earlier version
    with pytest.raises(Unavailable) as caught:
        classifiers.load(folder)
    message = str(caught.value)
    assert message.startswith(f"model={folder}: ") and "\n" not in message
    assert (
        "expected a SavedModel" in message
        or "saved_model.pb is empty" in message
        or ("expected the directory of a SavedModel" in message)
    )


def test_files_that_are_no_keras_models(tmp_path, exports):
    (tmp_path / "text.keras").write_text("no model")
    cut = tmp_path / "cut.keras"
    cut.write_bytes((exports / "saved.keras").read_bytes()[:3000])
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "flat.keras")
    for path in (tmp_path / "text.keras", cut, tmp_path / "none.keras"):
        with pytest.raises(Unavailable) as caught:
            classifiers.load(path)
        assert str(caught.value).startswith(f"model={path}: expected a .keras file (")
        assert "\n" not in str(caught.value)
    with pytest.raises(Unavailable, match=r"from one input of images .* to float scores"):
        classifiers.load(tmp_path / "flat.keras")
    with pytest.raises(InvalidArgument, match="signature=a: expected no value with a .keras file"):
        classifiers.load(exports / "saved.keras", signature="a")


def test_data_of_another_form_are_refused(exports, exported, small):
    classifier = classifiers.load(exports / "exported")
    classifier.check(small)
    narrow = Split(small.test.images[:, :, :20], small.test.labels)
    with pytest.raises(InvalidArgument, match=r"dataset=mnist \(28, 20, 1\): expected .* \(28, 28"):
        classifier.check(dataclasses.replace(small, train=narrow, test=narrow))
    features = classifiers.load(exported, signature="features")
    with pytest.raises(InvalidArgument, match=r"dataset=mnist \(10\): expected .* of 160 classes"):
        features.check(small)
    with pytest.raises(InvalidArgument, match=r"dataset=mnist \(3\): expected .* of 10 classes"):
        classifier.check(dataclasses.replace(small, label_names=("a", "b", "c")))


@pytest.mark.parametrize(
    ("dtype", "refused", "allowed"),
    [
        ("float32", (0.0, 1e39), (0.0, 1e38)),
        ("float32", (-3e38, 3e38), (-1e38, 1e38)),
        ("float32", (1.0, 1.00000001), (1.0, 1.001)),
        ("float32", (0.0, 1e-300), (0.0, 1e-30)),
        ("float32", (0.0, 1e-40), (-1e-3, 0.0)),
        ("float64", (0.0, 1e39), (0.0, 255.0)),  # images are float32
        ("float16", (0.0, 65536.0), (0.0, 60000.0)),
        ("float16", (1000.0, 1000.1), (1000.0, 1001.0)),
        ("bfloat16", (256.0, 256.5), (256.0, 260.0)),
        ("uint8", (0.4, 0.6), (0.0, 1.0)),
        ("uint8", (0.0, 255.4), (0.0, 255.0)),
        ("int8", (-128.0, 128.0), (-128.0, 127.0)),
        ("int32", (0.0, 2.0**31 - 1), (0.0, 2.0**30)),  # 2³¹ in float32
        ("int64", (2.0**40, 2.0**40 + 1), (0.0, 2.0**40)),
    ],
)
def test_a_range_is_one_in_the_type_of_the_input(exports, dtype, refused, allowed):
    model = classifiers.load(exports / "exported")
    model = dataclasses.replace(model, dtype=tf.as_dtype(dtype))
    line = f"^input_range=.*: expected values of the model's input, {dtype}"
    with pytest.raises(InvalidArgument, match=line):
        model.with_range(refused)
    ends = tf.cast(model.with_range(allowed).inputs(tf.constant([0.0, 1.0])), model.dtype)
    low, high = (float(end) for end in tf.cast(ends, tf.float64))
    assert low < high and np.isfinite(high - low)


@pytest.mark.parametrize("input_range", [(0.0, 255.0), (-1.0, 1.0), (0.0, 0.5)], ids=str)
def test_a_model_that_says_its_range_has_no_other(exported, input_range):
    line = "expected 0,1, which the model has in its metadata$"
    with pytest.raises(InvalidArgument, match=line):
        classifiers.load(exported, input_range=input_range)
    assert classifiers.load(exported, input_range=(0.0, 1.0)).input_range == (0, 1)


@keras.saving.register_keras_serializable("tests")
class Strict(keras.layers.Layer):
    """Lets only values below a limit pass."""

    def __init__(self, limit, **options):
        super().__init__(**options)
        self.limit = limit

    def call(self, images):
        with tf.control_dependencies([tf.debugging.assert_less(images, self.limit)]):
            return tf.identity(images)

    def get_config(self):
        return super().get_config() | {"limit": self.limit}


def scores_of(function):
    return lambda images: {"scores": function(images)}


def strict(folder, form: str, limit: float):
    """A model that raises on a value that is not below the limit."""
    if form == "saved":
        function = scores_of(lambda images: rows_of(Strict(limit)(images), 3))
        return save(folder / "m", serving_default=(function, spec()))
    inputs = keras.Input((SIDE, SIDE, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(Strict(limit)(inputs)))
    keras.Model(inputs, outputs).save(folder / "m.keras")
    return folder / "m.keras"


@pytest.mark.parametrize("form", ["saved", "keras"])
@pytest.mark.parametrize("limit", [0.0, 0.2, 0.99])
def test_what_a_model_raises_is_one_line(tmp_path, form, limit):
    """On natural images, or only where a pixel is hot."""
    path, data = strict(tmp_path, form, limit), rows_data()
    hot, options = Perturbation("hot", 1), {"output_dir": tmp_path / "r", "progress": False}
    model = classifiers.load(path, argument="RUN")
    for measured in (
        lambda: robustness.write(model, data, [Natural(), hot], trials=1, seed=0, **options),
        lambda: confusions.write(model, data, [hot], trials=1, seed=0, **options),
        lambda: sensor_map.write(model, data, "hot", **options),
        lambda: comparison.write(
            [model, dataclasses.replace(model, name="b")], data, [Natural(), hot],
            baseline=0, trials=1, seed=0, **options,
        ),
    ):  # fmt: skip
        with pytest.raises(Unavailable) as error:
            measured()
        message = str(error.value)
        assert message.startswith(f"RUN={path}: the model fails on the images (")
        assert "\n" not in message and "x < y" in message, message


def test_only_classifiers_fail_in_one_line():
    def raises(images):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        Evaluator(raises, rows_data().test).accuracy(Natural())


@pytest.mark.parametrize(
    ("inputs", "outputs"), [("bool", "float32"), ("float32", "int32"), ("float32", "bool")]
)
def test_both_forms_are_refused_in_the_same_words(tmp_path, inputs, outputs):
    function = scores_of(lambda images: tf.cast(rows_of(images, 3), outputs))
    path = save(tmp_path / "m", serving_default=(function, spec(dtype=tf.as_dtype(inputs))))
    images = keras.Input((SIDE, SIDE, 1), dtype=inputs, name="images")
    scores = keras.ops.cast(keras.layers.Flatten()(images), outputs)
    keras.Model(images, scores).save(tmp_path / "m.keras")
    wanted = "one input of images [B, H, W, C], floats or integers"
    found = "images: bool [?, 6, 6, 1]"
    if inputs != "bool":
        wanted, found = "float scores of shape [B, classes]", f": {outputs} [?, "
    with pytest.raises(InvalidArgument) as of_saved:
        classifiers.load(path)
    with pytest.raises(Unavailable) as of_keras:
        classifiers.load(tmp_path / "m.keras")
    for error in (of_saved, of_keras):
        assert wanted in str(error.value) and found in str(error.value)
