"""A model's file of trials, which grows: no trial that is in it is run again."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from robust_tf.data import Split
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition, OtherImages, by_condition, number_of_trials
from robust_tf.files import locked, prepare_directory, writing_to
from robust_tf.results import tables


def complete(
    path: Path,
    model: keras.Model | Callable,
    split: Split,
    conditions: Iterable[Condition],
    columns: Mapping[str, Any],
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
        conditions: perturbations, and None for natural images.
        columns: what tells of the model, `results.TRAINING_COLUMNS`.
        trials: passes for each random perturbation.
        seed: the experiment's seed.
        label: the progress bar's label; no bar without one.

    Returns:
        The asked trials, columns as in `results.TRIAL_COLUMNS`.

    Raises:
        InvalidArgument: if a condition does not fit the images or `trials` is below 1.
        Unavailable: if the file cannot be written.
    """
    if trials < 1:
        raise InvalidArgument("trials", trials, "a whole number from 1 on")
    conditions = list(conditions)
    with locked(prepare_directory("output_dir", path.parent)):
        kept = _read(path)
        done = _done(kept, len(split), conditions, trials)
        # What a condition has cost is kept, should the next one be stopped.
        for rows in by_condition(
            model, split, conditions, trials=trials, seed=seed, done=done, label=label
        ):
            new = pd.DataFrame(rows).assign(**columns)[tables.TRIAL_COLUMNS]
            kept = pd.concat([kept, new], ignore_index=True) if len(kept) else new
            with writing_to("output_dir", path.parent.parent):
                tables.write(kept, path, tables.TRIAL_COLUMNS)
        kept = _read(path)
    asked = _sizes(conditions, len(split))
    wanted = [
        row["trial"] < trials and asked.get(_row_key(row)) == row["n_examples"]
        for row in kept.to_dict("records")
    ]
    return kept[wanted].reset_index(drop=True)


def is_complete(path: Path, examples: int, conditions: Iterable[Condition], *, trials: int) -> bool:
    """Whether a `trials.csv` has all trials of some conditions.

    Args:
        path: the file; it may be absent.
        examples: number of test images.
        conditions: perturbations, and None for natural images.
        trials: passes for each random perturbation.
    """
    conditions = list(conditions)
    asked = sum(number_of_trials(condition, trials) for condition in conditions)
    return len(_done(_read(path), examples, conditions, trials)) == asked


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=tables.TRIAL_COLUMNS)


def _done(
    kept: pd.DataFrame, examples: int, conditions: Iterable[Condition], trials: int
) -> set[tuple[Condition, int]]:
    """The asked trials that are there."""
    sizes = _sizes(conditions, examples)
    there = {
        (_row_key(row), row["trial"])
        for row in kept.to_dict("records")
        if sizes.get(_row_key(row)) == row["n_examples"]
    }
    return {
        (condition, trial)
        for condition in conditions
        for trial in range(number_of_trials(condition, trials))
        if (_key(condition), trial) in there
    }


def _sizes(conditions: Iterable[Condition], examples: int) -> dict[tuple[str, float], int]:
    """How many images each condition has, the test set having `examples`."""
    return {
        _key(condition): len(condition.split) if isinstance(condition, OtherImages) else examples
        for condition in conditions
    }


def _key(condition: Condition) -> tuple[str, float]:
    """What tells conditions of a run apart, whatever a CSV made of the last bit of a level."""
    return (condition.kind, _level(condition.level)) if condition else ("none", 0.0)


def _row_key(row: Mapping[str, Any]) -> tuple[str, float]:
    """The `_key` of the condition of a row of trials."""
    return row["test_perturb"], _level(row["test_level"])


def _level(level: float) -> float:
    return 0.0 if pd.isna(level) else round(level, 9)
