"""Damaged and edited tables: what counts of them, and what is said."""

import functools
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from robust_tf import results
from robust_tf.errors import Unavailable
from robust_tf.evaluation import Natural
from robust_tf.results import checked, tables
from tests.test_results import trials, write_run


def damaged_trials(tmp_path, edit, checksums=False) -> Path:
    """A run's trials.csv, edited as text; without digests, as of an earlier version."""
    write_run(tmp_path, "a")
    path = tmp_path / "a" / "trials.csv"
    text = path.read_text()
    changed = edit(text)
    assert changed != text
    path.write_text(changed)
    if not checksums:
        path.with_name("checksums.json").unlink()
    return path


def last(text: str) -> str:
    """Its last row."""
    return text.splitlines(keepends=True)[-1]


@pytest.mark.parametrize(
    ("edit", "left", "said"),
    [
        (lambda text: text[:-20], 6, "line 8: not whole"),
        (lambda text: text.replace(",2,0.53,", ",2,7.5,"), 6, "line 8: accuracy=7.5: expected"),
        (lambda text: text.replace(",2,0.53,", ",2,-0.1,"), 6, "line 8: accuracy=-0.1: expected"),
        (lambda text: text.replace(",2,0.53,", ",2,,"), 6, "line 8: accuracy=: expected a frac"),
        (lambda text: text.replace(",2,0.53,", ",2,many,"), 6, "line 8: accuracy=many: expecte"),
        (lambda text: text.replace(",2,0.53,", ",2.5,0.53,"), 6, "line 8: trial=2.5: expected"),
        (lambda text: text.replace("0.53,1000", "0.53,0"), 6, "line 8: n_examples=0: expected"),
        (
            lambda text: text.replace(last(text), "../" + last(text)),
            6,
            "line 8: run=../a: expected a name",
        ),
        (lambda text: text + last(text), 7, "line 9: doubled"),
        (lambda text: text + last(text).replace("0.53", "0.54"), 6, "line 9: doubled"),
        (lambda text: text + 2 * last(text), 7, "line 9: doubled and 1 more"),
        (lambda text: "", 0, "line 1: expected a table with the column run"),
        (lambda text: "<<<<<<< HEAD\n" + text, 0, "line 1: expected a table with the column run"),
        (lambda text: text.replace(",", ";"), 0, "line 1: expected a table with the column run"),
        (lambda text: "\0" * len(text), 0, "line 1: expected a table with the column run"),
    ],
)
def test_rows_that_do_not_count_are_left_out_and_said(tmp_path, edit, left, said):
    path = damaged_trials(tmp_path, edit)
    with pytest.warns(UserWarning, match=f"^{path}: {said}") as caught:
        table = results.read(tmp_path, "trials")
    assert len(table) == left and len(caught) == 1
    assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("0.75", "0.85", 6),
        ("hot,2", "hot,3", 4),
        ("a,mnist", "b,mnist", 0),
        (",2,0.53", ",3,0.53", 6),
        ("train_level", "train level", 0),
    ],
)
def test_a_row_in_range_counts_only_as_it_was_written(tmp_path, old, new, left):
    path = damaged_trials(tmp_path, lambda text: text.replace(old, new), checksums=True)
    with pytest.warns(UserWarning, match="not as it was written|the column train_level"):
        table = results.read(tmp_path, "trials")
    assert len(table) == left
    path.with_name("checksums.json").unlink()  # as the line says
    assert len(results.read(tmp_path, "trials")) == 7


def as_a_spreadsheet(path: Path) -> None:
    """Other line ends, a mark of the encoding, 2.0 as 2, rows in another order, a column."""
    rows = pd.read_csv(path).sort_values("accuracy").assign(note="checked")
    rows["test_level"] = rows["test_level"].map("{:g}".format).replace("nan", "")
    rows.to_csv(path, index=False, lineterminator="\r\n", encoding="utf-8-sig")


