"""Files of one run in the place of another's: a sync, a copy, a move."""

import shutil
import warnings

import pandas as pd
import pytest

from robust_tf import data as data_lib
from robust_tf import results, runs, saved_models
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import Natural
from robust_tf.perturbations import Perturbation
from robust_tf.runs import stages, sweeps, tasks
from robust_tf.runs.pool import Outcome
from robust_tf.runs.tasks import Task
from robust_tf.saved_models import classifiers
from robust_tf.studies import comparison, robustness
from tests.helpers import carry_out, short
from tests.test_results import trials

CONDITIONS = (Natural(), Perturbation("hot", 2))
TABLES = ("runs.csv", "history.csv", "trials.csv", "checksums.json")


@pytest.fixture(scope="module")
def both(small, tmp_path_factory):
    """Two finished runs, natural and with another seed, and where they are."""
    place = tmp_path_factory.mktemp("both")
    where = {"output_dir": place / "results", "saved_models_dir": place / "results/saved_models"}
    two = [short(small), short(small, seed=1)]
    for run in two:
        carry_out(run, small, where)
    return two, where


@pytest.fixture
def mixed(both, tmp_path):
    """A copy of them to mix up: the runs, and the directory."""
    two, where = both
    shutil.copytree(where["output_dir"], tmp_path / "results")
    return two, tmp_path / "results"


def places(directory):
    return {"output_dir": directory, "saved_models_dir": directory / "saved_models"}


def swap(first, second):
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def test_swapped_savedmodels_are_refused_by_all_that_use_them(mixed, small):
    (mine, other), directory = mixed
    swap(*(directory / "saved_models" / run.name / "1" for run in (mine, other)))
    message = f"is the SavedModel of another run, {other.name}; remove the folder"
    where = places(directory)
    with pytest.raises(Unavailable, match=message):
        runs.test(mine, small, CONDITIONS, trials=3, progress=False, **where)
    with pytest.raises(Unavailable, match=message):
        stages.load_model(mine, **where)
    assert not Task(mine, CONDITIONS, 3).is_whole(**where)


@pytest.mark.parametrize("damage", ["saved_model.pb", "variables/variables.index", "all"])
def test_a_sweep_sees_a_damaged_export_of_a_finished_run(mixed, small, damage):
    (mine, _), directory = mixed
    folder = directory / "saved_models" / mine.name / "1"
    task = Task(mine, CONDITIONS, 3)
    assert task.is_whole(**places(directory))
    if damage == "all":  # removed to save room: nothing is damaged
        shutil.rmtree(folder)
    else:
        (folder / damage).write_bytes(b"")
    assert task.is_done(directory) and task.is_whole(**places(directory)) == (damage == "all")

    class Pool:
        busy, free, given = 0, 1, []

        def submit(self, task):
            self.given.append(task)
            self.busy = 1

        def wait(self, seconds):
            self.busy = 0
            return [Outcome(self.given[-1], "damaged")]

    pool = Pool()
    pool.given = []
    failed = sweeps.carry_out("grid", [task], pool, progress=False, **places(directory))
    assert len(failed) == len(pool.given) == (damage != "all")


@pytest.mark.parametrize("names", [TABLES, ("trials.csv", "checksums.json"), ("trials.csv",)])
def test_tables_of_another_run_are_not_taken(mixed, small, names):
    (mine, other), directory = mixed
    before = results.read(directory, "trials")
    for name in names:
        shutil.copy(directory / other.name / name, directory / mine.name / name)
    where = places(directory)
    if len(names) > 1:
        line = f"of another run, {other.name}" if "runs.csv" in names else "damaged .line 2: not as"
        with pytest.raises(Unavailable, match=f"runs.csv is {line}.*; remove the folder"):
            runs.test(mine, small, CONDITIONS, trials=3, progress=False, **where)
        return
    assert not Task(mine, CONDITIONS, 3).is_done(directory)
    with pytest.warns(UserWarning, match="left out"):
        found = runs.test(mine, small, CONDITIONS, trials=3, progress=False, **where)
    expected = before[before["run"] == mine.name].reset_index(drop=True)
    pd.testing.assert_series_equal(found["accuracy"], expected["accuracy"])


