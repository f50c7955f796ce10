import functools
import os
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from pipelines import sweep
from robust_tf import results
from robust_tf.data import Sample
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.executors.processes import LocalPool
from robust_tf.paper import examples, experiments
from robust_tf.runs import resolve, sweeps
from robust_tf.runs.experiments import Cell, Selection
from robust_tf.runs.presets import DATA
from robust_tf.runs.sources import Sources
from robust_tf.runs.tasks import Task, plan, work
from tests.helpers import ROOT, check_one_line, command_line, outcome, wait_until

SMALL = (
    "--datasets=mnist",
    "--data_source=sample",
    "--train_examples=300",
    "--test_examples=200",
    "--epochs=3",
    "--trials=2",
)
GRID = (*SMALL, "--strategies=constant,transfer", "--perturbs=hot", "--levels=1,10")
# What differs between runs that are equal.
TIMES = ["seconds", "images_per_second", "saved_model"]


def tables(output_dir: Path, experiment: str = "grid") -> tuple[bytes, pd.DataFrame]:
    """The trials, as they are in the file, and the runs without times."""
    folder = output_dir / experiment / "tables"
    runs = pd.read_csv(folder / "runs.csv").drop(columns=TIMES)
    return (folder / "trials.csv").read_bytes(), runs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The output directory of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    line = command_line(folder, *GRID, "--workers=2", pipeline="pipelines.grid")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, outcome(done)
    assert "5 of 5 models are done" in done.stdout and "5/5 [" in done.stderr
    return folder / "results"


def test_a_sweep_leaves_tables_figures_and_saved_models(undisturbed):
    trials = pd.read_csv(undisturbed / "grid" / "tables" / "trials.csv")
    assert trials.columns.tolist() == results.TRIAL_COLUMNS
    natural, robust = (trials["strategy"] == "natural"), (trials["strategy"] != "natural")
    assert len(trials[robust]) == 4 * (1 + 3 * 2)
    assert len(trials[natural]) == 1 + 3 * 2
    assert not trials.duplicated(["run", "test_perturb", "test_level", "trial"]).any()
    runs = pd.read_csv(undisturbed / "grid" / "tables" / "runs.csv")
    assert len(runs) == 5 and (runs["threads"] >= 1).all() and runs["machine"].notna().all()
    # One natural model, which all transfer starts from.
    assert runs[runs["strategy"] == "transfer"]["pretrained"].unique().tolist() == [runs["run"][0]]
    versions = list((undisturbed.parent / "saved_models").glob("*/*"))
    assert len(versions) == 5
    drawn = sorted(path.name for path in (undisturbed / "grid" / "figures").iterdir())
    assert drawn == [f"figure-{name}.{end}" for name in ("A.1", "C.1") for end in ("pdf", "png")]


def test_transfer_without_its_natural_model_in_the_plan_trains_that_first(tmp_path):
    sources = Sources(data_source=Sample(), train_examples=300, test_examples=200)
    datasets = {"mnist": sources.load("mnist")}
    cells = [Cell("mnist", {"strategy": "transfer", "perturb": "hot", "level": 1})]
    tasks = plan(cells, {"epochs": 1}, datasets, trials=1)
    folders = {"output_dir": tmp_path / "results", "saved_models_dir": tmp_path / "saved_models"}
    function = functools.partial(
        work, load=sources.of, threads=1, saved_models_url="saved", **folders
    )
    ended = []
    with LocalPool(1, function) as pool:
        failed = sweeps.carry_out(
            "mine", tasks, pool, output_dir=tmp_path / "results", ended=ended.append, progress=False
        )
    assert failed == [] and ended == tasks
    runs = pd.read_csv(tmp_path / "results" / "mine" / "tables" / "runs.csv")
    assert runs["strategy"].tolist() == ["transfer"]
    assert len(list((tmp_path / "results").glob("mnist-natural-*/runs.csv"))) == 1