def test_what_a_spreadsheet_does_to_a_table_changes_nothing(tmp_path):
    write_run(tmp_path, "a")
    expected = results.read(tmp_path, "trials")
    as_a_spreadsheet(tmp_path / "a" / "trials.csv")
    found = results.read(tmp_path, "trials")
    assert set(found.pop("note")) == {"checked"}
    order = ["test_perturb", "trial"]
    tables = [table.sort_values(order, ignore_index=True) for table in (found, expected)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("table", ["runs", "history"])
@pytest.mark.parametrize("cut", [0, 3, 40, 55])
def test_a_damaged_table_of_a_run_is_one_line(tmp_path, table, cut):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"{table}.csv"
    rows = pd.DataFrame({"run": "a", "epoch": [1, 2, 3], "accuracy": 0.5, "loss": 1.25})
    rows = rows if table == "history" else rows.head(1)
    results.write(rows, path, list(rows))
    text = path.read_text()
    assert len(results.read(tmp_path, table)) == len(rows)
    path.write_text(text[:cut] if cut < len(text) else text + text)
    message = rf"^output_dir={path.parent}: {table}.csv is damaged \(.*; remove the folder to tr"
    with pytest.raises(Unavailable, match=message):
        results.read(tmp_path, table)


@pytest.mark.parametrize("run", ["../outside/x", "a/b", "..", "", "a\\b"])
def test_a_plan_names_no_folder_elsewhere(tmp_path, run):
    (tmp_path / "sweep").mkdir()
    models = pd.DataFrame({"run": [run], "tests": "natural", "trials": 1, "test_examples": 2})
    models.to_csv(tmp_path / "sweep" / "models.csv", index=False)
    with pytest.raises(Unavailable, match=r"models.csv is damaged \(line 2: run=.*; remove the fi"):
        results.gather(tmp_path, "sweep")


def test_damaged_tables_of_a_sweep_are_made_again_of_its_runs(tmp_path):
    write_run(tmp_path, "a")
    (tmp_path / "sweep" / "tables").mkdir(parents=True)
    columns = ["run", "dataset", "data_source", "test_digest"]
    models = trials()[columns].head(1).assign(tests="hot 2", trials=9, test_examples=1000)
    models.to_csv(tmp_path / "sweep" / "models.csv", index=False)
    path = tmp_path / "sweep" / "tables" / "trials.csv"
    for text in ("", "run,accuracy\na", "\0" * 100):
        path.write_text(text)
        results.gather(tmp_path, "sweep")
        assert results.read_experiment(tmp_path, "sweep", "trials")["trial"].tolist() == [0, 1, 2]
    shutil.rmtree(tmp_path / "a")  # then they are all that there is
    results.gather(tmp_path, "sweep")
    assert len(results.read_experiment(tmp_path, "sweep", "trials")) == 3
    path.write_text("")
    with pytest.raises(Unavailable, match="trials.csv is damaged .line 1: expected a table"):
        results.gather(tmp_path, "sweep")
    assert path.read_text() == ""  # and is not written over


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        ("hot,2.0,0", "hot,two,0", 6),
        ("0.53,1000,0.1", "0.53,1000,abc", 6),
        ("none,,0,none", "none,abc,0,none", 6),
        (",natural,", ",,", 0),
        (",0.53,", ",0.53777,", 6),
    ],
)
def test_text_for_a_number_does_not_count(tmp_path, old, new, left):
    damaged_trials(tmp_path, lambda text: text.replace(old, new))
    with pytest.warns(UserWarning, match="expected"):
        assert len(results.read(tmp_path, "trials")) == left


@pytest.mark.parametrize("name", ["trials", "epoch", "train_accuracy", "run", ""])
def test_a_column_of_the_users_has_no_rule(tmp_path, name):
    def add(text):
        return "".join(f"{line},{'NA' if n else name}\n" for n, line in enumerate(text.split()))

    path = damaged_trials(tmp_path, add)
    table = results.trials.read(path)
    assert len(table) == 7 and checked.is_whole(path)


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]"])
def test_damaged_checksums_are_said(tmp_path, content):
    path = tmp_path / "runs.csv"
    results.write(pd.DataFrame({"run": ["a"]}), path, ["run"])
    path.with_name("checksums.json").write_text(content)
    with pytest.raises(Unavailable, match="; remove checksums.json"):
        results.read(tmp_path, "runs")


def plan(*runs, **more) -> pd.DataFrame:
    """Rows of a plan: no two of one cell."""
    cell = {name: name for name in tables._CELL_COLUMNS}
    own = {"tests": "natural", "trials": 2, "test_examples": 9, "dropout": 0.5, "train_level": 1}
    rows = [cell | own | {"run": run, "seed": n} | more for n, run in enumerate(runs)]
    return pd.DataFrame(rows).assign(strategy="constant")


@pytest.mark.parametrize(
    ("old", "new"), [(",2,9,", ",1,9,"), ("natural,", "hot 2,"), (",9,", ",8,"), ("0.5", "0.25")]
)
def test_a_plan_that_was_edited_in_range_is_not_taken(tmp_path, old, new):
    results.add_to_plan(tmp_path, "sweep", plan("a", "b"))
    path = tmp_path / "sweep" / "models.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    for act in (results.gather, functools.partial(results.add_to_plan, rows=plan("c"))):
        with pytest.raises(Unavailable, match="models.csv is damaged .line 2: not as it was writ"):
            act(tmp_path, "sweep")
    path.unlink()  # as the line says
    results.add_to_plan(tmp_path, "sweep", plan("a", "b"))
    assert len(results.read_experiment(tmp_path, "sweep", "models")) == 2


def test_a_plan_that_is_stopped_while_it_grows_is_whole(tmp_path, monkeypatch):
    results.add_to_plan(tmp_path, "sweep", plan("a", "b"))
    path = tmp_path / "sweep" / "models.csv"
    before, replace = path.read_bytes(), os.replace

    def stop(source, target):
        if Path(target) == path:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop)
        results.add_to_plan(tmp_path, "sweep", plan("a", "b", "c", new="later"))
    assert path.read_bytes() == before
    assert len(results.read_experiment(tmp_path, "sweep", "models")) == 2
    results.add_to_plan(tmp_path, "sweep", plan("a", "b", "c", new="later"))
    assert results.read_experiment(tmp_path, "sweep", "models")["run"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("content", ["", "run;trial\n", "\0" * 50, "<<<<<<< HEAD\n"])
def test_a_table_of_which_nothing_counts_is_kept_aside(tmp_path, small, trained, content):
    path = tmp_path / "a" / "trials.csv"
    path.parent.mkdir()
    path.write_text(content)
    columns = dict.fromkeys([*tables.TRAINING_COLUMNS, "saved_model"], "x") | {"seed": 0}
    columns |= {"strategy": "natural", "train_perturb": "none", "train_level": None}
    with pytest.warns(UserWarning, match="no row counts; kept as trials-damaged.csv"):
        rows = results.trials.complete(
            path, trained, small.test, [Natural()], columns, trials=1, seed=0
        )
    assert len(rows) == 1 and path.with_name("trials-damaged.csv").read_text() == content
