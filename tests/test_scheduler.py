"""Faults of a sweep's processes and disks, with work of some 50 ms in place of training."""

import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from robust_tf.files import is_locked
from tests import short_sweep

MODELS = 9
KILLS = 10


def start(forks, folder: Path, output: Path, **environment: str):
    """Begins a sweep in a process of its own: the process, and a call that waits for its end."""
    line = ["tests.short_sweep", f"{folder}/results", f"{folder}/saved_models"]
    fork = forks.start(line, output, {**os.environ, **environment})
    return fork, lambda: forks.wait(fork, 60)


@pytest.fixture
def sweep(forks, tmp_path, tmp_path_factory):
    """Begins a sweep in the directory of a test; see `start`."""
    return lambda **environment: start(
        forks, tmp_path, tmp_path_factory.mktemp("output"), **environment
    )


@pytest.fixture(scope="module")
def undisturbed(forks, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    _, wait = start(forks, folder, tmp_path_factory.mktemp("output"))
    done = wait()
    assert done.returncode == 0 and "9 of 9 models are done" in done.stdout, done.stderr
    assert "9/9 [" in done.stderr
    return folder


def tables(folder: Path) -> list[bytes]:
    tables = folder / "results" / "grid" / "tables"
    return [(tables / f"{name}.csv").read_bytes() for name in ("runs", "trials")]


def check_same(folder: Path, expected: Path) -> None:
    assert tables(folder) == tables(expected)
    names = [sorted(path.name for path in each.glob("*/*")) for each in (folder, expected)]
    assert names[0] == names[1]  # nothing is left over, hidden or not


def at_work(folder: Path) -> bool:
    """Whether a model is being trained or tested."""
    return any(map(is_locked, folder.glob("results/mnist-*")))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_sweep_leaves_the_tables_of_all_its_models(undisturbed):
    runs = pd.read_csv(undisturbed / "results" / "grid" / "tables" / "runs.csv")
    trials = pd.read_csv(undisturbed / "results" / "grid" / "tables" / "trials.csv")
    assert len(runs) == trials["run"].nunique() == MODELS
    assert trials["run"].drop_duplicates().tolist() == runs["run"].tolist()
    assert not trials.duplicated(["run", "test_perturb", "test_level", "trial"]).any()


def test_kills_at_random_moments_change_nothing(sweep, undisturbed, tmp_path):
    moments = random.Random(7)
    killed_at_work = 0
    for i in range(KILLS):
        fork, wait = sweep()
        if i % 3:  # the others while it starts
            wait_for(lambda: at_work(tmp_path))
        time.sleep(moments.uniform(0, 0.04))
        killed_at_work += at_work(tmp_path)
        os.kill(fork.pid, signal.SIGKILL)
        assert wait().returncode == -signal.SIGKILL
        wait_for(lambda: not at_work(tmp_path))  # its processes go with it
    assert killed_at_work >= KILLS // 2
    _, wait = sweep()
    done = wait()
    assert done.returncode == 0, done.stderr
    check_same(tmp_path, undisturbed)


def test_a_process_that_is_killed_takes_its_model_and_no_other(sweep, undisturbed, tmp_path):
    faults = tmp_path / short_sweep.FAULTS
    faults.mkdir()
    (faults / "dies-constant hot 4").touch()
    (faults / "fails-constant hot 7").touch()
    done = sweep()[1]()
    assert done.returncode == 1 and "7 of 9 models are done" in done.stdout
    assert "\nmnist constant hot 4: its process was ended by SIGKILL\n" in done.stderr
    assert "\nmnist constant hot 7: ValueError: no such luck\n" in done.stderr
    runs = pd.read_csv(tmp_path / "results" / "grid" / "tables" / "runs.csv")
    assert len(runs) == 7
    # It is mended, and the same command does what is left.
    for fault in faults.iterdir():
        fault.unlink()
    faults.rmdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/*/trials.csv")}
    done = sweep()[1]()
    assert done.returncode == 0, done.stderr
    check_same(tmp_path, undisturbed)
    assert len(before) == 7 and {path: path.stat().st_mtime_ns for path in before} == before


def test_transfer_fails_with_its_natural_model(sweep, tmp_path):
    (tmp_path / short_sweep.FAULTS).mkdir()
    (tmp_path / short_sweep.FAULTS / "fails-natural").touch()
    done = sweep()[1]()
    assert done.returncode == 1 and "4 of 9 models are done" in done.stdout
    assert done.stderr.count(": its natural model failed\n") == 4
    assert "mnist natural: ValueError" in done.stderr


def test_two_sweeps_in_one_directory_share_the_models(sweep, undisturbed, tmp_path):
    both = [sweep()[1] for _ in range(2)]
    ends = [wait() for wait in both]
    assert [end.returncode for end in ends] == [0, 0], ends
    check_same(tmp_path, undisturbed)
    worked = (tmp_path / "saved_models" / short_sweep.LOG).read_text().split()
    assert sorted(worked) == sorted(set(worked)) and len(worked) == MODELS
    # Each counts the models of the other.
    assert all("9/9 [" in end.stderr for end in ends)
    # Nothing is left to do, and nothing is done.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/mnist-*/*")}
    done = sweep()[1]()
    assert done.returncode == 0 and "9 of 9 models are done" in done.stdout
    assert "9/9" not in done.stderr  # no bar
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_one_of_two_sweeps_is_killed(sweep, undisturbed, tmp_path):
    (first, wait_for_first), (_, wait_for_second) = sweep(), sweep()
    wait_for(lambda: at_work(tmp_path))
    time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    assert wait_for_first().returncode == -signal.SIGKILL
    done = wait_for_second()
    assert done.returncode == 0, done.stderr
    check_same(tmp_path, undisturbed)


def test_a_disk_that_fills_goes_on_where_there_is_room(sweep, undisturbed, tmp_path):
    """A limit on the size of a file stands for a full disk."""
    done = sweep(SHORT_SWEEP_LIMIT=str(len(short_sweep.STATE) // 2))[1]()
    assert done.returncode == 1 and "0 of 9 models are done" in done.stdout
    assert "writing failed" in done.stderr and "Traceback" not in done.stderr
    done = sweep()[1]()
    assert done.returncode == 0, done.stderr
    check_same(tmp_path, undisturbed)


def test_ctrl_c_leaves_tables_of_what_is_done(sweep, undisturbed, tmp_path):
    moments = random.Random(5)
    for time_of in range(3):
        fork, wait = sweep()
        wait_for(lambda: at_work(tmp_path))
        time.sleep(moments.uniform(0, 0.08))
        os.kill(fork.pid, signal.SIGINT)
        done = wait()
        # On a machine that is busy a later one may be through before it is asked to stop.
        # And Python drops an interrupt that comes while it forks, which the pool does here only.
        dropped = "Exception ignored in" in done.stderr
        assert done.returncode == 130 or ((time_of or dropped) and done.returncode == 0)
        assert ("Traceback" not in done.stderr or dropped) and not at_work(tmp_path)
        trained = {path.parent.name for path in tmp_path.glob("results/mnist-*[!l]/runs.csv")}
        runs = pd.read_csv(tmp_path / "results" / "grid" / "tables" / "runs.csv")
        # All but those that ended while the tables were written.
        assert set(runs["run"]) <= trained and len(trained - set(runs["run"])) <= 2
        if len(trained) == MODELS:  # nothing would be at work
            break
    done = sweep()[1]()
    assert done.returncode == 0, done.stderr
    check_same(tmp_path, undisturbed)
