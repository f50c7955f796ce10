"""A model's `trials.csv`, which grows: no trial that is in it is run again."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import keras
import pandas as pd

from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition, by_condition, condition_key, number_of_trials
from robust_tf.files import locked, prepare_directory, writing_to
from robust_tf.results import checked, tables


def complete(
    path: Path,
    model: keras.Model | Callable,
    split: Split,
    conditions: Iterable[Condition],
    columns: Mapping[str, object],
    *,
    trials: int,
    seed: int,
    label: str | None = None,
) -> pd.DataFrame:
    """Runs the trials that a `trials.csv` lacks and adds them to it.

    Args:
        path: the file, in a folder of the output directory; both are made if absent.
        model: as in `evaluation.Evaluator`.
        split: the test set.
        conditions: what the model is tested with.
        columns: what is known of the model, `results.TRAINING_COLUMNS`.
        trials: passes for each random perturbation.
        seed: the experiment's seed.
        label: the progress bar's label; no bar without one.

    Returns:
        The trials asked for, columns as in `results.TRIAL_COLUMNS`.

    Raises:
        InvalidArgument: if a condition does not fit the images or `trials` is below 1.
        Unavailable: if the file cannot be written.
    """
    if trials < 1:
        raise InvalidArgument("trials", trials, "a whole number from 1 on")
    conditions = list(conditions)
    with locked(prepare_directory("output_dir", path.parent)):
        kept = _read(path)
        extra = [name for name in kept if name not in tables.TRIAL_COLUMNS]
        other = ~_of_model(kept, columns)
        if other.any():
            text = f"trials of another model than {columns['run']}, {columns['saved_model']}"
            warnings.warn(f"{path}: {text}, are left out", stacklevel=2)
            kept = kept[~other].reset_index(drop=True)
        if other.any() or (path.exists() and not checked.is_whole(path)):
            with writing_to("output_dir", path.parent.parent):
                if not len(kept) and not other.any():  # it may be mended by hand
                    path.replace(aside := path.with_name("trials-damaged.csv"))
                    warnings.warn(f"{path}: no row counts; kept as {aside.name}", stacklevel=2)
                checked.write(kept, path, tables.TRIAL_COLUMNS, extra=extra)
        of_test = (len(split), split.digest)
        done = _done(kept, of_test, conditions)
        # What a condition has cost is kept, should the next one be stopped.
        for rows in by_condition(
            model, split, conditions, trials=trials, seed=seed, done=done, label=label
        ):
            new = pd.DataFrame(rows).assign(**columns)[tables.TRIAL_COLUMNS]
            kept = pd.concat([kept, new], ignore_index=True) if len(kept) else new
            kept = kept.reindex(columns=[*tables.TRIAL_COLUMNS, *extra])
            with writing_to("output_dir", path.parent.parent):
                checked.write(kept, path, tables.TRIAL_COLUMNS, extra=extra)
        kept = read(path)
    wanted = _belongs(kept, of_test, conditions) & (kept["trial"] < trials)
    places = {condition.key: place for place, condition in enumerate(conditions)}
    found = kept[wanted].assign(place=list(map(places.get, _keys(kept[wanted]))))
    found = found.sort_values(["place", "trial"], kind="stable", ignore_index=True)
    return found.drop(columns="place")


def is_complete(
    path: Path,
    of_test: tuple[int, str],
    conditions: Iterable[Condition],
    columns: Mapping[str, object],
    *,
    trials: int,
) -> bool:
    """Whether a `trials.csv` has all trials of a model under some conditions.

    Args:
        path: the file; it may be absent.
        of_test: number of test images and digest of the test set.
        conditions: what the model is tested with.
        columns: what is known of the model, some of `results.TRAINING_COLUMNS`.
        trials: passes for each random perturbation.
    """
    conditions = list(conditions)
    kept = read(path)
    done = _done(kept[_of_model(kept, columns)], of_test, conditions)
    return all(
        (condition.key, trial) in done
        for condition in conditions
        for trial in range(number_of_trials(condition, trials))
    )


def read(path: Path) -> pd.DataFrame:
    """The rows of the table that count; none where there is no table."""
    return _read(path).reindex(columns=tables.TRIAL_COLUMNS)


def _read(path: Path) -> pd.DataFrame:
    """The same with the user's own columns, as text."""
    if not path.exists():
        return pd.DataFrame(columns=tables.TRIAL_COLUMNS)
    rows = tables.read_rows(path, lenient=True, but=tables.TRIAL_COLUMNS)
    return rows.reindex(columns=list(dict.fromkeys([*tables.TRIAL_COLUMNS, *rows])))


def _of_model(trials: pd.DataFrame, columns: Mapping[str, object]) -> pd.Series:
    """Which trials are of a model; what a table of an earlier version lacks may be anything."""
    same = pd.Series(True, trials.index)
    for name in (*tables.TRAINING_COLUMNS, "saved_model"):
        if name in columns:
            own = trials[name]
            same &= own.isna() | pd.Series([cell == columns[name] for cell in own], own.index)
    return same


def _done(
    kept: pd.DataFrame, of_test: tuple[int, str], conditions: list[Condition]
) -> set[tuple[tuple[str, float], int]]:
    """Key and trial of the stored trials of some conditions."""
    stored = kept[_belongs(kept, of_test, conditions)]
    return set(zip(_keys(stored), stored["trial"]))


def _keys(trials: pd.DataFrame) -> list[tuple[str, float]]:
    return [condition_key(*row) for row in zip(trials["test_perturb"], trials["test_level"])]


def _belongs(
    trials: pd.DataFrame, of_test: tuple[int, str], conditions: list[Condition]
) -> pd.Series:
    """Which trials are of some conditions, with all images of this test set."""
    examples, digest = of_test
    asked = {one.key: (one.examples(examples), one.digest(digest)) for one in conditions}
    have = zip(_keys(trials), zip(trials["n_examples"], trials["test_digest"]))
    return pd.Series([asked.get(key) == own for key, own in have], trials.index, dtype=bool)
