"""The calls of a notebook: the same numbers as counted by hand, whatever form a model has."""

import re

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import robust_tf as rt
from robust_tf import results, saved_models
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation.suites import standard_tests
from robust_tf.notebook import Scorecard
from robust_tf.saved_models import Classifier


@pytest.fixture(scope="module")
def digits(small) -> tuple[np.ndarray, np.ndarray]:
    """A hundred test images as bytes, and their classes."""
    return small.test.images.numpy(), small.test.labels.numpy()


def accuracies(card: Scorecard) -> dict[str, float]:
    tests = zip(card.table["test_perturb"], card.table["test_level"])
    return dict(zip([results.condition_label(*test) for test in tests], card.table["mean"]))


def asked(model, digits, **settings) -> Scorecard:
    return rt.benchmark(model, *digits, **{"trials": 2, "progress": False} | settings)


@pytest.fixture(scope="module")
def expected(trained, small, digits) -> dict[str, float]:
    """Natural images, two hot pixels and a blur, counted with Keras's own `predict`."""
    _, labels = digits

    def right(images) -> float:
        return np.mean(trained.predict(images, verbose=0).argmax(axis=1) == labels)

    index = np.arange(100)
    found = {"natural": right(small.test.images_at(index))}
    hot = rt.Perturbation("hot", 2)
    found["hot 2"] = np.mean(
        [right(hot.images(small.test, index, seed=0, trial=trial)) for trial in range(2)]
    )
    for level in (0.5, 0.75, 1.0):
        blurred = rt.perturb(small.test.images_at(index), "blur", level)
        found[f"blur {level:g}"] = right(blurred)
    return found


def of_bytes(trained) -> keras.Model:
    """The same model for values from 0 to 255."""
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), trained])


def test_all_forms_of_a_model_have_the_accuracies_counted_by_hand(
    trained, exported, digits, expected, tmp_path
):
    tests = ["blur", "hot"]
    saved = tmp_path / "bytes.keras"
    of_bytes(trained).save(saved)
    for model in (
        exported,
        str(exported.parent),
        of_bytes(trained),
        saved,
        rt.load_model(exported),
    ):
        card = asked(model, digits, tests=tests)
        assert accuracies(card) == pytest.approx(expected, abs=1e-12), model
    # Images in [0, 1] are the values that a model gets, too.
    card = asked(trained, (digits[0] / np.float32(255), digits[1]), tests="hot,blur")
    assert accuracies(card) == pytest.approx(expected, abs=1e-12)
    card = asked(trained, digits, tests=tests, input_range=(0, 1))
    assert accuracies(card) == pytest.approx(expected, abs=1e-12)
    calls = []

    def function(images):
        calls.append(images)
        return trained(images / 127.5 * 0.5 + 0.5)

    shifted = digits[0] / 127.5 - 1
    card = asked(
        lambda x: function(x * 127.5), (shifted, digits[1]), value_range=(-1, 1), tests=tests
    )
    # The sum rounds in float32, so that an image at the border of two classes may change.
    assert accuracies(card) == pytest.approx(expected, abs=0.011) and calls
    assert list(card.table["n_trials"]) == [1, 2, 1, 1, 1]


def test_tests_are_those_of_evaluate(trained, small, digits):
    card = asked(trained, digits, tests="noise,stuck", input_range=(0, 1))
    table = rt.evaluate(trained, small.test, standard_tests(("stuck", "noise")), trials=2)
    assert card.trials["accuracy"].tolist() == table["accuracy"].tolist()
    assert list(card.trials) == results.TRIAL_COLUMNS
    pd.testing.assert_frame_equal(card.table, results.summarize(card.trials))
    own = [rt.Perturbation("hot", 9), rt.Mixture((("hot", 1, 5), ("noise", 0.01, 0.05)))]
    card = asked(trained, digits, tests=[*own, "stuck", "stuck"], input_range=(0, 1))
    assert card.table["test_perturb"].tolist()[:3] == ["none", "stuck", "hot"]
    assert len(card.table) == 4
    with_seed = asked(trained, digits, tests=own, input_range=(0, 1), seed=5)
    again = asked(trained, digits, tests=own, input_range=(0, 1), seed=5)
    pd.testing.assert_frame_equal(with_seed.trials, again.trials)
    assert with_seed.trials["accuracy"].tolist() != card.trials["accuracy"].tolist()


