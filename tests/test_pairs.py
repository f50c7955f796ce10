"""All pairs of defects, beside a plain loop over pairs."""

import itertools

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf import models
from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.models.layers import Standardization
from robust_tf.saved_models import classifiers
from robust_tf.studies import pairs
from tests.helpers import check_one_line, outcome

layers = keras.layers


def split_of(images: np.ndarray) -> Split:
    return Split(tf.constant(images, tf.uint8), tf.zeros([len(images)], tf.int64))


def all_pairs(model, image: np.ndarray, value: float) -> tuple[bool, set[tuple]]:
    """By definition: whether one defect changes the class, and the pairs that do."""
    places = list(np.ndindex(image.shape[:2]))
    hit = [*((one,) for one in places), *itertools.combinations(places, 2)]
    changed = np.repeat(image[np.newaxis], 1 + len(hit), axis=0)
    for row, positions in enumerate(hit, start=1):
        for place in positions:
            changed[row][place] = value
    classes = np.argmax(model(tf.constant(changed)), axis=1)
    flipped = [one for one, found in zip(hit, classes[1:], strict=True) if found != classes[0]]
    return any(len(one) == 1 for one in flipped), {one for one in flipped if len(one) == 2}


def check(table: pd.DataFrame, model, images: np.ndarray, value: float = 1.0) -> None:
    for row, image in zip(table.itertuples(), images.astype(np.float32) / 255, strict=True):
        by_one, by_two = all_pairs(model, image, value)
        assert row.flipped_by_one == by_one
        if by_one:
            assert pd.isna(row.flipped_by_two) and pd.isna(row.row_2)
            continue
        assert row.flipped_by_two == (len(by_two) > 0)
        if by_two:
            assert ((row.row_1, row.column_1), (row.row_2, row.column_2)) in by_two
        else:
            assert pd.isna(row.row_1) and pd.isna(row.towards)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 999),
    shape=st.sampled_from([(4, 5, 1), (3, 4, 3)]),
    defect=st.sampled_from(["hot", "dead", "0.4"]),
    size=st.sampled_from([0.3, 1.0]),
)
def test_it_is_what_a_loop_over_pairs_finds(seed, shape, defect, size):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (6, *shape))
    weights = [rng.normal(size=(np.prod(shape), 8)), size * rng.normal(size=(8, 3))]
    shift = rng.normal(size=3)

    def model(batch):
        hidden = tf.tanh(tf.reshape(batch, [-1, weights[0].shape[0]]) @ weights[0].astype("f"))
        return hidden @ weights[1].astype("f") + shift.astype("f")

    value = {"hot": 1.0, "dead": 0.0, "0.4": 0.4}[defect]
    check(pairs.measure(model, split_of(images), defect), model, images, value)