def test_ctrl_c_leaves_what_is_done(forks, tmp_path, tmp_path_factory):
    line = command_line(tmp_path, *GRID, pipeline="pipelines.grid")[2:]
    process = forks.start(line, tmp_path_factory.mktemp("output"), os.environ)
    folder = tmp_path / "results"
    wait_until(lambda: list(folder.glob("mnist-natural-*[!l]/trials.csv")))
    os.kill(process.pid, signal.SIGINT)
    done = forks.wait(process, 60)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    trials, runs = tables(folder)
    assert len(runs) >= 1 and b"natural" in trials  # tables of what is there


def test_dry_run_lists_the_models_with_times_and_writes_nothing(command, tmp_path):
    done = command(*GRID, "--dry_run", "--seeds=0,1", pipeline="pipelines.grid")
    assert done.returncode == 0, outcome(done)
    *models, total = done.stdout.splitlines()
    assert len(models) == 10 and "10 models, about" in total
    assert models[0].split()[:2] == ["mnist", "natural"] and models[0].split()[-1] == "s"
    assert any("transfer hot 10 seed 1" in line for line in models)
    assert list(tmp_path.iterdir()) == []


def test_impact_shares_its_model_with_the_grid_and_shows_examples(command, tmp_path):
    flags = (*SMALL, "--workers=1")
    first = command(*flags, "--perturbs=hot,noise", pipeline="pipelines.impact")
    assert first.returncode == 0, outcome(first)
    folder = tmp_path / "results" / "impact"
    trials = pd.read_csv(folder / "tables" / "trials.csv")
    assert len(trials) == 1 + (5 + 5) * 2
    # More of it, in the same place.
    second = command(*flags, "--perturbs=blur", pipeline="pipelines.impact")
    assert second.returncode == 0, outcome(second)
    trials = pd.read_csv(folder / "tables" / "trials.csv")
    assert len(trials) == 1 + (5 + 5) * 2 + 5 and len(trials["run"].unique()) == 1
    examples = pd.read_csv(folder / "tables" / "examples.csv", dtype=str)
    assert examples.groupby("figure")["example"].nunique().to_dict() == {"3": 4, "5": 1, "7": 1}
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert drawn == {f"figure-{name}" for name in ("3-mnist", "4", "5-mnist", "6", "7-mnist", "8")}
    third = command(
        *flags, "--strategies=transfer", "--perturbs=hot", "--levels=1", pipeline="pipelines.grid"
    )
    assert third.returncode == 0, outcome(third)
    assert len(list((tmp_path / "saved_models").glob("*natural*"))) == 1


def test_other_settings_in_the_same_directory_are_refused(command, tmp_path):
    flags = (*SMALL, "--strategies=constant", "--perturbs=hot", "--levels=1")
    assert command(*flags, pipeline="pipelines.grid").returncode == 0
    before = (tmp_path / "results" / "grid" / "models.csv").read_bytes()
    done = command(*flags, "--epochs=2", pipeline="pipelines.grid")
    expected = "expected a directory without natural of other settings (epochs 3 there, 2 asked"
    check_one_line(done, 2, f"--output_dir={tmp_path}/results: {expected}")
    assert (tmp_path / "results" / "grid" / "models.csv").read_bytes() == before


def test_the_ablation_runs_and_is_drawn(command, tmp_path):
    done = command(*SMALL, "--train_examples=100", pipeline="pipelines.ablation")
    assert done.returncode == 0, outcome(done)
    runs = pd.read_csv(tmp_path / "results" / "ablation" / "tables" / "runs.csv")
    assert list(zip(runs["batch_norm"], runs["dropout"], runs["activation"])) == [
        (True, 0.2, "relu"), (True, 0.0, "relu"), (False, 0.2, "relu"),
        (True, 0.2, "tanh"), (False, 0.0, "relu"), (False, 0.0, "tanh"),
    ]  # fmt: skip
    assert runs["natural_accuracy"].between(0, 1).all()
    drawn = sorted(path.name for path in (tmp_path / "results/ablation/figures").iterdir())
    assert drawn == ["table-I.pdf", "table-I.png"]


