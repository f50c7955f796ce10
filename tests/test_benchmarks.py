"""The benchmarks run; how fast anything is, no test says."""

import os

import numpy as np
import pandas as pd
import pytest

from benchmarks import peers
from benchmarks.isolated import Isolated
from benchmarks.timing import Failed, medians
from robust_tf.perturbations import KINDS
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
    assert set(speeds["perturb"]) == set(KINDS)
    assert {"robust_tf, tf.data", "NumPy, usual"} <= set(speeds["tool"])
    assert (tmp_path / "perturbations.png").stat().st_size > 10_000


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