def test_classes_are_taken_from_the_model_or_the_labels(trained, digits):
    images, labels = digits
    few = labels < 4  # the others are classes all the same
    card = asked(trained, (images[few], labels[few]), tests="blur", input_range=(0, 1))
    right = trained.predict(images[few] / np.float32(255), verbose=0).argmax(1) == labels[few]
    assert accuracies(card)["natural"] == pytest.approx(right.mean(), abs=1e-12)
    words = np.array(["even", "odd"])[labels % 2]

    def parity(x):
        scores = tf.reshape(trained(x), [-1, 5, 2])
        return tf.reduce_logsumexp(scores, axis=1)

    card = asked(parity, (images, words), tests="blur", input_range=(0, 1))
    scores = parity(images / np.float32(255)).numpy().argmax(1)
    assert accuracies(card)["natural"] == pytest.approx(np.mean(scores == labels % 2), abs=1e-12)
    swapped = asked(
        parity, (images, words), tests="blur", input_range=(0, 1), label_names=["odd", "even"]
    )
    assert accuracies(swapped)["natural"] == pytest.approx(np.mean(scores != labels % 2), abs=1e-12)


def test_one_score_is_that_of_the_second_of_two_classes(digits):
    images, labels = digits
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")]
    )
    odd = labels % 2
    card = asked(model, (images, odd), tests="blur")
    expected = np.mean((model.predict(images, verbose=0)[:, 0] > 0.5) == odd)
    assert accuracies(card)["natural"] == pytest.approx(expected, abs=1e-12)


def test_a_scorecard_is_shown_as_text_and_as_html(exported, digits, expected):
    card = asked(exported, digits, tests="hot,blur")
    text = str(card)
    assert repr(card) == text
    assert (
        f"{exported.parent.name}/1: mean ± standard deviation over 2 trials on 100 test images"
        in text
    )
    for test, accuracy in expected.items():
        assert re.search(rf"^{test} +{100 * accuracy:.2f} ", text, re.MULTILINE), test
    worst = min(expected, key=expected.get)
    assert re.search(rf"^worst at +{worst}$", text, re.MULTILINE)
    drop = 100 * (expected["natural"] - expected[worst])
    assert re.search(rf"^drop +{drop:.2f}$", text, re.MULTILINE)
    mean = np.mean([value for test, value in expected.items() if test != "natural"])
    assert card.profile["mean"] == pytest.approx(mean)
    html = card._repr_html_()
    assert html.count("<table") == 2 and f"{100 * expected['hot 2']:.2f} ±" in html
    assert [label.get_text() for label in card.figure().axes[0].get_xticklabels()] == [
        "natural", "hot\n2", "blur\n0.5", "blur\n0.75", "blur\n1",
    ]  # fmt: skip
    named = asked(lambda x: x[:, 0, :10, 0], digits, tests=())
    assert "&lt;lambda&gt;" in named._repr_html_() and named._repr_html_().count("<table") == 1
    assert "over all tests" not in str(named)


def test_perturbations_of_other_libraries(trained, digits, tmp_path):
    pytest.importorskip("albumentations", exc_type=ImportError)
    text = "transform: {__class_fullname__: InvertImg, p: 1.0}"
    (tmp_path / "dark.yaml").write_text(text)
    name = f"albumentations:{tmp_path / 'dark.yaml'}"
    card = asked(trained, digits, tests=["blur", name], input_range=(0, 1))
    inverted = (255 - digits[0]) / np.float32(255)
    expected = np.mean(trained.predict(inverted, verbose=0).argmax(1) == digits[1])
    assert accuracies(card)["albumentations:dark.yaml"] == pytest.approx(expected, abs=1e-12)


