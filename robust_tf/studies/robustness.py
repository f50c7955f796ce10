"""How a saved classifier, third-party ones too, holds up under sensor changes."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from robust_tf import results
from robust_tf.data import Data
from robust_tf.errors import InvalidArgument
from robust_tf.evaluation import Condition, evaluate
from robust_tf.files import digest, file_name
from robust_tf.results import defect_maps, figures
from robust_tf.results import trials as trials_lib
from robust_tf.saved_models import Classifier, matched


def measure(
    classifier: Classifier,
    data: Data,
    conditions: Iterable[Condition],
    *,
    trials: int,
    seed: int,
    progress: bool = True,
) -> pd.DataFrame:
    """Tests a saved classifier.

    Args:
        classifier: from `classifiers.load`.
        data: the dataset; its test split is used.
        conditions: what it is tested with.
        trials: passes for each random perturbation.
        seed: the experiment's seed.
        progress: show a progress bar.

    Returns:
        One row per trial, columns as in `results.TRIAL_COLUMNS`. `model` is the classifier's
        name; `strategy` is "external" for a third-party model.

    Raises:
        InvalidArgument: if it or a condition does not fit the images, or `trials` is below 1.
    """
    if trials < 1:
        raise InvalidArgument("trials", trials, "a whole number from 1 on")
    classifier = matched(classifier, data)
    conditions = list(conditions)
    table = evaluate(
        classifier,
        data.test,
        conditions,
        trials=trials,
        seed=seed,
        label=_label(classifier, progress),
    )
    return table.assign(**_columns(classifier, data, conditions, seed))[results.TRIAL_COLUMNS]


def write(
    classifier: Classifier,
    data: Data,
    conditions: Iterable[Condition],
    *,
    trials: int,
    seed: int,
    output_dir: str | os.PathLike,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame]:
    """Tests a saved classifier as `runs.test` does a run; no trial that is there is run again.

    Args:
        classifier: as in `measure`, like all that follow.
        data: the dataset.
        conditions: what it is tested with.
        trials: passes for each random perturbation.
        seed: the experiment's seed.
        output_dir: where a folder for its results is made.
        progress: show a progress bar.

    Returns:
        The folder, with `trials.csv`, `figures/accuracy.png` and a figure of each device's
        defect map; and the trials asked for, as of `measure`.

    Raises:
        InvalidArgument: as `measure`.
        Unavailable: if the folder cannot be written.
    """
    classifier = matched(classifier, data)
    conditions = list(conditions)
    columns = _columns(classifier, data, conditions, seed)
    folder = Path(output_dir) / columns["run"]
    table = trials_lib.complete(
        folder / "trials.csv",
        classifier,
        data.test,
        conditions,
        columns,
        trials=trials,
        seed=seed,
        label=_label(classifier, progress),
    )
    maps = defect_maps.of_devices(conditions, data.image_shape)
    figures.save({"accuracy": figures.accuracy(table), **maps}, folder / "figures")
    return folder, table


def _columns(
    classifier: Classifier, data: Data, conditions: list[Condition], seed: int
) -> dict[str, Any]:
    """The columns that are the same in all rows: `results.TRAINING_COLUMNS`."""
    channel_blur = any(condition.channel_blur for condition in conditions)
    of_data = (data.source, data.test.digest, data.test.divisor, data.label_names)
    identity = digest(*classifier.identity, of_data, seed, channel_blur)
    training = classifier.metadata.get("training", {})
    level = training.get("train_level")
    return {
        "run": file_name(f"{classifier.name} {data.name} {identity}"),
        "dataset": data.name,
        "data_source": data.source,
        "model": classifier.name,
        "strategy": training.get("strategy", "external"),
        "train_perturb": training.get("train_perturb", "none"),
        "train_level": math.nan if level is None else level,
        "seed": seed,
        "saved_model": classifier.name,
    }


def _label(classifier: Classifier, progress: bool) -> str | None:
    return f"testing {classifier.name}" if progress else None
