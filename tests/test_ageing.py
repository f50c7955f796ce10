"""Fleets that age, and limits in a sensor's photosites: beside loops over devices and images."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Evaluator
from robust_tf.saved_models import classifiers
from robust_tf.sensors import Defects, Growth, Input, Sensor, SensorDevice
from robust_tf.sensors import fleet as fleets
from robust_tf.studies import ageing
from tests.helpers import outcome

ONE_TEST = ("--data_source=sample", "--test_examples=20")
TOML = """
[sensor]
height = 56
width = 56
[input]
binning = 2
[defects.hot]
expected = 3
[growth]
law = "linear"
source = "a test"
per_year = 40
per = "device"
"""
SENSOR = Sensor(
    height=56,
    width=56,
    input=Input(binning=2),
    kinds=(Defects(name="hot", expected=3.0),),
    growth=Growth(law="linear", source="a test", per_year=40.0, per="device"),
)


def test_each_age_is_what_a_loop_over_its_devices_finds(exported, small, tmp_path):
    classifier, asked = classifiers.load(exported), fleets.Asked(0.5, 0.25)
    folder, ages = ageing.write(
        classifier, small, SENSOR, (0.0, 6.0), 5, tmp_path, asked=asked, seed=2, progress=False
    )
    assert list(ages) == ageing.COLUMNS and ages["years"].tolist() == [0.0, 6.0]
    devices = pd.read_csv(folder / "devices.csv")
    assert len(devices) == 10
    labels = small.test.labels.numpy()
    evaluator = Evaluator(classifier, small.test, seed=2)
    for _, row in ages.iterrows():
        own = devices[devices["years"] == row["years"]]
        for device in range(5):
            taken = SensorDevice(SENSOR, device, 2, row["years"]).fitted(small.image_shape)
            right = np.mean(evaluator.predictions(taken) == labels)
            np.testing.assert_allclose(own["accuracy"].iloc[device], right)
        assert own["accuracy"].mean() == pytest.approx(row["mean_accuracy"])
        assert own["accuracy"].min() == pytest.approx(row["lowest_accuracy"])
        assert own["defects"].mean() == row["defects"]
    # About 240 more in six years, on the same devices.
    assert abs(np.diff(ages["defects"])[0] - 240) < 5 * np.sqrt(240 / 5)
    axes = ageing.figure(ages).axes[0]
    mean = next(line for line in axes.lines if line.get_label() == "mean of the devices")
    np.testing.assert_allclose(mean.get_ydata(), 100 * ages["mean_accuracy"])


def test_what_does_not_age_is_refused(exported, small, tmp_path):
    young = dataclasses.replace(SENSOR, growth=None)
    with pytest.raises(InvalidArgument, match=r"years=0,6: expected 0, as the sensor has no"):
        ageing.write(
            classifiers.load(exported), small, young, (0, 6), 5, tmp_path, asked=fleets.Asked()
        )
    assert not [*tmp_path.iterdir()]


def test_the_command_prints_a_line_an_age(in_process, exported, tmp_path):
    (tmp_path / "camera.toml").write_text(TOML)
    flags = (f"--model={exported}", f"--sensor={tmp_path}/camera.toml", *ONE_TEST)
    flags += ("--years=0:2", "--devices=60")
    done = in_process(*flags, "--accept=0.0001", pipeline="pipelines.fleet")
    assert done.returncode == 0, outcome(done)
    (folder,) = (tmp_path / "results").iterdir()
    ages = pd.read_csv(folder / "ages.csv")
    assert ages["years"].tolist() == [0, 1, 2] and ages["defects"].is_monotonic_increasing
    assert (folder / "figures" / "ageing.png").stat().st_size > 10_000
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[-1] for line in lines if line and line[0] in "012"] == ["yes"] * 3
    done = in_process(*flags, "--accept=1", pipeline="pipelines.fleet")
    assert done.returncode == 3, outcome(done)


def test_the_limit_of_a_sensor_is_in_its_photosites(in_process, exported, tmp_path):
    (tmp_path / "camera.toml").write_text(TOML)
    flags = (f"--model={exported}", f"--sensor={tmp_path}/camera.toml", *ONE_TEST, "--find_limit")
    flags += ("--devices=4", "--accept_share=0.6", "--accept=0.0001", "--perturb=dead")
    done = in_process(*flags, pipeline="pipelines.fleet")
    assert done.returncode == 0, outcome(done)
    (folder,) = (tmp_path / "results").iterdir()
    table = pd.read_csv(folder / "limits.csv")
    # One right answer of 20 is enough, and a constant one has it: all photosites may be dead.
    assert table["level"].max() == table["limit"].iloc[0] == 56 * 56
