"""Scores, losses and weights that are not finite: counted, said, wrong, and never handed on."""

import dataclasses
import re
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from robust_tf import models, runs
from robust_tf.data import Data, Split
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Evaluator, Natural, evaluate, examples, measures
from robust_tf.perturbations import Perturbation
from robust_tf.runs import ending
from robust_tf.saved_models import classifiers
from robust_tf.studies import comparison, confusions, sensor_map
from robust_tf.training import SGD, Adam, Backup, Recipe, fit
from robust_tf.training import Natural as NaturalTraining
from tests.helpers import files, outcome, short

NAN, INF = float("nan"), float("inf")
SIDE = 4


@pytest.fixture(scope="module")
def data() -> Data:
    """Forty images; the first pixel is 1 for images of class 0, 2 of class 1, and so on."""
    labels = np.arange(40) % 4
    images = np.zeros((40, SIDE, SIDE, 1), np.uint8)
    images[:, 0, 0, 0] = labels + 1
    split = Split.of_arrays(images, labels)
    return Data("four", "tfds", split, split, ("zero", "one", "two", "three"))


def right_but(
    value: float, spoilt: str = "all", where=lambda images: images[:, 0, 0, 0] < 1.5 / 255
):
    """Scores that are right; one score, or all, of those images is `value`."""

    def scores(images):
        label = tf.cast(tf.round(images[:, 0, 0, 0] * 255), tf.int32) - 1
        good = tf.one_hot(label, 4)
        bad = tf.fill([tf.shape(images)[0], 4], value)
        if spoilt != "all":
            bad = tf.where(tf.one_hot(int(spoilt), 4) > 0, bad, good)
        return tf.where(where(images)[:, tf.newaxis], bad, good)

    return scores


