"""The tables of results on disk: their columns, writing, reading and gathering.

Tidy: one row per observation, the same columns from every pipeline. Natural images and
natural training have the perturbation "none" and an empty level. Accuracies are fractions.
"""

import csv
import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from robust_tf.data import DIGESTS
from robust_tf.errors import InvalidArgument, Unavailable
from robust_tf.evaluation import condition_label
from robust_tf.files import locked, writing_to
from robust_tf.results import checked
from robust_tf.results.labelling import training_label

TRAINING_COLUMNS = [
    "run",
    "dataset",
    "data_source",
    "model",
    "strategy",
    "train_perturb",
    "train_level",
    "seed",
]
TEST_COLUMNS = ["test_perturb", "test_level"]
TRIAL_COLUMNS = [
    *TRAINING_COLUMNS,
    *TEST_COLUMNS,
    "trial",
    "accuracy",
    "n_examples",
    "changed",
    "test_digest",
    "saved_model",
]
HISTORY_COLUMNS = [
    "epoch",
    "loss",
    "accuracy",
    "perturbed_fraction",
    "seconds",
    "images_per_second",
]
# Of runs with images that are held out.
VALIDATION_COLUMNS = ["val_loss", "val_accuracy"]

# What tells the models of an experiment apart.
_CELL_COLUMNS = [
    "dataset",
    "strategy",
    "train_perturb",
    "train_level",
    "seed",
    "batch_norm",
    "dropout",
    "activation",
    "standardize",
]


def read_rows(
    path: str | os.PathLike, *, lenient: bool = False, but: Iterable[str] | None = None
) -> pd.DataFrame:
    """A table of runs, trials or models; arguments as in `checked.read`.

    Where a row is from before there were digests it gets the `test_digest` that its dataset
    had then.
    """
    rows = checked.read(Path(path), lenient=lenient, but=but)
    if "dataset" not in rows:
        return rows
    datasets = zip(rows["dataset"], rows["data_source"])
    known = pd.Series([DIGESTS.get(one, ("", ""))[1] for one in datasets], rows.index, object)
    digests = rows.get("test_digest", known).astype(object).fillna(known)
    rows["test_digest"] = digests.infer_objects()
    return rows


def read(output_dir: str | os.PathLike, table: str) -> pd.DataFrame:
    """Gathers a table from all finished runs of a directory.

    Args:
        output_dir: holds one folder per run; or the gathered table of an experiment.
        table: "trials", "runs" or "history" (which gets the column `run`).

    Returns:
        All rows, runs in order of their names.

    Raises:
        Unavailable: if there is no such table, or one of runs or history is damaged; rows of
            trials that do not count are left out, with a warning.
    """
    gathered = Path(output_dir) / f"{table}.csv"
    lenient = table == "trials"
    if gathered.exists():
        return _read(gathered, lenient)
    tables = []
    for path in sorted(Path(output_dir).glob(f"*/{table}.csv")):
        if path.parent.suffix == ".partial":
            continue
        rows = _read(path, lenient)
        if "run" not in rows:
            rows.insert(0, "run", path.parent.name)
        copied = [run for run in rows["run"].unique() if _is_copy(path, run)]
        if copied:
            text = f"{path} is of the run {copied[0]}, whose folder is beside it"
            warnings.warn(f"{text}; it is left out", stacklevel=2)
        tables.append(rows[~rows["run"].isin(copied)])
    if not tables:
        raise Unavailable("output_dir", output_dir, f"no run in it has a {table}.csv")
    return _together(tables).infer_objects()


def _is_copy(path: Path, run: Any) -> bool:
    """Whether a table in one run's folder is of another, which has its own."""
    own = path.parent.with_name(f"{run}") if run else path.parent
    return own != path.parent and (own / path.name).exists()


def _read(path: Path, lenient: bool) -> pd.DataFrame:
    return read_rows(path, lenient=True) if lenient else checked.read(path)