BAD_FLAGS = {
    "--datasets=": "--datasets=: expected at least one",
    "--datasets=no_such": "--datasets=no_such: expected the name of a TFDS dataset",
    "--strategies=natural": "--strategies=natural: expected some of constant, incremental, tra",
    "--perturbs=rain": "--perturbs=rain: expected some of stuck, dead, hot, noise, blur",
    "--levels=11": "--levels=11: expected some of 0.001, ",
    "--levels=few": "--levels=few: expected numbers, separated by commas",
    "--seeds=": "--seeds=: expected whole numbers from 0 on, separated by commas",
    "--seeds=-1": "--seeds=-1: expected whole numbers from 0 on",
    "--workers=0": "--workers=0: expected a whole number from 1 on",
    "--threads=0": "--threads=0: expected a whole number from 1 to 1024",
    "--trials=0": "--trials=0: expected a whole number from 1 on",
    "--epochs=0": "--epochs=0: expected a whole number from 1 on",
    "--preset=mine": "--preset=mine: expected one of text, published",
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_bad_flags_give_one_line_and_exit_code_2(command, tmp_path, flag):
    source = () if "no_such" in flag else SMALL
    given = flag.split("=")[0]
    others = [other for other in source if not other.startswith(f"{given}=")]
    done = command(*others, flag, pipeline="pipelines.grid")
    check_one_line(done, 2, BAD_FLAGS[flag])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_published_preset():
    data = Sources(data_source=Sample(), preset="published").load("mnist")
    assert data.train.divisor == data.test.divisor == 256
    cells = experiments.grid(Selection(("mnist",), perturbs=("hot", "blur"), levels=(3, 0.52)))
    tasks = plan(cells, {"preset": "published"}, {"mnist": data})
    by_label = {task.run.label: task.run for task in tasks}
    hot = by_label["incremental hot 3"]
    # One more than the axis says.
    assert hot.strategy.perturbation.level == 3 and hot.strategy.applied.level == 4
    recipe = hot.recipe
    assert (recipe.optimizer.beta_1, recipe.shuffle, recipe.drop_remainder) == (0.9, False, True)
    assert (hot.strategy.ramp.start, hot.strategy.ramp.end) == (0.0, 1 - 1 / 50)
    blur = by_label["constant blur 0.52"].strategy.applied
    assert blur.channel_blur and blur.level == 0.52
    assert "cifar10" not in DATA["published"]


def test_what_cannot_be_loaded_names_the_flag_of_sweeps():
    with pytest.raises(InvalidArgument, match="^datasets=no_such: expected the name of a TFDS"):
        sweep._load(Sources(), "no_such")


def test_examples_of_a_model_that_is_gone(small, tmp_path):
    run = resolve(small, epochs=1, batch_size=50)
    task = Task(run, (), 1)
    (tmp_path / run.name).mkdir()
    row = {"run": run.name, "saved_model": f"{run.name}/1"}
    pd.DataFrame([row]).to_csv(tmp_path / run.name / "runs.csv", index=False)
    with pytest.raises(Unavailable, match="saved_models_dir"):
        examples.write([task], {"mnist": small}, tmp_path, tmp_path / "saved")


def test_a_fair_share_of_the_cores():
    cores = len(os.sched_getaffinity(0))
    assert sweeps.threads_of_each(1) == cores
    assert sweeps.threads_of_each(10 * cores) == 1
    assert sweeps.threads_of_each(2, 7) == 7
    assert sweeps.threads_of_each(None, None, 3.0) == 3
    assert sweeps.threads_of_each(None, None, 0.5) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "2 min"), (3600, "1 h 00 min"), (3901, "1 h 06 min")],
)
def test_durations(seconds, text):
    assert sweeps.duration(seconds) == text
