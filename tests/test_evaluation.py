import keras
import numpy as np
import pytest
import tensorflow as tf

from robust_tf import models
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator, Natural, Recorded, evaluate
from robust_tf.evaluation import evaluator as evaluator_lib
from robust_tf.perturbations import Perturbation, example_seeds
from robust_tf.seeds import stream_seed

CONDITIONS = [Natural(), Perturbation("hot", 2), Perturbation("hot", 5), Perturbation("blur", 0.5)]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return models.build("mnist_cnn", (28, 28, 1), 10, seed=1)


def by_hand(model, split, condition, trial, seed=0) -> np.ndarray:
    images = split.images_at(tf.range(len(split)))
    if condition != Natural():
        base = stream_seed(seed, f"evaluation/{trial}")
        images = condition(images, example_seeds(base, tf.range(len(split))))
    return model.predict(images, verbose=0).argmax(axis=1)


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_accuracy_is_that_of_predictions_by_hand(model, sample, condition, monkeypatch):
    monkeypatch.setattr(
        "robust_tf.evaluation.evaluator.batch_size", lambda shape: 300
    )  # last one: 100
    evaluator_lib._shared_traces.cache_clear()
    evaluator = Evaluator(model, sample.test)
    for trial in (0, 3):
        expected = by_hand(model, sample.test, condition, trial)
        np.testing.assert_array_equal(evaluator.predictions(condition, trial), expected)
        right = (expected == sample.test.labels.numpy()).mean()
        assert evaluator.accuracy(condition, trial) == right


def test_a_classifier_that_counts_hot_pixels():
    # Scores that tell how many pixels are 1: an answer known without any model.
    split = Split(tf.zeros([70, 6, 6, 1], tf.uint8), tf.constant([3] * 50 + [2] * 20, tf.int64))

    def counts(images):
        return tf.one_hot(tf.cast(tf.reduce_sum(images, axis=(1, 2, 3)), tf.int32), 10)

    evaluator = Evaluator(counts, split)
    assert evaluator.accuracy(Perturbation("hot", 3)) == 50 / 70
    assert evaluator.accuracy(Perturbation("hot", 2)) == 20 / 70
    assert evaluator.accuracy(Natural()) == 0


def test_a_model_is_called_in_inference_mode(small):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(keras.layers.Dropout(0.9)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10)(x))
    evaluator = Evaluator(model, small.test)
    np.testing.assert_array_equal(
        evaluator.predictions(Natural()), evaluator.predictions(Natural())
    )


def test_one_trace_a_kind_for_all_trials_and_levels(small):
    traced = []

    def scores(images):
        traced.append(1)  # runs while tracing only
        return tf.reduce_mean(images, axis=(1, 2))

    conditions = [
        Natural(),
        *(Perturbation("stuck", level) for level in (1, 2, 3)),
        *(Perturbation("noise", level) for level in (0.0255, 0.03775, 0.05)),
        *(Perturbation("blur", level) for level in (0.5, 1.0)),
    ]
    table = evaluate(scores, small.test, conditions, trials=4)
    assert len(table) == 1 + 3 * 4 + 3 * 4 + 2
    assert len(traced) == 4  # natural, stuck, noise, blur


def test_trials_differ_and_deterministic_conditions_run_once(model, sample):
    table = evaluate(model, sample.test, CONDITIONS, trials=5)
    rows = table.groupby(["test_perturb", "test_level"], dropna=False)["trial"].apply(list)
    assert rows["none"].tolist() == [[0]]
    assert rows["blur"].tolist() == [[0]]
    assert rows["hot"].tolist() == [[0, 1, 2, 3, 4]] * 2
    assert table[table["test_perturb"] == "hot"]["accuracy"].nunique() > 2
    assert (table["n_examples"] == 1000).all()


def test_trials_repeat_and_depend_on_the_seed(model, sample):
    def hot(seed):
        return evaluate(model, sample.test, CONDITIONS[1:2], trials=4, seed=seed)["accuracy"]

    assert hot(1).tolist() == hot(1).tolist()
    assert hot(1).tolist() != hot(2).tolist()


def test_done_trials_are_left_out(model, small):
    done = {(Natural().key, 0), (("hot", 2.0), 1)}
    table = evaluate(model, small.test, CONDITIONS[:2], trials=3, done=done)
    assert table["test_perturb"].tolist() == ["hot", "hot"]
    assert table["trial"].tolist() == [0, 2]


def test_a_level_that_does_not_fit_the_images(model, small):
    with pytest.raises(InvalidArgument, match="level=785"):
        evaluate(model, small.test, [Perturbation("dead", 785)])


def _counted(call, traces):
    def counted(self, *arguments):
        traces.append((self.kind, not tf.executing_eagerly()))
        return call(self, *arguments)

    return counted


def test_models_of_one_architecture_share_traces_and_keep_their_weights(small, monkeypatch):
    evaluator_lib._shared_traces.cache_clear()
    traces = []
    monkeypatch.setattr(Perturbation, "__call__", _counted(Perturbation.__call__, traces))
    trained = [models.build("mnist_cnn", (28, 28, 1), 10, seed=seed) for seed in (1, 2)]
    other = models.build("mnist_cnn", (28, 28, 1), 10, seed=1, batch_norm=False)
    hot = Perturbation("hot", 3)
    for _ in range(2):
        for model in (*trained, other):
            found = Evaluator(model, small.test).predictions(hot)
            np.testing.assert_array_equal(found, by_hand(model, small.test, hot, 0))
    assert [kind for kind, graph in traces if graph] == ["hot", "hot"]  # two architectures
    evaluator = Evaluator(trained[0], small.test)
    trained[0].set_weights(trained[1].get_weights())
    expected = by_hand(trained[1], small.test, Natural(), 0)
    np.testing.assert_array_equal(evaluator.predictions(Natural()), expected)


def test_recorded_images_share_a_trace(small):
    traced = []

    def scores(images):
        traced.append(1)
        return tf.reduce_mean(images, axis=(1, 2))

    halves = [
        Recorded("upper", np.nan, small.test.first(50)),
        Recorded("lower", 3.0, Split(small.test.images[50:], small.test.labels[50:])),
    ]
    table = evaluate(scores, small.test, halves)
    assert table["n_examples"].tolist() == [50, 50] and len(traced) == 1


def test_no_more_architectures_are_kept_than_a_sweep_has():
    evaluator_lib._shared_traces.cache_clear()
    first = evaluator_lib._shared_traces("first")
    assert evaluator_lib._shared_traces("first") is first
    for other in range(100):
        evaluator_lib._shared_traces(str(other))
    assert evaluator_lib._shared_traces.cache_info().currsize < 100
    assert evaluator_lib._shared_traces("first") is not first


def test_models_that_their_configuration_does_not_tell_share_nothing(small):
    class Scaled(keras.Model):
        def __init__(self, factor=1.0):
            super().__init__()
            self.factor = factor

        def call(self, images):
            return tf.reduce_mean(images, axis=(1, 2)) * self.factor * tf.range(10.0)

    def normalized(mean):
        inputs = keras.Input((28, 28, 1), name="images")
        x = keras.layers.Normalization(mean=mean, variance=1.0, name="n")(inputs)
        x = keras.layers.GlobalAveragePooling2D(name="g")(x)
        return keras.Model(inputs, keras.layers.Concatenate(name="c")([x, -x]), name="m")

    pairs = [(Scaled(), 9), (Scaled(-1.0), 0), (normalized(-1.0), 0), (normalized(2.0), 1)]
    for model, answer in pairs:
        assert (Evaluator(model, small.test).predictions(Natural()) == answer).all()