@pytest.mark.parametrize("spoilt", ["all", "0", "3"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_image_with_a_score_that_is_not_finite_is_wrong(data, value, spoilt):
    """The images of class 0, which NaN would have counted as."""
    evaluator = Evaluator(right_but(value, spoilt), data.test)
    assert evaluator.accuracy(Natural()) == 0.75
    expected = np.where(data.test.labels == 0, -1, data.test.labels)
    np.testing.assert_array_equal(evaluator.predictions(Natural()), expected)
    assert evaluator.unanswered() == 2 * 10  # of two passes
    with pytest.warns(UserWarning, match="^x: scores of 20 of 80 images are not finite, most with"):
        evaluator.warn_of_unanswered("x")


def test_trials_say_how_many_in_one_line(data):
    conditions = [Natural(), Perturbation("hot", SIDE * SIDE), Perturbation("hot", 1)]
    spoilt = right_but(NAN, where=lambda images: tf.reduce_min(images, axis=(1, 2, 3)) == 1)
    with pytest.warns(UserWarning) as caught:
        table = evaluate(spoilt, data.test, conditions, trials=2)
    assert table["accuracy"][1:3].tolist() == [0, 0] and table["accuracy"][0] == 1
    (line,) = (str(one.message) for one in caught)
    assert line == (
        "the model: scores of 80 of 200 images are not finite, most with hot 16 (80 of 80); "
        "these images count as wrong"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(right_but(0.0), data.test, conditions, trials=2)


@pytest.mark.parametrize("logits", [True, False])
def test_measures_of_unanswered_images_by_counting(logits):
    random = np.random.default_rng(3)
    scores = random.normal(0, 2, (300, 10)) if logits else random.dirichlet(np.ones(10), 300)
    scores, labels = scores.astype(np.float32), random.integers(0, 10, 300)
    clean = scores.copy()
    for first, value in enumerate((NAN, INF, -INF)):
        scores[first::6, 4 + first] = value
    left = np.arange(300) % 6 > 2
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        found = measures.probabilities(scores)
        error = measures.calibration_error(found, np.where(left, labels, 0))
        brier = measures.brier_score(found, labels)
    np.testing.assert_array_equal(found[left], measures.probabilities(clean[left]))
    assert not found[~left].any()
    # They add the confidence 0 to what the others add, and are wrong although argmax is 0.
    own = measures.calibration_error(measures.probabilities(clean[left]), labels[left])
    assert error == pytest.approx(own * left.mean())
    own = measures.brier_score(measures.probabilities(clean[left]), labels[left])
    assert brier == pytest.approx((own * left.sum() + (~left).sum()) / 300)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_measures_take_what_is_not_finite(value):
    scores = np.full((7, 3), value, np.float32)
    assert not measures.probabilities(scores).any()
    for given in (scores, measures.probabilities(scores)):
        assert measures.calibration_error(given, np.zeros(7, int)) == 0
        assert measures.brier_score(given, np.zeros(7, int)) == 1


@pytest.mark.parametrize("label", [-1, 3, 10, 255])
@pytest.mark.parametrize("measure", [measures.calibration_error, measures.brier_score])
def test_measures_refuse_labels_that_are_no_class(measure, label):
    line = f"^labels: expected labels from 0 to 2, not {label} as 2 have of 7$"
    with pytest.raises(InvalidArgument, match=line):
        measure(np.full((7, 3), 1 / 3), np.array([0, 1, 2, label, label, 0, 0]))


@pytest.mark.parametrize("name", ["nan_u8/00000042", "a model", "testing"])
def test_the_line_begins_with_the_models_name(data, name):
    with pytest.warns(UserWarning, match=f"^{name}: scores of 10 of 40 images are not finite"):
        evaluate(right_but(NAN), data.test, [Natural()], trials=1, label=f"testing {name}")


def save_spoilt(folder, **options):
    """A SavedModel of `right_but`."""
    scores = right_but(**options)
    signature = tf.function(lambda images: {"scores": scores(images)}, autograph=False)
    spec = tf.TensorSpec([None, SIDE, SIDE, 1], tf.float32, name="images")
    signatures = {"serving_default": signature.get_concrete_function(spec)}
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)
    return classifiers.load(folder)


def test_a_comparison_with_a_model_that_answers_nothing(data, tmp_path):
    everywhere = {"where": lambda images: images[:, 0, 0, 0] > -1}
    loaded = {
        "good": save_spoilt(tmp_path / "good", value=0.0, where=lambda x: x[:, 0, 0, 0] < -1),
        "part": save_spoilt(tmp_path / "part", value=INF, spoilt="2"),
        "none": save_spoilt(tmp_path / "none", value=NAN, **everywhere),
    }
    conditions = [Natural(), Perturbation("dead", 1)]
    with pytest.warns(UserWarning, match="^none: scores of 80 of 80 images are not finite"):
        found = comparison.measure(
            loaded, data, conditions, baseline="good", trials=1, seed=0, progress=False
        )
    natural = found.tests[found.tests["test_perturb"] == "none"].set_index("model")
    assert natural["accuracy"].tolist() == [1, 0.75, 0]
    assert natural["unanswered"].tolist() == [0, 0.25, 1]
    assert natural["brier_score"]["none"] == 1 and natural["calibration_error"]["none"] == 0
    pairs = found.pairs[found.pairs["test_perturb"] == "none"]
    assert pairs[["only_first", "only_second"]].to_numpy().tolist() == [[10, 0], [40, 0], [30, 0]]


def test_maps_and_confusions_have_no_answer_as_a_class(data):
    """A hot pixel in the last row takes the answer away."""
    model = right_but(NAN, where=lambda images: tf.reduce_max(images[:, -1], axis=(1, 2)) == 1)
    table = sensor_map.measure(model, data.test, "hot").positions(data.label_names)
    last = table[table["row"] == SIDE - 1]
    assert (last["accuracy"] == 0).all() and (last["towards"] == "no answer").all()
    assert (table[table["row"] == 1]["accuracy"] == 1).all()
    hot = Perturbation("hot", SIDE * SIDE)
    with pytest.warns(UserWarning, match=r"most with hot 16 \(40 of 40\)"):
        found = confusions.measure(model, data, [hot], trials=1, seed=0)
    moved = found.changes[found.changes["images"] > 0]
    assert moved["natural"].tolist() == list(data.label_names)
    assert (moved["perturbed"] == "no answer").all() and (moved["images"] == 10).all()
    assert (found.flips["perturbed"] == "no answer").all() and len(found.flips) == 40
    confusions.changes_figure(found.changes, data.label_names, "a model")
    answered = confusions.measure(right_but(0.0), data, [hot], trials=1, seed=0)
    assert len(answered.changes) == 16  # of four classes


def test_examples_name_no_class_for_no_answer(data):
    everywhere = right_but(NAN, where=lambda images: images[:, 0, 0, 0] > -1)
    table = examples.misled({"none": everywhere}, data, [Natural()], seed=0)
    assert (table["predicted"] == "no answer").all()


def training_of(small, optimizer, batch_size=50, epochs=2):
    return NaturalTraining().prepare(
        small.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10),
        Recipe(epochs=epochs, batch_size=batch_size, optimizer=optimizer),
    )


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "what"),
    [(SGD(learning_rate=1e38), 50, "loss"), (Adam(learning_rate=1e38), 50, "loss"),
     (SGD(learning_rate=3e38), 200, ".*")],
    ids=["sgd", "adam", "one step"],
)  # fmt: skip
def test_a_diverging_training_ends_with_one_line(small, tmp_path, optimizer, batch_size, what):
    started = training_of(small, optimizer, batch_size)
    line = rf"^learning_rate=\de\+38: the training diverges, {what} is not finite in epoch \d;"
    with pytest.raises(Unavailable, match=line):
        fit(started, backup=Backup(tmp_path))
    states = [np.load(path) for path in tmp_path.glob("*.npz")]
    numbers = [state[name] for state in states for name in state if state[name].dtype.kind == "f"]
    assert all(np.isfinite(values).all() for values in numbers)