def test_loaded_models_are_the_models(trained, exported, tmp_path, digits):
    images = digits[0] / np.float32(255)
    scores = trained.predict(images, verbose=0)
    saved = tmp_path / "own.keras"
    trained.save(saved)
    for path in (exported, exported.parent, str(exported), saved):
        model = rt.load_model(path)
        assert isinstance(model, keras.Model)
        np.testing.assert_allclose(model.predict(images, verbose=0), scores, rtol=1e-4, atol=1e-4)
    of_others = tmp_path / "others"
    of_bytes(trained).export(of_others, verbose=False)
    model = rt.load_model(of_others)
    assert isinstance(model, Classifier) and not model.metadata
    np.testing.assert_allclose(
        saved_models.classifiers.load(of_others, input_range=(0, 255)).scores(images),
        scores, rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    card = asked(of_others, digits, tests=())
    assert accuracies(card)["natural"] == np.mean(scores.argmax(1) == digits[1])
    assert accuracies(asked(model, digits, tests=())) == accuracies(card)
    told = saved_models.classifiers.load(of_others, input_range=(0, 1))  # which is kept
    with pytest.warns(UserWarning, match="input_range=0,255"):
        assert asked(told, digits, tests=()).table["mean"][0] < card.table["mean"][0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"model": 3},
            InvalidArgument,
            "model=int: expected a Keras model, a function, or the path",
        ),
        ({"model": "no/such"}, Unavailable, "model=no/such"),
        ({"model": "no.keras"}, Unavailable, "model=no.keras"),
        ({"labels": [1, 2]}, InvalidArgument, "labels"),
        ({"labels": [10] * 100}, InvalidArgument, "labels"),
        ({"images": np.zeros((100, 28, 28, 1)) + 7}, InvalidArgument, "value_range"),
        ({"images": np.full((100, 30, 28, 1), 9, np.uint8)}, InvalidArgument, r"\(28, 28, 1\)"),
        ({"images": np.zeros(100, np.uint8)}, InvalidArgument, "images"),
        ({"tests": "hott"}, InvalidArgument, "tests=hott: expected all, some of stuck"),
        (
            {"tests": None},
            InvalidArgument,
            r"tests: .*conditions; \[\] for natural",
        ),
        ({"tests": ["hot", 3]}, InvalidArgument, "tests=3: expected all, kinds, or conditions"),
        (
            {"images": np.zeros((100, 28, 28, 1), np.uint8)},
            InvalidArgument,
            "0 to 0: .*value_r",
        ),
        ({"images": [np.ones((3, 3)), np.ones((4, 4))]}, InvalidArgument, "images of one shape"),
        ({"labels": [[1], [1, 2]]}, InvalidArgument, "list of labels of one shape"),
        (
            {"labels": ["a", "b", "c", "d"] * 25},
            InvalidArgument,
            r"_names=a, b, c, d \(4\).* 10 ",
        ),
        ({"model": lambda x: x.numpy()}, InvalidArgument, "model=<lambda>: .*can be traced"),
        ({"model": lambda x: x[:, 0, 0, 0]}, InvalidArgument, r"scores \[B, classes\], not \[B\]"),
        ({"tests": "nrtk:a.yaml"}, Exception, "tests=nrtk:a.yaml"),
        ({"tests": [rt.Perturbation("hot", 785)]}, InvalidArgument, "785"),
        ({"trials": 0}, InvalidArgument, "trials=0"),
        ({"seed": -1}, InvalidArgument, "seed=-1"),
        ({"input_range": (1, 0)}, InvalidArgument, "input_range=1,0"),
        ({"label_names": ["a", "b"]}, InvalidArgument, "2"),
    ],
)
def test_what_is_refused(trained, digits, change, error, message):
    given = dict(zip(("images", "labels"), digits)) | {"model": trained} | change
    with pytest.raises(error, match=message) as caught:
        rt.benchmark(**given, progress=False)
    assert isinstance(caught.value, InvalidArgument | Unavailable)
    assert "\n" not in str(caught.value)


def test_what_a_model_raises_is_one_line(digits):
    def fails(images):
        raise ValueError("this model\nwants more")

    for model in (fails, lambda x: x, lambda x: x[:, 0, :3, 0]):
        with pytest.raises((Unavailable, InvalidArgument)) as caught:
            asked(model, digits, label_names=[*map(str, range(10))])
        assert "\n" not in str(caught.value)
    for path in ("nothing", "no.keras"):
        with pytest.raises(Unavailable, match=f"path={path}"):
            rt.load_model(path)


def network(image_shape=(28, 28, 1), classes=10) -> keras.Model:
    """For bytes, with probabilities at the end."""
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, strides=3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ],
        name="tiny",
    )


@pytest.fixture(scope="module")
def training(small) -> tuple[np.ndarray, np.ndarray]:
    """Two hundred training images as bytes, and their classes."""
    return small.train.images.numpy(), small.train.labels.numpy()


def fitted(model, training, **settings) -> keras.Model:
    return rt.fit(model, *training, **{"epochs": 1, "batch_size": 50, "progress": False} | settings)


def test_fit_trains_as_a_run_does_and_gives_a_copy(training, small, folders, tmp_path):
    model = network()
    before = [value.copy() for value in model.get_weights()]
    robust = fitted(model, training, perturb="hot", seed=2)
    assert [type(layer) for layer in robust.layers] == [type(layer) for layer in model.layers]
    assert robust.name == "tiny" and robust.layers[-1].activation is keras.activations.softmax
    for value, own in zip(model.get_weights(), before):
        np.testing.assert_array_equal(value, own)
    model.save(tmp_path / "tiny.keras")
    run = rt.runs.resolve(
        small, model=str(tmp_path / "tiny.keras"), value_range=(0, 255), perturb="hot", seed=2,
        epochs=1, batch_size=50,
    )  # fmt: skip
    rt.runs.train(run, small, progress=False, **folders)
    expected = rt.runs.load_model(run, **folders)
    scores = expected.predict(training[0] / np.float32(255), verbose=0)
    found = robust.predict(training[0], verbose=0)
    np.testing.assert_allclose(found, tf.nn.softmax(scores), rtol=1e-4, atol=1e-6)
    assert any((a != b).any() for a, b in zip(robust.get_weights(), before))


