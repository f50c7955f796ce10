"""Every position of the sensor with one defect, beside a plain loop over positions."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import measures
from robust_tf.saved_models import classifiers
from robust_tf.sensors import defect_value
from robust_tf.studies import sensor_map
from tests.helpers import check_one_line, outcome


def split_of(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(tf.constant(images, tf.uint8), tf.constant(labels, tf.int64))


def test_a_planted_weak_position_is_found():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (600, 9, 7, 1))
    labels = np.zeros(600, int)
    labels[:60] = 2  # which the model never sees

    def model(batch: tf.Tensor) -> tf.Tensor:
        defective = tf.cast(batch[:, 4, 5, 0] > 0.99, tf.int32)
        return tf.one_hot(defective, 3)  # class 0, or 1 with a hot pixel there

    found = sensor_map.measure(model, split_of(images, labels), "hot")
    table = found.positions(("zero", "one", "two"))
    weak = table[table["flipped"] > 0]
    assert weak[["row", "column"]].to_numpy().tolist() == [[4, 5]]
    assert weak.iloc[0].to_dict() == {
        "row": 4,
        "column": 5,
        "accuracy": 0.0,
        "flipped": 1.0,
        "towards": "one",
        "towards_share": 1.0,
    }
    others = table.drop(weak.index)
    assert (others["accuracy"] == 0.9).all() and others["towards"].isna().all()
    summary = found.summary()
    assert summary["natural_accuracy"] == 0.9
    assert summary["lowest_accuracy"] == summary["worst_case_accuracy"] == 0.0
    assert summary["flipped_by_some"] == 1.0
    assert summary["mean_accuracy"] == pytest.approx(0.9 * 62 / 63)
    # A dead pixel there changes nothing.
    assert (
        sensor_map.measure(model, split_of(images, labels), "dead").summary()["flipped_by_some"]
        == 0.0
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999),
    shape=st.sampled_from([(5, 4, 3), (1, 6, 1), (3, 3, 1)]),
    defect=st.sampled_from(["hot", "dead", "0.3"]),
)
def test_it_is_what_a_loop_over_positions_finds(seed, shape, defect):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (13, *shape)), rng.integers(0, 4, 13)
    weights = rng.normal(size=(np.prod(shape), 4)).astype(np.float32)

    def scores(batch):
        return tf.reshape(batch, [-1, weights.shape[0]]) @ weights

    found = sensor_map.measure(scores, split_of(images, labels), defect)
    value = {"hot": 1.0, "dead": 0.0, "0.3": 0.3}[defect]
    batch = images.astype(np.float32) / 255
    natural = (batch.reshape(13, -1) @ weights).argmax(axis=1)
    np.testing.assert_array_equal(found.natural, natural)
    accuracies, wrong_somewhere, flipped_somewhere = [], np.zeros(13, bool), np.zeros(13, bool)
    for row, column in np.ndindex(shape[:2]):
        changed = batch.copy()
        changed[:, row, column, :] = value
        predicted = (changed.reshape(13, -1) @ weights).argmax(axis=1)
        accuracies.append(np.mean(predicted == labels))
        wrong_somewhere |= predicted != labels
        flipped_somewhere |= predicted != natural
    table = found.positions(tuple("abcd"))
    assert table["accuracy"].tolist() == accuracies
    assert found.summary()["worst_case_accuracy"] == np.mean(~wrong_somewhere)
    assert found.summary()["flipped_by_some"] == np.mean(flipped_somewhere)


def test_the_command_maps_two_models(command, exported, other, sample, tmp_path):
    done = command(
        f"--model={exported}",
        f"--baseline={other}",
        "--data_source=sample",
        "--test_examples=40",
        pipeline="pipelines.sensor_map",
    )
    assert done.returncode == 0, outcome(done)
    assert "One hot pixel at each of 784 positions, 40 test images of mnist (sample)" in done.stdout
    (folder,) = (tmp_path / "results").iterdir()
    positions = pd.read_csv(folder / "positions.csv")
    assert len(positions) == 2 * 784
    summary = pd.read_csv(folder / "summary.csv")
    assert summary.columns.tolist() == sensor_map.SUMMARY_COLUMNS
    assert summary["model"].tolist() == ["untrained/1", "digits/1"]
    assert summary["training"].tolist() == ["constant hot", "natural"]
    shares = [name for name in summary if "_accuracy" in name or name == "flipped_by_some"]
    right = (40 * summary["natural_accuracy"]).round().astype(int)
    for share in [*summary[shares].to_numpy().ravel(), positions["accuracy"].iloc[-784:].min()]:
        # The mean over the positions is of no whole number of images.
        low, high = measures.interval(share, 40)
        assert f"[{100 * low:.2f}, {100 * high:.2f}]" in done.stdout
    for count in right:
        low, high = scipy.stats.binomtest(count, 40).proportion_ci(0.95, "wilson")
        assert f"[{100 * low:.2f}, {100 * high:.2f}]" in done.stdout
    assert (folder / "figures" / "sensor-map.png").stat().st_size > 5_000
    # The same as by hand, in this process.
    images = sample.test.images_at(tf.range(40)).numpy()
    images[:, 3, 2] = 1.0
    for name, path in (("digits/1", exported), ("untrained/1", other)):
        scores = classifiers.load(path)(tf.constant(images))
        right = np.argmax(scores, axis=1) == sample.test.labels[:40]
        here = (positions["row"] == 3) & (positions["column"] == 2) & (positions["model"] == name)
        assert positions[here]["accuracy"].tolist() == [np.mean(right)]


def test_a_baseline_is_another_model(exported, small, tmp_path):
    model = classifiers.load(exported)
    with pytest.raises(InvalidArgument, match="baseline=.*: expected another model"):
        sensor_map.write(model, small, "hot", tmp_path, baseline=classifiers.load(exported.parent))
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_that_is_not_there(command, exported, tmp_path):
    flags = (f"--model={exported}", f"--baseline={tmp_path}/none", "--data_source=sample")
    done = command(*flags, pipeline="pipelines.sensor_map")
    check_one_line(done, 1, f"--baseline={tmp_path}/none: there is no such folder; expected")


def test_maps_of_different_things_have_folders_of_their_own(exported, small, tmp_path):
    few = dataclasses.replace(small, test=small.test.first(2))
    model = classifiers.load(exported)
    asked = (
        (model, few),
        (model, dataclasses.replace(few, name="kmnist")),
        (dataclasses.replace(model, input_range=(0.0, 0.5)), few),
    )
    folders = {
        sensor_map.write(model, data, "hot", tmp_path, progress=False)[0] for model, data in asked
    }
    assert len(folders) == 3


@pytest.mark.parametrize("defect", ["rain", "1.5", "-1", "nan"])
def test_defects_that_are_none(command, defect):
    with pytest.raises(InvalidArgument, match="expected hot, dead, or a value from 0 to 1"):
        defect_value(defect)
    if defect == "rain":
        done = command("--defect=rain", pipeline="pipelines.sensor_map")
        check_one_line(done, 2, "--defect=rain: expected hot, dead, or a value from 0 to 1")