def test_weights_that_the_last_step_ruins_are_seen(small):
    """The loss of the only step is that of the weights before it."""

    class Ruin(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = self.model.trainable_variables[0]
            kernel.assign(kernel.value * INF)

    started = training_of(small, Adam(learning_rate=0.001), 200, epochs=1)
    started = dataclasses.replace(started, callbacks=(Ruin(), *started.callbacks))
    with pytest.raises(Unavailable, match="kernel is not finite in epoch 1"):
        fit(started)


def test_a_diverging_run_hands_nothing_on(small, folders):
    """Not the first time, nor when the same command is given again."""
    for _ in range(2):
        with pytest.raises(Unavailable, match="^learning_rate=1e\\+38: .* nothing is exported"):
            runs.train(short(small, learning_rate=1e38), small, progress=False, **folders)
    assert not [path for path in files(folders["saved_models_dir"]) if path.suffix == ".pb"]
    assert not list(folders["output_dir"].rglob("runs.csv"))


def test_a_diverging_command_ends_with_one_line(in_process):
    flags = ("--data_source=sample", "--train_examples=100", "--test_examples=50", "--epochs=1")
    done = in_process(*flags, "--trials=1", "--learning_rate=1e38")
    assert done.returncode == 1 and "Traceback" not in done.stderr, outcome(done)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --learning_rate=1e+38: the training diverges, loss is not fini")


@pytest.mark.parametrize(
    ("labels", "accuracy", "said"),
    [
        ([0, 1], 1.0, "is hard to judge: 100.00% of the 2 natural .* more test images would tell"),
        ([0, 0, 0, 1], 1.0, "is hard to judge: 100.00% of the 4 natural .* alone: 75.00%"),
        ([0] * 8 + [1], 8 / 9, "ended near chance: 88.89% of the 9 natural .* more epochs may"),
        ([0] * 30 + [1] * 30, 1.0, None),
    ],
)
def test_few_test_images_are_no_fault_of_the_training(small, labels, accuracy, said):
    test = Split(small.test.images[: len(labels)], tf.constant(labels, tf.int64))
    data = dataclasses.replace(small, test=test)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ending.check(short(small), data, 0, accuracy, pd.DataFrame({"loss": [0.1]}))
    assert len(caught) == (said is not None)
    assert not caught or re.search(said, str(caught[0].message))


@pytest.mark.parametrize(
    ("unanswered", "accuracy", "loss", "said"),
    [
        (0, 0.10, 2.3, "ended near chance: 10.00%"),
        (0, 0.02, 2.3, "ended near chance: 2.00%"),
        (0, 0.30, 1e30, "ended with a loss of 1e\\+30, and 30.00%"),
        (7, 0.80, 0.2, "scores of 7 of 100 natural test images are not finite"),
        (0, 0.11, 2.3, "ended near chance: 11.00%"),
        (0, 0.30, 2.3, None),
        (0, 0.99, 5.0, None),
    ],
)
def test_a_training_that_led_nowhere_is_said(small, unanswered, accuracy, loss, said):
    arguments = (short(small), small, unanswered, accuracy, pd.DataFrame({"loss": [1.0, loss]}))
    if said is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ending.check(*arguments)
    else:
        with pytest.warns(UserWarning, match=said):
            ending.check(*arguments)
    with pytest.raises(Unavailable, match="no score of the trained model is finite"):
        ending.check(*arguments[:2], 100, *arguments[3:])
