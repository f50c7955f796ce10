"""The command line as a user meets it: its output, its exit code and what it leaves."""

import os
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from robust_tf import results
from tests.helpers import (
    ROOT,
    SMALL,
    check_one_line,
    command_line,
    files,
    outcome,
    table,
    wait_until,
    without_network,
)

HOT = ("--strategy=constant", "--perturb=hot")


@pytest.fixture(scope="module")
def main_run(tmp_path_factory):
    """The main command in a fresh process, and where its outputs are."""
    place = tmp_path_factory.mktemp("main")
    line = command_line(place, *HOT, *SMALL)
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=600), place


def test_the_main_command(main_run):
    done, place = main_run
    assert done.returncode == 0, outcome(done)
    header, natural, first, constant, second = done.stdout.split("\n\n")[1].splitlines()
    assert header.split() == ["natural", "stuck", "2", "dead", "2", "hot", "2"]
    assert natural.startswith("natural ") and constant.startswith("constant hot 6 ")
    assert natural.count("±") == constant.count("±") == 3
    assert first.count("[") == second.count("[") == 4  # intervals
    trials = results.read(place / "results", "trials")
    assert len(trials) == 2 * (1 + 3 * 2)
    natural_accuracy = trials[trials["test_perturb"] == "none"].set_index("strategy")["accuracy"]
    assert f"{100 * natural_accuracy['constant']:.2f}" in constant
    (folder,) = (place / "results").glob("mnist-constant-hot-6-*")
    assert len(list((folder / "figures").glob("*.png"))) == 3
    assert (place / "saved_models" / folder.name / "1" / "saved_model.pb").exists()
    assert "Traceback" not in done.stderr and "cuda" not in done.stderr.lower()


def test_from_one_command_to_the_next_by_the_savedmodel_alone(command, main_run, tmp_path):
    _, place = main_run
    (saved,) = (place / "saved_models").glob("mnist-natural-*/1")
    moved = tmp_path / "from a colleague" / "1"
    shutil.copytree(saved, moved)
    elsewhere = (f"--output_dir={tmp_path}/r2", f"--saved_models_dir={tmp_path}/s2")
    done = command(
        "--strategy=transfer", "--perturb=hot", f"--pretrained={moved.parent}", "--head_units=16,8",
        *SMALL, *elsewhere,
    )  # fmt: skip
    lines = table(done).splitlines()
    assert len(lines) == 3 and lines[1].startswith("transfer hot 6 ")
    (row,) = results.read(tmp_path / "r2", "runs").to_dict("records")
    assert row["pretrained"].startswith("from a colleague/1 ") and row["head_units"] == "[16, 8]"
    tested = command(
        f"--model={row['saved_model']}", "--data_source=sample", "--test_examples=100",
        "--trials=2", f"--output_dir={tmp_path}/r3", pipeline="pipelines.evaluate",
    )  # fmt: skip
    # The kinds of its family, and the same accuracies to the digit.
    assert table(tested).splitlines() == lines


def test_the_same_command_twice_gives_the_same_table(command, main_run, tmp_path):
    first, place = main_run
    elsewhere = command(*HOT, *SMALL)
    assert table(first) == table(elsewhere)
    pd.testing.assert_frame_equal(
        results.read(place / "results", "trials"), results.read(tmp_path / "results", "trials")
    )
    again = command(*HOT, *SMALL)
    assert "constant hot 6 is trained already" in again.stdout
    assert "training" not in again.stderr
    assert table(again) == table(first)


def test_several_seeds_are_several_runs_with_a_table_over_them(command, tmp_path):
    done = command(*SMALL, "--seeds=3,4", "--threads=1", "--eval=hot")
    assert done.returncode == 0, outcome(done)
    trials = results.read(tmp_path / "results", "trials")
    assert trials.groupby("seed").size().to_dict() == {3: 3, 4: 3}
    assert set(results.read(tmp_path / "results", "runs")["threads"]) == {1}
    natural = 100 * trials[trials["test_perturb"] == "none"]["accuracy"]
    over_seeds = done.stdout.split("Over 2 seeds")[1]
    assert f"{natural.mean():.2f} ± {natural.std(ddof=0):.2f}" in over_seeds
    alone = command(*SMALL, "--seed=4", "--threads=1", "--eval=hot")
    assert "natural is trained already" in alone.stdout


@pytest.fixture
def start(forks, tmp_path, tmp_path_factory):
    """Starts `pipelines.run` in a fork, which is then to be waited for."""

    def run(*flags):
        arguments = command_line(tmp_path, *flags)[2:]
        return forks.start(arguments, tmp_path_factory.mktemp("output"), os.environ)

    return run


