"""The command line as a user meets it: a process of its own, its output and exit code."""

import itertools
import os
import resource
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from robust_tf import results
from robust_tf.paper import experiments
from robust_tf.perturbations import KINDS
from robust_tf.training.strategies import STRATEGIES
from tests.helpers import ROOT, command_line

SMALL = (
    "--data_source=sample", "--train_examples=300", "--test_examples=100", "--epochs=3",
    "--trials=2",
)  # fmt: skip
HOT = ("--strategy=constant", "--perturb=hot")


def outcome(done) -> str:
    return f"{done.returncode}\n{done.stdout}\n{done.stderr}"


def test_the_main_command(command, tmp_path):
    done = command(*HOT, *SMALL, fresh=True)
    assert done.returncode == 0, outcome(done)
    header, natural, constant = done.stdout.split("\n\n")[1].splitlines()
    assert header.split() == ["natural", "stuck", "2", "dead", "2", "hot", "2"]
    assert natural.startswith("natural ") and constant.startswith("constant hot 6 ")
    assert natural.count("±") == constant.count("±") == 3
    trials = results.read(tmp_path / "results", "trials")
    assert len(trials) == 2 * (1 + 3 * 2)
    natural_accuracy = trials[trials["test_perturb"] == "none"].set_index("strategy")["accuracy"]
    assert f"{100 * natural_accuracy['constant']:.2f}" in constant
    (folder,) = (tmp_path / "results").glob("mnist-constant-hot-6-*")
    assert len(list((folder / "figures").glob("*.png"))) == 3
    assert (tmp_path / "saved_models" / folder.name / "1" / "saved_model.pb").exists()
    assert "Traceback" not in done.stderr and "cuda" not in done.stderr.lower()


def test_from_one_command_to_the_next_by_the_savedmodel_alone(command, tmp_path):
    natural = command(*SMALL, "--eval=hot")
    assert natural.returncode == 0, outcome(natural)
    saved = natural.stdout.split("SavedModel")[-1].strip()
    moved = tmp_path / "from a colleague" / "1"
    moved.parent.mkdir()
    os.rename(saved, moved)
    elsewhere = (f"--output_dir={tmp_path}/r2", f"--saved_models_dir={tmp_path}/s2")
    done = command(
        "--strategy=transfer", "--perturb=hot", f"--pretrained={moved.parent}", "--head_units=16,8",
        *SMALL, *elsewhere,
    )  # fmt: skip
    lines = table(done).splitlines()
    assert len(lines) == 2 and lines[1].startswith("transfer hot 6 ")
    (row,) = results.read(tmp_path / "r2", "runs").to_dict("records")
    assert row["pretrained"].startswith("from a colleague/1 ") and row["head_units"] == "[16, 8]"
    tested = command(
        f"--model={row['saved_model']}", "--data_source=sample", "--test_examples=100",
        "--trials=2", f"--output_dir={tmp_path}/r3", pipeline="pipelines.evaluate",
    )  # fmt: skip
    # The kinds of its family, and the same accuracies to the digit.
    assert table(tested).splitlines()[1] == lines[1]
    assert table(tested).splitlines()[0] == lines[0]


def table(done) -> str:
    assert done.returncode == 0, outcome(done)
    return done.stdout.split("\n\n")[-2]


def test_the_same_command_twice_gives_the_same_table(command, tmp_path):
    first = command(*HOT, *SMALL)
    elsewhere = command(
        *HOT, *SMALL, f"--output_dir={tmp_path}/r2", f"--saved_models_dir={tmp_path}/s2"
    )
    assert table(first) == table(elsewhere)
    pd.testing.assert_frame_equal(
        results.read(tmp_path / "results", "trials"), results.read(tmp_path / "r2", "trials")
    )
    again = command(*HOT, *SMALL)
    assert "constant hot 6 is trained already" in again.stdout
    assert "training" not in again.stderr
    assert table(again) == table(first)


