"""Training and tests with images that the devices of a sensor take."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

from pipelines import shared_flags
from robust_tf import models, runs
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import InBits, evaluate
from robust_tf.perturbations import example_seeds
from robust_tf.seeds import stream_seed
from robust_tf.sensors import Sensor, SensorDevice
from robust_tf.training import Constant, Incremental, Recipe

GREY = """
[sensor]
height = 28
width = 28
filter = "mono"
bits = 10

[defects.hot]
expected = 4
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "grey.toml"
    path.write_text(GREY)
    return path


def test_each_training_image_is_taken_by_another_device(small, file):
    taken = SensorDevice(Sensor.read(file))
    training = Constant(perturbation=taken).prepare(
        small.train,
        lambda: models.build("mnist_cnn", (28, 28, 1), 10),
        Recipe(epochs=1, batch_size=50, shuffle=False),
    )
    found = np.concatenate([images for images, _ in training.batches])
    index = tf.range(200)
    own = example_seeds(stream_seed(0, "training perturbation"), index)
    natural = small.train.images_at(index)
    np.testing.assert_array_equal(found, taken(natural, own))
    changed = (found != natural.numpy()).reshape(200, -1).sum(axis=1)
    assert len({*changed}) > 4 and changed.mean() == pytest.approx(4, abs=1)
    again = found[:50] == found[50:100]  # of other seeds other devices
    assert not again.all()


def test_a_run_is_known_by_the_content_of_its_sensor(small, file, tmp_path):
    run = runs.resolve(small, perturb=f"sensor:{file}", strategy="incremental")
    assert isinstance(run.strategy, Incremental) and run.perturbation == SensorDevice(
        Sensor.read(file)
    )
    columns = run.columns()
    assert columns["train_perturb"] == Sensor.read(file).kind
    assert columns["train_level"] is None and columns["extra_pixels"] is None
    assert run.label == f"incremental {Sensor.read(file).kind}" and "/" not in run.name
    assert pickle.loads(pickle.dumps(run)) == run
    (tmp_path / "there").mkdir()
    copy = tmp_path / "there" / "grey.toml"
    copy.write_text("# The same.\n" + GREY)
    assert runs.resolve(small, perturb=f"sensor:{copy}", strategy="incremental").name == run.name
    copy.write_text(GREY.replace("expected = 4", "expected = 5"))
    assert runs.resolve(small, perturb=f"sensor:{copy}", strategy="incremental").name != run.name


def test_what_does_not_fit_is_one_line(small, file, tmp_path):
    with pytest.raises(InvalidArgument, match="level=3: expected no value with perturb=sensor:"):
        runs.resolve(small, perturb=f"sensor:{file}", level=3)
    with pytest.raises(InvalidArgument, match="extra_pixels=1: expected no value with perturb=sen"):
        runs.resolve(small, perturb=f"sensor:{file}", extra_pixels=1)
    with pytest.raises(Unavailable, match="perturb=sensor:none.toml: it cannot be read"):
        runs.resolve(small, perturb="sensor:none.toml")
    file.write_text(GREY.replace("mono", "RGGB"))
    expected = "sensor=grey, filter=RGGB: expected filter=mono for images of 1 channel"
    with pytest.raises(InvalidArgument, match=expected):
        runs.resolve(small, perturb=f"sensor:{file}")
    with pytest.raises(InvalidArgument, match=expected):
        shared_flags.Tests(eval=(f"sensor:{file}",)).of_other_libraries(small)
    file.write_text(GREY.replace("expected", "expekted"))
    expected = r"eval=sensor:.*grey.toml, \[defects.hot\] expekted: expected some of expected"
    with pytest.raises(InvalidArgument, match=expected):
        shared_flags.Tests(eval=(f"sensor:{file}",)).of_other_libraries(small)


def test_a_sensor_is_a_test_of_random_devices(small, file):
    tests = shared_flags.Tests(eval=("hot", f"sensor:{file}"), bits=8)
    assert tests.kinds(None) == ("hot",)
    for trained in (f"sensor:{file}", Sensor.read(file).kind):
        assert shared_flags.Tests().kinds(trained) == shared_flags.Tests().kinds(None)
    (one,) = tests.of_other_libraries(small)
    assert one == InBits(SensorDevice(Sensor.read(file)), 8)

    def model(images):  # sees bright pixels only
        bright = tf.reduce_sum(tf.cast(images == 1, tf.float32), axis=[1, 2])
        return tf.one_hot(tf.cast(bright[:, 0], tf.int32) % 10, 10)

    table = evaluate(model, small.test, [one], trials=3)
    assert {*table["test_perturb"]} == {f"8-bit {Sensor.read(file).kind}"}
    assert table["test_level"].isna().all() and (table["changed"].iloc[1:] > 0).all()
    devices = [SensorDevice(Sensor.read(file), device) for device in (0, 1)]
    found = evaluate(model, small.test, devices, trials=3)  # the same in all trials
    assert found["test_perturb"].tolist() == [one.kind for one in devices]