def test_a_killed_run_goes_on_and_ends_with_the_same_table(command, start, forks, tmp_path):
    flags = (*HOT, *SMALL, "--epochs=30", "--compare_natural=false")
    undisturbed = command(*flags, f"--output_dir={tmp_path}/whole")
    for epochs in (3, 9, 15):
        process = start(*flags)
        wait_until(lambda enough=epochs: _epochs_done(tmp_path) >= enough)
        os.kill(process.pid, signal.SIGKILL)
        assert forks.wait(process, 60).returncode == -signal.SIGKILL
        assert not [path for path in (tmp_path / "results").iterdir() if path.suffix != ".partial"]
    done = command(*flags)
    assert table(done) == table(undisturbed)
    assert " 0%" not in done.stderr.split("testing")[0]  # it did not begin at the beginning
    exact = ["epoch", "loss", "accuracy", "perturbed_fraction"]
    histories = [results.read(tmp_path / name, "history")[exact] for name in ("results", "whole")]
    pd.testing.assert_frame_equal(*histories)


def _epochs_done(tmp_path) -> int:
    states = (tmp_path / "results").glob("*.partial/backup/epoch-*.npz")
    return max((int(state.stem[6:]) for state in states), default=0)


def test_two_processes_with_the_same_command_share_the_work(start, forks, tmp_path):
    both = [start(*HOT, *SMALL, "--epochs=20") for _ in range(2)]
    done = [forks.wait(process, 300) for process in both]
    assert [each.returncode for each in done] == [0, 0], [*map(outcome, done)]
    assert len(set(map(table, done))) == 1
    assert len(results.read(tmp_path / "results", "runs")) == 2
    assert len(results.read(tmp_path / "results", "trials")) == 2 * (1 + 3 * 2)
    # Each model was trained once, and nothing else is left.
    trained = [each.stderr.count("training natural: 100%") for each in done]
    assert sum(count > 0 for count in trained) == 1
    assert all(path.suffix != ".partial" for path in (tmp_path / "results").iterdir())
    assert len(list((tmp_path / "saved_models").glob("*/*"))) == 2


def test_dry_run_prints_the_configuration_and_writes_nothing(in_process, tmp_path):
    flags = ("--strategy=incremental", "--perturb=noise", "--data_source=sample", "--dry_run")
    done = in_process(*flags)
    assert done.returncode == 0, outcome(done)
    printed = dict(line.split(" = ") for line in done.stdout.splitlines())
    assert printed["strategy"] == "incremental"
    assert printed["train_level"] == "0.05"
    assert (printed["epochs"], printed["batch_size"]) == ("50", "400")
    assert printed["data_source"] == "sample"
    assert printed["tests"] == "natural, noise 0.0255, noise 0.03775, noise 0.05"
    assert list(tmp_path.iterdir()) == []


BAD_FLAGS = {
    "--dataset=no_such": "--dataset=no_such: expected the name of a TFDS dataset",
    "--strategy=adversarial": "--strategy=adversarial: expected one of natural, constant, increm",
    "--perturb=rain": "--perturb=rain: expected all, or some of stuck, dead, hot, noise, blur",
    "--perturb=hot --level=0": "--level=0: expected a whole number from 1",
    "--perturb=dead --level=785": "--level=785: expected a whole number from 1 to 784",
    "--perturb=noise --level=-0.1": "--level=-0.1: expected a number from 0 to 1",
    "--perturb=noise --level=nan": "--level=nan: expected a number from 0 to 1",
    "--perturb=stuck --level=2.5": "--level=2.5: expected a whole number from 1",
    "--level=2": "--level=2: expected no value with strategy=natural",
    "--perturb=hot --epochs=0": "--epochs=0: expected a whole number from 1 on",
    "--perturb=hot --epochs=few": "--epochs=few: expected a whole number from 1 on",
    "--perturb=hot --batch_size=4001": "--batch_size=4001: expected at most 4000",
    "--strategy=incremental --perturb=hot --ramp_end=1.01": "--ramp_end=1.01: expected a fraction",
    "--perturb=hot --ramp_end=1": "--ramp_end=1.0: expected no value with strategy=constant",
    "--perturb=hot --trials=0": "--trials=0: expected a whole number from 1 on",
    "--perturb=hot --output_dir=a --saved_models_dir=./a": "--saved_models_dir=a: expected",
    "--perturb=hot --eval=all,rain": "--eval=rain: expected auto, all, corrupted, tfds:NAME",
    "--perturb=hot --test_examples=1001": "--test_examples=1001: expected at most 1000",
    "--perturb=hot --freeze_base": "--freeze_base=True: expected no value with strategy=constant",
    "--strategy=transfer --perturb=hot --head_units=8,x": "--head_units=8,x: expected whole",
    "--strategy=transfer --perturb=hot --head_units=0": "--head_units=0: expected whole numbers",
    "--optimizer=sgd --beta_1=0.5": "--beta_1=0.5: expected no value with optimizer=sgd",
    "--perturb=noise --extra_pixels=1": "--extra_pixels=1: expected no value with perturb=noise",
    "--seeds=1,2 --seed=1": "--seeds=1,2: expected no value with --seed",
    "--jit_compile=on --distribute=mirrored": "--jit_compile=on: expected off with distribute=mir",
    "--no_such_flag": "no_such_flag",
    "word": "word: expected flags only",
}


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags_give_one_line_and_exit_code_2(in_process, tmp_path, flags):
    source = () if "--data" in flags else ("--data_source=sample",)
    done = in_process(*flags.split(), *source)
    check_one_line(done, 2, BAD_FLAGS[flags])
    assert files(tmp_path) == []


