"""The benchmarks run; how fast anything is, no test says."""

import os

import numpy as np
import pandas as pd
import pytest

from benchmarks import peers
from robust_tf.perturbations import KINDS
from tests.helpers import outcome


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
