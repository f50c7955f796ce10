"""The benchmarks run; how fast anything is, no test says."""

import importlib.util
import os

import numpy as np
import pandas as pd
import pytest

from benchmarks import disk, fleet, peers, sensor, sensor_chain, sensor_peers
from benchmarks.isolated import Isolated
from benchmarks.timing import Failed, medians
from robust_tf import sensors
from tests.helpers import ROOT, outcome


def test_parts_run(forks, tmp_path, tmp_path_factory):
    """All that take less than a minute."""
    parts = [f"--only={part}" for part in ("perturbations", "evaluation", "processes")]
    flags = ("--quick", *parts, "--data_source=sample", "--rounds=1", f"--output_dir={tmp_path}")
    done = forks.run(["benchmarks", *flags], tmp_path_factory.mktemp("output"), os.environ, 600)
    assert done.returncode == 0, outcome(done)
    goals = pd.concat(map(pd.read_csv, tmp_path.glob("goals_*.csv")))
    assert set(goals["goal"]) >= {1, 4, 6, 7}
    assert (goals["figure"] > 0).all()
    speeds = pd.read_csv(tmp_path / "perturbations.csv")
    assert set(speeds["perturb"]) == {"hot", "noise", "blur"}
    assert {"robust_tf, tf.data", "NumPy, usual"} <= set(speeds["tool"])
    assert (tmp_path / "perturbations.png").stat().st_size > 10_000


def test_sensors_kinds_and_fleets_are_measured(small):
    """A few images, devices and kinds of each, in this process."""
    parts = [sensor.chain(1, 10, 500), sensor.corrections(1, (6, 5, 1), 10, 500)]
    parts += [sensor.kind(1, "warm", 100)]
    rows, left_out = (sum(one, []) for one in zip(*parts))
    assert left_out == [] and len(rows) >= 12
    assert all(speed > 0 for row in rows for speed in row[3:])
    table = fleet.measure(small, 1, ["--data_source=sample", "--test_examples=100"], 500)
    assert set(table["way"]) == {"bare", "study", "pipelines.fleet"}
    assert (table["images"] == 200).all() and (table["seconds"] > 0).all()
    assert [goal[0] for goal in fleet.goals(table)] == [12]


def test_photos_are_read_by_all_that_are_there():
    table, left_out = disk.measure(1, disk.PHOTOS // 40)
    assert set(table["tool"]) >= {"robust_tf, from disk", "Keras, image_dataset_from_directory"}
    assert (table["images_per_s"] > 0).all()
    there = importlib.util.find_spec("torch") is not None
    assert [line.partition(",")[0] for line in left_out] == ([] if there else ["PyTorch"])
    numbers = [number for number, *_ in disk.goals(table, 1.5)]
    assert numbers == [9] * (len(table) - 1) + [10]


@pytest.mark.parametrize("factory", [peers.numpy_usual, peers.numpy_quickest])
@pytest.mark.parametrize("kind, value", [("hot", 1.0), ("dead", 0.0), ("stuck", None)])
def test_the_peers_do_the_same_work(factory, kind, value):
    batch = np.full((20, 6, 5, 3), 0.5, np.float32)
    found = factory(kind, 4)(batch)
    changed = (found != batch).all(axis=-1)
    assert (changed.sum(axis=(1, 2)) == 4).all()
    assert (batch == 0.5).all()
    if value is not None:
        assert (found[changed] == value).all()


@pytest.mark.parametrize(
    ("function", "arguments", "problem"),
    [
        ("os:abort", [], "its process was ended by SIGABRT"),
        ("signal:raise_signal", [9], "its process was ended by SIGKILL"),
        ("os:_exit", [3], "its process exited (3)"),
        ("sys:exit", [], "its process exited (0)"),
        ("nowhere:nothing", [], "ModuleNotFoundError: No module named 'nowhere'"),
        ("math:sqrt", [-1], "ValueError: "),
    ],
)
def test_a_peer_that_crashes_is_alone(function, arguments, problem):
    peer = Isolated(function)
    with pytest.raises(Failed) as failed:
        peer.prepare(*arguments)
    assert str(failed.value).startswith(problem)
    peer.close()


CRASHING = """
import os
def prepared(folder):
    print("what a library prints")
    return os.abort
"""


def test_peers_are_measured_in_processes_and_the_others_go_on(tmp_path, monkeypatch):
    (tmp_path / "crashing_peer.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    good, bad = Isolated("benchmarks.peers:prepared"), Isolated("crashing_peer:prepared")
    assert good.prepare("NumPy, usual", "hot", 2, [6, 5, 1], 4, 3)
    assert not good.prepare("SciPy, per image", "hot", 2, [6, 5, 1], 4, 3)  # it has none
    assert good.prepare("SciPy, per image", "blur", 1, [6, 5, 1], 4, 3)
    assert bad.prepare(str(tmp_path))
    failed: dict[str, str] = {}
    found = medians({"bad": bad.seconds, "good": good.seconds}, 3, failed)
    assert list(found) == ["good"] and found["good"] > 0
    assert failed == {"bad": "its process was ended by SIGABRT"}
    with pytest.raises(Failed):  # a new process, in which nothing is prepared
        medians({"bad": bad.seconds}, 1)
    assert (good.close(), bad.close(), bad.close()) == (0, 0, 0)


@pytest.mark.parametrize("each", [False, True])
def test_the_chain_in_numpy_does_the_same_work(each):
    smooth = np.linspace(0.1, 0.7, 32, dtype=np.float32)
    images = np.tile(smooth[:, np.newaxis, np.newaxis], (300, 1, 32, 3)) * np.float32([1, 0.5, 0.8])
    theirs = sensor_chain.chain(sensor.FOR_PEERS, each)(images)
    taken = sensors.SensorDevice(sensor.SENSOR, None if each else 0)
    ours = taken(images, np.stack([np.arange(300), np.zeros(300)], axis=1).astype(int)).numpy()
    assert theirs.shape == ours.shape and theirs.dtype == ours.dtype
    np.testing.assert_array_equal(theirs, np.round(theirs * 255) / np.float32(255))
    # Away from hot photosites, which are elsewhere; medians, since each image may have its own.
    for found in (np.median, lambda x, axis: np.subtract(*np.quantile(x, [0.75, 0.25], axis=axis))):
        for channel in range(3):
            both = [found(x[..., channel], axis=(0, 2)) for x in (theirs, ours)]
            np.testing.assert_allclose(*both, atol=1.1 / 255)


def test_kinds_in_numpy_change_what_they_should():
    batch = np.full((20, 6, 5, 3), 0.5, np.float32)
    for kind, pixels in (("row", 10), ("column", 12), ("cluster", 2), ("warm", 2)):
        changed = (sensor_peers.numpy_scipy(kind, 2)(batch) != batch).any(axis=-1)
        assert (changed.sum(axis=(1, 2)) == pixels).all(), kind
        assert (batch == 0.5).all()
