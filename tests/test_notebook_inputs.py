"""What a notebook's calls make of one score, of labels that are texts, of images of 0 and 1."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import robust_tf as rt
from robust_tf import saved_models
from robust_tf.data.classes import in_order
from robust_tf.errors import InvalidArgument
from robust_tf.models import adapted
from robust_tf.notebook import Scorecard, fitting


def asked(model, images, labels, **settings) -> Scorecard:
    return rt.benchmark(model, images, labels, **{"trials": 1, "progress": False} | settings)


def natural(card: Scorecard) -> float:
    return card.table["mean"][0]


def linear(seed=0, activation=None) -> keras.Model:
    """One score for images in [0, 255] of 4x4 pixels, some positive and some negative."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255, -0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation),
        ]
    )
    weights = np.random.default_rng(seed).normal(0, 3, (16, 1)), np.zeros(1)
    model.layers[-1].set_weights(weights)
    return model


def small_images(count=40) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 4, 4, 1)).astype(np.uint8)


@pytest.mark.parametrize("form", ["logit", "sigmoid", "subclassed", "named", "classifier"])
def test_one_score_of_a_function_is_that_of_the_second_class(form):
    model, images = linear(), small_images()

    class Own(keras.Model):
        def call(self, x):
            return model(x)

    second = model.predict(images, verbose=0)[:, 0] > 0
    assert 5 < second.sum() < 35
    labels = np.where(np.arange(40) % 5 == 0, ~second, second)  # so that 4 in 5 are right
    of_form = {
        "logit": lambda x: model(x),
        "sigmoid": lambda x: tf.sigmoid(model(x)),
        "subclassed": Own(),
        "named": lambda x: model(x),
        "classifier": dataclasses.replace(
            saved_models.classifiers.of_model(model, Path("own")), classes=None
        ).with_range((0, 255)),
    }
    names = {"label_names": ["no", "yes"]} if form == "named" else {}
    given = images, labels.astype(np.int64)
    card = asked(of_form[form], *given, tests=(), **names)
    assert natural(card) == 0.8
    # So does a model from elsewhere that does not say how many scores it has.
    data = rt.data.from_arrays(*given, test_fraction=0.5)
    assert saved_models.matched(of_form["classifier"], data).classes == 2


def by_value(x):
    """Ten scores of images that show their class as their value."""
    return tf.one_hot(tf.cast(tf.round(x[:, 0, 0, 0] / 10), tf.int32), 10)


@pytest.mark.parametrize("first", [8, 95, 0])
def test_texts_that_are_numbers_are_in_their_order(first):
    classes = np.arange(30) % 10
    images = (classes[:, None, None, None] * 10 + np.zeros((4, 4, 1))).astype(np.uint8)
    card = asked(by_value, images, (classes + first).astype(str), tests=())
    assert natural(card) == 1


def test_of_a_model_with_names_some_may_lack_images(exported, small):
    few = small.test.labels.numpy() < 4
    images, labels = small.test.images.numpy()[few], small.test.labels.numpy()[few]
    found = natural(asked(exported, images, labels.astype(str), tests=()))
    assert found == natural(asked(exported, images, labels, tests=()))


def test_names_are_in_order_as_numbers_or_as_texts():
    assert in_order(["10", "9", "-1"]) == ["-1", "9", "10"]
    assert in_order({"2.5", "10", "3"}) == ["2.5", "3", "10"]
    assert in_order(["9", "10", "a"]) == ["10", "9", "a"]
    assert in_order(["1", "01", "10", "2"]) == ["01", "1", "10", "2"]  # 01 is not 1
    assert in_order(["nan", "10", "9"]) == ["10", "9", "nan"]
    data = rt.data.from_arrays(small_images(6), ["10", "9", "11"] * 2, test_fraction=0.5)
    assert data.label_names == ("9", "10", "11")


def test_bool_is_black_and_white_and_few_whole_numbers_are_asked_for():
    images = small_images() > 127

    def bright(x):  # whether a pixel is more than white
        most = tf.reduce_max(x, axis=[1, 2, 3])
        return tf.stack([1.5 - most, most - 1.5], axis=1)

    for given, settings in (
        (images, {}),
        (images.astype(np.uint8), {"value_range": (0, 1)}),
    ):
        card = asked(bright, given, [0] * 40, tests=rt.Perturbation("hot", 3), **settings)
        assert card.table["mean"].tolist() == [1, 1]
    for dtype in (np.uint8, np.int64, np.int8):
        with pytest.raises(InvalidArgument, match="whole numbers from 0 to 1: .*value_range"):
            asked(bright, images.astype(dtype), [0] * 40)
    with pytest.raises(InvalidArgument, match="whole numbers from -1 to 1"):
        asked(bright, images * 2 - 1, [0] * 40)
    with pytest.raises(InvalidArgument, match="whole numbers from 0 to 0"):
        rt.fit(linear(), np.zeros((4, 4, 4)).astype(int), [0, 1, 0, 1])


def test_what_looks_like_an_argument_of_another_kind():
    model, images = linear(), small_images()
    labels = np.arange(40) % 2
    card = asked(lambda x: model(x), images, labels, tests=" hot,  blur")
    assert set(card.table["test_perturb"]) == {"none", "hot", "blur"}
    for method in (model.predict, model.predict_on_batch):
        with pytest.raises(InvalidArgument, match="predict.*: expected the Keras model itself"):
            asked(method, images, labels)
    split = rt.data.from_arrays(images, labels).train
    for given in ((split, labels), (images, split), (tf.data.Dataset.range(3), labels)):
        with pytest.raises(InvalidArgument, match=r"expected an array, such as split\."):
            asked(model, *given)
    with pytest.raises(InvalidArgument, match="tests: expected perturbed images too"):
        _ = asked(model, images, labels, tests=[]).profile


@pytest.mark.parametrize("form", ["sigmoid", "linear", "activation"])
def test_one_score_stays_one_score(form):
    model = linear(activation="sigmoid" if form == "sigmoid" else None)
    if form == "activation":
        dense = keras.layers.Dense(1, use_bias=False)
        model = keras.Sequential([*model.layers[:-1], dense, keras.layers.Activation("sigmoid")])
        model.build((None, 4, 4, 1))
    network = adapted.adapted(model, (4, 4, 1))
    trained = adapted.wrapped(network, 2, name="two")
    for weight in trained.layers[-1].weights:
        weight.assign(np.random.default_rng(2).normal(0, 1, weight.shape))
    images = small_images().astype("float32")
    logits = trained.predict(images, verbose=0)
    found = fitting._with_weights(model, trained).predict(images, verbose=0)
    expected = tf.nn.softmax(logits)[:, 1:] if form != "linear" else logits[:, 1:] - logits[:, :1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_fit_of_a_compiled_model_with_one_score():
    model = linear(activation="sigmoid")
    model.compile("adam", "binary_crossentropy")
    images = small_images()
    labels = (images.mean(axis=(1, 2, 3)) > 127).astype(int)
    robust = rt.fit(
        model, images, labels, perturb=" hot, blur", epochs=1, batch_size=10, progress=False
    )
    assert model.compiled and not robust.compiled
    scores = robust.predict(images, verbose=0)
    assert scores.shape == (40, 1) and scores.min() >= 0 and scores.max() <= 1
    right = np.mean((scores[:, 0] > 0.5) == labels)
    assert natural(asked(robust, images, labels, tests=())) == right