def test_a_network_is_a_function_or_a_text_too(training, tmp_path):
    saved = tmp_path / "tiny.keras"
    network().save(saved)
    values = [
        fitted(model, training, perturb="noise", level=0.1).predict(training[0][:20], verbose=0)
        for model in (network(), network, saved)
    ]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5)
    # Of a file there is no network of the user's in memory: the same one returns logits.
    np.testing.assert_allclose(tf.nn.softmax(values[2]), values[0], rtol=1e-3, atol=1e-6)
    ours = fitted("mnist_cnn", training, perturb=None)
    assert ours.predict(training[0][:3], verbose=0).shape == (3, 10)


def test_transfer_starts_from_the_weights(training):
    model = network()
    robust = fitted(model, training, strategy="transfer", perturb="hot", freeze_base=True)
    np.testing.assert_array_equal(robust.layers[-1].get_weights()[0], model.get_weights()[0])
    other = fitted(model, training, strategy="transfer", perturb="hot")
    assert (other.layers[-1].get_weights()[0] != model.get_weights()[0]).any()


def test_a_robust_model_is_more_robust():
    """Images that hot pixels mislead a network that has not seen any."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = rng.integers(0, 40, (400, 8, 8, 1))
    images[:, :, :4] += np.where(labels, 60, 0)[:, None, None, None]
    images = images.astype(np.uint8)

    def two_classes(image_shape, classes):
        return keras.Sequential(
            [
                keras.Input(image_shape),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(16, activation="relu"),
                keras.layers.Dense(classes),
            ]
        )

    settings = {"epochs": 15, "learning_rate": 0.01, "level": 8, "progress": False}
    robust = rt.fit(two_classes, images, labels, perturb="hot", **settings)
    natural = rt.fit(two_classes, images, labels, perturb=None, epochs=15, learning_rate=0.01,
                     progress=False)  # fmt: skip
    tests = [rt.Perturbation("hot", 8)]
    found = [accuracies(asked(model, (images, labels), tests=tests)) for model in (natural, robust)]
    assert found[0]["natural"] > 0.95 and found[1]["natural"] > 0.9
    assert found[1]["hot 8"] > found[0]["hot 8"] + 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda shape, classes: "text"}, "returns a keras.Model"),
        ({"model": "no_such_network"}, "model=no_such_network"),
        ({"model": "nothing.keras"}, "model=nothing.keras"),
        ({"model": network(classes=3)}, "labels"),
        ({"model": network((8, 8, 1))}, "model=tiny"),
        ({"labels": [1, 2]}, "labels"),
        ({"perturb": "hott"}, "hott"),
        ({"perturb": rt.Perturbation("hot", 3)}, "perturb=hot 3: expected a kind"),
        ({"perturb": ["blur", rt.Perturbation("hot", 3)]}, "perturb=blur,hot 3: expected a kind"),
        ({"perturb": 3}, "perturb=3: expected a kind"),
        ({"labels": np.array(["a", "b"] * 100)}, r"label_names=a, b \(2\): expected .* 10 classes"),
        ({"images": [np.ones((3, 3)), np.ones((4, 4))]}, "images of one shape"),
        ({"strategy": "transfert"}, "strategy=transfert"),
        ({"epoch": 3}, "epoch=3"),
        ({"batch_size": 500}, "batch_size=500"),
        ({"level": 900, "perturb": "hot"}, "900"),
        ({"images": np.zeros((200, 28, 28, 1)) - 1}, "value_range"),
    ],
)
def test_what_fit_refuses(training, change, message):
    given = dict(zip(("images", "labels"), training)) | {"model": network()} | change
    with pytest.raises((InvalidArgument, Unavailable), match=message) as caught:
        rt.fit(**given, progress=False)
    assert "\n" not in str(caught.value) and "/tmp" not in str(caught.value)


def test_subclassed_models_cannot_be_trained(training):
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = keras.layers.Dense(10)

        def call(self, images):
            return self.dense(tf.reshape(images, [-1, 784]))

    with pytest.raises(Unavailable, match="model=own: .*subclassed") as caught:
        fitted(Own(), training)
    assert "\n" not in str(caught.value)