@pytest.mark.parametrize("flags", ["--perturb=hot --level=0", "--no_such_flag"])
def test_bad_flags_end_a_process_the_same_way(command, tmp_path, flags):
    done = command(*flags.split(), "--data_source=sample", fresh="level" in flags)
    check_one_line(done, 2, BAD_FLAGS[flags])
    assert files(tmp_path) == []


def test_xla_compiles_where_it_is_asked_to(command, tmp_path):
    flags = (*SMALL, "--strategy=natural", "--dropout=0", "--eval=hot")
    losses = []
    for jit_compile in ("on", "off"):
        folder = tmp_path / jit_compile
        done = command(*flags, f"--jit_compile={jit_compile}", f"--output_dir={folder}")
        assert done.returncode == 0 and "warning" not in done.stderr, outcome(done)
        (history,) = folder.glob("*/history.csv")
        losses.append(pd.read_csv(history)["loss"])
    assert (losses[0] != losses[1]).any()  # XLA rounds otherwise
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_a_pretrained_model_that_is_not_there(in_process, tmp_path):
    done = in_process(
        "--strategy=transfer", "--perturb=hot", f"--pretrained={tmp_path}/none", *SMALL
    )
    check_one_line(done, 1, f"--pretrained={tmp_path}/none: there is no such folder; expected")


def test_no_natural_run_stands_beside_a_model_of_others(in_process):
    """It would be of our own network."""
    flags = ("--strategy=transfer", "--perturb=hot", "--pretrained=x.keras", "--compare_natural")
    check_one_line(in_process(*flags), 2, "--compare_natural=True: expected no value with a file")


@pytest.mark.parametrize("flag", ["output_dir", "saved_models_dir"])
def test_an_unwritable_directory(in_process, tmp_path, flag):
    (tmp_path / "file").write_text("")
    done = in_process(*HOT, *SMALL, f"--{flag}={tmp_path}/file/inside")
    check_one_line(done, 1, f"--{flag}={tmp_path}/file/inside: writing failed (Not a directory)")


def test_a_corrupt_tfds_directory(in_process, tmp_path):
    folder = tmp_path / "tfds" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    done = in_process(*HOT, f"--data_dir={tmp_path}/tfds")
    check_one_line(done, 1, f"--data_dir={tmp_path}/tfds: expected a directory of prepared TFDS")
    assert files(tmp_path / "results") == []


def test_data_that_cannot_be_had(command, tmp_path):
    start = time.monotonic()
    done = command("--dataset=cifar10", *HOT, f"--data_dir={tmp_path}/none", env=without_network())
    check_one_line(done, 1, "--dataset=cifar10: ")
    assert "out of reach" in done.stderr and "tfds build cifar10" in done.stderr
    assert time.monotonic() - start < 30  # start-up included


@pytest.mark.parametrize("limit", [1_000, 50_000])
def test_a_disk_that_fills_leaves_nothing_half_written(command, start, forks, tmp_path, limit):
    """A limit on the size of a file stands for a full disk, at several steps of the way."""
    flags = (*HOT, *SMALL, "--compare_natural=false")
    process = start(*flags)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    done = forks.wait(process, 300)
    assert done.returncode == 1, outcome(done)
    last = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("error: --") and "writing failed" in last
    assert "Traceback" not in done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.name.startswith("."), path
    for path in (tmp_path / "results").iterdir():
        if path.suffix != ".partial":
            assert (path / "runs.csv").exists() and (path / "history.csv").exists()
    after = command(*flags)
    assert after.returncode == 0, outcome(after)


@pytest.mark.full_data
def test_full_mnist_falls_as_in_the_paper(command, tmp_path):
    done = command("--strategy=natural", "--epochs=8", "--trials=3")
    assert done.returncode == 0, outcome(done)
    assert "on 10,000 test images of mnist (tfds)" in done.stdout
    trials = results.read(tmp_path / "results", "trials")
    mean = 100 * results.summarize(trials).set_index(["test_perturb", "test_level"])["mean"]
    natural = mean["none"].item()
    assert natural >= 96
    assert mean["hot", 2] < natural - 10
    assert mean["stuck", 2] < natural - 6
    assert mean["dead", 2] > natural - 0.5
    assert mean["noise", 0.05] < 40
    assert mean["blur", 1] < natural - 1
