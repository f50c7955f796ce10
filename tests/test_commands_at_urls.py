"""Commands whose outputs are at URLs."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import check_one_line, outcome
from tests.test_uploads import cache as cache

SMALL = ("--data_source=sample", "--train_examples=300", "--test_examples=100", "--trials=1")


def test_a_sweep_with_outputs_at_a_url_goes_on(command, tmp_path):
    flags = (
        *SMALL,
        f"--output_dir=file://{tmp_path}/there/results",
        f"--saved_models_dir=file://{tmp_path}/there/saved_models",
    )
    grid = ("--datasets=mnist", "--strategies=transfer", "--perturbs=hot", "--epochs=2")
    first = command(*flags, *grid, "--levels=1", pipeline="pipelines.grid")
    assert first.returncode == 0, outcome(first)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("saved_model.pb")}
    assert len(times) == 2
    second = command(*flags, *grid, "--levels=1,2", pipeline="pipelines.grid")
    assert second.returncode == 0, outcome(second)
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not trained again
    runs = pd.read_csv(tmp_path / "there" / "results" / "grid" / "tables" / "runs.csv")
    assert len(runs) == 3
    for row in runs.itertuples():
        assert row.saved_model == f"file://{tmp_path}/there/saved_models/{row.run}/1"
        assert (Path(row.saved_model.removeprefix("file://")) / "saved_model.pb").is_file()
    report = command(flags[-2], pipeline="pipelines.report")
    assert report.returncode == 0, outcome(report)
    assert (tmp_path / "there" / "results" / "report.html").is_file()


def test_a_driver_that_is_not_installed(command):
    missing = subprocess.call([sys.executable, "-c", "import gcsfs"], stderr=subprocess.DEVNULL)
    if not missing:
        pytest.skip("gcsfs is installed")
    check_one_line(command(*SMALL, "--output_dir=gs://bucket/x"), 1, "--output_dir=gs://bucket/x: ")