def _together(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All rows of tables, whose cells stay as they are: no False becomes 0, no 6 becomes 6.0."""
    cells = [table.astype(object) for table in tables]
    return pd.concat(cells, ignore_index=True)


def read_experiment(output_dir: str | os.PathLike, experiment: str, table: str) -> pd.DataFrame:
    """A table of an experiment, as `gather` left it.

    Args:
        output_dir: where the experiment's folder is.
        experiment: its name.
        table: "runs", "trials", "examples" or "models", the experiment's plan.

    Returns:
        The table; empty if it is not there.

    Raises:
        Unavailable: if it is damaged.
    """
    folder = Path(output_dir) / experiment
    path = (folder if table == "models" else folder / "tables") / f"{table}.csv"
    return checked.read(path) if path.exists() else pd.DataFrame()


def read_history(folder: str | os.PathLike) -> pd.DataFrame:
    """A finished run's `history.csv`.

    Raises:
        Unavailable: if it is damaged.
    """
    return checked.read(Path(folder) / "history.csv")


def read_run(folder: str | os.PathLike) -> dict[str, Any]:
    """The one row of a finished run's `runs.csv`.

    Raises:
        Unavailable: if it is damaged.
    """
    path = Path(folder) / "runs.csv"
    table = checked.read(path)
    if len(table) != 1 or not isinstance(table.get("saved_model", [None])[0], str):
        problem = f"expected one run with its SavedModel in {path.name}"
        raise Unavailable("output_dir", folder, f"{problem}; {checked.AGAIN}")
    if _is_copy(path, table["run"][0]):
        problem = f"{path.name} is of another run, {table['run'][0]}"
        raise Unavailable("output_dir", folder, f"{problem}; {checked.AGAIN}")
    return table.iloc[0].to_dict()


def add_to_plan(output_dir: str | os.PathLike, experiment: str, rows: pd.DataFrame) -> None:
    """Notes an experiment's models in `<output_dir>/<experiment>/models.csv`.

    A model that is there already gets the tests that it lacks.

    Args:
        output_dir: where the runs' folders are.
        experiment: its name.
        rows: one row per model: the settings of its run, `tests`, what it is tested with
            ("natural;hot 2"), and `trials`, how often.

    Raises:
        InvalidArgument: if a model is there with other settings; an experiment has one
            of each.
        Unavailable: if it cannot be written.
    """
    folder = Path(output_dir) / experiment
    path = folder / "models.csv"
    with writing_to("output_dir", output_dir), locked(folder):
        # As text, so that cells stay as they are: a column of new rows alone makes no 6 a 6.0.
        text = rows.astype(object).to_csv(index=False)
        rows = _cells(io.StringIO(text))
        columns = list(rows)
        if path.exists():
            _check_same_settings(output_dir, checked.read(path), pd.read_csv(io.StringIO(text)))
            rows = pd.concat([_cells(path), rows], ignore_index=True).fillna("")
            trials = rows["trials"].astype(float).astype(int).groupby(rows["run"]).transform("max")
            tests = rows.groupby("run", sort=False)["tests"].agg(_union)
            rows = rows.assign(trials=trials, tests=rows["run"].map(tests))
            places = rows["run"].drop_duplicates()
            rows = rows.drop_duplicates("run", keep="last").set_index("run").loc[places]
            rows = rows.reset_index()
        checked.write(rows, path, [*columns, *(name for name in rows if name not in columns)])


def _cells(file: Path | io.StringIO) -> pd.DataFrame:
    """A CSV whose cells are the text that is there."""
    return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def _check_same_settings(
    output_dir: str | os.PathLike, known: pd.DataFrame, rows: pd.DataFrame
) -> None:
    both = rows.merge(known, on=_CELL_COLUMNS, suffixes=("", "_there"))
    for _, row in both[both["run"] != both["run_there"]].iterrows():
        different = [
            f"{column} {row[f'{column}_there']} there, {row[column]} asked for"
            for column in rows
            if f"{column}_there" in row and column not in ("run", "tests", "trials")
            if str(row[column]) != str(row[f"{column}_there"])
        ]
        label = training_label(row["strategy"], row["train_perturb"], row["train_level"])
        expected = f"a directory without {label} of other settings ({'; '.join(different)})"
        raise InvalidArgument("output_dir", output_dir, expected)


def _union(tests: pd.Series) -> str:
    return ";".join(dict.fromkeys(";".join(tests).split(";")))


def gather(output_dir: str | os.PathLike, experiment: str) -> None:
    """Gathers an experiment's tables from its runs, as far as there are some.

    Writes `runs.csv` and `trials.csv` to `<output_dir>/<experiment>/tables/`, in order of
    `models.csv`. A run whose folder is gone keeps the rows that it has there.

    Args:
        output_dir: where the runs' folders are.
        experiment: its name.

    Raises:
        Unavailable: if a table is damaged and cannot be made again of others.
    """
    folder = Path(output_dir) / experiment
    with locked(folder):
        models = read_rows(folder / "models.csv")
        (folder / "tables").mkdir(exist_ok=True)
        for name, columns in (("runs", TRAINING_COLUMNS), ("trials", TRIAL_COLUMNS)):
            path = folder / "tables" / f"{name}.csv"
            places = [Path(output_dir) / run / f"{name}.csv" for run in models["run"]]
            known = pd.DataFrame(columns=columns)
            extra = _extra(path, columns) if name == "trials" else []
            if path.exists() and (extra or not all(own.exists() for own in places)):
                # Runs as text: their cells stay as they are beside rows that lack a column.
                but = [] if name == "runs" else columns if extra else None
                known = read_rows(path, lenient=True, but=but)
                if known.empty and name == "trials":
                    read_rows(path)  # damaged as a whole, it may be mended by hand
                _check_plan(folder, known, models)
            tables = []
            for model, own in zip(models.itertuples(), places):
                rows = known[known["run"] == model.run]
                if own.exists():
                    rows = _of_run(own, model.run, lenient=name == "trials")
                tables.append(_asked(rows, model) if name == "trials" else rows)
            tables = [table for table in tables if len(table)]
            table = _together(tables) if tables else known
            if extra:
                key = ["run", *TEST_COLUMNS, "trial", "n_examples", "test_digest"]
                users = known[[*key, *extra]].astype(dict.fromkeys(key, object))
                table = table[columns].merge(users, how="left", on=key)
            names = columns if name == "trials" else list(table)
            checked.write(table.reindex(columns=[*names, *extra]), path, names, extra=extra)


def _extra(path: Path, columns: list[str]) -> list[str]:
    """The columns of the user's in a gathered table of trials."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return []
    whole = set(header) >= {"run", *TEST_COLUMNS, "trial", "accuracy"}
    return [name for name in header if name and name not in columns] if whole else []


def _check_plan(folder: Path, known: pd.DataFrame, models: pd.DataFrame) -> None:
    """Raises `Unavailable` if rows would be lost that no run's folder has."""
    output_dir = folder.parent
    lost = [run for run in known["run"].unique() if run not in set(models["run"])]
    lost = [run for run in lost if not (output_dir / run).is_dir()]
    if lost:
        problem = f"models.csv lacks {lost[0]}, which is in tables/ and nowhere else; remove "
        raise Unavailable("output_dir", folder, f"{problem}tables/ to leave it out")


def _of_run(path: Path, run: str, lenient: bool) -> pd.DataFrame:
    """A table in a run's folder, as far as it is of the run."""
    rows = read_rows(path, lenient=lenient)
    other = rows["run"] != run
    if other.any() and not lenient:
        problem = f"{path.name} is of another run, {rows['run'][other].iloc[0]}"
        raise Unavailable("output_dir", path.parent, f"{problem}; {checked.AGAIN}")
    return rows[~other]


def _asked(trials: pd.DataFrame, model: Any) -> pd.DataFrame:
    """Those trials of a run that belong to an experiment, in order of its tests."""
    tests = {test: place for place, test in enumerate(model.tests.split(";"))}
    labels = [condition_label(*row) for row in zip(trials["test_perturb"], trials["test_level"])]
    places = pd.Series([tests.get(label, -1) for label in labels], index=trials.index)
    mine = (places >= 0) & (trials["n_examples"] == model.test_examples)
    mine &= trials["test_digest"] == model.test_digest
    mine &= trials["trial"] < model.trials
    order = trials.assign(place=places)[mine].sort_values(["place", "trial"], kind="stable")
    return order.drop(columns="place")