def network(kind: str, shape: tuple[int, int, int], seed: int) -> keras.Model:
    """A small network with weights and statistics as if it were trained."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input(shape)
    x = Standardization("pixel")(inputs)
    x = layers.Conv2D(5, 3, 2 if kind == "strides" else 1, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu" if kind != "tanh" else "tanh")(x)
    x = layers.MaxPooling2D(2)(x)
    if kind == "deep":
        x = layers.Conv2D(4, 2, padding="same", activation="elu")(x)
    x = layers.Flatten()(x)
    if kind == "head":
        x = layers.Dense(12, activation="relu")(x)
    built = keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.5)(x)))
    for layer in built.layers:
        if isinstance(layer, Standardization):
            layer.mean.assign(rng.uniform(0, 1, layer.mean.shape))
            layer.scale.assign(rng.uniform(0.2, 2, layer.scale.shape))
        elif isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(rng.normal(size=layer.gamma.shape))
            layer.moving_variance.assign(rng.uniform(0.2, 3, layer.gamma.shape))
        for kernel in layer.trainable_weights if hasattr(layer, "kernel") else ():
            kernel.assign(rng.normal(size=kernel.shape) / max(1, np.prod(kernel.shape[:-1])) ** 0.5)
    return built


@pytest.mark.parametrize("kind", ["plain", "strides", "tanh", "deep", "head"])
def test_bounds_exclude_no_pair_that_flips(kind):
    excluded = 0
    for seed in range(4):
        shape = (8, 7, 1 + seed % 2)
        built = network(kind, shape, seed)

        def model(batch, built=built):
            return tf.nn.softmax(built(batch))

        images = np.random.default_rng(seed).integers(0, 256, (6, *shape))
        bounds = pairs.Bounds.of(built)
        table = pairs.measure(model, split_of(images), "hot", bounds)
        check(table, model, images)
        searched = table[table["flipped_by_two"].eq(False).fillna(False)]
        excluded += (searched["pairs"] - searched["classified"]).sum()
        # Pair by pair, not only the first.
        for image in images[:2].astype(np.float32) / 255:
            single = np.repeat(image[np.newaxis], 1 + 56, axis=0)
            for place in range(56):
                single[1 + place].reshape(56, -1)[place] = 1
            unsure = bounds.unsure(tf.constant(single), model(single).numpy())
            _, by_two = all_pairs(model, image, 1.0)
            for one, other in by_two:
                assert unsure[np.ravel_multi_index(one, (8, 7)), 7 * other[0] + other[1]]
    assert excluded > 0


def test_networks_of_other_layers_have_no_bounds():
    def relu(values):  # by its name alone
        return 2 * values

    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(3, 3)(inputs)
    flat = layers.Flatten()
    assert pairs.Bounds.of(keras.Model(inputs, layers.Dense(3)(flat(x)))) is not None
    others = [
        layers.Dense(3)(layers.GlobalAveragePooling2D()(x)),
        layers.Dense(3)(flat(layers.Activation("gelu")(x))),  # falls, then rises
        layers.Dense(3)(flat(layers.Add()([x, x]))),
        layers.Dense(3)(flat(layers.Activation(relu)(x))),
        layers.Dense(3, activation="softmax")(flat(x)),
        layers.Dense(3)(layers.Flatten()(layers.DepthwiseConv2D(3)(x))),
    ]
    for outputs in others:
        assert pairs.Bounds.of(keras.Model(inputs, outputs)) is None
    ours = ("mnist_cnn", (28, 28, 1), 10)
    assert pairs.Bounds.of(models.build(*ours)) is not None
    assert pairs.Bounds.of(models.build(*ours, precision="mixed_bfloat16")) is None


def test_bounds_of_another_function_are_not_used():
    built = network("plain", (8, 7, 1), 0)
    images = tf.zeros([57, 8, 7, 1])
    scores = np.full((57, 3), 1 / 3, np.float32)
    assert pairs.Bounds.of(built).unsure(images, scores) is None


def test_a_planted_pair_is_found_and_shares_are_counted():
    images = np.full((4, 6, 5, 1), 50)
    images[3, 5, 4] = 255  # half of what is needed
    images[2, 0, 0] = 0

    def model(batch):
        both = batch[:, 1, 2, 0] + batch[:, 5, 4, 0] + 0.4 * batch[:, 0, 0, 0] > 1.9
        return tf.one_hot(tf.cast(both, tf.int32), 3)

    table = pairs.measure(model, split_of(images))
    assert table["flipped_by_one"].tolist() == [False, False, False, True]
    assert table["flipped_by_two"].tolist()[:3] == [True] * 3
    positions = table[["row_1", "column_1", "row_2", "column_2"]].to_numpy()
    assert positions[:3].tolist() == [[1, 2, 5, 4]] * 3
    assert positions[3, :2].tolist() == [1, 2]
    assert (table["towards"] == 1).all()
    assert pairs.summary_of(table) | {"classified": 0} == {
        "n_examples": 4,
        "natural_accuracy": 1.0,
        "flipped_by_one": 0.25,
        "searched": 3,
        "flipped_by_two": 1.0,
        "flipped_by_one_or_two": 1.0,
        "classified": 0,
    }


def test_the_most_harmful_pairs_go_first():
    gains = np.random.default_rng(0).uniform(0, 1, (12, 12)).astype(np.float32)
    best = np.sort(gains.ravel())[-2:].sum()

    def model(batch):
        gain = tf.reduce_sum(batch[..., 0] * gains, axis=(1, 2))
        return tf.stack([tf.fill(tf.shape(gain), float(best) - 1e-4), gain], axis=1)

    (row,) = pairs.measure(model, split_of(np.zeros((1, 12, 12, 1)))).itertuples()
    assert row.flipped_by_two and row.pairs == 144 * 143 // 2
    assert row.classified <= 100  # the first that go through together
    assert gains[row.row_1, row.column_1] + gains[row.row_2, row.column_2] == pytest.approx(best)


def test_an_image_without_an_answer_is_another_class():
    def model(batch):
        both = tf.reduce_sum(batch, axis=(1, 2, 3)) > 1.5
        return tf.one_hot(tf.zeros(tf.shape(both), tf.int32), 2) / tf.where(both, 0.0, 1.0)[:, None]

    (row,) = pairs.measure(model, split_of(np.zeros((1, 3, 3, 1)))).itertuples()
    assert row.flipped_by_two and row.towards == -1


def test_large_images_are_refused():
    with pytest.raises(InvalidArgument, match=r"dataset=\(65, 64, 1\): expected .* 4,096 pixels"):
        pairs.measure(lambda batch: batch, split_of(np.zeros((1, 65, 64, 1))))


def test_the_command_searches(in_process, exported, sample, tmp_path):
    flags = (f"--model={exported}", "--data_source=sample", "--test_examples=2", "--defect=dead")
    done = in_process(*flags, pipeline="pipelines.pairs")
    assert done.returncode == 0, outcome(done)
    assert "Pairs of dead pixels, 2 test images of mnist (sample), in percent" in done.stdout
    (folder,) = (tmp_path / "results").iterdir()
    table = pd.read_csv(folder / "images.csv")
    assert table.columns.tolist() == pairs.IMAGE_COLUMNS
    summary = pd.read_csv(folder / "summary.csv")
    assert summary.columns.tolist() == pairs.SUMMARY_COLUMNS
    classifier = classifiers.load(exported)
    assert pairs.bounds_of(classifier) is not None
    images = sample.test.images_at(tf.range(2)).numpy()
    for row, image in zip(table.itertuples(), images, strict=True):
        single = np.repeat(image[np.newaxis], 784, axis=0)
        single.reshape(784, 784)[np.arange(784), np.arange(784)] = 0
        natural = np.argmax(classifier(image[np.newaxis]))
        assert row.natural == natural
        assert row.flipped_by_one == (np.argmax(classifier(single), axis=1) != natural).any()
        if row.flipped_by_two is True:
            image[[int(row.row_1), int(row.row_2)], [int(row.column_1), int(row.column_2)]] = 0
            assert np.argmax(classifier(image[np.newaxis])) == row.towards != natural


def test_defects_that_are_none(in_process):
    done = in_process("--defect=rain", pipeline="pipelines.pairs")
    check_one_line(done, 2, "--defect=rain: expected hot, dead, or a value from 0 to 1")