def test_a_killed_run_goes_on_and_ends_with_the_same_table(command, tmp_path):
    flags = (*HOT, *SMALL, "--epochs=30", "--compare_natural=false")
    undisturbed = command(*flags, f"--output_dir={tmp_path}/whole")
    for epochs in (3, 9):
        _kill_after(tmp_path, flags, epochs)
    done = command(*flags)
    assert table(done) == table(undisturbed)
    assert " 0%" not in done.stderr.split("testing")[0]  # it did not begin at the beginning
    exact = ["epoch", "loss", "accuracy", "perturbed_fraction"]
    histories = [results.read(tmp_path / name, "history")[exact] for name in ("results", "whole")]
    pd.testing.assert_frame_equal(*histories)


def _kill_after(tmp_path, flags, epochs):
    process = subprocess.Popen(
        command_line(tmp_path, *flags),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        states = (tmp_path / "results").glob("*.partial/backup/epoch-*.npz")
        if any(int(state.stem[6:]) >= epochs for state in states):
            break
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not [path for path in (tmp_path / "results").iterdir() if path.suffix != ".partial"]


def test_two_processes_with_the_same_command_share_the_work(tmp_path):
    flags = (*HOT, *SMALL, "--epochs=20")
    processes = [
        subprocess.Popen(
            command_line(tmp_path, *flags),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    tables = {out.split("\n\n")[-2] for out, _ in outputs}
    assert len(tables) == 1
    assert len(results.read(tmp_path / "results", "runs")) == 2
    assert len(results.read(tmp_path / "results", "trials")) == 2 * (1 + 3 * 2)
    # Each model was trained once, and nothing else is left.
    trained = [err.count("training natural: 100%") for _, err in outputs]
    assert sum(count > 0 for count in trained) == 1
    assert all(path.suffix != ".partial" for path in (tmp_path / "results").iterdir())
    assert len(list((tmp_path / "saved_models").glob("*/*"))) == 2


def test_dry_run_prints_the_configuration_and_writes_nothing(command, tmp_path):
    done = command("--strategy=incremental", "--perturb=noise", "--data_source=sample", "--dry_run")
    assert done.returncode == 0, outcome(done)
    printed = dict(line.split(" = ") for line in done.stdout.splitlines())
    assert printed["strategy"] == "incremental"
    assert printed["train_level"] == "0.05"
    assert (printed["epochs"], printed["batch_size"]) == ("50", "400")
    assert printed["data_source"] == "sample"
    assert printed["tests"] == "natural, noise 0.0255, noise 0.03775, noise 0.05"
    assert list(tmp_path.iterdir()) == []


def test_help_shows_our_flags_first(command):
    done = command("--help")
    assert done.returncode == 0
    flags = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  --")]
    assert {"--strategy:", "--perturb:", "--level:", "--seed:", "--eval:"} <= set(flags)
    assert flags[0] == "--activation:"  # in order of the alphabet, none of a library before


BAD_FLAGS = {
    "--dataset=no_such": "--dataset=no_such: expected the name of a TFDS dataset",
    "--strategy=adversarial": "--strategy=adversarial: value should be one of <natural|constant|",
    "--perturb=rain": "--perturb=rain: expected all, or some of stuck, dead, hot, noise, blur",
    "--perturb=hot --level=0": "--level=0: expected a whole number from 1",
    "--perturb=dead --level=785": "--level=785: expected a whole number from 1 to 784",
    "--perturb=noise --level=-0.1": "--level=-0.1: expected a number from 0 to 1",
    "--perturb=noise --level=nan": "--level=nan: expected a number from 0 to 1",
    "--perturb=stuck --level=2.5": "--level=2.5: expected a whole number from 1",
    "--perturb=hot --epochs=0": "--epochs=0: expected a whole number from 1 on",
    "--perturb=hot --epochs=few": "--epochs=few: ",
    "--perturb=hot --batch_size=4001": "--batch_size=4001: expected at most 4000",
    "--perturb=hot --ramp_end=1.01": "--ramp_end=1.01: expected a fraction from 0 to 1",
    "--perturb=hot --trials=0": "--trials=0: expected a whole number from 1 on",
    "--perturb=hot --output_dir=a --saved_models_dir=./a": "--saved_models_dir=./a: expected",
    "--perturb=hot --eval=all,rain": "--eval=rain: expected auto, all, corrupted, tfds:NAME",
    "--perturb=hot --test_examples=1001": "--test_examples=1001: expected at most 1000",
    "--perturb=hot --freeze_base": "--freeze_base=True: expected no value with strategy=constant",
    "--strategy=transfer --perturb=hot --head_units=8,x": "--head_units=8,x: expected whole",
    "--strategy=transfer --perturb=hot --head_units=0": "--head_units=0: expected whole numbers",
    "--no_such_flag": "no_such_flag",
    "word": "word: expected flags only",
}


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


def check_one_line(done, code, message):
    assert done.returncode == code, outcome(done)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert done.stdout == ""


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags_give_one_line_and_exit_code_2(command, tmp_path, flags):
    source = () if "--dataset" in flags else ("--data_source=sample",)
    done = command(*flags.split(), *source, fresh=flags == "--perturb=hot --level=0")
    check_one_line(done, 2, BAD_FLAGS[flags])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written == []


def test_a_pretrained_model_that_is_not_there(command, tmp_path):
    done = command("--strategy=transfer", "--perturb=hot", f"--pretrained={tmp_path}/none", *SMALL)
    check_one_line(done, 1, f"--pretrained={tmp_path}/none: expected the directory of a SavedModel")


@pytest.mark.parametrize("flag", ["output_dir", "saved_models_dir"])
def test_an_unwritable_directory(command, tmp_path, flag):
    (tmp_path / "file").write_text("")
    done = command(*HOT, *SMALL, f"--{flag}={tmp_path}/file/inside")
    check_one_line(done, 1, f"--{flag}={tmp_path}/file/inside: writing failed (Not a directory)")


def test_a_corrupt_tfds_directory(command, tmp_path):
    folder = tmp_path / "tfds" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    done = command(*HOT, f"--data_dir={tmp_path}/tfds")
    check_one_line(done, 1, f"--data_dir={tmp_path}/tfds: expected a directory of prepared TFDS")
    assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()]


def test_data_that_cannot_be_had(command, tmp_path):
    # A proxy that refuses stands for a network that is out of reach.
    away = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    away.pop("TFDS_DATA_DIR", None)
    start = time.monotonic()
    done = command("--dataset=cifar10", *HOT, f"--data_dir={tmp_path}/none", env=away)
    check_one_line(done, 1, "--dataset=cifar10: ")
    assert "out of reach" in done.stderr and "tfds build cifar10" in done.stderr
    assert time.monotonic() - start < 30  # start-up included


@pytest.mark.parametrize("limit", [1_000, 50_000])
def test_a_disk_that_fills_leaves_nothing_half_written(command, tmp_path, limit):
    """A limit on the size of a file stands for a full disk, at several steps of the way."""
    flags = (*HOT, *SMALL, "--compare_natural=false")
    done = command(
        *flags,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
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


@pytest.mark.full_data
def test_the_papers_cifar10_network_with_each_strategy_and_kind(tmp_path):
    from robust_tf import data, runs
    from robust_tf.runs.declaration import Options

    cifar10 = data.load("cifar10", train_examples=100, test_examples=50)
    folders = {"output_dir": tmp_path / "results", "saved_models_dir": tmp_path / "saved_models"}
    kinds = itertools.cycle(KINDS)
    asked = [("natural", None), ("constant", next(kinds)), ("incremental", next(kinds))]
    asked += [("transfer", next(kinds)), ("constant", next(kinds)), ("incremental", next(kinds))]
    assert {strategy for strategy, _ in asked} == set(STRATEGIES)
    assert {kind for _, kind in asked} == {None, *KINDS}
    for strategy, kind in asked:
        options = Options(strategy=strategy, perturb=kind, epochs=1, batch_size=50)
        run = options.resolve(cifar10)
        assert run.model == "cifar10_cnn"
        runs.train(run, cifar10, progress=False, **folders)
        conditions = experiments.test_conditions((kind,) if kind else tuple(KINDS))
        trials = runs.test(run, cifar10, conditions, trials=1, progress=False, **folders)
        assert len(trials) == len(conditions)
        assert trials["accuracy"].between(0, 1).all()
    assert len(results.read(folders["output_dir"], "runs")) == len(asked)