def test_a_gathered_table_has_each_run_once_whatever_lies_in_its_folder(mixed):
    (mine, other), directory = mixed
    rows = pd.DataFrame([Task(run, CONDITIONS, 3).columns() for run in (mine, other)])
    results.add_to_plan(directory, "grid", rows)
    results.gather(directory, "grid")
    whole = results.read_experiment(directory, "grid", "trials")
    shutil.copy(directory / other.name / "trials.csv", directory / mine.name)
    (directory / mine.name / "checksums.json").unlink()  # as of an earlier version
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results.gather(directory, "grid")
    left = results.read_experiment(directory, "grid", "trials")
    assert set(left["run"]) == {other.name} and len(left) == len(whole) / 2
    shutil.copy(directory / other.name / "runs.csv", directory / mine.name)
    with pytest.raises(Unavailable, match="of another run"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results.gather(directory, "grid")


def test_an_evaluation_with_the_trials_of_another(both, small, tmp_path):
    (mine, _), where = both
    model = classifiers.load(where["saved_models_dir"] / mine.name)
    how = {"trials": 2, "output_dir": tmp_path, "progress": False}
    (first, expected), (second, _) = (
        robustness.write(model, small, CONDITIONS, seed=seed, **how) for seed in (0, 1)
    )
    for name in ("trials.csv", "checksums.json"):
        shutil.copy(second / name, first / name)
    with pytest.warns(UserWarning, match="trials of another model than"):
        _, found = robustness.write(model, small, CONDITIONS, seed=0, **how)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("layout", ["within", "beside"])
def test_a_directory_that_was_moved_brings_its_models(mixed, tmp_path, layout):
    (mine, other), directory = mixed
    elsewhere = tmp_path / "other" / "place"
    if layout == "beside":
        (directory / "saved_models").rename(directory.with_name("saved_models"))
        shutil.copytree(tmp_path / "saved_models", elsewhere / "saved_models")
    shutil.copytree(directory, elsewhere / "results")
    for run in (mine, other):
        found = comparison.find(run.name, elsewhere / "results")
        assert found.is_relative_to(elsewhere) and found.parent.name == run.name


def test_a_copy_of_a_runs_folder_is_not_a_second_run(mixed):
    (mine, other), directory = mixed
    expected = results.read(directory, "trials")
    for name in (f"{mine.name} (copy)", "old", f"{other.name}-backup"):
        shutil.copytree(directory / (other if "backup" in name else mine).name, directory / name)
    for table in ("trials", "runs"):
        with pytest.warns(UserWarning, match="whose folder is beside it; it is left out"):
            found = results.read(directory, table)
        assert not found.duplicated([*expected.columns[expected.columns.isin(found)]]).any()
    pd.testing.assert_frame_equal(results.summarize(results.read(directory, "trials")),
                                  results.summarize(expected))  # fmt: skip


@pytest.mark.parametrize(
    "again",
    [
        lambda table: table,
        lambda table: table.iloc[1:2],
        lambda table: table.assign(saved_model="m/2", accuracy=0.5),
    ],
)
def test_a_trial_that_is_there_twice_does_not_count_twice(again):
    table = trials()
    for tell in (results.summarize, results.comparison, results.profile):
        with pytest.raises(InvalidArgument, match="^trials=.*: expected each trial once"):
            tell(pd.concat([table, again(table)], ignore_index=True))


def test_natural_images_have_no_level_whatever_is_written():
    table = trials()
    natural = table["test_perturb"] == "none"
    for level in (0, 0.0, 7):
        other = table.assign(test_level=table["test_level"].where(~natural, level))
        pd.testing.assert_frame_equal(results.summarize(other), results.summarize(table))


def test_what_training_warns_of_in_a_sweep_is_said(tmp_path, monkeypatch):
    data = data_lib.load("mnist", data_source="sample", train_examples=60, test_examples=40)
    run = runs.resolve(data, epochs=1, learning_rate=1e-9)
    # As in a process for nothing but tasks.
    monkeypatch.setattr(tasks, "_set_up", lambda *_, **__: warnings.simplefilter("ignore"))
    how = {"load": lambda _: data, "threads": 1, "saved_models_url": "s", **places(tmp_path)}
    notes = tasks.work(Task(run, CONDITIONS[:1], 1), **how)
    assert len(notes) == 1 and "ended near chance" in notes[0]


def test_nothing_of_the_users_in_a_run_is_removed(mixed, small):
    (mine, _), directory = mixed
    own = directory / mine.name
    (own / "backup").mkdir()
    for name in ("backup/trials.csv", ".bad-trials.csv", ".0123456-runs.csv", "notes.txt"):
        (own / name).write_text("mine")
    version = directory / "saved_models" / mine.name / ".1-original"
    version.mkdir()
    runs.train(mine, small, progress=False, **places(directory))
    runs.test(mine, small, CONDITIONS, trials=4, progress=False, **places(directory))
    saved_models.remove_marked(version.parent, "no such mark")
    assert version.is_dir() and (own / "backup" / "trials.csv").read_text() == "mine"
    assert all((own / name).exists() for name in (".bad-trials.csv", "notes.txt"))


def test_rows_that_no_plan_knows_are_not_thrown_away(mixed):
    two, directory = mixed
    rows = pd.DataFrame([Task(run, CONDITIONS, 3).columns() for run in two])
    results.add_to_plan(directory, "grid", rows)
    results.gather(directory, "grid")
    for run in two:
        shutil.rmtree(directory / run.name)
    path = directory / "grid" / "models.csv"
    path.unlink()
    results.add_to_plan(directory, "grid", rows.head(1))
    before = (directory / "grid" / "tables" / "trials.csv").read_bytes()
    with pytest.raises(Unavailable, match="models.csv lacks .* nowhere else; remove tables/"):
        results.gather(directory, "grid")
    assert (directory / "grid" / "tables" / "trials.csv").read_bytes() == before


def test_a_column_of_the_users_in_a_gathered_table_stays(mixed):
    two, directory = mixed
    rows = pd.DataFrame([Task(run, CONDITIONS, 3).columns() for run in two])
    results.add_to_plan(directory, "grid", rows)
    results.gather(directory, "grid")
    path = directory / "grid" / "tables" / "trials.csv"
    table = pd.read_csv(path)
    table["note"] = [f"NA {place}" for place in range(len(table))]
    table.sample(frac=1, random_state=1).to_csv(path, index=False)
    results.gather(directory, "grid")
    again = pd.read_csv(path, keep_default_na=False)
    assert again["note"].tolist() == table["note"].tolist()
