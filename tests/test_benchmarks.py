"""The benchmarks run; how fast anything is, no test says."""

import subprocess
import sys

import pandas as pd

from robust_tf.perturbations import KINDS
from tests.conftest import ROOT


def test_the_benchmark_of_costs_runs(tmp_path):
    flags = ("--train_examples=300", "--test_examples=100", "--rounds=1")
    command = [sys.executable, "-m", "benchmarks.cost", *flags, "--data_source=sample"]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'cost.csv'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "cost.csv")
    evaluation = table[table["what"] == "evaluation"]
    assert evaluation["test"].tolist() == ["natural", *KINDS]
    assert (evaluation["ratio"] > 0).all()
    assert len(table[table["what"] == "training"]) > len(KINDS)
